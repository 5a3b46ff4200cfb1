//! What to do next with the containers of one instance that has several, and what to say of them: pure functions, as
//! [`plan`](super::plan) is for the instance.
//!
//! ```text
//!   init containers and sidecars in their order ──► all others ──► sidecars, last first ──► the instance's end
//!    (an init container to its success,              (each again       (after the others have ended,
//!     a sidecar until it was started)                 by itself)        by themselves or asked to)
//! ```

use std::collections::BTreeMap;

use biga_model::{
    ContainerSpec, ContainerState, ContainerStatus, InstanceSpec, InstanceStatus, RestartPolicy, RestartWhen, Running,
    Terminated, Timestamp, Waiting,
};
use biga_wire::shim::{self, Exit, State};

/// What a container is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its success before what comes after it.
    Init,
    /// Is started in its turn and runs beside all others.
    Sidecar,
    /// What the instance is there for.
    Main,
}

/// The roles of an instance's containers: in the order in which they are started, which is that of the shim.
pub fn roles(spec: &InstanceSpec) -> Vec<Role> {
    let init = spec.init_containers.iter().map(|c| match c.is_sidecar() {
        true => Role::Sidecar,
        false => Role::Init,
    });
    init.chain(spec.containers.iter().map(|_| Role::Main)).collect()
}

/// One container, cut down to what decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What it is there for.
    pub role: Role,
    /// `Created` before its first start.
    pub state: State,
    /// Exit code of its last run.
    pub code: Option<i32>,
    /// How often it was started.
    pub starts: u32,
    /// Milliseconds until it may be started; 0 when it may.
    pub due_ms: u64,
    /// Whether it was asked to end.
    pub asked: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: wait for a change.
    Rest,
    /// Nothing before so many milliseconds are over.
    Wait(u64),
    /// Start this container, for the first time or again.
    Start(usize),
    /// Ask these to end.
    Stop(Vec<usize>),
    /// All have ended: so has the instance.
    End,
}

/// The next step. `stopping` when the instance is to end.
pub fn plan(policy: &RestartPolicy, stopping: bool, seen: &[Seen]) -> Step {
    if stopping || is_over(policy, seen) {
        return wind_down(seen);
    }
    let mut wait: Option<u64> = None;
    for (i, c) in seen.iter().enumerate() {
        let wanted = match c.state {
            State::Created => true,
            State::Running | State::Paused => false,
            State::Exited => restarts(policy, c),
        };
        if wanted && c.due_ms == 0 {
            return Step::Start(i);
        }
        if wanted {
            wait = Some(wait.map_or(c.due_ms, |w| w.min(c.due_ms)));
        }
        // What comes after it waits for its success, or for its first start.
        let in_the_way = match c.role {
            Role::Init => c.state != State::Exited || c.code != Some(0),
            Role::Sidecar => c.starts == 0,
            Role::Main => false,
        };
        if in_the_way {
            break;
        }
    }
    wait.map_or(Step::Rest, Step::Wait)
}

/// Whether an init container has failed for good, or all that the instance is there for has ended for good.
fn is_over(policy: &RestartPolicy, seen: &[Seen]) -> bool {
    let done = |c: &Seen| c.state == State::Exited && !restarts(policy, c);
    let of = |role: Role| seen.iter().filter(move |c| c.role == role);
    of(Role::Init).any(|c| done(c) && c.code != Some(0)) || of(Role::Main).all(done)
}

/// Whether an ended container is started again while the instance goes on.
fn restarts(policy: &RestartPolicy, c: &Seen) -> bool {
    let failed = c.code != Some(0);
    let tired = policy.maximum_retry_count > 0 && c.starts > policy.maximum_retry_count;
    match (c.role, policy.policy) {
        (Role::Sidecar, _) => true,
        (_, RestartWhen::No) => false,
        (_, RestartWhen::OnFailure) => failed && !tired,
        (Role::Init, RestartWhen::Always | RestartWhen::UnlessStopped) => failed,
        (Role::Main, RestartWhen::Always | RestartWhen::UnlessStopped) => true,
    }
}

/// What is no sidecar ends first, all at once; then one sidecar after the other, the last one first.
fn wind_down(seen: &[Seen]) -> Step {
    let runs = |c: &Seen| matches!(c.state, State::Running | State::Paused);
    let all = || seen.iter().enumerate().filter(|(_, c)| runs(c));
    let others: Vec<usize> = all().filter(|(_, c)| c.role != Role::Sidecar).map(|(i, _)| i).collect();
    let first: Vec<usize> = match others.is_empty() {
        false => others,
        true => all().next_back().map(|(i, _)| i).into_iter().collect(),
    };
    let unasked: Vec<usize> = first.iter().copied().filter(|i| !seen[*i].asked).collect();
    match (first.is_empty(), unasked.is_empty()) {
        (true, _) => Step::End,
        (false, true) => Step::Rest,
        (false, false) => Step::Stop(unasked),
    }
}

/// How an instance ended whose containers have ended: as the init container that failed, or the first of the others that
/// did; well, if none did.
pub fn outcome(roles: &[Role], containers: &[shim::ContainerStatus]) -> Exit {
    let failed = |wanted: Role| {
        let mut all = roles.iter().zip(containers).filter(|(role, _)| **role == wanted);
        all.find_map(|(_, c)| c.exit.as_ref().filter(|e| e.code != 0).map(|e| (c, e)))
    };
    // An init container that failed and then succeeded did not keep the others from starting.
    let mains_ran = roles
        .iter()
        .zip(containers)
        .any(|(r, c)| *r == Role::Main && c.starts > 0);
    let init = if mains_ran { None } else { failed(Role::Init) };
    let Some((container, exit)) = init.or_else(|| failed(Role::Main)) else {
        return Exit::default();
    };
    let what = match &exit.error {
        Some(why) => why.clone(),
        None => format!("it ended with code {}", exit.code),
    };
    Exit {
        error: Some(format!("container {}: {what}", container.name)),
        at_ns: 0,
        ..exit.clone()
    }
}

