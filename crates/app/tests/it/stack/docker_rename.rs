//! `docker rename` and `biga rename`: the container stays, its name follows everywhere.

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

fn resolves(d: &Daemon, asked: &str) -> bool {
    docker(d, &["exec", "asker", "nslookup", "-type=a", asked]).code == 0
}

/// Runs a container on the network `net`.
fn start(d: &Daemon, name: &str, more: &[&str]) -> String {
    let options = ["run", "-d", "--network", "net", "--stop-timeout", "0", "--name", name];
    let command = ["busybox", "sh", "-c", "echo begun; exec sleep 1000"];
    docker(d, &[&options[..], more, &command].concat()).ok()
}

#[test]
fn a_running_container_keeps_all_under_its_new_name() {
    if !has_docker() {
        return;
    }
    let mut d = daemon();
    docker(&d, &["network", "create", "net"]).ok();
    let id = start(&d, "web", &["-v", "data:/data"]);
    start(&d, "asker", &["--link", "web:store"]);
    docker(&d, &["exec", "web", "sh", "-c", "echo kept > /data/a; echo kept > /b"]).ok();
    assert!(resolves(&d, "web"));
    let mut waiting = d.command(&["wait", "web"]);
    let waiting = waiting.stdout(std::process::Stdio::piped()).spawn().unwrap();
    docker(&d, &["rename", "web", "site"]).ok();
    assert!(resolves(&d, "site"), "found by its new name");
    assert!(!resolves(&d, "web"), "and not by the old");
    assert!(resolves(&d, "store"), "a link leads to the container");
    docker(&d, &["exec", "asker", "ping", "-c", "1", "-W", "10", "store"]).ok();
    let taken = docker(&d, &["rename", "site", "asker"]);
    assert!(taken.code != 0 && taken.err.contains("already in use"), "{taken:?}");

    // The name is that of the same container after the daemon died, too.
    let pid = d.field("site", &["status", "pid"]);
    d.kill();
    d.serve();
    d.until_phase("site", "Running");
    assert_eq!(d.field("site", &["status", "pid"]), pid);
    let look = "{{.Id}} {{.Name}} {{.State.Pid}}";
    assert_eq!(
        docker(&d, &["inspect", "-f", look, "site"]).ok(),
        format!("{id} /site {pid}")
    );
    eventually("its names are known again", || {
        (resolves(&d, "site") && resolves(&d, "store")).then_some(())
    });
    assert_eq!(docker(&d, &["exec", "site", "cat", "/data/a", "/b"]).ok(), "kept\nkept");
    assert_eq!(docker(&d, &["logs", "site"]).ok(), "begun");

    // Stopped: who waited for its end waited on. By Biga's own verb; the old name is free for another.
    docker(&d, &["stop", "site"]).ok();
    let ended = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "137\n");
    assert_eq!(d.biga(&["rename", "site", "third"]).ok(), "third");
    start(&d, "web", &[]);
    docker(&d, &["start", "third"]).ok();
    assert_eq!(
        docker(&d, &["exec", "third", "cat", "/data/a", "/b"]).ok(),
        "kept\nkept"
    );
    assert!(resolves(&d, "third"));
    let refused = d.biga(&["rename", "third", "web"]);
    assert!(
        refused.code == 4 && refused.err.contains("already exists"),
        "{refused:?}"
    );
    assert_eq!(d.biga(&["rename", "none", "x"]).code, 3);
    docker(&d, &["rm", "-f", "third", "web", "asker"]).ok();
    docker(&d, &["network", "rm", "net"]).ok();
    d.until_clean();
}

/// Names go round while the daemon is killed again and again: each container is there once, under one of them.
#[test]
fn a_daemon_killed_while_it_renames_loses_nobody() {
    if !has_docker() {
        return;
    }
    let mut d = daemon();
    let socket = super::docker::socket(&d);
    let id = docker(&d, &["run", "-d", "--name", "n0", "busybox", "sleep", "1000"]).ok();
    let (uid, pid) = (d.field("n0", &["metadata", "uid"]), d.field("n0", &["status", "pid"]));
    for round in 0..3 {
        let script = format!(
            "i=0; while :; do i=$((i+1)); curl -s -o /dev/null --unix-socket {socket} -X POST \
             \"http://d/containers/{id}/rename?name=r{round}-$i\" || exit; done",
        );
        let mut names = d.host_command(&["sh", "-c", &script]).spawn().unwrap();
        eventually("some renames", || {
            d.biga(&["ps", "-q"]).out.contains(&format!("r{round}-")).then_some(())
        });
        d.kill();
        let _ = names.wait();
        d.serve();
        let name = d.biga(&["ps", "-aq"]).ok();
        assert_eq!(name.lines().count(), 1, "{name}");
        let name = name.as_str();
        d.until_phase(name, "Running");
        assert_eq!(d.field(name, &["metadata", "uid"]), uid);
        assert_eq!(d.field(name, &["status", "pid"]), pid);
        assert_eq!(d.biga(&["exec", name, "echo", "alive"]).ok(), "alive");
    }
}
