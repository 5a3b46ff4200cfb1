//! start, stop, restart, kill, pause, unpause: each writes what is wanted and waits until the agent has answered.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, InstanceStatus, Object, Phase, Power, RestartWhen, checkpoint_name_fault, parse_signal};
use biga_store::typed::DeleteOptions;
use http::StatusCode;

use super::super::empty;
use super::checkpoints;
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::follow::follow;
use crate::lookup::brief;
use crate::state::DockerApi;
use crate::translate::create::grace;
use crate::translate::events::{KILLED_RUN, Message};
use crate::translate::ids::docker_id;

/// How long a killed process may take to be seen dead.
const KILLED: Duration = Duration::from_secs(10);
/// How long the scheduler may take to find a node.
const PLACED_WITHIN: Duration = Duration::from_secs(3);

impl DockerApi {
    /// Follows an instance; see [`follow`].
    pub(super) async fn follow<T>(
        &self,
        o: &Object<Instance>,
        decide: impl FnMut(Option<&Object<Instance>>) -> Option<T> + Send,
    ) -> Result<T> {
        follow(&self.inner.store, self.ns(), o.name(), o.uid(), decide).await
    }

    /// Changes an instance's spec; the change is validated.
    pub(super) async fn change(
        &self,
        o: &Object<Instance>,
        mut change: impl FnMut(&mut Object<Instance>) + Send,
    ) -> Result<Object<Instance>> {
        let uid = o.uid();
        let mut name = o.name().to_string();
        loop {
            let changed = self
                .specs::<Instance>()
                .modify(self.ns(), &name, |now| {
                    if now.metadata.uid == uid {
                        change(now);
                    }
                })
                .await;
            match changed {
                Ok(now) if now.uid() == uid => return Ok(now),
                Err(e) if !e.is_not_found() => return Err(e.into()),
                // It has another name since it was read, or is gone.
                _ => {
                    let renamed = self.instances().find_uid(self.ns(), uid).await?;
                    let renamed = renamed.filter(|o| o.name() != name);
                    let gone = || Error::not_found(format!("No such container: {}", docker_id(uid)));
                    name = renamed.ok_or_else(gone)?.name().to_string();
                }
            }
        }
    }

    pub(super) fn tell(&self, o: &Object<Instance>, action: &str, more: &[(&str, String)]) {
        self.inner.events.publish(Message::container(o, action, more));
    }
}

