//! A container as its shim holds it.

mod answered;
mod checkpoint;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use biga_sys::process::{self, Child, Ended, Fork, Namespaces};
use biga_wire::checkpoint::CheckpointSpec;
use biga_wire::config::{Container, Limits, ShimConfig};
use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Stats};
use biga_wire::workload::{Fault, Host, Interest, MAIN, StreamId, Workload};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use serde_json::Value;

use self::checkpoint::Saving;
use crate::caps::{self, Caps};
use crate::cgroup::Group;
use crate::control::{self, Message};
use crate::error::{Context, Error};
use crate::labels::Labels;
use crate::oom::{Notice, OOM};
use crate::pod::Joined;
use crate::seccomp::{self, Filter, Listener};
use crate::setup::{self, First, Further, Program, Streams};
use crate::stream::{self, Ends, Stream};
use crate::userns::{self, Owner};
use crate::{confine, devices, mounts, namespaces};

/// Token of CRIU's end, while it saves; the one above is the out-of-memory notice's.
const SAVING: u32 = u32::MAX - 1;
/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;
/// A container.
#[derive(Debug)]
pub struct ContainerWorkload {
    config: ShimConfig,
    container: Container,
    caps: Caps,
    host_caps: Caps,
    filter: Option<Filter>,
    group: Option<Group>,
    /// Made, and waiting for start.
    pending: Option<Pending>,
    streams: BTreeMap<StreamId, Stream>,
    oom: Notice,
    /// Its part in what its pod shares.
    pod: Option<Joined>,
    /// CRIU, while it saves the processes.
    saving: Option<Saving>,
    /// It was saved, and CRIU ends it.
    checkpointed: bool,
}

/// A child that did not execute its program yet.
#[derive(Debug)]
struct Pending {
    child: Child,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    pipes: Option<Ends>,
    /// It was said which process goes on inside.
    born: bool,
    /// That will be said, and until then the child is one before it.
    bears: bool,
    /// A listener of which it spoke before that was said.
    early: Option<i32>,
    /// Who gets the listener of its system call filter, and what is said of its container then.
    listening: Option<(Listener, Value)>,
    /// Longer is not listened to it. What runs inside can stop a process that enters, and this process must not wait for ever.
    until: Option<Instant>,
}

impl ContainerWorkload {
    /// Checks what can be checked without doing anything. `container` is what `config.workload` holds.
    pub fn new(config: ShimConfig, container: Container) -> Result<ContainerWorkload, Error> {
        let host_caps = caps::available()?;
        let caps = if container.privileged {
            host_caps
        } else {
            Caps::parse(container.capabilities.iter().map(String::as_str))?.and(host_caps)
        };
        for name in container.sysctls.keys() {
            if !setup::own_sysctl(name, &container) {
                return Err(Error::Sysctl(name.clone()));
            }
        }
        let filter = filter(&container, caps)?;
        if container.process.init && filter.as_ref().is_some_and(|f| f.listener.is_some()) {
            // The init is under the filter, too, and there is one listener.
            let why = "SCMP_ACT_NOTIFY cannot be together with an init of Biga's (--init)";
            return Err(Error::Field("the seccomp profile", why.into()));
        }
        Ok(ContainerWorkload {
            config,
            container,
            caps,
            host_caps,
            filter,
            group: None,
            pending: None,
            streams: BTreeMap::new(),
            oom: Notice::default(),
            pod: None,
            saving: None,
            checkpointed: false,
        })
    }

    /// As [`ContainerWorkload::new`], for a container of a pod.
    pub(crate) fn in_pod(config: ShimConfig, container: Container, pod: Joined) -> Result<ContainerWorkload, Error> {
        let mut new = ContainerWorkload::new(config, container)?;
        new.pod = Some(pod);
        Ok(new)
    }

