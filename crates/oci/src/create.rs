//! Making a container: the runtime's side. Each thing made is undone when a later step fails.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use biga_container::cgroup::{Group, Version};
use biga_sys::process::{self, Child, Fork, exit_now};
use biga_sys::{namespace, signal};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::args::Global;
use crate::child::{self, First};
use crate::confine::{self, Confinement};
use crate::control::{self, Message};
use crate::error::{Error, Step};
use crate::namespaces::{Kind, Wanted};
use crate::spec::linux::Namespace;
use crate::spec::{Process, Spec};
use crate::state::{Place, State, read_spec, start_time};
use crate::{attend, console, hooks, ids, limits, log, seccomp, validate};

/// What `create` and `run` are told.
#[derive(Debug)]
pub struct Request<'a> {
    /// Options before the verb.
    pub global: &'a Global,
    /// Its name.
    pub id: &'a str,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// Where to send the master of its terminal.
    pub console_socket: Option<PathBuf>,
    /// Where to write the id of its first process.
    pub pid_file: Option<PathBuf>,
    /// Not to use `pivot_root`.
    pub no_pivot: bool,
    /// Not to make a session keyring.
    pub no_keyring: bool,
    /// How many descriptors from 3 on to pass on.
    pub preserve: RawFd,
    /// Wait for `start` in a file, for another process to start it; told by this one otherwise.
    pub gate: bool,
}

/// A container whose first process waits.
#[derive(Debug)]
pub struct Made {
    /// Its directory.
    pub place: Place,
    /// What is known of it.
    pub state: State,
    /// Its configuration.
    pub spec: Spec,
    /// Its first process.
    pub child: Child,
    /// To speak to it.
    pub socket: OwnedFd,
    /// The master of its terminal, if nobody else got it.
    pub terminal: Option<OwnedFd>,
}

/// Undoes what was made so far.
pub(crate) struct Undo<'a> {
    place: &'a Place,
    pub(crate) group: Option<Group>,
    pub(crate) child: Option<Child>,
    armed: bool,
}