/// Whether everything that the instance is there for was started.
pub fn is_up(roles: &[Role], containers: &[shim::ContainerStatus]) -> bool {
    let mut mains = roles.iter().zip(containers).filter(|(r, _)| **r == Role::Main);
    mains.all(|(_, c)| c.starts > 0)
}

/// Of two reports on a container the newer one: they may come by different ways.
pub fn newer(old: &shim::ContainerStatus, new: &shim::ContainerStatus) -> bool {
    let age = |c: &shim::ContainerStatus| (c.starts, c.state == State::Exited);
    age(new) >= age(old)
}

/// Notes what the images of several containers mean (`ids`, in the order of the spec) before any is started.
pub fn note_images(spec: &InstanceSpec, ids: &[String], status: &mut InstanceStatus) {
    let of = |(c, id): (&ContainerSpec, &String)| ContainerStatus {
        name: c.name.clone(),
        image: spec.image_of(c).to_string(),
        image_id: id.clone(),
        state: ContainerState::Waiting(first_turn(false)),
        ..ContainerStatus::default()
    };
    let (mut init, mut main) = (Vec::new(), Vec::new());
    if spec.is_pod() {
        init.extend(spec.all_containers().zip(ids).map(of));
        main = init.split_off(spec.init_containers.len().min(init.len()));
    }
    (status.init_container_statuses, status.container_statuses) = (init, main);
}

/// What the status says of the containers, in the order of the spec: init containers and the others. `before` keeps what
/// was found out of their images. `ends` when no container is started any more.
pub fn statuses(
    spec: &InstanceSpec,
    containers: &[shim::ContainerStatus],
    seen: &[Seen],
    before: &BTreeMap<String, ContainerStatus>,
    ends: bool,
) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
    let up = is_up(&roles(spec), containers);
    let mut all: Vec<ContainerStatus> = Vec::new();
    for (named, (c, s)) in spec.all_containers().zip(containers.iter().zip(seen)) {
        let old = before.get(&named.name);
        let last = c.exit.as_ref().map(|e| terminated(c, e));
        let again = !ends && c.state == State::Exited && restarts(&spec.restart_policy, s);
        let (state, last_termination) = match c.state {
            State::Running | State::Paused => {
                let started_at = c.started_ns.and_then(timestamp);
                (ContainerState::Running(Running { started_at }), last)
            }
            State::Exited if again => (ContainerState::Waiting(crash_loop(&named.name)), last),
            State::Exited => (
                ContainerState::Terminated(last.unwrap_or_default()),
                old.and_then(|o| o.last_termination.clone()),
            ),
            State::Created => (ContainerState::Waiting(first_turn(up)), None),
        };
        let succeeded = matches!(&state, ContainerState::Terminated(t) if t.exit_code == 0);
        all.push(ContainerStatus {
            name: named.name.clone(),
            image: spec.image_of(named).to_string(),
            image_id: old.map(|o| o.image_id.clone()).unwrap_or_default(),
            ready: state.is_running() && s.role != Role::Init || succeeded && s.role == Role::Init,
            state,
            last_termination,
            restart_count: c.starts.saturating_sub(1),
            pid: c.pid,
        });
    }
    let main = all.split_off(spec.init_containers.len().min(all.len()));
    (all, main)
}

/// Before its first start.
fn first_turn(up: bool) -> Waiting {
    let reason = if up { "ContainerCreating" } else { "PodInitializing" };
    Waiting {
        reason: reason.into(),
        message: String::new(),
    }
}

fn crash_loop(name: &str) -> Waiting {
    Waiting {
        reason: "CrashLoopBackOff".into(),
        message: format!("container {name} is started again after a while"),
    }
}

/// The end of a container's run in the status's words.
fn terminated(c: &shim::ContainerStatus, e: &Exit) -> Terminated {
    let started_at = c.last_started_ns.and_then(timestamp);
    let reason = match (e.oom, e.code) {
        _ if started_at.is_none() => "StartError",
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    Terminated {
        exit_code: e.code,
        signal: e.signal,
        reason: reason.into(),
        message: e.error.clone().unwrap_or_default(),
        started_at,
        finished_at: timestamp(e.at_ns),
    }
}

/// A container whose shim was lost while it ran.
pub fn lost(status: &mut ContainerStatus, exit: Option<Exit>, now: Timestamp) {
    let ContainerState::Running(running) = &status.state else {
        return;
    };
    let started = running.started_at;
    // What was written down of an older run says nothing of this one.
    let exit = exit.filter(|e| timestamp(e.at_ns) >= started);
    status.state = ContainerState::Terminated(Terminated {
        exit_code: exit.as_ref().map_or(137, |e| e.code),
        signal: exit.as_ref().map_or(Some(9), |e| e.signal),
        reason: if exit.is_some() { "Error".into() } else { "Lost".into() },
        message: exit.as_ref().and_then(|e| e.error.clone()).unwrap_or_default(),
        started_at: started,
        finished_at: exit.and_then(|e| timestamp(e.at_ns)).or(Some(now)),
    });
    status.ready = false;
    status.pid = None;
}

fn timestamp(ns: u64) -> Option<Timestamp> {
    (ns > 0)
        .then(|| Timestamp::from_nanosecond(i128::from(ns)).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
