//! What a user of Docker does first.

use biga_testkit::{Daemon, eventually};

use super::daemon;

#[test]
fn run_carries_output_input_and_exit_code() {
    let d = daemon();
    let r = d.biga(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((r.code, r.out.as_str(), r.err.as_str()), (3, "out\n", "err\n"));
    let r = d.biga_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &vec![b'x'; 3 << 20]);
    assert_eq!(r.ok().trim(), (3 << 20).to_string());
    let r = d.biga(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "dd if=/dev/zero bs=64k count=64 2>/dev/null | tr '\\0' y",
    ]);
    assert_eq!(r.ok().len(), 64 * 65536);
    for (args, code) in [(&["nonesuch"][..], 127), (&["/etc/passwd"][..], 126)] {
        let r = d.biga(&[&["run", "--rm", "busybox"], args].concat());
        assert_eq!(r.code, code, "{args:?}: {}", r.err);
    }
    eventually("nothing to be left", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    d.until_clean();
}

#[test]
fn who_and_where_it_is() {
    let d = daemon();
    let script = "id -u; id -g; id -G; pwd; echo $FLAVOR-$MORE; hostname; cat /proc/1/comm; echo $HOME";
    let args = [
        "run",
        "--rm",
        "-u",
        "app",
        "-w",
        "/var/www",
        "-e",
        "MORE=spice",
        "--hostname",
        "box",
        "busybox",
    ];
    let out = d.biga(&[&args[..], &["sh", "-c", script]].concat()).ok();
    assert_eq!(out, "1000\n1000\n1000 2000\n/var/www\nplain-spice\nbox\nsh\n/home/app");
}

#[test]
fn detached_logs_exec_and_stop() {
    let d = daemon();
    let script = "echo one; echo two >&2; trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done";
    d.biga(&["run", "-d", "--name", "web", "busybox", "sh", "-c", script])
        .ok();
    eventually("its first lines", || {
        (d.biga(&["logs", "web"]).out == "one\n").then_some(())
    });
    assert_eq!(d.biga(&["logs", "web"]).err, "two\n");
    assert_eq!(d.biga(&["exec", "web", "sh", "-c", "echo inside; exit 7"]).code, 7);
    assert_eq!(
        d.biga(&["exec", "-e", "A=b", "-w", "/tmp", "web", "sh", "-c", "echo $A; pwd"])
            .ok(),
        "b\n/tmp"
    );
    assert_eq!(
        d.biga_with_input(&["exec", "-i", "web", "cat"], b"through").ok(),
        "through"
    );
    assert_eq!(d.biga(&["exec", "web", "nonesuch"]).code, 127);
    assert!(d.biga(&["ps"]).ok().contains("web"));

    d.biga(&["stop", "web"]).ok();
    assert_eq!(d.field("web", &["status", "exitCode"]), "5");
    assert!(d.biga(&["logs", "web"]).ok().ends_with("bye"));
    assert!(!d.biga(&["ps"]).ok().contains("web"));
    let r = d.biga(&["exec", "web", "true"]);
    assert!(r.code != 0 && r.err.contains("does not run"), "{r:?}");

    d.biga(&["start", "web"]).ok();
    d.until_phase("web", "Running");
    assert_ne!(
        d.biga(&["rm", "web"]).code,
        0,
        "a running instance is not removed without force"
    );
    d.biga(&["rm", "-f", "web"]).ok();
    d.until_clean();
}

#[test]
fn limits_reach_the_kernel() {
    let d = daemon();
    let args = [
        "run",
        "--rm",
        "--memory",
        "32m",
        "--pids-limit",
        "20",
        "busybox",
        "sh",
        "-c",
    ];
    let eat = "x=$(head -c 64m /dev/zero | tr '\\0' x); echo ${#x}";
    let r = d.biga(&[&args[..], &[eat]].concat());
    assert_ne!(
        r.out.trim(),
        (64 << 20).to_string(),
        "it got more memory than it may have"
    );
    let r = d.biga(&[&args[..], &["for i in $(seq 40); do sleep 5 & done"]].concat());
    assert!(r.err.contains("can't fork"), "{r:?}");

    d.biga(&[
        "run",
        "-d",
        "--name",
        "hog",
        "--memory",
        "32m",
        "busybox",
        "sh",
        "-c",
        &format!("sleep 1; exec sh -c '{}'", "tail /dev/zero"),
    ])
    .ok();
    d.until_phase("hog", "Exited");
    assert_eq!(
        (
            d.field("hog", &["status", "exitCode"]),
            d.field("hog", &["status", "oomKilled"])
        ),
        ("137".into(), "true".into())
    );
}

#[test]
fn pause_kill_wait_and_restart() {
    let d = daemon();
    d.biga(&["run", "-d", "--name", "w", "busybox", "sleep", "1000"]).ok();
    let pid = d.field("w", &["status", "pid"]);
    d.biga(&["pause", "w"]).ok();
    d.until_phase("w", "Paused");
    d.biga(&["resume", "w"]).ok();
    d.until_phase("w", "Running");
    assert_eq!(d.field("w", &["status", "pid"]), pid);
    d.biga(&["restart", "-t", "0", "w"]).ok();
    eventually("another process", || {
        let now = d.field("w", &["status", "pid"]);
        (!now.is_empty() && now != pid).then_some(())
    });
    d.until_phase("w", "Running");
    d.biga(&["kill", "w"]).ok();
    assert_eq!(d.biga(&["wait", "w"]).ok(), "137");
}

#[test]
fn volumes_outlive_their_instances() {
    let d = daemon();
    d.biga(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo kept > /data/file",
    ])
    .ok();
    assert_eq!(
        d.biga(&["run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/file"])
            .ok(),
        "kept"
    );
    let r = d.biga(&["run", "--rm", "-v", "data:/d:ro", "busybox", "touch", "/d/x"]);
    assert!(r.code != 0 && r.err.contains("Read-only"), "{r:?}");
    // What the image has under the mount point is copied into a new volume.
    assert_eq!(
        d.biga(&[
            "run",
            "--rm",
            "-v",
            "www:/var/www",
            "busybox",
            "cat",
            "/var/www/index.html"
        ])
        .ok(),
        "hello from biga"
    );
    let host = d.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("note"), "from the host").unwrap();
    let bind = format!("{}:/mnt/shared", host.display());
    assert_eq!(
        d.biga(&["run", "--rm", "-v", &bind, "busybox", "cat", "/mnt/shared/note"])
            .ok(),
        "from the host"
    );
    assert!(d.biga(&["volume", "ls"]).ok().contains("data"));
    d.biga(&["volume", "rm", "data"]).ok();
    eventually("the volume to go", || {
        (!d.biga(&["volume", "ls"]).ok().contains("data")).then_some(())
    });
}

#[test]
fn the_writable_layer_lives_as_long_as_the_instance() {
    let d = daemon();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "w",
        "busybox",
        "sh",
        "-c",
        "echo run >> /root/runs; sleep 1000",
    ])
    .ok();
    let runs = |d: &Daemon| d.biga(&["exec", "w", "cat", "/root/runs"]).out.lines().count();
    eventually("the first run", || (runs(&d) == 1).then_some(()));
    d.biga(&["restart", "-t", "0", "w"]).ok();
    eventually("the second run", || (runs(&d) == 2).then_some(()));
    let fresh = d.biga(&["run", "--rm", "busybox", "ls", "/root"]).ok();
    assert_eq!(fresh, "", "the image stays as it was");
}
