//! Published ports.

use std::net::{Ipv4Addr, TcpListener};

use biga_model::kinds::instance::{PortMapping, Protocol};
use biga_net::Error;

use crate::support::*;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn tcp(port: u16, host_port: Option<u16>) -> PortMapping {
    PortMapping {
        port,
        host_port,
        ..PortMapping::default()
    }
}

fn at(mapping: PortMapping, ip: &str) -> PortMapping {
    PortMapping {
        host_ip: Some(ip.into()),
        ..mapping
    }
}

#[test]
fn a_port_is_reached_from_everywhere() {
    world(async |w| {
        let outside = Outside::new();
        let gateway: Ipv4Addr = w.network("a").await.gateway.parse().unwrap();
        w.network("b").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        let z = w.instance("z", &["b"]).await;
        serve_tcp(&x.netns, 80, "x");
        let ports = w.net.publish("x", x.ip(), &[tcp(80, Some(8080))]).await.unwrap();
        assert_eq!(ports, [tcp(80, Some(8080))]);
        // From outside, with the true address.
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("x {OUTSIDE}"));
        // From the host, by all its addresses.
        assert_eq!(ask_tcp_here(LOOPBACK, 8080), format!("x {gateway}"));
        assert!(ask_tcp_here(HOST, 8080).starts_with("x "));
        assert!(ask_tcp_here(gateway, 8080).starts_with("x "));
        // From another instance, from itself, from another network.
        assert!(ask_tcp(&y.netns, HOST, 8080).starts_with("x "));
        assert!(ask_tcp(&x.netns, HOST, 8080).starts_with("x "));
        assert!(ask_tcp(&x.netns, gateway, 8080).starts_with("x "));
        assert!(ask_tcp(&z.netns, HOST, 8080).starts_with("x "));
        // Others are still closed.
        assert!(refused_tcp(&outside.netns, HOST, 8081));

        w.net.unpublish("x").await.unwrap();
        assert!(refused_tcp(&outside.netns, HOST, 8080));
        assert!(TcpListener::bind("0.0.0.0:8080").is_ok());
    });
}

#[test]
fn udp_is_published_too() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        serve_udp(&x.netns, 53, "x");
        let wanted = PortMapping {
            protocol: Protocol::Udp,
            ..tcp(53, Some(5353))
        };
        w.net.publish("x", x.ip(), &[wanted]).await.unwrap();
        assert!(ask_udp_here(LOOPBACK, 5353).starts_with("x "));
    });
}

#[test]
fn any_free_port_of_a_range_will_do() {
    world(async |w| {
        w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        let range = || PortMapping {
            host_port_end: Some(8081),
            ..tcp(80, Some(8080))
        };
        serve_tcp(&y.netns, 80, "y");
        let first = w.net.publish("x", x.ip(), &[range()]).await.unwrap();
        assert_eq!((first[0].host_port, first[0].host_port_end), (Some(8080), None));
        let next = w.net.publish("y", y.ip(), &[range()]).await.unwrap();
        assert_eq!(next[0].host_port, Some(8081));
        assert!(ask_tcp_here(LOOPBACK, 8081).starts_with("y "));
        let full = w.net.publish("z", y.ip(), &[range()]).await;
        assert!(
            matches!(
                full,
                Err(Error::NoPort {
                    from: 8080,
                    to: 8081,
                    ..
                })
            ),
            "{full:?}"
        );
    });
}

#[test]
fn the_host_address_is_honoured() {
    world(async |w| {
        let outside = Outside::new();
        w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&x.netns, 80, "x");
        serve_tcp(&y.netns, 80, "y");
        let local = at(tcp(80, Some(8080)), "127.0.0.1");
        w.net.publish("x", x.ip(), &[local]).await.unwrap();
        let global = at(tcp(80, Some(8080)), &HOST.to_string());
        w.net.publish("y", y.ip(), &[global]).await.unwrap();
        assert!(ask_tcp_here(LOOPBACK, 8080).starts_with("x "));
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("y {OUTSIDE}"));
        for bad in ["192.0.2.77", "fd00::1", "x"] {
            let r = w.net.publish("y", y.ip(), &[at(tcp(80, Some(9090)), bad)]).await;
            assert!(matches!(r, Err(Error::HostIp { .. })), "{r:?}");
        }
    });
}