    fn program(&self) -> Result<Program, Error> {
        let p = &self.container.process;
        let limits = p
            .rlimits
            .iter()
            .map(|(name, (soft, hard))| Ok((confine::resource(name)?, *soft, *hard)));
        Ok(Program {
            args: p.args.clone(),
            env: p.env.clone(),
            cwd: p.cwd.clone(),
            user: p.user.clone(),
            groups: p.additional_groups.clone(),
            caps: self.caps,
            filter: self.filter.clone(),
            labels: Labels::on_this_host(self.container.apparmor.as_deref(), self.container.selinux.as_deref()),
            no_new_privileges: self.container.no_new_privileges,
            oom_score_adj: self.config.limits.oom_score_adj,
            rlimits: limits.collect::<Result<_, Error>>()?,
            umask: p.umask.unwrap_or(0o022),
            tty: p.tty,
            window: None,
        })
    }

    fn exec_program(&self, spec: &ExecSpec) -> Result<Program, Error> {
        let mut program = self.program()?;
        program.args.clone_from(&spec.args);
        for variable in &spec.env {
            let name = variable.split('=').next().unwrap_or_default();
            program.env.retain(|v| v.split('=').next() != Some(name));
            program.env.push(variable.clone());
        }
        if let Some(cwd) = &spec.cwd {
            program.cwd.clone_from(cwd);
        }
        if let Some(user) = &spec.user {
            program.user.clone_from(user);
        }
        program.tty = spec.tty;
        program.window = spec.window;
        if spec.privileged {
            program.caps = self.host_caps;
            program.filter = None;
        }
        Ok(program)
    }

    fn make(&mut self) -> Result<(), Error> {
        let program = self.program()?;
        let rules = devices::rules(&self.container)?;
        mounts::write_own_files(&self.container, &self.config.run_dir)?;
        let owner = userns::owner(&self.container)?;
        let ids = self.container.namespaces.user;
        let manager = self.container.system.then(|| ids.map_or(0, |ids| ids.base));
        let group = Group::create_for(&self.config.cgroup, &self.config.limits, rules.as_deref(), manager)?;
        if self.container.restore.is_some() {
            // What is made besides is the start's matter.
            self.group = Some(group);
            return Ok(());
        }
        let pending = self.fork_first(&group, program, owner);
        self.group = Some(group);
        let mut pending = pending?;
        if !self.config.start {
            pending.wait_ready()?;
        }
        self.pending = Some(pending);
        Ok(())
    }

    fn fork_first(&mut self, group: &Group, program: Program, owner: Option<Owner>) -> Result<Pending, Error> {
        let (streams, pipes) = streams(program.tty, self.container.process.stdin)?;
        let (ours, theirs) = control::pair()?;
        let joined = self.pod.as_ref().is_some_and(Joined::shares_process_ids);
        if !joined && !namespaces::appears_late(&self.container) {
            // Of who has these process ids nothing is known: it will see this process while it is on its way.
            namespaces::share_process_ids(&self.container)?;
        }
        // With ids of its own, the process that is born here is only on the way to the container.
        let flags = match &owner {
            None => namespaces::at_birth(&self.container),
            Some(_) => Namespaces::MOUNT,
        };
        let directory = group.directory();
        let late = match &self.pod {
            Some(_) => joined,
            None => namespaces::appears_late(&self.container),
        };
        let bears = late || owner.is_some();
        let first = First {
            program,
            container: &self.container,
            run_dir: &self.config.run_dir,
            state_dir: &self.config.state_dir,
            entrances: self.entrances(group, directory.is_some()),
            blocks: mounts::blocks(&self.container)?,
            owner,
            start: self.config.start,
            pod: self.pod.as_ref(),
        };
        match process::fork(flags, directory.as_ref().map(AsFd::as_fd))
            .step(|| "make the container's first process".into())?
        {
            Fork::Child => setup::run_first(first, streams.as_ref(), &theirs),
            Fork::Parent(child) => Ok(Pending {
                child,
                socket: ours,
                terminal: None,
                pipes,
                born: false,
                bears,
                early: None,
                listening: self.listening("creating"),
                // Nobody is inside yet; filling volumes may take its time.
                until: None,
            }),
        }
    }

