//! What the containers of a pod share: network, IPC, host name, memory, and the process ids where that is wanted.
//!
//! ```text
//!  shim ─ fork into new namespaces ─► host name, network, parameters ─ a root of its own in memory with
//!    │                                 /shm and the pod's tmpfs ─► "ready"
//!    │ opens /proc/PID/ns/*, which keeps the namespaces
//!    └──────────────── "go on" ──────► ends, or stays as process 1 of the shared process ids, without rights, and reaps
//! ```
//!
//! Namespaces are held by descriptors of the shim and end with it: a crash leaves nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use biga_sys::mount as attr;
use biga_sys::process::{self, Child, Fork, Namespaces, exit_now};
use biga_sys::{fd, namespace, signal};
use biga_wire::config::{Container, Namespace, Pod};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, move_mount};
use rustix::thread::LinkNameSpaceType;

use crate::caps::{self, Caps};
use crate::cgroup::Group;
use crate::control::{self, Message};
use crate::error::{Context, Error};
use crate::{mounts, namespaces, rootfs, setup};

/// Where `/dev/shm` is in the root that holds the pod's memory.
const SHM: &str = "shm";
/// Where a view of the pod's process ids is.
const PROC: &str = "proc";
/// Begins the name of a tmpfs there.
const TMPFS: &str = "v-";
/// Exit code of a child that could not be set up; the reason went over the socket.
const FAILED: i32 = 125;
const SIGCHLD: i32 = 17;

/// Namespaces of a pod, by descriptor.
#[derive(Debug)]
pub(crate) struct Shared {
    ipc: OwnedFd,
    uts: OwnedFd,
    /// `None` in the host's network.
    net: Option<OwnedFd>,
    /// `None` where each container has process ids of its own.
    pids: Option<OwnedFd>,
    /// Of a root that holds the pod's memory and nothing else.
    mounts: OwnedFd,
}

/// One container's part in what its pod shares.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// The namespaces.
    pub shared: Rc<Shared>,
    /// Which of its mounts, by their place, are the pod's tmpfs, by name.
    pub tmpfs: BTreeMap<usize, String>,
    /// Control groups of the whole that the container's own group may not be below: each controller's with its entrance.
    pub entrances: Vec<(String, PathBuf)>,
}

/// Mounts of a pod's memory, not yet attached.
#[derive(Debug)]
pub(crate) struct Memory {
    pub shm: OwnedFd,
    /// `/proc` of shared process ids: only who is in them could make one, and would be seen meanwhile by who else is.
    pub proc: Option<OwnedFd>,
    /// By the place of the container's mount.
    pub tmpfs: BTreeMap<usize, OwnedFd>,
}

impl Joined {
    /// Whether it is seen by the other containers of the pod.
    pub fn shares_process_ids(&self) -> bool {
        self.shared.pids.is_some()
    }

    /// In the child: takes the pod's memory along. Mounts can be copied only by who is in their namespace, and a copy that is not
    /// attached anywhere can be taken out of it.
    pub fn memory(&self) -> Result<Memory, Error> {
        let what = || "take over the pod's memory".to_string();
        let own = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        let change = |to: &OwnedFd| {
            rustix::thread::move_into_link_name_space(to.as_fd(), Some(LinkNameSpaceType::Mount)).step(what)
        };
        change(&self.shared.mounts)?;
        let shm = copy_of(SHM)?;
        let proc = self.shares_process_ids().then(|| copy_of(PROC)).transpose()?;
        let copies = self
            .tmpfs
            .iter()
            .map(|(place, name)| Ok((*place, copy_of(&format!("{TMPFS}{name}"))?)));
        let tmpfs = copies.collect::<Result<_, Error>>()?;
        change(&own)?;
        Ok(Memory { shm, proc, tmpfs })
    }
}

impl Shared {
    /// Makes a container one of the pod: it joins what is shared instead of making its own.
    pub fn apply(&self, container: &mut Container) {
        // Children of the shim have its descriptors until they execute something.
        let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let of = |fd: &OwnedFd| Namespace::Of(path(fd).into());
        let n = &mut container.namespaces;
        (n.ipc, n.uts) = (of(&self.ipc), of(&self.uts));
        n.pid = self.pids.as_ref().map_or(Namespace::Own, of);
        container.netns = self.net.as_ref().map(|fd| path(fd).into());
        container.host_network = self.net.is_none();
        container.domainname = None;
        container.sysctls.clear();
    }
}

