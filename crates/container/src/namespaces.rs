//! Which namespaces a container gets of its own, and how it comes into others.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use biga_sys::namespace;
use biga_sys::process::{self, Fork, Namespaces as Flags, exit_now};
use biga_wire::config::{Container, Namespace, TimeOffsets};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use crate::Error;
use crate::control::{self, Message};
use crate::error::Context;
use crate::rootfs;

/// Namespaces the first process is born into. Control groups and clocks come later: they are made from within.
pub fn at_birth(container: &Container) -> Flags {
    let n = &container.namespaces;
    let network = container.netns.is_none() && !container.host_network;
    [
        (n.pid.is_own(), Flags::PID),
        (n.ipc.is_own(), Flags::IPC),
        (n.uts.is_own(), Flags::UTS),
        (network, Flags::NET),
    ]
    .into_iter()
    .filter(|(own, _)| *own)
    .fold(Flags::MOUNT, |all, (_, flag)| all.and(flag))
}

/// Joins the namespaces of others, but for those of process ids and users.
pub fn join_others(container: &Container) -> Result<(), Error> {
    let n = &container.namespaces;
    let all = [
        (&n.ipc, LinkNameSpaceType::InterProcessCommunication, "IPC"),
        (&n.uts, LinkNameSpaceType::HostNameAndNISDomainName, "host name"),
        (&n.cgroup, LinkNameSpaceType::ControlGroup, "control group"),
    ];
    for (which, kind, name) in all {
        if let Namespace::Of(path) = which {
            enter(path, kind, name)?;
        }
    }
    Ok(())
}

/// Joins one namespace.
pub fn enter(path: &Path, kind: LinkNameSpaceType, name: &str) -> Result<(), Error> {
    let what = || format!("join the {name} namespace {}", path.display());
    let file = open(path).step(what)?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).step(what)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Lets children of this process be born into another's process ids, where the container shares those.
pub fn share_process_ids(container: &Container) -> Result<(), Error> {
    match &container.namespaces.pid {
        Namespace::Of(path) => enter(path, LinkNameSpaceType::ProcessID, "process id"),
        _ => Ok(()),
    }
}

/// Lets children be born into this process's own process ids again.
pub fn keep_process_ids(container: &Container) -> Result<(), Error> {
    match &container.namespaces.pid {
        Namespace::Of(_) => enter(
            Path::new("/proc/self/ns/pid"),
            LinkNameSpaceType::ProcessID,
            "own process id",
        ),
        _ => Ok(()),
    }
}

/// Forks the process that goes on inside, as a child of this one's parent, and ends this one. Returns in the child.
///
/// What a container sees of a process, it may be allowed to look into. So a process must not be in the container's process
/// ids while it still has anything of the host: the one before it enters everything else first, and lets go of the rest.
pub fn fork_inside(flags: Flags, socket: &OwnedFd) -> Result<(), Error> {
    match process::fork_sibling(flags).step(|| "make a process in the container: does it still run?".into())? {
        Fork::Child => Ok(()),
        Fork::Parent(child) => {
            if control::send(socket, &Message::Born(child.pid), Some(child.pidfd.as_fd())).is_err() {
                // Nobody is there who could ever run it.
                let _ = child.signal(9);
            }
            exit_now(0)
        }
    }
}

/// Makes the namespaces that are made from within.
pub fn from_within(container: &Container) -> Result<(), Error> {
    let n = &container.namespaces;
    if n.cgroup.is_own() {
        namespace::unshare(Flags::CGROUP).step(|| "make a control group namespace".into())?;
    }
    if let Some(offsets) = &n.time {
        set_clocks(offsets)?;
    }
    Ok(())
}

/// A namespace of clocks. It is made for children, and entered: kernels before 6.3 do not do that when a program is executed,
/// and whoever joins this process later would get the host's clocks.
fn set_clocks(offsets: &TimeOffsets) -> Result<(), Error> {
    namespace::unshare(Flags::TIME).step(|| "make a namespace of clocks".into())?;
    let text = format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime);
    fs::write("/proc/self/timens_offsets", text).step(|| "set the container's clocks".into())?;
    enter(
        Path::new("/proc/self/ns/time_for_children"),
        LinkNameSpaceType::Time,
        "clock",
    )
}

/// What an exec joins of a running container. In the process ids are its children only.
pub fn of_exec(container: &Container) -> ThreadNameSpaceType {
    let mut all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
    if container.namespaces.user.is_some() {
        all |= ThreadNameSpaceType::USER;
    }
    if container.namespaces.time.is_some() {
        all |= ThreadNameSpaceType::TIME;
    }
    all
}

/// `/dev/shm` and `/dev/mqueue` of those whose IPC is shared; `None` where they are its own.
pub fn shared_memory(container: &Container) -> Result<Option<(OwnedFd, Option<OwnedFd>)>, Error> {
    let trees = || {
        let shm = tree("/dev/shm").step(|| "share /dev/shm".into())?;
        Ok((shm, tree("/dev/mqueue").ok()))
    };
    match &container.namespaces.ipc {
        Namespace::Own => Ok(None),
        Namespace::Host => trees().map(Some),
        Namespace::Of(path) => {
            let Some(mounts) = sibling(path, "mnt") else {
                return Ok(None);
            };
            // Only who is in a mount namespace can copy a mount of it.
            let own = open(Path::new("/proc/self/ns/mnt")).step(|| "open the own mount namespace".into())?;
            enter(&mounts, LinkNameSpaceType::Mount, "mount")?;
            let found = trees();
            let back = rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount));
            back.step(|| "come back from the mount namespace of another container".into())?;
            found.map(Some)
        }
    }
}

fn tree(path: &str) -> rustix::io::Result<OwnedFd> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rootfs::clone_tree(&place, false)
}

/// Another namespace of the same process, where the path names one of a process.
fn sibling(path: &Path, kind: &str) -> Option<PathBuf> {
    let dir = path.parent()?;
    (path.starts_with("/proc") && dir.ends_with("ns")).then(|| dir.join(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_not_made() {
        let mut c = Container::default();
        let all = Flags::MOUNT
            .and(Flags::PID)
            .and(Flags::IPC)
            .and(Flags::UTS)
            .and(Flags::NET);
        assert_eq!(at_birth(&c), all);
        c.host_network = true;
        c.namespaces.pid = Namespace::Host;
        c.namespaces.ipc = Namespace::Of("/proc/7/ns/ipc".into());
        c.namespaces.uts = Namespace::Host;
        assert_eq!(at_birth(&c), Flags::MOUNT);
    }

    #[test]
    fn siblings_are_those_of_a_process() {
        assert_eq!(
            sibling(Path::new("/proc/7/ns/ipc"), "mnt"),
            Some("/proc/7/ns/mnt".into())
        );
        assert_eq!(sibling(Path::new("/run/ns/ipc"), "mnt"), None);
    }
}
