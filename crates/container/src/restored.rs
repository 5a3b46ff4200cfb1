//! What of a container stands outside of its checkpoint, and how that is put together again.
//!
//! Outside are the root file system, binds and volumes, the files that the engine writes, control groups, the network, and the
//! other ends of standard streams. Memory, processes and file systems in memory are in CRIU's images.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use biga_sys::namespace;
use biga_sys::process::{self, Child, Ended, Fork, Namespaces, exit_now};
use biga_wire::checkpoint::External;
pub use biga_wire::checkpoint::{Outside, SAVED_FILE, Saved};
use biga_wire::config::{Container, Mount, MountSource};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags};
use rustix::process::{WaitId, WaitIdOptions};

use crate::control::{self, Message};
use crate::criu::mountinfo;
use crate::error::{Context, Error};
use crate::setup::{Streams, begin_any, loopback_up};
use crate::workload::{end_of, hears};
use crate::{beneath, criu, mounts, rootfs, seccomp};

const SIGKILL: i32 = 9;
/// How long a restore may take: who waits for it does nothing else.
const RESTORE_TIME: Duration = Duration::from_secs(300);
/// Exit code of a child that could not be set up; the reason went over the socket.
const FAILED: i32 = 125;
/// The key of the network namespace.
const NETWORK: &str = "network";

/// Refuses what CRIU, or this program's use of it, cannot save.
pub(crate) fn supported(container: &Container) -> Result<(), Error> {
    let n = &container.namespaces;
    let answered = container.seccomp_profile.as_ref().is_some_and(seccomp::profile::asks);
    let refused = [
        (answered, "system calls that another program answers"),
        (container.process.tty, "a terminal"),
        (container.system, "an init system"),
        (n.user.is_some(), "user ids of its own"),
        (!n.pid.is_own(), "process ids that it shares"),
        (!n.ipc.is_own(), "IPC that it shares"),
    ];
    match refused.iter().find(|(has, _)| *has) {
        Some((_, what)) => Err(Error::NoCheckpoint(what)),
        None => Ok(()),
    }
}

/// What stands outside of a container of a shim.
pub(crate) fn outside(pid: u32, pids: &[u32], container: &Container) -> Result<(Saved, Vec<String>), Error> {
    let root = root_of(pid)?;
    let mut known = Vec::new();
    for (name, target) in mounts::OWN_FILES {
        if !container.mounts.iter().any(|m| m.target == target) {
            known.push((mount_at(&root, target), Outside::Own { name: name.to_owned() }));
        }
    }
    for m in container.mounts.iter().filter(|m| is_outside(m)) {
        let target = m.target.clone();
        known.push((mount_at(&root, &target), Outside::Mount { target }));
    }
    look(pid, pids, known, !container.host_network)
}

/// The root of a process, as it sees it.
pub fn root_of(pid: u32) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = format!("/proc/{pid}/root");
    rustix::fs::open(&path, flags, Mode::empty()).step(|| format!("open {path}"))
}

/// Looks at a container's first process and gives what stands outside, to be kept, and in CRIU's words. `known` are the ids of mounts
/// that do, and `network` says whether its network does.
pub fn look(
    pid: u32,
    pids: &[u32],
    known: Vec<(Option<u64>, Outside)>,
    network: bool,
) -> Result<(Saved, Vec<String>), Error> {
    let all = mountinfo::of(pid).step(|| "look at the container's mounts".into())?;
    let of_host = mountinfo::of(std::process::id()).step(|| "look at the host's mounts".into())?;
    let of_host = of_host.into_iter().map(|m| m.device).collect();
    let saved = Saved {
        network,
        streams: streams_of(pid, &all),
        nulls: nulls(pids, &all),
        external: external(&all, known, &of_host),
        ..Saved::default()
    };
    let mut words: Vec<String> = saved.nulls.clone();
    words.extend(
        saved
            .streams
            .iter()
            .flatten()
            .filter(|k| k.starts_with("file["))
            .cloned(),
    );
    words.extend(
        saved
            .external
            .iter()
            .enumerate()
            .map(|(i, e)| format!("mnt[{}]:{}", e.point, key(i))),
    );
    if network {
        let inode =
            rustix::fs::stat(format!("/proc/{pid}/ns/net")).step(|| "look at the container's network".into())?;
        words.push(format!("net[{}]:{NETWORK}", inode.st_ino));
    }
    Ok((saved, words))
}

