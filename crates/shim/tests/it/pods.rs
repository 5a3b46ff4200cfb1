//! Several real containers in one shim.

use std::collections::BTreeMap;

use biga_wire::config::{Limits, Mount, MountSource, SharedTmpfs};
use biga_wire::shim::{ErrorCode, Exit, Reply, Request, State};

use crate::support::{Rig, fields, until};

const FOREVER: &str = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done";

fn refused(reply: Reply) -> (ErrorCode, String) {
    match reply {
        Reply::Error { code, message } => (code, message),
        other => panic!("{other:?}"),
    }
}

fn namespace(rig: &Rig, container: &str, kind: &str) -> String {
    let (exit, out) = rig.exec_in(container, &["readlink", &format!("/proc/self/ns/{kind}")]);
    assert_eq!(exit.code, 0);
    out
}

fn stop(signal: i32, grace_ms: u64) -> Request {
    Request::Stop { signal, grace_ms }
}

#[test]
fn containers_share_network_ipc_and_host_name_and_nothing_else() {
    let rig = Rig::pod(&[("web", FOREVER), ("side", FOREVER)]).up();
    assert_eq!(rig.status().state, State::Running, "the pod is up without a container");
    assert_eq!(rig.container("web").state, State::Created);
    rig.start("web");
    rig.start("side");
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(&rig, "web", kind), namespace(&rig, "side", kind), "{kind}");
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(namespace(&rig, "web", kind).trim(), own.to_str().unwrap(), "{kind}");
    }
    for kind in ["mnt", "pid", "cgroup"] {
        assert_ne!(namespace(&rig, "web", kind), namespace(&rig, "side", kind), "{kind}");
    }
    assert_eq!(rig.exec_in("side", &["hostname"]).1, "podbox\n");
    let up = rig.exec_in("side", &["ip", "addr", "show", "dev", "lo"]).1;
    assert!(up.contains("127.0.0.1"), "{up}");
    // Memory for IPC is one, files are each container's own.
    rig.exec_in("web", &["touch", "/dev/shm/here", "/tmp/mine"]);
    assert_eq!(
        rig.exec_in("side", &["ls", "/dev/shm", "/tmp"]).1,
        "/dev/shm:\nhere\n\n/tmp:\n"
    );
    // Where no container is named, the first one is meant.
    assert_eq!(rig.exec(&["ls", "/tmp"]).1, "mine\n");
}

