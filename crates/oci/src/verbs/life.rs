//! From making a container to deleting it.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use biga_sys::process::signal_pidfd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::{absolute, find, known, living};
use crate::args::{Global, Known, Options};
use crate::control::{self, Message};
use crate::create::{self, Made, Request};
use crate::error::{Error, Step};
use crate::hooks;
use crate::state::{Place, State, Status};
use crate::{attend, limits, log};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

const CREATE: [Known; 6] = [
    ("bundle", "b", true),
    ("console-socket", "", true),
    ("pid-file", "", true),
    ("no-pivot", "", false),
    ("no-new-keyring", "", false),
    ("preserve-fds", "", true),
];
const RUN: [Known; 9] = [
    CREATE[0],
    CREATE[1],
    CREATE[2],
    CREATE[3],
    CREATE[4],
    CREATE[5],
    ("detach", "d", false),
    ("keep", "", false),
    // Processes of a container without process ids of its own are killed with it, whoever reaps them.
    ("no-subreaper", "", false),
];

fn request<'a>(global: &'a Global, o: &'a Options, gate: bool) -> Result<Request<'a>, Error> {
    o.at_most(1)?;
    Ok(Request {
        global,
        id: o.id()?,
        bundle: absolute(o.get("bundle").unwrap_or("."))?,
        console_socket: o.get("console-socket").filter(|p| !p.is_empty()).map(PathBuf::from),
        pid_file: o.get("pid-file").filter(|p| !p.is_empty()).map(PathBuf::from),
        no_pivot: o.has("no-pivot"),
        no_keyring: o.has("no-new-keyring"),
        preserve: o.number::<RawFd>("preserve-fds")?.unwrap_or(0),
        gate,
    })
}

pub(super) fn create(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let options = Options::parse(rest, &CREATE, false)?;
    create::make(&request(global, &options, true)?)?;
    Ok(0)
}

pub(super) fn run(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let options = Options::parse(rest, &RUN, false)?;
    let request = request(global, &options, false)?;
    let detach = options.has("detach");
    let made = create::make(&request)?;
    if detach && made.terminal.is_some() {
        destroy(global, &made.place, &made.state)?;
        return Err(Error::Usage(
            "process.terminal is set: a detached container needs --console-socket, where its master is to be sent"
                .into(),
        ));
    }
    let signals = if detach {
        None
    } else {
        Some(attend::signals().step(|| "wait for signals".into())?)
    };
    if let Err(e) = go(&made) {
        // The failure is more telling than what tidying up says.
        let _ = destroy(global, &made.place, &made.state);
        return Err(e);
    }
    let Some(signals) = signals else { return Ok(0) };
    let ended = attend::wait(&made.child, &signals, made.terminal.as_ref());
    let code = ended.step(|| "wait for the container".into())?.code();
    if !options.has("keep") {
        destroy(global, &made.place, &made.state)?;
    }
    Ok(code)
}

/// Tells the first process to run its program.
fn go(made: &Made) -> Result<(), Error> {
    let what = || "start the container".into();
    control::send(&made.socket, &Message::Ready, None).step(what)?;
    // Nothing of the other end is left once the program runs.
    match control::receive(&made.socket).step(what)? {
        None => {}
        Some(Message::Failed(text)) => return Err(Error::Child(text)),
        Some(_) => {
            return Err(Error::Child(
                "the container's first process speaks another language".into(),
            ));
        }
    }
    hooks::run(&made.spec.hooks.poststart, "poststart", &made.state, "running")
}

pub(super) fn start(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let (place, state) = known(global, rest)?;
    let id = &state.id;
    match state.status(&place) {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::State(format!("cannot start a container that has stopped: {id}")));
        }
        Status::Running => {
            return Err(Error::State(format!("cannot start an already running container: {id}")));
        }
        Status::Paused => return Err(Error::State(format!("cannot start a paused container: {id}"))),
    }
    let what = || format!("start container {id}");
    let open = |name: &str, flags| rustix::fs::open(place.0.join(name), flags | OFlags::CLOEXEC, Mode::empty());
    let result = open("result", OFlags::RDONLY | OFlags::NONBLOCK).step(what)?;
    let say = open("start", OFlags::WRONLY | OFlags::NONBLOCK).step(what)?;
    // Who removes it is the one who starts it.
    std::fs::remove_file(place.0.join("start")).step(what)?;
    rustix::io::write(&say, b"R").step(what)?;
    rustix::io::ioctl_fionbio(&result, false).step(what)?;
    let answer = control::receive(&result).step(what)?;
    std::fs::remove_file(place.0.join("result")).step(what)?;
    if let Some(Message::Failed(text)) = answer {
        return Err(Error::Child(text));
    }
    let hooks = place.config()?.hooks.poststart;
    hooks::run(&hooks, "poststart", &state, "running")?;
    Ok(0)
}

