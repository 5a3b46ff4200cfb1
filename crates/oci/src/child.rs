//! What the container's first process does before its program runs in it.
//!
//! ```text
//!  control groups ─ joined namespaces ─ (user namespace: wait for ids) ─ root, mounts, devices, terminal ─ (hooks)
//!    ─ pivot ─ user, capabilities ─ ready ─ (wait for start) ─ (hooks) ─ filter ─ exec
//! ```
//!
//! Nothing here returns to the runtime's code: the process executes its program, or says why not and ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use biga_container::cgroup::Group;
use biga_container::rootfs;
use biga_sys::mount_attr::{self as attr, Change};
use biga_sys::process::{Command, exit_now};
use biga_sys::{namespace, signal};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{Gid, Uid};

use crate::confine::Confinement;
use crate::control::{self, Message};
use crate::devices::Node;
use crate::error::{Error, Step};
use crate::mounts::Prepared;
use crate::namespaces::{Kind, Wanted};
use crate::spec::{Process, Spec};
use crate::state::State;
use crate::{console, descriptors, devices, hooks, masks, mounts};

/// Exit code of a process that could not be set up; the reason was said.
pub const FAILED: i32 = 1;

/// What the host's files gave, opened before they go out of sight.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The root's mount; only with a user namespace, otherwise the process makes it itself.
    pub root: Option<OwnedFd>,
    /// Mounts.
    pub mounts: Vec<Prepared<'a>>,
    /// Device nodes.
    pub nodes: Vec<Node>,
}

/// All that the first process needs.
#[derive(Debug)]
pub struct First<'a> {
    /// The configuration.
    pub spec: &'a Spec,
    /// Its process.
    pub process: &'a Process,
    /// Namespaces.
    pub wanted: &'a Wanted,
    /// Its control group.
    pub group: &'a Group,
    /// Files of it to enter by; none if it was born there.
    pub entrances: Vec<PathBuf>,
    /// Whether another process joined namespaces for it.
    pub joined: bool,
    /// What it is, but for its id.
    pub state: State,
    /// How many inherited descriptors it keeps, from 3 on.
    pub preserve: RawFd,
    /// Not to use `pivot_root`.
    pub no_pivot: bool,
    /// Fifos by which it is started; none to run at once when told.
    pub gate: Option<(OwnedFd, OwnedFd)>,
}

/// Sets the container up in this process and runs its program.
pub fn run(mut first: First<'_>, confinement: Confinement, sources: Option<Sources<'_>>, socket: OwnedFd) -> ! {
    let mut confinement = confinement;
    let done = set_up(&mut first, &mut confinement, sources, &socket);
    let failed = match done.and_then(|terminal| settle(terminal, &mut first, &mut confinement, &socket)) {
        Ok((socket, gate)) => {
            let e = go(&first, &confinement, socket, gate);
            // Said already.
            drop(e);
            exit_now(FAILED)
        }
        Err(e) => e,
    };
    // With the runtime gone there is nobody to tell.
    let _ = control::send(&socket, &Message::Failed(failed.to_string()), None);
    exit_now(FAILED)
}

/// Becomes the user, waits, and executes. Returns after it said why it failed.
fn go(
    first: &First<'_>,
    confinement: &Confinement,
    socket: OwnedFd,
    gate: Option<(OwnedFd, OwnedFd)>,
) -> io::Result<()> {
    let say = |to: &OwnedFd, e: &Error| control::send(to, &Message::Failed(e.to_string()), None);
    let settled = descriptors::take_terminal(first.process).and_then(|()| confinement.apply(&socket));
    let ready = settled.and_then(|()| {
        let program = find(&first.process.args[0], &first.process.env)?;
        Ok((program, command(first)?))
    });
    let (program, command) = match ready {
        Ok(r) => r,
        Err(e) => return say(&socket, &e),
    };
    control::send(&socket, &Message::Ready, None)?;
    let back = match gate {
        None => {
            if !matches!(control::receive(&socket)?, Some(Message::Ready)) {
                // The runtime went away before it said so.
                return Ok(());
            }
            socket
        }
        Some((start, result)) => {
            drop(socket);
            // Both ends are held here, so this waits until somebody writes.
            rustix::io::retry_on_intr(|| rustix::io::read(&start, &mut [0u8]))?;
            result
        }
    };
    let last = hooks::run(
        &first.spec.hooks.start_container,
        "startContainer",
        &first.state,
        "created",
    )
    .and_then(|()| confinement.last());
    if let Err(e) = last {
        return say(&back, &e);
    }
    let e = command.exec(&program);
    say(&back, &failure(&first.process.args[0], &e))
}

