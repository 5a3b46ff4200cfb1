//! Containers that other OCI runtimes make: those that are installed, and our own as its command line, which the daemon is given.

use std::os::unix::fs::symlink;
use std::path::Path;

use biga_testkit::{Daemon, eventually};

use super::daemon;
use super::docker::{docker, has_docker};

/// A daemon that knows our own runtime by the name `ours`, beside what is installed.
fn with_ours() -> Daemon {
    let program = env!("CARGO_BIN_EXE_biga");
    let d = Daemon::start_with(program, |dir| {
        // By this name the program is the runtime only.
        let path = dir.join("biga-oci");
        symlink(program, &path).unwrap();
        vec!["--runtime".into(), format!("ours={}", path.display())]
    });
    d.import_busybox();
    d
}

fn installed(name: &str) -> bool {
    let found = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(name).exists());
    if !found {
        println!("no {name} on this host: it is not tried");
    }
    found
}

/// What the runtime itself keeps of an instance: there as long as it holds one.
fn kept_by_runtime(d: &Daemon, instance: &str) -> bool {
    let uid = d.field(instance, &["metadata", "uid"]);
    let state = d.run_root().join("instances").join(&uid).join("oci/state");
    std::fs::read_dir(state).is_ok_and(|all| all.count() > 0)
}

#[test]
fn a_whole_life_by_each_runtime() {
    let mut d = with_ours();
    let all: Vec<&str> = ["runc", "crun", "ours"]
        .into_iter()
        .filter(|r| *r == "ours" || installed(r))
        .collect();
    for (i, name) in all.iter().enumerate() {
        let run = ["run", "--rm", "--runtime", name, "busybox"];
        let r = d.biga(&[&run[..], &["sh", "-c", "echo out; echo err >&2; exit 3"]].concat());
        assert_eq!(
            (r.code, r.out.as_str(), r.err.as_str()),
            (3, "out\n", "err\n"),
            "{name}"
        );
        for (program, code) in [("nonesuch", 127), ("/etc/passwd", 126)] {
            let r = d.biga(&[&run[..], &[program]].concat());
            assert!(r.code == code && r.err.contains(program), "{name} {program}: {r:?}");
        }
        let script = "httpd -p 80 -h /var/www; trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let port = format!("127.0.0.1:{}:80", 8080 + i);
        let more = [
            "-p",
            &port,
            "--memory",
            "64m",
            "-v",
            "kept:/kept",
            "busybox",
            "sh",
            "-c",
            script,
        ];
        d.biga(&[&["run", "-d", "--name", name, "--runtime", name][..], &more].concat())
            .ok();
        assert_eq!(d.field(name, &["spec", "runtime"]), *name);
        assert!(kept_by_runtime(&d, name));
    }
    let before: Vec<String> = all.iter().map(|n| d.field(n, &["status", "pid"])).collect();
    d.kill();
    d.serve();
    for (i, name) in all.iter().enumerate() {
        d.until_phase(name, "Running");
        assert_eq!(d.field(name, &["status", "pid"]), before[i], "{name} lived on");
        let url = format!("http://127.0.0.1:{}/index.html", 8080 + i);
        eventually("the published port", || {
            let page = d.host(&["/bin/busybox", "wget", "-q", "-O", "-", &url]);
            (page.out == "hello from biga\n").then_some(())
        });
        assert_eq!(
            d.biga(&["exec", name, "sh", "-c", "echo inside > /root/made; exit 7"])
                .code,
            7
        );
        assert_eq!(
            d.biga_with_input(&["exec", "-i", name, "cat"], b"through").ok(),
            "through"
        );
        assert_eq!(d.biga(&["exec", name, "nonesuch"]).code, 127);
        let copied = d.path().join(name);
        d.biga(&["cp", &format!("{name}:/root/made"), copied.to_str().unwrap()])
            .ok();
        assert_eq!(std::fs::read_to_string(copied).unwrap(), "inside\n");
        assert!(d.biga(&["diff", name]).ok().contains("A /root/made"));
        d.biga(&["pause", name]).ok();
        d.until_phase(name, "Paused");
        d.biga(&["resume", name]).ok();
        d.until_phase(name, "Running");
        d.biga(&["update", "--memory", "48m", name]).ok();
        let stats = d.biga(&["stats", "--no-stream", name]).ok();
        assert!(stats.contains("48"), "{stats}");
        d.biga(&["stop", name]).ok();
        assert_eq!(d.field(name, &["status", "exitCode"]), "5");
        assert_eq!(d.biga(&["logs", name]).ok(), "up\nbye");
        eventually("the runtime to forget it", || {
            (!kept_by_runtime(&d, name)).then_some(())
        });
        // Its files are still there in the next run.
        d.biga(&["start", name]).ok();
        d.until_phase(name, "Running");
        assert_eq!(d.biga(&["exec", name, "cat", "/root/made"]).ok(), "inside");
        d.biga(&["rm", "-f", name]).ok();
    }
    d.until_clean();
}

