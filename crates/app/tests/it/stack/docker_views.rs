//! What Docker's users look at: lists and their filters, sizes, logs, events.

use biga_testkit::Daemon;

use super::daemon;
use super::docker::{docker, has_docker};

fn names(d: &Daemon, filters: &[&str]) -> Vec<String> {
    let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
    for f in filters {
        args.extend(["--filter", f]);
    }
    let mut found: Vec<String> = docker(d, &args).ok().lines().map(Into::into).collect();
    found.sort();
    found
}

#[test]
fn lists_are_filtered_and_measured() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let tail = ["--stop-timeout", "0", "busybox", "sleep", "1000"];
    let run =
        |name: &str, options: &[&str]| docker(&d, &[&["run", "-d", "--name", name], options, &tail].concat()).ok();
    run("web", &["-p", "8080:80", "--expose", "9000-9005", "-l", "tier=front"]);
    run("db", &["--expose", "5432/udp", "-v", "data:/data"]);
    docker(&d, &["create", "--name", "made", "-p", "81:81/udp", "busybox"]).ok();
    assert_eq!(names(&d, &["publish=8080"]), ["web"]);
    assert_eq!(names(&d, &["publish=8070-8090/tcp"]), ["web"]);
    // Ports of the host, as they are in force: not of the container, and not yet.
    assert!(names(&d, &["publish=80"]).is_empty() && names(&d, &["publish=70-90/udp"]).is_empty());
    assert_eq!(names(&d, &["expose=9003"]), ["web"]);
    assert_eq!(names(&d, &["expose=80", "expose=5432/udp"]), ["db", "web"]);
    assert_eq!(names(&d, &["volume=data"]), ["db"]);
    assert_eq!(names(&d, &["label=tier=front"]), ["web"]);
    assert_eq!(names(&d, &["since=db"]), ["made"]);
    assert_eq!(names(&d, &["before=db"]), ["web"]);
    assert_eq!(names(&d, &["status=created"]), ["made"]);
    assert_eq!(names(&d, &["ancestor=busybox", "status=running"]), ["db", "web"]);
    let refused = docker(&d, &["ps", "--filter", "publish=many"]);
    assert!(refused.code != 0 && refused.err.contains("publish=many"), "{refused:?}");

    // A megabyte and more is seen where it lies.
    docker(
        &d,
        &["exec", "web", "dd", "if=/dev/zero", "of=/big", "bs=64k", "count=32"],
    )
    .ok();
    docker(
        &d,
        &["exec", "db", "dd", "if=/dev/zero", "of=/data/big", "bs=64k", "count=32"],
    )
    .ok();
    let size = docker(&d, &["ps", "-s", "--filter", "name=web", "--format", "{{.Size}}"]).ok();
    assert!(size.starts_with("2.") && size.contains("MB (virtual"), "{size}");
    let rw = docker(&d, &["inspect", "-s", "-f", "{{.SizeRw}}", "web"]).ok();
    assert!(rw.parse::<u64>().unwrap() >= 2 << 20, "{rw}");
    let usage = docker(
        &d,
        &[
            "system",
            "df",
            "-v",
            "--format",
            "{{range .Volumes}}{{.Name}} {{.Size}}{{end}}",
        ],
    )
    .ok();
    assert!(usage.starts_with("data 2."), "{usage}");
    docker(&d, &["stop", "web"]).ok();
    let pruned = docker(&d, &["container", "prune", "-f"]).ok();
    assert!(pruned.contains("Total reclaimed space: 2."), "{pruned}");
    docker(&d, &["rm", "-f", "db"]).ok();
    d.until_clean();
}

#[test]
fn logs_in_parts_and_with_details() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    docker(
        &d,
        &[
            "run",
            "--name",
            "said",
            "busybox",
            "sh",
            "-c",
            "echo one; sleep 1; echo two; sleep 1; echo three",
        ],
    )
    .ok();
    let logs = |options: &[&str]| docker(&d, &[&["logs"], options, &["said"]].concat()).ok();
    assert_eq!(logs(&["--tail", "2"]), "two\nthree");
    assert_eq!(logs(&["--details"]), " one\n two\n three");
    let stamped = logs(&["-t"]);
    let second = stamped
        .lines()
        .nth(1)
        .and_then(|l| l.split(' ').next())
        .unwrap()
        .to_string();
    assert_eq!(logs(&["--since", &second]), "two\nthree");
    assert_eq!(logs(&["--until", &second]), "one\ntwo");
    for driver in ["none", "local", "json-file"] {
        docker(&d, &["create", "--name", driver, "--log-driver", driver, "busybox"]).ok();
        assert!(
            !docker(&d, &["inspect", "-f", "{{.HostConfig.LogConfig.Type}}", driver])
                .ok()
                .is_empty()
        );
    }
    let refused = docker(&d, &["logs", "none"]);
    assert!(
        refused.code != 0 && refused.err.contains("does not support reading"),
        "{refused:?}"
    );
    let refused = docker(&d, &["create", "--log-driver", "fluentd", "busybox"]);
    assert!(refused.code != 0 && refused.err.contains("fluentd"), "{refused:?}");
}

#[test]
fn what_is_not_here_says_so() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    for (args, why) in [
        (&["node", "ls"][..], "not a swarm manager"),
        (&["service", "ls"], "not a swarm manager"),
        (&["secret", "ls"], "not a swarm manager"),
        (&["swarm", "leave"], "not"),
        (&["plugin", "inspect", "nonesuch"], "nonesuch"),
        (&["plugin", "disable", "nonesuch"], "not found"),
        (&["run", "--gpus", "all", "busybox"], "could not select device driver"),
    ] {
        let refused = docker(&d, args);
        assert!(refused.code != 0 && refused.err.contains(why), "{args:?}: {refused:?}");
    }
    assert_eq!(docker(&d, &["plugin", "ls", "-q"]).ok(), "");
    assert_eq!(
        docker(&d, &["info", "-f", "{{.Swarm.LocalNodeState}}"]).ok(),
        "inactive"
    );
}
