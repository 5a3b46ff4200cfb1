//! Containers that are saved by CRIU and go on. Where CRIU does not work, that this is said.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use biga_container::criu;
use biga_wire::checkpoint::{CheckpointSpec, Restore};
use biga_wire::config::{Mount, MountHow, MountSource};
use biga_wire::shim::{ErrorCode, Reply, Request, State};

use crate::support::{Rig, mounts_below, until};

/// Counts in its output, in a volume and in memory.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/scratch/n; [ -e /data/hold ] || echo $i >/data/n; echo $i; sleep 0.02; done";

fn counting() -> Rig {
    let rig = Rig::sh(COUNT);
    let data = rig.dir.join("data");
    std::fs::create_dir_all(data.join("more")).unwrap();
    let mount = |source, target: &str| Mount {
        source,
        target: target.into(),
        read_only: false,
        copy_up: false,
        how: MountHow::default(),
    };
    let memory = MountSource::Tmpfs {
        size: Some(1 << 20),
        mode: 0o755,
        options: Vec::new(),
    };
    let volume = MountSource::Bind {
        path: data,
        sub_path: None,
    };
    rig.with(|c| c.mounts = vec![mount(volume, "/data"), mount(memory, "/scratch")])
}

impl Rig {
    fn save(&self, program: PathBuf, name: &str, leave_running: bool) -> Reply {
        let all = self.dir.join("state/checkpoints");
        std::fs::create_dir_all(&all).unwrap();
        let checkpoint = CheckpointSpec {
            program,
            dir: all.join(name),
            leave_running,
            tcp_established: false,
        };
        self.ask(Request::Checkpoint { checkpoint })
    }

    fn counted(&self) -> Vec<u64> {
        self.log().lines().filter_map(|l| l.parse().ok()).collect()
    }

    fn counts_beyond(&self, n: usize) -> usize {
        until("the count to go on", || Some(self.counted().len()).filter(|l| *l > n))
    }

    /// Ends the shim, and lets another go on from a checkpoint.
    fn again(mut self, program: PathBuf, name: &str) -> (Rig, Reply) {
        self.must(Request::Delete);
        self.shim_ends();
        let dir = self.dir.join("state/checkpoints").join(name);
        let mut rig = self.with(|c| c.restore = Some(Restore { program, dir }));
        let reply = rig.launch();
        (rig, reply)
    }
}