    fn launch(&mut self, host: &mut dyn Host) -> Result<u32, Error> {
        let mut stream = match (self.pending.take(), self.container.restore.take()) {
            (Some(pending), _) => pending.finish(MAIN, !self.config.start, host)?,
            (None, Some(from)) => self.go_on(&from, host)?,
            (None, None) => return Err(Error::Field("the state", "the container was started before".into())),
        };
        if self.container.system {
            stream.keep_terminal().step(|| "keep the container's console".into())?;
        }
        let pid = stream.child.pid;
        self.streams.insert(MAIN, stream);
        if let Some(group) = &self.group {
            self.oom.begin(group, host)?;
        }
        Ok(pid)
    }

    fn spawn(&mut self, id: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<u32, Error> {
        let program = self.exec_program(spec)?;
        let (streams, pipes) = streams(program.tty, spec.stdin)?;
        let (ours, theirs) = control::pair()?;
        let (Some(main), Some(group)) = (self.streams.get(&MAIN), self.group.as_ref()) else {
            return Err(Error::Field("the state", "the container does not run".into()));
        };
        let init = main.child.pidfd.as_fd();
        // The container must not see the one that enters it.
        namespaces::keep_process_ids(&self.container)?;
        let directory = match self.container.system {
            // An init system moved itself into a group below, and the one above takes no processes any more.
            true => group.directory_with(main.child.pid),
            false => group.directory(),
        };
        let entrances = self.entrances(group, directory.is_some());
        let further = Further {
            program,
            container: &self.container,
            entrances,
            init,
        };
        let forked = process::fork(Namespaces::NONE, directory.as_ref().map(AsFd::as_fd));
        let child = match forked.step(|| "make a process that enters the container".into())? {
            Fork::Child => setup::run_exec(&further, streams.as_ref(), &theirs),
            Fork::Parent(child) => child,
        };
        drop(theirs);
        let pending = Pending {
            child,
            socket: ours,
            terminal: None,
            pipes,
            born: false,
            bears: true,
            early: None,
            listening: match spec.privileged {
                true => None,
                false => self.listening("running"),
            },
            until: Some(Instant::now() + PATIENCE),
        };
        let stream = pending.finish(id, false, host)?;
        let pid = stream.child.pid;
        self.streams.insert(id, stream);
        Ok(pid)
    }

    fn entrances(&self, group: &Group, forked_into: bool) -> Vec<PathBuf> {
        if forked_into {
            return Vec::new();
        }
        let own = group.entrances();
        let above = self.pod.iter().flat_map(|p| &p.entrances);
        // Where the container has a group of its own, that is below the pod's.
        let alone = above.filter(|(controller, _)| !group.has(controller));
        alone.map(|(_, path)| path.clone()).chain(own).collect()
    }

    fn group(&mut self) -> Result<&mut Group, Fault> {
        self.group
            .as_mut()
            .ok_or_else(|| Fault::state("the container was deleted"))
    }

    /// The process of a stream ended.
    fn ended(&mut self, id: StreamId, host: &mut dyn Host) {
        let Some(mut exit) = self.streams.get_mut(&id).and_then(|s| s.ended(host)) else {
            return;
        };
        self.streams.remove(&id);
        if id == MAIN {
            if !self.container.namespaces.pid.is_own()
                && let Some(group) = &self.group
            {
                // Nothing else ends what it left: its namespace of process ids goes on.
                group.kill();
            }
            exit.oom = self.group.as_ref().is_some_and(|g| g.oom_kills() > 0);
            self.oom.end(host);
            exit.checkpointed = self.checkpointed;
            let Some(rest) = self.keep_end(exit) else { return };
            exit = rest;
        }
        host.exited(id, exit);
    }

    /// Kills every process and waits for the end of each.
    fn kill_all(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.oom.end(host);
        self.abandon_saving(host);
        let what = || "kill the container's processes".into();
        let pending: Vec<Child> = self.pending.take().map(|p| p.child).into_iter().collect();
        // Execs come before the first process: that one ends only after all others were reaped.
        let streams: Vec<(StreamId, Stream)> = std::mem::take(&mut self.streams).into_iter().rev().collect();
        let children = || pending.iter().chain(streams.iter().map(|(_, s)| &s.child));
        children().try_for_each(|c| c.signal(SIGKILL)).step(what)?;
        if let Some(group) = &self.group
            && children().next().is_some()
        {
            // A frozen process dies only when thawed. If it cannot be, the wait below says so.
            let _ = group.thaw();
            if !self.container.namespaces.pid.is_own() {
                group.kill();
            }
        }
        pending.iter().try_for_each(|c| end_of(c).map(drop)).step(what)?;
        for (id, mut stream) in streams {
            let ended = end_of(&stream.child).step(what)?;
            stream.drain(host);
            host.exited(
                id,
                Exit {
                    code: ended.code(),
                    signal: ended.signal(),
                    ..Exit::default()
                },
            );
        }
        Ok(())
    }
}

/// Whether there is something to receive within this time.
pub(crate) fn hears(socket: &OwnedFd, within: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: within.as_secs() as i64,
        tv_nsec: i64::from(within.subsec_nanos()),
    };
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

/// Waits for the end of a killed child.
pub(crate) fn end_of(child: &Child) -> io::Result<Ended> {
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
    child
        .wait(false)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "a process is stuck in the kernel"))
}