#[test]
fn an_init_reaps_and_forwards() {
    let d = with_ours();
    for name in ["runc", "ours"].into_iter().filter(|r| *r == "ours" || installed(r)) {
        let script = "(sleep 0.05 &) ; trap 'exit 21' USR1; echo pid $$; while :; do sleep 0.02; done";
        let run = [
            "run",
            "-d",
            "--name",
            name,
            "--runtime",
            name,
            "--init",
            "busybox",
            "sh",
            "-c",
            script,
        ];
        d.biga(&run).ok();
        eventually("the program", || {
            d.biga(&["logs", name]).out.contains("pid ").then_some(())
        });
        assert_ne!(d.biga(&["logs", name]).ok(), "pid 1", "not the first process");
        eventually("no zombies", || {
            let out = d.biga(&["exec", name, "sh", "-c", "cat /proc/[0-9]*/stat"]).out;
            (!out.is_empty() && !out.contains(") Z ")).then_some(())
        });
        assert!(
            !d.biga(&["diff", name]).ok().contains("/dev"),
            "nothing of the image is changed by it"
        );
        d.biga(&["kill", "-s", "USR1", name]).ok();
        d.until_phase(name, "Exited");
        assert_eq!(d.field(name, &["status", "exitCode"]), "21");
        let r = d.biga(&["run", "--rm", "--runtime", name, "--init", "busybox", "nonesuch"]);
        assert!(r.code == 127 && r.err.contains("nonesuch"), "{r:?}");
        let tty = [
            "run",
            "--rm",
            "-t",
            "--runtime",
            name,
            "--init",
            "busybox",
            "sh",
            "-c",
            "read x </dev/null; tty",
        ];
        assert!(d.biga(&tty).ok().contains("/dev/"));
    }
}

#[test]
fn unknown_and_broken_runtimes_are_named() {
    let d = Daemon::start_with(env!("CARGO_BIN_EXE_biga"), |_| {
        vec!["--runtime".into(), "broken=/bin/false".into()]
    });
    d.import_busybox();
    for (runtime, hints) in [
        ("nonesuch", &["no runtime nonesuch", "there are", "broken"][..]),
        ("/bin/sh", &["no runtime /bin/sh"]),
        ("broken", &["runtime broken could not create the container", "code 1"]),
    ] {
        let r = d.biga(&["run", "--name", "x", "--runtime", runtime, "busybox", "true"]);
        assert_eq!(r.code, 125, "{r:?}");
        assert!(hints.iter().all(|h| r.err.contains(h)), "{r:?}");
        d.biga(&["rm", "-f", "x"]);
    }
    let r = d.biga(&[
        "run",
        "--runtime",
        "broken",
        "--isolation",
        "microvm",
        "busybox",
        "true",
    ]);
    assert!(r.code != 0 && r.err.contains("only for isolation container"), "{r:?}");
    d.until_clean();
    let node = d.biga(&["get", "node", "test", "-o", "json"]).ok();
    assert!(node.contains("\"broken\"") && node.contains("/bin/false"), "{node}");
}

#[test]
fn a_killed_shim_takes_the_runtimes_container_along() {
    if !installed("runc") {
        return;
    }
    let d = daemon();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "w",
        "--runtime",
        "runc",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let (uid, pid) = (d.field("w", &["metadata", "uid"]), d.field("w", &["status", "pid"]));
    let shim = d.host(&["pgrep", "-f", &format!("biga-shim.*{uid}")]).ok();
    d.host(&["kill", "-9", shim.lines().next().unwrap()]).ok();
    d.until_phase("w", "Exited");
    eventually("its process to die", || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    d.biga(&["start", "w"]).ok();
    d.until_phase("w", "Running");
    d.biga(&["rm", "-f", "w"]).ok();
    d.until_clean();
}

#[test]
fn docker_names_runtimes() {
    if !has_docker() || !installed("runc") {
        return;
    }
    let d = with_ours();
    let r = docker(
        &d,
        &[
            "run",
            "--rm",
            "--runtime",
            "runc",
            "busybox",
            "sh",
            "-c",
            "echo out; exit 4",
        ],
    );
    assert_eq!((r.code, r.out.as_str()), (4, "out\n"), "{}", r.err);
    for name in ["runc", "ours"] {
        docker(
            &d,
            &[
                "run",
                "-d",
                "--name",
                name,
                "--runtime",
                name,
                "busybox",
                "sleep",
                "1000",
            ],
        )
        .ok();
        assert!(kept_by_runtime(&d, name));
        assert_eq!(
            docker(&d, &["inspect", "-f", "{{.HostConfig.Runtime}}", name]).ok(),
            name
        );
        assert_eq!(docker(&d, &["exec", name, "echo", "inside"]).ok(), "inside");
    }
    for same in [
        &["run", "-d", "--name", "plain"][..],
        &["run", "-d", "--name", "named", "--runtime", "biga"],
    ] {
        docker(&d, &[same, &["busybox", "sleep", "1000"]].concat()).ok();
        let name = same[3];
        assert_eq!(
            docker(&d, &["inspect", "-f", "{{.HostConfig.Runtime}}", name]).ok(),
            "biga"
        );
        assert!(!kept_by_runtime(&d, name));
    }
    let r = docker(&d, &["run", "--runtime", "nonesuch", "busybox", "true"]);
    assert!(
        r.code == 125 && r.err.contains("unknown or invalid runtime name: nonesuch"),
        "{r:?}"
    );
    let info = docker(&d, &["info", "-f", "{{.DefaultRuntime}} {{json .Runtimes}}"]).ok();
    assert!(
        info.starts_with("biga ") && info.contains("\"runc\"") && info.contains("\"ours\""),
        "{info}"
    );
    docker(&d, &["rm", "-f", "runc", "ours", "plain", "named"]).ok();
    d.until_clean();
}
