//! The containers of an instance that has several: carries out what [`pod::plan`] says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use biga_model::{ContainerStatus, Instance, Object, Phase};
use biga_runtime::Error as RuntimeError;
use biga_wire::shim::{self, Exit, Reply, Request, State, Status};

use super::{Task, grace, now};
use crate::instance::plan::{STABLE_MS, backoff_ms};
use crate::instance::pod::{self, Role, Seen, Step};

/// A sidecar may take at least so long to end, unless all are to be killed at once.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// After a call that failed in passing.
const AGAIN: Duration = Duration::from_secs(1);

/// What the task remembers of the containers of a run.
#[derive(Default)]
pub(super) struct Containers {
    /// As the shim last said.
    seen: Vec<shim::ContainerStatus>,
    memory: BTreeMap<String, Memory>,
    /// Grace of a stop of the whole ends then.
    stop_by: Option<Instant>,
    /// Nothing is tried before.
    not_before: Option<Instant>,
}

#[derive(Default)]
struct Memory {
    /// Restarts in a row.
    in_row: u32,
    ended: Option<Instant>,
    asked: bool,
}

impl Memory {
    /// It ended, or could not be started.
    fn ended(&mut self, ran: Duration) {
        self.asked = false;
        self.ended = Some(Instant::now());
        if ran.as_millis() as u64 >= STABLE_MS {
            self.in_row = 0;
        }
    }

    fn due_ms(&self) -> u64 {
        match self.ended {
            Some(at) => backoff_ms(self.in_row).saturating_sub(at.elapsed().as_millis() as u64),
            None => 0,
        }
    }
}

/// What comes after a look at the containers.
pub(super) enum Next {
    /// Another look at once.
    Look,
    /// Nothing until a change, or until then.
    Wait(Option<Instant>),
}

impl Containers {
    /// Those of a run that begins, or of one that an earlier daemon left.
    pub(super) fn new(status: &Status) -> Containers {
        let mut new = Containers::default();
        for c in &status.containers {
            let memory = new.memory.entry(c.name.clone()).or_default();
            memory.in_row = c.starts.saturating_sub(1);
            memory.ended = (c.state == State::Exited).then(Instant::now);
        }
        new.seen.clone_from(&status.containers);
        new
    }

    /// Takes in what the shim says, where it is no older than what is known.
    pub(super) fn take(&mut self, status: &Status) {
        for (old, new) in self.seen.iter_mut().zip(&status.containers) {
            if !pod::newer(old, new) {
                continue;
            }
            let end = |c: &shim::ContainerStatus| c.exit.as_ref().map(|e| e.at_ns);
            if end(old) != end(new) {
                let ran = match (&new.exit, new.last_started_ns) {
                    (Some(e), Some(started)) => Duration::from_nanos(e.at_ns.saturating_sub(started)),
                    _ => Duration::ZERO,
                };
                self.memory.entry(new.name.clone()).or_default().ended(ran);
            }
            old.clone_from(new);
        }
    }

    fn seen(&self, object: &Object<Instance>) -> Vec<Seen> {
        let roles = pod::roles(&object.spec);
        let of = |(role, c): (Role, &shim::ContainerStatus)| {
            let memory = self.memory.get(&c.name);
            Seen {
                role,
                state: c.state,
                code: c.exit.as_ref().map(|e| e.code),
                starts: c.starts,
                due_ms: memory.map_or(0, Memory::due_ms),
                asked: memory.is_some_and(|m| m.asked),
            }
        };
        roles.into_iter().zip(&self.seen).map(of).collect()
    }

    /// The grace of a stop changed: all are asked anew.
    pub(super) fn stop_within(&mut self, grace: Duration) {
        self.stop_by = Some(Instant::now() + grace);
        self.memory.values_mut().for_each(|m| m.asked = false);
    }
}

impl Task {
    /// Does what is due with the containers; nothing where there is one program.
    pub(super) async fn follow_containers(&mut self, object: &Object<Instance>) -> Next {
        let phase = self.status.phase;
        let Some(containers) = self.held.as_ref().and_then(|h| h.containers.as_ref()) else {
            return Next::Wait(None);
        };
        if !matches!(phase, Phase::Starting | Phase::Running | Phase::Stopping) {
            return Next::Wait(None);
        }
        if let Some(at) = containers.not_before.filter(|at| *at > Instant::now()) {
            return Next::Wait(Some(at));
        }
        let seen = containers.seen(object);
        match pod::plan(&object.spec.restart_policy, phase == Phase::Stopping, &seen) {
            Step::Rest => Next::Wait(None),
            Step::Wait(ms) => Next::Wait(Some(Instant::now() + Duration::from_millis(ms))),
            Step::Start(index) => self.start_container(object, index).await,
            Step::Stop(which) => self.stop_containers(object, &which).await,
            Step::End => self.finish_containers(object).await,
        }
    }

