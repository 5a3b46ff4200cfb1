//! Options of bridge networks, and networks of settings only.

use biga_testkit::{Daemon, Ran, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

fn create(d: &Daemon, name: &str, options: &[&str]) -> Ran {
    docker(d, &[&["network", "create"], options, &[name]].concat())
}

fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let tail = ["--stop-timeout", "0", "busybox", "sleep", "1000"];
    docker(d, &[&["run", "-d", "--name", name], options, &tail].concat()).ok();
}

fn web(d: &Daemon, name: &str, options: &[&str]) {
    let tail = [
        "--stop-timeout",
        "0",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/var/www",
    ];
    docker(d, &[&["run", "-d", "--name", name], options, &tail].concat()).ok();
}

fn network(d: &Daemon, name: &str, format: &str) -> String {
    docker(d, &["network", "inspect", "-f", format, name]).ok()
}

fn option(d: &Daemon, name: &str, key: &str) -> String {
    network(d, name, &format!("{{{{index .Options \"com.docker.network.{key}\"}}}}"))
}

fn address(d: &Daemon, name: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    docker(d, &["inspect", "-f", format, name]).ok()
}

/// Whether the web server at an address answers a container.
fn gets(d: &Daemon, from: &str, at: &str) -> bool {
    let url = format!("http://{at}/index.html");
    let got = docker(d, &["exec", from, "timeout", "3", "wget", "-q", "-O", "-", &url]);
    got.out == "hello from biga\n"
}

#[test]
fn containers_without_icc_do_not_meet() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    create(
        &d,
        "apart",
        &[
            "-o",
            "com.docker.network.bridge.enable_icc=false",
            "-o",
            "com.docker.network.bridge.name=apart0",
            "-o",
            "com.docker.network.container_iface_prefix=lan",
        ],
    )
    .ok();
    assert_eq!(option(&d, "apart", "bridge.enable_icc"), "false");
    assert_eq!(option(&d, "apart", "bridge.name"), "apart0");
    d.host(&["ip", "link", "show", "apart0"]).ok();
    let ours = d.biga(&["get", "networks", "apart", "-o", "json"]).ok();
    assert!(ours.contains("isolateInstances"), "{ours}");
    web(&d, "server", &["--network", "apart", "-p", "8080:80"]);
    sleeper(&d, "client", &["--network", "apart"]);
    let links = docker(&d, &["exec", "client", "ip", "-o", "link"]).ok();
    assert!(links.contains("lan0") && !links.contains("eth0"), "{links}");
    let server = address(&d, "server");
    let ping = docker(&d, &["exec", "client", "ping", "-c", "1", "-W", "2", &server]);
    assert_ne!(ping.code, 0, "{ping:?}");
    // By the node's own address they do, and the node reaches them all.
    let gateway = network(&d, "apart", "{{(index .IPAM.Config 0).Gateway}}");
    eventually("the published port", || {
        gets(&d, "client", &format!("{gateway}:8080")).then_some(())
    });
    d.host(&["busybox", "ping", "-c", "1", "-W", "10", &server]).ok();
    assert!(!gets(&d, "client", &server));
    // On a second network they meet, by an interface with a number of its own.
    create(&d, "together", &[]).ok();
    for name in ["server", "client"] {
        docker(&d, &["network", "connect", "together", name]).ok();
    }
    let links = docker(&d, &["exec", "client", "ip", "-o", "link"]).ok();
    assert!(links.contains("lan0") && links.contains("eth0"), "{links}");
    let find = [
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.together.IPAddress}}",
        "server",
    ];
    let there = docker(&d, &find).ok();
    eventually("the server on the second network", || {
        gets(&d, "client", &there).then_some(())
    });
    // The next daemon finds all of it.
    let mut d = d;
    d.kill();
    d.serve();
    docker(&d, &["network", "disconnect", "together", "client"]).ok();
    let links = docker(&d, &["exec", "client", "ip", "-o", "link"]).ok();
    assert!(links.contains("lan0") && !links.contains("eth0"), "{links}");
    assert!(!gets(&d, "client", &server));
    docker(&d, &["rm", "-f", "server", "client"]).ok();
    docker(&d, &["network", "rm", "apart", "together"]).ok();
    assert_ne!(d.host(&["ip", "link", "show", "apart0"]).code, 0);
    d.until_clean();
}

