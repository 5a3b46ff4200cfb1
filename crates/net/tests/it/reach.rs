//! Who reaches whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use biga_model::NetworkSpec;
use biga_net::Mac;

use crate::support::*;

#[test]
fn instances_of_one_network_reach_each_other() {
    world(async |w| {
        w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&y.netns, 80, "y");
        assert_eq!(ask_tcp(&x.netns, y.ip(), 80), format!("y {}", x.ip()));
        // The host reaches them as well.
        assert!(ask_tcp_here(y.ip(), 80).starts_with("y "));
        // Loopback is up.
        serve_tcp(&x.netns, 81, "x");
        assert_eq!(ask_tcp(&x.netns, [127, 0, 0, 1].into(), 81), "x 127.0.0.1");
    });
}

#[test]
fn the_outside_sees_the_hosts_address() {
    world(async |w| {
        let outside = Outside::new();
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        serve_tcp(&outside.netns, 80, "out");
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
        // Not by itself the other way round, even with a route.
        outside.exec("ip", &["route", "add", "10.88.0.0/16", "via", &HOST.to_string()]);
        serve_tcp(&x.netns, 80, "x");
        assert!(refused_tcp(&outside.netns, x.ip(), 80));
    });
}

#[test]
fn forwarding_works_where_docker_drops() {
    world(async |w| {
        let outside = Outside::new();
        nft("table ip filter {
            chain DOCKER-USER { counter return; }
            chain INPUT { type filter hook input priority 0; policy drop; ct state established,related accept; }
            chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
        }");
        w.network("a").await;
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        serve_tcp(&outside.netns, 80, "out");
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
        w.net.add_names(&uid_of("a"), "x", &["web".into()], x.ip()).unwrap();
        let netns = x.netns.clone();
        let ask = move || exec(&netns, "busybox", &["nslookup", "web.biga.internal", "10.88.0.1"]);
        let said = tokio::task::spawn_blocking(ask).await.unwrap();
        assert!(said.contains(&x.ip().to_string()), "{said}");
        // Twice ensured, once written.
        assert_eq!(ruleset().matches("oifname \"tbiga-*\"").count(), 1);
        w.net.detach("x").await.unwrap();
        w.net.remove_network(&uid_of("a"), &Default::default()).await.unwrap();
        assert!(!ruleset().contains(PREFIX), "{}", ruleset());
        assert!(ruleset().contains("DOCKER-USER"));
    });
}

fn nft(script: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    run("nft", &["-f", file.path().to_str().unwrap()]);
}

#[test]
fn an_internal_network_has_no_way_out() {
    world(async |w| {
        let outside = Outside::new();
        let internal = NetworkSpec {
            internal: true,
            ..NetworkSpec::default()
        };
        w.net.ensure_network(&uid_of("i"), "i", &internal, None).await.unwrap();
        w.network("a").await;
        let (x, y) = (w.instance("x", &["i"]).await, w.instance("y", &["i"]).await);
        let z = w.instance("z", &["a"]).await;
        assert_eq!(x.endpoints[0].gateway, None);
        serve_tcp(&outside.netns, 80, "out");
        serve_tcp(&y.netns, 80, "y");
        serve_tcp(&z.netns, 80, "z");
        assert_eq!(ask_tcp(&x.netns, y.ip(), 80), format!("y {}", x.ip()));
        // Nor by a route it makes itself.
        exec(&x.netns, "ip", &["route", "add", "default", "via", "10.88.0.1"]);
        assert!(refused_tcp(&x.netns, OUTSIDE, 80));
        assert!(refused_tcp(&x.netns, z.ip(), 80));
        // But the network can be opened.
        w.network("i").await;
        assert_eq!(ask_tcp(&x.netns, OUTSIDE, 80), format!("out {HOST}"));
    });
}

