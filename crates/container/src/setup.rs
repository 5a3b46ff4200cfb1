//! What a forked child does before the entrypoint, or another program, runs in it.
//!
//! ```text
//!  entrypoint: join control groups ─ network ─ rootfs, mounts, devices ─ pivot ─ (wait for start) ─ confine ─ exec
//!  exec:       join control groups ─ join namespaces ─ terminal ─ let go of the host ─ fork inside ─ confine ─ exec
//! ```
//!
//! Nothing here returns to the shim's code: a child executes its program or says why not and ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use biga_sys::process::{Namespaces, exit_now};
use biga_sys::{fd, signal};
use biga_wire::config::{Container, HookStage};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags};
use rustix::process::Resource;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use rustix::thread::LinkNameSpaceType;

use crate::beneath;
use crate::caps::Caps;
use crate::confine::{self, Confinement};
use crate::control::{self, Message};
use crate::devices::Nodes;
use crate::error::{Context, Error};
use crate::hooks::Told;
use crate::labels::Labels;
use crate::pod::Joined;
use crate::seccomp::Filter;
use crate::user::Identity;
use crate::userns::{self, Owner};
use crate::{init, mounts, namespaces, rootfs, user};

/// Exit code of a child that could not be set up; the reason went over the socket.
const FAILED: i32 = 125;
/// Where a child keeps its end of the socket.
const CONTROL: i32 = 3;

/// Standard streams of a process that has no terminal.
pub type Streams = [OwnedFd; 3];

/// What to run in a child, resolved as far as it can be without the image.
#[derive(Debug)]
pub struct Program {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User, as in the configuration.
    pub user: String,
    /// More groups.
    pub groups: Vec<String>,
    /// Capabilities at most.
    pub caps: Caps,
    /// System call filter.
    pub filter: Option<Filter>,
    /// AppArmor and SELinux.
    pub labels: Labels,
    /// No new privileges.
    pub no_new_privileges: bool,
    /// Badness score.
    pub oom_score_adj: Option<i32>,
    /// Resource limits.
    pub rlimits: Vec<(Resource, i64, i64)>,
    /// File mode mask.
    pub umask: u32,
    /// Has a terminal.
    pub tty: bool,
    /// Its first size: rows and columns.
    pub window: Option<(u16, u16)>,
}

/// A new container's first process.
#[derive(Debug)]
pub struct First<'a> {
    /// What runs.
    pub program: Program,
    /// The container.
    pub container: &'a Container,
    /// Its run directory.
    pub run_dir: &'a Path,
    /// Its state directory.
    pub state_dir: &'a Path,
    /// Control group files to enter by.
    pub entrances: Vec<PathBuf>,
    /// File systems of its block volumes.
    pub blocks: Vec<Option<OwnedFd>>,
    /// Its user namespace, if it has one of its own.
    pub owner: Option<Owner>,
    /// Run without waiting to be told.
    pub start: bool,
    /// Its part in what a pod shares.
    pub(crate) pod: Option<&'a Joined>,
}

impl First<'_> {
    /// Whether others see it by its process id, which must not be before it has nothing of the host any more.
    fn appears_late(&self) -> bool {
        match self.pod {
            Some(pod) => pod.shares_process_ids(),
            None => namespaces::appears_late(self.container),
        }
    }
}

/// Sets a container up in this child and runs its entrypoint.
pub fn run_first(mut first: First<'_>, streams: Option<&Streams>, socket: &OwnedFd) -> ! {
    let prepared = prepare(&mut first, streams, socket).and_then(|(t, c)| Ok((settle(t, streams, socket)?, c)));
    match prepared {
        Ok((socket, confinement)) => {
            if let Err(e) = appear(&first, &socket) {
                control::fail(&socket, &e);
                exit_now(FAILED);
            }
            if !first.start && !told_to_run(&socket) {
                // The shim went away before it said start.
                exit_now(FAILED);
            }
            if first.container.process.init {
                init::run(&first.program, &confinement, &socket);
            }
            let e = launch(&first.program, &confinement, &socket);
            control::fail(&socket, &e);
        }
        Err(e) => control::fail(socket, &e),
    }
    exit_now(FAILED)
}