fn is_outside(m: &Mount) -> bool {
    !matches!(m.source, MountSource::Tmpfs { .. })
}

fn key(place: usize) -> String {
    format!("outside-{place}")
}

/// The mount that is to be seen at a path.
pub fn mount_at(root: &OwnedFd, path: &str) -> Option<u64> {
    let place = beneath::locate(root.as_fd(), path).ok()?;
    let found = rustix::fs::statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    Some(found.stx_mnt_id)
}

/// Which mounts stand outside: those that are known to, what of the host is mounted below them, and control groups.
fn external(all: &[mountinfo::Mount], known: Vec<(Option<u64>, Outside)>, of_host: &BTreeSet<String>) -> Vec<External> {
    let mut found: Vec<(u64, External)> = Vec::new();
    for m in all {
        let parent = found.iter().position(|(id, _)| *id == m.parent);
        let named = known.iter().find(|(id, _)| *id == Some(m.id)).map(|(_, o)| o.clone());
        let group = m
            .point
            .strip_prefix("/sys/fs/cgroup")
            .filter(|_| m.kind.starts_with("cgroup"));
        let source = match (named, group, parent) {
            (Some(source), _, _) => Some(source),
            (None, Some(rest), _) => Some(Outside::Group {
                controller: rest.trim_matches('/').to_owned(),
            }),
            // A file system of the container's own over a volume is in the images.
            (None, None, Some(of)) if of_host.contains(&m.device) => {
                let above = &found[of].1.point;
                let path = m.point.strip_prefix(above.as_str()).unwrap_or(&m.point);
                Some(Outside::Below {
                    of,
                    path: path.trim_start_matches('/').to_owned(),
                })
            }
            _ => None,
        };
        if let Some(source) = source {
            let point = m.point.clone();
            found.push((m.id, External { point, source }));
        }
    }
    found.into_iter().map(|(_, e)| e).collect()
}

/// `/dev/null` of the host where a process has it open: its standard input, if nobody writes to it.
fn nulls(pids: &[u32], all: &[mountinfo::Mount]) -> Vec<String> {
    let mut keys = BTreeSet::new();
    for pid in pids {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let numbers = fds
            .flatten()
            .filter_map(|fd| fd.file_name().to_string_lossy().parse().ok());
        for number in numbers {
            let Some((stat, mount)) = open_file(*pid, number) else {
                continue;
            };
            if is_null(&stat) && !all.iter().any(|m| m.id == mount) {
                keys.insert(file_key(mount, &stat));
            }
        }
    }
    keys.into_iter().collect()
}

/// What the standard streams of a process are: pipes, or files of the host.
fn streams_of(pid: u32, all: &[mountinfo::Mount]) -> [Option<String>; 3] {
    [0, 1, 2].map(|number| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        let link = link.to_string_lossy().into_owned();
        if link.starts_with("pipe:[") {
            return Some(link);
        }
        let (stat, mount) = open_file(pid, number)?;
        let of_host = link.starts_with('/') && !is_null(&stat) && !all.iter().any(|m| m.id == mount);
        of_host.then(|| file_key(mount, &stat))
    })
}

/// What a descriptor of a process stands for, and the mount that it was opened in.
fn open_file(pid: u32, number: u32) -> Option<(Stat, u64)> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/fd/{number}")).ok()?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    Some((stat, mount_of(&info)?))
}

fn is_null(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3)
}

fn file_key(mount: u64, stat: &Stat) -> String {
    format!("file[{mount:x}:{:x}]", stat.st_ino)
}