pub(super) async fn start(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    checkpoints::own_directory(q.get("checkpoint-dir").unwrap_or_default())?;
    let from = q.get("checkpoint").filter(|c| !c.is_empty());
    if let Some(why) = from.and_then(checkpoint_name_fault) {
        return Err(Error::bad(why));
    }
    let o = api.container(&id).await?;
    match o.status_or_default().phase {
        Phase::Paused => return Err(Error::conflict("cannot start a paused container, try unpause instead")),
        Phase::Removing => return Err(being_removed(&o)),
        p if p.is_live() && from.is_some() => {
            return Err(Error::conflict(format!(
                "container {} is running: stop it before it goes on from a checkpoint",
                brief(&o)
            )));
        }
        p if p.is_live() && p != Phase::Starting => return Ok(empty(StatusCode::NOT_MODIFIED)),
        _ if o.is_deleting() => return Err(being_removed(&o)),
        _ => {}
    }
    networks_are_there(&api, &o).await?;
    let awaited = api.inner.attaches.is_awaited(o.uid());
    let o = switch_on(&api, &o, awaited, from).await?;
    tokio::select! {
        done = running(&api, &o) => drop(done?),
        why = not_placed(&api, &o) => return Err(give_up(&api, &o, &why).await),
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Comes back, with the reason, only where no node takes the instance. A node may become ready or learn something new
/// soon, so it is given some time.
async fn not_placed(api: &DockerApi, o: &Object<Instance>) -> String {
    tokio::time::sleep(PLACED_WITHIN).await;
    let refused = api.follow(o, |seen| {
        let unplaced = seen.filter(|o| o.spec.node_name.is_none())?;
        let said = unplaced
            .status
            .as_ref()?
            .conditions
            .iter()
            .find(|c| c.type_ == "Scheduled")?;
        (said.status == "False").then(|| said.message.clone())
    });
    match refused.await {
        Ok(why) => why,
        // Errors are for those who wait for the instance itself.
        Err(_) => std::future::pending().await,
    }
}

/// A start that failed is over: what finds a node later does not begin behind the user's back.
async fn give_up(api: &DockerApi, o: &Object<Instance>, why: &str) -> Error {
    match api.change(o, |now| now.spec.power = Power::Stopped).await {
        Ok(_) => Error::internal(format!(
            "cannot start container {}: {why}; `biga doctor` tells what a host lacks",
            brief(o)
        )),
        Err(e) => e,
    }
}

/// A container may be made before its networks are. As Docker has it, one that shall go by itself goes where it cannot start.
async fn networks_are_there(api: &DockerApi, o: &Object<Instance>) -> Result<()> {
    for a in &o.spec.networks {
        let is_default = a.network == biga_model::kinds::network::DEFAULT_NETWORK;
        if is_default || api.networks().find("", &a.network).await?.is_some() {
            continue;
        }
        if o.spec.auto_remove {
            remove_by_itself(api, o).await?;
        }
        return Err(Error::not_found(format!("network {} not found", a.network)));
    }
    Ok(())
}

async fn remove_by_itself(api: &DockerApi, o: &Object<Instance>) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        ..DeleteOptions::default()
    };
    match api.specs::<Instance>().delete(api.ns(), o.name(), &options).await {
        Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e.into()),
        _ => Ok(()),
    }
}

fn being_removed(o: &Object<Instance>) -> Error {
    Error::conflict(format!(
        "container {} is marked for removal and cannot be started",
        brief(o)
    ))
}

/// Writes that it should run. One that ended is asked to begin again.
async fn switch_on(
    api: &DockerApi,
    o: &Object<Instance>,
    awaited: bool,
    from: Option<&str>,
) -> Result<Object<Instance>> {
    api.change(o, |now| {
        let (phase, seen) = now
            .status
            .as_ref()
            .map(|s| (s.phase, s.observed_restart))
            .unwrap_or_default();
        now.spec.power = Power::Running;
        // Two starts at once make one start.
        if phase.is_ended() && now.spec.restart_request <= seen {
            now.spec.restart_request += 1;
        }
        if !phase.is_live() {
            now.spec.restore_from = from.map(str::to_owned);
            now.spec.containers.iter_mut().for_each(|c| c.wait_attach = awaited);
        }
    })
    .await
}

/// Waits until the agent has answered this very spec and the instance runs, or ran, or could not be started. Gives the revision
/// that says so, unless the instance is gone again.
async fn running(api: &DockerApi, o: &Object<Instance>) -> Result<Option<u64>> {
    let generation = o.metadata.generation;
    let request = o.spec.restart_request;
    let end: Option<(InstanceStatus, u64)> = api
        .follow(o, |seen| {
            let Some(o) = seen else { return Some(None) };
            let s = o.status_or_default();
            let answered = s.observed_generation >= generation && s.observed_restart >= request;
            let settled = matches!(s.phase, Phase::Running | Phase::Paused | Phase::Stopping) || s.phase.is_ended();
            let revision = o.metadata.resource_version.parse().unwrap_or(0);
            (answered && settled).then_some(Some((s, revision)))
        })
        .await?;
    match end {
        Some((s, _)) if s.phase == Phase::Failed => Err(start_failure(&s)),
        // It ran and is gone again, if it was to go by itself.
        None if !o.spec.auto_remove => Err(Error::not_found(format!("No such container: {}", docker_id(o.uid())))),
        end => Ok(end.map(|(_, revision)| revision)),
    }
}

