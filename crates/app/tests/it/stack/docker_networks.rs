//! Networks as Docker's users know them.

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

/// One value of `docker inspect`.
fn look(d: &Daemon, name: &str, format: &str) -> String {
    docker(d, &["inspect", "-f", format, name]).ok()
}

/// The address of a container on a network.
fn address(d: &Daemon, name: &str, network: &str) -> String {
    look(
        d,
        name,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"),
    )
}

/// What a container's resolver says of a name: its last address, or nothing.
fn resolve(d: &Daemon, name: &str, asked: &str) -> String {
    let out = docker(d, &["exec", name, "nslookup", "-type=a", asked]).out;
    let mut lines = out.lines().filter_map(|l| l.strip_prefix("Address: "));
    lines.next_back().unwrap_or_default().trim().to_string()
}

fn sleeper(d: &Daemon, name: &str, options: &[&str]) {
    let tail = ["--stop-timeout", "0", "busybox", "sleep", "1000"];
    docker(d, &[&["run", "-d", "--name", name], options, &tail].concat()).ok();
}

#[test]
fn networks_come_and_go_while_a_container_runs() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    docker(&d, &["network", "create", "--subnet", "10.123.1.0/24", "front"]).ok();
    docker(&d, &["network", "create", "--subnet", "10.123.2.0/24", "back"]).ok();
    sleeper(&d, "web", &["--network", "front"]);
    sleeper(&d, "db", &["--network", "back", "--network-alias", "store"]);
    assert_eq!(resolve(&d, "web", "db"), "", "they share no network");
    docker(
        &d,
        &[
            "network",
            "connect",
            "--ip",
            "10.123.2.77",
            "--alias",
            "www",
            "back",
            "web",
        ],
    )
    .ok();
    assert_eq!(address(&d, "web", "back"), "10.123.2.77");
    let links = docker(&d, &["exec", "web", "ip", "-o", "addr"]).ok();
    assert!(
        links.contains("eth0") && links.contains("inet 10.123.2.77/24"),
        "{links}"
    );
    let db = address(&d, "db", "back");
    assert_eq!(resolve(&d, "web", "db"), db);
    assert_eq!(resolve(&d, "web", "store"), db);
    assert_eq!(resolve(&d, "db", "www"), "10.123.2.77");
    docker(&d, &["exec", "web", "ping", "-c", "1", "-W", "10", "store"]).ok();
    let members = docker(
        &d,
        &[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.Name}} {{end}}",
            "back",
        ],
    )
    .ok();
    let mut members: Vec<&str> = members.split_whitespace().collect();
    members.sort_unstable();
    assert_eq!(members, ["db", "web"]);

    // The first one goes: the default route moves on, and names are still found.
    docker(&d, &["network", "disconnect", "front", "web"]).ok();
    let routes = docker(&d, &["exec", "web", "ip", "route"]).ok();
    assert!(routes.contains("default via 10.123.2.1"), "{routes}");
    assert_eq!(resolve(&d, "web", "db"), db);
    docker(&d, &["network", "rm", "front"]).ok();

    // What cannot be had is said, and nothing of it stays.
    docker(&d, &["network", "create", "--subnet", "10.123.3.0/24", "side"]).ok();
    for (bad, why) in [("10.9.9.9", "not in"), ("10.123.3.1", "reserved")] {
        let refused = docker(&d, &["network", "connect", "--ip", bad, "side", "web"]);
        assert!(refused.code != 0 && refused.err.contains(why), "{refused:?}");
    }
    assert_eq!(look(&d, "web", "{{len .NetworkSettings.Networks}}"), "1");
    let twice = docker(&d, &["network", "connect", "back", "web"]);
    assert!(twice.code != 0 && twice.err.contains("already exists"), "{twice:?}");
    let events = [
        "events",
        "--since",
        "0",
        "--until",
        "0s",
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ];
    // The command line sends whole seconds: what this one brought is told in the next.
    eventually("the events", || {
        let told = docker(&d, &events).ok();
        (told.contains("connect back") && told.contains("disconnect front")).then_some(())
    });
    // All of it is there after a restart, of the container and of the daemon.
    docker(&d, &["network", "connect", "side", "web"]).ok();
    docker(&d, &["restart", "web"]).ok();
    assert_eq!(address(&d, "web", "back"), "10.123.2.77");
    assert_eq!(resolve(&d, "web", "store"), db);
    for name in ["web", "db"] {
        docker(&d, &["rm", "-f", name]).ok();
    }
    d.until_clean();
}