#[test]
fn networks_are_apart() {
    world(async |w| {
        w.network("a").await;
        w.network("b").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["b"]).await);
        let both = w.instance("both", &["b", "a"]).await;
        assert_ne!(x.endpoints[0].network_uid, y.endpoints[0].network_uid);
        serve_tcp(&y.netns, 80, "y");
        serve_tcp(&both.netns, 80, "both");
        assert!(refused_tcp(&x.netns, y.ip(), 80));
        assert_eq!(ask_tcp(&both.netns, y.ip(), 80), format!("y {}", both.ip()));
        assert_eq!(
            ask_tcp(&x.netns, both.endpoints[1].address, 80),
            format!("both {}", x.ip())
        );
    });
}

#[test]
fn the_hosts_loopback_stays_its_own() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        answer_tcp(std::net::TcpListener::bind("127.0.0.1:9000").unwrap(), "secret");
        exec(&x.netns, "ip", &["addr", "del", "127.0.0.1/8", "dev", "lo"]);
        exec(&x.netns, "ip", &["route", "add", "127.0.0.1", "via", "10.88.0.1"]);
        exec(
            &x.netns,
            "sh",
            &["-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet"],
        );
        assert!(refused_tcp(&x.netns, [127, 0, 0, 1].into(), 9000));
        assert_eq!(ask_tcp_here([127, 0, 0, 1].into(), 9000), "secret 127.0.0.1");
    });
}

#[test]
fn no_network_is_loopback_only() {
    world(async |w| {
        let x = w.instance("x", &[]).await;
        let links = exec(&x.netns, "ip", &["-o", "link"]);
        assert_eq!(links.lines().count(), 1, "{links}");
        serve_tcp(&x.netns, 80, "x");
        assert_eq!(ask_tcp(&x.netns, [127, 0, 0, 1].into(), 80), "x 127.0.0.1");
    });
}

#[test]
fn sysctls_and_mtu_and_mac_are_set() {
    world(async |w| {
        let spec = NetworkSpec {
            mtu: Some(1300),
            ..NetworkSpec::default()
        };
        w.net.ensure_network(&uid_of("a"), "a", &spec, None).await.unwrap();
        let mac = "02:11:22:33:44:55".parse().unwrap();
        let end = w.net.endpoint(&uid_of("a"), "x", "eth7", None, Some(mac)).unwrap();
        let sysctls = BTreeMap::from([("net.core.somaxconn".to_owned(), "77".to_owned())]);
        let netns = w.net.attach_container("x", &[end], &sysctls).await.unwrap();
        let link = exec(&netns, "ip", &["link", "show", "eth7"]);
        assert!(
            link.contains("mtu 1300") && link.contains("02:11:22:33:44:55"),
            "{link}"
        );
        let value = within(Path::new(&netns), || {
            fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap()
        });
        assert_eq!(value.trim(), "77");
        let bad = BTreeMap::from([("kernel.pid_max".to_owned(), "77".to_owned())]);
        assert!(w.net.attach_container("y", &[], &bad).await.is_err());
        assert!(!w.netns_file("y").exists());
    });
}

#[test]
fn a_reused_address_is_learnt_anew() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        let y = w.instance("y", &["a"]).await;
        let knows = |mac: Mac| exec(&x.netns, "ip", &["neigh"]).contains(&mac.to_string());
        exec(
            &x.netns,
            "busybox",
            &["ping", "-c", "1", "-w", "60", &y.ip().to_string()],
        );
        assert!(knows(y.endpoints[0].mac));
        w.net.detach("y").await.unwrap();
        w.net.release("y");
        let end = w.net.endpoint(&uid_of("a"), "z", "eth0", Some(y.ip()), None).unwrap();
        // Without x sending anything: z says who it is when it comes. (The kernel ignores news within a second of
        // the last, so it may have to come again.)
        let start = Instant::now();
        loop {
            let here = std::slice::from_ref(&end);
            w.net.attach_container("z", here, &BTreeMap::new()).await.unwrap();
            std::thread::sleep(Duration::from_millis(100));
            if knows(end.mac) {
                break;
            }
            assert!(start.elapsed() < DEADLINE);
            w.net.detach("z").await.unwrap();
        }
    });
}