fn mount_of(fdinfo: &str) -> Option<u64> {
    let line = fdinfo.lines().find_map(|l| l.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// A container that is put together again.
#[derive(Debug)]
pub struct Again<'a> {
    /// CRIU.
    pub program: &'a Path,
    /// CRIU's images.
    pub images: &'a Path,
    /// What is known beside them.
    pub saved: &'a Saved,
    /// More options for CRIU.
    pub options: &'a [OsString],
    /// Where CRIU writes the first process's id.
    pub pid_file: &'a Path,
    /// A directory that can be mounted over, in the mounts of the process that becomes CRIU only.
    pub stage: PathBuf,
    /// Control group files to enter by.
    pub entrances: Vec<PathBuf>,
    /// Whether it sees its control group as the root of all.
    pub own_group: bool,
    /// Its network namespace; the one that the process was born into where there is none.
    pub network: Option<OwnedFd>,
    /// `/dev/null`, opened where its mount stays, and the keys of those that it stands for.
    pub nulls: Vec<(OwnedFd, String)>,
}

/// What stands outside, ready to be mounted.
#[derive(Debug)]
pub struct Ready {
    /// The root file system, mounted.
    pub root: PathBuf,
    /// Mounts by their target, not attached anywhere.
    pub trees: Vec<(String, OwnedFd)>,
    /// Directory of the files that the engine writes.
    pub own_files: PathBuf,
}

/// `/dev/null` for each key, for [`Again::nulls`].
pub fn open_nulls(saved: &Saved) -> Result<Vec<(OwnedFd, String)>, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let open = || rustix::fs::open("/dev/null", flags, Mode::empty()).step(|| "open /dev/null".into());
    saved.nulls.iter().map(|key| Ok((open()?, key.clone()))).collect()
}

/// Forks a process with mounts of its own that puts together what stands outside (`ready` mounts the root) and goes on as CRIU;
/// waits for its end. Its first process is a child of this one then.
pub fn run(
    mut again: Again<'_>,
    streams: Option<Streams>,
    log: File,
    ready: impl FnOnce() -> Result<Ready, Error>,
) -> Result<Ended, Error> {
    let (ours, theirs) = control::pair()?;
    let what = || "run CRIU".into();
    let flags = match again.saved.network && again.network.is_none() {
        true => Namespaces::MOUNT.and(Namespaces::NET),
        false => Namespaces::MOUNT,
    };
    let child = match process::fork(flags, None).step(what)? {
        Fork::Parent(child) => child,
        Fork::Child => {
            let e = match prepare(&mut again, streams, ready) {
                Ok((root, external, inherit)) => become_criu(&again, &root, &external, &inherit, log),
                Err(e) => e,
            };
            control::fail(&theirs, &e);
            exit_now(FAILED)
        }
    };
    drop((theirs, streams));
    let mut failed = None;
    // Silence is its going on as CRIU.
    while let Some((message, _)) = control::receive(&ours).step(what)? {
        if let Message::Failed(code, message) = message {
            failed = Some(Error::Child { code, message });
        }
    }
    if !hears(&child.pidfd, RESTORE_TIME).step(what)? {
        child.signal(SIGKILL).step(what)?;
    }
    let ended = end_of(&child).step(what)?;
    failed.map_or(Ok(ended), Err)
}

fn become_criu(again: &Again<'_>, root: &Path, external: &[String], inherit: &[(OwnedFd, String)], log: File) -> Error {
    let restore = criu::Restore {
        program: again.program,
        images: again.images,
        root,
        pid_file: again.pid_file,
        external,
        inherit,
        options: again.options,
    };
    let source = restore.exec(log);
    let what = format!("run {}", again.program.display());
    Error::Step { what, source }
}

/// The process whose id CRIU wrote down: a child of this one.
pub fn first_process(pid_file: &Path) -> std::io::Result<Child> {
    let text = fs::read_to_string(pid_file)?;
    let pid: u32 = text.trim().parse().map_err(std::io::Error::other)?;
    let child = Child {
        pid,
        pidfd: process::open_pidfd(pid)?,
    };
    // An error where it is no child of this process. One that ended at once is left for whoever waits for it.
    let known = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or(std::io::ErrorKind::InvalidData)?;
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(known), flags)?;
    Ok(child)
}

type Prepared = (PathBuf, Vec<String>, Vec<(OwnedFd, String)>);

