//! What a container can see of a process that is on its way into it: nothing of the host.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use biga_wire::config::{Container, Namespace};
use biga_wire::shim::{Reply, Request};
use biga_wire::{Frame, FrameKind};

use crate::support::{DEFAULT_CAPS, Rig, fields, spec, until};

const FOREVER: &str = "while :; do sleep 1000; done";
/// How often the watched exec runs.
const ROUNDS: usize = 150;

/// With this a container may look into every process that it sees.
fn may_look(c: &mut Container) {
    c.capabilities = DEFAULT_CAPS
        .iter()
        .chain(&["SYS_PTRACE"])
        .map(|c| (*c).into())
        .collect();
}

/// Looks at all processes but itself, until it is told to end, for a root, a working directory or an open directory that
/// leads to a file of the host's.
fn watcher(marker: &Path) -> String {
    let marker = marker.to_str().unwrap();
    format!(
        "echo watching
        while ! [ -e /tmp/enough ]; do
            for p in /proc/[0-9]*; do
                [ $p = /proc/$$ ] && continue
                [ -e $p/root{marker} ] && echo root
                [ -e $p/cwd/shim.json ] && echo cwd
                for f in $p/fd/*; do
                    [ -d $f ] && [ -e $f/../../../../../../../..{marker} ] && echo directory
                done
            done
        done
        echo enough"
    )
}

/// Descriptors that hold the freezers of the container or pod.
struct Frozen(Vec<(PathBuf, &'static str)>);

impl Frozen {
    fn new(rig: &Rig) -> Frozen {
        let find = |file: &str| -> Vec<PathBuf> {
            rig.groups()
                .iter()
                .map(|g| g.join(file))
                .filter(|p| p.exists())
                .collect()
        };
        let (v1, v2) = (find("freezer.state"), find("cgroup.freeze"));
        let write = |files: &[PathBuf], text: &str| files.iter().for_each(|f| std::fs::write(f, text).unwrap());
        if v1.is_empty() {
            assert!(!v2.is_empty(), "nothing can be frozen here");
            write(&v2, "1");
            return Frozen(v2.into_iter().map(|f| (f, "0")).collect());
        }
        write(&v1, "FROZEN");
        Frozen(v1.into_iter().map(|f| (f, "THAWED")).collect())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (file, thawed) in &self.0 {
            let _ = std::fs::write(file, thawed);
        }
    }
}

/// Processes in the control groups of the rig.
fn members(rig: &Rig) -> BTreeSet<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse().ok());
    let inside = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|t| t.contains(&rig.config.cgroup))
    };
    pids.filter(inside).collect()
}

/// Stops an exec at the moment when it has entered the control groups, and looks at it as the container could.
fn looked_at_halfway(rig: &Rig, container: Option<&str>, init: u32) {
    let before = members(rig);
    let frozen = Frozen::new(rig);
    let mut c = rig.connect();
    let exec = Request::Exec {
        exec: Box::new(spec(&["echo", "in"])),
    };
    c.send(&Frame::json(FrameKind::Request, &exec.of(container)));
    let new = until("the process that enters", || {
        members(rig).difference(&before).next().copied()
    });
    let ids = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    let root = |pid: u32| {
        let m = std::fs::metadata(format!("/proc/{pid}/root")).unwrap();
        (m.dev(), m.ino())
    };
    let seen = ids(new) == ids(init);
    assert!(
        !seen || root(new) == root(init),
        "the container sees a process that has the host's root"
    );
    drop(frozen);
    let reply: Reply = c.next().expect("a reply").parse().unwrap();
    assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
    assert_eq!(c.collect().1, "in\n");
}

#[test]
fn who_enters_a_container_is_not_seen_before_it_is_inside() {
    let rig = Rig::sh(FOREVER).with(may_look).up();
    for _ in 0..2 {
        looked_at_halfway(&rig, None, rig.status().pid.unwrap());
    }
}

#[test]
fn nor_who_enters_one_of_a_pod() {
    for share_pids in [false, true] {
        let rig = Rig::pod(&[("a", FOREVER), ("b", FOREVER)])
            .with_pod(|p| {
                p.share_pids = share_pids;
                p.containers.iter_mut().for_each(|c| may_look(&mut c.container));
            })
            .up();
        for name in ["a", "b"] {
            rig.start(name);
            looked_at_halfway(&rig, Some(name), rig.container(name).pid.unwrap());
        }
        // The one that started before another did.
        looked_at_halfway(&rig, Some("a"), rig.container("a").pid.unwrap());
    }
}

fn marker(rig: &Rig) -> PathBuf {
    let marker = rig.dir.join("host-marker");
    std::fs::write(&marker, "").unwrap();
    marker
}

#[test]
fn a_watcher_in_the_container_finds_nothing_of_the_host() {
    let rig = Rig::new(&["true"]);
    let script = watcher(&marker(&rig));
    let rig = rig
        .with(|c| {
            may_look(c);
            c.process.args = ["sh", "-c", &script].map(str::to_owned).into();
        })
        .up();
    until("the watcher", || rig.log().contains("watching").then_some(()));
    for _ in 0..ROUNDS {
        assert_eq!(rig.exec(&["true"]).0.code, 0);
    }
    assert_eq!(rig.exec(&["touch", "/tmp/enough"]).0.code, 0);
    assert_eq!(rig.wait().code, 0);
    assert_eq!(rig.log(), "watching\nenough\n");
}

#[test]
fn nor_of_containers_that_are_born_among_its_process_ids() {
    let rig = Rig::new(&["true"]);
    let script = watcher(&marker(&rig));
    let rig = rig
        .with(|c| {
            may_look(c);
            c.process.args = ["sh", "-c", &script].map(str::to_owned).into();
        })
        .up();
    until("the watcher", || rig.log().contains("watching").then_some(()));
    let pids = PathBuf::from(format!("/proc/{}/ns/pid", rig.status().pid.unwrap()));
    for _ in 0..10 {
        let joined = Rig::new(&["true"]).with(|c| c.namespaces.pid = Namespace::Of(pids.clone().into()));
        assert_eq!(joined.run().0.code, 0);
    }
    assert_eq!(rig.exec(&["touch", "/tmp/enough"]).0.code, 0);
    assert_eq!(rig.wait().code, 0);
    assert_eq!(rig.log(), "watching\nenough\n");
}

#[test]
fn without_the_right_to_look_not_even_the_program_before_is_seen() {
    // The rights of both are the same by then, and only that the process may not be read keeps it hidden.
    let watcher = "echo watching
        while ! [ -e /tmp/enough ]; do
            for p in /proc/[0-9]*; do
                [ -e $p/exe ] && ! [ $p/exe -ef /bin/busybox ] && [ -e $p/exe ] && echo other
            done
        done
        [ /proc/1/exe -ef /bin/busybox ] && echo enough";
    let rig = Rig::sh(watcher).up();
    until("the watcher", || rig.log().contains("watching").then_some(()));
    for _ in 0..ROUNDS {
        assert_eq!(rig.exec(&["true"]).0.code, 0);
    }
    assert_eq!(rig.exec(&["touch", "/tmp/enough"]).0.code, 0);
    assert_eq!(rig.wait().code, 0);
    assert_eq!(rig.log(), "watching\nenough\n");
}

#[test]
fn nor_does_one_in_a_pod_that_shares_process_ids() {
    let rig = Rig::pod(&[("watcher", "true"), ("other", FOREVER), ("brief", "true")]);
    let script = watcher(&marker(&rig));
    let rig = rig
        .with_pod(|p| {
            p.share_pids = true;
            may_look(&mut p.containers[0].container);
            p.containers[0].container.process.args = ["sh", "-c", &script].map(str::to_owned).into();
        })
        .up();
    rig.start("other");
    rig.start("watcher");
    until("the watcher", || {
        rig.log_of("watcher").contains("watching").then_some(())
    });
    for _ in 0..ROUNDS / 3 {
        for name in ["watcher", "other"] {
            assert_eq!(rig.exec_in(name, &["true"]).0.code, 0);
        }
        rig.start("brief");
        assert_eq!(rig.wait_for("brief").code, 0);
    }
    assert_eq!(rig.exec_in("watcher", &["touch", "/tmp/enough"]).0.code, 0);
    assert_eq!(rig.wait_for("watcher").code, 0);
    assert_eq!(rig.log_of("watcher"), "watching\nenough\n");
}

#[test]
fn process_1_of_a_pod_has_neither_rights_nor_files() {
    let rig = Rig::pod(&[("a", FOREVER)])
        .with_pod(|p| {
            p.share_pids = true;
            may_look(&mut p.containers[0].container);
        })
        .up();
    rig.start("a");
    let status = fields(&rig.exec_in("a", &["cat", "/proc/1/status"]).1);
    assert_eq!(status["NoNewPrivs"], "1");
    for set in ["CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status[set].trim_start_matches('0'), "", "{set}: {status:?}");
    }
    let script = "ls -A /proc/1/root /proc/1/cwd; touch /proc/1/root/x 2>&1; for f in /proc/1/fd/*; do [ -d $f ] && ls -A $f/; done; echo looked";
    let (_, seen) = rig.exec_in("a", &["sh", "-c", script]);
    assert!(seen.contains("Read-only") && seen.ends_with("looked\n"), "{seen}");
    assert_eq!(
        seen.lines().filter(|l| !l.ends_with(':') && !l.is_empty()).count(),
        2,
        "{seen}"
    );
}
