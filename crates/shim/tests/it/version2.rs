//! What only control groups of version 2 have: one tree, groups handed down, a program that decides over devices.
//!
//! Hosts with version 1 pass these by. They are run in a guest (`scripts/guest-tests`), which says so by `BIGA_GUEST_TESTS` and is
//! held to it: there nothing that is tested may be missing.

use std::path::{Path, PathBuf};

use biga_container::cgroup::{Version, version};
use biga_container::labels;
use biga_wire::config::{IdMap, Limits};
use biga_wire::shim::{Reply, Request};

use crate::support::{Rig, spec, until};

/// Whether these can be tried here.
fn here() -> bool {
    let v2 = version() == Version::V2;
    if !v2 {
        eprintln!("this host's control groups are of version 1");
    }
    v2
}

/// What a controller must be in: the root's list.
fn controllers() -> Vec<String> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_guest_has_all_that_is_tested_in_it() {
    if std::env::var_os("BIGA_GUEST_TESTS").is_none() {
        eprintln!("this is not the guest");
        return;
    }
    assert_eq!(version(), Version::V2);
    let there = controllers();
    for name in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"] {
        assert!(there.iter().any(|c| c == name), "{name} in {there:?}");
    }
    assert!(labels::has_apparmor() && !labels::has_selinux());
    for path in [
        "/sys/kernel/mm/hugepages/hugepages-2048kB",
        "/proc/pressure/io",
        "/sys/block/vda",
        "/lib/systemd/systemd",
        "/usr/sbin/runc",
        "/sbin/apparmor_parser",
    ] {
        assert!(Path::new(path).exists(), "{path}");
    }
}

#[test]
fn every_controller_is_handed_down() {
    if !here() {
        return;
    }
    let rig = Rig::new(&["sleep", "1000"]).up();
    let own = rig.group_file("", "", "cgroup.controllers");
    assert_eq!(own.split_whitespace().collect::<Vec<_>>(), controllers());
}

#[test]
fn it_sees_its_own_group_as_the_root_and_cannot_change_it() {
    if !here() {
        return;
    }
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -1; cat /sys/fs/cgroup/pids.max
        echo 7 2>&1 >/sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x 2>&1; mount -o remount,rw /sys/fs/cgroup 2>&1";
    let (_, log) = Rig::sh(script).config(|c| c.limits.pids = Some(40)).run();
    assert!(log.starts_with("0::/\n1\n40\n"), "{log}");
    assert_eq!(log.matches("ead-only file system").count(), 2, "{log}");
    assert!(log.contains("denied") || log.contains("permitted"), "{log}");
}

#[test]
fn who_enters_is_in_the_group_and_dies_with_it() {
    if !here() {
        return;
    }
    let rig = Rig::new(&["sleep", "1000"]).up();
    let mut entered = rig.connect();
    let exec = Request::Exec {
        exec: Box::new(spec(&["sh", "-c", "(sleep 2000 &) ; echo in; sleep 3000"])),
    };
    assert!(matches!(entered.ask(&exec), Reply::Exec { .. }));
    entered.read_until("in\n");
    let members = || rig.group_file("", "", "cgroup.procs").lines().count();
    // The first, the one left alone, and the shell or what it became.
    until("all who entered", || (members() >= 3).then_some(()));
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => assert!(stats.pids >= 3, "{stats:?}"),
        other => panic!("{other:?}"),
    }
    // Frozen, with one that nobody waits for: one write ends them all.
    rig.must(Request::Pause);
    rig.must(Request::Delete);
    assert_eq!(rig.groups(), Vec::<PathBuf>::new());
}

#[test]
fn an_init_system_hands_controllers_on() {
    if !here() {
        return;
    }
    let script = "cd /sys/fs/cgroup; mkdir init web && echo $$ >init/cgroup.procs && echo '+pids +memory' >cgroup.subtree_control
        echo 9 >web/pids.max && echo 16777216 >web/memory.max && cat web/pids.max web/memory.max
        sleep 1000 & echo $! >web/cgroup.procs; cat web/pids.current; echo 8 2>&1 >pids.max; exec sleep 1000";
    let ids = IdMap {
        base: 1_500_000,
        size: 65_536,
    };
    for ids in [None, Some(ids)] {
        let rig = Rig::sh(script)
            .with(|c| {
                c.system = true;
                c.namespaces.user = ids;
            })
            .config(|c| c.limits.pids = Some(30))
            .up();
        until("its output", || (rig.log().lines().count() >= 3).then_some(()));
        assert!(rig.log().starts_with("9\n16777216\n1\n"), "{ids:?}: {}", rig.log());
        // Its own limit is the host's to change: by owners, or by a tree that is delegated at namespaces.
        let delegated = std::fs::read_to_string("/proc/mounts").unwrap().contains("nsdelegate");
        if ids.is_some() || delegated {
            until("the attempt", || (rig.log().lines().count() >= 4).then_some(()));
            assert_eq!(rig.group_file("", "", "pids.max"), "30", "{}", rig.log());
        }
        // Who enters goes where the first process is: the top takes none any more.
        let (exit, out, err) = rig.exec(&["cat", "/proc/self/cgroup"]);
        assert_eq!((exit.code, out.as_str()), (0, "0::/init\n"), "{err}");
        rig.must(Request::Update {
            limits: Box::new(Limits {
                pids: Some(25),
                ..Limits::default()
            }),
        });
        assert_eq!(rig.group_file("", "", "pids.max"), "25");
        rig.must(Request::Delete);
        assert_eq!(rig.groups(), Vec::<PathBuf>::new());
    }
}

#[test]
fn memory_that_runs_out_below_is_the_containers_to_bear() {
    if !here() {
        return;
    }
    let script = "cd /sys/fs/cgroup; mkdir init small && echo $$ >init/cgroup.procs && echo +memory >cgroup.subtree_control
        echo 16777216 >small/memory.max; echo 0 >small/memory.swap.max
        sh -c 'echo $$ >small/cgroup.procs; exec dd if=/dev/zero of=/dev/null bs=64M count=1'; echo $?; exec sleep 1000";
    let rig = Rig::sh(script)
        .with(|c| c.system = true)
        .config(|c| c.limits.memory = Some(256 << 20))
        .up();
    until("its end", || rig.log().contains("137").then_some(()));
    match rig.ask(Request::Stats) {
        Reply::Stats { stats } => assert!(stats.oom_kills >= 1 && stats.memory_peak >= 8 << 20, "{stats:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pressure_is_told() {
    if !here() || !Path::new("/proc/pressure/cpu").exists() {
        return;
    }
    let rig = Rig::sh("while :; do :; done & while :; do :; done")
        .config(|c| {
            c.limits.cpu_quota = Some(5000);
            c.limits.cpu_period = Some(50_000);
        })
        .up();
    until("time spent waiting for a processor", || match rig.ask(Request::Stats) {
        Reply::Stats { stats } => stats.pressure.filter(|p| p.cpu_some_us > 0).map(drop),
        other => panic!("{other:?}"),
    });
}
