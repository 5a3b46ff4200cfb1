//! The task that owns one instance.
//!
//! It holds the only writable copy of the instance's status. Round after round it looks at what is wanted (the
//! newest object) and what is seen (its status and the shim's events), asks [`plan`](super::plan::plan) for one step, and
//! carries it out. Nothing else moves the instance.

mod follow;
mod health;
mod launch;
mod outcome;
mod pod;

use std::sync::Arc;
use std::time::{Duration, Instant};

use biga_model::{
    AGENT_FINALIZER, Condition, GuestInfo, HealthResult, Instance, InstanceStatus, Isolation, Object, Phase, Power,
    RestartPolicy, Timestamp,
};
use biga_runtime::{Error as RuntimeError, Events, Runtime};
use biga_store::Store;
use biga_store::typed::{DeleteOptions, SpecWriter, StatusWriter};
use biga_wire::config::Limits;
use biga_wire::shim::{Event, Exit, State, Status};
use tokio::sync::watch;

use self::outcome::lost;
use self::pod::{Containers, Next};
use super::health::{Check, Prober};
use super::plan::{self, Seen, Step, StopReason, Wanted, plan};
use super::{Failure, Host, limits};
use crate::checkpoints;

/// The newest object; `None` once it is gone from the store.
pub type Newest = watch::Receiver<Option<Arc<Object<Instance>>>>;

/// How long preparing may take before people are shown that it goes on.
const SHOW_PREPARING_AFTER: Duration = Duration::from_millis(150);

/// Reason in the status of several containers whose shim was killed: they are started again as one, if the policy says so.
const LOST: &str = "Lost";

/// One instance's task.
pub struct Task {
    host: Arc<dyn Host>,
    writer: StatusWriter<Instance>,
    /// Only to delete what removes itself at its end.
    specs: SpecWriter<Instance>,
    newest: Newest,
    namespace: String,
    name: String,
    uid: String,
    status: InstanceStatus,
    held: Option<Held>,
    ended_at: Option<Instant>,
    restarts_in_row: u32,
    probes: Option<(Check, Prober)>,
    /// The generation whose health check is followed; unset while nothing runs.
    probed: Option<i64>,
    /// Its health check failed and it is to be restarted.
    unhealthy: bool,
}

/// Why a run ended that its health check ended.
const UNHEALTHY: &str = "Unhealthy";

/// Why a run ended that was saved and not left running.
const CHECKPOINTED: &str = "Checkpointed";

/// A run held by a shim.
struct Held {
    runtime: Arc<dyn Runtime>,
    events: Events,
    limits: Limits,
    started: Instant,
    stop: Option<StopReason>,
    stop_by: Option<Instant>,
    /// Where there are several containers.
    containers: Option<Containers>,
}

/// What woke the task.
enum Woken {
    Changed,
    Gone,
    Shim(Option<Event>),
    Health(Box<HealthResult>),
    Time,
}

impl Task {
    /// A task for `object`, not yet running.
    pub fn new(host: Arc<dyn Host>, store: Arc<dyn Store>, object: &Object<Instance>, newest: Newest) -> Task {
        Task {
            host,
            writer: StatusWriter::new(store.clone()),
            specs: SpecWriter::new(store),
            newest,
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            status: object.status_or_default(),
            held: None,
            ended_at: None,
            restarts_in_row: 0,
            probes: None,
            probed: None,
            unhealthy: false,
        }
    }