    fn containers(&mut self) -> Option<&mut Containers> {
        self.held.as_mut()?.containers.as_mut()
    }

    fn container_name(&mut self, index: usize) -> Option<String> {
        Some(self.containers()?.seen.get(index)?.name.clone())
    }

    async fn start_container(&mut self, object: &Object<Instance>, index: usize) -> Next {
        let (Some(name), Some(held)) = (self.container_name(index), &self.held) else {
            return Next::Wait(None);
        };
        let runtime = held.runtime.clone();
        let again = self.containers().is_some_and(|c| c.seen[index].starts > 0);
        let result = match self.host.fresh_root(&self.uid, &name).await {
            Ok(()) => runtime.of(&self.uid, &name, Request::Start).await,
            Err(f) => return self.not_started(object, &name, &f.message),
        };
        if let Some(memory) = self.containers().and_then(|c| c.memory.get_mut(&name)) {
            memory.in_row = memory.in_row.saturating_add(u32::from(again));
        }
        match result {
            Ok(Reply::Status { status }) => {
                let text = format!("container {name} runs");
                let reason = if again { "Restarted" } else { "Started" };
                self.host.event(object, false, reason, &text);
                self.take_status(&status, object).await;
                Next::Look
            }
            Ok(_) => Next::Look,
            // Its event says so too; until that is here, it must not be tried again.
            Err(e @ RuntimeError::Refused { .. }) => self.not_started(object, &name, &e.to_string()),
            Err(e) => self.not_now(object, &e),
        }
    }

    fn not_started(&mut self, object: &Object<Instance>, name: &str, why: &str) -> Next {
        let text = format!("container {name} cannot be started: {why}");
        self.host.event(object, true, "StartFailed", &text);
        if let Some(containers) = self.containers() {
            containers.memory.entry(name.into()).or_default().ended(Duration::ZERO);
        }
        Next::Look
    }

    /// A call failed in passing, or the shim is gone, which its events tell.
    fn not_now(&mut self, object: &Object<Instance>, e: &RuntimeError) -> Next {
        if !matches!(e, RuntimeError::Gone(_)) {
            self.host.event(object, true, "ContainerFailed", &e.to_string());
        }
        if let Some(containers) = self.containers() {
            containers.not_before = Some(Instant::now() + AGAIN);
        }
        Next::Look
    }

    async fn stop_containers(&mut self, object: &Object<Instance>, which: &[usize]) -> Next {
        let Some(runtime) = self.held.as_ref().map(|h| h.runtime.clone()) else {
            return Next::Wait(None);
        };
        let roles = pod::roles(&object.spec);
        for index in which {
            let Some(name) = self.container_name(*index) else {
                continue;
            };
            let sidecar = roles.get(*index) == Some(&Role::Sidecar);
            let request = Request::Stop {
                signal: self.container_signal(object, &name),
                grace_ms: self.container_grace(object, sidecar).as_millis() as u64,
            };
            if let Err(e) = runtime.of(&self.uid, &name, request).await {
                return self.not_now(object, &e);
            }
            if let Some(memory) = self.containers().and_then(|c| c.memory.get_mut(&name)) {
                memory.asked = true;
            }
        }
        Next::Look
    }

    /// What is left of the grace; sidecars get some even where the others took all.
    fn container_grace(&self, object: &Object<Instance>, sidecar: bool) -> Duration {
        let whole = grace(object);
        let by = self.held.as_ref().and_then(|h| h.containers.as_ref()?.stop_by);
        let left = by.map_or(whole, |by| by.saturating_duration_since(Instant::now()));
        match sidecar && !whole.is_zero() {
            true => left.max(LEAST_GRACE.min(whole)),
            false => left,
        }
    }

    /// The signal that stops a container politely: as its own image says where the spec does not.
    fn container_signal(&self, object: &Object<Instance>, name: &str) -> i32 {
        let mut status = self.status.clone();
        if let Some(c) = self.status.container(name) {
            status.image_id.clone_from(&c.image_id);
        }
        self.host.stop_signal(object, &status)
    }

