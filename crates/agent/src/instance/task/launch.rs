//! Starts a run.

use std::sync::Arc;

use biga_model::{HealthStatus, Instance, Object, Phase};
use biga_runtime::{Error as RuntimeError, Events, Runtime};
use biga_wire::shim::{State, Status};

use super::outcome::launch_failure;
use super::{SHOW_PREPARING_AFTER, Task, containers};
use crate::checkpoints;
use crate::instance::Failure;
use crate::instance::plan::LaunchReason;

impl Task {
    pub(super) async fn launch(&mut self, object: &Object<Instance>, reason: LaunchReason) {
        match reason {
            LaunchReason::Policy => {
                self.status.restart_count += 1;
                self.restarts_in_row = self.restarts_in_row.saturating_add(1);
            }
            LaunchReason::Wanted | LaunchReason::Requested => {
                self.status.restart_count = 0;
                self.restarts_in_row = 0;
            }
        }
        let s = &mut self.status;
        s.observed_restart = object.spec.restart_request;
        s.stopped_by_user = false;
        (s.exit_code, s.oom_killed, s.finished_at, s.guest) = (None, false, None, None);
        (s.reason, s.message) = (String::new(), String::new());
        s.phase = Phase::Preparing;
        s.health = None;
        self.unhealthy = false;
        let from = object
            .spec
            .restore_from
            .as_deref()
            .filter(|_| reason != LaunchReason::Policy);
        let mut config = match self.prepare(object).await {
            Ok(c) => c,
            Err(f) => return self.failed(&f, object).await,
        };
        // Nobody attaches to a run that a policy begins: whoever waited for the first one has it.
        config.wait_attach_ms *= u64::from(reason != LaunchReason::Policy);
        if let Some(Err(f)) = from.map(|name| self.host.restore(name, &mut config)) {
            self.host.after_run(&self.uid).await;
            return self.failed(&f, object).await;
        }
        let runtime = self.host.runtime(object.spec.isolation);
        match self.start(&runtime, &config).await {
            Ok((status, events)) => {
                self.hold(runtime, events, config.limits.clone(), containers(&status, object));
                self.status.phase = Phase::Starting;
                self.status.health = self
                    .host
                    .health_check(object, &self.status)
                    .map(|_| HealthStatus::default());
                self.take_status(&status, object).await;
                let (reason, message) = match from {
                    Some(name) => ("Restored", format!("it goes on from checkpoint {name}")),
                    None => ("Started", "it runs".to_owned()),
                };
                self.host.event(object, false, reason, &message);
            }
            Err(e) => {
                let _ = runtime.delete(&self.uid).await;
                self.host.after_run(&self.uid).await;
                let mut failure = launch_failure(&e);
                if from.is_some() {
                    failure.reason = checkpoints::RESTORE_FAILED;
                }
                self.failed(&failure, object).await;
            }
        }
    }

    /// Prepares; where that takes long, lets people see that it goes on.
    pub(super) async fn prepare(
        &mut self,
        object: &Object<Instance>,
    ) -> Result<biga_wire::config::ShimConfig, Failure> {
        let mut status = self.status.clone();
        let host = self.host.clone();
        let result = {
            let preparing = host.prepare(object, &mut status);
            tokio::pin!(preparing);
            tokio::select! {
                r = &mut preparing => r,
                () = tokio::time::sleep(SHOW_PREPARING_AFTER) => {
                    self.write().await;
                    preparing.await
                }
            }
        };
        self.status = status;
        result
    }

    async fn start(
        &self,
        runtime: &Arc<dyn Runtime>,
        config: &biga_wire::config::ShimConfig,
    ) -> Result<(Status, Events), RuntimeError> {
        let created = runtime.create(config).await?;
        match runtime.adopt(&self.uid).await {
            Ok(found) => Ok(found),
            // So short a run that its shim has gone already: what it wrote down is the truth.
            Err(RuntimeError::Gone(_)) if self.host.last_exit(&self.uid).is_some() => {
                let status = Status {
                    exit: self.host.last_exit(&self.uid),
                    state: State::Exited,
                    ..created
                };
                let (_, events) = tokio::sync::mpsc::channel(1);
                Ok((status, events))
            }
            Err(e) => Err(e),
        }
    }
}
