//! Changes of a spec that a run takes while it runs.

use biga_model::{Condition, Instance, Object, Phase};

use super::{Task, now};
use crate::instance::limits;

impl Task {
    /// Changes the limits of what runs to what is wanted.
    pub(super) async fn follow_limits(&mut self, object: &Object<Instance>) {
        let wanted = limits(object);
        let Some(held) = &mut self.held else { return };
        if held.limits == wanted || self.status.phase == Phase::Stopping {
            return;
        }
        held.limits = wanted.clone();
        match held.runtime.update(&self.uid, &wanted).await {
            Ok(()) => self
                .host
                .event(object, false, "Updated", "its limits were changed while it runs"),
            Err(e) => self.host.event(
                object,
                true,
                "UpdateFailed",
                &format!("its limits stay as they were: {e}"),
            ),
        }
    }

    /// Brings its networks to what is wanted.
    pub(super) async fn follow_networks(&mut self, object: &Object<Instance>) {
        let generation = object.metadata.generation;
        if self.status.observed_networks == generation || self.status.phase == Phase::Stopping {
            return;
        }
        let mut status = self.status.clone();
        let result = self.host.follow_networks(object, &mut status).await;
        let changed = status.networks != self.status.networks;
        self.status = status;
        self.status.observed_networks = generation;
        let known = self.status.conditions.iter().any(|c| c.type_ == "Networks");
        match &result {
            Err(f) => {
                Condition::set(
                    &mut self.status.conditions,
                    "Networks",
                    false,
                    f.reason,
                    &f.message,
                    now(),
                );
                self.host.event(object, true, f.reason, &f.message);
            }
            Ok(()) if known => Condition::set(&mut self.status.conditions, "Networks", true, "Joined", "", now()),
            Ok(()) => {}
        }
        // A new generation is written down when it is observed; what others may wait for is written now.
        if changed || result.is_err() || self.status.observed_generation == generation {
            self.write().await;
        }
    }
}