/// All is made, and of the host nothing is left: goes on where containers that run already see it.
fn appear(first: &First<'_>, socket: &OwnedFd) -> Result<(), Error> {
    if first.appears_late() {
        namespaces::fork_inside(Namespaces::NONE, socket)?;
        die_with_shim()?;
    }
    lead_session(first.program.tty)
}

/// Says that all is made, and waits.
fn told_to_run(socket: &OwnedFd) -> bool {
    control::send(socket, &Message::Ready, None).is_ok()
        && matches!(control::receive(socket), Ok(Some((Message::Ready, _))))
}

fn prepare(
    first: &mut First<'_>,
    streams: Option<&Streams>,
    socket: &OwnedFd,
) -> Result<(Option<OwnedFd>, Confinement), Error> {
    let mut of_host = of_the_host(first, streams)?;
    if let Some(owner) = &first.owner {
        // On into the user namespace, in a process of its own: whoever is born there owns its other namespaces.
        of_host.root = rootfs::clone_tree(&of_host.root, false).step(|| "hand over the root file system".into())?;
        userns::enter(owner)?;
        namespaces::fork_inside(namespaces::at_birth(first.container), socket)?;
        die_with_shim()?;
        rustix::mount::mount_change("/", PRIVATE).step(|| "make mounts private".into())?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&of_host.root, "", CWD, "/", flags).step(|| "mount the root file system".into())?;
    }
    inside(first, of_host, socket)
}

const PRIVATE: MountPropagationFlags = MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC);

/// What was opened and made with the rights of the host's root.
struct OfHost {
    root: OwnedFd,
    dev: OwnedFd,
    nodes: Nodes,
    sources: Vec<Option<OwnedFd>>,
    own_files: Vec<(&'static str, OwnedFd)>,
    shared: Option<rootfs::SharedMemory>,
    proc: Option<OwnedFd>,
    labels: Labels,
    told: Told,
}

fn of_the_host(first: &mut First<'_>, streams: Option<&Streams>) -> Result<OfHost, Error> {
    let container = first.container;
    begin(&first.entrances, &first.program, first.owner.is_some())?;
    if let (Some(netns), None) = (&container.netns, &first.owner) {
        namespaces::enter(netns, LinkNameSpaceType::Network, "network")?;
    }
    namespaces::join_others(container)?;
    let (shared, of_pod, proc) = match first.pod.map(Joined::memory).transpose()? {
        Some(memory) => (Some((memory.shm, None)), memory.tmpfs, memory.proc),
        None => (
            namespaces::shared_memory(container)?,
            Default::default(),
            namespaces::shared_proc(container)?,
        ),
    };
    if proc.is_some() {
        // For the child that goes on: this process stays outside, where no container sees it.
        namespaces::share_process_ids(container)?;
    }
    let ids = first.owner.as_ref().map(|o| o.user.as_fd());
    // While mounts still hang together with the host's, for those that shall keep that.
    let mut sources = mounts::sources(container, &mut first.blocks, ids)?;
    for (place, tree) in of_pod {
        if let Some(source) = sources.get_mut(place) {
            *source = Some(tree);
        }
    }
    rustix::mount::mount_change("/", PRIVATE).step(|| "make mounts private".into())?;
    let own_files = mounts::own_files(container, first.run_dir)?;
    let nodes = Nodes::find(container)?;
    rootfs::writable_layer(container, first.state_dir)?;
    let told = Told::new(container, first.run_dir, &first.state_dir.join("upper"))?;
    if let Some(owner) = &first.owner {
        userns::map_layers(container, first.state_dir, owner.user.as_fd())?;
        streams.into_iter().for_each(|s| userns::own_streams(s, &owner.ids));
        userns::become_mapped_root(&owner.ids)?;
    }
    let root = rootfs::overlay(container, first.state_dir)?;
    let dev = rootfs::device_directory(container.mount_label.as_deref(), !container.no_shm)?;
    nodes.make_usual(&dev)?;
    Ok(OfHost {
        root,
        dev,
        nodes,
        sources,
        own_files,
        shared,
        proc,
        labels: first.program.labels.clone(),
        told,
    })
}

/// What is done in the container's own namespaces.
fn inside(first: &First<'_>, of_host: OfHost, socket: &OwnedFd) -> Result<(Option<OwnedFd>, Confinement), Error> {
    let container = first.container;
    let (root, dev) = (&of_host.root, &of_host.dev);
    if container.netns.is_none() && !container.host_network {
        loopback_up().step(|| "bring up the loopback interface".into())?;
    }
    namespaces::from_within(container)?;
    names(container)?;
    rootfs::kernel_file_systems(root.as_fd(), container, dev, of_host.shared, of_host.proc)?;
    of_host.nodes.make(root.as_fd(), first.owner.is_some())?;
    for (target, tree) in &of_host.own_files {
        rootfs::attach_at(root.as_fd(), tree, target, beneath::Kind::File)?;
    }
    mounts::all(root.as_fd(), container, &of_host.sources)?;
    sysctls(root.as_fd(), container)?;

    let terminal = match first.program.tty {
        true => Some(terminal(dev, "pts", first.program.window, socket)?),
        false => None,
    };
    if terminal.is_some() {
        console(dev)?;
    }
    rootfs::mask(root.as_fd(), dev, container)?;
    let confinement = resolve(&first.program, root.as_fd(), of_host.labels)?;
    of_host.told.run(container, HookStage::CreateContainer)?;
    rootfs::enter(root)?;
    of_host.told.run(container, HookStage::StartContainer)?;
    make_directory(&confinement.cwd)?;
    if container.read_only_root {
        biga_sys::mount::set_attributes(root, biga_sys::mount::RDONLY, false)
            .step(|| "make the root read-only".into())?;
    }
    Ok((terminal, confinement))
}

/// A program that joins a running container.
#[derive(Debug)]
pub struct Further<'a> {
    /// What runs.
    pub program: Program,
    /// The container.
    pub container: &'a Container,
    /// Control group files to enter by.
    pub entrances: Vec<PathBuf>,
    /// The container's first process.
    pub init: BorrowedFd<'a>,
}