fn prepare(
    again: &mut Again<'_>,
    streams: Option<Streams>,
    ready: impl FnOnce() -> Result<Ready, Error>,
) -> Result<Prepared, Error> {
    begin_any(&again.entrances)?;
    let mut inherit = Vec::new();
    if again.saved.network {
        inherit.push((network(again.network.take())?, NETWORK.to_owned()));
    }
    let ready = ready()?;
    let external = stage(again, &ready)?;
    inherit.append(&mut again.nulls);
    for (fd, key) in streams.into_iter().flatten().zip(&again.saved.streams) {
        if let Some(key) = key {
            inherit.push((fd, key.clone()));
        }
    }
    if again.own_group {
        namespace::unshare(Namespaces::CGROUP).step(|| "make a control group namespace".into())?;
    }
    Ok((ready.root, external, inherit))
}

/// Mounts the root of a container of a shim, and gives what belongs into it.
pub(crate) fn ready(
    container: &Container,
    mut blocks: Vec<Option<OwnedFd>>,
    state_dir: &Path,
    run_dir: &Path,
) -> Result<Ready, Error> {
    // While mounts still hang together with the host's, for those that shall keep that.
    let trees = mounts::sources(container, &mut blocks, None)?;
    private_mounts()?;
    rootfs::writable_layer(container, state_dir)?;
    let root = rootfs::overlay(container, state_dir)?;
    if container.read_only_root {
        biga_sys::mount::set_attributes(&root, biga_sys::mount::RDONLY, false)
            .step(|| "make the root read-only".into())?;
    }
    let targets = container.mounts.iter().map(|m| m.target.clone());
    let of = |(target, tree): (String, Option<OwnedFd>)| Some((target, tree?));
    Ok(Ready {
        root: state_dir.join("upper"),
        trees: targets.zip(trees).filter_map(of).collect(),
        own_files: run_dir.to_owned(),
    })
}

/// What is mounted from now on stays with this process.
pub fn private_mounts() -> Result<(), Error> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step(|| "make mounts private".into())
}

/// The network namespace that the container is to be in: the one that was made for it, or the one that this process was born into.
fn network(of_others: Option<OwnedFd>) -> Result<OwnedFd, Error> {
    if let Some(fd) = of_others {
        return Ok(fd);
    }
    loopback_up().step(|| "bring up the loopback interface".into())?;
    rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the own network namespace".into())
}

/// Mounts what stands outside where CRIU finds it, in this process's mounts only; gives what to tell CRIU.
fn stage(again: &Again<'_>, ready: &Ready) -> Result<Vec<String>, Error> {
    let dir = &again.stage;
    let what = || format!("make {}", dir.display());
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).step(what),
    }
    let memory = rootfs::make("tmpfs", &[("mode", Some("700"))], 0)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&memory, "", CWD, dir, flags).step(what)?;
    let mut places: Vec<PathBuf> = Vec::new();
    // What others may be mounted below.
    let mut trees: BTreeMap<usize, OwnedFd> = BTreeMap::new();
    for (i, e) in again.saved.external.iter().enumerate() {
        let place = match &e.source {
            Outside::Own { name } => ready.own_files.join(name),
            Outside::Group { controller } => group(again, controller)?,
            Outside::Below { .. } | Outside::Mount { .. } => {
                let what = || format!("mount what belongs at {}", e.point);
                let tree = match &e.source {
                    // Who writes to the volume must not lead this astray: found beneath it, by the kernel.
                    Outside::Below { of, path } => {
                        let above = trees.get(of).ok_or_else(|| gone(again, &e.point))?;
                        let found = beneath::locate(above.as_fd(), path).step(what)?;
                        rootfs::clone_tree(&found, true).step(what)?
                    }
                    Outside::Mount { target } => {
                        let tree = ready.trees.iter().find(|(t, _)| t == target).map(|(_, tree)| tree);
                        let tree = tree.ok_or_else(|| gone(again, &e.point))?;
                        tree.try_clone().step(what)?
                    }
                    Outside::Own { .. } | Outside::Group { .. } => return Err(gone(again, &e.point)),
                };
                let place = dir.join(key(i));
                put(&tree, &place).step(what)?;
                trees.insert(i, tree);
                place
            }
        };
        places.push(place);
    }
    let word = |(i, place): (usize, &PathBuf)| format!("mnt[{}]:{}", key(i), place.display());
    Ok(places.iter().enumerate().map(word).collect())
}

