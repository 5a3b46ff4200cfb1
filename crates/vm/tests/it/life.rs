//! Stopping, killing, pausing and measuring microvms.

use std::time::Duration;

use biga_wire::config::Limits;
use biga_wire::shim::ErrorCode;
use biga_wire::workload::{CONSOLE, MAIN};

use crate::support::{Shim, microvm, shell};

#[test]
fn a_signal_stops_it_and_its_words_arrive() {
    let image = microvm("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    let mut shim = Shim::boot(image.workload());
    shim.until("readiness", |host| {
        host.streams[&MAIN].out().contains("ready").then_some(())
    });
    let other = shim.exec(shell("sleep 1000")).unwrap();
    let signalled = shim.exec(shell("sleep 1000")).unwrap();
    shim.signal(signalled, 15);
    let exit = shim.wait_exit(signalled);
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    shim.signal(MAIN, 15);
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal), (3, None));
    assert_eq!(shim.main().out(), "ready\nbye\n");
    // With the main process all others end.
    assert_eq!(shim.wait_exit(other).code, 137);
    assert!(shim.workload.signal(MAIN, 15, &mut shim.host).is_err());
    assert_eq!(shim.exec(shell("true")).unwrap_err().code, ErrorCode::State);
}

#[test]
fn one_that_ignores_signals_is_killed() {
    let image = microvm("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let mut shim = Shim::boot(image.workload());
    shim.until("readiness", |host| {
        host.streams[&MAIN].out().contains("ready").then_some(())
    });
    shim.signal(MAIN, 15);
    shim.turn(Duration::from_millis(500));
    assert!(shim.main().exit.is_none());
    shim.signal(MAIN, 9);
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
}

#[test]
fn it_pauses_goes_on_and_is_measured() {
    let image = microvm("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done");
    let mut shim = Shim::boot(image.workload());
    let count = |host: &crate::support::shim::TestHost| host.streams[&MAIN].stdout.len();
    shim.until("life", |host| (count(host) > 10).then_some(()));
    shim.workload.pause(&mut shim.host).unwrap();
    assert_eq!(shim.exec(shell("true")).unwrap_err().code, ErrorCode::State);
    // What was under way has arrived when nothing comes for a while.
    let mut before = 0;
    while before != count(&shim.host) {
        before = count(&shim.host);
        shim.turn(Duration::from_millis(300));
    }
    let cpu = |shim: &mut Shim| shim.workload.stats(&mut shim.host).unwrap();
    let sample = cpu(&mut shim);
    assert!(
        sample.cpu_ns > 0 && sample.memory > 16 << 20 && sample.block_read > 0,
        "{sample:?}"
    );
    assert_eq!(sample.memory_limit, 128 << 20);
    for _ in 0..5 {
        shim.turn(Duration::from_millis(100));
    }
    assert_eq!(before, count(&shim.host), "it went on while paused");
    shim.workload.resume(&mut shim.host).unwrap();
    shim.until("more life", |host| (count(host) > before + 10).then_some(()));
    assert!(cpu(&mut shim).cpu_ns >= sample.cpu_ns);
    assert_eq!(shim.workload.console(), Some(CONSOLE));

    let more = Limits {
        memory: Some(1 << 30),
        ..Limits::default()
    };
    assert_eq!(
        shim.workload.update(&more, &mut shim.host).unwrap_err().code,
        ErrorCode::Unsupported
    );
    shim.workload
        .update(
            &Limits {
                cpu_millis: Some(500),
                ..Limits::default()
            },
            &mut shim.host,
        )
        .unwrap();
    // Killed while paused, when nothing inside can answer.
    shim.workload.pause(&mut shim.host).unwrap();
    shim.signal(MAIN, 9);
    assert_eq!(shim.wait_exit(MAIN).code, 137);
}

#[test]
fn a_qemu_that_dies_and_a_kernel_that_panics_are_told_apart_from_an_exit() {
    let mut image = microvm("sleep 1000");
    image.config.privileged = true;
    let mut shim = Shim::boot(image.workload());
    let pid = shim.workload.pids(&mut shim.host).unwrap()[0];
    biga_sys::process::signal_pid(pid, 9).unwrap();
    let exit = shim.wait_exit(MAIN);
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("QEMU ended"), "the cause is missing");
    shim.delete();

    image.config.process.args[2] = "echo c > /proc/sysrq-trigger; sleep 1000".into();
    let mut shim = Shim::boot(image.workload());
    let exit = shim.wait_exit(MAIN);
    assert_eq!(exit.code, 137);
    assert!(exit.error.is_some());
    let console = shim.host.streams[&CONSOLE].out();
    assert!(console.contains("panic"), "{console}");
}