pub(super) fn kill(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let options = Options::parse(rest, &[("all", "a", false)], false)?;
    options.at_most(2)?;
    let id = options.id()?;
    let signal = match options.words.get(1) {
        Some(text) => biga_model::parse_signal(text).map_err(Error::Usage)?,
        None => SIGTERM,
    };
    let (_, state) = find(global, id)?;
    let what = || format!("send signal {signal} to container {id}");
    let all = options.has("all");
    match state.process() {
        Some(process) if !all => {
            signal_pidfd(&process, signal).step(what)?;
            // Nobody else ends what has no process ids of its own.
            if signal == SIGKILL && !state.own_pids {
                everyone(&state, signal)?;
            }
        }
        // What is left of a container may outlive its first process.
        _ if all => everyone(&state, signal)?,
        _ => return Err(Error::State(format!("container not running: {id} is stopped"))),
    }
    if signal == SIGKILL && state.group().is_frozen() {
        // A frozen process dies only when thawed.
        state.group().thaw()?;
    }
    Ok(0)
}

/// Sends a signal to all processes of a container.
fn everyone(state: &State, signal: i32) -> Result<(), Error> {
    let pids = state
        .group()
        .all_pids()
        .step(|| "list the container's processes".into())?;
    for pid in pids {
        // One that ended meanwhile is no failure.
        let _ = biga_sys::process::signal_pid(pid, signal);
    }
    Ok(())
}

pub(super) fn delete(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let options = Options::parse(rest, &[("force", "f", false)], false)?;
    options.at_most(1)?;
    let id = options.id()?;
    let force = options.has("force");
    let (place, state) = match find(global, id) {
        Ok(found) => found,
        Err(Error::NotFound(_)) if force => {
            leftovers(global, id)?;
            return Ok(0);
        }
        Err(e) => return Err(e),
    };
    match state.status(&place) {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.word()
            )));
        }
    }
    destroy(global, &place, &state)?;
    Ok(0)
}

/// A directory without a state is what a killed `create` left.
fn leftovers(global: &Global, id: &str) -> Result<(), Error> {
    let place = Place::of(&global.root, id)?;
    if place.0.is_dir() { place.remove() } else { Ok(()) }
}

/// Ends what still runs, removes the control group, runs the last hooks, and gives the name back.
pub(super) fn destroy(global: &Global, place: &Place, state: &State) -> Result<(), Error> {
    if let Some(process) = state.process() {
        let what = || format!("end container {}", state.id);
        signal_pidfd(&process, SIGKILL).step(what)?;
        if state.group().is_frozen() {
            state.group().thaw()?;
        }
        until_ended(state, &process).step(what)?;
    }
    limits::remove(&state.group())?;
    // Who stays with a container deletes it too when it ends: who takes the state away does the rest.
    let taken = place.config().map(|c| c.hooks.poststop);
    let hooks = match (std::fs::remove_file(place.0.join("state.json")), taken) {
        (Err(e), _) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        (Err(e), _) => return Err(e).step(|| format!("remove the state of container {}", state.id)),
        (Ok(()), hooks) => hooks?,
    };
    for hook in hooks.chunks(1) {
        // The specification: a failure is said, and the others run nevertheless.
        if let Err(e) = hooks::run(hook, "poststop", state, "stopped") {
            log::warning(global, &e.to_string());
        }
    }
    place.remove()
}

/// Waits for the end of a killed process: of one that is somebody else's child, too.
fn until_ended(state: &State, process: &impl AsFd) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
    while state.process().is_some() {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its first process is stuck in the kernel",
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

pub(super) fn freeze(global: &Global, rest: Vec<String>, frozen: bool) -> Result<i32, Error> {
    let options = Options::parse(rest, &[], false)?;
    options.at_most(1)?;
    let id = options.id()?;
    let (_, state, status) = living(global, id)?;
    match (frozen, status) {
        (true, Status::Running | Status::Created) => state.group().freeze()?,
        (false, Status::Paused) => state.group().thaw()?,
        (true, _) => {
            return Err(Error::State(format!(
                "container {id} is not running: {}",
                status.word()
            )));
        }
        (false, _) => return Err(Error::State(format!("container {id} is not paused: {}", status.word()))),
    }
    Ok(0)
}
