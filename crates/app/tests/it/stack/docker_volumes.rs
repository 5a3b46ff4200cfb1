//! Volumes as Docker's users know them.

use biga_testkit::Daemon;

use super::daemon;
use super::docker::{docker, has_docker};

fn sh(d: &Daemon, options: &[&str], script: &str) -> biga_testkit::Ran {
    docker(
        d,
        &[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat(),
    )
}

#[test]
fn volumes_of_the_image_and_of_others() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    // An image that asks for a volume.
    let config = d.path().join("with-volume.json");
    std::fs::write(
        &config,
        r#"{"Cmd":["sh"],"Env":["PATH=/bin"],"Volumes":{"/var/www":{}}}"#,
    )
    .unwrap();
    let tar = d.path().join("busybox.tar");
    d.biga(&[
        "image",
        "import",
        "--config",
        config.to_str().unwrap(),
        tar.to_str().unwrap(),
        "www",
    ])
    .ok();
    docker(
        &d,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "--stop-timeout",
            "0",
            "-v",
            "/extra",
            "www",
            "sleep",
            "1000",
        ],
    )
    .ok();
    let mounts = docker(
        &d,
        &[
            "inspect",
            "-f",
            "{{range .Mounts}}{{.Type}} {{.Destination}}\n{{end}}",
            "web",
        ],
    )
    .ok();
    let mut mounts: Vec<&str> = mounts.lines().filter(|l| !l.is_empty()).collect();
    mounts.sort_unstable();
    assert_eq!(mounts, ["volume /extra", "volume /var/www"]);
    assert_eq!(docker(&d, &["volume", "ls", "-q"]).ok().lines().count(), 2);
    // Filled from the image, and shared with another.
    let from = ["--volumes-from", "web"];
    assert_eq!(
        sh(&d, &from, "cat /var/www/index.html; echo new > /var/www/new").ok(),
        "hello from biga"
    );
    assert_eq!(docker(&d, &["exec", "web", "cat", "/var/www/new"]).ok(), "new");
    let refused = sh(&d, &["--volumes-from", "web:ro"], "echo x > /extra/file");
    assert!(refused.code != 0 && refused.err.contains("Read-only"), "{refused:?}");
    assert_eq!(
        docker(&d, &["volume", "ls", "-q"]).ok().lines().count(),
        2,
        "what is borrowed stays"
    );
    let used = docker(&d, &["volume", "ls", "-q", "-f", "dangling=true"]).ok();
    assert_eq!(used, "");
    docker(&d, &["rm", "-f", "-v", "web"]).ok();
    assert_eq!(docker(&d, &["volume", "ls", "-q"]).ok(), "");
    // Without -v they stay, and are pruned as such.
    docker(&d, &["create", "--name", "web", "www"]).ok();
    docker(&d, &["rm", "web"]).ok();
    docker(&d, &["volume", "create", "--label", "keep=yes", "named"]).ok();
    let pruned = docker(&d, &["volume", "prune", "-f"]).ok();
    assert!(
        !pruned.contains("named") && pruned.contains("Deleted Volumes"),
        "{pruned}"
    );
    assert_eq!(docker(&d, &["volume", "ls", "-q"]).ok(), "named");
    docker(&d, &["volume", "prune", "-af", "--filter", "label!=keep=yes"]).ok();
    assert_eq!(docker(&d, &["volume", "ls", "-q"]).ok(), "named");
    assert!(docker(&d, &["volume", "prune", "-af"]).ok().contains("named"));
    d.until_clean();
}

#[test]
fn empty_volumes_are_filled_unless_that_is_not_wanted() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let list = |mount: &str| sh(&d, &["-v", mount], "ls /var/www").ok();
    assert_eq!(list("plain:/var/www"), "index.html");
    assert_eq!(list("bare:/var/www:nocopy"), "");
    let long = "type=volume,source=other,target=/var/www,volume-nocopy";
    assert_eq!(sh(&d, &["--mount", long], "ls /var/www").ok(), "");
}

#[test]
fn the_local_driver_mounts_what_it_is_told() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let there = d.path().join("there");
    std::fs::create_dir(&there).unwrap();
    std::fs::write(there.join("file"), "of the host\n").unwrap();
    let device = format!("device={}", there.display());
    docker(
        &d,
        &[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            &device,
            "data",
        ],
    )
    .ok();
    docker(
        &d,
        &[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            "o=size=1m,mode=0700",
            "mem",
        ],
    )
    .ok();
    assert_eq!(
        docker(
            &d,
            &["volume", "inspect", "-f", "{{.Options.o}} {{.Options.type}}", "mem"]
        )
        .ok(),
        "size=1m,mode=0700 tmpfs"
    );
    assert_eq!(
        sh(&d, &["-v", "data:/data"], "cat /data/file; echo back > /data/answer").ok(),
        "of the host"
    );
    assert_eq!(std::fs::read_to_string(there.join("answer")).unwrap(), "back\n");
    let full = sh(
        &d,
        &["-v", "mem:/mem"],
        "stat -c %a /mem; dd if=/dev/zero of=/mem/x bs=1M count=2",
    );
    assert!(
        full.code != 0 && full.out.starts_with("700") && full.err.contains("No space"),
        "{full:?}"
    );
    // In one go with a container.
    let mount =
        format!("type=volume,source=inline,target=/in,volume-opt=type=none,volume-opt=o=bind,volume-opt={device}");
    assert_eq!(sh(&d, &["--mount", &mount], "cat /in/answer").ok(), "back");
    for (options, why) in [
        (&["-o", "type=tmpfs"][..], "missing required option"),
        (&["-o", "colour=red"], "invalid option"),
        (&["-d", "nfs-plugin"], "plugin"),
    ] {
        let refused = docker(&d, &[&["volume", "create"], options].concat());
        assert!(refused.code != 0 && refused.err.contains(why), "{refused:?}");
    }
    docker(
        &d,
        &[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            "device=/nonexistent/dir",
            "lost",
        ],
    )
    .ok();
    let refused = sh(&d, &["-v", "lost:/x"], "true");
    assert!(
        refused.code != 0 && refused.err.contains("/nonexistent/dir"),
        "{refused:?}"
    );
    // Removing them removes nothing of what they showed.
    docker(&d, &["volume", "rm", "data", "mem", "inline", "lost"]).ok();
    assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "of the host\n");
    d.until_clean();
}