/// Joins a running container in this child and runs a program there, in another.
pub fn run_exec(further: &Further<'_>, streams: Option<&Streams>, socket: &OwnedFd) -> ! {
    let joined = join(further, streams, socket).and_then(|(t, c)| Ok((settle(t, streams, socket)?, c)));
    match joined {
        Ok((socket, confinement)) => {
            let born = namespaces::fork_inside(Namespaces::NONE, &socket)
                .and_then(|()| die_with_shim())
                .and_then(|()| lead_session(further.program.tty));
            let e = match born {
                Ok(()) => launch(&further.program, &confinement, &socket),
                Err(e) => e,
            };
            control::fail(&socket, &e);
        }
        Err(e) => control::fail(socket, &e),
    }
    exit_now(FAILED)
}

fn join(
    further: &Further<'_>,
    streams: Option<&Streams>,
    socket: &OwnedFd,
) -> Result<(Option<OwnedFd>, Confinement), Error> {
    let (program, container) = (&further.program, further.container);
    let user = container.namespaces.user;
    begin(&further.entrances, program, user.is_some())?;
    if let (Some(ids), Some(streams)) = (&user, streams) {
        userns::own_streams(streams, ids);
    }
    rustix::thread::move_into_thread_name_spaces(further.init, namespaces::of_exec(container))
        .step(|| "join the container's namespaces".into())?;
    if user.is_some() {
        userns::become_root_inside()?;
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the container's root".into())?;
    let confinement = resolve(program, root.as_fd(), program.labels.clone())?;
    let terminal = if program.tty {
        let dev = beneath::locate(root.as_fd(), "/dev").step(|| "open the container's /dev".into())?;
        Some(terminal(&dev, "pts", program.window, socket)?)
    } else {
        None
    };
    Ok((terminal, confinement))
}

/// What both begin with; and what only the host's root may do, where the program will be in a user namespace.
fn begin(entrances: &[PathBuf], program: &Program, mapped: bool) -> Result<(), Error> {
    begin_any(entrances)?;
    if mapped {
        confine::raise_hard_limits(&program.rlimits);
        program.oom_score_adj.map_or(Ok(()), confine::set_oom_score)?;
    }
    Ok(())
}

/// Fresh signals, death with the shim, the control groups.
pub(crate) fn begin_any(entrances: &[PathBuf]) -> Result<(), Error> {
    signal::reset_all();
    rustix::process::umask(Mode::empty());
    die_with_shim()?;
    for path in entrances {
        let what = || format!("enter control group {}", path.display());
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        rustix::io::write(file, b"0").step(what)?;
    }
    Ok(())
}

fn die_with_shim() -> Result<(), Error> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .step(|| "tie the process to its shim".into())
}