/// The system call filter of a container, if it has one.
fn filter(container: &Container, caps: Caps) -> Result<Option<Filter>, Error> {
    match &container.seccomp_profile {
        _ if !container.seccomp || container.privileged => Ok(None),
        Some(profile) => seccomp::profile::compile(profile, caps).map(Some),
        None => Ok(Some(seccomp::default_filter(caps))),
    }
}

/// Makes the pipes of a process without a terminal: its ends, and the shim's.
pub(crate) fn streams(tty: bool, stdin: bool) -> Result<(Option<Streams>, Option<Ends>), Error> {
    if tty {
        return Ok((None, None));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step(|| "make a pipe".into());
    let (stdout_ours, stdout) = pipe()?;
    let (stderr_ours, stderr) = pipe()?;
    let (input, stdin) = if stdin {
        let (theirs, ours) = pipe()?;
        (Some(ours), theirs)
    } else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        (None, null.step(|| "open /dev/null".into())?)
    };
    let ends = Ends::Pipes {
        input,
        stdout: stdout_ours,
        stderr: stderr_ours,
    };
    Ok((Some([stdin, stdout, stderr]), Some(ends)))
}

impl Pending {
    /// The child's next word. Its silent end is an error.
    fn next(&mut self) -> Result<Option<Message>, Error> {
        let what = || "hear from the container's process".into();
        let mut failed = None;
        loop {
            self.wait_for_word().step(what)?;
            match control::receive(&self.socket).step(what)? {
                Some((Message::Terminal, fd)) => self.terminal = fd,
                Some((Message::Born(pid), Some(pidfd))) if !self.born => {
                    self.born = true;
                    let before = std::mem::replace(&mut self.child, Child { pid, pidfd });
                    // It ended after it said so.
                    end_of(&before).step(what)?;
                    self.early.take().map_or(Ok(()), |number| self.hand_over(number))?;
                }
                // The number is one of the process that goes on, of which nothing was heard yet.
                Some((Message::Listener(number), _)) if self.bears && !self.born => self.early = Some(number),
                Some((Message::Listener(number), _)) => self.hand_over(number)?,
                // The process may speak before the one that made it says which it is, and it must be reaped.
                Some((Message::Failed(code, message), _)) => failed = Some(Error::Child { code, message }),
                Some((message, _)) => return Ok(Some(message)),
                None => return failed.map_or(Ok(None), Err),
            }
        }
    }

