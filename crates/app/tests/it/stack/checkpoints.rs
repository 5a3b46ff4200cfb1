//! Containers saved and going on, by the native API and by Docker's command line. Where CRIU does not work, its reason.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use biga_testkit::{Daemon, Ran};

use super::daemon;
use super::docker::{docker, has_docker};

const PATIENCE: Duration = Duration::from_secs(120);
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; [ -e /data/hold ] || echo $i >/data/n; sleep 0.05; done";

fn criu_works() -> bool {
    let mut check = std::process::Command::new("criu");
    check
        .arg("check")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    check.status().is_ok_and(|s| s.success())
}

fn counted(d: &Daemon) -> Vec<u64> {
    let text = d.biga(&["logs", "count"]).ok();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

/// Waits until it counted further than `n`.
fn counts_beyond(d: &Daemon, n: usize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = counted(d).len();
        if now > n {
            return now;
        }
        assert!(
            Instant::now() < deadline,
            "it does not go on after {n}: {}",
            d.biga(&["inspect", "count"]).out
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn failed(ran: Ran, code: i32) -> String {
    assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
    ran.err
}

fn nothing_lost(d: &Daemon) {
    let all = counted(d);
    let wanted: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, wanted, "nothing is lost or said twice");
}

fn counting(d: &Daemon) {
    // It would be started again at once, were it not for the checkpoint.
    d.biga(&[
        "run",
        "-d",
        "--name",
        "count",
        "--restart",
        "always",
        "-v",
        "numbers:/data",
        "busybox",
        "sh",
        "-c",
        COUNT,
    ])
    .ok();
    counts_beyond(d, 2);
}

#[test]
fn a_container_goes_on_where_it_was() {
    let mut d = daemon();
    counting(&d);
    let checkpoint = |d: &Daemon, args: &[&str]| d.biga(&[&["checkpoint"], args].concat());
    if !criu_works() {
        let said = checkpoint(&d, &["create", "count", "one"]).err;
        assert!(said.contains("CRIU"), "{said}");
        counts_beyond(&d, counted(&d).len());
        return;
    }
    // A file that it has open then must be the same when it goes on, and until then the number in the volume is another.
    d.biga(&["exec", "count", "touch", "/data/hold"]).ok();
    counts_beyond(&d, counted(&d).len() + 2);
    assert_eq!(
        checkpoint(&d, &["create", "--leave-running", "count", "one"]).ok(),
        "one"
    );
    d.biga(&["exec", "count", "rm", "/data/hold"]).ok();
    assert_eq!(d.field("count", &["status", "phase"]), "Running");
    let again = failed(checkpoint(&d, &["create", "--leave-running", "count", "one"]), 4);
    assert!(again.contains("has a checkpoint one already"), "{again}");
    counts_beyond(&d, counted(&d).len());
    checkpoint(&d, &["create", "count", "two"]).ok();
    assert_eq!(d.field("count", &["status", "phase"]), "Exited");
    assert_eq!(d.field("count", &["status", "reason"]), "Checkpointed");
    let at = counted(&d).len();
    assert_eq!(checkpoint(&d, &["ls", "-q", "count"]).ok(), "one\ntwo");
    let dir = d
        .state()
        .join("instances")
        .join(d.field("count", &["metadata", "uid"]))
        .join("checkpoints");
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

    // A daemon that begins anew knows it still.
    d.kill();
    d.serve();
    assert_eq!(d.field("count", &["status", "phase"]), "Exited");
    d.biga(&["start", "--checkpoint", "two", "count"]).ok();
    counts_beyond(&d, at + 2);
    nothing_lost(&d);
    assert_eq!(d.field("count", &["spec", "restoreFrom"]), "two");
    let runs = failed(d.biga(&["start", "--checkpoint", "two", "count"]), 4);
    assert!(runs.contains("stop it before"), "{runs}");
    // It is empty for a moment, each time it is written.
    let n = biga_testkit::eventually("the number in the volume", || {
        d.biga(&["exec", "count", "cat", "/data/n"])
            .ok()
            .trim()
            .parse::<u64>()
            .ok()
    });
    assert!(n > at as u64, "{n} {at}");

    // Once more from the same one, and then from none.
    d.biga(&["stop", "-t", "0", "count"]).ok();
    let at = counted(&d).len();
    d.biga(&["start", "--checkpoint", "one", "count"]).ok();
    counts_beyond(&d, at);
    assert!(counted(&d)[at] > 1, "it goes on, and does not begin");
    d.biga(&["stop", "-t", "0", "count"]).ok();
    let at = counted(&d).len();
    let none = d.biga(&["start", "--checkpoint", "none", "count"]);
    assert!(none.err.contains("has no checkpoint none"), "{}", none.err);
    d.biga(&["start", "count"]).ok();
    counts_beyond(&d, at);
    assert_eq!(counted(&d)[at], 1, "it begins anew");

    checkpoint(&d, &["rm", "count", "one"]).ok();
    assert_eq!(checkpoint(&d, &["ls", "-q", "count"]).ok(), "two");
    failed(checkpoint(&d, &["rm", "count", "one"]), 3);
    d.biga(&["rm", "-f", "count"]).ok();
    assert!(!dir.exists(), "its checkpoints go with it");
    d.until_clean();
}

#[test]
fn what_cannot_be_checkpointed_says_so() {
    let d = daemon();
    let refused = |args: &[&str], word: &str| {
        let ran = d.biga(args);
        assert!(ran.err.contains(word), "no {word:?} in {}{}", ran.out, ran.err);
    };
    d.biga(&["run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000"])
        .ok();
    refused(&["checkpoint", "create", "gone", "one"], "removes itself when it ends");
    d.biga(&["run", "-d", "-t", "--name", "tty", "busybox", "sleep", "1000"])
        .ok();
    if criu_works() {
        refused(
            &["checkpoint", "create", "tty", "one"],
            "a terminal cannot be checkpointed",
        );
    }
    refused(&["checkpoint", "create", "tty", "../one"], "is no name of a checkpoint");
    d.biga(&[
        "create",
        "--name",
        "vm",
        "--isolation",
        "microvm",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    refused(
        &["checkpoint", "ls", "vm"],
        "is a microvm: CRIU saves processes of this host",
    );
    refused(&["checkpoint", "create", "vm", "one"], "is not running");
    d.biga(&["rm", "-f", "gone", "tty", "vm"]).ok();
}

#[test]
fn dockers_command_line_makes_and_uses_them() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    counting(&d);
    if !criu_works() {
        let said = docker(&d, &["checkpoint", "create", "count", "one"]).err;
        assert!(said.contains("CRIU"), "{said}");
        return;
    }
    assert_eq!(
        docker(&d, &["checkpoint", "create", "--leave-running", "count", "one"]).ok(),
        "one"
    );
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.State.Status}}", "count"]).ok(),
        "running"
    );
    docker(&d, &["checkpoint", "create", "count", "two"]).ok();
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "count"]).ok(),
        "exited 137"
    );
    assert_eq!(
        docker(&d, &["checkpoint", "ls", "count"]).ok(),
        "CHECKPOINT NAME\none\ntwo"
    );
    let at = counted(&d).len();
    docker(&d, &["start", "--checkpoint", "two", "count"]).ok();
    counts_beyond(&d, at + 2);
    nothing_lost(&d);
    docker(&d, &["checkpoint", "rm", "count", "one"]).ok();
    assert_eq!(docker(&d, &["checkpoint", "ls", "count"]).ok(), "CHECKPOINT NAME\ntwo");
    let none = docker(&d, &["checkpoint", "rm", "count", "one"]);
    assert!(none.err.contains("has no checkpoint one"), "{}", none.err);
    let elsewhere = docker(
        &d,
        &["checkpoint", "create", "--checkpoint-dir", "/tmp", "count", "three"],
    );
    assert!(elsewhere.err.contains("--checkpoint-dir"), "{}", elsewhere.err);
    docker(&d, &["rm", "-f", "count"]).ok();
}