impl<'a> Undo<'a> {
    /// Nothing but the name was taken.
    pub(crate) fn new(place: &'a Place) -> Undo<'a> {
        Undo {
            place,
            group: None,
            child: None,
            armed: true,
        }
    }

    /// All went well; gives the child.
    pub(crate) fn disarm(mut self) -> Option<Child> {
        self.armed = false;
        self.child.take()
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // What made it fail is more telling than what tidying up says.
        if let Some(child) = &self.child {
            let _ = child.signal(SIGKILL);
            let _ = child.wait(true);
        }
        if let Some(group) = &self.group {
            let _ = limits::remove(group);
        }
        let _ = self.place.remove();
    }
}

const SIGKILL: i32 = 9;
/// Longest list of passed descriptors.
const MAX_PRESERVE: RawFd = 1000;

/// Makes a container up to the point where its program could run.
pub fn make(request: &Request<'_>) -> Result<Made, Error> {
    let place = Place::of(&request.global.root, request.id)?;
    if request.global.systemd {
        return Err(Error::Usage(
            "control groups by systemd are not supported: leave --systemd-cgroup out (podman: --cgroup-manager=cgroupfs, \
             containerd: SystemdCgroup = false)"
                .into(),
        ));
    }
    let (spec, text) = read_spec(&request.bundle.join("config.json"))?;
    let wanted = Wanted::read(&spec.linux.namespaces)?;
    validate::spec(&spec, &wanted)?;
    let mut process = spec.process.clone().unwrap_or_default();
    terminal_matches(&process, request)?;
    if process.terminal && request.console_socket.is_none() {
        process.console_size = process.console_size.or_else(attend::size);
    }
    let mut warnings = Vec::new();
    let filter = seccomp::filter(spec.linux.seccomp.as_ref())?;
    let listener = filter.as_ref().and_then(|f| f.listener.clone());
    let mut confinement = confine::read(&process, validate::personality(&spec.linux)?, filter, &mut warnings)?;
    if !request.no_keyring {
        confinement.own_keyring(request.id);
    }
    for warning in warnings {
        log::warning(request.global, &warning);
    }
    let console = request.console_socket.as_deref().map(console::connect).transpose()?;

    place.make(request.id)?;
    let mut undo = Undo::new(&place);
    let cgroup = limits::path(request.id, &spec.linux.cgroups_path)?;
    let state = state(request.id, &request.bundle, &spec, &wanted, cgroup)?;
    undo.group = Some(limits::create(&state.cgroup, spec.linux.resources.as_ref())?);
    let group = undo.group.as_ref().ok_or_else(|| Error::NotFound(request.id.into()))?;
    if let Some(owner) = owner_of_groups(&spec, &wanted, &process) {
        group.hand_over(owner)?;
    }
    let gate = request.gate.then(|| gate(&place)).transpose()?;
    let (socket, theirs) = control::pair()?;
    let first = First {
        spec: &spec,
        process: &process,
        wanted: &wanted,
        group,
        entrances: group.entrances(),
        joined: false,
        state: state.clone(),
        preserve: preserve(request)?,
        no_pivot: request.no_pivot,
        gate,
    };
    let forked = fork(first, confinement, theirs);
    return_home(&wanted)?;
    let child = forked?;
    undo.child = Some(child);
    let child = undo.child.as_ref().ok_or_else(|| Error::NotFound(request.id.into()))?;
    let mut state = state;
    state.pid = child.pid;
    let given = Given { console, listener };
    let terminal = accompany(&spec, child, &state, &socket, &given)?;
    state.start_time = start_time(child.pid).ok_or_else(|| died(child))?;
    place.save(&state, &text)?;
    if let Some(path) = &request.pid_file {
        write_pid(path, child.pid)?;
    }
    let child = undo.disarm().ok_or_else(|| Error::NotFound(request.id.into()))?;
    Ok(Made {
        place,
        state,
        spec,
        child,
        socket,
        terminal,
    })
}

fn terminal_matches(process: &Process, request: &Request<'_>) -> Result<(), Error> {
    let wants = request.console_socket.is_some();
    if wants && !process.terminal {
        return Err(Error::Usage(
            "--console-socket is given, and process.terminal is not set".into(),
        ));
    }
    if process.terminal && !wants && request.gate {
        return Err(Error::Usage(
            "process.terminal is set: give --console-socket, where its master is to be sent".into(),
        ));
    }
    Ok(())
}

fn preserve(request: &Request<'_>) -> Result<RawFd, Error> {
    let passed: RawFd = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let count = request.preserve.saturating_add(passed.max(0));
    if (0..=MAX_PRESERVE).contains(&count) {
        Ok(count)
    } else {
        Err(Error::Usage(format!("--preserve-fds takes 0 to {MAX_PRESERVE}")))
    }
}

pub(crate) fn state(id: &str, bundle: &Path, spec: &Spec, wanted: &Wanted, cgroup: String) -> Result<State, Error> {
    let path = spec.root.as_ref().map(|r| r.path.as_str()).unwrap_or_default();
    let rootfs = bundle.join(path);
    let what = || format!("find the root file system {}", rootfs.display());
    let stat = rustix::fs::statat(CWD, &rootfs, rustix::fs::AtFlags::empty()).step(what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Error::invalid(
            "root.path",
            format!("{} is no directory", rootfs.display()),
        ));
    }
    Ok(State {
        oci_version: spec.oci_version.clone(),
        id: id.to_owned(),
        pid: 0,
        start_time: 0,
        bundle: bundle.to_owned(),
        rootfs,
        created: log::rfc3339(SystemTime::now()),
        annotations: spec.annotations.clone(),
        cgroup,
        own_pids: wanted.is_new(Kind::Pid),
    })
}

/// Two fifos in the container's directory: one says start, the other how that went. The process holds both ends of each.
fn gate(place: &Place) -> Result<(OwnedFd, OwnedFd), Error> {
    let open = |name: &str| {
        let path = place.0.join(name);
        let what = || format!("make {}", path.display());
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).step(what)?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(what)
    };
    Ok((open("start")?, open("result")?))
}