#[test]
fn one_container_ends_and_starts_again_and_the_other_goes_on() {
    let rig = Rig::pod(&[("keeper", FOREVER), ("worker", "echo run; echo err >&2; exit 5")]).up();
    rig.start("keeper");
    let keeper = rig.container("keeper").pid;
    assert!(keeper.is_some());
    for n in 1..=3 {
        rig.start("worker");
        let exit = rig.wait_for("worker");
        assert_eq!((exit.code, exit.signal), (5, None));
        let state = rig.container("worker");
        assert_eq!((state.starts, state.pid), (n, None));
        assert!(state.last_started_ns.is_some());
        let file = std::fs::read(rig.dir.join("run/containers/worker/exit.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Exit>(&file).unwrap(), exit);
    }
    assert_eq!(rig.container("keeper").pid, keeper);
    assert_eq!(rig.status().state, State::Running);
    let log = rig.log_of("worker");
    assert_eq!(
        (log.matches("run\n").count(), log.matches("err\n").count()),
        (3, 3),
        "{log}"
    );
    assert_eq!(rig.log_of("keeper"), "");
    // Nothing of the ended one is left, and what runs cannot be started.
    assert!(
        rig.groups()
            .iter()
            .all(|g| !g.join("c-worker").exists() && g.join("c-keeper").exists())
    );
    let (code, message) = refused(rig.ask(Request::Start.of(Some("keeper"))));
    assert_eq!(code, ErrorCode::State, "{message}");
    let (_, message) = refused(rig.ask(Request::Stats.of(Some("worker"))));
    assert!(message.contains("worker") && message.contains("ended"), "{message}");
    let (_, message) = refused(rig.ask(Request::Stats.of(Some("nobody"))));
    assert!(message.contains("no container"), "{message}");
}

#[test]
fn a_program_that_is_not_there_fails_its_container_only() {
    let rig = Rig::pod(&[("good", FOREVER), ("bad", "true")])
        .with_pod(|p| p.containers[1].container.process.args = vec!["nowhere".into()])
        .up();
    rig.start("good");
    let (code, _) = refused(rig.ask(Request::Start.of(Some("bad"))));
    assert_eq!(code, ErrorCode::NotFound);
    let bad = rig.container("bad");
    let exit = bad.exit.unwrap();
    assert_eq!((bad.state, bad.starts, exit.code), (State::Exited, 1, 127));
    assert!(exit.error.unwrap().contains("nowhere"));
    assert_eq!(rig.container("good").state, State::Running);
}

#[test]
fn each_is_stopped_by_itself_and_killed_after_its_own_grace() {
    let rig = Rig::pod(&[
        ("polite", FOREVER),
        ("deaf", "trap '' TERM; echo deaf; while :; do sleep 1000; done"),
    ])
    .up();
    rig.start("polite");
    rig.start("deaf");
    until("the trap", || (rig.log_of("deaf") == "deaf\n").then_some(()));
    rig.must(stop(15, 60_000).of(Some("polite")));
    assert_eq!(rig.wait_for("polite").code, 7);
    assert_eq!(rig.container("deaf").state, State::Running);
    rig.must(stop(15, 100).of(Some("deaf")));
    assert_eq!(rig.wait_for("deaf").signal, Some(9));
    assert_eq!(rig.status().state, State::Running, "the pod goes on without containers");
    // Stopping what does not run is done already.
    rig.must(stop(15, 100).of(Some("deaf")));
    rig.start("polite");
    assert_eq!(rig.exec_in("polite", &["echo", "again"]).1, "again\n");
}

#[test]
fn the_pod_ends_as_it_is_told() {
    let mut rig = Rig::pod(&[("a", FOREVER), ("b", FOREVER)]).up();
    rig.start("a");
    rig.start("b");
    let exit = Exit {
        code: 3,
        ..Exit::default()
    };
    rig.must(Request::Finish { exit });
    let status = rig.status();
    assert_eq!((status.state, status.exit.unwrap().code), (State::Exited, 3));
    assert!(status.containers.iter().all(|c| c.state == State::Exited));
    rig.shim_ends();
    let file = std::fs::read(rig.dir.join("run/exit.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Exit>(&file).unwrap().code, 3);
    assert_eq!(rig.groups(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn shared_process_ids_have_an_init_and_end_with_their_container() {
    let rig = Rig::pod(&[
        ("a", FOREVER),
        ("b", "(sh -c 'sleep 4321 & exec true'); exec sleep 1234"),
    ])
    .with_pod(|p| p.share_pids = true)
    .up();
    rig.start("a");
    rig.start("b");
    assert_eq!(namespace(&rig, "a", "pid"), namespace(&rig, "b", "pid"));
    let seen = until("all processes", || {
        let seen = rig.exec_in("a", &["ps", "-o", "pid,args"]).1;
        (seen.contains("sleep 1234") && seen.contains("sleep 4321")).then_some(seen)
    });
    let first = seen.lines().find(|l| l.trim_start().starts_with("1 ")).unwrap();
    assert!(!first.contains("sleep"), "process 1 is none of a container: {seen}");
    // An orphan is the init's child, and goes with its container.
    rig.must(Request::Signal { signal: 9 }.of(Some("b")));
    assert_eq!(rig.wait_for("b").signal, Some(9));
    let left = rig.exec_in("a", &["ps", "-o", "pid,args"]).1;
    assert!(!left.contains("sleep 4321"), "{left}");
    // Nobody inside can end it.
    rig.exec_in("a", &["kill", "-9", "1"]);
    assert_eq!(rig.container("a").state, State::Running);
    rig.start("b");
    assert_eq!(rig.container("b").state, State::Running);
}

#[test]
fn volumes_in_memory_are_the_same_for_all() {
    let mount = |target: &str| Mount {
        source: MountSource::Tmpfs {
            size: None,
            mode: 0o1777,
            options: Vec::new(),
        },
        target: target.into(),
        read_only: false,
        copy_up: false,
        how: Default::default(),
    };
    let rig = Rig::pod(&[("writer", "echo text > /w/file"), ("reader", FOREVER)])
        .with_pod(|p| {
            p.tmpfs = BTreeMap::from([(
                "data".into(),
                SharedTmpfs {
                    size: Some(1 << 20),
                    mode: 0o1777,
                    options: vec!["noexec".into()],
                },
            )]);
            p.containers[0].container.mounts = vec![mount("/w")];
            p.containers[0].shared = BTreeMap::from([(0, "data".into())]);
            p.containers[1].container.mounts = vec![mount("/own"), mount("/r")];
            p.containers[1].container.mounts[1].read_only = true;
            p.containers[1].shared = BTreeMap::from([(1, "data".into())]);
        })
        .up();
    rig.start("writer");
    assert_eq!(rig.wait_for("writer").code, 0);
    // What one wrote outlives it.
    rig.start("reader");
    assert_eq!(rig.exec_in("reader", &["cat", "/r/file"]).1, "text\n");
    assert_eq!(rig.exec_in("reader", &["ls", "/own"]).1, "");
    let written = rig
        .exec_in("reader", &["sh", "-c", "touch /r/x 2>/dev/null || echo no"])
        .1;
    assert_eq!(written, "no\n", "it was mounted read-only");
    let df = rig.exec_in("reader", &["grep", " /r ", "/proc/self/mounts"]).1;
    assert!(df.contains("size=1024k") && df.contains("noexec"), "{df}");
    assert_eq!(
        crate::support::mounts_below(&rig.dir),
        Vec::<String>::new(),
        "nothing on the host"
    );
}

#[test]
fn limits_hold_for_the_whole_and_for_each() {
    let rig = Rig::pod(&[("a", FOREVER), ("b", "dd if=/dev/zero of=/dev/null bs=48M count=1")])
        .with_pod(|p| p.containers[1].limits.memory = Some(16 << 20))
        .config(|c| {
            c.limits = Limits {
                pids: Some(100),
                cpu_millis: Some(700),
                ..Limits::default()
            }
        })
        .up();
    rig.start("a");
    rig.start("b");
    let exit = rig.wait_for("b");
    assert!(exit.oom, "{exit:?}");
    assert_eq!(rig.container("a").state, State::Running);
    let Reply::Stats { stats } = rig.ask(Request::Stats) else {
        panic!()
    };
    assert_eq!(stats.pids_limit, 100);
    let Reply::Stats { stats: of_a } = rig.ask(Request::Stats.of(Some("a"))) else {
        panic!()
    };
    assert!(of_a.pids >= 1 && of_a.pids <= stats.pids, "{of_a:?} {stats:?}");
    // The instance's share of the processor holds for a container without a group of its own there.
    let pid = rig.container("a").pid.unwrap();
    let groups = fields(
        &std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .unwrap()
            .replace("::", ":v2:"),
    );
    assert!(
        groups
            .values()
            .all(|g| g.contains(&rig.config.cgroup) || !g.contains("cpu:")),
        "{groups:?}"
    );
    rig.must(Request::Update {
        limits: Box::new(Limits {
            pids: Some(50),
            ..Limits::default()
        }),
    });
    let Reply::Stats { stats } = rig.ask(Request::Stats) else {
        panic!()
    };
    assert_eq!(stats.pids_limit, 50);
}

#[test]
fn freezing_holds_all_and_a_stop_thaws() {
    let rig = Rig::pod(&[("a", FOREVER), ("b", FOREVER)]).up();
    rig.start("a");
    rig.start("b");
    rig.must(Request::Pause);
    assert_eq!(rig.status().state, State::Paused);
    let (code, _) = refused(rig.ask(Request::Exec { exec: Box::default() }.of(Some("a"))));
    assert_eq!(code, ErrorCode::State);
    rig.must(stop(9, 0).of(Some("a")));
    assert_eq!(rig.wait_for("a").signal, Some(9));
    assert_eq!(rig.status().state, State::Running);
    assert_eq!(rig.exec_in("b", &["echo", "on"]).1, "on\n");
    rig.must(Request::Pause);
    rig.must(Request::Delete);
}

#[test]
fn input_goes_to_the_container_that_was_named() {
    let rig = Rig::pod(&[("quiet", FOREVER), ("echo", "cat; echo over")])
        .with_pod(|p| {
            p.containers[1].container.process.stdin = true;
            p.containers[1].container.process.stdin_once = true;
        })
        .up();
    rig.start("quiet");
    let attach = Request::Attach { stdin: true }.of(Some("echo"));
    let (code, _) = refused(rig.ask(attach.clone()));
    assert_eq!(code, ErrorCode::State, "it was not started");
    rig.start("echo");
    let mut client = rig.connect();
    assert_eq!(client.ask(&attach), Reply::Ok);
    client.stdin(b"hello\n");
    client.read_until("hello\n");
    client.eof();
    let (exit, out, _) = client.collect();
    assert_eq!((exit.code, out.as_str()), (0, "over\n"));
    assert_eq!(rig.log_of("echo"), "hello\nover\n");
}

#[test]
fn a_killed_shim_takes_everything_along() {
    for (share_pids, frozen) in [(false, false), (true, false), (false, true)] {
        let mut rig = Rig::pod(&[("a", FOREVER), ("b", "sleep 1000 & exec sleep 1000")])
            .with_pod(|p| p.share_pids = share_pids)
            .up();
        rig.start("a");
        rig.start("b");
        let pids = until("all processes", || match rig.ask(Request::Pids) {
            Reply::Pids { pids } => (pids.len() >= 3).then_some(pids),
            other => panic!("{other:?}"),
        });
        if frozen {
            rig.must(Request::Pause);
        }
        rig.kill_shim();
        biga_container::sweep(&rig.prefix, &[]).unwrap();
        until("the end of all processes", || {
            let alive = |p: &&u32| {
                let stat = std::fs::read_to_string(format!("/proc/{p}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            pids.iter().all(|p| !alive(&p)).then_some(())
        });
        assert_eq!(rig.groups(), Vec::<std::path::PathBuf>::new());
        assert_eq!(crate::support::mounts_below(&rig.dir), Vec::<String>::new());
    }
}

#[test]
fn a_pod_that_makes_no_sense_is_refused() {
    let mut none = Rig::pod(&[("a", "true")]).with_pod(|p| p.containers.clear());
    assert!(refused(none.launch()).1.contains("containers"));
    let mut host = Rig::pod(&[("a", "true")]).with_pod(|p| {
        p.sysctls.insert("kernel.core_pattern".into(), "x".into());
    });
    assert!(refused(host.launch()).1.contains("core_pattern"));
    let mut path = Rig::pod(&[("a", "true")]).with_pod(|p| p.containers[0].name = "../x".into());
    assert!(refused(path.launch()).1.contains("main container"));
    let mut path = Rig::pod(&[("a", "true"), ("b", "true")]).with_pod(|p| p.containers[1].name = "../x".into());
    assert!(refused(path.launch()).1.contains("name of a container"));
}

#[test]
fn kernel_parameters_are_the_pods() {
    let rig = Rig::pod(&[("a", FOREVER)])
        .with_pod(|p| {
            p.sysctls.insert("net.ipv4.ip_default_ttl".into(), "33".into());
            p.sysctls.insert("kernel.shmmni".into(), "77".into());
        })
        .up();
    rig.start("a");
    let read = |name: &str| rig.exec_in("a", &["cat", &format!("/proc/sys/{name}")]).1;
    assert_eq!(
        (read("net/ipv4/ip_default_ttl"), read("kernel/shmmni")),
        ("33\n".into(), "77\n".into())
    );
}