    async fn finish_containers(&mut self, object: &Object<Instance>) -> Next {
        let Some(held) = &self.held else {
            return Next::Wait(None);
        };
        let runtime = held.runtime.clone();
        let seen = held.containers.as_ref().map(|c| c.seen.clone()).unwrap_or_default();
        let exit = pod::outcome(&pod::roles(&object.spec), &seen);
        match runtime.finish(&self.uid, &exit).await {
            // Its event is on the way.
            Ok(()) => {
                if let Some(containers) = self.containers() {
                    containers.not_before = Some(Instant::now() + AGAIN);
                }
                Next::Look
            }
            Err(e) => self.not_now(object, &e),
        }
    }

    /// The instance is to end: its containers are asked one after the other.
    pub(super) fn stop_all_containers(&mut self, grace: Duration) -> bool {
        match self.containers() {
            Some(containers) => {
                containers.stop_within(grace);
                true
            }
            None => false,
        }
    }

    /// When the end of what was asked to end is overdue. Sidecars are asked only after the others have ended.
    pub(super) fn overdue_at(&self, object: &Object<Instance>) -> Option<Instant> {
        let held = self.held.as_ref()?;
        let slack = match held.containers {
            Some(_) => {
                let sidecars = object.spec.init_containers.iter().filter(|c| c.is_sidecar());
                LEAST_GRACE * sidecars.count() as u32 + AGAIN
            }
            None => Duration::ZERO,
        };
        held.stop_by.map(|by| by + slack)
    }

    /// Kills what still runs, sidecars with it.
    pub(super) async fn kill_containers(&mut self) -> bool {
        let Some(held) = &self.held else { return false };
        let Some(containers) = &held.containers else {
            return false;
        };
        let running = containers.seen.iter().filter(|c| c.state == State::Running);
        let names: Vec<String> = running.map(|c| c.name.clone()).collect();
        let runtime = held.runtime.clone();
        for name in names {
            // The events tell the rest.
            let _ = runtime.of(&self.uid, &name, Request::Signal { signal: 9 }).await;
        }
        true
    }

    /// Takes over what the shim says of the containers. False while not all that the instance is there for was started.
    pub(super) fn take_containers(&mut self, status: &Status, object: &Object<Instance>) -> bool {
        let Some(containers) = self.containers() else {
            return true;
        };
        containers.take(status);
        let seen = containers.seen(object);
        let said = containers.seen.clone();
        let ends = status.exit.is_some() || self.status.phase == Phase::Stopping;
        self.write_containers(object, &said, &seen, ends);
        pod::is_up(&pod::roles(&object.spec), &said)
    }

    fn write_containers(
        &mut self,
        object: &Object<Instance>,
        said: &[shim::ContainerStatus],
        seen: &[Seen],
        ends: bool,
    ) {
        let old = self
            .status
            .init_container_statuses
            .iter()
            .chain(&self.status.container_statuses);
        let before: BTreeMap<String, ContainerStatus> = old.map(|c| (c.name.clone(), c.clone())).collect();
        let (init, main) = pod::statuses(&object.spec, said, seen, &before, ends);
        self.status.restart_count = init.iter().chain(&main).map(|c| c.restart_count).sum();
        self.status.init_container_statuses = init;
        self.status.container_statuses = main;
    }

    /// The run is over: no container is left running in the status.
    pub(super) fn containers_ended(&mut self, object: &Object<Instance>) {
        let said = self.containers().map(|c| (c.seen.clone(), c.seen(object)));
        if let Some((said, seen)) = said {
            self.write_containers(object, &said, &seen, true);
        }
        let (host, uid, at) = (self.host.clone(), self.uid.clone(), now());
        let s = &mut self.status;
        for c in s.init_container_statuses.iter_mut().chain(&mut s.container_statuses) {
            let exit: Option<Exit> = c.state.is_running().then(|| host.last_exit_of(&uid, &c.name)).flatten();
            pod::lost(c, exit, at);
        }
    }

    /// Whether all containers do what they are there for; also true where there is one program.
    pub(super) fn containers_ready(&self) -> bool {
        self.object().is_none_or(|o| {
            let mut with = (*o).clone();
            with.status = Some(self.status.clone());
            let (ready, all) = with.ready();
            !o.spec.is_pod() || ready == all
        })
    }
}