    /// Owns the instance until it is gone.
    pub async fn run(mut self) {
        let Some(first) = self.object() else { return };
        self.adopt(&first).await;
        loop {
            let Some(object) = self.object() else {
                // Its object vanished without asking us: undo what there is.
                self.drop_run().await;
                self.host.remove(&self.uid).await;
                return;
            };
            self.name.clone_from(&object.metadata.name);
            self.follow_limits(&object).await;
            self.follow_health(&object);
            self.follow_networks(&object).await;
            match plan(&self.wanted(&object), &self.seen()) {
                Step::Rest => {
                    self.observe_rest(&object).await;
                    if let Next::Wait(until) = self.follow_containers(&object).await {
                        let deadline = self.overdue_at(&object);
                        self.wait(deadline.into_iter().chain(until).min()).await;
                    }
                }
                Step::Backoff(ms) => self.wait(Some(Instant::now() + Duration::from_millis(ms))).await,
                Step::Prepare => self.fetch(&object).await,
                Step::Launch(reason) => self.launch(&object, reason).await,
                Step::Stop(reason) => self.stop(&object, reason).await,
                Step::Pause => self.freeze(&object, true).await,
                Step::Resume => self.freeze(&object, false).await,
                Step::Reap => self.drop_run().await,
                Step::Remove => {
                    if self.remove(&object).await {
                        return;
                    }
                }
            }
        }
    }

    fn object(&self) -> Option<Arc<Object<Instance>>> {
        self.newest.borrow().clone()
    }

    fn wanted(&self, o: &Object<Instance>) -> Wanted {
        Wanted {
            power: o.spec.power,
            generation: o.metadata.generation,
            restart_request: o.spec.restart_request,
            restart_policy: self.restart_policy(o),
            auto_remove: o.spec.auto_remove,
            deleting: o.is_deleting(),
        }
    }

    /// The policy for the instance as a whole. Several containers are started again one by one; all together only where
    /// they could not be made or were lost.
    fn restart_policy(&self, o: &Object<Instance>) -> RestartPolicy {
        let orderly = self.status.phase == Phase::Exited && self.status.reason != LOST;
        if o.spec.is_pod() && orderly {
            return RestartPolicy::default();
        }
        o.spec.restart_policy.clone()
    }

    fn seen(&self) -> Seen {
        let due = plan::backoff_ms(self.restarts_in_row);
        let waited = self.ended_at.map_or(due, |t| t.elapsed().as_millis() as u64);
        Seen {
            phase: self.status.phase,
            observed_generation: self.status.observed_generation,
            observed_restart: self.status.observed_restart,
            exit_code: self.status.exit_code,
            restart_count: self.status.restart_count,
            stopped_by_user: self.status.stopped_by_user,
            unhealthy: match self.status.phase {
                Phase::Exited => self.status.reason == UNHEALTHY,
                _ => self.unhealthy,
            },
            set_aside: match self.status.phase {
                Phase::Exited => self.status.reason == CHECKPOINTED,
                Phase::Failed => self.status.reason == checkpoints::RESTORE_FAILED,
                _ => false,
            },
            held: self.held.is_some(),
            restart_due_ms: due.saturating_sub(waited),
        }
    }

    /// Finds the run that an earlier daemon left.
    async fn adopt(&mut self, object: &Object<Instance>) {
        if !self.status.phase.is_live() {
            if self.status.phase == Phase::Preparing {
                self.status.phase = Phase::Pending;
            }
            return;
        }
        let runtime = self.host.runtime(object.spec.isolation);
        match runtime.adopt(&self.uid).await {
            Ok((status, events)) => {
                self.hold(runtime, events, limits(object), containers(&status, object));
                self.host
                    .event(object, false, "Adopted", "the daemon found it running and took it over");
                self.take_status(&status, object).await;
            }
            Err(_) => {
                let exit = self.host.last_exit(&self.uid).unwrap_or_else(lost);
                self.ended(&exit, object).await;
                self.host.after_run(&self.uid).await;
            }
        }
    }

    fn hold(&mut self, runtime: Arc<dyn Runtime>, events: Events, limits: Limits, containers: Option<Containers>) {
        let started = Instant::now();
        self.held = Some(Held {
            runtime,
            events,
            limits,
            started,
            stop: None,
            stop_by: None,
            containers,
        });
    }

