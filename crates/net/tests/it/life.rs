//! Coming, going, restarts and crashes.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;

use biga_model::kinds::instance::PortMapping;
use biga_model::{NetworkSpec, NetworkStatus};
use biga_net::{Error, Net, Swept};

use crate::support::*;

fn port(host: u16) -> PortMapping {
    PortMapping {
        port: 80,
        host_port: Some(host),
        ..PortMapping::default()
    }
}

fn live(uids: &[&str]) -> HashSet<String> {
    uids.iter().map(|u| (*u).to_owned()).collect()
}

#[test]
fn everything_goes_away() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        let end = w.net.endpoint(&uid_of("a"), "m", "eth0", None, None).unwrap();
        let taps = w.net.attach_machine("m", &[end]).await.unwrap();
        w.net.publish("x", x.ip(), &[port(8080)]).await.unwrap();
        links_become(3);
        assert!(our_links().contains(&taps[0]));
        w.net.unpublish("x").await.unwrap();
        for uid in ["x", "m", "x", "nobody"] {
            w.net.detach(uid).await.unwrap();
        }
        assert!(!x.netns.exists());
        links_become(1);
        for _ in 0..2 {
            w.net.remove_network(&uid_of("a"), &Default::default()).await.unwrap();
        }
        links_become(0);
        assert!(!ruleset().contains(PREFIX));
        assert!(matches!(
            w.net.allocate(&uid_of("a"), "x", None),
            Err(Error::NoNetwork(_))
        ));
    });
}

#[test]
fn a_network_can_be_made_again() {
    world(async |w| {
        for _ in 0..3 {
            w.network("a").await;
            w.net.remove_network(&uid_of("a"), &Default::default()).await.unwrap();
        }
    });
}

#[test]
fn subnets_are_chosen_around_what_is_there() {
    world(async |w| {
        let _outside = Outside::new();
        run("ip", &["route", "add", "10.88.0.0/23", "via", &OUTSIDE.to_string()]);
        let a = w.network("a").await;
        let b = w.network("b").await;
        assert_eq!((a.subnet.as_str(), b.subnet.as_str()), ("10.88.2.0/24", "10.88.3.0/24"));
        let spec = |s: &str| NetworkSpec {
            subnet: Some(s.into()),
            ..NetworkSpec::default()
        };
        for taken in ["10.88.2.0/25", "192.0.2.0/28"] {
            let r = w.net.ensure_network("u", "c", &spec(taken), None).await;
            assert!(matches!(r, Err(Error::Overlap { .. })), "{r:?}");
        }
        let c = w
            .net
            .ensure_network("u", "c", &spec("172.20.0.0/30"), None)
            .await
            .unwrap();
        assert_eq!(c.gateway, "172.20.0.1");
        assert_eq!(w.net.allocate("u", "x", None).unwrap(), Ipv4Addr::new(172, 20, 0, 2));
        assert!(matches!(w.net.allocate("u", "y", None), Err(Error::NoAddress { .. })));
    });
}

#[test]
fn the_address_stays_over_stop_and_start() {
    world(async |w| {
        w.network("a").await;
        let wanted = Ipv4Addr::new(10, 88, 0, 200);
        let end = w.net.endpoint(&uid_of("a"), "x", "eth0", Some(wanted), None).unwrap();
        assert_eq!(end.address, wanted);
        for _ in 0..3 {
            let path = w
                .net
                .attach_container("x", std::slice::from_ref(&end), &BTreeMap::new())
                .await
                .unwrap();
            let shown = exec(&path, "ip", &["-o", "addr", "show", "eth0"]);
            assert!(shown.contains("10.88.0.200/24"), "{shown}");
            w.net.detach("x").await.unwrap();
        }
        let again = w.net.endpoint(&uid_of("a"), "x", "eth0", None, None).unwrap();
        assert_eq!(again, end);
        assert!(matches!(
            w.net.allocate(&uid_of("a"), "y", Some(wanted)),
            Err(Error::AddressInUse { .. })
        ));
        w.net.release("x");
        assert_eq!(w.net.allocate(&uid_of("a"), "y", Some(wanted)).unwrap(), wanted);
    });
}