/// Clients tell exit codes 126 and 127 by these sentences.
fn start_failure(s: &InstanceStatus) -> Error {
    let why = match (s.message.is_empty(), s.reason.is_empty()) {
        (false, _) => s.message.clone(),
        (true, false) => s.reason.clone(),
        (true, true) => "the agent does not say why".into(),
    };
    let says = |words: &[&str]| words.iter().any(|w| why.contains(w));
    let head = "failed to create task for container";
    match s.exit_code {
        Some(127) if says(&["executable file not found", "no such file or directory"]) => {
            Error::bad(format!("{head}: {why}"))
        }
        Some(127) => Error::bad(format!("{head}: {why}: executable file not found in $PATH")),
        Some(126) if says(&["permission denied", "is a directory"]) => Error::bad(format!("{head}: {why}")),
        Some(126) => Error::bad(format!("{head}: {why}: permission denied")),
        _ => Error::internal(format!("{head}: {why}")),
    }
}

pub(super) async fn stop(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let (time, signal) = stop_options(&q)?;
    if !o.status_or_default().phase.is_live() {
        // A policy may be about to start it again.
        if o.spec.power != Power::Stopped && o.status_or_default().phase.is_ended() {
            api.change(&o, |now| now.spec.power = Power::Stopped).await?;
        }
        return Ok(empty(StatusCode::NOT_MODIFIED));
    }
    tell_stop(&api, &o, &signal).await;
    let o = api
        .change(&o, |now| {
            now.spec.power = Power::Stopped;
            apply(&mut now.spec.stop, time, &signal);
        })
        .await?;
    let generation = o.metadata.generation;
    let gone = api
        .follow(&o, |seen| {
            let Some(o) = seen else { return Some(true) };
            let s = o.status_or_default();
            (s.observed_generation >= generation && !s.phase.is_live()).then_some(false)
        })
        .await?;
    if o.spec.auto_remove && !gone {
        // The agent keeps what the user switched off; Docker does not.
        remove_by_itself(&api, &o).await?;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A signal by its name or number.
pub(super) fn signal_named(word: &str) -> Result<i32> {
    parse_signal(word).map_err(|_| Error::bad(format!("Invalid signal: {word}")))
}

fn stop_options(q: &Query) -> Result<(Option<u32>, Option<String>)> {
    let time = q.number::<i64>("t")?.map(grace);
    let signal = q.get("signal").map(str::to_string);
    if let Some(s) = &signal {
        signal_named(s)?;
    }
    Ok((time, signal))
}

/// Whoever follows the events is told by which signal a run is asked to end.
async fn tell_stop(api: &DockerApi, o: &Object<Instance>, signal: &Option<String>) {
    let image = api.image_config(&o.status_or_default().image_id).await;
    let of_image = image.pointer("/config/StopSignal").and_then(serde_json::Value::as_str);
    let signal = signal.as_deref().or(o.spec.stop.signal.as_deref()).or(of_image);
    let number = signal.and_then(|s| parse_signal(s).ok()).unwrap_or(15);
    api.tell(o, "kill", &[("signal", number.to_string())]);
}

fn apply(stop: &mut biga_model::StopSpec, time: Option<u32>, signal: &Option<String>) {
    if let Some(t) = time {
        stop.grace_period_seconds = Some(t);
    }
    if let Some(s) = signal {
        stop.signal = Some(s.clone());
    }
}

pub(super) async fn restart(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let (time, signal) = stop_options(&q)?;
    if o.is_deleting() {
        return Err(being_removed(&o));
    }
    if o.status_or_default().phase.is_live() {
        tell_stop(&api, &o, &signal).await;
    }
    let o = api
        .change(&o, |now| {
            now.spec.power = Power::Running;
            now.spec.restore_from = None;
            now.spec.restart_request += 1;
            now.spec.containers.iter_mut().for_each(|c| c.wait_attach = false);
            apply(&mut now.spec.stop, time, &signal);
        })
        .await?;
    if let Some(revision) = running(&api, &o).await? {
        // After the start that belongs to it.
        api.inner.events.told(revision).await;
        api.tell(&o, "restart", &[]);
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn kill(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let about = |e: Error| Error::new(e.status, format!("cannot kill container: {id}: {}", e.message));
    let signal = signal_named(q.get("signal").unwrap_or("KILL"))?;
    let o = api.container(&id).await.map_err(about)?;
    if !o.status_or_default().phase.is_live() {
        return Err(about(Error::conflict(format!(
            "container {} is not running",
            docker_id(o.uid())
        ))));
    }
    api.backend().signal(api.ns(), o.name(), signal).await?;
    api.tell(&o, "kill", &[("signal", signal.to_string())]);
    let kills = signal == 9;
    let stops = o
        .spec
        .stop
        .signal
        .as_deref()
        .is_some_and(|s| parse_signal(s) == Ok(signal));
    if (kills || stops) && o.spec.restart_policy.policy != RestartWhen::No {
        // Killed by hand: the policy does not start it again. That is no stop, and is not told as one.
        let run = o.status_or_default().started_at;
        api.change(&o, |now| {
            now.spec.power = Power::Stopped;
            let run = run.map(|t| t.to_string()).unwrap_or_default();
            now.metadata.annotations.insert(KILLED_RUN.into(), run);
        })
        .await?;
    }
    if kills {
        let started = o.status_or_default().started_at;
        let dead = api.follow(&o, |seen| match seen {
            None => Some(()),
            Some(o) => {
                let s = o.status_or_default();
                (!s.phase.is_live() || s.started_at != started).then_some(())
            }
        });
        // Late is no failure: the signal was sent.
        if let Ok(r) = tokio::time::timeout(KILLED, dead).await {
            r?;
        }
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn pause(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    let o = api.container(&id).await?;
    match o.status_or_default().phase {
        Phase::Running => freeze(&api, &o, Power::Paused, Phase::Paused).await,
        Phase::Paused => Err(Error::conflict(format!(
            "Container {} is already paused",
            docker_id(o.uid())
        ))),
        _ => Err(Error::conflict(format!(
            "Container {} is not running",
            docker_id(o.uid())
        ))),
    }
}

pub(super) async fn unpause(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    let o = api.container(&id).await?;
    match o.status_or_default().phase {
        Phase::Paused => freeze(&api, &o, Power::Running, Phase::Running).await,
        _ => Err(Error::conflict(format!(
            "Container {} is not paused",
            docker_id(o.uid())
        ))),
    }
}

async fn freeze(api: &DockerApi, o: &Object<Instance>, power: Power, to: Phase) -> Result<Response> {
    let o = api.change(o, |now| now.spec.power = power).await?;
    let generation = o.metadata.generation;
    let reached = api
        .follow(&o, |seen| {
            let Some(o) = seen else { return Some(None) };
            let s = o.status_or_default();
            // An answer to this spec in another phase means that it could not be done.
            (s.observed_generation >= generation).then_some(Some(s))
        })
        .await?;
    match reached {
        Some(s) if s.phase == to => Ok(empty(StatusCode::NO_CONTENT)),
        Some(s) if s.phase.is_ended() => Err(Error::conflict(format!(
            "Container {} is not running",
            docker_id(o.uid())
        ))),
        Some(_) => {
            // Take the wish back, so that it is not carried out behind the client's back.
            let back = if to == Phase::Paused {
                Power::Running
            } else {
                Power::Paused
            };
            api.change(&o, |now| now.spec.power = back).await?;
            let verb = if to == Phase::Paused { "pause" } else { "unpause" };
            Err(Error::internal(format!(
                "Cannot {verb} container {}: the node refused",
                docker_id(o.uid())
            )))
        }
        None => Err(Error::not_found(format!("No such container: {}", docker_id(o.uid())))),
    }
}
