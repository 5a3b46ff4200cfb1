//! Options of a network: who is kept from whom, under which address, by which name.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};

use biga_model::NetworkSpec;
use biga_model::kinds::instance::{PortMapping, Protocol};
use biga_model::kinds::network::GatewayMode;
use biga_net::Error;

use crate::support::*;

fn publish(port: u16, host_port: u16) -> PortMapping {
    PortMapping {
        port,
        host_port: Some(host_port),
        ..PortMapping::default()
    }
}

/// Whether a single ping is answered.
fn pings(from: &Instance, to: Ipv4Addr) -> bool {
    let out = try_exec(&from.netns, "busybox", &["ping", "-c", "1", "-w", "2", &to.to_string()]);
    out.status.success()
}

/// Gives the outside a way to the instances.
fn route_in(outside: &Outside) {
    outside.exec("ip", &["route", "add", "10.88.0.0/16", "via", &HOST.to_string()]);
}

#[test]
fn isolated_instances_meet_only_by_published_ports() {
    world(async |w| {
        let outside = Outside::new();
        w.network("a").await;
        let spec = NetworkSpec {
            isolate_instances: true,
            ..NetworkSpec::default()
        };
        let up = w.with("i", &spec).await;
        let (x, y) = (w.instance("x", &["i"]).await, w.instance("y", &["i"]).await);
        serve_tcp(&y.netns, 80, "y");
        serve_tcp(&outside.netns, 80, "out");
        assert!(!pings(&x, y.ip()));
        assert!(refused_tcp(&x.netns, y.ip(), 80));
        // Nor by the host, to which it could send what is for the other.
        exec(
            &x.netns,
            "ip",
            &["route", "add", &y.ip().to_string(), "via", &up.gateway],
        );
        assert!(refused_tcp(&x.netns, y.ip(), 80));
        exec(&x.netns, "ip", &["route", "del", &y.ip().to_string()]);
        // All else goes.
        assert!(ask_tcp_here(y.ip(), 80).starts_with("y "));
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
        w.net.publish("y", y.ip(), &[publish(80, 8080)]).await.unwrap();
        assert!(ask_tcp(&x.netns, HOST, 8080).starts_with("y "));
        // One that was adopted after a restart is kept apart as before.
        let ends = [x.endpoints.clone(), y.endpoints.clone()];
        let mut w = w;
        w.restart();
        w.with("i", &spec).await;
        for (uid, ends) in ["x", "y"].iter().zip(&ends) {
            w.net.restore(&uid_of("i"), uid, ends[0].address).unwrap();
            w.net.attach_container(uid, ends, &Default::default()).await.unwrap();
        }
        assert!(refused_tcp(&x.netns, y.ip(), 80));
    });
}

#[test]
fn the_outside_sees_what_the_network_says() {
    world(async |w| {
        let outside = Outside::new();
        route_in(&outside);
        run("ip", &["addr", "add", "192.0.2.9/24", "dev", "up0"]);
        serve_tcp(&outside.netns, 80, "out");
        let bare = NetworkSpec {
            masquerade: Some(false),
            ..NetworkSpec::default()
        };
        w.with("bare", &bare).await;
        let other = NetworkSpec {
            source_address: Some("192.0.2.9".into()),
            ..NetworkSpec::default()
        };
        w.with("other", &other).await;
        let (x, y) = (w.instance("x", &["bare"]).await, w.instance("y", &["other"]).await);
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {}", x.ip()));
        assert_eq!(ask_tcp(&y.netns, OUTSIDE, 80), "out 192.0.2.9");
        // It can be changed, and then is.
        w.with("bare", &NetworkSpec::default()).await;
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
    });
}