#[test]
fn what_was_connected_stays_with_the_next_daemon() {
    if !has_docker() {
        return;
    }
    let mut d = daemon();
    for name in ["one", "two", "three"] {
        docker(&d, &["network", "create", name]).ok();
    }
    sleeper(&d, "web", &["--network", "one"]);
    sleeper(&d, "peer", &["--network", "three"]);
    docker(&d, &["network", "connect", "two", "web"]).ok();
    docker(&d, &["network", "connect", "three", "web"]).ok();
    docker(&d, &["network", "disconnect", "two", "web"]).ok();
    let before = address(&d, "web", "three");
    d.kill();
    d.serve();
    assert_eq!(address(&d, "web", "three"), before);
    eventually("names after the daemon's restart", || {
        (resolve(&d, "web", "peer") == address(&d, "peer", "three")).then_some(())
    });
    docker(&d, &["exec", "web", "ping", "-c", "1", "-W", "10", "peer"]).ok();
    docker(&d, &["network", "disconnect", "three", "web"]).ok();
    docker(&d, &["network", "connect", "two", "web"]).ok();
    assert!(!address(&d, "web", "two").is_empty());
    // The last one may go, too, and come back.
    docker(&d, &["network", "disconnect", "one", "web"]).ok();
    docker(&d, &["network", "disconnect", "two", "web"]).ok();
    assert_eq!(look(&d, "web", "{{len .NetworkSettings.Networks}}"), "0");
    let links = docker(&d, &["exec", "web", "ip", "-o", "link"]).ok();
    assert!(!links.contains("eth"), "{links}");
    docker(&d, &["network", "connect", "one", "web"]).ok();
    docker(
        &d,
        &["exec", "web", "ping", "-c", "1", "-W", "10", "host.biga.internal"],
    )
    .ok();
    docker(&d, &["rm", "-f", "web", "peer"]).ok();
    d.until_clean();
}

#[test]
fn the_name_server_is_where_docker_has_it() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    docker(&d, &["network", "create", "app"]).ok();
    docker(&d, &["network", "create", "--internal", "inner"]).ok();
    sleeper(&d, "db", &["--network", "app"]);
    sleeper(&d, "web", &["--network", "app", "--link", "db:database"]);
    let conf = docker(&d, &["exec", "web", "cat", "/etc/resolv.conf"]).ok();
    assert!(conf.contains("nameserver 127.0.0.11"), "{conf}");
    let db = address(&d, "db", "app");
    let asked = docker(&d, &["exec", "web", "nslookup", "-type=a", "db", "127.0.0.11"]).ok();
    assert!(asked.contains(&format!("Address: {db}")), "{asked}");
    assert_eq!(resolve(&d, "web", "database"), db, "a link is a name of one's own");
    assert_eq!(resolve(&d, "db", "database"), "");
    // Where it is not the default network, a link is one of that network.
    assert_eq!(
        look(&d, "web", "{{index .NetworkSettings.Networks.app.Links 0}}"),
        "db:database"
    );
    assert_eq!(look(&d, "web", "{{json .HostConfig.Links}}"), "null");
    // By a network without a way out as well.
    sleeper(&d, "shut", &["--network", "inner", "--network-alias", "hidden"]);
    assert_eq!(resolve(&d, "shut", "hidden"), address(&d, "shut", "inner"));
    // On the default network a link works, too.
    sleeper(&d, "old", &[]);
    sleeper(&d, "new", &["--link", "old:elder"]);
    assert_eq!(resolve(&d, "new", "elder"), address(&d, "old", "bridge"));
    docker(&d, &["rm", "-f", "db", "web", "shut", "old", "new"]).ok();
    d.until_clean();
}

