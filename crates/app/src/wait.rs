//! Waiting for instances, with progress on standard error.

use std::time::Duration;

use biga_client::{Error, ListParams, WatchEvent};
use biga_model::{Image, ImagePhase, Instance, Object, Phase, Reference};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::{draws, note};

/// How long a start may take before people are shown what it waits for.
const SHOW_PULL_AFTER: Duration = Duration::from_millis(150);
/// How long the scheduler may take to find a node.
const PLACED_WITHIN: Duration = Duration::from_secs(3);
/// How long the history of one that is gone is read.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Follows the instance until `done` gives a value. `None` stands for an instance that is gone, or was replaced by another of the same name.
pub async fn instance<T>(
    cx: &Context,
    o: &Object<Instance>,
    mut done: impl FnMut(Option<&Object<Instance>>) -> Option<T>,
) -> Result<T, Error> {
    let uid = o.uid().to_string();
    let api = cx.api::<Instance>();
    let mine = |seen: Option<&Object<Instance>>| done(seen.filter(|s| s.uid() == uid));
    // One that was made just now has no past to be mistaken for the present.
    match o.status {
        None => api.wait_from(o, mine).await,
        Some(_) => api.wait_for(o.name(), mine).await,
    }
}

/// The last state of an instance that is gone, as the history since `o` was read tells it; `None` where that cannot be told.
/// One that removes itself may be gone before anybody asks why it did not start.
pub async fn last_state(cx: &Context, o: &Object<Instance>) -> Option<Object<Instance>> {
    let api = cx.api::<Instance>();
    let mut watch = api.watch_from(&ListParams::named(o.name()), &o.metadata.resource_version);
    let told = async {
        let mut last = None;
        loop {
            match watch.next_event().await.ok()? {
                WatchEvent::Applied(s) if s.uid() == o.uid() => last = Some(s),
                WatchEvent::Deleted(s) if s.uid() == o.uid() => {
                    return match start_failure(&s) {
                        Some(_) => Some(s),
                        None => last.or(Some(s)),
                    };
                }
                WatchEvent::Listed(_) => return None,
                _ => {}
            }
        }
    };
    tokio::time::timeout(TOLD_WITHIN, told).await.ok().flatten()
}

/// Waits until the agent has answered this very generation of the spec and the instance runs. Shows the pull of its image.
pub async fn running(cx: &Context, o: &Object<Instance>) -> anyhow::Result<Object<Instance>> {
    let generation = o.metadata.generation;
    let seen = with_pull(
        cx,
        o.spec.main_image(),
        instance(cx, o, |seen| match seen {
            None => Some(None),
            Some(s) => {
                let status = s.status_or_default();
                let answered =
                    status.observed_generation >= generation && status.observed_restart >= s.spec.restart_request;
                let settled = matches!(status.phase, Phase::Running | Phase::Paused) || status.phase.is_ended();
                (answered && settled).then(|| Some(s.clone()))
            }
        }),
    )
    .await?;
    match seen {
        Some(s) => match start_failure(&s) {
            Some(e) => Err(e),
            None => Ok(s),
        },
        None if o.spec.auto_remove => Ok(o.clone()),
        None => Err(fail(
            Code::NOT_FOUND,
            format!("instance {} was removed meanwhile", o.name()),
        )),
    }
}

/// Comes back, with the reason, only where no node takes the instance. A node may become ready or learn something new
/// soon, so it is given some time.
pub async fn not_placed(cx: &Context, o: &Object<Instance>) -> anyhow::Error {
    loop {
        tokio::time::sleep(PLACED_WITHIN).await;
        // Errors are for those who wait for the instance itself.
        let Ok(Some(seen)) = cx.api::<Instance>().get_opt(o.name()).await else {
            continue;
        };
        if seen.uid() != o.uid() || seen.spec.node_name.is_some() {
            return std::future::pending().await;
        }
        if let Some(why) = unplaceable(&seen) {
            return fail(Code::RUN_FAILED, format!("cannot start {}: {why}", o.name()));
        }
    }
}