fn command(first: &First<'_>) -> Result<Command, Error> {
    let mut more = Vec::new();
    if let Ok(passed) = std::env::var("LISTEN_FDS") {
        more.extend([format!("LISTEN_FDS={passed}"), "LISTEN_PID=1".into()]);
    }
    self::command_of(first.process, more)
}

/// Arguments and environment of a process. `HOME` is the image's where nothing was said.
pub(crate) fn command_of(process: &Process, mut more: Vec<String>) -> Result<Command, Error> {
    if !process.env.iter().any(|v| v.starts_with("HOME=")) {
        more.push(format!("HOME={}", home(process.user.uid)));
    }
    let env = process.env.iter().chain(&more).map(String::as_str);
    Command::new(process.args.iter().map(String::as_str), env).step(|| "write the command down".into())
}

/// Home directory of a user in the image's own list; this process is inside.
fn home(uid: u32) -> String {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let text = rustix::fs::open("/", flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|root| biga_container::beneath::read(root.as_fd(), "/etc/passwd"))
        .unwrap_or_default();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let home = fields.get(5).filter(|h| h.starts_with('/') && !h.contains('\0'))?;
        (fields.get(2)?.parse() == Ok(uid)).then(|| (*home).to_owned())
    };
    text.lines().find_map(of).unwrap_or_else(|| "/".into())
}

fn failure(program: &str, e: &io::Error) -> Error {
    Error::Child(format!("exec: {program:?}: {}", plain(e)))
}

/// The kernel's words, in the form engines look for.
fn plain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => e.to_string(),
    }
}

/// Where a program is, looked up in the PATH of its environment, as the user who will run it.
pub fn find(program: &str, env: &[String]) -> Result<String, Error> {
    let check = |path: &str| -> io::Result<()> {
        let stat = rustix::fs::stat(path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        // Some hosts' file systems answer for the wrong user: exec has the last word.
        match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
            Err(rustix::io::Errno::ACCESS) => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            _ => Ok(()),
        }
    };
    if program.contains('/') {
        return match check(program) {
            Ok(()) => Ok(program.to_owned()),
            Err(e) => Err(failure(program, &e)),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or_default();
    let mut last = None;
    for dir in path.split(':') {
        let candidate = format!("{}/{program}", if dir.is_empty() { "." } else { dir });
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => last = Some(e),
            Err(_) => {}
        }
    }
    match last {
        Some(e) => Err(failure(program, &e)),
        None => Err(Error::Child(format!(
            "exec: {program:?}: executable file not found in $PATH"
        ))),
    }
}

/// Opens what the host's files give: in the process itself, or before it is made when it will have a user namespace.
pub fn sources<'a>(spec: &'a Spec, state: &State, in_user_namespace: bool) -> Result<Sources<'a>, Error> {
    let mut root = None;
    if in_user_namespace {
        let what = || format!("bind the root file system {}", state.rootfs.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let at = rustix::fs::open(&state.rootfs, flags, Mode::empty()).step(what)?;
        root = Some(rootfs::clone_tree(&at, true).step(what)?);
    }
    let label = Some(spec.linux.mount_label.as_str()).filter(|l| !l.is_empty());
    Ok(Sources {
        root,
        mounts: mounts::prepare(&spec.mounts, &state.bundle, in_user_namespace, label)?,
        nodes: devices::nodes(&spec.linux.devices, in_user_namespace)?,
    })
}

/// First things first: what needs the host's rights or files.
fn begin(first: &First<'_>, confinement: &mut Confinement) -> Result<(), Error> {
    signal::reset_all();
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().step(|| "make a session".into())?;
    enter_groups(&first.entrances)?;
    confinement.early()?;
    if !first.joined {
        join(first.wanted)?;
    }
    if first.wanted.is_new(Kind::Cgroup) {
        namespace::unshare(Kind::Cgroup.bit()).step(|| "make a control group namespace".into())?;
    }
    Ok(())
}

