//! The daemon dies and comes back; instances do not notice.

use biga_testkit::eventually;

use super::daemon;

#[test]
fn instances_live_on_without_the_daemon() {
    let mut d = daemon();
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    d.biga(&["run", "-d", "--name", "talks", "busybox", "sh", "-c", script])
        .ok();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "ends",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /root/go ]; do sleep 0.05; done; exit 9",
    ])
    .ok();
    d.until_phase("talks", "Running");
    d.until_phase("ends", "Running");
    let (pid, address) = (
        d.field("talks", &["status", "pid"]),
        d.field("talks", &["status", "networks"]),
    );
    let go = format!("/proc/{}/root/root/go", d.field("ends", &["status", "pid"]));
    d.kill();
    // One of them ends while nobody looks.
    std::fs::write(go, "").unwrap();
    let mut before = 0;
    d.serve();
    d.until_phase("ends", "Exited");
    assert_eq!(d.field("ends", &["status", "exitCode"]), "9");
    assert_eq!(d.field("talks", &["status", "phase"]), "Running");
    assert_eq!(
        (
            d.field("talks", &["status", "pid"]),
            d.field("talks", &["status", "networks"])
        ),
        (pid, address)
    );
    for _ in 0..2 {
        eventually("more lines", || {
            let lines = d.biga(&["logs", "talks"]).out.lines().count();
            (lines > before).then(|| before = lines)
        });
    }
    let text = d.biga(&["logs", "talks"]).ok();
    for (i, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {}", i + 1), "no line is lost or doubled");
    }
    assert_eq!(d.biga(&["exec", "talks", "echo", "still here"]).ok(), "still here");
    d.biga(&["rm", "-f", "talks", "ends"]).ok();
    d.until_clean();
}

#[test]
fn a_polite_end_leaves_instances_alone_too() {
    let mut d = daemon();
    d.biga(&["run", "-d", "--name", "stays", "busybox", "sleep", "1000"])
        .ok();
    let pid = d.field("stays", &["status", "pid"]);
    d.terminate();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    d.serve();
    assert_eq!(d.field("stays", &["status", "pid"]), pid);
}

#[test]
fn restart_policies_start_it_again() {
    let d = daemon();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "exit 4",
    ])
    .ok();
    eventually("two restarts", || {
        (d.field("again", &["status", "restartCount"]) == "2").then_some(())
    });
    d.until_phase("again", "Exited");
    assert_eq!(d.field("again", &["status", "exitCode"]), "4");
    d.biga(&[
        "run",
        "-d",
        "--name",
        "always",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    d.until_phase("always", "Running");
    let pid = d.field("always", &["status", "pid"]);
    d.host(&["kill", "-9", &pid]).ok();
    eventually("another process", || {
        let now = d.field("always", &["status", "pid"]);
        (!now.is_empty() && now != pid).then_some(())
    });
    d.biga(&["stop", "-t", "0", "always"]).ok();
    d.until_phase("always", "Exited");
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    let d = daemon();
    d.biga(&["run", "-d", "--name", "w", "busybox", "sleep", "1000"]).ok();
    let uid = d.field("w", &["metadata", "uid"]);
    let pid = d.field("w", &["status", "pid"]);
    let shim = d.host(&["pgrep", "-f", &format!("biga-shim.*{uid}")]).ok();
    d.host(&["kill", "-9", shim.lines().next().unwrap()]).ok();
    d.until_phase("w", "Exited");
    assert_eq!(d.field("w", &["status", "exitCode"]), "137");
    eventually("its process to die", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    d.biga(&["start", "w"]).ok();
    d.until_phase("w", "Running");
}

#[test]
fn a_daemon_started_by_hand_opens_more_files_than_a_shell_may() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // As a login shell's is: what this process starts begins with it.
    let hard = getrlimit(Resource::Nofile).maximum;
    let shell = Rlimit {
        current: Some(1024),
        maximum: hard,
    };
    setrlimit(Resource::Nofile, shell).unwrap();
    let d = daemon();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", d.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(soft, hard.map_or(1 << 20, |h| h.min(1 << 20)), "{line}");
    assert!(soft > 1024, "{line}");
}