/// What the scheduler says of an instance that it could not place.
fn unplaceable(o: &Object<Instance>) -> Option<String> {
    let conditions = o.status_or_default().conditions;
    let said = conditions
        .into_iter()
        .find(|c| c.type_ == "Scheduled" && c.status == "False")?;
    Some(said.message)
}

/// The failure of an instance that could not be started.
pub fn start_failure(o: &Object<Instance>) -> Option<anyhow::Error> {
    let s = o.status_or_default();
    if s.phase != Phase::Failed {
        return None;
    }
    let why = match (s.message.is_empty(), s.reason.is_empty()) {
        (false, _) => s.message.clone(),
        (true, false) => s.reason.clone(),
        (true, true) => "the agent does not say why".into(),
    };
    let code = match s.exit_code {
        Some(c @ (126 | 127)) => Code::of_process(c),
        _ => Code::RUN_FAILED,
    };
    Some(fail(code, format!("cannot start {}: {why}", o.name())))
}

/// Waits until the instance does not run any more.
pub async fn ended(cx: &Context, o: &Object<Instance>) -> Result<Option<Object<Instance>>, Error> {
    instance(cx, o, |seen| match seen {
        None => Some(None),
        Some(s) => s.status_or_default().phase.is_ended().then(|| Some(s.clone())),
    })
    .await
}

/// Waits until the instance is gone.
pub async fn gone(cx: &Context, o: &Object<Instance>) -> Result<(), Error> {
    instance(cx, o, |seen| seen.is_none().then_some(())).await
}

/// Runs `work` and shows how far the image is while it is pulled.
pub async fn with_pull<T, E>(cx: &Context, reference: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::select! {
        biased;
        r = work => r,
        never = show_pull(cx, reference) => never,
    }
}

/// Shows the pull of an image until dropped. An image that is here needs no words, so at first nothing is asked.
async fn show_pull<T>(cx: &Context, reference: &str) -> T {
    tokio::time::sleep(SHOW_PULL_AFTER).await;
    if let Ok(r) = reference.parse::<Reference>() {
        let mut watch = cx.api::<Image>().watch(&ListParams::named(&r.object_name()));
        let mut bar = PullBar::new(reference);
        while let Ok(event) = watch.next_event().await {
            match event {
                WatchEvent::Listed(all) => all.iter().for_each(|o| bar.show(o)),
                WatchEvent::Applied(o) => bar.show(&o),
                WatchEvent::Deleted(_) => {}
            }
        }
    }
    std::future::pending().await
}

/// A bar that fills while an image is pulled; a line at its begin and end where no terminal is there to draw on.
pub struct PullBar {
    reference: String,
    bar: Option<ProgressBar>,
}

impl PullBar {
    /// Nothing is drawn before the pull begins.
    pub fn new(reference: &str) -> PullBar {
        PullBar {
            reference: familiar(reference),
            bar: None,
        }
    }

    /// Shows what the image's status says.
    pub fn show(&mut self, o: &Object<Image>) {
        let s = o.status_or_default();
        match s.phase {
            ImagePhase::Pulling => {
                let bar = self
                    .bar
                    .get_or_insert_with(|| begin(&format!("pulling {}", self.reference)));
                bar.set_length(s.total_bytes.max(s.done_bytes));
                bar.set_position(s.done_bytes);
            }
            ImagePhase::Ready if self.bar.is_some() => {
                self.clear();
                note(format!("pulled {}", self.reference));
            }
            _ => self.clear(),
        }
    }

    fn clear(&mut self) {
        if let Some(b) = self.bar.take() {
            b.finish_and_clear();
        }
    }
}

impl Drop for PullBar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar of bytes on standard error.
pub fn begin(what: &str) -> ProgressBar {
    if !draws() {
        note(what);
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = "{msg} {wide_bar:.green} {bytes}/{total_bytes} {bytes_per_sec}";
    let bar = ProgressBar::no_length().with_message(what.to_string());
    if let Ok(s) = ProgressStyle::with_template(style) {
        bar.set_style(s);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
