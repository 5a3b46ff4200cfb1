//! Clients, streams, timers and the state of the instance: what a workload speaks to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use biga_container::cgroup::Group;
use biga_wire::config::{Limits, ShimConfig};
use biga_wire::shim::{Event, Exit, Reply, State, Stats, Status};
use biga_wire::workload::{
    FIRST_CONTAINER, FIRST_EXEC, Fault, Host, Interest, MAIN, Output, StreamId, container_index,
};
use biga_wire::{Frame, FrameKind};

use crate::client::{Client, LIMIT, Role};
use crate::files::{now_ns, write_whole};
use crate::log::Log;
use crate::pod::{Pod, failed_start};
use crate::poll::{Poll, Source, Timer};

/// How long the shim stays after the end when nobody is connected.
const LINGER: Duration = Duration::from_secs(4);

/// Output kept for the first client.
#[derive(Debug)]
struct Hold {
    frames: Vec<(FrameKind, Vec<u8>)>,
    /// The end of a short run, kept with its output: told before, it would make the agent clear the instance away.
    exit: Option<Exit>,
}

/// All of a shim but its workload.
#[derive(Debug)]
pub struct Core {
    /// Descriptors and timers.
    pub poll: Poll,
    /// Connections by number.
    pub clients: BTreeMap<u32, Client>,
    /// State of the instance.
    pub status: Status,
    /// Result of starting the entrypoint, until somebody takes it.
    pub start_result: Option<Result<(), Fault>>,
    /// Streams whose process takes input again.
    pub input_ready: BTreeSet<StreamId>,
    /// Streams that got room for output.
    pub output_ready: BTreeSet<StreamId>,
    /// Of a pod: its containers.
    pub pod: Option<Pod>,
    /// Execs that run, and those that are being started.
    execs: BTreeSet<StreamId>,
    next_exec: StreamId,
    log: Log,
    hold: Option<Hold>,
    run_dir: PathBuf,
    /// Where what slow clients have not read may lie: beside the log, on disk.
    spill_dir: Option<std::sync::Arc<std::path::Path>>,
    group: Option<Group>,
    group_path: String,
    limits: Limits,
}

impl Core {
    /// An instance that was not made yet.
    pub fn new(config: &ShimConfig) -> io::Result<Core> {
        let (pod, containers) = Pod::new(config).map_or((None, Vec::new()), |(p, c)| (Some(p), c));
        Ok(Core {
            poll: Poll::new()?,
            clients: BTreeMap::new(),
            status: Status {
                containers,
                ..Status::default()
            },
            pod,
            start_result: None,
            input_ready: BTreeSet::new(),
            output_ready: BTreeSet::new(),
            execs: BTreeSet::new(),
            next_exec: FIRST_EXEC,
            log: Log::new(&config.log),
            hold: (config.wait_attach_ms > 0).then(|| Hold {
                frames: Vec::new(),
                exit: None,
            }),
            run_dir: config.run_dir.clone(),
            spill_dir: config
                .log
                .path
                .as_deref()
                .and_then(std::path::Path::parent)
                .map(Into::into),
            group: None,
            group_path: config.cgroup.clone(),
            limits: config.limits.clone(),
        })
    }

    /// Sends a reply to a client.
    pub fn reply(&mut self, number: u32, reply: &Reply) {
        self.send(number, &Frame::json(FrameKind::Reply, reply));
    }

    /// Sends a frame to a client.
    pub fn send(&mut self, number: u32, frame: &Frame) {
        if let Some(c) = self.clients.get_mut(&number) {
            c.push(frame);
            self.flush(number);
        }
    }

    /// Sends what can be sent, and removes a client whose connection is over.
    pub fn flush(&mut self, number: u32) {
        let Some(c) = self.clients.get_mut(&number) else { return };
        let full = c.room() == 0;
        if !c.flush() {
            self.remove(number);
            return;
        }
        c.arm(&mut self.poll);
        if let Role::Stream { stream, .. } = c.role
            && full
            && c.room() > 0
        {
            self.output_ready.insert(stream);
        }
    }

    /// Forgets a client. A process that was held back for it may go on.
    pub fn remove(&mut self, number: u32) -> Option<Client> {
        let client = self.clients.remove(&number)?;
        client.disarm(&mut self.poll);
        if let Role::Stream { stream, .. } = client.role {
            self.output_ready.insert(stream);
        }
        self.consider_leaving();
        Some(client)
    }

    /// After the end, the shim leaves some time after its last client did.
    pub fn consider_leaving(&mut self) {
        let idle = self.clients.is_empty() && self.status.state == State::Exited && self.hold.is_none();
        self.poll.timer(Timer::Linger, idle.then_some(LINGER));
    }