    /// Waits for a change of either side, or until `until`, and takes it in.
    async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(t) => tokio::time::sleep_until(t.into()).await,
                None => std::future::pending().await,
            }
        };
        let events = self.held.as_mut().map(|h| &mut h.events);
        let shim = async {
            match events {
                Some(e) => e.recv().await,
                None => std::future::pending().await,
            }
        };
        let probes = self.probes.as_mut().map(|(_, p)| p);
        let health = async {
            match probes {
                Some(p) => p.next().await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            changed = self.newest.changed() => if changed.is_ok() { Woken::Changed } else { Woken::Gone },
            event = shim => Woken::Shim(event),
            result = health => Woken::Health(Box::new(result)),
            () = timer => Woken::Time,
        };
        let Some(object) = self.object() else { return };
        match woken {
            Woken::Changed => self.hurry(&object).await,
            Woken::Gone => std::future::pending().await,
            Woken::Shim(Some(event)) => self.take_event(event, &object).await,
            Woken::Shim(None) => {
                let exit = self.host.last_exit(&self.uid).unwrap_or_else(lost);
                self.ended(&exit, &object).await;
            }
            Woken::Health(result) => self.take_health(*result, &object).await,
            Woken::Time => self.overdue(&object).await,
        }
    }

    async fn take_event(&mut self, event: Event, object: &Object<Instance>) {
        match event {
            Event::Status { status } => self.take_status(&status, object).await,
            Event::Oom => self.host.event(
                object,
                true,
                "OOMKilled",
                "the kernel killed a process of it for memory",
            ),
            Event::Guest { guest } => {
                self.status.guest = Some(GuestInfo {
                    os: guest.os,
                    kernel: guest.kernel,
                    hostname: guest.hostname,
                    addresses: guest.addresses,
                });
                self.write().await;
            }
        }
    }

    /// Takes over what the shim says of the run.
    async fn take_status(&mut self, s: &Status, object: &Object<Instance>) {
        let up = self.take_containers(s, object);
        // Of a short run the end may be the first that is heard of it.
        if let Some(ns) = s.started_ns {
            self.status.started_at = timestamp(ns);
        }
        if let Some(exit) = &s.exit {
            return self.ended(exit, object).await;
        }
        if self.status.phase != Phase::Stopping {
            self.status.phase = match s.state {
                State::Created => Phase::Starting,
                State::Running if !up => Phase::Starting,
                State::Running => Phase::Running,
                State::Paused => Phase::Paused,
                State::Exited => Phase::Exited,
            };
        }
        self.status.pid = s.pid;
        if !s.accelerator.is_empty() {
            self.status.accelerator.clone_from(&s.accelerator);
        }
        self.status.observed_generation = object.metadata.generation;
        self.write().await;
    }

    async fn fetch(&mut self, object: &Object<Instance>) {
        self.status.phase = Phase::Preparing;
        self.status.observed_restart = object.spec.restart_request;
        self.write().await;
        let mut status = self.status.clone();
        let result = self.host.fetch(object, &mut status).await;
        self.status = status;
        match result {
            Ok(()) => {
                self.status.phase = Phase::Created;
                self.status.observed_generation = object.metadata.generation;
                self.write().await;
                self.host.event(object, false, "Created", "all is ready");
            }
            Err(f) => self.failed(&f, object).await,
        }
    }

    async fn stop(&mut self, object: &Object<Instance>, reason: StopReason) {
        let (signal, grace) = (self.host.stop_signal(object, &self.status), grace(object));
        let Some(held) = &mut self.held else {
            return self.ended(&lost(), object).await;
        };
        held.stop = Some(reason);
        held.stop_by = Some(Instant::now() + grace);
        if self.stop_all_containers(grace) {
            self.status.phase = Phase::Stopping;
            return self.write().await;
        }
        let Some(held) = &mut self.held else { return };
        let result = held.runtime.stop(&self.uid, signal, grace.as_millis() as u64).await;
        self.status.phase = Phase::Stopping;
        match result {
            Ok(()) => self.write().await,
            // The events tell the rest.
            Err(RuntimeError::Gone(_)) => {}
            Err(e) => self.host.event(object, true, "StopFailed", &e.to_string()),
        }
    }

    /// While it stops: a removal with less grace, or its deadline passed by far.
    async fn hurry(&mut self, object: &Object<Instance>) {
        let Some(held) = &mut self.held else { return };
        let Some(by) = held.stop_by else { return };
        if self.status.phase == Phase::Stopping && Instant::now() + grace(object) < by {
            let signal = self.host.stop_signal(object, &self.status);
            let left = grace(object);
            held.stop_by = Some(Instant::now() + left);
            if self.stop_all_containers(left) {
                return;
            }
            let Some(held) = &mut self.held else { return };
            if left.is_zero() {
                let _ = held.runtime.signal(&self.uid, 9).await;
            } else {
                let _ = held.runtime.stop(&self.uid, signal, left.as_millis() as u64).await;
            }
        }
    }

    async fn overdue(&mut self, object: &Object<Instance>) {
        let due = self.overdue_at(object).is_some_and(|at| at <= Instant::now());
        if self.status.phase != Phase::Stopping || !due {
            return;
        }
        let killed = self.kill_containers().await;
        let Some(held) = &mut self.held else { return };
        if !killed {
            // The shim kills at the end of the grace by itself; this is for one that could not be told.
            let _ = held.runtime.signal(&self.uid, 9).await;
        }
        held.stop_by = Some(Instant::now() + Duration::from_secs(10));
        tracing::debug!(instance = %object.name(), "grace is over, killed");
    }

    async fn freeze(&mut self, object: &Object<Instance>, freeze: bool) {
        let Some(held) = &mut self.held else {
            return self.ended(&lost(), object).await;
        };
        let result = if freeze {
            held.runtime.pause(&self.uid).await
        } else {
            held.runtime.resume(&self.uid).await
        };
        match result {
            Ok(()) => {
                self.status.phase = if freeze { Phase::Paused } else { Phase::Running };
                self.status.observed_generation = object.metadata.generation;
                self.write().await;
                let (reason, message) = if freeze {
                    ("Paused", "it is frozen")
                } else {
                    ("Resumed", "it runs again")
                };
                self.host.event(object, false, reason, message);
            }
            Err(e) => {
                self.host.event(object, true, "FreezeFailed", &e.to_string());
                // Not again at once: an answer or a change of the spec must come first.
                self.observe_generation(object).await;
                self.wait(Some(Instant::now() + Duration::from_secs(5))).await;
            }
        }
    }

    /// A run is over.
    async fn ended(&mut self, exit: &Exit, object: &Object<Instance>) {
        let stop = self.held.as_ref().and_then(|h| h.stop);
        let stable = self
            .held
            .as_ref()
            .is_some_and(|h| h.started.elapsed().as_millis() as u64 >= plan::STABLE_MS);
        if stable {
            self.restarts_in_row = 0;
        }
        self.containers_ended(object);
        let s = &mut self.status;
        s.phase = Phase::Exited;
        s.pid = None;
        s.exit_code = Some(exit.code);
        s.oom_killed = exit.oom;
        s.finished_at = timestamp(exit.at_ns).or_else(|| Some(now()));
        s.stopped_by_user = stop == Some(StopReason::Wanted) || (stop.is_none() && object.spec.power == Power::Stopped);
        s.reason = match stop {
            _ if exit.oom => "OOMKilled".into(),
            Some(StopReason::Unhealthy) => UNHEALTHY.into(),
            _ if exit.checkpointed => CHECKPOINTED.into(),
            _ if object.spec.is_pod() && exit.error == lost().error => LOST.into(),
            _ => String::new(),
        };
        s.message = exit.error.clone().unwrap_or_default();
        s.observed_generation = object.metadata.generation;
        self.ended_at = Some(Instant::now());
        // Events of this run are over; the shim itself is undone in a step of its own.
        self.write().await;
        let text = match exit.signal {
            Some(n) => format!("ended by signal {n}"),
            None => format!("ended with code {}", exit.code),
        };
        self.host
            .event(object, exit.oom, if exit.oom { "OOMKilled" } else { "Exited" }, &text);
    }

    async fn failed(&mut self, f: &Failure, object: &Object<Instance>) {
        let s = &mut self.status;
        s.phase = Phase::Failed;
        s.pid = None;
        s.reason = f.reason.into();
        s.message.clone_from(&f.message);
        s.exit_code = Some(f.exit_code);
        s.finished_at = Some(now());
        s.observed_generation = object.metadata.generation;
        self.ended_at = Some(Instant::now());
        self.write().await;
        self.host.event(object, true, f.reason, &f.message);
    }

    /// Undoes the shim and what its run needed.
    async fn drop_run(&mut self) {
        if let Some(held) = self.held.take() {
            if let Err(e) = held.runtime.delete(&self.uid).await {
                tracing::warn!(uid = %self.uid, "cannot undo the shim: {e}");
            }
            self.host.after_run(&self.uid).await;
        }
    }

    /// Undoes everything. True when the object is gone too.
    async fn remove(&mut self, object: &Object<Instance>) -> bool {
        self.drop_run().await;
        self.host.remove(&self.uid).await;
        match self.let_go(object).await {
            Ok(()) => {
                self.host.event(object, false, "Removed", "nothing of it is left");
                true
            }
            Err(e) => {
                tracing::warn!(instance = %self.name, "cannot remove its object: {e}");
                self.wait(Some(Instant::now() + Duration::from_secs(1))).await;
                false
            }
        }
    }

    /// Lets the object go; one that removes itself at its end is deleted first.
    async fn let_go(&self, object: &Object<Instance>) -> Result<(), biga_store::typed::Error> {
        if !object.is_deleting() {
            let (ns, name) = (&self.namespace, &self.name);
            let gone = self.writer.remove_finished(ns, name, &self.uid, AGENT_FINALIZER);
            if gone.await? {
                return Ok(());
            }
            let only = DeleteOptions {
                uid: Some(self.uid.clone()),
                ..DeleteOptions::default()
            };
            match self.specs.delete(&self.namespace, &self.name, &only).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        match self
            .writer
            .remove_finalizer(&self.namespace, &self.name, &self.uid, AGENT_FINALIZER)
            .await
        {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Nothing is left to do for this generation. Turning off what has ended is noted, so that turning it on starts it.
    async fn observe_rest(&mut self, object: &Object<Instance>) {
        let turned_off = object.spec.power == Power::Stopped && self.status.phase.is_ended();
        if turned_off && !self.status.stopped_by_user {
            self.status.stopped_by_user = true;
            self.status.observed_generation = object.metadata.generation;
            self.write().await;
        }
        self.observe_generation(object).await;
    }

    async fn observe_generation(&mut self, object: &Object<Instance>) {
        if self.status.observed_generation != object.metadata.generation {
            self.status.observed_generation = object.metadata.generation;
            self.write().await;
        }
    }

    async fn write(&mut self) {
        if let Some(o) = self.object() {
            self.status.node = o.spec.node_name.clone().unwrap_or_default();
        }
        let ready = self.status.phase == Phase::Running && self.containers_ready();
        let reason = self.status.phase.as_str();
        let message = self.status.message.clone();
        Condition::set(&mut self.status.conditions, "Ready", ready, reason, &message, now());
        let status = self.status.clone();
        let result = self
            .writer
            .modify_status(&self.namespace, &self.name, &self.uid, |s| *s = status.clone())
            .await;
        if let Err(e) = result {
            tracing::debug!(instance = %self.name, "status not written: {e}");
        }
    }
}

/// What is to be remembered of several containers.
fn containers(status: &Status, object: &Object<Instance>) -> Option<Containers> {
    object.spec.is_pod().then(|| Containers::new(status))
}

/// How long this instance may take to end.
fn grace(object: &Object<Instance>) -> Duration {
    if object.is_deleting()
        && let Some(s) = object.metadata.deletion_grace_period_seconds
    {
        return Duration::from_secs(s.max(0) as u64);
    }
    let usual = if object.spec.isolation == Isolation::Vm { 60 } else { 10 };
    Duration::from_secs(object.spec.stop.grace_period_seconds.map_or(usual, u64::from))
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns > 0)
        .then(|| Timestamp::from_nanosecond(i128::from(ns)).ok())
        .flatten()
}