#[test]
fn ports_and_sources_are_what_the_network_says() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let bind = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
    create(&d, "near", &["-o", bind]).ok();
    web(
        &d,
        "local",
        &["--network", "near", "-p", "8080:80", "-p", "0.0.0.0:8081:80"],
    );
    let ports = docker(&d, &["port", "local"]).ok();
    assert!(
        ports.contains("80/tcp -> 127.0.0.1:8080") && ports.contains("80/tcp -> 0.0.0.0:8081"),
        "{ports}"
    );
    let listed = docker(&d, &["ps", "--format", "{{.Ports}}"]).ok();
    assert!(listed.contains("127.0.0.1:8080->80/tcp"), "{listed}");
    // Without translation a packet that leaves keeps its address.
    create(
        &d,
        "bare",
        &["-o", "com.docker.network.bridge.enable_ip_masquerade=false"],
    )
    .ok();
    assert_eq!(option(&d, "bare", "bridge.enable_ip_masquerade"), "false");
    let rules = d.host(&["nft", "list", "ruleset"]).ok();
    let subnet = network(&d, "bare", "{{(index .IPAM.Config 0).Subnet}}");
    let nat = rules
        .split("set nat")
        .nth(1)
        .and_then(|s| s.split('}').next())
        .unwrap_or_default();
    assert!(!nat.contains(&subnet) && rules.contains(&subnet), "{rules}");
    // Routed: the container's own address, without a port of the node.
    create(
        &d,
        "routed",
        &["-o", "com.docker.network.bridge.gateway_mode_ipv4=routed"],
    )
    .ok();
    web(&d, "far", &["--network", "routed", "-p", "8082:80"]);
    let listed = docker(&d, &["ps", "--filter", "name=far", "--format", "{{.Ports}}"]).ok();
    assert_eq!(listed, "80/tcp");
    sleeper(&d, "asker", &["--network", "bare"]);
    eventually("the routed server", || {
        gets(&d, "asker", &address(&d, "far")).then_some(())
    });
    assert!(!gets(&d, "asker", &address(&d, "local")));
    // SCTP as the others.
    sleeper(&d, "sctp", &["-p", "9999:9999/sctp", "--expose", "7/sctp"]);
    assert_eq!(docker(&d, &["port", "sctp"]).ok(), "9999/sctp -> 0.0.0.0:9999");
    let listed = docker(&d, &["ps", "--filter", "name=sctp", "--format", "{{.Ports}}"]).ok();
    assert!(listed.contains("0.0.0.0:9999->9999/sctp"), "{listed}");
    let rules = d.host(&["nft", "list", "ruleset"]).ok();
    assert!(rules.contains("sctp . 9999 : "), "{rules}");
    for name in ["local", "far", "asker", "sctp"] {
        docker(&d, &["rm", "-f", name]).ok();
    }
    let ours = d.biga(&[
        "network",
        "create",
        "--gateway-mode",
        "isolated",
        "--internal",
        "--isolate-instances",
        "--interface-prefix",
        "in",
        "--bridge-name",
        "cellar",
        "cellar",
    ]);
    ours.ok();
    assert_eq!(option(&d, "cellar", "bridge.gateway_mode_ipv4"), "isolated");
    assert_eq!(option(&d, "cellar", "bridge.name"), "cellar");
    d.until_clean();
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    for (given, why) in [
        ("com.docker.network.bridge.inhibit_ipv4=true", "inhibit_ipv4"),
        ("com.docker.network.bridge.enable_icc=maybe", "maybe"),
        ("com.docker.network.bridge.gateway_mode_ipv4=isolated", "internal"),
        (
            "com.docker.network.bridge.gateway_mode_ipv6=routed",
            "gateway_mode_ipv6",
        ),
        ("com.docker.network.bridge.host_binding_ipv4=here", "bindAddress"),
        ("com.docker.network.bridge.name=a234567890123456", "bridgeName"),
        ("com.docker.network.bridge.name=lo", "lo"),
        ("com.docker.network.container_iface_prefix=a b", "interfacePrefix"),
    ] {
        let refused = create(&d, "bad", &["-o", given]);
        assert!(refused.code != 0 && refused.err.contains(why), "{given}: {refused:?}");
    }
    // What nobody knows is kept and shown, as Docker does.
    create(&d, "odd", &["-o", "parent=eth0"]).ok();
    assert_eq!(network(&d, "odd", "{{.Options}}"), "map[parent:eth0]");
    let names = docker(&d, &["network", "ls", "--format", "{{.Name}}"]).ok();
    assert!(!names.contains("bad"), "{names}");
    d.until_clean();
}

#[test]
fn settings_of_a_network_are_taken_from_another() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let given = [
        "--config-only",
        "--subnet",
        "10.125.1.0/24",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "--label",
        "of=settings",
    ];
    create(&d, "settings", &given).ok();
    assert_eq!(network(&d, "settings", "{{.ConfigOnly}} {{.Driver}}"), "true null");
    let links = d.host(&["ip", "-o", "addr"]).ok();
    assert!(!links.contains("10.125.1.1"), "nothing is made of it: {links}");
    let refused = docker(&d, &["run", "--rm", "--network", "settings", "busybox", "true"]);
    assert!(
        refused.code != 0 && refused.err.contains("only holds settings"),
        "{refused:?}"
    );
    for (options, why) in [
        (&["--config-only", "--internal"][..], "configuration network can only"),
        (&["--config-from", "absent"], "does not exist"),
        (
            &["--config-from", "settings", "--subnet", "10.125.2.0/24"],
            "user-specified",
        ),
        (&["--config-from", "bridge"], "only a configuration network"),
    ] {
        let refused = create(&d, "bad", options);
        assert!(
            refused.code != 0 && refused.err.contains(why),
            "{options:?}: {refused:?}"
        );
    }
    create(
        &d,
        "made",
        &["--config-from", "settings", "--internal", "--label", "own=1"],
    )
    .ok();
    let shown =
        "{{.ConfigFrom.Network}} {{.Driver}} {{.Internal}} {{(index .IPAM.Config 0).Subnet}} {{index .Labels \"of\"}}";
    assert_eq!(
        network(&d, "made", shown),
        "settings bridge true 10.125.1.0/24 settings"
    );
    assert_eq!(option(&d, "made", "bridge.enable_icc"), "false");
    let refused = docker(&d, &["network", "rm", "settings"]);
    assert!(refused.code != 0 && refused.err.contains("in use"), "{refused:?}");
    // A prune leaves it, and what was made of it goes.
    assert_eq!(docker(&d, &["network", "prune", "-f"]).ok(), "Deleted Networks:\nmade");
    docker(&d, &["network", "rm", "settings"]).ok();
    d.until_clean();
}