/// Confines this process and executes the program; returns only on failure.
pub(crate) fn launch(program: &Program, confinement: &Confinement, socket: &OwnedFd) -> Error {
    confine::own_streams(&confinement.identity);
    if let Err(e) = confinement.apply(Some(socket.as_fd())) {
        return e;
    }
    // Says that what ends the process from here on is its own matter.
    if let Err(e) = control::send(socket, &Message::Running, None) {
        return Error::Step {
            what: "report to the shim".into(),
            source: e,
        };
    }
    let env = environment(&program.env, program.tty, &confinement.identity.home);
    confine::exec(&program.args, &env)
}

/// The environment, with what every program expects to find.
pub(crate) fn environment(wished: &[String], tty: bool, home: &str) -> Vec<String> {
    let mut env = wished.to_vec();
    let has = |env: &[String], name: &str| {
        env.iter()
            .any(|v| v.strip_prefix(name).is_some_and(|r| r.starts_with('=')))
    };
    if !has(&env, "PATH") {
        env.push(format!("PATH={}", confine::DEFAULT_PATH));
    }
    if !has(&env, "HOME") {
        env.push(format!("HOME={home}"));
    }
    if tty && !has(&env, "TERM") {
        env.push("TERM=xterm".into());
    }
    env
}

/// Looks a user up in the image.
pub(crate) fn identity(user: &str, groups: &[String], root: BorrowedFd<'_>) -> Result<Identity, Error> {
    let read = |path| beneath::read(root, path).step(|| format!("read the image's {path}"));
    user::resolve(user, groups, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn resolve(program: &Program, root: BorrowedFd<'_>, labels: Labels) -> Result<Confinement, Error> {
    Ok(Confinement {
        identity: identity(&program.user, &program.groups, root)?,
        caps: program.caps,
        filter: program.filter.clone(),
        no_new_privileges: program.no_new_privileges,
        oom_score_adj: program.oom_score_adj,
        rlimits: program.rlimits.clone(),
        umask: program.umask,
        cwd: program.cwd.clone(),
        labels,
    })
}

/// Makes the working directory while the root can still be written.
fn make_directory(cwd: &str) -> Result<(), Error> {
    if cwd.is_empty() || Path::new(cwd).exists() {
        return Ok(());
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    std::fs::create_dir_all(cwd).step(|| format!("make working directory {cwd}"))
}

/// Standard streams to 0, 1, 2, the socket to 3, everything else closed: nothing of the host leaks into the container.
/// Nothing else that owns a descriptor may be dropped in this process after it.
fn settle(terminal: Option<OwnedFd>, streams: Option<&Streams>, socket: &OwnedFd) -> Result<OwnedFd, Error> {
    let what = || "arrange standard streams".into();
    for number in 0..3 {
        let source = match (&terminal, streams) {
            (Some(slave), _) => slave,
            (None, Some(streams)) => &streams[number as usize],
            (None, None) => return Err(Error::Field("the standard streams", "there are none".into())),
        };
        fd::place(source.as_fd(), number).step(what)?;
    }
    fd::place(socket.as_fd(), CONTROL).step(what)?;
    let socket = fd::inherited(CONTROL).step(what)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).step(what)?;
    // Its number is closed below, or the socket's by now.
    std::mem::forget(terminal);
    fd::close_from(CONTROL + 1).step(what)?;
    Ok(socket)
}

/// Makes this process the leader of a session, on the terminal that it has at its standard streams.
fn lead_session(terminal: bool) -> Result<(), Error> {
    rustix::process::setsid().step(|| "make a session".into())?;
    if terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).step(|| "take the terminal".into())?;
    }
    Ok(())
}

/// Makes a terminal in the container's own `devpts`, gives the master to the shim and keeps the slave.
fn terminal(dev: &OwnedFd, pts: &str, window: Option<(u16, u16)>, socket: &OwnedFd) -> Result<OwnedFd, Error> {
    const DEVPTS_MAGIC: i64 = 0x1cd1;
    let what = || "make a terminal in the container".into();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = beneath::open(dev.as_fd(), &format!("{pts}/ptmx"), flags).step(what)?;
    // A container may have put something else there: the shim must not take that for a terminal.
    let real = rustix::fs::fstatfs(&master).step(what)?.f_type == DEVPTS_MAGIC
        && rustix::fs::fstat(&master).step(what)?.st_rdev == rustix::fs::makedev(5, 2);
    if !real {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its /dev/pts/ptmx is not a terminal multiplexer",
        ))
        .step(what);
    }
    rustix::pty::unlockpt(&master).step(what)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .step(what)?;
    if let Some((rows, columns)) = window {
        resize(&master, rows, columns).step(what)?;
    }
    control::send(socket, &Message::Terminal, Some(master.as_fd())).step(what)?;
    Ok(slave)
}

