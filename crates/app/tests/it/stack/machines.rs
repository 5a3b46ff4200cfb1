//! A disk of its own.

use biga_testkit::{Daemon, eventually, images};

use super::microvms::with_kernel;

const ALL: [(&str, &str); 3] = [("box", "container"), ("vmbox", "microvm"), ("disk", "vm")];

fn all_three(d: &Daemon) {
    let disk = images::boot_disk(d.path()).display().to_string();
    d.biga(&["image", "import", "--format", "raw", &disk, "disk:1"]).ok();
    let script = "echo up; while [ ! -e /root/go ]; do sleep 0.1; done; exit 11";
    for (name, isolation) in ALL {
        let program = ["busybox", "sh", "-c", script];
        let what = if isolation == "vm" { &["disk:1"][..] } else { &program };
        let run = ["run", "-d", "--name", name, "--isolation", isolation, "-m", "128M"];
        d.biga(&[&run[..], what].concat()).ok();
    }
    for (name, isolation) in ALL {
        let says = if isolation == "vm" { "disk boots" } else { "up" };
        eventually(&format!("{name} says {says}"), || {
            d.biga(&["logs", name]).out.contains(says).then_some(())
        });
    }
}

#[test]
fn a_container_a_microvm_and_a_machine_outlive_the_daemon() {
    let mut d = with_kernel();
    all_three(&d);
    let seen = |d: &Daemon| {
        ALL.map(|(name, _)| {
            (
                d.field(name, &["status", "phase"]),
                d.field(name, &["status", "pid"]),
                d.field(name, &["status", "networks"]),
            )
        })
    };
    let before = seen(&d);
    d.kill();
    d.serve();
    assert_eq!(seen(&d), before);
    let stats = d.biga(&["stats", "--no-stream", "-o", "name"]).ok();
    assert_eq!(stats, "instance/box\ninstance/disk\ninstance/vmbox");

    // Each ends in its own way, and its end is seen.
    for name in ["box", "vmbox"] {
        d.biga(&["exec", name, "touch", "/root/go"]).ok();
        assert_eq!(d.biga(&["wait", name]).ok(), "11", "{name}");
    }
    d.biga(&["stop", "disk"]).ok();
    assert_eq!(
        d.field("disk", &["status", "exitCode"]),
        "0",
        "it heeds the power button"
    );
    let names = ALL.map(|(name, _)| name);
    d.biga(&[&["rm"][..], &names].concat()).ok();
    d.until_clean();
}