    fn wait_for_word(&self) -> io::Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        match hears(&self.socket, until.saturating_duration_since(Instant::now()))? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it was stopped or held up from inside the container",
            )),
        }
    }

    /// Ends what was born just before its maker was killed, and was not told of yet.
    fn end_unheard(&mut self) {
        while !self.born && matches!(hears(&self.socket, Duration::ZERO), Ok(true)) {
            match control::receive(&self.socket) {
                Ok(Some((Message::Born(pid), Some(pidfd)))) => {
                    self.born = true;
                    let child = Child { pid, pidfd };
                    // It is of no use, and its end is all that is left to wait for.
                    let _ = child.signal(SIGKILL);
                    let _ = end_of(&child);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn wait_ready(&mut self) -> Result<(), Error> {
        let result = match self.next() {
            Ok(Some(Message::Ready)) => return Ok(()),
            Ok(_) => None,
            Err(e) => Some(e),
        };
        Err(self.failed(result))
    }

    /// Reaps the failed child. Without a word of its own, how it ended has to do.
    fn failed(&mut self, error: Option<Error>) -> Error {
        // Already ending, or of no use any more.
        let _ = self.child.signal(SIGKILL);
        let ended = end_of(&self.child);
        self.end_unheard();
        match (error, ended) {
            (Some(e), _) => e,
            (None, Ok(ended)) => Error::Died(ended.code()),
            (None, Err(source)) => Error::Step {
                what: "wait for the container's process".into(),
                source,
            },
        }
    }

    /// Lets the child go on if it waits (`tell`), until it executed its program.
    fn finish(mut self, id: StreamId, tell: bool, host: &mut dyn Host) -> Result<Stream, Error> {
        match self.run(tell) {
            Ok(()) => {}
            Err(e) => return Err(self.failed(e)),
        }
        let what = || "watch the process's streams".into();
        let ends = match (self.terminal.take(), self.pipes.take()) {
            (Some(master), _) => Ends::Terminal(master),
            (None, Some(pipes)) => pipes,
            (None, None) => return Err(self.failed(None)),
        };
        set_nonblocking(&ends).step(what)?;
        Stream::new(id, self.child, ends, host).step(what)
    }

    fn run(&mut self, tell: bool) -> Result<(), Option<Error>> {
        if tell {
            let sent = control::send(&self.socket, &Message::Ready, None);
            sent.step(|| "tell the container's process to run".into())
                .map_err(Some)?;
        }
        match self.next().map_err(Some)? {
            Some(Message::Running) => {}
            _ => return Err(None),
        }
        // Exec closes the socket; a failing exec says why.
        match self.next().map_err(Some)? {
            None => Ok(()),
            Some(_) => Err(None),
        }
    }
}

pub(crate) fn set_nonblocking(ends: &Ends) -> io::Result<()> {
    let set = |fd: &OwnedFd| rustix::io::ioctl_fionbio(fd, true);
    match ends {
        Ends::Pipes { input, stdout, stderr } => {
            input.as_ref().map_or(Ok(()), set)?;
            set(stdout)?;
            set(stderr)?;
        }
        Ends::Terminal(master) => set(master)?,
    }
    Ok(())
}

impl Workload for ContainerWorkload {
    fn create(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.make().map_err(|e| {
            // The first error is the telling one.
            let _ = self.delete(host);
            e.into()
        })
    }

    fn start(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        let pid = self.launch(host)?;
        host.started(MAIN, Ok(pid));
        Ok(())
    }

    fn exec(&mut self, stream: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<(), Fault> {
        let pid = self.spawn(stream, spec, host)?;
        host.started(stream, Ok(pid));
        Ok(())
    }

    fn signal(&mut self, stream: StreamId, signal: i32, _host: &mut dyn Host) -> Result<(), Fault> {
        let Some(s) = self.streams.get(&stream) else {
            return Err(Fault::state("the process ended already"));
        };
        s.child.signal(signal).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => Fault::new(ErrorCode::Invalid, format!("there is no signal {signal}")),
            _ => Fault::failed(format!("cannot send signal {signal}: {e}")),
        })
    }

    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize {
        self.streams
            .get_mut(&stream)
            .map_or(bytes.len(), |s| s.input(bytes, host))
    }

    fn close_input(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.close_input(host);
        }
    }

    fn resize(&mut self, stream: StreamId, rows: u16, cols: u16, _host: &mut dyn Host) {
        match (self.streams.get(&stream), &self.pending) {
            (Some(s), _) => s.resize(rows, cols),
            (None, Some(Pending { terminal: Some(t), .. })) if stream == MAIN => {
                // The child may be gone; starting it will tell.
                let _ = setup::resize(t, rows, cols);
            }
            _ => {}
        }
    }

    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.output_room(host);
        }
    }

    fn console(&self) -> Option<StreamId> {
        None
    }

    fn pause(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.group()?.freeze()?)
    }

    fn resume(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.group()?.thaw()?)
    }

    fn update(&mut self, limits: &Limits, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.group()?.update(limits)?)
    }

    fn checkpoint(&mut self, spec: &CheckpointSpec, host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.save(spec, host)?)
    }

    fn stats(&mut self, _host: &mut dyn Host) -> Result<Stats, Fault> {
        let host_network = self.container.host_network;
        let pid = self.streams.get(&MAIN).map(|s| s.child.pid);
        let mut stats = self.group()?.stats();
        if let (Some(pid), false) = (pid, host_network) {
            let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
            (stats.net_rx, stats.net_tx) = traffic(&text);
        }
        Ok(stats)
    }

    fn pids(&mut self, _host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        self.group()?
            .pids()
            .map_err(|e| Fault::failed(format!("cannot list the container's processes: {e}")))
    }

    fn ready(&mut self, token: u32, ready: Interest, host: &mut dyn Host) {
        if token == OOM {
            return self.oom.ready(self.group.as_ref(), host);
        }
        if token == SAVING {
            return self.saving_ended(host);
        }
        let (id, part) = stream::split(token);
        let ended = self.streams.get_mut(&id).is_some_and(|s| s.ready(part, ready, host));
        if ended {
            self.ended(id, host);
        }
    }

    fn timer(&mut self, token: u32, host: &mut dyn Host) {
        if token == OOM {
            self.oom.timer(self.group.as_ref(), host);
        }
    }

    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.kill_all(host)?;
        if let Some(group) = &self.group {
            group.remove().map_err(|e| Fault::failed(e.to_string()))?;
            self.group = None;
        }
        Ok(())
    }
}