/// Moves this process into its control groups.
pub fn enter_groups(entrances: &[PathBuf]) -> Result<(), Error> {
    for path in entrances {
        let what = || format!("enter control group {}", path.display());
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        rustix::io::write(file, b"0").step(what)?;
    }
    Ok(())
}

/// Joins namespaces; that of users comes last, since it takes rights over the others away.
pub fn join(wanted: &Wanted) -> Result<(), Error> {
    let now = |k: Kind| !matches!(k, Kind::User | Kind::Pid | Kind::Time);
    for joined in wanted.joined.iter().filter(|j| now(j.kind)) {
        joined.enter()?;
    }
    match wanted.joined(Kind::User) {
        Some(user) => user.enter(),
        None => Ok(()),
    }
}

fn set_up(
    first: &mut First<'_>,
    confinement: &mut Confinement,
    sources: Option<Sources<'_>>,
    socket: &OwnedFd,
) -> Result<Option<OwnedFd>, Error> {
    begin(first, confinement)?;
    let (spec, linux) = (first.spec, &first.spec.linux);
    if first.wanted.is_new(Kind::User) {
        ask(socket, &Message::Ids)?;
    }
    propagation(&linux.rootfs_propagation, &first.state.rootfs)?;
    let sources = match sources {
        Some(s) => s,
        None => self::sources(spec, &first.state, false)?,
    };
    let root = mounts::root(&first.state.rootfs, sources.root)?;
    if first.wanted.has(Kind::User) {
        become_root()?;
    }
    if first.wanted.is_new(Kind::Network) {
        biga_container::setup::loopback_up().step(|| "bring up the loopback interface".into())?;
    }
    names(spec)?;

    let own_group = first.wanted.has(Kind::Cgroup);
    let kernel = mounts::all(root.as_fd(), sources.mounts, first.group, own_group)?;
    if !kernel.foreign_dev {
        devices::make(root.as_fd(), &sources.nodes)?;
    }
    masks::sysctls(&linux.sysctl)?;
    let mut terminal = None;
    if first.process.terminal {
        let slave = console::make(root.as_fd(), first.process.console_size, socket)?;
        console::bind(root.as_fd(), &slave)?;
        terminal = Some(slave);
    }
    run_hooks(first, socket)?;
    make_directory(&root, &first.process.cwd)?;
    enter(&root, first.no_pivot, &linux.rootfs_propagation)?;
    let read_only = Change {
        set: attr::RDONLY,
        ..Change::default()
    };
    if spec.root.as_ref().is_some_and(|r| r.readonly) {
        attr::change(&root, &read_only, false).step(|| "make the root read-only".into())?;
    }
    if let Some((propagation, all)) = crate::options::propagation(&linux.rootfs_propagation) {
        let change = Change {
            propagation: Some(propagation),
            ..Change::default()
        };
        attr::change(&root, &change, all).step(|| "set the propagation of the root".into())?;
    }
    masks::protect(root.as_fd(), &kernel, &linux.readonly_paths)?;
    masks::mask(root.as_fd(), &kernel, &linux.masked_paths)?;
    Ok(terminal)
}

/// Hooks of the host, run by the runtime, and those of the container, run here. Their programs are the host's.
fn run_hooks(first: &mut First<'_>, socket: &OwnedFd) -> Result<(), Error> {
    let hooks = &first.spec.hooks;
    let any = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
    ];
    if any.iter().all(|h| h.is_empty()) {
        return Ok(());
    }
    match ask(socket, &Message::Mounted)? {
        Message::Pid(pid) => first.state.pid = pid,
        _ => return Err(Error::Child("the runtime did not say that its hooks ran".into())),
    }
    hooks::run(&hooks.create_container, "createContainer", &first.state, "creating")
}

fn ask(socket: &OwnedFd, message: &Message) -> Result<Message, Error> {
    let what = || "speak to the runtime".into();
    control::send(socket, message, None).step(what)?;
    let answer = control::receive(socket).step(what)?;
    answer.ok_or_else(|| Error::Child("the runtime went away".into()))
}

