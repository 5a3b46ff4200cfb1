//! What Docker's command line has for the choice of an isolation, and what Biga gives beyond Docker.

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};
use super::microvms::with_kernel;

fn look(d: &Daemon, name: &str, format: &str) -> String {
    docker(d, &["inspect", "-f", format, name]).ok()
}

#[test]
fn every_word_for_it_runs_a_microvm() {
    if !has_docker() {
        return;
    }
    let d = with_kernel();
    let host = d.host(&["uname", "-r"]).ok();
    for (name, option) in [
        ("by-runtime", &["--runtime", "microvm"]),
        ("by-hyperv", &["--isolation", "hyperv"]),
        ("by-vm", &["--isolation", "vm"]),
    ] {
        let run = [
            &["run", "-d", "--name", name, "--stop-timeout", "0"],
            &option[..],
            &["busybox", "sleep", "1000"],
        ];
        docker(&d, &run.concat()).ok();
        assert_eq!(d.field(name, &["spec", "isolation"]), "microvm");
        let kernel = docker(&d, &["exec", name, "uname", "-r"]).ok();
        assert_ne!(kernel, host, "{name} has a kernel of its own");
        assert_eq!(look(&d, name, "{{.HostConfig.Runtime}}"), "microvm", "{name}");
        let label = docker(
            &d,
            &[
                "ps",
                "--filter",
                &format!("name={name}"),
                "--format",
                "{{.Label \"biga.dev/isolation\"}}",
            ],
        )
        .ok();
        assert_eq!(label, "microvm", "{name}");
        docker(&d, &["rm", "-f", name]).ok();
    }
    docker(&d, &["create", "--name", "plain", "--isolation", "default", "busybox"]).ok();
    assert_eq!(d.field("plain", &["spec", "isolation"]), "container");
    let both = docker(&d, &["create", "--runtime", "runc", "--isolation", "vm", "busybox"]);
    assert!(both.code != 0, "{both:?}");
    docker(&d, &["rm", "plain"]).ok();
    d.until_clean();
}

/// By the label, and by the annotation that runtimes get.
#[test]
fn what_becomes_unhealthy_is_restarted_where_that_is_asked_for() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let word = "biga.dev/restart-unhealthy=true";
    for (name, by) in [("labelled", "--label"), ("annotated", "--annotation")] {
        let run = [
            "run",
            "-d",
            "--name",
            name,
            by,
            word,
            "--health-cmd",
            "test ! -f /tmp/sick",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "--stop-timeout",
            "0",
            "busybox",
            "sleep",
            "1000",
        ];
        docker(&d, &run).ok();
        let started = look(&d, name, "{{.State.StartedAt}}");
        docker(&d, &["exec", name, "touch", "/tmp/sick"]).ok();
        eventually(&format!("{name} to be started again"), || {
            (look(&d, name, "{{.State.StartedAt}} {{.State.Status}}") != format!("{started} running")
                && look(&d, name, "{{.State.Status}}") == "running")
                .then_some(())
        });
        docker(&d, &["rm", "-f", name]).ok();
    }
    assert_eq!(
        docker(&d, &["create", "--name", "kept", "--annotation", "a=b", "busybox"]).code,
        0
    );
    assert_eq!(look(&d, "kept", "{{index .HostConfig.Annotations \"a\"}}"), "b");
    docker(&d, &["rm", "kept"]).ok();
    d.until_clean();
}