/// A program in CRIU's place that fails like it.
fn broken(rig: &Rig) -> PathBuf {
    let path = rig.dir.join("broken-criu");
    let script = "#!/bin/sh\necho \"(00.1) Error (criu/x.c:1): the moon is in the wrong phase\" >&2\nexit 1\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The host's CRIU, if it works; else it is shown that its reason reaches who asks.
fn working() -> Option<PathBuf> {
    let program = match criu::program("criu") {
        Ok(p) => p,
        Err(e) => {
            assert!(e.to_string().contains("CRIU is not installed"), "{e}");
            return None;
        }
    };
    let Err(e) = criu::check(&program) else {
        return Some(program);
    };
    let rig = counting().up();
    rig.counts_beyond(3);
    let reply = rig.save(program, "one", false);
    let Reply::Error { code, message } = reply else {
        panic!("{reply:?}, though {e}")
    };
    assert_eq!(code, ErrorCode::Failed);
    assert!(message.starts_with("CRIU cannot save it: "), "{message}");
    rig.counts_beyond(rig.counted().len());
    None
}

#[test]
fn it_goes_on_where_it_was() {
    let Some(criu) = working() else { return };
    let rig = counting().up();
    rig.counts_beyond(3);
    // A file that it has open then must be the same when it goes on, and until then the number in the volume is another.
    let hold = rig.dir.join("data/hold");
    std::fs::write(&hold, "").unwrap();
    rig.counts_beyond(rig.counted().len() + 2);
    assert_eq!(rig.save(criu.clone(), "first", true), Reply::Ok);
    std::fs::remove_file(&hold).unwrap();
    let mode = std::fs::metadata(rig.dir.join("state/checkpoints/first"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
    assert_eq!(rig.status().state, State::Running);
    let before = rig.counts_beyond(rig.counted().len());
    assert_eq!(rig.save(criu.clone(), "second", false), Reply::Ok);
    let exit = rig.wait();
    assert!(exit.checkpointed && exit.code == 137, "{exit:?}");
    let saved = rig.counted().len();
    assert!(saved >= before);

    let (rig, reply) = rig.again(criu.clone(), "second");
    assert!(
        matches!(&reply, Reply::Status { status } if status.state == State::Running),
        "{reply:?}"
    );
    let now = rig.counts_beyond(saved + 3);
    let all = rig.counted();
    let wanted: Vec<u64> = (1..=all.len() as u64).collect();
    assert_eq!(all, wanted, "nothing is lost or said twice");
    // They are empty for a moment, each time they are written.
    let number = |text: String| text.trim().parse::<u64>().ok();
    let scratch = until("the number in memory", || number(rig.exec(&["cat", "/scratch/n"]).1));
    let data = until("the number in the volume", || {
        number(std::fs::read_to_string(rig.dir.join("data/n")).unwrap())
    });
    assert!(scratch >= now as u64 && data >= now as u64, "{scratch} {data} {now}");
    assert_eq!(rig.exec(&["hostname"]).1, "box\n");
    assert_eq!(rig.exec(&["cat", "/etc/hosts"]).1, "127.0.0.1 localhost\n");
    let blocked = rig.exec(&["sh", "-c", "echo 1 >/proc/sys/kernel/panic"]);
    assert_ne!(blocked.0.code, 0, "{blocked:?}");

    // A second time, from the older one: memory is as it was then.
    assert_eq!(rig.save(criu.clone(), "third", false), Reply::Ok);
    assert!(rig.wait().checkpointed);
    let seen = rig.counted().len();
    let (rig, reply) = rig.again(criu, "first");
    assert!(matches!(reply, Reply::Status { .. }), "{reply:?}");
    let all = until("the count to begin again", || {
        Some(rig.counted()).filter(|a| a.len() > seen)
    });
    assert!(all[seen] <= before as u64 + 1, "{} after {seen}", all[seen]);
    rig.must(Request::Stop { signal: 9, grace_ms: 0 });
    let exit = rig.wait();
    assert!(!exit.checkpointed && exit.signal == Some(9), "{exit:?}");
    assert_eq!(mounts_below(&rig.dir), Vec::<String>::new());
}

/// A file system with little room, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn at(dir: PathBuf) -> Small {
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&dir);
        assert!(mount.status().unwrap().success());
        Small(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_it_goes_on() {
    let Some(criu) = working() else { return };
    let rig = counting().up();
    let small = Small::at(rig.dir.join("state/checkpoints"));
    rig.counts_beyond(3);
    let reply = rig.save(criu, "one", false);
    let Reply::Error { message, .. } = reply else {
        panic!("{reply:?}")
    };
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(
        std::fs::read_dir(&small.0).unwrap().count(),
        0,
        "nothing half made is left"
    );
    rig.counts_beyond(rig.counted().len());
}

#[test]
fn what_fails_leaves_it_as_it_was() {
    let rig = counting().up();
    rig.counts_beyond(3);
    let reply = rig.save(broken(&rig), "one", false);
    let Reply::Error { message, .. } = reply else {
        panic!("{reply:?}")
    };
    assert!(
        message.starts_with("CRIU cannot save it: the moon is in the wrong phase"),
        "{message}"
    );
    assert!(message.contains("checkpoint.log"), "{message}");
    let left = std::fs::read_dir(rig.dir.join("state/checkpoints")).unwrap().count();
    assert_eq!(left, 0, "nothing half made is left");
    rig.counts_beyond(rig.counted().len());
    rig.must(Request::Pause);
    let reply = rig.save(broken(&rig), "two", false);
    assert!(
        matches!(&reply, Reply::Error { message, .. } if message.contains("resume it first")),
        "{reply:?}"
    );
    rig.must(Request::Resume);
}

#[test]
fn what_cannot_go_on_says_why() {
    let rig = counting().up();
    rig.counts_beyond(1);
    let broken = broken(&rig);
    let dir = rig.dir.join("state/checkpoints");
    let (rig, reply) = rig.again(broken.clone(), "none");
    assert!(
        matches!(&reply, Reply::Error { message, .. } if message.contains("it is not whole")),
        "{reply:?}"
    );
    std::fs::create_dir_all(dir.join("some/images")).unwrap();
    std::fs::write(dir.join("some/checkpoint.json"), "{}").unwrap();
    let mut rig = rig.with(|c| {
        c.restore = Some(Restore {
            program: broken,
            dir: dir.join("some"),
        });
    });
    let reply = rig.launch();
    let Reply::Error { message, .. } = reply else {
        panic!("{reply:?}")
    };
    assert!(message.starts_with("CRIU cannot restore it: the moon"), "{message}");
    assert!(rig.groups().is_empty());
}

#[test]
fn a_terminal_is_refused() {
    let rig = Rig::new(&["sleep", "1000"]).with(|c| c.process.tty = true).up();
    let reply = rig.save(broken(&rig), "one", true);
    let Reply::Error { code, message } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(code, ErrorCode::Unsupported);
    assert!(message.contains("a terminal cannot be checkpointed"), "{message}");
}
