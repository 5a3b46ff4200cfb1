//! The driver: plans whenever the store changed, and at least once a minute.

use std::sync::Arc;
use std::time::Duration;

use biga_model::{Instance, Node, Object, Timestamp};
use biga_store::{Revision, Store, typed};
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::execute::{Error, Executor, failed};
use crate::garbage::Seen;
use crate::view::View;
use crate::{compaction, events, garbage, schedule};

/// Settings of the driver.
#[derive(Debug, Clone)]
pub struct Options {
    /// Plan at least this often, for what depends on time.
    pub every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            every: Duration::from_secs(60),
        }
    }
}

/// Runs all controllers upon one store.
pub struct Driver {
    store: Arc<dyn Store>,
    executor: Executor,
    options: Options,
    /// `None` until the first round, and after a watch was lost.
    view: Option<View>,
    marks: compaction::Marks,
    compacted: Revision,
    /// When events were last looked through.
    swept: Option<Timestamp>,
}

impl Driver {
    /// A driver that does nothing yet.
    pub fn new(store: Arc<dyn Store>, options: Options) -> Driver {
        Driver {
            executor: Executor::new(store.clone()),
            store,
            options,
            view: None,
            marks: compaction::Marks::new(),
            compacted: 0,
            swept: None,
        }
    }

    /// Runs until `shutdown`, or until the store closes.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        const FIRST_PAUSE: Duration = Duration::from_millis(50);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.round(Timestamp::now()).await {
                Ok(_) => pause = FIRST_PAUSE,
                Err(e) if e.is_closed() => return,
                Err(e) => {
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "a controller failed and will try again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                    continue;
                }
            }
            let Some(view) = &mut self.view else { continue };
            tokio::select! {
                changed = view.changed() => {
                    if changed.is_err() {
                        self.view = None;
                    }
                }
                () = tokio::time::sleep(self.options.every) => {}
            }
        }
    }

    /// Plans upon the present state and executes the plans. Gives back what was done.
    pub async fn round(&mut self, now: Timestamp) -> Result<Vec<Action>, Error> {
        let actions = self
            .plan(now)
            .await
            .map_err(failed("read the state for the controllers"))?;
        let mut failure = None;
        for action in &actions {
            tracing::debug!(%action, "controller");
            if let Err(e) = self.executor.execute(action).await {
                // The others must not wait for this one.
                failure = Some(e);
            }
        }
        failure.map_or(Ok(actions), Err)
    }

    async fn plan(&mut self, now: Timestamp) -> Result<Vec<Action>, typed::Error> {
        let mut view = match self.view.take() {
            Some(view) => view,
            None => View::new(&self.store).await?,
        };
        if view.catch_up().is_err() {
            view = View::new(&self.store).await?;
        }
        let mut actions = Vec::new();
        if view.instances.values().any(schedule::concerns) {
            let instances: Vec<&Object<Instance>> = view.instances.values().collect();
            let nodes: Vec<&Object<Node>> = view.nodes.values().collect();
            actions.extend(schedule::plan(&instances, &nodes));
        }
        if view.objects.values().any(garbage::concerns) {
            let all: Vec<&Seen> = view.objects.values().collect();
            actions.extend(garbage::plan(&all));
        }
        if self.swept.is_none_or(|at| now.as_second() - at.as_second() >= 30) {
            self.swept = Some(now);
            actions.extend(events::plan(view.events.values(), now));
        }
        actions.extend(self.compaction(view.revision, now));
        self.view = Some(view);
        Ok(actions)
    }

    fn compaction(&mut self, revision: Revision, now: Timestamp) -> Option<Action> {
        let planned = compaction::plan(&self.marks, self.compacted, now);
        if let Some(Action::Compact { revision }) = &planned {
            self.compacted = *revision;
            self.marks.retain(|(_, r)| r > revision);
        }
        // A mark every few seconds is fine enough, and keeps them few.
        let due = |at: &Timestamp| now.as_second() - at.as_second() >= 10;
        if self.marks.back().is_none_or(|(at, r)| *r < revision && due(at)) {
            self.marks.push_back((now, revision));
        }
        planned
    }
}