    /// A free number for an exec.
    pub fn new_exec(&mut self) -> Option<StreamId> {
        for _ in 0..StreamId::MAX {
            let id = self.next_exec;
            self.next_exec = match id + 1 {
                FIRST_CONTAINER => FIRST_EXEC,
                next => next,
            };
            if self.execs.insert(id) {
                return Some(id);
            }
        }
        None
    }

    /// Shows a stream to a client from now on. The first client of the entrypoint gets what was held for it.
    pub fn attach(&mut self, number: u32, stream: StreamId, stdin: bool) {
        let Some(c) = self.clients.get_mut(&number) else { return };
        c.role = Role::Stream {
            stream,
            stdin,
            exec: false,
        };
        c.push(&Frame::json(FrameKind::Reply, &Reply::Ok));
        if stream == MAIN
            && let Some(hold) = self.hold.take()
        {
            self.poll.timer(Timer::Hold, None);
            for (kind, bytes) in hold.frames {
                c.push_output(kind, &bytes, None);
            }
            self.output_ready.insert(MAIN);
            if let Some(exit) = hold.exit {
                return self.ended(exit);
            }
        }
        let over = match self
            .status
            .containers
            .get(container_index(stream).unwrap_or(usize::MAX))
        {
            // How it ended before stays in its state while it runs again.
            Some(c) => c.exit.as_ref().filter(|_| c.state == State::Exited),
            None => self.status.exit.as_ref(),
        };
        if let Some(exit) = over.cloned() {
            c.push(&Frame::json(FrameKind::Exit, &exit));
            c.close_after_flush();
        }
        self.flush(number);
    }

    /// Nobody attached in time.
    pub fn end_hold(&mut self) {
        let held = self.hold.take();
        self.output_ready.insert(MAIN);
        match held.and_then(|h| h.exit) {
            Some(exit) => self.ended(exit),
            None => self.consider_leaving(),
        }
    }

    /// Sets the state and tells the watchers.
    pub fn set_state(&mut self, state: State) {
        self.status.state = state;
        let status = self.status.clone();
        self.broadcast(&Event::Status { status });
    }

    fn broadcast(&mut self, event: &Event) {
        let frame = Frame::json(FrameKind::Event, event);
        for number in self.with_role(|r| r == Role::Watching) {
            self.send(number, &frame);
            // One that does not read its events will see by the broken connection that it has to look again.
            if self.clients.get(&number).is_some_and(|c| c.backlog() > LIMIT) {
                self.remove(number);
            }
        }
    }

    fn with_role(&self, wanted: impl Fn(Role) -> bool) -> Vec<u32> {
        self.clients
            .iter()
            .filter(|(_, c)| wanted(c.role))
            .map(|(n, _)| *n)
            .collect()
    }

    fn shows(&self, wanted: StreamId) -> Vec<u32> {
        self.with_role(|r| matches!(r, Role::Stream { stream, .. } if stream == wanted))
    }

    fn main_started(&mut self, result: Result<u32, Fault>) {
        let reply = match result {
            Ok(pid) => {
                self.status.pid = Some(pid);
                self.status.started_ns = Some(now_ns());
                self.start_result = Some(Ok(()));
                self.set_state(State::Running);
                Reply::Status {
                    status: self.status.clone(),
                }
            }
            Err(fault) => {
                self.start_result = Some(Err(fault.clone()));
                self.ended(failed_start(&fault));
                Reply::Error {
                    code: fault.code,
                    message: fault.message,
                }
            }
        };
        for number in self.with_role(|r| r == Role::Starting) {
            if let Some(c) = self.clients.get_mut(&number) {
                c.role = Role::Asking;
            }
            self.reply(number, &reply);
        }
    }

    fn exec_started(&mut self, stream: StreamId, result: Result<u32, Fault>) {
        let failed = result.is_err();
        let reply = match result {
            Ok(pid) => Reply::Exec { pid },
            Err(f) => Reply::Error {
                code: f.code,
                message: f.message,
            },
        };
        for number in self.shows(stream) {
            if let Some(c) = self.clients.get_mut(&number)
                && failed
            {
                // It may ask for something else now.
                c.role = Role::Asking;
            }
            self.reply(number, &reply);
        }
        if failed {
            self.execs.remove(&stream);
        }
    }

    /// The instance ended: written down first, then told.
    pub(crate) fn ended(&mut self, exit: Exit) {
        self.log.finish();
        self.status.exit = Some(exit.clone());
        self.status.pid = None;
        self.poll.timer(Timer::Grace, None);
        // Without the file a client that is connected still hears it; nothing better can be done here.
        let _ = write_whole(
            &self.run_dir.join("exit.json"),
            &serde_json::to_vec(&exit).unwrap_or_default(),
        );
        self.set_state(State::Exited);
        self.end_streams(MAIN, &exit);
        self.consider_leaving();
    }

    pub(crate) fn end_streams(&mut self, stream: StreamId, exit: &Exit) {
        let frame = Frame::json(FrameKind::Exit, exit);
        for number in self.shows(stream) {
            if let Some(c) = self.clients.get_mut(&number) {
                c.push(&frame);
                c.close_after_flush();
            }
            self.flush(number);
        }
    }