/// Bytes received and sent over all interfaces but the loopback, of `/proc/PID/net/dev`.
pub(crate) fn traffic(text: &str) -> (u64, u64) {
    let line = |l: &str| {
        let (name, rest) = l.split_once(':')?;
        let figures: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        (name.trim() != "lo").then_some((*figures.first()?, *figures.get(8)?))
    };
    text.lines()
        .filter_map(line)
        .fold((0, 0), |(rx, tx), (r, t)| (rx + r, tx + t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_leaves_the_loopback_out() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (100, 70));
    }
    /// A process that enters, and is stopped before it says anything; `born` before that says who goes on in its place.
    fn silent(born: bool) -> Pending {
        let (ours, theirs) = control::pair().unwrap();
        // Not a fork: the test's process has threads.
        let child = || {
            let pid = std::process::Command::new("sleep").arg("1000").spawn().unwrap().id();
            let known = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            let pidfd = rustix::process::pidfd_open(known, rustix::process::PidfdFlags::empty()).unwrap();
            Child { pid, pidfd }
        };
        let first = child();
        if born {
            let next = child();
            control::send(&theirs, &Message::Born(next.pid), Some(next.pidfd.as_fd())).unwrap();
            first.signal(SIGKILL).unwrap();
        }
        // Open until it is ended, as a stopped process would keep it.
        std::mem::forget(theirs);
        Pending {
            child: first,
            socket: ours,
            terminal: None,
            pipes: None,
            born: false,
            bears: true,
            early: None,
            listening: None,
            until: Some(Instant::now() + Duration::from_millis(200)),
        }
    }

    fn no_child_is_left() {
        let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert!(matches!(left, Err(rustix::io::Errno::CHILD)), "{left:?}");
    }

    #[test]
    fn one_that_is_held_up_inside_is_ended() {
        for born in [false, true] {
            let mut pending = silent(born);
            let Err(Some(error)) = pending.run(false) else {
                panic!("it was waited for in vain");
            };
            let error = pending.failed(Some(error)).to_string();
            assert!(error.contains("hear from"), "{error}");
            assert_eq!(pending.born, born);
            no_child_is_left();
        }
    }

    #[test]
    fn what_was_not_heard_of_is_ended_too() {
        let mut pending = silent(true);
        let error = pending.failed(None);
        assert!(matches!(error, Error::Died(_)), "{error}");
        no_child_is_left();
    }
}