#[test]
fn attaching_again_keeps_or_changes() {
    world(async |w| {
        w.network("a").await;
        w.network("b").await;
        let x = w.instance("x", &["a"]).await;
        let before = std::fs::metadata(&x.netns).unwrap().ino();
        w.instance("x", &["a"]).await;
        assert_eq!(std::fs::metadata(&x.netns).unwrap().ino(), before);
        w.instance("x", &["a", "b"]).await;
        let shown = exec(&x.netns, "ip", &["-o", "-4", "addr"]);
        assert_eq!(shown.lines().count(), 3, "{shown}");
        // A machine likewise.
        let end = w.net.endpoint(&uid_of("a"), "m", "eth0", None, None).unwrap();
        let taps = w.net.attach_machine("m", std::slice::from_ref(&end)).await.unwrap();
        assert_eq!(w.net.attach_machine("m", &[end]).await.unwrap(), taps);
    });
}

#[test]
fn a_restart_disturbs_nothing() {
    world(async |mut w| {
        let outside = Outside::new();
        let status = w.network("a").await;
        let (x, gone) = (w.instance("x", &["a"]).await, w.instance("gone", &["a"]).await);
        let machine = w.net.endpoint(&uid_of("a"), "m", "eth0", None, None).unwrap();
        let taps = w.net.attach_machine("m", std::slice::from_ref(&machine)).await.unwrap();
        serve_tcp(&x.netns, 80, "x");
        w.net.publish("x", x.ip(), &[port(8080)]).await.unwrap();
        w.net.publish("gone", gone.ip(), &[port(8081)]).await.unwrap();
        w.network("old").await;
        let netns = std::fs::metadata(&x.netns).unwrap().ino();

        w.restart();
        let a = uid_of("a");
        let now = w
            .net
            .ensure_network(&a, "a", &NetworkSpec::default(), Some(&status))
            .await
            .unwrap();
        assert_eq!(
            (&now.subnet, &now.gateway, &now.bridge),
            (&status.subnet, &status.gateway, &status.bridge)
        );
        // Ports work before anybody publishes them again.
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("x {OUTSIDE}"));
        w.net.restore(&a, "x", x.ip()).unwrap();
        w.net.restore(&a, "m", machine.address).unwrap();
        let path = w
            .net
            .attach_container("x", &x.endpoints, &BTreeMap::new())
            .await
            .unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), netns);
        assert_eq!(w.net.attach_machine("m", &[machine]).await.unwrap(), taps);
        w.net.publish("x", x.ip(), &[port(8080)]).await.unwrap();

        let swept = w.net.sweep(&live(&["x", "m"])).await.unwrap();
        let expected = Swept {
            namespaces: 1,
            links: 2,
            ports: 1,
        };
        assert_eq!(swept, expected);
        assert!(!gone.netns.exists());
        links_become(3);
        assert_eq!(ask_tcp(&outside.netns, HOST, 8080), format!("x {OUTSIDE}"));
        assert!(refused_tcp(&outside.netns, HOST, 8081));
        assert_eq!(w.net.sweep(&live(&["x", "m"])).await.unwrap(), Swept::default());
        // The address of the one that is gone is free, the others' are not.
        w.net.allocate(&a, "new", Some(gone.ip())).unwrap();
        assert!(w.net.allocate(&a, "newer", Some(x.ip())).is_err());
    });
}

#[test]
fn a_subnet_survives_even_where_its_status_was_not_written() {
    world(async |mut w| {
        w.network("a").await;
        let b = w.network("b").await;
        w.restart();
        assert_eq!(w.network("b").await.subnet, b.subnet);
    });
}

