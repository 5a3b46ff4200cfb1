//! Containers that other runtimes make: `runc` and `crun` as they are installed, and programs that only say they are runtimes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use biga_wire::config::{Limits, Mount, MountHow, MountSource};
use biga_wire::shim::{ErrorCode, ExecSpec, Reply, Request, State};
use serde_json::Value;

use crate::support::{Rig, mounts_below, runtime, spec, until};

/// Those that are there; at least one has to be.
pub fn runtimes() -> Vec<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let find = |name: &str| places.iter().map(|p| Path::new(p).join(name)).find(|p| p.exists());
    let found: Vec<PathBuf> = ["runc", "crun"].into_iter().filter_map(find).collect();
    assert!(
        !found.is_empty(),
        "neither runc nor crun is installed: scripts/setup does that"
    );
    found
}

fn bind(path: impl AsRef<Path>, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: path.as_ref().to_owned(),
            sub_path: None,
        },
        target: target.into(),
        read_only: false,
        copy_up: false,
        how: MountHow::default(),
    }
}

/// The document that the runtime was given.
fn document(rig: &Rig) -> Value {
    let text = std::fs::read(rig.dir.join("run/oci/config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Nothing of a container that was deleted is left, on the host or with the runtime.
fn is_clean(rig: &Rig) {
    assert_eq!(rig.groups(), Vec::<PathBuf>::new());
    assert_eq!(mounts_below(&rig.dir), Vec::<String>::new());
    assert!(!rig.dir.join("run/oci/state").exists());
}

#[test]
fn a_run_is_like_our_own() {
    let script = "id; echo $FOO $HOME; pwd; hostname; umask; cat /etc/hosts; grep Cap /proc/self/status; \
                  grep -c Seccomp:.2 /proc/self/status; cat /proc/1/comm; echo err >&2; exit 7";
    let rig = || {
        Rig::sh(script).with(|c| {
            c.process.user = "web".into();
            c.process.additional_groups = vec!["logs".into()];
            c.process.env.push("FOO=bar baz".into());
            c.process.cwd = "/made/up".into();
            c.process.umask = Some(0o027);
        })
    };
    let (exit, own) = rig().run();
    assert_eq!(exit.code, 7, "{own}");
    let sorted = |log: &str| {
        // Two streams: their order is nobody's.
        let mut lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for path in runtimes() {
        let rig = rig().by(&path).up();
        let exit = rig.wait();
        assert_eq!((exit.code, exit.signal, exit.oom), (7, None, false), "{}", rig.log());
        assert_eq!(sorted(&rig.log()), sorted(&own), "{}", path.display());
        assert_eq!(
            document(&rig)["root"]["path"],
            rig.dir.join("state/upper").to_str().unwrap()
        );
        rig.must(Request::Delete);
        is_clean(&rig);
        assert_eq!(
            std::fs::metadata(rig.dir.join("state/upper/made")).unwrap().mode() & 0o777,
            0o755
        );
    }
}

#[test]
fn terminals_execs_and_input() {
    for path in runtimes() {
        let rig = Rig::sh("tty; stty size; read x; echo got $x; sleep 1000")
            .with(|c| (c.process.tty, c.process.stdin) = (true, true))
            .by(&path)
            .up();
        let mut attached = rig.connect();
        assert_eq!(attached.ask(&Request::Attach { stdin: true }), Reply::Ok);
        until("the terminal's name", || rig.log().contains("/dev/").then_some(()));
        attached.stdin(b"hello\n");
        attached.read_until("got hello");

        let exec = ExecSpec {
            tty: true,
            stdin: true,
            window: Some((33, 77)),
            env: vec!["MORE=yes".into()],
            user: Some("web".into()),
            cwd: Some("/tmp".into()),
            ..spec(&["sh", "-c", "stty size; echo $MORE; id -u; pwd; read y; exit $y"])
        };
        let mut c = rig.connect();
        let begun = c.ask(&Request::Exec { exec: Box::new(exec) });
        assert!(matches!(begun, Reply::Exec { .. }), "{begun:?}");
        let seen = c.read_until("/tmp");
        assert!(
            seen.contains("33 77") && seen.contains("yes") && seen.contains("33\r\n"),
            "{seen}"
        );
        c.stdin(b"9\n");
        assert_eq!(c.collect().0.code, 9);

        let (exit, out, err) = rig.exec(&["sh", "-c", "echo out; echo err >&2; exit 5"]);
        assert_eq!((exit.code, out.as_str(), err.as_str()), (5, "out\n", "err\n"));
        for (program, code) in [
            ("nothing", ErrorCode::NotFound),
            ("/etc/passwd", ErrorCode::NotExecutable),
        ] {
            let exec = Box::new(spec(&[program]));
            match rig.ask(Request::Exec { exec }) {
                Reply::Error { code: got, message } => assert!(got == code && message.contains(program), "{message}"),
                other => panic!("{program}: {other:?}"),
            }
        }
        // Those that failed left nobody behind.
        let Reply::Pids { pids } = rig.ask(Request::Pids) else {
            panic!("no pids")
        };
        assert_eq!(pids.len(), 1, "{pids:?}");
    }
}

#[test]
fn signals_pause_limits_and_figures() {
    for path in runtimes() {
        let rig = Rig::sh("trap 'exit 21' TERM; while true; do sleep 0.02; done")
            .config(|c| {
                c.limits = Limits {
                    memory: Some(64 << 20),
                    cpu_millis: Some(1500),
                    pids: Some(50),
                    ..Limits::default()
                }
            })
            .by(&path)
            .up();
        if biga_container::cgroup::version() == biga_container::cgroup::Version::V1 {
            assert_eq!(
                rig.group_file("memory", "memory.limit_in_bytes", "memory.max"),
                (64 << 20).to_string()
            );
            assert_eq!(rig.group_file("cpu", "cpu.cfs_quota_us", "cpu.max"), "150000");
            let limits = Box::new(Limits {
                memory: Some(32 << 20),
                pids: Some(40),
                ..Limits::default()
            });
            rig.must(Request::Update { limits });
            assert_eq!(
                rig.group_file("memory", "memory.limit_in_bytes", "memory.max"),
                (32 << 20).to_string()
            );
            assert_eq!(rig.group_file("pids", "pids.max", "pids.max"), "40");
        }
        let Reply::Stats { stats } = rig.ask(Request::Stats) else {
            panic!("no figures")
        };
        assert!(
            stats.pids >= 1 && stats.memory > 0 && stats.cpu_ns > 0 && stats.pids_limit > 0,
            "{stats:?}"
        );
        rig.must(Request::Pause);
        assert_eq!(rig.status().state, State::Paused);
        rig.must(Request::Resume);
        rig.must(Request::Stop {
            signal: 15,
            grace_ms: 60_000,
        });
        assert_eq!(rig.wait().code, 21, "{}", path.display());
        // A frozen one can be killed.
        let rig = Rig::new(&["sleep", "1000"]).by(&path).up();
        rig.must(Request::Pause);
        rig.must(Request::Signal { signal: 9 });
        assert_eq!(rig.wait().signal, Some(9));
        assert!(matches!(
            rig.ask(Request::Signal { signal: 15 }),
            Reply::Error {
                code: ErrorCode::State,
                ..
            }
        ));
    }
}

#[test]
fn memory_runs_out() {
    for path in runtimes() {
        let rig = Rig::new(&["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"])
            .config(|c| (c.limits.memory, c.limits.memory_swap) = (Some(32 << 20), Some(32 << 20)))
            .by(&path);
        let (exit, log) = rig.run();
        assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true), "{log}");
    }
}

#[test]
fn volumes_memory_and_devices() {
    for path in runtimes() {
        let rig = Rig::sh(
            "cat /sub/in /copy/of-image; echo new > /sub/out; touch /ro/x 2>&1; stat -f -c %T /mem; \
             stat -c %a /mem; stat -c '%t %T' /dev/given; echo > /dev/given && echo written; touch /x 2>&1",
        );
        let (data, volume) = (rig.dir.join("data"), rig.dir.join("volume"));
        std::fs::create_dir_all(data.join("sub")).unwrap();
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(data.join("sub/in"), "in\n").unwrap();
        std::fs::create_dir(rig.layer().join("copy")).unwrap();
        std::fs::write(rig.layer().join("copy/of-image"), "copied\n").unwrap();
        let sub = Mount {
            source: MountSource::Bind {
                path: data.clone(),
                sub_path: Some("sub".into()),
            },
            ..bind(&data, "/sub")
        };
        let copied = Mount {
            copy_up: true,
            ..bind(&volume, "/copy")
        };
        let read_only = Mount {
            read_only: true,
            ..bind(&data, "/ro")
        };
        let memory = Mount {
            source: MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: 0o750,
                options: Vec::new(),
            },
            ..bind(&data, "/mem")
        };
        let rig = rig
            .with(|c| {
                c.mounts = vec![sub, copied, read_only, memory];
                c.read_only_root = true;
                c.devices = vec![biga_wire::config::Device {
                    host_path: "/dev/null".into(),
                    path: "/dev/given".into(),
                    permissions: "rw".into(),
                    ..Default::default()
                }];
            })
            .by(&path)
            .up();
        assert_eq!(rig.wait().code, 1, "the last touch fails");
        let log = rig.log();
        for line in [
            "in\n",
            "copied\n",
            "tmpfs\n",
            "750\n",
            "1 3\n",
            "written\n",
            "/ro/x: Read-only",
            "/x: Read-only",
        ] {
            assert!(log.contains(line), "{line:?} in {log}");
        }
        assert_eq!(std::fs::read_to_string(data.join("sub/out")).unwrap(), "new\n");
        rig.must(Request::Delete);
        assert_eq!(
            std::fs::read_to_string(volume.join("of-image")).unwrap(),
            "copied\n",
            "it outlives the run"
        );
        is_clean(&rig);
    }
}

#[test]
fn what_a_killed_shim_leaves_is_swept_and_it_can_run_again() {
    for path in runtimes() {
        let mut rig = Rig::sh("cat /root/kept; echo kept > /root/kept; sleep 1000")
            .by(&path)
            .up();
        until("its file", || {
            rig.dir.join("state/upper/root/kept").exists().then_some(())
        });
        let Reply::Pids { pids } = rig.ask(Request::Pids) else {
            panic!("no pids")
        };
        rig.kill_shim();
        let uid = rig.config.uid.clone();
        // As the agent does when a shim is gone.
        biga_container::cgroup::clear(&rig.prefix, &uid).unwrap();
        for pid in pids {
            let gone = || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
            until("the end of all", gone);
        }
        assert_eq!(mounts_below(&rig.dir), Vec::<String>::new());
        let rig = rig.up();
        until("what it wrote before", || rig.log().contains("kept").then_some(()));
    }
}

#[test]
fn who_ends_elsewhere_is_reaped() {
    for path in runtimes() {
        let rig = Rig::sh("(sleep 0.05 &) ; (sleep 0.05 &) ; sleep 1000")
            .with(|c| c.namespaces.pid = biga_wire::config::Namespace::Host)
            .by(&path)
            .up();
        let shim: u32 = std::fs::read_to_string(rig.dir.join("run/shim.pid"))
            .unwrap()
            .parse()
            .unwrap();
        until("no zombies of the shim", || {
            let text = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
            let dead =
                |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
            (text.split_whitespace().filter(dead).count() == 0 && text.split_whitespace().count() == 1).then_some(())
        });
        rig.must(Request::Delete);
        is_clean(&rig);
    }
}

/// A script in a runtime's place. `$0.log` gets its command lines.
fn script(rig: &Rig, text: &str) -> PathBuf {
    let path = rig.dir.join("odd-runtime");
    let head = "#!/bin/sh\necho \"$@\" >> $0.log\nfor last; do :; done\n";
    std::fs::write(&path, format!("{head}{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn refusal(rig: &mut Rig) -> String {
    match rig.launch() {
        Reply::Error { message, .. } => {
            rig.shim_ends();
            message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_that_fails_is_quoted_and_leaves_nothing() {
    for (text, hints) in [
        ("echo 'no such feature' >&2; exit 3", &["no such feature"][..]),
        ("exit 3", &["ended with code 3"]),
        ("kill -9 $$", &["ended by signal 9"]),
        ("exit 0", &["wrote no process id"]),
        // A process that does not become the shim's: nobody could wait for it.
        (
            "while [ $# -gt 0 ]; do [ $1 = --pid-file ] && echo 1 > $2; shift; done",
            &["process 1", "not the shim's"],
        ),
        (
            "while [ $# -gt 0 ]; do [ $1 = --pid-file ] && echo many > $2; shift; done",
            &["no process id"],
        ),
        (
            "while [ $# -gt 0 ]; do [ $1 = --log ] && echo '{\"level\":\"error\",\"msg\":\"from the log\"}' > $2; shift; done; exit 1",
            &["from the log"],
        ),
        // It fails, and leaves somebody at work.
        ("sleep 1000 & exit 1", &["ended with code 1"]),
    ] {
        let mut rig = Rig::new(&["true"]);
        let path = script(&rig, text);
        rig = rig.by(&path);
        let message = refusal(&mut rig);
        assert!(message.contains("odd-runtime could not create"), "{text}: {message}");
        assert!(hints.iter().all(|h| message.contains(h)), "{text}: {message}");
        is_clean(&rig);
        let lines = std::fs::read_to_string(rig.dir.join("odd-runtime.log")).unwrap();
        assert!(
            lines.lines().last().unwrap().contains(" delete --force "),
            "it is told to clean up: {lines}"
        );
        assert_eq!(left_of(&rig), 0);
    }
    let mut rig = Rig::new(&["true"]).by("/nonexistent/runtime");
    let message = refusal(&mut rig);
    assert!(message.contains("cannot execute /nonexistent/runtime"), "{message}");
}

/// Processes that were started from this rig's shim and are still there.
fn left_of(rig: &Rig) -> usize {
    let dir = rig.dir.join("run/oci");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|e| std::fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd == dir))
        .count()
}

#[test]
fn a_runtime_that_hangs_is_given_up() {
    let hurried = |mut rig: Rig, text: &str| {
        let path = script(&rig, text);
        let mut runtime = runtime(&path);
        runtime.patience_ms = Some(1500);
        rig = rig.with(|c| c.runtime = Some(runtime));
        rig
    };
    let mut rig = hurried(Rig::new(&["true"]), "sleep 1000; true");
    let message = refusal(&mut rig);
    assert!(message.contains("did not answer within 1.5 seconds"), "{message}");
    is_clean(&rig);
    assert_eq!(left_of(&rig), 0);
    // A real one that hangs only when it is asked to pause, or to end the container.
    let real = runtimes().remove(0);
    let text = format!(
        "case \"$*\" in *' pause '*|*' kill '*) sleep 1000; true;; *) exec {} \"$@\";; esac",
        real.display()
    );
    let rig = hurried(Rig::new(&["sleep", "1000"]), &text);
    let rig = rig.up();
    match rig.ask(Request::Pause) {
        Reply::Error { message, .. } => assert!(
            message.contains("could not pause") && message.contains("killed"),
            "{message}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.status().state, State::Running);
    // Nothing that a runtime does keeps a container alive.
    rig.must(Request::Signal { signal: 9 });
    assert_eq!(rig.wait().signal, Some(9));
    rig.must(Request::Delete);
    is_clean(&rig);
}

#[test]
fn what_only_our_own_does_is_refused() {
    let ids = biga_wire::config::IdMap {
        base: 200_000,
        size: 65_536,
    };
    let path = runtimes().remove(0);
    for (rig, hint) in [
        (Rig::new(&["true"]).with(|c| c.system = true), "an init system inside"),
        (
            Rig::new(&["true"]).with(|c| c.namespaces.user = Some(ids)),
            "a user namespace",
        ),
    ] {
        let mut rig = rig.by(&path);
        match rig.launch() {
            Reply::Error { code, message } => {
                assert_eq!(code, ErrorCode::Unsupported, "{message}");
                assert!(
                    message.contains(hint) && message.contains("leave the runtime out"),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
        rig.shim_ends();
    }
}
