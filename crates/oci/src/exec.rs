//! One more process in a running container.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use biga_container::cgroup::{self, Group, Version};
use biga_sys::process::{self, Child, Fork, Namespaces, exit_now};
use biga_sys::signal;
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
use crate::{console, create, descriptors, log, seccomp, validate};

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
    let listener = filter.as_ref().and_then(|f| f.listener.clone());
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
    process::set_undumpable().step(|| "hide this process".into())?;
    let child = fork_inside(request, confinement, (&entrances, &kinds, &init), &theirs)?;
    drop(theirs);
    let listening = listener.map(|l| (l, state));
    let started = accompany(request, &child, &socket, listening).and_then(|terminal| {
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

fn accompany(
    request: &Request<'_>,
    child: &Child,
    socket: &OwnedFd,
    listening: Option<(seccomp::Listener, &State)>,
) -> Result<Option<OwnedFd>, Error> {
    let what = || "speak to the process".into();
    let mut terminal = None;
    let mut ready = false;
    // Nothing of its socket is left once it executes its program.
    while let Some((message, with)) = control::receive_with(socket).step(what)? {
        match (message, with) {
            (Message::Terminal, Some(master)) => match &request.console_socket {
                Some(path) => console::send(&console::connect(path)?, &master)?,
                None => terminal = Some(master),
            },
            (Message::Listener(number), _) => {
                let (listener, state) = listening.as_ref().ok_or_else(|| create::died(child))?;
                create::hand_over(listener, child, number, (state, "running"))?;
                control::send(socket, &Message::Listener(0), None).step(what)?;
            }
            (Message::Ready, _) => ready = true,
            (Message::Failed(text), _) => return Err(Error::Child(text)),
            _ => return Err(Error::Child("the process speaks another language".into())),
        }
    }
    if !ready {
        return Err(create::died(child));
    }
    Ok(terminal)
}

/// Files to enter the control groups by.
fn entrances(request: &Request<'_>, state: &State) -> Result<Vec<PathBuf>, Error> {
    let group = state.group();
    if request.groups.is_empty() {
        return Ok(beside(state, &group).unwrap_or_else(|| group.entrances()));
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

/// On version 2 an init system inside moves itself into a group below the container's, which then takes no processes.
fn beside(state: &State, group: &Group) -> Option<Vec<PathBuf>> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", state.pid)).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    if group.version() == Version::V1 || !Path::new(path).starts_with(group.path()) {
        return None;
    }
    Some(vec![Path::new(cgroup::ROOT).join(path).join("cgroup.procs")])
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

/// A process that is born inside: what is in the container must never see one that has the host's root, or files of the host,
/// yet. So another one joins all namespaces, among them that of process ids, which is its children's only, lets go of all
/// descriptors, and then makes it.
fn fork_inside(
    request: &Request<'_>,
    confinement: Confinement,
    (entrances, kinds, init): (&[PathBuf], &[Kind], &OwnedFd),
    socket: &OwnedFd,
) -> Result<Child, Error> {
    let what = || "make a process in the container: does it still run?".into();
    let (hear, say) = control::pair()?;
    let between = match process::fork(Namespaces::NONE, None).step(what)? {
        Fork::Parent(child) => child,
        Fork::Child => enter(request, confinement, (entrances, kinds, init), socket, &say),
    };
    drop(say);
    let message = control::receive_with(&hear).step(what)?;
    let ended = between.wait(true).step(what)?;
    match message {
        Some((Message::Pid(pid), Some(pidfd))) => Ok(Child {
            pid: create::host_pid(&pidfd).unwrap_or(pid),
            pidfd,
        }),
        Some((Message::Failed(text), _)) => Err(Error::Child(text)),
        _ => Err(Error::Died(format!("code {}", ended.map_or(-1, |e| e.code())))),
    }
}

/// With the runtime gone there is nobody to tell.
fn fail(say: &OwnedFd, e: &Error) -> ! {
    let _ = control::send(say, &Message::Failed(e.to_string()), None);
    exit_now(FAILED)
}

/// The process in between.
fn enter(
    request: &Request<'_>,
    mut confinement: Confinement,
    (entrances, kinds, init): (&[PathBuf], &[Kind], &OwnedFd),
    socket: &OwnedFd,
    say: &OwnedFd,
) -> ! {
    let entered = join(&mut confinement, entrances, kinds, init)
        .and_then(|()| let_go(request, &mut confinement, kinds, [socket, say]));
    let (socket, say) = match entered {
        Ok(kept) => kept,
        Err(e) => fail(say, &e),
    };
    match process::fork_sibling(Namespaces::NONE).step(|| "make a process in the container: does it still run?".into())
    {
        Ok(Fork::Child) => {
            drop(say);
            let e = launch(request, &confinement, &socket);
            fail(&socket, &e)
        }
        Ok(Fork::Parent(child)) => {
            let _ = control::send(&say, &Message::Pid(child.pid), Some(child.pidfd.as_fd()));
            exit_now(0)
        }
        Err(e) => fail(&say, &e),
    }
}

fn lead_session(process: &Process) -> Result<(), Error> {
    rustix::process::setsid().step(|| "make a session".into())?;
    descriptors::take_terminal(process)
}

fn launch(request: &Request<'_>, confinement: &Confinement, socket: &OwnedFd) -> Error {
    let process = &request.process;
    let confined = lead_session(process).and_then(|()| confinement.apply(socket));
    let ready = confined.and_then(|()| {
        let program = find(&process.args[0], &process.env)?;
        Ok((program, crate::child::command_of(process, Vec::new())?))
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

/// Joins control groups and namespaces.
fn join(confinement: &mut Confinement, entrances: &[PathBuf], kinds: &[Kind], init: &OwnedFd) -> Result<(), Error> {
    signal::reset_all();
    rustix::process::umask(Mode::empty());
    enter_groups(entrances)?;
    confinement.early()?;
    let mut types = ThreadNameSpaceType::empty();
    for kind in kinds {
        types |= ThreadNameSpaceType::from_bits_retain(kind.bit().bits() as u32);
    }
    if !types.is_empty() {
        rustix::thread::move_into_thread_name_spaces(init.as_fd(), types)
            .step(|| "join the container's namespaces".into())?;
    }
    // Joining a mount namespace leads to its root, but an own directory may still be the host's.
    rustix::process::chdir("/").step(|| "enter the container's root".into())
}

/// Leaves nothing open but the streams, what is to be passed on, and these two sockets, whose new numbers are answered.
fn let_go(
    request: &Request<'_>,
    confinement: &mut Confinement,
    kinds: &[Kind],
    sockets: [&OwnedFd; 2],
) -> Result<(OwnedFd, OwnedFd), Error> {
    if kinds.contains(&Kind::User) {
        crate::child::become_root()?;
    }
    confinement.set_label()?;
    let mut terminal = None;
    if request.process.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).step(|| "open the container's root".into())?;
        terminal = Some(console::make(root.as_fd(), request.process.console_size, sockets[0])?);
    }
    let sockets = sockets.map(AsFd::as_fd);
    let mut kept = descriptors::settle(terminal, &sockets, request.preserve, confinement)?.into_iter();
    kept.next()
        .zip(kept.next())
        .ok_or_else(|| Error::Child("the sockets were lost".into()))
}