#[test]
fn what_a_crash_left_half_made_is_swept_or_repaired() {
    world(async |mut w| {
        let status = w.network("a").await;
        // A namespace file that was never mounted; a veth without its namespace; a namespace without its veth.
        std::fs::create_dir_all(w.run_dir.path().join("netns")).unwrap();
        std::fs::write(w.netns_file("x"), "").unwrap();
        let y = w.instance("y", &["a"]).await;
        exec(&y.netns, "ip", &["link", "del", "eth0"]);
        let z = w.instance("z", &["a"]).await;
        rustix::mount::unmount(&z.netns, rustix::mount::UnmountFlags::DETACH).unwrap();
        w.restart();
        w.net
            .ensure_network(&uid_of("a"), "a", &NetworkSpec::default(), Some(&status))
            .await
            .unwrap();
        for uid in ["x", "y", "z"] {
            let i = w.instance(uid, &["a"]).await;
            let shown = exec(&i.netns, "ip", &["-o", "addr", "show", "eth0"]);
            assert!(shown.contains(&i.endpoints[0].cidr()), "{shown}");
        }
        w.restart();
        let swept = w.net.sweep(&HashSet::new()).await.unwrap();
        assert_eq!((swept.namespaces, swept.links), (3, 4));
        links_become(0);
        assert!(!ruleset().contains(PREFIX));
        assert_eq!(std::fs::read_dir(w.run_dir.path().join("netns")).unwrap().count(), 0);
    });
}

#[test]
fn a_lost_bridge_is_repaired() {
    world(async |w| {
        let status = w.network("a").await;
        let (x, y) = (w.instance("x", &["a"]).await, w.instance("y", &["a"]).await);
        serve_tcp(&y.netns, 80, "y");
        run("ip", &["link", "del", &status.bridge]);
        let again: NetworkStatus = w.network("a").await;
        assert_eq!(again, status);
        for i in [("x", &x), ("y", &y)] {
            w.net
                .attach_container(i.0, &i.1.endpoints, &BTreeMap::new())
                .await
                .unwrap();
        }
        assert_eq!(ask_tcp(&x.netns, y.ip(), 80), format!("y {}", x.ip()));
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    world(async |w| {
        w.network("a").await;
        let mut end = w.net.endpoint(&uid_of("a"), "x", "eth0", None, None).unwrap();
        end.interface = "a name too long for links".into();
        assert!(w.net.attach_container("x", &[end], &BTreeMap::new()).await.is_err());
        assert!(!w.netns_file("x").exists());
        links_become(1);
        let bad = w.net.attach_container("../x", &[], &BTreeMap::new()).await;
        assert!(matches!(bad, Err(Error::Uid(_))));
    });
}

#[test]
fn two_daemons_live_side_by_side() {
    world(async |w| {
        w.network("a").await;
        let run_dir = tempfile::tempdir().unwrap();
        let other = Net::new(biga_net::Config {
            prefix: "other".into(),
            ..config(run_dir.path())
        })
        .unwrap();
        let b = other
            .ensure_network("u", "b", &NetworkSpec::default(), None)
            .await
            .unwrap();
        assert_eq!(b.subnet, "10.88.1.0/24");
        let x = w.instance("x", &["a"]).await;
        let end = other.endpoint("u", "y", "eth0", None, None).unwrap();
        let y_ip = end.address;
        let y = other.attach_container("y", &[end], &BTreeMap::new()).await.unwrap();
        serve_tcp(&y, 80, "y");
        assert!(refused_tcp(&x.netns, y_ip, 80));
        // A sweep of one leaves the other alone.
        w.net.sweep(&HashSet::new()).await.unwrap();
        assert!(ask_tcp_here(y_ip, 80).starts_with("y "));
        other.detach("y").await.unwrap();
        other.remove_network("u", &Default::default()).await.unwrap();
    });
}

#[test]
fn a_held_namespace_loses_its_links_all_the_same() {
    world(async |w| {
        w.network("a").await;
        let x = w.instance("x", &["a"]).await;
        let _held = std::fs::File::open(&x.netns).unwrap();
        w.net.detach("x").await.unwrap();
        let start = std::time::Instant::now();
        while our_links().len() > 1 {
            assert!(start.elapsed() < DEADLINE, "{:?}", our_links());
            // The removal runs beside.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // And attached again at once, it keeps the new ones.
        let x = w.instance("x", &["a"]).await;
        let _held = std::fs::File::open(&x.netns).unwrap();
        w.net.detach("x").await.unwrap();
        let x = w.instance("x", &["a"]).await;
        // Well past the time at which leftovers of the first one are removed.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let shown = exec(&x.netns, "ip", &["-o", "addr", "show", "eth0"]);
        assert!(shown.contains(&x.endpoints[0].cidr()), "{shown}");
    });
}
