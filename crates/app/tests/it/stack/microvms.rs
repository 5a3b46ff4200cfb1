//! The same image under a kernel of its own.

use std::path::PathBuf;
use std::process::Command;

use biga_testkit::{Daemon, eventually};

use super::daemon;

/// Debian's cloud kernel package, fetched once for all tests.
fn kernel_package() -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kernel-package");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let find = || {
        let files = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path());
        files.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb"))
    };
    if find().is_none() {
        let script = "set -e; d=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1); apt-get download \"$d\"";
        let out = Command::new("sh")
            .args(["-c", script])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    find().expect("a kernel package").display().to_string()
}

pub(super) fn with_kernel() -> Daemon {
    let d = daemon();
    d.biga(&[
        "setup",
        "--state",
        &d.state().display().to_string(),
        "--kernel-deb",
        &kernel_package(),
    ])
    .ok();
    d
}

#[test]
fn one_image_as_container_and_as_microvm() {
    let d = with_kernel();
    let r = d.biga(&[
        "run",
        "--rm",
        "--isolation",
        "microvm",
        "busybox",
        "sh",
        "-c",
        "uname -r; echo err >&2; exit 3",
    ]);
    assert_eq!((r.code, r.err.as_str()), (3, "err\n"), "{r:?}");
    let host = d.host(&["uname", "-r"]).ok();
    assert_ne!(r.out.trim(), host, "it has a kernel of its own");

    let serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/var/www"];
    d.biga(&[&["run", "-d", "--name", "web"], &serve[..]].concat()).ok();
    d.biga(
        &[
            &[
                "run",
                "-d",
                "--name",
                "vmweb",
                "--isolation",
                "microvm",
                "-p",
                "8081:80",
            ],
            &serve[..],
        ]
        .concat(),
    )
    .ok();
    d.until_phase("vmweb", "Running");
    let get = |from: &str, to: &str| {
        eventually(&format!("{to} from {from}"), || {
            let url = format!("http://{to}/index.html");
            (d.biga(&["exec", from, "wget", "-q", "-O", "-", &url]).out == "hello from biga\n").then_some(())
        });
    };
    get("web", "vmweb");
    get("vmweb", "web");
    eventually("the published port", || {
        let r = d.host(&[
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://127.0.0.1:8081/index.html",
        ]);
        (r.out == "hello from biga\n").then_some(())
    });
    assert_eq!(d.biga(&["exec", "vmweb", "sh", "-c", "exit 6"]).code, 6);
    assert!(d.biga(&["ps"]).ok().contains("microvm"));
    let sample: serde_json::Value =
        serde_json::from_str(&d.biga(&["stats", "--no-stream", "-o", "json", "vmweb"]).ok()).unwrap();
    let stats = &sample["stats"];
    assert!(
        stats["netRx"].as_u64() > Some(0) && stats["netTx"].as_u64() > Some(0),
        "its traffic is counted: {stats}"
    );

    // The dial: the same instance, the other way, with its address.
    let address = d.field("vmweb", &["status", "networks"]);
    d.biga(&["stop", "-t", "1", "vmweb"]).ok();
    d.until_phase("vmweb", "Exited");
    d.biga(&["update", "vmweb", "--isolation", "container"]).ok();
    d.biga(&["start", "vmweb"]).ok();
    d.until_phase("vmweb", "Running");
    assert_eq!(d.biga(&["exec", "vmweb", "uname", "-r"]).ok(), host);
    assert_eq!(d.field("vmweb", &["status", "networks"]), address);
    d.biga(&["rm", "-f", "web", "vmweb"]).ok();
    d.until_clean();
}

#[test]
fn a_microvm_outlives_the_daemon() {
    let mut d = with_kernel();
    let script = "echo up; while [ ! -e /root/go ]; do sleep 0.1; done; exit 11";
    d.biga(&[
        "run",
        "-d",
        "--name",
        "vm",
        "--isolation",
        "microvm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    eventually("its first line", || {
        (d.biga(&["logs", "vm"]).out == "up\n").then_some(())
    });
    let pid = d.field("vm", &["status", "pid"]);
    d.kill();
    d.serve();
    assert_eq!(
        (d.field("vm", &["status", "phase"]), d.field("vm", &["status", "pid"])),
        ("Running".into(), pid)
    );
    d.biga(&[
        "exec",
        "vm",
        "sh",
        "-c",
        "echo from the guest > /data/note; touch /root/go",
    ])
    .ok();
    d.until_phase("vm", "Exited");
    assert_eq!(d.field("vm", &["status", "exitCode"]), "11");
    // The volume is the same data for the other isolation.
    assert_eq!(
        d.biga(&["run", "--rm", "-v", "data:/data", "busybox", "cat", "/data/note"])
            .ok(),
        "from the guest"
    );
}