/// Sets a terminal's size.
pub fn resize(terminal: &OwnedFd, rows: u16, columns: u16) -> rustix::io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// The container's first terminal is also its console.
fn console(dev: &OwnedFd) -> Result<(), Error> {
    let what = || "make /dev/console".into();
    let slave = beneath::locate(dev.as_fd(), "pts/0").step(what)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dev, "console", flags, Mode::from_raw_mode(0o600)).step(what)?;
    let place = beneath::locate(dev.as_fd(), "console").step(what)?;
    let tree = rootfs::clone_tree(&slave, false).step(what)?;
    rootfs::attach(&tree, &place).step(what)
}

/// One netlink message: interface 1 up.
pub fn loopback_up() -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socket_with};
    const RTM_NEWLINK: u16 = 16;
    const REQUEST: u16 = 1;
    const IFF_UP: u32 = 1;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port, then family, padding and type.
    message.extend([0; 12]);
    message.extend(1i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty()).map(drop)
}

pub(crate) fn names(container: &Container) -> Result<(), Error> {
    if !container.namespaces.uts.is_own() {
        return Ok(());
    }
    if !container.hostname.is_empty() {
        rustix::system::sethostname(container.hostname.as_bytes())
            .step(|| format!("set host name {:?}", container.hostname))?;
    }
    if let Some(domain) = &container.domainname {
        rustix::system::setdomainname(domain.as_bytes()).step(|| format!("set domain name {domain:?}"))?;
    }
    Ok(())
}

/// Whether a kernel parameter belongs to a namespace that this container has of its own.
pub fn own_sysctl(name: &str, container: &Container) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let n = &container.namespaces;
    // Slashes may stand for dots, as sysctl(8) has it for names with dots in them: both ways the parts must be plain.
    let safe = name.split(['.', '/']).all(|part| !part.is_empty());
    let ipc = IPC.contains(&name) || name.starts_with("fs.mqueue.");
    safe && ((ipc && n.ipc.is_own())
        || (name == "kernel.domainname" && n.uts.is_own())
        || (name.starts_with("net.") && !container.host_network))
}

/// Where a parameter is: dots part it, or slashes where a part has dots (`net.ipv4.conf.eth0/7.rp_filter` is interface `eth0.7`).
pub(crate) fn sysctl_path(name: &str) -> String {
    let swapped: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect();
    format!("sys/{swapped}")
}

fn sysctls(root: BorrowedFd<'_>, container: &Container) -> Result<(), Error> {
    for (name, value) in &container.sysctls {
        let what = || format!("set kernel parameter {name} to {value:?}");
        let path = format!("/proc/{}", sysctl_path(name));
        let file = beneath::open(root, &path, OFlags::WRONLY).step(what)?;
        rustix::io::write(file, value.as_bytes()).step(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_of_the_host_are_refused() {
        let own = Container::default();
        let mut shared = Container {
            host_network: true,
            ..Container::default()
        };
        shared.namespaces.ipc = biga_wire::config::Namespace::Host;
        for (name, fine, fine_shared) in [
            ("net.ipv4.ip_forward", true, false),
            ("net.ipv4.conf.eth0/7.rp_filter", true, false),
            ("kernel.shmmax", true, false),
            ("fs.mqueue.msg_max", true, false),
            ("kernel.domainname", true, true),
            ("kernel.core_pattern", false, false),
            ("net/../kernel/core_pattern", false, false),
            ("net.//.kernel.core_pattern", false, false),
            ("net...kernel.core_pattern", false, false),
        ] {
            assert_eq!(
                (own_sysctl(name, &own), own_sysctl(name, &shared)),
                (fine, fine_shared),
                "{name}"
            );
        }
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/7.rp_filter"),
            "sys/net/ipv4/conf/eth0.7/rp_filter"
        );
    }
}
