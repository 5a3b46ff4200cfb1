//! One more process in a running container.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;

use biga_sys::process::{self, Child, Fork, Namespaces, exit_now};
use biga_sys::{fd, signal};
use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;

use crate::args::Global;
use crate::child::{FAILED, enter_groups, find};
use crate::confine::{self, Confinement};
use crate::control::{self, Message};
use crate::error::{Error, Step};
use crate::namespaces::Kind;
use crate::spec::{Process, Spec};
use crate::state::{Place, State, Status};
use crate::{console, create, log, seccomp, validate};

/// What `exec` is told.
#[derive(Debug)]
pub struct Request<'a> {
    /// Options before the verb.
    pub global: &'a Global,
    /// The container.
    pub id: &'a str,
    /// What runs.
    pub process: Process,
    /// Where to send the master of its terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to write its id.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on to pass on.
    pub preserve: RawFd,
    /// A control group below the container's own: controller (all where empty) and path.
    pub groups: Vec<(String, String)>,
    /// Also in a frozen container, where it waits.
    pub ignore_paused: bool,
}

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// It.
    pub child: Child,
    /// The master of its terminal, if nobody else got it.
    pub terminal: Option<OwnedFd>,
}

/// The container's configuration, for what an exec inherits from it.
pub fn running(global: &Global, id: &str, ignore_paused: bool) -> Result<(Place, State, Spec), Error> {
    let place = Place::of(&global.root, id)?;
    let state = place.load()?;
    match state.status(&place) {
        Status::Running | Status::Created => {}
        Status::Paused if ignore_paused => {}
        Status::Paused => {
            return Err(Error::State(format!(
                "cannot exec in container {id}: it is paused; resume it"
            )));
        }
        Status::Stopped => return Err(Error::State(format!("cannot exec in a stopped container: {id}"))),
    }
    let spec = place.config()?;
    Ok((place, state, spec))
}

