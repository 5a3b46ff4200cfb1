//! Health checks, by both command lines.

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};
use super::microvms::with_kernel;

/// Waits until the health of an instance is `word`.
fn until(d: &Daemon, name: &str, word: &str) {
    eventually(&format!("{name} {word}"), || {
        (d.field(name, &["status", "health", "status"]) == word).then_some(())
    });
}

#[test]
fn docker_sees_how_a_container_fares() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let check = "echo looked; test -f /tmp/ok";
    let options = [
        "--health-cmd",
        check,
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let run = [
        &["run", "-d", "--name", "web"],
        &options[..],
        &["busybox", "sleep", "1000"],
    ]
    .concat();
    docker(&d, &run).ok();
    until(&d, "web", "unhealthy");
    let ps = |filter: &str| docker(&d, &["ps", "--filter", filter, "--format", "{{.Names}} {{.Status}}"]).ok();
    let line = ps("health=unhealthy");
    assert!(line.starts_with("web Up") && line.ends_with("(unhealthy)"), "{line}");
    assert_eq!(ps("health=healthy"), "");
    assert!(d.biga(&["ps"]).ok().contains(", unhealthy)"));
    docker(&d, &["exec", "web", "touch", "/tmp/ok"]).ok();
    until(&d, "web", "healthy");
    let health = docker(&d, &["inspect", "-f", "{{json .State.Health}}", "web"]).ok();
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!(
        (&health["Status"], &health["FailingStreak"]),
        (&"healthy".into(), &0.into())
    );
    eventually("a full log", || {
        let n = docker(&d, &["inspect", "-f", "{{len .State.Health.Log}}", "web"]).ok();
        (n == "5").then_some(())
    });
    let last = "{{with index .State.Health.Log 4}}{{.ExitCode}} {{.Output}}{{end}}";
    assert_eq!(docker(&d, &["inspect", "-f", last, "web"]).ok(), "0 looked");
    let config = "{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}}";
    assert_eq!(
        docker(&d, &["inspect", "-f", config, "web"]).ok(),
        format!("{} 2", serde_json::json!(["CMD-SHELL", check]))
    );
    // A frozen one is not probed, and has what it had.
    docker(&d, &["pause", "web"]).ok();
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.State.Health.Status}}", "web"]).ok(),
        "healthy"
    );
    docker(&d, &["unpause", "web"]).ok();
    let events = [
        "events",
        "--since",
        "0",
        "--until",
        "0s",
        "--filter",
        "event=health_status",
        "--format",
        "{{.Action}}",
    ];
    // The command line sends whole seconds: what this one brought is told in the next.
    eventually("the events", || {
        let told = docker(&d, &events).ok();
        (told == "health_status: unhealthy\nhealth_status: healthy").then_some(())
    });
    docker(&d, &["rm", "-f", "web"]).ok();
    let refused = docker(
        &d,
        &["create", "--health-cmd", "x", "--health-interval", "1us", "busybox"],
    );
    assert!(refused.code != 0 && refused.err.contains("1ms"), "{refused:?}");
    d.until_clean();
}

#[test]
fn a_probe_that_takes_too_long_is_killed() {
    let d = daemon();
    let check = [
        "--health-cmd",
        "echo $$ >> /tmp/probes; sleep 1000",
        "--health-timeout",
        "200ms",
    ];
    let timing = ["--health-interval", "100ms", "--health-retries", "1"];
    let run = [
        &["run", "-d", "--name", "slow"],
        &check[..],
        &timing,
        &["busybox", "sleep", "1000"],
    ]
    .concat();
    d.biga(&run).ok();
    until(&d, "slow", "unhealthy");
    let log = d.field("slow", &["status", "health", "log"]);
    assert!(log.contains("exceeded timeout"), "{log}");
    // The probe itself is gone; what it left behind is its own affair, as with Docker.
    let gone = "for p in $(head -n -1 /tmp/probes); do test ! -d /proc/$p || exit 1; done";
    d.biga(&["exec", "slow", "sh", "-c", gone]).ok();
    d.biga(&["rm", "-f", "slow"]).ok();
    d.until_clean();
}

#[test]
fn an_unhealthy_one_is_restarted_where_that_is_asked_for() {
    let d = daemon();
    // The second run finds what the first left and is well.
    let program = "if test -f /tmp/second; then touch /tmp/ok; else touch /tmp/second; fi; exec sleep 1000";
    let check = [
        "--health-cmd",
        "test -f /tmp/ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let run = [
        "run",
        "-d",
        "--name",
        "sick",
        "--restart-unhealthy",
        "--stop-timeout",
        "0",
    ];
    d.biga(&[&run[..], &check, &["busybox", "sh", "-c", program]].concat())
        .ok();
    until(&d, "sick", "healthy");
    assert_eq!(d.field("sick", &["status", "restartCount"]), "1");
    assert_eq!(d.field("sick", &["status", "phase"]), "Running");
    d.biga(&["rm", "-f", "sick"]).ok();
    d.until_clean();
}

#[test]
fn probes_go_on_with_the_next_daemon() {
    let mut d = daemon();
    let check = [
        "--health-cmd",
        "test -f /tmp/ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
    ];
    d.biga(
        &[
            &["run", "-d", "--name", "web"],
            &check[..],
            &["busybox", "sleep", "1000"],
        ]
        .concat(),
    )
    .ok();
    until(&d, "web", "unhealthy");
    d.kill();
    d.serve();
    d.biga(&["exec", "web", "touch", "/tmp/ok"]).ok();
    until(&d, "web", "healthy");
    d.biga(&["rm", "-f", "web"]).ok();
    d.until_clean();
}

#[test]
fn a_microvm_is_probed_inside() {
    let d = with_kernel();
    let check = [
        "--health-cmd",
        "uname -r; test -f /tmp/ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ];
    let run = ["run", "-d", "--name", "small", "--isolation", "microvm"];
    d.biga(&[&run[..], &check, &["busybox", "sleep", "1000"]].concat()).ok();
    until(&d, "small", "unhealthy");
    let host = d.host(&["uname", "-r"]).ok();
    let log = d.field("small", &["status", "health", "log"]);
    assert!(log.contains("\"output\"") && !log.contains(&host), "{log}");
    d.biga(&["exec", "small", "touch", "/tmp/ok"]).ok();
    until(&d, "small", "healthy");
    d.biga(&["rm", "-f", "small"]).ok();
    d.until_clean();
}