fn copy_of(name: &str) -> Result<OwnedFd, Error> {
    let what = || format!("copy the mount of the pod's {name}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let at = rustix::fs::open(format!("/{name}"), flags, Mode::empty()).step(what)?;
    rootfs::clone_tree(&at, false).step(what)
}

/// Makes what is shared. With shared process ids the child is their process 1, in the group `below`: they end with it.
pub(crate) fn make(pod: &Pod, run_dir: &Path, below: Option<&Group>) -> Result<(Shared, Option<Child>), Error> {
    let mut namespaces = Namespaces::MOUNT.and(Namespaces::IPC).and(Namespaces::UTS);
    if pod.netns.is_none() && !pod.host_network {
        namespaces = namespaces.and(Namespaces::NET);
    }
    if pod.share_pids {
        namespaces = namespaces.and(Namespaces::PID);
    }
    let (ours, theirs) = control::pair()?;
    let directory = below.and_then(Group::directory);
    let entrances = match (below, &directory) {
        (Some(group), None) => group.entrances(),
        _ => Vec::new(),
    };
    let fork = process::fork(namespaces, directory.as_ref().map(AsFd::as_fd));
    let child = match fork.step(|| "make the pod's namespaces".into())? {
        Fork::Child => run(pod, run_dir, &entrances, &theirs),
        Fork::Parent(child) => child,
    };
    drop(theirs);
    match hold(&child, &ours, pod) {
        Ok(shared) if pod.share_pids => Ok((shared, Some(child))),
        Ok(shared) => {
            child.wait(true).step(|| "wait for the pod's first process".into())?;
            Ok((shared, None))
        }
        Err(e) => {
            // Already ending, or of no use any more.
            let _ = child.signal(9).and_then(|()| child.wait(true));
            Err(e)
        }
    }
}

/// Waits until the child has made everything, opens its namespaces and lets it go on.
fn hold(child: &Child, socket: &OwnedFd, pod: &Pod) -> Result<Shared, Error> {
    match control::receive(socket).step(|| "hear from the pod's first process".into())? {
        Some((Message::Ready, _)) => {}
        Some((Message::Failed(code, message), _)) => return Err(Error::Child { code, message }),
        _ => return Err(Error::Died(FAILED)),
    }
    let of = child.pid.to_string();
    let shared = Shared {
        ipc: open_namespace(&of, "ipc")?,
        uts: open_namespace(&of, "uts")?,
        net: match pod.host_network {
            true => None,
            false => Some(open_namespace(&of, "net")?),
        },
        pids: match pod.share_pids {
            true => Some(open_namespace(&of, "pid")?),
            false => None,
        },
        mounts: open_namespace(&of, "mnt")?,
    };
    let what = || "speak to the pod's first process".into();
    control::send(socket, &Message::Ready, None).step(what)?;
    // Its end of the socket is the last that it lets go of; no container may see it before.
    match control::receive(socket).step(what)? {
        None => Ok(shared),
        Some((Message::Failed(code, message), _)) => Err(Error::Child { code, message }),
        Some(_) => Err(Error::Died(FAILED)),
    }
}

fn open_namespace(pid: &str, kind: &str) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/{kind}");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open the namespace {path}"))
}

/// The child: makes, reports, and ends or stays.
fn run(pod: &Pod, run_dir: &Path, entrances: &[PathBuf], socket: &OwnedFd) -> ! {
    if let Err(e) = prepare(pod, run_dir, entrances) {
        control::fail(socket, &e);
        exit_now(FAILED);
    }
    let told = control::send(socket, &Message::Ready, None).is_ok()
        && matches!(control::receive(socket), Ok(Some((Message::Ready, _))));
    if told && pod.share_pids {
        match confine() {
            Ok(()) => stay(),
            Err(e) => control::fail(socket, &e),
        }
        exit_now(FAILED);
    }
    exit_now(if told { 0 } else { FAILED })
}