#[test]
fn a_published_port_on_an_internal_network_answers() {
    world(async |w| {
        let outside = Outside::new();
        let spec = biga_model::NetworkSpec {
            internal: true,
            ..Default::default()
        };
        w.net.ensure_network(&uid_of("i"), "i", &spec, None).await.unwrap();
        let x = w.instance("x", &["i"]).await;
        serve_tcp(&x.netns, 80, "x");
        w.net.publish("x", x.ip(), &[tcp(80, Some(8080))]).await.unwrap();
        assert!(ask_tcp(&outside.netns, HOST, 8080).starts_with("x "));
    });
}

#[test]
fn a_free_port_is_picked() {
    world(async |w| {
        w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        let _taken = TcpListener::bind("0.0.0.0:32769").unwrap();
        let ports = w
            .net
            .publish("x", x.ip(), &[tcp(80, None), tcp(81, None)])
            .await
            .unwrap();
        let picked: Vec<_> = ports.iter().map(|p| p.host_port.unwrap()).collect();
        assert_eq!(picked, [32768, 32770]);
        let ports = w.net.publish("y", y.ip(), &[tcp(80, None)]).await.unwrap();
        assert_eq!(ports[0].host_port, Some(32771));
        serve_tcp(&x.netns, 81, "x");
        assert!(ask_tcp_here(LOOPBACK, 32770).starts_with("x "));
    });
}

#[test]
fn conflicts_name_the_port() {
    world(async |w| {
        w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        w.net.publish("x", x.ip(), &[tcp(80, Some(8080))]).await.unwrap();
        let before = ruleset();

        let e = w
            .net
            .publish("y", y.ip(), &[tcp(1, Some(9090)), tcp(80, Some(8080))])
            .await
            .unwrap_err();
        assert!(e.is_conflict());
        assert_eq!(
            e.to_string(),
            "port 8080/tcp of the host is already published by instance x"
        );
        let e = w
            .net
            .publish("y", y.ip(), &[at(tcp(80, Some(8080)), "127.0.0.1")])
            .await
            .unwrap_err();
        assert!(matches!(e, Error::PortInUse { port: 8080, .. }));
        let e = w
            .net
            .publish("y", y.ip(), &[tcp(1, Some(9090)), tcp(2, Some(9090))])
            .await
            .unwrap_err();
        assert!(matches!(e, Error::PortInUse { port: 9090, .. }));

        let _other = TcpListener::bind("127.0.0.1:7070").unwrap();
        let e = w.net.publish("y", y.ip(), &[tcp(80, Some(7070))]).await.unwrap_err();
        assert_eq!(
            e.to_string(),
            "port 7070/tcp of the host is already in use by another program"
        );
        // The other way round: programs see that the port is taken.
        let e = TcpListener::bind("0.0.0.0:8080").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::AddrInUse);

        // A refusal changes nothing, nor does publishing the same again.
        w.net.publish("x", x.ip(), &[tcp(80, Some(8080))]).await.unwrap();
        assert!(
            w.net
                .publish("x", x.ip(), &[tcp(80, Some(8080)), tcp(80, Some(7070))])
                .await
                .is_err()
        );
        assert_eq!(ruleset(), before);
        w.net.publish("x", x.ip(), &[tcp(80, Some(8081))]).await.unwrap();
        w.net.publish("y", y.ip(), &[tcp(80, Some(8080))]).await.unwrap();
    });
}

#[test]
fn many_publish_at_once() {
    world(async |w| {
        w.network("a").await;
        let mut all = tokio::task::JoinSet::new();
        for i in 0..20u8 {
            let net = w.net.clone();
            all.spawn(async move {
                let uid = format!("i{i}");
                let ip = net.allocate(&uid_of("a"), &uid, None).unwrap();
                net.publish(&uid, ip, &[tcp(80, None)]).await.unwrap()[0]
                    .host_port
                    .unwrap()
            });
        }
        let mut ports = all.join_all().await;
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        assert_eq!(ruleset().matches("tcp . 327").count(), 20, "{}", ruleset());
        for i in 0..20 {
            w.net.unpublish(&format!("i{i}")).await.unwrap();
        }
        assert!(!ruleset().contains("tcp . 327"));
    });
}

#[test]
fn a_flushed_ruleset_is_written_again() {
    world(async |w| {
        let outside = Outside::new();
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        serve_tcp(&x.netns, 80, "x");
        run("nft", &["flush", "ruleset"]);
        w.net.publish("x", x.ip(), &[tcp(80, Some(8080))]).await.unwrap();
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("x {OUTSIDE}"));
        run("nft", &["flush", "ruleset"]);
        w.network("a").await;
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("x {OUTSIDE}"));
    });
}
