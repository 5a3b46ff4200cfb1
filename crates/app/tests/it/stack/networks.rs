//! Instances find each other, and the world finds them.

use biga_testkit::eventually;

use super::daemon;

const SERVE: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/var/www"];

#[test]
fn names_and_published_ports() {
    let d = daemon();
    d.biga(
        &[
            &["run", "-d", "--name", "web", "-p", "127.0.0.1:8080:80", "busybox"],
            &SERVE[..],
        ]
        .concat(),
    )
    .ok();
    let get = "wget -q -O - http://web/index.html";
    eventually("the page by name", || {
        (d.biga(&["run", "--rm", "busybox", "sh", "-c", get]).out == "hello from biga\n").then_some(())
    });
    let page = d.host(&[
        "/bin/busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1:8080/index.html",
    ]);
    assert_eq!(page.ok(), "hello from biga");
    let taken = d.biga(&[
        "run",
        "-d",
        "--name",
        "second",
        "-p",
        "127.0.0.1:8080:80",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert!(taken.code == 125 && taken.err.contains("8080"), "{taken:?}");

    // The address stays over stop and start.
    let address = d.field("web", &["status", "networks"]);
    d.biga(&["stop", "-t", "0", "web"]).ok();
    d.biga(&["start", "web"]).ok();
    d.until_phase("web", "Running");
    assert_eq!(d.field("web", &["status", "networks"]), address);
}

#[test]
fn networks_are_apart_and_none_is_none() {
    let d = daemon();
    d.biga(&["network", "create", "back", "--subnet", "10.99.7.0/24", "--internal"])
        .ok();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "back",
        "--ip",
        "10.99.7.42",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    d.until_phase("db", "Running");
    assert!(d.biga(&["exec", "db", "ip", "addr"]).ok().contains("10.99.7.42/24"));
    let ping = ["ping", "-c", "1", "-W", "2", "10.99.7.42"];
    let beside = d.biga(&[&["run", "--rm", "--network", "back", "busybox"], &ping[..]].concat());
    assert_eq!(beside.code, 0, "{beside:?}");
    let outside = d.biga(&[&["run", "--rm", "busybox"], &ping[..]].concat());
    assert_ne!(outside.code, 0, "{outside:?}");
    let links = d
        .biga(&["run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net"])
        .ok();
    assert_eq!(links.trim(), "lo");
    assert!(d.biga(&["network", "ls"]).ok().contains("10.99.7.0/24"));
    d.biga(&["rm", "-f", "db"]).ok();
    d.biga(&["network", "rm", "back"]).ok();
    eventually("the network to go", || {
        (!d.biga(&["network", "ls"]).ok().contains("back")).then_some(())
    });
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let d = daemon();
    let out = d
        .biga(&[
            "run",
            "--rm",
            "--network",
            "host",
            "busybox",
            "sh",
            "-c",
            "hostname; ls /sys/class/net | wc -l",
        ])
        .ok();
    let names = d.host(&["ip", "-br", "link"]).ok();
    let links = names.lines().count();
    assert_eq!(out, format!("{}\n{links}", d.host(&["hostname"]).ok()), "{names}");
}
