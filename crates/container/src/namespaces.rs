//! Which namespaces a container gets of its own, and how it comes into others.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use biga_sys::namespace;
use biga_sys::process::{self, Fork, Namespaces as Flags, exit_now};
use biga_wire::config::{Container, Namespace, NamespaceFile, TimeOffsets};
use rustix::fs::{AtFlags, Mode, OFlags, PROC_SUPER_MAGIC};
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
        if let Namespace::Of(file) = which {
            enter(file, kind, name)?;
        }
    }
    Ok(())
}

/// Joins one namespace.
pub fn enter(file: &NamespaceFile, kind: LinkNameSpaceType, name: &str) -> Result<(), Error> {
    let fd = open(file)?;
    let what = || format!("join the {name} namespace {}", file.path.display());
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind)).step(what)
}

/// Opens a namespace's file and looks that it is the one that is meant.
pub fn open(file: &NamespaceFile) -> Result<OwnedFd, Error> {
    let what = || format!("open the namespace {}: does who has it still run?", file.path.display());
    let fd = rustix::fs::open(&file.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    let found = rustix::fs::fstat(&fd).step(what)?.st_ino;
    match file.id {
        Some(id) if id != found => {
            let why = format!("{} is another's now: who had it ended meanwhile", file.path.display());
            Err(Error::Field("the namespace", why))
        }
        _ => Ok(fd),
    }
}

fn of_this_process(kind: &str) -> NamespaceFile {
    PathBuf::from(format!("/proc/self/ns/{kind}")).into()
}

/// Lets children of this process be born into another's process ids, where the container shares those.
pub fn share_process_ids(container: &Container) -> Result<(), Error> {
    match &container.namespaces.pid {
        Namespace::Of(file) => enter(file, LinkNameSpaceType::ProcessID, "process id"),
        _ => Ok(()),
    }
}

/// Whether the first process can come into another's process ids when all is made, and not before: what it needs of their
/// `/proc` can be taken from that other one.
pub fn appears_late(container: &Container) -> bool {
    matches!(&container.namespaces.pid, Namespace::Of(file) if sibling(file, "mnt").is_some())
}

/// Lets children be born into this process's own process ids again.
pub fn keep_process_ids(container: &Container) -> Result<(), Error> {
    match &container.namespaces.pid {
        Namespace::Of(_) => enter(&of_this_process("pid"), LinkNameSpaceType::ProcessID, "own process id"),
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
    enter(&of_this_process("time_for_children"), LinkNameSpaceType::Time, "clock")
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
        Namespace::Of(file) => among_mounts(file, |_| trees()),
    }
}

/// `/proc` of those whose process ids are shared: only who is in them could make one, and would be seen meanwhile by who else is.
/// `None` where it is made anew.
pub fn shared_proc(container: &Container) -> Result<Option<OwnedFd>, Error> {
    let Namespace::Of(file) = &container.namespaces.pid else {
        return Ok(None);
    };
    let what = || "share /proc".to_string();
    among_mounts(file, |ids| {
        let proc = tree("/proc").step(what)?;
        // The other may have changed its mounts, if it was allowed to.
        let same = rustix::fs::fstatfs(&proc).step(what)?.f_type == PROC_SUPER_MAGIC
            && rustix::fs::statat(&proc, "1/ns/pid", AtFlags::empty())
                .step(what)?
                .st_ino
                == rustix::fs::fstat(ids).step(what)?.st_ino;
        match same {
            true => Ok(proc),
            false => Err(Error::Field(
                "the process ids",
                "who shares them has another /proc mounted".into(),
            )),
        }
    })
}

/// Does something among the mounts of who has this namespace, which `work` is given; `None` where it is not known who that is.
fn among_mounts<T>(file: &NamespaceFile, work: impl FnOnce(&OwnedFd) -> Result<T, Error>) -> Result<Option<T>, Error> {
    let Some(mounts) = sibling(file, "mnt") else {
        return Ok(None);
    };
    // Only who is in a mount namespace can copy a mount of it.
    let own = open(&of_this_process("mnt"))?;
    let mounts = open(&mounts)?;
    // Only now: had the process gone before, its mounts would be another's, too.
    let namespace = open(file)?;
    let enter = |to: &OwnedFd| rustix::thread::move_into_link_name_space(to.as_fd(), Some(LinkNameSpaceType::Mount));
    enter(&mounts).step(|| "go into the mount namespace of another container".into())?;
    let found = work(&namespace);
    enter(&own).step(|| "come back from the mount namespace of another container".into())?;
    found.map(Some)
}

fn tree(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let place = rustix::fs::open(path, flags, Mode::empty())?;
    rootfs::clone_tree(&place, false)
}

/// Another namespace of the same process, where the path names one of a process.
fn sibling(file: &NamespaceFile, kind: &str) -> Option<NamespaceFile> {
    let dir = file.path.parent()?;
    (file.path.starts_with("/proc") && dir.ends_with("ns")).then(|| dir.join(kind).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> NamespaceFile {
        PathBuf::from(path).into()
    }

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
        c.namespaces.ipc = Namespace::Of(file("/proc/7/ns/ipc"));
        c.namespaces.uts = Namespace::Host;
        assert_eq!(at_birth(&c), Flags::MOUNT);
    }

    #[test]
    fn siblings_are_those_of_a_process() {
        assert_eq!(sibling(&file("/proc/7/ns/ipc"), "mnt"), Some(file("/proc/7/ns/mnt")));
        assert_eq!(sibling(&file("/run/ns/ipc"), "mnt"), None);
    }

    #[test]
    fn a_namespace_of_another_number_is_not_entered() {
        let own = of_this_process("uts");
        let id = Some(rustix::fs::stat(&own.path).unwrap().st_ino);
        assert!(open(&NamespaceFile { id, ..own.clone() }).is_ok());
        let other = open(&NamespaceFile {
            id: id.map(|i| i + 1),
            ..own
        });
        assert!(other.unwrap_err().to_string().contains("ended meanwhile"));
    }
}