fn prepare(pod: &Pod, run_dir: &Path, entrances: &[PathBuf]) -> Result<(), Error> {
    setup::begin_any(entrances)?;
    if let Some(netns) = &pod.netns {
        namespaces::enter(netns, LinkNameSpaceType::Network, "network")?;
    } else if !pod.host_network {
        setup::loopback_up().step(|| "bring up the loopback interface".into())?;
    }
    setup::names(&Container {
        hostname: pod.hostname.clone(),
        domainname: pod.domainname.clone(),
        ..Container::default()
    })?;
    parameters(&pod.sysctls)?;
    memory(pod, run_dir)
}

/// Kernel parameters, by a view of `/proc` that nobody made read-only.
fn parameters(sysctls: &BTreeMap<String, String>) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = rootfs::make("proc", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    for (name, value) in sysctls {
        let what = || format!("set kernel parameter {name} to {value:?}");
        let path = setup::sysctl_path(name);
        let file = rustix::fs::openat(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        rustix::io::write(file, value.as_bytes()).step(what)?;
    }
    Ok(())
}

/// A root of its own that holds the pod's memory. Nothing of the host stays in this mount namespace: what is unmounted there is
/// gone.
fn memory(pod: &Pod, run_dir: &Path) -> Result<(), Error> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step(|| "make mounts private".into())?;
    let secure = attr::NOSUID | attr::NODEV;
    let root = rootfs::make("tmpfs", &[("mode", Some("700")), ("size", Some("64k"))], secure)?;
    // Any directory will do: nobody else looks there in this namespace.
    move_mount(&root, "", CWD, run_dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(|| format!("mount at {}", run_dir.display()))?;
    let add = |name: &str, mount: OwnedFd| {
        let what = || format!("make the pod's {name}");
        rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o700)).step(what)?;
        move_mount(&mount, "", &root, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)
    };
    let size = if pod.shm_size == 0 { 64 << 20 } else { pod.shm_size }.to_string();
    let options = [("mode", Some("1777")), ("size", Some(size.as_str()))];
    add(SHM, rootfs::make("tmpfs", &options, secure | attr::NOEXEC)?)?;
    if pod.share_pids {
        add(PROC, rootfs::make("proc", &[], secure | attr::NOEXEC)?)?;
    }
    for (name, t) in &pod.tmpfs {
        if name.is_empty() || name.contains('/') {
            return Err(Error::Field("the name of a tmpfs", name.clone()));
        }
        add(
            &format!("{TMPFS}{name}"),
            mounts::memory(t.size, t.mode, &t.options, None)?,
        )?;
    }
    rootfs::enter(&root)
}

/// A container may be allowed to look into process 1, or to make it do things: it keeps no rights, and nothing but an empty
/// root. What the pod shares is kept by the mount namespace that it leaves.
fn confine() -> Result<(), Error> {
    let what = || "leave the pod's memory".into();
    namespace::unshare(Namespaces::MOUNT).step(what)?;
    let root = rootfs::make("tmpfs", &[("mode", Some("500")), ("size", Some("4k"))], attr::RDONLY)?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)?;
    rootfs::enter(&root)?;
    caps::bound(Caps::NONE)?;
    rustix::thread::set_no_new_privs(true).step(|| "forbid new privileges".into())?;
    caps::apply(Caps::NONE)
}

/// Process 1 of the pod: reaps what its parents left behind, until it is killed.
fn stay() -> ! {
    let Ok(signals) = signal::descriptor(&[SIGCHLD]) else {
        exit_now(FAILED);
    };
    let Ok(signals) = alone_with(signals) else {
        exit_now(FAILED)
    };
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        // An interrupted wait is simply repeated.
        let _ = rustix::event::poll(&mut fds, None);
        while let Ok(Some(_)) = signal::read(&signals) {}
        while let Ok(Some(_)) = process::reap_any() {}
    }
}

/// Lets go of every descriptor of the shim but this one.
fn alone_with(signals: OwnedFd) -> io::Result<OwnedFd> {
    const PLACE: i32 = 3;
    let null = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    for number in 0..PLACE {
        fd::place(null.as_fd(), number)?;
    }
    fd::place(signals.as_fd(), PLACE)?;
    let kept = fd::inherited(PLACE)?;
    // Their numbers are closed below, or another's by now.
    std::mem::forget(signals);
    std::mem::forget(null);
    fd::close_from(PLACE + 1)?;
    rustix::process::setsid()?;
    Ok(kept)
}