/// Starts a process in a container.
pub fn start(request: &Request<'_>, state: &State, spec: &Spec) -> Result<Running, Error> {
    let process = &request.process;
    validate::process_fields(process)?;
    let mut warnings = Vec::new();
    let filter = seccomp::filter(spec.linux.seccomp.as_ref())?;
    let personality = validate::personality(&spec.linux)?;
    let confinement = confine::read(process, personality, filter, &mut warnings)?;
    for warning in warnings {
        log::warning(request.global, &warning);
    }
    if request.console_socket.is_some() && !process.terminal {
        return Err(Error::Usage(
            "--console-socket is given, and the process has no terminal".into(),
        ));
    }
    let gone = || Error::State(format!("container {} is not running", request.id));
    let init = state.process().ok_or_else(gone)?;
    let entrances = entrances(request, state)?;
    let kinds = differing(state.pid)?;
    let (socket, theirs) = control::pair()?;
    let joins_pids = kinds.contains(&Kind::Pid);
    if joins_pids {
        // Its children, not this process. Nothing of the host but sockets and streams is open in them: what is inside could look.
        rustix::thread::move_into_thread_name_spaces(init.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .step(|| "join the container's process ids".into())?;
    }
    process::set_undumpable().step(|| "hide this process".into())?;
    let child = match process::fork(Namespaces::NONE, None).step(|| "make a process in the container".into())? {
        Fork::Child => run(request, confinement, &entrances, &kinds, &init, theirs),
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let started = accompany(request, &child, &socket).and_then(|terminal| {
        if let Some(path) = &request.pid_file {
            create::write_pid(path, child.pid)?;
        }
        Ok(terminal)
    });
    match started {
        Ok(terminal) => Ok(Running { child, terminal }),
        Err(e) => {
            // The error is more telling than what tidying up says.
            let _ = child.signal(9);
            let _ = child.wait(true);
            Err(e)
        }
    }
}

fn accompany(request: &Request<'_>, child: &Child, socket: &OwnedFd) -> Result<Option<OwnedFd>, Error> {
    let what = || "speak to the process".into();
    let mut terminal = None;
    // Nothing of its socket is left once it executes its program.
    while let Some((message, with)) = control::receive_with(socket).step(what)? {
        match (message, with) {
            (Message::Terminal, Some(master)) => match &request.console_socket {
                Some(path) => console::send(&console::connect(path)?, &master)?,
                None => terminal = Some(master),
            },
            (Message::Ready, _) => {}
            (Message::Failed(text), _) => return Err(Error::Child(text)),
            _ => return Err(Error::Child("the process speaks another language".into())),
        }
    }
    if let Ok(Some(ended)) = child.wait(false)
        && ended.signal().is_some()
    {
        return Err(Error::Died(format!("code {}", ended.code())));
    }
    Ok(terminal)
}

/// Files to enter the control groups by.
fn entrances(request: &Request<'_>, state: &State) -> Result<Vec<PathBuf>, Error> {
    let group = state.group();
    if request.groups.is_empty() {
        return Ok(group.entrances());
    }
    let mut all = Vec::new();
    let controllers: Vec<&str> = match group.controllers() {
        [] => vec![""],
        some => some.to_vec(),
    };
    for controller in controllers {
        let given = request
            .groups
            .iter()
            .find(|(c, _)| c.is_empty() || c.split(',').any(|c| c == controller));
        let below = given.map_or("", |(_, path)| path.trim_matches('/'));
        if below.split('/').any(|part| part == "..") {
            return Err(Error::Usage(format!(
                "control group {below:?} is not below the container's"
            )));
        }
        let path = group.directory_of(controller).join(below).join("cgroup.procs");
        if !path.exists() {
            return Err(Error::Usage(format!("control group {} does not exist", path.display())));
        }
        all.push(path);
    }
    Ok(all)
}

/// Namespaces of a process that are not this one's.
fn differing(pid: u32) -> Result<Vec<Kind>, Error> {
    let mut kinds = Vec::new();
    for (kind, _, name) in Kind::ALL {
        let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{name}"));
        let own = match of("self") {
            Ok(link) => link,
            // A kernel without this kind.
            Err(_) => continue,
        };
        let theirs = of(&pid.to_string()).step(|| format!("look at the namespaces of process {pid}"))?;
        if own != theirs {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn run(
    request: &Request<'_>,
    mut confinement: Confinement,
    entrances: &[PathBuf],
    kinds: &[Kind],
    init: &OwnedFd,
    socket: OwnedFd,
) -> ! {
    let joined = join(request, &mut confinement, entrances, kinds, init, &socket);
    let socket = match joined {
        Ok(socket) => socket,
        Err(e) => {
            // With the runtime gone there is nobody to tell.
            let _ = control::send(&socket, &Message::Failed(e.to_string()), None);
            exit_now(FAILED)
        }
    };
    let e = launch(request, &confinement, &socket);
    let _ = control::send(&socket, &Message::Failed(e.to_string()), None);
    exit_now(FAILED)
}

fn launch(request: &Request<'_>, confinement: &Confinement, socket: &OwnedFd) -> Error {
    let process = &request.process;
    let ready = confinement.apply().and_then(|()| {
        let program = find(&process.args[0], &process.env)?;
        let args = process.args.iter().map(String::as_str);
        let command = process::Command::new(args, process.env.iter().map(String::as_str));
        Ok((program, command.step(|| "write the command down".into())?))
    });
    let (program, command) = match ready {
        Ok(r) => r,
        Err(e) => return e,
    };
    let last = control::send(socket, &Message::Ready, None)
        .step(|| "speak to the runtime".into())
        .and_then(|()| confinement.last());
    match last {
        Ok(()) => Error::Child(format!("exec: {:?}: {}", process.args[0], command.exec(&program))),
        Err(e) => e,
    }
}

fn join(
    request: &Request<'_>,
    confinement: &mut Confinement,
    entrances: &[PathBuf],
    kinds: &[Kind],
    init: &OwnedFd,
    socket: &OwnedFd,
) -> Result<OwnedFd, Error> {
    signal::reset_all();
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().step(|| "make a session".into())?;
    enter_groups(entrances)?;
    confinement.early()?;
    let mut types = ThreadNameSpaceType::empty();
    for kind in kinds.iter().filter(|k| **k != Kind::Pid) {
        types |= ThreadNameSpaceType::from_bits_retain(kind.bit().bits() as u32);
    }
    if !types.is_empty() {
        rustix::thread::move_into_thread_name_spaces(init.as_fd(), types)
            .step(|| "join the container's namespaces".into())?;
    }
    if kinds.contains(&Kind::User) {
        crate::child::become_root()?;
    }
    // Joining a mount namespace leads to its root, but an own directory may still be the host's.
    rustix::process::chdir("/").step(|| "enter the container's root".into())?;
    let mut terminal = None;
    if request.process.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the container's root".into())?;
        terminal = Some(console::make(root.as_fd(), request.process.console_size, socket)?);
    }
    settle(request, confinement, terminal, socket)
}

/// As for the first process: nothing but streams and the socket stays open.
fn settle(
    request: &Request<'_>,
    confinement: &mut Confinement,
    terminal: Option<OwnedFd>,
    socket: &OwnedFd,
) -> Result<OwnedFd, Error> {
    let what = || "arrange descriptors".into();
    if let Some(slave) = &terminal {
        for number in 0..3 {
            fd::place(slave.as_fd(), number).step(what)?;
        }
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).step(|| "take the terminal".into())?;
        crate::child::own_terminal(&request.process)?;
    }
    let base = 3 + request.preserve;
    let label = confinement.take_label_file();
    let mut keep = vec![crate::child::copy_high(socket.as_fd(), base)?];
    if let Some(file) = &label {
        keep.push(crate::child::copy_high(file.as_fd(), base)?);
    }
    for (i, source) in (0..).zip(&keep) {
        fd::place(source.as_fd(), base + i).step(what)?;
    }
    let (count, has_label) = (keep.len() as RawFd, label.is_some());
    // Their numbers are closed below, or stand for something else by now.
    std::mem::forget((keep, label, terminal));
    fd::close_from(base + count).step(what)?;
    let take = |number: RawFd| {
        let fd = fd::inherited(number).step(what)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).step(what)?;
        Ok::<OwnedFd, Error>(fd)
    };
    if has_label {
        confinement.set_label_file(take(base + 1)?);
    }
    take(base)
}