    /// Sends lines of logs that wait for their receiver.
    pub fn flush_logs(&mut self) {
        self.log.flush();
        if let Some(pod) = &mut self.pod {
            pod.flush_logs();
        }
        self.arm_logs();
    }

    fn arm_logs(&mut self) {
        let of_pod = self.pod.as_ref().and_then(Pod::logs_wait);
        let wait = self.log.wait().into_iter().chain(of_pod).min();
        self.poll.timer(Timer::Log, wait);
    }

    /// Removes the group made for a machine.
    pub fn remove_group(&mut self) -> io::Result<()> {
        if let Some(group) = &self.group {
            group.kill();
            group.remove()?;
        }
        self.group = None;
        Ok(())
    }
}

impl Host for Core {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.poll.watch(fd, Source::Workload(token), interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.poll.unwatch(fd);
    }

    fn timer(&mut self, token: u32, after: Option<Duration>) {
        self.poll.timer(Timer::Workload(token), after);
    }

    fn started(&mut self, stream: StreamId, result: Result<u32, Fault>) {
        if stream == MAIN {
            self.main_started(result);
        } else if container_index(stream).is_some() {
            self.container_started(stream, result);
        } else {
            self.exec_started(stream, result);
        }
    }

    fn room(&self, stream: StreamId) -> usize {
        if stream == MAIN && self.hold.is_some() {
            return 0;
        }
        let shows = |c: &&Client| matches!(c.role, Role::Stream { stream: s, .. } if s == stream);
        self.clients
            .values()
            .filter(shows)
            .map(Client::room)
            .min()
            .unwrap_or(LIMIT)
    }

    fn output(&mut self, stream: StreamId, output: Output, bytes: &[u8]) {
        let kind = match output {
            Output::Stdout => FrameKind::Stdout,
            Output::Stderr => FrameKind::Stderr,
        };
        if stream == MAIN {
            self.log.add(output, bytes);
            self.arm_logs();
            if let Some(hold) = &mut self.hold {
                hold.frames.push((kind, bytes.to_vec()));
            }
        } else if let Some(pod) = &mut self.pod {
            pod.log(stream, output, bytes);
            self.arm_logs();
        }
        // Who reads an exec's output is alone with it.
        let shared = stream == MAIN || container_index(stream).is_some();
        let dir = self.spill_dir.clone().filter(|_| shared);
        for number in self.shows(stream) {
            if let Some(c) = self.clients.get_mut(&number) {
                c.push_output(kind, bytes, dir.as_deref());
            }
            self.flush(number);
        }
    }

    fn input_room(&mut self, stream: StreamId) {
        self.input_ready.insert(stream);
    }

    fn exited(&mut self, stream: StreamId, mut exit: Exit) {
        if exit.at_ns == 0 {
            exit.at_ns = now_ns();
        }
        if stream == MAIN {
            match &mut self.hold {
                Some(hold) => hold.exit = Some(exit),
                None => self.ended(exit),
            }
        } else if container_index(stream).is_some() {
            self.container_ended(stream, exit);
        } else {
            self.end_streams(stream, &exit);
            self.execs.remove(&stream);
        }
    }

    fn checkpointed(&mut self, result: Result<(), Fault>) {
        let reply = match result {
            Ok(()) => Reply::Ok,
            Err(f) => Reply::Error {
                code: f.code,
                message: f.message,
            },
        };
        for number in self.with_role(|r| r == Role::Saving) {
            if let Some(c) = self.clients.get_mut(&number) {
                c.role = Role::Asking;
            }
            self.reply(number, &reply);
        }
    }

    fn event(&mut self, event: Event) {
        self.broadcast(&event);
    }

    fn accelerator(&mut self, name: &str) {
        name.clone_into(&mut self.status.accelerator);
    }

    fn cgroup_add(&mut self, pid: u32) -> io::Result<()> {
        if self.group.is_none() {
            let limits = Limits {
                memory: None,
                memory_swap: None,
                memory_reservation: None,
                ..self.limits.clone()
            };
            self.group = Some(Group::create(&self.group_path, &limits, None).map_err(io::Error::other)?);
        }
        self.group.as_ref().map_or(Ok(()), |g| g.add(pid))
    }

    fn cgroup_limits(&mut self, limits: &Limits) -> io::Result<()> {
        let limits = Limits {
            memory: None,
            memory_swap: None,
            memory_reservation: None,
            ..limits.clone()
        };
        self.group
            .as_mut()
            .map_or(Ok(()), |g| g.update(&limits))
            .map_err(io::Error::other)
    }

    fn cgroup_stats(&mut self) -> Stats {
        self.group.as_ref().map(Group::stats).unwrap_or_default()
    }
}
