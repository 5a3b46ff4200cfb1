//! What of a container stands outside of its checkpoint, and how that is put together again.
//!
//! Outside are the root file system, binds and volumes, the files that the engine writes, control groups, the network, and the
//! other ends of standard streams. Memory, processes and file systems in memory are in CRIU's images.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use biga_sys::namespace;
use biga_sys::process::{Namespaces, exit_now};
use biga_wire::checkpoint::{External, Outside, Saved};
use biga_wire::config::{Container, Mount, MountSource};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags};

use crate::criu::mountinfo;
use crate::error::{Context, Error};
use crate::setup::{Streams, begin_any, loopback_up};
use crate::{beneath, control, criu, mounts, rootfs};

/// Exit code of a child that could not be set up; the reason went over the socket.
const FAILED: i32 = 125;
/// The key of the network namespace.
const NETWORK: &str = "network";

/// Refuses what CRIU, or this program's use of it, cannot save.
pub(crate) fn supported(container: &Container) -> Result<(), Error> {
    let n = &container.namespaces;
    let refused = [
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

/// Looks at a container's first process and gives what stands outside, to be kept, and in CRIU's words.
pub(crate) fn outside(pid: u32, pids: &[u32], container: &Container) -> Result<(Saved, Vec<String>), Error> {
    let what = || "look at the container's mounts".into();
    let all = mountinfo::of(pid).step(what)?;
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(what)?;
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
    let mut saved = Saved {
        network: !container.host_network,
        nulls: nulls(pids, &all),
        external: external(&all, known),
        ..Saved::default()
    };
    saved.nulls.sort();
    let mut words: Vec<String> = saved.nulls.clone();
    words.extend(
        saved
            .external
            .iter()
            .enumerate()
            .map(|(i, e)| format!("mnt[{}]:{}", e.point, key(i))),
    );
    if saved.network {
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
fn mount_at(root: &OwnedFd, path: &str) -> Option<u64> {
    let place = beneath::locate(root.as_fd(), path).ok()?;
    let found = rustix::fs::statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    Some(found.stx_mnt_id)
}

/// Which mounts stand outside: those that are known to, what is mounted below them, and control groups.
fn external(all: &[mountinfo::Mount], known: Vec<(Option<u64>, Outside)>) -> Vec<External> {
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
            (None, None, Some(of)) if !matches!(m.kind.as_str(), "tmpfs" | "proc" | "sysfs" | "devpts" | "mqueue") => {
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
    let inside: BTreeSet<u64> = all.iter().map(|m| m.id).collect();
    let null = rustix::fs::makedev(1, 3);
    let mut keys = BTreeSet::new();
    for pid in pids {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            let Ok(stat) = rustix::fs::stat(fd.path()) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != null {
                continue;
            }
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_string_lossy()));
            if let Some(mount) = info
                .ok()
                .and_then(|text| mount_of(&text))
                .filter(|m| !inside.contains(m))
            {
                keys.insert(format!("file[{mount:x}:{:x}]", stat.st_ino));
            }
        }
    }
    keys.into_iter().collect()
}

fn mount_of(fdinfo: &str) -> Option<u64> {
    let line = fdinfo.lines().find_map(|l| l.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// A container that is put together again.
#[derive(Debug)]
pub(crate) struct Again<'a> {
    /// CRIU.
    pub(crate) program: &'a Path,
    /// The container.
    pub(crate) container: &'a Container,
    /// Its run directory.
    pub(crate) run_dir: &'a Path,
    /// Its state directory.
    pub(crate) state_dir: &'a Path,
    /// Control group files to enter by.
    pub(crate) entrances: Vec<PathBuf>,
    /// File systems of its block volumes.
    pub(crate) blocks: Vec<Option<OwnedFd>>,
    /// CRIU's images.
    pub(crate) images: &'a Path,
    /// `/dev/null`, opened where its mount stays, and the keys of those that it stands for.
    pub(crate) nulls: Vec<(OwnedFd, String)>,
    /// What is known beside them.
    pub(crate) saved: &'a Saved,
    /// More options for CRIU.
    pub(crate) options: &'a [OsString],
    /// Where CRIU writes the first process's id.
    pub(crate) pid_file: &'a Path,
}

/// Puts together in this child what stands outside, and goes on as CRIU.
pub(crate) fn run(mut again: Again<'_>, streams: Option<Streams>, log: File, socket: &OwnedFd) -> ! {
    match prepare(&mut again, streams) {
        Ok((root, external, inherit)) => {
            let restore = criu::Restore {
                program: again.program,
                images: again.images,
                root: &root,
                pid_file: again.pid_file,
                external: &external,
                inherit: &inherit,
                options: again.options,
            };
            let source = restore.exec(log);
            let what = format!("run {}", again.program.display());
            control::fail(socket, &Error::Step { what, source });
        }
        Err(e) => control::fail(socket, &e),
    }
    exit_now(FAILED)
}

type Prepared = (PathBuf, Vec<String>, Vec<(OwnedFd, String)>);

fn prepare(again: &mut Again<'_>, streams: Option<Streams>) -> Result<Prepared, Error> {
    let container = again.container;
    begin_any(&again.entrances)?;
    let mut inherit = Vec::new();
    if again.saved.network {
        inherit.push((network(container)?, NETWORK.to_owned()));
    }
    // While mounts still hang together with the host's, for those that shall keep that.
    let trees = mounts::sources(container, &mut again.blocks, None)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step(|| "make mounts private".into())?;
    rootfs::writable_layer(container, again.state_dir)?;
    let root = rootfs::overlay(container, again.state_dir)?;
    if container.read_only_root {
        biga_sys::mount::set_attributes(&root, biga_sys::mount::RDONLY, false)
            .step(|| "make the root read-only".into())?;
    }
    let external = stage(again, &trees)?;
    inherit.append(&mut again.nulls);
    for (fd, key) in streams.into_iter().flatten().zip(&again.saved.streams) {
        if let Some(key) = key {
            inherit.push((fd, key.clone()));
        }
    }
    if container.namespaces.cgroup.is_own() {
        namespace::unshare(Namespaces::CGROUP).step(|| "make a control group namespace".into())?;
    }
    Ok((again.state_dir.join("upper"), external, inherit))
}

/// The network namespace that the container is to be in: the one that was made for it, or the one that this process was born into.
fn network(container: &Container) -> Result<OwnedFd, Error> {
    let own = Path::new("/proc/self/ns/net");
    if container.netns.is_none() {
        loopback_up().step(|| "bring up the loopback interface".into())?;
    }
    let path = container.netns.as_deref().unwrap_or(own);
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open the network namespace {}", path.display()))
}

/// Mounts what stands outside where CRIU finds it, in this process's mounts only; gives what to tell CRIU.
fn stage(again: &Again<'_>, trees: &[Option<OwnedFd>]) -> Result<Vec<String>, Error> {
    let dir = again.run_dir.join("outside");
    let what = || format!("make {}", dir.display());
    match rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).step(what),
    }
    let memory = rootfs::make("tmpfs", &[("mode", Some("700"))], 0)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&memory, "", CWD, &dir, flags).step(what)?;
    let mut places: Vec<PathBuf> = Vec::new();
    for (i, e) in again.saved.external.iter().enumerate() {
        let place = match &e.source {
            Outside::Own { name } => again.run_dir.join(name),
            Outside::Group { controller } => group(again, controller)?,
            Outside::Below { of, path } => match places.get(*of) {
                Some(above) => above.join(path),
                None => return Err(gone(again, &e.point)),
            },
            Outside::Mount { target } => {
                let at = again.container.mounts.iter().position(|m| m.target == *target);
                let tree = at.and_then(|at| trees.get(at)).and_then(Option::as_ref);
                let tree = tree.ok_or_else(|| gone(again, &e.point))?;
                let place = dir.join(key(i));
                put(tree, &place).step(|| format!("mount what belongs at {}", e.point))?;
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
            mount(7, 6, "/data/more", "xfs"),
            mount(8, 6, "/data/tmp", "tmpfs"),
            mount(9, 1, "/etc/hosts", "tmpfs"),
        ];
        let volume = Outside::Mount { target: "/data".into() };
        let hosts = Outside::Own { name: "hosts".into() };
        let found = external(
            &all,
            vec![
                (Some(9), hosts.clone()),
                (Some(6), volume.clone()),
                (None, volume.clone()),
            ],
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
    }
}
