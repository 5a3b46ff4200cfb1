//! The loop, and what each request does.

mod pod;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use biga_wire::checkpoint::CheckpointSpec;
use biga_wire::config::{self, ShimConfig};
use biga_wire::files::FileWork;
use biga_wire::shim::{ErrorCode, ExecSpec, Reply, Request, State};
use biga_wire::workload::{Fault, MAIN, StreamId, Workload, container_index};
use biga_wire::{Frame, FrameKind};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::client::{Client, Role};
use crate::core::Core;
use crate::files::write_whole;
use crate::pod::Pod;
use crate::poll::{Happened, Source, Timer};

/// How long a client may take to read what is queued for it when the shim is told to go.
const LAST_WORDS: Duration = Duration::from_secs(30);

const SIGKILL: i32 = 9;
/// Connections at once.
const MAX_CLIENTS: usize = 1024;
/// Tries to undo what is left before the shim leaves anyway; a sweep finds the rest.
const LEAVE_TRIES: u32 = 3;

/// A shim that runs.
pub struct Server {
    core: Core,
    workload: Box<dyn Workload>,
    listener: OwnedFd,
    config: ShimConfig,
    next_client: u32,
    /// Standard output still waits for the first reply.
    reporting: bool,
    leave_tries: u32,
    done: bool,
}

impl Server {
    /// Prepares this process and listens.
    pub fn new(config: ShimConfig, workload: Box<dyn Workload>) -> Result<Server, Fault> {
        prepare_process(&config)?;
        let listener = listen(&config.run_dir)?;
        let mut core = Core::new(&config).map_err(|e| Fault::failed(format!("cannot wait for events: {e}")))?;
        core.poll
            .watch(listener.as_fd(), Source::Listener, biga_wire::workload::Interest::READ)
            .map_err(|e| Fault::failed(format!("cannot wait for connections: {e}")))?;
        let pid = std::process::id().to_string();
        write_whole(&config.run_dir.join("shim.pid"), pid.as_bytes()).map_err(|e| {
            Fault::failed(format!(
                "cannot write {}: {e}",
                config.run_dir.join("shim.pid").display()
            ))
        })?;
        Ok(Server {
            core,
            workload,
            listener,
            config,
            next_client: 0,
            reporting: true,
            leave_tries: 0,
            done: false,
        })
    }