#[test]
fn ports_are_bound_where_the_network_says() {
    world(async |w| {
        let outside = Outside::new();
        let spec = NetworkSpec {
            bind_address: Some("127.0.0.1".into()),
            ..NetworkSpec::default()
        };
        w.with("a", &spec).await;
        let x = w.instance("x", &["a"]).await;
        serve_tcp(&x.netns, 80, "x");
        let open = PortMapping {
            host_ip: Some("0.0.0.0".into()),
            ..publish(80, 8081)
        };
        let ports = w.net.publish("x", x.ip(), &[publish(80, 8080), open]).await.unwrap();
        assert_eq!(ports[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert!(ask_tcp_here(Ipv4Addr::LOCALHOST, 8080).starts_with("x "));
        assert!(refused_tcp(&outside.netns, HOST, 8080));
        assert!(ask_tcp(&outside.netns, HOST, 8081).starts_with("x "));
    });
}

#[test]
fn an_unprotected_network_is_open_to_outside_only() {
    world(async |w| {
        let outside = Outside::new();
        route_in(&outside);
        let spec = NetworkSpec {
            gateway_mode: GatewayMode::NatUnprotected,
            ..NetworkSpec::default()
        };
        w.with("open", &spec).await;
        w.network("a").await;
        let (x, y) = (w.instance("x", &["open"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&x.netns, 80, "x");
        serve_tcp(&outside.netns, 80, "out");
        assert_eq!(ask_tcp(&outside.netns, x.ip(), 80), format!("x {OUTSIDE}"));
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
        assert!(refused_tcp(&y.netns, x.ip(), 80));
    });
}

#[test]
fn a_routed_network_translates_nothing() {
    world(async |w| {
        let outside = Outside::new();
        route_in(&outside);
        let spec = NetworkSpec {
            gateway_mode: GatewayMode::Routed,
            ..NetworkSpec::default()
        };
        w.with("r", &spec).await;
        w.network("a").await;
        let (x, y) = (w.instance("x", &["r"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&x.netns, 80, "x");
        serve_tcp(&x.netns, 81, "hidden");
        serve_tcp(&outside.netns, 80, "out");
        let holder = TcpListener::bind("0.0.0.0:8080").unwrap();
        let ports = w.net.publish("x", x.ip(), &[publish(80, 8080)]).await.unwrap();
        // The host's port is not used, so it may be another's.
        assert_eq!(ports[0].host_port, None);
        drop(holder);
        assert_eq!(ask_tcp(&outside.netns, x.ip(), 80), format!("x {OUTSIDE}"));
        assert!(refused_tcp(&outside.netns, x.ip(), 81));
        assert!(refused_tcp(&outside.netns, HOST, 8080));
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {}", x.ip()));
        assert_eq!(ask_tcp(&y.netns, x.ip(), 80), format!("x {}", y.ip()));
        assert!(refused_tcp(&y.netns, x.ip(), 81));
        outside.exec("busybox", &["ping", "-c", "1", "-w", "30", &x.ip().to_string()]);
        // Published ports are known again after a restart, and swept without one who has them.
        let mut w = w;
        w.restart();
        w.with("r", &spec).await;
        w.net.restore(&uid_of("r"), "x", x.ip()).unwrap();
        let swept = w.net.sweep(&["x".to_owned()].into()).await.unwrap();
        assert_eq!(swept.ports, 1);
        assert!(refused_tcp(&outside.netns, x.ip(), 80));
    });
}

#[test]
fn an_isolated_gateway_gives_names_and_nothing_else() {
    world(async |w| {
        let spec = NetworkSpec {
            internal: true,
            gateway_mode: GatewayMode::Isolated,
            ..NetworkSpec::default()
        };
        let up = w.with("i", &spec).await;
        let gateway: Ipv4Addr = up.gateway.parse().unwrap();
        let (x, y) = (w.instance("x", &["i"]).await, w.instance("y", &["i"]).await);
        serve_tcp(&y.netns, 80, "y");
        answer_tcp(TcpListener::bind("0.0.0.0:9000").unwrap(), "host");
        assert_eq!(ask_tcp(&x.netns, y.ip(), 80), format!("y {}", x.ip()));
        assert!(refused_tcp(&x.netns, gateway, 9000));
        assert!(!pings(&x, gateway));
        // Nor does the host reach them.
        let host = std::path::Path::new("/proc/thread-self/ns/net");
        assert!(refused_tcp(host, y.ip(), 80));
        w.net.add_names(&uid_of("i"), "y", &["web".into()], y.ip()).unwrap();
        let netns = x.netns.clone();
        let ask = move || {
            exec(
                &netns,
                "busybox",
                &["nslookup", "web.biga.internal", &gateway.to_string()],
            )
        };
        let said = tokio::task::spawn_blocking(ask).await.unwrap();
        assert!(said.contains(&y.ip().to_string()), "{said}");
    });
}

#[test]
fn bridges_have_the_name_that_was_asked_for() {
    world(async |w| {
        let _outside = Outside::new();
        let named = |name: &str| NetworkSpec {
            bridge_name: Some(name.into()),
            ..NetworkSpec::default()
        };
        assert_eq!(w.with("a", &named("0x1f")).await.bridge, "0x1f");
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&y.netns, 80, "y");
        assert_eq!(ask_tcp(&x.netns, y.ip(), 80), format!("y {}", x.ip()));
        let refused = async |network: &str, spec: &NetworkSpec, why: &str| {
            let e = w.net.ensure_network(&uid_of(network), network, spec, None).await;
            let e = e.unwrap_err();
            assert!(
                matches!(&e, Error::Invalid { .. }) && e.to_string().contains(why),
                "{e}"
            );
        };
        refused("b", &named("0x1f"), "is the bridge of network a").await;
        refused("b", &named("up0"), "no bridge").await;
        refused("b", &named("tbiga-x"), "this node gives").await;
        // One of the host's is used as it is.
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        refused("b", &named("br0"), "without the address").await;
        run("ip", &["addr", "add", "10.7.0.3/24", "dev", "br0"]);
        let up = w.with("b", &named("br0")).await;
        assert_eq!((up.subnet.as_str(), up.gateway.as_str()), ("10.7.0.0/24", "10.7.0.3"));
        let z = w.instance("z", &["b"]).await;
        serve_tcp(&z.netns, 80, "z");
        assert!(ask_tcp_here(z.ip(), 80).starts_with("z "));
        // A handle that knows nothing removes what is ours, and only that.
        for uid in ["x", "y", "z"] {
            w.net.detach(uid).await.unwrap();
        }
        let mut w = w;
        w.restart();
        w.net.remove_network(&uid_of("a"), &named("0x1f")).await.unwrap();
        w.net.remove_network(&uid_of("b"), &named("br0")).await.unwrap();
        let links = run("ip", &["-o", "link"]);
        assert!(!links.contains("0x1f") && links.contains("br0"), "{links}");
        assert!(!ruleset().contains(PREFIX), "{}", ruleset());
    });
}

#[test]
fn firewalls_let_named_bridges_through() {
    world(async |w| {
        let outside = Outside::new();
        run("nft", &["add", "table", "ip", "filter"]);
        let chain = "{ type filter hook forward priority 0; policy drop; }";
        run("nft", &["add", "chain", "ip", "filter", "FORWARD", chain]);
        run(
            "nft",
            &[
                "add", "rule", "ip", "filter", "FORWARD", "iifname", "lan1", "accept", "comment", "\"mine\"",
            ],
        );
        serve_tcp(&outside.netns, 80, "out");
        let spec = NetworkSpec {
            bridge_name: Some("lan0".into()),
            ..NetworkSpec::default()
        };
        w.with("a", &spec).await;
        w.with("a", &spec).await;
        let x = w.instance("x", &["a"]).await;
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
        assert_eq!(ruleset().matches("oifname \"lan0\"").count(), 1, "{}", ruleset());
        w.network("b").await;
        w.net.detach("x").await.unwrap();
        w.net.remove_network(&uid_of("a"), &spec).await.unwrap();
        let rules = ruleset();
        assert!(
            !rules.contains("lan0") && rules.contains("tbiga-*") && rules.contains("mine"),
            "{rules}"
        );
    });
}

#[test]
fn interfaces_have_numbers_of_their_own() {
    world(async |w| {
        w.network("a").await;
        w.network("b").await;
        let mut first = w.net.endpoint(&uid_of("a"), "x", "lan0", None, None).unwrap();
        let second = w.net.endpoint(&uid_of("b"), "x", "eth0", None, None).unwrap();
        first.slot = 1;
        assert_eq!(second.slot, 0);
        let ends = [first, second];
        let netns = w.net.attach_container("x", &ends, &Default::default()).await.unwrap();
        let links = exec(&netns, "ip", &["-o", "addr"]);
        assert!(links.contains("lan0") && links.contains("eth0"), "{links}");
        // It can go without the other.
        w.net.rewire_container("x", &ends[1..]).await.unwrap();
        let links = exec(&netns, "ip", &["-o", "link"]);
        assert!(!links.contains("lan0") && links.contains("eth0"), "{links}");
    });
}

/// A packet that asks for an association, as SCTP has it.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// The kernel here may have no SCTP of its own: what passes is looked at as packets.
#[test]
fn sctp_is_published_too() {
    use socket2::{Domain, SockAddr, Socket, Type};
    world(async |w| {
        let outside = Outside::new();
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        let mapping = PortMapping {
            protocol: Protocol::Sctp,
            ..publish(9, 9999)
        };
        let wanted = std::slice::from_ref(&mapping);
        assert_eq!(w.net.publish("x", x.ip(), wanted).await.unwrap(), wanted);
        let taken = w.net.publish("y", x.ip(), wanted).await;
        assert!(
            matches!(taken, Err(Error::PortInUse { protocol: "sctp", .. })),
            "{taken:?}"
        );
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(132.into())).unwrap();
        let inside = within(&x.netns, raw);
        inside
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let arrives = |sender: &Socket, to: Ipv4Addr, from: u16| {
            let start = std::time::Instant::now();
            loop {
                sender
                    .send_to(
                        &sctp_init(from, 9999),
                        &SockAddr::from(std::net::SocketAddrV4::new(to, 0)),
                    )
                    .unwrap();
                let mut bytes = [0; 256];
                if (&inside).read(&mut bytes).is_ok() {
                    let source = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
                    let sctp = &bytes[usize::from(bytes[0] & 15) * 4..];
                    return (source, u16::from_be_bytes([sctp[2], sctp[3]]));
                }
                assert!(start.elapsed() < DEADLINE, "nothing arrives");
            }
        };
        let sender = within(&outside.netns, raw);
        assert_eq!(arrives(&sender, HOST, 4000), (OUTSIDE, 9));
        // From the host's own loopback, as with the other protocols.
        let gateway = x.endpoints[0].gateway.unwrap();
        assert_eq!(arrives(&raw(), Ipv4Addr::LOCALHOST, 4001), (gateway, 9));
        // The rules are read back as they were written.
        let mut w = w;
        w.restart();
        w.network("a").await;
        assert_eq!(w.net.publish("x", x.ip(), wanted).await.unwrap(), wanted);
        assert_eq!(w.net.sweep(&["x".to_owned()].into()).await.unwrap().ports, 0);
    });
}