/// Namespaces that come with the fork.
const BY_FORK: [Kind; 6] = [Kind::User, Kind::Pid, Kind::Network, Kind::Mount, Kind::Ipc, Kind::Uts];

/// Children of this process, hooks for one, are born into its own namespaces again.
fn return_home(wanted: &Wanted) -> Result<(), Error> {
    for (kind, name, _) in Kind::ALL {
        let left = match kind {
            Kind::Pid => wanted.joined(kind).is_some(),
            Kind::Time => wanted.has(kind),
            _ => false,
        };
        if left {
            let entry = [Namespace {
                kind: name.into(),
                path: format!("/proc/self/ns/{name}"),
            }];
            Wanted::read(&entry)?.joined.iter().try_for_each(|j| j.enter())?;
        }
    }
    Ok(())
}

fn fork(mut first: First<'_>, confinement: Confinement, theirs: OwnedFd) -> Result<Child, Error> {
    let wanted = first.wanted;
    let what = || "make the container's first process".into();
    // Until its program runs nobody inside may look at the process: it holds the host's files.
    process::set_undumpable().step(|| "hide this process".into())?;
    clocks(first.spec, wanted)?;
    for kind in [Kind::Pid, Kind::Time] {
        if let Some(joined) = wanted.joined(kind) {
            // Its children, not this process.
            joined.enter()?;
        }
    }
    let user = wanted.has(Kind::User);
    let sources = if user {
        Some(child::sources(first.spec, &first.state, true)?)
    } else {
        None
    };
    let now = |k: Kind| !matches!(k, Kind::User | Kind::Pid | Kind::Time);
    let joins = wanted.joined.iter().any(|j| now(j.kind));
    if wanted.joined(Kind::User).is_some() || (user && joins) {
        return fork_twice(first, confinement, sources, theirs);
    }
    let directory = (first.group.version() == Version::V2)
        .then(|| first.group.directory())
        .flatten();
    if directory.is_some() {
        first.entrances.clear();
    }
    match process::fork(wanted.bits(&BY_FORK), directory.as_ref().map(AsFd::as_fd)).step(what)? {
        Fork::Child => child::run(first, confinement, sources, theirs),
        Fork::Parent(child) => Ok(child),
    }
}

/// Namespaces of others must be joined with the host's rights, and before those that are new: by a process in between.
fn fork_twice(
    mut first: First<'_>,
    confinement: Confinement,
    sources: Option<child::Sources<'_>>,
    theirs: OwnedFd,
) -> Result<Child, Error> {
    let what = || "make the container's first process".into();
    // Not the other one: on that the first process may speak earlier than the one in between.
    let (hear, say) = control::pair()?;
    let between = match process::fork(process::Namespaces::NONE, None).step(what)? {
        Fork::Parent(child) => child,
        Fork::Child => {
            signal::reset_all();
            let forked = child::enter_groups(&first.entrances)
                .and_then(|()| child::join(first.wanted))
                .and_then(|()| process::fork_sibling(first.wanted.bits(&BY_FORK)).step(what));
            match forked {
                Ok(Fork::Child) => {
                    first.entrances.clear();
                    first.joined = true;
                    child::run(first, confinement, sources, theirs)
                }
                Ok(Fork::Parent(child)) => {
                    // With the runtime gone there is nobody to tell.
                    let _ = control::send(&say, &Message::Pid(child.pid), Some(child.pidfd.as_fd()));
                    exit_now(0)
                }
                Err(e) => {
                    let _ = control::send(&say, &Message::Failed(e.to_string()), None);
                    exit_now(child::FAILED)
                }
            }
        }
    };
    drop((theirs, say));
    let message = control::receive_with(&hear).step(what)?;
    between.wait(true).step(what)?;
    match message {
        Some((Message::Pid(pid), Some(pidfd))) => Ok(Child {
            pid: host_pid(&pidfd).unwrap_or(pid),
            pidfd,
        }),
        Some((Message::Failed(text), _)) => Err(Error::Child(text)),
        _ => Err(died(&between)),
    }
}