fn put(tree: &OwnedFd, place: &Path) -> std::io::Result<()> {
    match beneath::is_dir(tree.as_fd())? {
        true => fs::create_dir(place)?,
        false => File::create(place).map(drop)?,
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", CWD, place, flags)?)
}

/// The directory of the control group that this process entered, or was in before: the root of what the container sees.
fn group(again: &Again<'_>, controller: &str) -> Result<PathBuf, Error> {
    let text = fs::read_to_string("/proc/self/cgroup").step(|| "look for the own control group".into())?;
    let path = group_path(&text, controller).ok_or_else(|| {
        let why = format!("it was made where control groups had {controller:?}, which they have not here");
        Error::Checkpoint(checkpoint(again), why)
    })?;
    let root = Path::new("/sys/fs/cgroup").join(controller);
    Ok(root.join(path.trim_start_matches('/')))
}

/// `ID:CONTROLLER,…:PATH` of version 1, `0::PATH` of version 2, which has no controller here.
fn group_path<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|n| n == controller).then_some(path)
    })
}

fn gone(again: &Again<'_>, point: &str) -> Error {
    let why = format!("what was mounted at {point} is not among the instance's mounts any more");
    Error::Checkpoint(checkpoint(again), why)
}

fn checkpoint(again: &Again<'_>) -> PathBuf {
    again.images.parent().unwrap_or(again.images).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, parent: u64, point: &str, kind: &str) -> mountinfo::Mount {
        mountinfo::Mount {
            id,
            parent,
            device: format!("0:{id}"),
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
        }
    }

    #[test]
    fn what_stands_outside() {
        let all = [
            mount(1, 0, "/", "overlay"),
            mount(2, 1, "/proc", "proc"),
            mount(3, 1, "/sys", "sysfs"),
            mount(4, 3, "/sys/fs/cgroup", "tmpfs"),
            mount(5, 4, "/sys/fs/cgroup/memory", "cgroup"),
            mount(6, 1, "/data", "ext4"),
            mount(7, 6, "/data/more", "tmpfs"),
            mount(8, 6, "/data/tmp", "tmpfs"),
            mount(9, 1, "/etc/hosts", "tmpfs"),
        ];
        let volume = Outside::Mount { target: "/data".into() };
        let hosts = Outside::Own { name: "hosts".into() };
        let of_host = ["0:6", "0:7", "0:9"].map(str::to_owned).into();
        let found = external(
            &all,
            vec![
                (Some(9), hosts.clone()),
                (Some(6), volume.clone()),
                (None, volume.clone()),
            ],
            &of_host,
        );
        let of = |point: &str, source| External {
            point: point.into(),
            source,
        };
        let below = Outside::Below {
            of: 1,
            path: "more".into(),
        };
        let memory = Outside::Group {
            controller: "memory".into(),
        };
        assert_eq!(
            found,
            [
                of("/sys/fs/cgroup/memory", memory),
                of("/data", volume),
                of("/data/more", below),
                of("/etc/hosts", hosts),
            ]
        );
        let groups = "4:memory:/biga/u1\n3:cpu,cpuacct:/\n0::/unified\n";
        assert_eq!(group_path(groups, "memory"), Some("/biga/u1"));
        assert_eq!(
            (group_path(groups, "cpu"), group_path(groups, "")),
            (Some("/"), Some("/unified"))
        );
        assert_eq!(group_path(groups, "pids"), None);
        assert_eq!(mount_of("pos:\t0\nmnt_id:\t24\nino:\t3\n"), Some(24));
    }

    #[test]
    fn what_cannot_be_saved_is_refused_by_name() {
        let mut c = Container::default();
        assert!(supported(&c).is_ok());
        c.process.tty = true;
        assert!(supported(&c).unwrap_err().to_string().contains("with a terminal"));
        let rule = |action: &str| serde_json::json!({"syscalls": [{"names": ["mkdir"], "action": action}]});
        for (action, saved) in [("SCMP_ACT_LOG", true), ("SCMP_ACT_NOTIFY", false)] {
            let c = Container {
                seccomp_profile: Some(rule(action)),
                ..Container::default()
            };
            assert_eq!(supported(&c).is_ok(), saved, "{action}");
        }
    }
}