/// How mounts of the host spread into the container's namespace from now on.
fn propagation(wanted: &str, rootfs: &Path) -> Result<(), Error> {
    let what = || "set the propagation of mounts".into();
    let (flags, shared) = match wanted {
        "private" => (MountPropagationFlags::PRIVATE, false),
        "rprivate" => (MountPropagationFlags::PRIVATE | MountPropagationFlags::REC, false),
        "unbindable" => (MountPropagationFlags::UNBINDABLE, false),
        "runbindable" => (MountPropagationFlags::PRIVATE | MountPropagationFlags::REC, false),
        "slave" => (MountPropagationFlags::DOWNSTREAM, false),
        "shared" => (MountPropagationFlags::SHARED, true),
        "rshared" => (MountPropagationFlags::SHARED | MountPropagationFlags::REC, true),
        _ => (MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC, false),
    };
    rustix::mount::mount_change("/", flags).step(what)?;
    if shared || !flags.contains(MountPropagationFlags::REC) {
        // The container's root must not appear on the host.
        let parent = mount_point_of(rootfs).step(what)?;
        rustix::mount::mount_change(&parent, MountPropagationFlags::PRIVATE).step(what)?;
    }
    Ok(())
}

/// The mount that a directory is in.
fn mount_point_of(path: &Path) -> io::Result<PathBuf> {
    let real = std::fs::canonicalize(path)?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape);
    let found = points
        .filter(|p| real.starts_with(p))
        .max_by_key(|p| p.as_os_str().len());
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The kernel writes blanks and the like as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match (first, code) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

/// Becomes root of the user namespace: files made from now on have owners.
pub(crate) fn become_root() -> Result<(), Error> {
    let what = || "become root of the user namespace: its maps must hold 0".into();
    // Where groups cannot be set, they stay: nothing is gained by them that was not there before.
    let _ = rustix::thread::set_thread_groups(&[]);
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).step(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).step(what)
}

fn names(spec: &Spec) -> Result<(), Error> {
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).step(|| format!("set host name {:?}", spec.hostname))?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .step(|| format!("set domain name {:?}", spec.domainname))?;
    }
    Ok(())
}

/// Makes the working directory if the image has none, while the root can still be written.
fn make_directory(root: &OwnedFd, cwd: &str) -> Result<(), Error> {
    use biga_container::beneath::{self, Kind};
    if cwd == "/" || beneath::locate(root.as_fd(), cwd).is_ok() {
        return Ok(());
    }
    // One that cannot be made, since a link of the image is in the way, is refused when it is entered.
    match beneath::place(root.as_fd(), cwd, Kind::Directory) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(e).step(|| format!("make working directory {cwd}")),
    }
}

/// Makes the root the root of this process, and lets go of the host's.
fn enter(root: &OwnedFd, no_pivot: bool, propagation: &str) -> Result<(), Error> {
    rustix::process::fchdir(root).step(|| "enter the root file system".into())?;
    if no_pivot {
        rustix::mount::mount_move(".", "/").step(|| "move the root file system to /".into())?;
        rustix::process::chroot(".").step(|| "change to the root file system".into())?;
    } else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the host's root".into())?;
        rustix::process::pivot_root(".", ".").step(|| "change to the root file system".into())?;
        rustix::process::fchdir(&old).step(|| "leave the host's file system".into())?;
        if propagation.contains("shared") || propagation.contains("private") || propagation.contains("unbindable") {
            // Letting go must not spread to the host. The old root lies over the new one, and what is told so is the one of them
            // that this process is in: the container's own mounts stay what they are to the host's.
            let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change(".", flags).step(|| "leave the host's file system".into())?;
        }
        rustix::mount::unmount(".", UnmountFlags::DETACH).step(|| "leave the host's file system".into())?;
    }
    rustix::process::chdir("/").step(|| "enter the root directory".into())
}

/// What stays open once [`settle`] is through: the socket, and the gate.
type Kept = (OwnedFd, Option<(OwnedFd, OwnedFd)>);

fn settle(
    terminal: Option<OwnedFd>,
    first: &mut First<'_>,
    confinement: &mut Confinement,
    socket: &OwnedFd,
) -> Result<Kept, Error> {
    let gate = first.gate.take();
    let mut keep = vec![socket.as_fd()];
    if let Some((start, result)) = &gate {
        keep.extend([start.as_fd(), result.as_fd()]);
    }
    let kept = descriptors::settle(terminal, &keep, first.preserve, confinement);
    // Its numbers are closed, or stand for something else by now.
    std::mem::forget(gate);
    let mut kept = kept?.into_iter();
    let socket = kept.next().ok_or_else(|| Error::Child("the socket was lost".into()))?;
    Ok((socket, kept.next().zip(kept.next())))
}
