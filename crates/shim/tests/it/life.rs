//! From creation to the end, and what is left then.

use std::path::Path;

use biga_wire::shim::{Event, Exit, Reply, Request, State};

use crate::support::{Rig, mounts_below, until};

#[test]
fn created_started_watched_ended_deleted() {
    let mut rig = Rig::sh("exit 9").config(|c| c.start = false).up();
    assert_eq!(rig.status().state, State::Created);
    let mut watch = rig.connect();
    assert!(matches!(watch.ask(&Request::Watch), Reply::Status { .. }));
    let started = rig.ask(Request::Start);
    assert!(
        matches!(&started, Reply::Status { status } if status.state != State::Created && status.started_ns.is_some()),
        "{started:?}"
    );
    let mut states = Vec::new();
    while states.last() != Some(&State::Exited) {
        if let Event::Status { status } = watch.event() {
            states.push(status.state);
        }
    }
    assert_eq!(states, [State::Running, State::Exited]);
    // Written before it was told.
    let exit: Exit = serde_json::from_slice(&std::fs::read(rig.dir.join("run/exit.json")).unwrap()).unwrap();
    assert_eq!(exit.code, 9);
    assert!(matches!(rig.ask(Request::Start), Reply::Error { .. }));
    rig.must(Request::Delete);
    rig.shim_ends();
    assert!(rig.groups().is_empty());
    assert!(!rig.dir.join("run/shim.sock").exists());
    assert_eq!(mounts_below(&rig.dir), Vec::<String>::new());
}

#[test]
fn stop_asks_first() {
    let rig = Rig::sh("trap 'echo asked; exit 7' TERM; echo ready; while true; do sleep 0.02; done").up();
    until("the trap", || rig.log().contains("ready").then_some(()));
    rig.must(Request::Stop {
        signal: 15,
        grace_ms: 60_000,
    });
    assert_eq!(rig.wait().code, 7);
    assert!(rig.log().contains("asked"));
    rig.must(Request::Stop {
        signal: 15,
        grace_ms: 1000,
    });
}

#[test]
fn stop_kills_after_the_grace() {
    let rig = Rig::sh("trap '' TERM; echo ready; while true; do sleep 0.02; done").up();
    until("the trap", || rig.log().contains("ready").then_some(()));
    rig.must(Request::Stop {
        signal: 15,
        grace_ms: 50,
    });
    let exit = rig.wait();
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
}

#[test]
fn deleting_what_runs_kills_it() {
    let mut rig = Rig::sh("sleep 1000 & sleep 1000").up();
    let mut attached = rig.connect();
    assert_eq!(attached.ask(&Request::Attach { stdin: false }), Reply::Ok);
    let mut exec = rig.connect();
    assert!(matches!(
        exec.ask(&Request::Exec {
            exec: Box::new(crate::support::spec(&["sleep", "1000"]))
        }),
        Reply::Exec { .. }
    ));
    let pids = until("all processes", || match rig.ask(Request::Pids) {
        Reply::Pids { pids } => (pids.len() >= 3).then_some(pids),
        other => panic!("{other:?}"),
    });
    rig.must(Request::Delete);
    rig.shim_ends();
    assert_eq!(attached.collect().0.code, 137);
    assert_eq!(exec.collect().0.code, 137);
    for pid in pids {
        until("the end of all", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
    assert!(rig.groups().is_empty());
}

#[test]
fn the_shim_leaves_by_itself() {
    let mut rig = Rig::sh("exit 3").up();
    rig.shim_ends();
    assert!(rig.groups().is_empty());
    let exit: Exit = serde_json::from_slice(&std::fs::read(rig.dir.join("run/exit.json")).unwrap()).unwrap();
    assert_eq!(exit.code, 3);
}

#[test]
fn a_killed_shim_takes_its_container_along_and_the_sweep_the_rest() {
    let mut rig = Rig::sh("sleep 1000 & sleep 1000")
        .with(|c| c.process.user = "web".into())
        .up();
    let Reply::Pids { pids } = rig.ask(Request::Pids) else {
        panic!("no pids")
    };
    rig.kill_shim();
    for pid in pids {
        until("the end of all", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
    assert!(!rig.groups().is_empty());
    assert_eq!(
        biga_container::sweep(&rig.prefix, &[rig.config.uid.as_str()]).unwrap(),
        Vec::<String>::new()
    );
    assert!(!rig.groups().is_empty(), "a live one is left alone");
    assert_eq!(
        biga_container::sweep(&rig.prefix, &[]).unwrap(),
        [rig.config.uid.clone()]
    );
    assert!(rig.groups().is_empty());
    assert_eq!(mounts_below(&rig.dir), Vec::<String>::new());
}

#[test]
fn an_init_reaps_and_forwards() {
    let rig = Rig::sh("(sleep 0.05 &) ; trap 'exit 21' USR1; echo $$; while true; do sleep 0.02; done")
        .with(|c| c.process.init = true)
        .up();
    until("the program", || (!rig.log().is_empty()).then_some(()));
    assert_eq!(rig.log(), "2\n", "not the first process");
    until("no zombies", || {
        let (_, out, _) = rig.exec(&["sh", "-c", "cat /proc/[0-9]*/stat"]);
        (!out.contains(") Z ")).then_some(())
    });
    rig.must(Request::Signal { signal: 10 });
    assert_eq!(rig.wait().code, 21);
    assert!(matches!(
        Rig::new(&["nothing"]).with(|c| c.process.init = true).launch(),
        Reply::Error { .. }
    ));
}

#[test]
fn restarted_on_the_same_state_it_finds_its_files() {
    let rig = Rig::sh("cat /tmp/kept 2>/dev/null; echo kept > /tmp/kept").up();
    rig.wait();
    rig.must(Request::Delete);
    let mut rig = rig;
    rig.shim_ends();
    let rig = rig.up();
    rig.wait();
    assert_eq!(rig.log(), "kept\n");
}