/// The id of a process as this one sees it.
pub(crate) fn host_pid(pidfd: &OwnedFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    text.lines().find_map(|l| l.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// A new namespace of clocks, with its offsets: they are set before anybody is in it.
fn clocks(spec: &Spec, wanted: &Wanted) -> Result<(), Error> {
    if !wanted.is_new(Kind::Time) {
        return Ok(());
    }
    namespace::unshare(Kind::Time.bit()).step(|| "make a time namespace".into())?;
    let line = |(clock, o): (&String, &crate::spec::linux::TimeOffset)| format!("{clock} {} {}\n", o.secs, o.nanosecs);
    let text: String = spec.linux.time_offsets.iter().map(line).collect();
    if text.is_empty() {
        return Ok(());
    }
    std::fs::write("/proc/self/timens_offsets", text).step(|| "set the offsets of clocks".into())
}

/// Who gets what the process gives away.
struct Given {
    /// The master of its terminal.
    console: Option<UnixStream>,
    /// The listener of its filter.
    listener: Option<seccomp::Listener>,
}

/// Hands the listener of a process's filter over, with the container's state.
pub(crate) fn hand_over(
    listener: &seccomp::Listener,
    child: &Child,
    number: i32,
    (state, status): (&State, &str),
) -> Result<(), Error> {
    Ok(listener.hand_over(child, number, &state.oci_version, &state.document(status))?)
}

/// Answers the process until it is ready; gives the master of its terminal if nobody else got it.
fn accompany(
    spec: &Spec,
    child: &Child,
    state: &State,
    socket: &OwnedFd,
    given: &Given,
) -> Result<Option<OwnedFd>, Error> {
    let what = || "speak to the container's first process".into();
    let mut terminal = None;
    loop {
        let Some((message, with)) = control::receive_with(socket).step(what)? else {
            return Err(died(child));
        };
        match (message, with) {
            (Message::Ids, _) => {
                ids::write(child.pid, &spec.linux.uid_mappings, &spec.linux.gid_mappings)?;
                control::send(socket, &Message::Ids, None).step(what)?;
            }
            (Message::Terminal, Some(master)) => match &given.console {
                Some(to) => console::send(to, &master)?,
                None => terminal = Some(master),
            },
            (Message::Mounted, _) => {
                hooks::run(&spec.hooks.prestart, "prestart", state, "creating")?;
                hooks::run(&spec.hooks.create_runtime, "createRuntime", state, "creating")?;
                control::send(socket, &Message::Pid(child.pid), None).step(what)?;
            }
            (Message::Listener(number), _) => {
                let listener = given.listener.as_ref().ok_or_else(|| died(child))?;
                hand_over(listener, child, number, (state, "creating"))?;
                control::send(socket, &Message::Listener(0), None).step(what)?;
            }
            (Message::Ready, _) => return Ok(terminal),
            (Message::Failed(text), _) => return Err(Error::Child(text)),
            _ => return Err(died(child)),
        }
    }
}

/// The host's id of who manages groups below the container's own: its user, where it sees that group as the root and may write. Of
/// control groups of version 2 only, as the specification has it; see "Cgroup ownership" there.
fn owner_of_groups(spec: &Spec, wanted: &Wanted, process: &Process) -> Option<u32> {
    let writable = spec
        .mounts
        .iter()
        .filter(|m| matches!(m.kind.as_str(), "cgroup" | "cgroup2"))
        .any(|m| !m.options.iter().any(|o| o == "ro"));
    let own = writable && wanted.is_new(Kind::Cgroup);
    own.then(|| ids::outside(&spec.linux.uid_mappings, process.user.uid))?
}

pub(crate) fn died(child: &Child) -> Error {
    let how = match child.wait(false) {
        Ok(Some(ended)) => format!("code {}", ended.code()),
        _ => "it closed its socket".into(),
    };
    Error::Died(how)
}

/// Writes an id so that no reader sees half of it.
pub fn write_pid(path: &Path, pid: u32) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, pid.to_string()).step(what)?;
    std::fs::rename(&new, path).step(what)
}
