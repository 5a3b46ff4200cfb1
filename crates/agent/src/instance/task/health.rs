//! Follows the health check of a run.

use std::time::Duration;

use biga_model::{Health, HealthResult, Instance, Object, Phase};

use super::{Task, UNHEALTHY, now};
use crate::instance::health::{self, Prober};

impl Task {
    /// Probes while it runs, and only then.
    pub(super) fn follow_health(&mut self, object: &Object<Instance>) {
        let Some(held) = self.held.as_ref().filter(|_| self.status.phase == Phase::Running) else {
            (self.probes, self.probed) = (None, None);
            return;
        };
        if self.probed.replace(object.metadata.generation) == Some(object.metadata.generation) {
            return;
        }
        let Some(check) = self.host.health_check(object, &self.status) else {
            (self.probes, self.status.health, self.unhealthy) = (None, None, false);
            return;
        };
        if self.probes.as_ref().is_some_and(|(c, _)| *c == check) {
            return;
        }
        let health = self.status.health.get_or_insert_default();
        let starting = health.status == Health::Starting;
        let age = self.status.started_at.map(|s| now().duration_since(s));
        let age = age.and_then(|a| Duration::try_from(a).ok()).unwrap_or_default();
        let left = check.start_period.saturating_sub(age);
        let prober = Prober::start(held.runtime.clone(), self.uid.clone(), check.clone(), starting, left);
        self.probes = Some((check, prober));
    }

    pub(super) async fn take_health(&mut self, result: HealthResult, object: &Object<Instance>) {
        let Some((check, _)) = &self.probes else { return };
        let started = self.status.started_at;
        let health = self.status.health.get_or_insert_default();
        let output = result.output.trim().to_string();
        let changed = health::take(health, check, result, started);
        // Not only when it changes: a restart may be wished for later, and the daemon may begin anew over a sick one.
        self.unhealthy = check.restart && health.status == Health::Unhealthy;
        if changed {
            let sick = health.status == Health::Unhealthy;
            let message = match sick {
                true if output.is_empty() => "its health check failed".to_string(),
                true => format!("its health check failed: {output}"),
                false => "its health check succeeded".to_string(),
            };
            let reason = if sick { UNHEALTHY } else { "Healthy" };
            self.host.event(object, sick, reason, &message);
        }
        self.write().await;
    }
}
