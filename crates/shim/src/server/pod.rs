//! What is asked of a pod: of one of its containers, or of all.

use std::time::Duration;

use biga_wire::shim::{Exit, Reply, Request, State, Stats};
use biga_wire::workload::{Containers, FIRST_CONTAINER, Fault, Host, StreamId};

use super::{SIGKILL, Server};
use crate::core::Core;
use crate::files::now_ns;
use crate::poll::Timer;

impl Server {
    /// Whether it holds a pod.
    pub(super) fn is_pod(&self) -> bool {
        self.core.pod.is_some()
    }

    /// What is shared is made: the pod is up, without a container.
    pub(super) fn pod_up(&mut self) {
        self.core.status.started_ns = Some(now_ns());
        self.core.start_result = Some(Ok(()));
        self.core.set_state(State::Running);
    }

    /// The workload as one of several containers.
    fn pod(&mut self) -> Result<(&mut dyn Containers, &mut Core), Fault> {
        match self.workload.containers() {
            Some(containers) => Ok((containers, &mut self.core)),
            None => Err(Fault::state(format!(
                "{} is one container: name none",
                self.config.name
            ))),
        }
    }

    /// A request about one container.
    pub(super) fn request_of(&mut self, number: u32, name: &str, request: Request) -> Result<Option<Reply>, Fault> {
        self.pod()?;
        let unknown = || Fault::state(format!("{} has no container {name:?}", self.config.name));
        let stream = self.core.container_named(name).ok_or_else(unknown)?;
        match request {
            Request::Start => self.start_of(stream),
            Request::Signal { signal } => {
                self.container_runs(stream)?;
                self.signal_of(stream, signal)?;
                Ok(Some(Reply::Ok))
            }
            Request::Stop { signal, grace_ms } => self.stop_of(stream, signal, grace_ms),
            Request::Exec { exec } => self.exec_of(number, Some(stream), &exec),
            Request::Attach { stdin } => self.attach(number, stream, stdin),
            Request::Stats => {
                self.container_runs(stream)?;
                let (pod, core) = self.pod()?;
                let stats = pod.stats(stream, core)?;
                Ok(Some(stats_reply(stats)))
            }
            Request::Pids => {
                self.container_runs(stream)?;
                let (pod, core) = self.pod()?;
                let pids = pod.pids(stream, core)?;
                Ok(Some(Reply::Pids { pids }))
            }
            Request::Update { limits } => {
                self.container_runs(stream)?;
                let (pod, core) = self.pod()?;
                pod.update(stream, &limits, core)?;
                Ok(Some(Reply::Ok))
            }
            _ => Err(Fault::unsupported("that can be asked only of the whole instance")),
        }
    }

    /// Fails unless the container of this entrypoint runs, frozen or not.
    pub(super) fn container_runs(&self, stream: StreamId) -> Result<(), Fault> {
        self.running()?;
        let Some(c) = self.core.container(stream) else {
            return Err(Fault::state("there is no such container"));
        };
        match c.state {
            State::Running | State::Paused => Ok(()),
            State::Created => Err(Fault::state(format!(
                "container {} of {} was not started yet",
                c.name, self.config.name
            ))),
            State::Exited => Err(Fault::state(format!(
                "container {} of {} does not run: it has ended",
                c.name, self.config.name
            ))),
        }
    }

    fn start_of(&mut self, stream: StreamId) -> Result<Option<Reply>, Fault> {
        match self.core.status.state {
            State::Running => {}
            State::Paused => return Err(Fault::state(format!("{} is paused: resume it first", self.config.name))),
            _ => self.running()?,
        }
        if self.container_runs(stream).is_ok() {
            return Err(Fault::state("the container runs already"));
        }
        let (pod, core) = self.pod()?;
        if let Err(fault) = pod.start(stream, core) {
            self.core.started(stream, Err(fault.clone()));
            return Err(fault);
        }
        Ok(Some(self.status()))
    }

    fn signal_of(&mut self, stream: StreamId, signal: i32) -> Result<(), Fault> {
        self.workload.signal(stream, signal, &mut self.core)?;
        // A frozen process dies only when thawed.
        if signal == SIGKILL { self.thaw() } else { Ok(()) }
    }

    fn stop_of(&mut self, stream: StreamId, signal: i32, grace_ms: u64) -> Result<Option<Reply>, Fault> {
        if self.container_runs(stream).is_err() {
            return Ok(Some(Reply::Ok));
        }
        self.signal_of(stream, if grace_ms == 0 { SIGKILL } else { signal })?;
        self.thaw()?;
        let grace = (grace_ms > 0).then(|| Duration::from_millis(grace_ms));
        self.core.poll.timer(Timer::GraceOf(stream), grace);
        Ok(Some(Reply::Ok))
    }

    /// The grace of a container is over.
    pub(super) fn kill_of(&mut self, stream: StreamId) {
        if self.container_runs(stream).is_ok() && self.signal_of(stream, SIGKILL).is_err() {
            self.core
                .poll
                .timer(Timer::GraceOf(stream), Some(Duration::from_secs(1)));
        }
    }

    /// Sends a signal to every container that runs.
    pub(super) fn signal_all(&mut self, signal: i32) -> Result<(), Fault> {
        let count = self.core.status.containers.len() as StreamId;
        let streams = FIRST_CONTAINER..=FIRST_CONTAINER.saturating_add(count.saturating_sub(1));
        let mut result = Ok(());
        for stream in streams {
            if self.container_runs(stream).is_ok() {
                result = result.and(self.signal_of(stream, signal));
            }
        }
        result
    }

    /// The pod is over: this is how.
    pub(super) fn finish(&mut self, mut exit: Exit) -> Result<Option<Reply>, Fault> {
        self.pod()?;
        if self.core.status.state != State::Exited {
            self.workload.delete(&mut self.core)?;
            if exit.at_ns == 0 {
                exit.at_ns = now_ns();
            }
            self.core.ended(exit);
        }
        Ok(Some(Reply::Ok))
    }
}

pub(super) fn stats_reply(mut stats: Stats) -> Reply {
    if stats.at_ns == 0 {
        stats.at_ns = now_ns();
    }
    Reply::Stats { stats: Box::new(stats) }
}