#[test]
fn ranges_reserved_addresses_and_modes() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let range = [
        "--subnet",
        "10.124.0.0/16",
        "--ip-range",
        "10.124.5.0/30",
        "--gateway",
        "10.124.0.9",
        "--aux-address",
        "printer=10.124.5.1",
    ];
    docker(
        &d,
        &[&["network", "create", "--attachable"], &range[..], &["lan"]].concat(),
    )
    .ok();
    let ipam = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.IPRange}} {{.Gateway}} {{index .AuxiliaryAddresses \"printer\"}}{{end}} {{.Attachable}}";
    assert_eq!(
        docker(&d, &["network", "inspect", "-f", ipam, "lan"]).ok(),
        "10.124.0.0/16 10.124.5.0/30 10.124.0.9 10.124.5.1 true"
    );
    sleeper(&d, "aa", &["--network", "lan"]);
    let got = address(&d, "aa", "lan");
    assert!(
        ["10.124.5.0", "10.124.5.2", "10.124.5.3"].contains(&got.as_str()),
        "{got}"
    );
    let taken = docker(
        &d,
        &[
            "run",
            "--rm",
            "--network",
            "lan",
            "--ip",
            "10.124.5.1",
            "busybox",
            "true",
        ],
    );
    assert!(taken.code != 0 && taken.err.contains("reserved"), "{taken:?}");
    sleeper(
        &d,
        "fixed",
        &[
            "--network",
            "lan",
            "--ip",
            "10.124.200.7",
            "--mac-address",
            "02:42:ac:11:00:99",
        ],
    );
    assert_eq!(address(&d, "fixed", "lan"), "10.124.200.7");
    assert!(
        docker(&d, &["exec", "fixed", "ip", "link"])
            .ok()
            .contains("02:42:ac:11:00:99")
    );

    // The network of another container: its addresses, its names, its loopback.
    let shared = docker(
        &d,
        &[
            "run",
            "--rm",
            "--network",
            "container:fixed",
            "busybox",
            "sh",
            "-c",
            "hostname; ip -o addr; nslookup -type=a aa",
        ],
    )
    .ok();
    assert!(
        shared.contains("inet 10.124.200.7/16") && shared.contains(&format!("Address: {got}")),
        "{shared}"
    );
    assert_eq!(
        shared.lines().next(),
        Some(docker(&d, &["exec", "fixed", "hostname"]).ok().as_str())
    );
    let ours = d
        .biga(&[
            "run",
            "--rm",
            "--network",
            "instance:fixed",
            "busybox",
            "ip",
            "-o",
            "addr",
        ])
        .ok();
    assert!(ours.contains("10.124.200.7"), "{ours}");
    docker(
        &d,
        &[
            "create",
            "--name",
            "joined",
            "--network",
            "container:fixed",
            "busybox",
            "true",
        ],
    )
    .ok();
    assert_eq!(look(&d, "joined", "{{.HostConfig.NetworkMode}}"), "container:fixed");
    docker(&d, &["rm", "-f", "fixed"]).ok();
    let refused = docker(&d, &["start", "joined"]);
    assert!(refused.code != 0 && refused.err.contains("fixed"), "{refused:?}");
    let refused = docker(&d, &["create", "--network", "container:aa", "-p", "80:80", "busybox"]);
    assert!(
        refused.code != 0 && refused.err.contains("conflicting options"),
        "{refused:?}"
    );

    let none = docker(&d, &["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]).ok();
    assert!(!none.contains("eth0"), "{none}");
    let host = docker(&d, &["run", "--rm", "--network", "host", "busybox", "ip", "-o", "addr"]).ok();
    assert!(host.contains("10.124.0.9/16"), "the host's own: {host}");
    docker(&d, &["network", "create", "--label", "keep=no", "spare"]).ok();
    let pruned = docker(&d, &["network", "prune", "-f", "--filter", "label=keep=no"]).ok();
    assert!(pruned.contains("spare") && !pruned.contains("lan"), "{pruned}");
    docker(&d, &["rm", "-f", "aa", "joined"]).ok();
    assert!(docker(&d, &["network", "prune", "-f"]).ok().contains("lan"));
    d.until_clean();
}

#[test]
fn a_microvm_keeps_its_cards_and_says_so() {
    if !has_docker() {
        return;
    }
    let d = super::microvms::with_kernel();
    docker(&d, &["network", "create", "one"]).ok();
    docker(&d, &["network", "create", "two"]).ok();
    sleeper(&d, "peer", &["--network", "two"]);
    sleeper(&d, "vm", &["--runtime", "microvm", "--network", "one"]);
    let refused = docker(&d, &["network", "connect", "two", "vm"]);
    assert!(refused.code != 0 && refused.err.contains("stop it"), "{refused:?}");
    docker(&d, &["stop", "vm"]).ok();
    docker(&d, &["network", "connect", "two", "vm"]).ok();
    docker(&d, &["start", "vm"]).ok();
    assert_eq!(
        resolve(&d, "vm", "peer"),
        address(&d, "peer", "two"),
        "names of its second network"
    );
    docker(&d, &["rm", "-f", "vm", "peer"]).ok();
    d.until_clean();
}
