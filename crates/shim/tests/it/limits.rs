//! Control groups.

use biga_wire::config::Limits;
use biga_wire::shim::{Event, Reply, Request, State};

use crate::support::{Rig, until};

fn v1() -> bool {
    biga_container::cgroup::version() == biga_container::cgroup::Version::V1
}

#[test]
fn memory_runs_out() {
    let rig = Rig::sh("head -c 200m /dev/zero | grep x")
        .with(|c| {
            c.process.args = vec![
                "sh".into(),
                "-c".into(),
                "exec dd if=/dev/zero of=/dev/null bs=400M count=1".into(),
            ]
        })
        .config(|c| {
            c.limits.memory = Some(32 << 20);
            c.limits.memory_swap = Some(32 << 20);
        });
    let (exit, log) = rig.run();
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true), "{log}");
}

#[test]
fn memory_runs_out_of_a_child() {
    let rig = Rig::sh(
        "while ! test -e /tmp/go; do sleep 0.02; done; dd if=/dev/zero of=/dev/null bs=400M count=1; sleep 1000",
    )
    .config(|c| {
        c.limits.memory = Some(32 << 20);
        c.limits.memory_swap = Some(32 << 20);
    })
    .up();
    let mut watch = rig.connect();
    assert!(matches!(watch.ask(&Request::Watch), Reply::Status { .. }));
    assert_eq!(rig.exec(&["touch", "/tmp/go"]).0.code, 0);
    assert_eq!(watch.event(), Event::Oom);
    assert_eq!(rig.status().state, State::Running);
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => assert!(stats.oom_kills >= 1 && stats.memory_limit == 32 << 20, "{stats:?}"),
        other => panic!("{other:?}"),
    }
}

/// Time of processors a period, and their weight, in the words of the host's version.
fn processor(rig: &Rig) -> (String, String) {
    let quota = rig.group_file("cpu", "cpu.cfs_quota_us", "cpu.max");
    let shares = rig.group_file("cpu", "cpu.shares", "cpu.weight");
    (quota, shares)
}

/// What [`processor`] says on version 1, or on version 2.
fn expected(old: (&str, &str), new: (&str, &str)) -> (String, String) {
    let (quota, shares) = if v1() { old } else { new };
    (quota.to_owned(), shares.to_owned())
}

#[test]
fn limits_are_set_and_changed() {
    let rig = Rig::new(&["sleep", "1000"])
        .config(|c| {
            c.limits = Limits {
                cpu_millis: Some(1500),
                cpu_shares: Some(512),
                cpuset_cpus: Some("0".into()),
                memory: Some(64 << 20),
                memory_swap: Some(96 << 20),
                memory_reservation: Some(32 << 20),
                pids: Some(50),
                ..Limits::default()
            }
        })
        .up();
    let memory = || rig.group_file("memory", "memory.limit_in_bytes", "memory.max");
    // Version 1 counts memory and swap together, version 2 swap alone.
    let swap = || rig.group_file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let pids = || rig.group_file("pids", "pids.max", "pids.max");
    assert_eq!(processor(&rig), expected(("150000", "512"), ("150000 100000", "20")));
    assert_eq!(rig.group_file("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(memory(), (64 << 20).to_string());
    assert_eq!(swap(), (if v1() { 96 << 20 } else { 32 << 20 }).to_string());
    let low = rig.group_file("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(low, (32 << 20).to_string());
    assert_eq!(pids(), "50");
    let pid = rig.status().pid.unwrap().to_string();
    let members = rig.group_file("cpu", "cgroup.procs", "cgroup.procs");
    assert!(members.lines().any(|p| p == pid), "{pid} in {members}");
    rig.must(Request::Update {
        limits: Box::new(Limits {
            memory: Some(128 << 20),
            memory_swap: Some(128 << 20),
            pids: Some(60),
            cpu_millis: Some(500),
            ..Limits::default()
        }),
    });
    assert_eq!(memory(), (128 << 20).to_string());
    assert_eq!(swap(), (if v1() { 128 << 20 } else { 0 }).to_string());
    assert_eq!(pids(), "60");
    assert_eq!(
        processor(&rig),
        expected(("50000", "512"), ("50000 100000", "20")),
        "unnamed limits stay"
    );
}

#[test]
fn a_limit_added_later_holds_for_what_runs() {
    let rig = Rig::new(&["sleep", "1000"]).up();
    rig.must(Request::Update {
        limits: Box::new(Limits {
            cpu_millis: Some(700),
            ..Limits::default()
        }),
    });
    let pid = rig.status().pid.unwrap().to_string();
    let members = rig.group_file("cpu", "cgroup.procs", "cgroup.procs");
    assert!(members.lines().any(|p| p == pid), "{pid} in {members}");
    assert_eq!(processor(&rig).0, if v1() { "70000" } else { "70000 100000" });
}

#[test]
fn processes_are_limited_and_counted() {
    let rig = Rig::sh("(for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done); sleep 1000")
        .config(|c| c.limits.pids = Some(5))
        .up();
    // A refused fork ends the shell that tried, which is only the inner one.
    until("a refused fork", || rig.log().contains("can't fork").then_some(()));
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => {
            assert_eq!(stats.pids_limit, 5);
            assert!((1..=5).contains(&stats.pids), "{stats:?}");
            assert!(stats.cpu_ns > 0 && stats.memory > 0 && stats.at_ns > 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pause_and_resume() {
    let rig = Rig::sh("while true; do echo tick; sleep 0.01; done").up();
    until("output", || rig.log().contains("tick").then_some(()));
    rig.must(Request::Pause);
    assert_eq!(rig.status().state, State::Paused);
    let state = rig.group_file("freezer", "freezer.state", "cgroup.events");
    assert!(state.contains(if v1() { "FROZEN" } else { "frozen 1" }), "{state}");
    assert!(matches!(rig.ask(Request::Pause), Reply::Error { .. }));
    let exec = Request::Exec {
        exec: Box::new(crate::support::spec(&["true"])),
    };
    assert!(matches!(rig.ask(exec), Reply::Error { .. }));
    rig.must(Request::Resume);
    let before = rig.log().len();
    until("output after the pause", || (rig.log().len() > before).then_some(()));
    // Killed while frozen, it still dies, and nobody freezes it again before it does.
    rig.must(Request::Pause);
    rig.must(Request::Signal { signal: 9 });
    assert_ne!(rig.status().state, State::Running);
    assert!(matches!(rig.ask(Request::Pause), Reply::Error { .. }));
    assert_eq!(rig.wait().code, 137);
}

#[test]
fn devices_are_restricted() {
    let (_, log) = Rig::sh("mknod /tmp/kmsg c 1 11 && (cat /tmp/kmsg | head -c 1) 2>&1; echo ok > /dev/null && echo null works; head -c 3 /dev/zero | wc -c").run();
    assert!(log.contains("not permitted"), "{log}");
    assert!(log.contains("null works\n3\n"), "{log}");
}