    /// Makes the instance, starts it if wanted, and serves until it was deleted.
    pub fn run(mut self) -> Result<(), Fault> {
        let result = self.workload.create(&mut self.core).and_then(|()| self.serve());
        if let Err(fault) = result {
            // The first fault is the telling one.
            let _ = self.workload.delete(&mut self.core).and(self.remove_rest());
            return Err(fault);
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Fault> {
        if self.config.wait_attach_ms > 0 {
            self.core
                .poll
                .timer(Timer::Hold, Some(Duration::from_millis(self.config.wait_attach_ms)));
        }
        if self.config.start {
            self.start();
        } else {
            self.core.status.state = State::Created;
            self.report();
        }
        let mut happened = Vec::new();
        while !self.done {
            self.settle();
            if self.reporting
                && let Some(result) = self.core.start_result.take()
            {
                result?;
                self.report();
            }
            if self.done {
                break;
            }
            self.core
                .poll
                .wait(&mut happened)
                .map_err(|e| Fault::failed(format!("cannot wait for events: {e}")))?;
            for h in &happened {
                self.handle(*h);
            }
        }
        Ok(())
    }

    /// Tells whoever started the shim how it went, and lets go of the inherited streams.
    fn report(&mut self) {
        self.reporting = false;
        let reply = Reply::Status {
            status: self.core.status.clone(),
        };
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        // A starter that went away meanwhile finds the shim by its socket.
        let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
        if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            for number in 0..3 {
                // Both are open, so this cannot fail.
                let _ = biga_sys::fd::place(null.as_fd(), number);
            }
        }
    }

    fn start(&mut self) {
        if self.is_pod() {
            return self.pod_up();
        }
        if let Err(fault) = self.workload.start(&mut self.core) {
            use biga_wire::workload::Host;
            self.core.started(MAIN, Err(fault));
        }
    }

    fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Ready {
                source: Source::Listener,
                ..
            } => self.accept(),
            Happened::Ready {
                source: Source::Client(n),
                ready,
                gone,
            } => {
                if ready.write {
                    self.core.flush(n);
                }
                if ready.read {
                    self.receive(n, gone);
                }
            }
            Happened::Ready {
                source: Source::Workload(token),
                ready,
                ..
            } => {
                self.workload.ready(token, ready, &mut self.core);
            }
            Happened::Timer(Timer::Workload(token)) => self.workload.timer(token, &mut self.core),
            Happened::Timer(Timer::Grace) => self.kill(),
            Happened::Timer(Timer::GraceOf(stream)) => self.kill_of(stream),
            Happened::Timer(Timer::Log) => self.core.flush_logs(),
            Happened::Timer(Timer::Hold) => self.core.end_hold(),
            Happened::Timer(Timer::Linger) => self.leave(),
        }
        self.settle();
    }

    /// Passes on what the workload's or the clients' last steps made possible.
    fn settle(&mut self) {
        loop {
            if let Some(stream) = self.core.output_ready.pop_first() {
                self.workload.output_room(stream, &mut self.core);
            } else if let Some(stream) = self.core.input_ready.pop_first() {
                self.resume_input(stream);
            } else {
                return;
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(fd) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            if self.core.clients.len() >= MAX_CLIENTS {
                continue;
            }
            self.next_client = self.next_client.wrapping_add(1);
            let mut client = Client::new(self.next_client, fd);
            client.arm(&mut self.core.poll);
            self.core.clients.insert(self.next_client, client);
            self.core.consider_leaving();
        }
    }

    fn receive(&mut self, number: u32, gone: bool) {
        loop {
            let Some(c) = self.core.clients.get_mut(&number) else {
                return;
            };
            let before = c.decoder.pending();
            if !c.is_finished() && c.stalled.is_none() && !c.receive() {
                self.drop_client(number);
                return;
            }
            let more = c.decoder.pending() > before;
            self.frames(number);
            // Whatever a closed connection still holds is read to its end first.
            if !gone || !more {
                break;
            }
        }
        let Some(c) = self.core.clients.get_mut(&number) else {
            return;
        };
        if gone {
            self.drop_client(number);
            return;
        }
        if c.is_finished() && c.stalled.is_none() {
            if let Role::Stream {
                stream,
                stdin: true,
                exec: true,
            } = c.role
            {
                self.workload.close_input(stream, &mut self.core);
            }
            // A half-closed connection still gets its answer.
            self.core.flush(number);
        }
    }

    /// Handles whole frames until the process takes no more input.
    fn frames(&mut self, number: u32) {
        loop {
            let Some(c) = self.core.clients.get_mut(&number) else {
                return;
            };
            if c.stalled.is_some() || c.is_closing() {
                break;
            }
            match c.decoder.next_frame() {
                Ok(Some(frame)) => self.frame(number, frame),
                Ok(None) => break,
                Err(e) => {
                    self.refuse(number, ErrorCode::Invalid, e.to_string());
                    break;
                }
            }
        }
        if let Some(c) = self.core.clients.get_mut(&number) {
            c.arm(&mut self.core.poll);
        }
    }

    /// Answers with an error and closes.
    fn refuse(&mut self, number: u32, code: ErrorCode, message: String) {
        if let Some(c) = self.core.clients.get_mut(&number) {
            c.push(&Frame::json(FrameKind::Reply, &Reply::Error { code, message }));
            c.close_after_flush();
        }
        self.core.flush(number);
    }

    fn frame(&mut self, number: u32, frame: Frame) {
        let Some(c) = self.core.clients.get_mut(&number) else {
            return;
        };
        match (c.role, frame.kind) {
            (Role::Asking, FrameKind::Request) => match frame.parse::<Request>() {
                Ok(request) => self.request(number, request),
                Err(e) => self.refuse(number, ErrorCode::Invalid, format!("the request is malformed: {e}")),
            },
            (Role::Stream { stream, stdin, exec }, kind) => match kind {
                FrameKind::Stdin if stdin => self.input(number, stream, frame.payload),
                FrameKind::StdinEof if stdin => self.end_input(stream, exec),
                FrameKind::Resize => {
                    if let Some((rows, cols)) = frame.window() {
                        self.workload.resize(stream, rows, cols, &mut self.core);
                    }
                }
                FrameKind::Signal => {
                    if let Some(signal) = frame.number() {
                        // The process may have ended: its exit is on the way then.
                        let _ = self.workload.signal(stream, signal as i32, &mut self.core);
                    }
                }
                // Input that does not count, and frames that only shims send.
                _ => {}
            },
            (Role::Watching | Role::Starting | Role::Saving, _) => {}
            (Role::Asking, kind) => {
                self.refuse(number, ErrorCode::Invalid, format!("expected a request, not {kind:?}"));
            }
        }
    }

    fn input(&mut self, number: u32, stream: StreamId, mut bytes: Vec<u8>) {
        let taken = self.workload.input(stream, &bytes, &mut self.core);
        if taken < bytes.len()
            && let Some(c) = self.core.clients.get_mut(&number)
        {
            bytes.drain(..taken);
            c.stalled = Some(bytes);
        }
    }

    /// Offers again what a process did not take.
    fn resume_input(&mut self, wanted: StreamId) {
        let waits =
            |c: &Client| matches!(c.role, Role::Stream { stream, .. } if stream == wanted) && c.stalled.is_some();
        let numbers: Vec<u32> = self
            .core
            .clients
            .iter()
            .filter(|(_, c)| waits(c))
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            let Some(bytes) = self.core.clients.get_mut(&number).and_then(|c| c.stalled.take()) else {
                continue;
            };
            self.input(number, wanted, bytes);
            self.frames(number);
            let finished = self
                .core
                .clients
                .get(&number)
                .is_some_and(|c| c.is_finished() && c.stalled.is_none());
            if finished {
                self.receive(number, false);
            }
        }
    }

    /// A client said that its input is over. Another client may still have some for the entrypoint, unless it was to end with the first.
    fn end_input(&mut self, stream: StreamId, exec: bool) {
        if exec || stream == MAIN || container_index(stream).is_some() {
            self.workload.close_input(stream, &mut self.core);
        }
    }

    /// A client went away: input of its exec ends, and that of the entrypoint if it was to end with its first client.
    fn drop_client(&mut self, number: u32) {
        let Some(client) = self.core.remove(number) else { return };
        if let Role::Stream {
            stream,
            stdin: true,
            exec,
        } = client.role
            && (exec || self.stdin_once(stream))
        {
            self.workload.close_input(stream, &mut self.core);
        }
    }

    /// Whether the input of this stream's entrypoint ends with its first client.
    fn stdin_once(&self, stream: StreamId) -> bool {
        match &self.config.workload {
            config::Workload::Container(c) => stream == MAIN && c.process.stdin_once,
            config::Workload::Microvm(m) => stream == MAIN && m.process.stdin_once,
            config::Workload::Pod(p) => container_index(stream)
                .and_then(|i| p.containers.get(i))
                .is_some_and(|c| c.container.process.stdin_once),
            config::Workload::Machine(_) => false,
        }
    }

    /// The entrypoint that is meant where no container is named.
    fn main_stream(&self) -> StreamId {
        self.core.pod.as_ref().and_then(Pod::main).unwrap_or(MAIN)
    }

    fn request(&mut self, number: u32, request: Request) {
        let answer = match request {
            Request::Status => Ok(Some(self.status())),
            Request::Start => self.request_start(number),
            Request::Signal { signal } => self.running().and_then(|()| self.signal(signal)),
            Request::Stop { signal, grace_ms } => self.stop(signal, grace_ms),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::Update { limits } => self.workload.update(&limits, &mut self.core).map(|()| Some(Reply::Ok)),
            Request::Stats => self.stats(),
            Request::Exec { exec } => self.exec(number, &exec),
            Request::Files { work } => self.files(number, &work),
            Request::Checkpoint { checkpoint } => self.checkpoint(number, &checkpoint),
            Request::Of { container, request } => self.request_of(number, &container, *request),
            Request::Finish { exit } => self.finish(exit),
            Request::Attach { stdin } => self.attach(number, self.main_stream(), stdin),
            Request::Console => match self.workload.console() {
                Some(stream) => self.attach(number, stream, true),
                None => Err(Fault::unsupported("a container has no console: attach to it")),
            },
            Request::Watch => {
                if let Some(c) = self.core.clients.get_mut(&number) {
                    c.role = Role::Watching;
                }
                // What was before; all that comes after is told.
                Ok(Some(self.status()))
            }
            Request::Pids => self
                .workload
                .pids(&mut self.core)
                .map(|pids| Some(Reply::Pids { pids })),
            Request::Delete => self.delete(number),
        };
        match answer {
            Ok(Some(reply)) => self.core.reply(number, &reply),
            Ok(None) => {}
            Err(f) => self.core.reply(
                number,
                &Reply::Error {
                    code: f.code,
                    message: f.message,
                },
            ),
        }
    }

    fn status(&self) -> Reply {
        Reply::Status {
            status: self.core.status.clone(),
        }
    }

    /// Fails unless something runs, frozen or not.
    fn running(&self) -> Result<(), Fault> {
        match self.core.status.state {
            State::Running | State::Paused => Ok(()),
            State::Created => Err(Fault::state(format!("{} was not started", self.config.name))),
            State::Exited => Err(Fault::state(format!("{} ended already", self.config.name))),
        }
    }

    fn request_start(&mut self, number: u32) -> Result<Option<Reply>, Fault> {
        if self.core.status.state != State::Created {
            return Err(Fault::state(format!("{} was started already", self.config.name)));
        }
        let starting = self.core.clients.values().any(|c| c.role == Role::Starting);
        if let Some(c) = self.core.clients.get_mut(&number) {
            c.role = Role::Starting;
        }
        if !starting {
            self.start();
        }
        Ok(None)
    }

    fn signal(&mut self, signal: i32) -> Result<Option<Reply>, Fault> {
        let stream = self.main_stream();
        self.workload.signal(stream, signal, &mut self.core)?;
        // A frozen process dies only when thawed. Until it is dead it is told as paused all the same: whoever wants it so
        // would freeze it again before it gets to die.
        if signal == SIGKILL && self.core.status.state == State::Paused {
            self.workload.resume(&mut self.core)?;
        }
        Ok(Some(Reply::Ok))
    }

    fn thaw(&mut self) -> Result<(), Fault> {
        if self.core.status.state == State::Paused {
            self.workload.resume(&mut self.core)?;
            self.core.set_state(State::Running);
        }
        Ok(())
    }

    fn stop(&mut self, signal: i32, grace_ms: u64) -> Result<Option<Reply>, Fault> {
        if self.core.status.state == State::Exited {
            return Ok(Some(Reply::Ok));
        }
        self.running()?;
        let first = if grace_ms == 0 { SIGKILL } else { signal };
        self.signal_whole(first)?;
        self.thaw()?;
        self.core
            .poll
            .timer(Timer::Grace, (grace_ms > 0).then(|| Duration::from_millis(grace_ms)));
        Ok(Some(Reply::Ok))
    }

    /// Sends a signal to the main process, or those of all containers.
    fn signal_whole(&mut self, signal: i32) -> Result<(), Fault> {
        match self.is_pod() {
            true => self.signal_all(signal),
            false => self.signal(signal).map(drop),
        }
    }

    fn kill(&mut self) {
        if self.running().is_ok() && self.signal_whole(SIGKILL).is_err() {
            // Refused only in passing (QEMU busy): again.
            self.core.poll.timer(Timer::Grace, Some(Duration::from_secs(1)));
        }
    }

    fn pause(&mut self) -> Result<Option<Reply>, Fault> {
        if self.core.status.state != State::Running {
            return Err(Fault::state(format!("{} does not run", self.config.name)));
        }
        self.workload.pause(&mut self.core)?;
        self.core.set_state(State::Paused);
        Ok(Some(Reply::Ok))
    }

    fn resume(&mut self) -> Result<Option<Reply>, Fault> {
        if self.core.status.state != State::Paused {
            return Err(Fault::state(format!("{} is not paused", self.config.name)));
        }
        self.thaw()?;
        Ok(Some(Reply::Ok))
    }

    /// Answered when the checkpoint is whole, or cannot be had.
    fn checkpoint(&mut self, number: u32, spec: &CheckpointSpec) -> Result<Option<Reply>, Fault> {
        match self.core.status.state {
            State::Running => {}
            State::Paused => return Err(Fault::state(format!("{} is paused: resume it first", self.config.name))),
            _ => self.running()?,
        }
        self.workload.checkpoint(spec, &mut self.core)?;
        if let Some(c) = self.core.clients.get_mut(&number) {
            c.role = Role::Saving;
        }
        Ok(None)
    }

    fn stats(&mut self) -> Result<Option<Reply>, Fault> {
        Ok(Some(pod::stats_reply(self.workload.stats(&mut self.core)?)))
    }

    fn exec(&mut self, number: u32, spec: &ExecSpec) -> Result<Option<Reply>, Fault> {
        let main = self.core.pod.as_ref().and_then(Pod::main);
        self.exec_of(number, main, spec)
    }

    /// Runs another process: in a container of a pod, or in the instance.
    fn exec_of(&mut self, number: u32, container: Option<StreamId>, spec: &ExecSpec) -> Result<Option<Reply>, Fault> {
        self.takes_more()?;
        if let Some(container) = container {
            self.container_runs(container)?;
        }
        let stream = self.new_stream(number, spec.stdin)?;
        let begun = match (container, self.workload.containers()) {
            (Some(container), Some(pod)) => pod.exec(container, stream, spec, &mut self.core),
            _ => self.workload.exec(stream, spec, &mut self.core),
        };
        if let Err(fault) = begun {
            use biga_wire::workload::Host;
            self.core.started(stream, Err(fault));
        }
        Ok(None)
    }

    /// Works on files inside.
    fn files(&mut self, number: u32, work: &FileWork) -> Result<Option<Reply>, Fault> {
        self.takes_more()?;
        let stream = self.new_stream(number, true)?;
        if let Err(fault) = self.workload.files(stream, work, &mut self.core) {
            use biga_wire::workload::Host;
            self.core.started(stream, Err(fault));
        }
        Ok(None)
    }

    /// Fails unless another process can be started in it now.
    fn takes_more(&self) -> Result<(), Fault> {
        match self.core.status.state {
            State::Running => Ok(()),
            State::Paused => Err(Fault::state(format!("{} is paused: resume it first", self.config.name))),
            _ => self.running(),
        }
    }

    /// A client's connection becomes that of another process.
    fn new_stream(&mut self, number: u32, stdin: bool) -> Result<StreamId, Fault> {
        let stream = self
            .core
            .new_exec()
            .ok_or_else(|| Fault::failed("too many processes were started in it at once"))?;
        if let Some(c) = self.core.clients.get_mut(&number) {
            c.role = Role::Stream {
                stream,
                stdin,
                exec: true,
            };
        }
        Ok(stream)
    }

    fn attach(&mut self, number: u32, stream: StreamId, stdin: bool) -> Result<Option<Reply>, Fault> {
        if self.core.container(stream).is_some_and(|c| c.state == State::Created) {
            self.container_runs(stream)?;
        }
        self.core.attach(number, stream, stdin);
        Ok(None)
    }

    fn delete(&mut self, number: u32) -> Result<Option<Reply>, Fault> {
        self.workload.delete(&mut self.core)?;
        self.remove_rest()?;
        self.done = true;
        self.core.reply(number, &Reply::Ok);
        self.last_words();
        Ok(None)
    }

    /// Lets clients have what is queued for them, for a moment.
    fn last_words(&mut self) {
        let mut happened = Vec::new();
        let deadline = std::time::Instant::now() + LAST_WORDS;
        while self.core.clients.values().any(|c| c.backlog() > 0) && std::time::Instant::now() < deadline {
            self.core.poll.timer(Timer::Linger, Some(Duration::from_millis(100)));
            if self.core.poll.wait(&mut happened).is_err() {
                return;
            }
            let numbers: Vec<u32> = self.core.clients.keys().copied().collect();
            numbers.into_iter().for_each(|n| self.core.flush(n));
        }
    }

    /// Nobody came after the end: everything is given back, and what happened stands in `exit.json`.
    fn leave(&mut self) {
        self.leave_tries += 1;
        let undone = self.workload.delete(&mut self.core).and(self.remove_rest());
        if undone.is_ok() || self.leave_tries >= LEAVE_TRIES {
            self.done = true;
        } else {
            self.core.consider_leaving();
        }
    }

    fn remove_rest(&mut self) -> Result<(), Fault> {
        self.core
            .remove_group()
            .map_err(|e| Fault::failed(format!("cannot remove the control group: {e}")))?;
        for name in ["shim.sock", "shim.pid"] {
            let path = self.config.run_dir.join(name);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Fault::failed(format!("cannot remove {}: {e}", path.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A session of its own, deaf to the terminal's signals, unreadable for others.
fn prepare_process(config: &ShimConfig) -> Result<(), Fault> {
    let failed = |e: io::Error| Fault::failed(format!("cannot prepare the shim's process: {e}"));
    // It was executed by the number of a descriptor, which says nothing to people who look at the processes.
    let _ = rustix::thread::set_name(c"biga-shim");
    // A shim started as a session's leader is one already.
    let _ = rustix::process::setsid();
    for signal in [1, 2, 3, 13, 15] {
        biga_sys::signal::ignore(signal).map_err(failed)?;
    }
    biga_sys::process::set_undumpable().map_err(failed)?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    std::env::set_current_dir(&config.run_dir).map_err(failed)
}

/// Listens in the run directory, where this process is: a relative name is never too long.
fn listen(run_dir: &Path) -> Result<OwnedFd, Fault> {
    const NAME: &str = "shim.sock";
    let failed =
        |e: rustix::io::Errno| Fault::failed(format!("cannot listen on {}: {e}", run_dir.join(NAME).display()));
    // Left by a shim that was killed; two shims of one instance are prevented by the agent.
    let _ = std::fs::remove_file(NAME);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    let address = SocketAddrUnix::new(NAME).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, 128).map_err(failed)?;
    // The run directory may be unmounted or moved later.
    rustix::process::chdir("/").map_err(failed)?;
    Ok(socket)
}
