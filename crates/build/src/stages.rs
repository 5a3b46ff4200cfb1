//! All stages that the target needs, and the image that comes out.

use std::sync::Arc;

use biga_dockerfile::{Dockerfile, Instruction, Step};
use biga_image::{
    Built, Draft, History, ImageId, ImageRecord, ImageStore, KeptLayer, LayerRecord, Platform, StepCache,
};
use biga_model::{Reference, Timestamp};
use biga_wire::build::Event;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::args::Globals;
use crate::stage::Stage;
use crate::{Audience, Error, Prepared};

/// Seconds that the last good step of a build that failed is kept for the next try.
const KEEP_FAILED: i64 = 24 * 3600;

/// Outcomes of earlier builds.
#[derive(Clone)]
pub struct Cache {
    store: Arc<ImageStore>,
    steps: Arc<StepCache>,
    /// With `--cache-from`: only what these have.
    from: Option<Arc<Vec<ImageRecord>>>,
    off: bool,
}

impl Cache {
    /// The outcome of a step on this draft.
    pub fn lookup(&self, draft: &Draft, key: &str, by: &str) -> Option<(History, Option<KeptLayer>)> {
        if self.off {
            return None;
        }
        match &self.from {
            None => self.store.cached_step(&self.steps, key),
            Some(from) => from.iter().find_map(|r| self.of_image(r, draft, by)),
        }
    }

    /// The next step of an image whose first steps are those of the draft.
    fn of_image(&self, image: &ImageRecord, draft: &Draft, by: &str) -> Option<(History, Option<KeptLayer>)> {
        let before = draft.history();
        let next = image.history.get(before.len())?;
        let same = image.history.starts_with(&before)
            && draft.diff_ids().eq(image
                .layers
                .iter()
                .take(draft.diff_ids().count())
                .map(|l| l.diff_id.as_str()));
        if !same || next.created_by.as_deref() != Some(by) {
            return None;
        }
        let layer = match next.empty_layer {
            true => None,
            false => {
                let id = &image.layers.get(draft.diff_ids().count())?.diff_id;
                Some(self.store.kept_layer(id).ok()??)
            }
        };
        Some((next.clone(), layer))
    }
}

/// A build at work. Stages are built by futures of one task; each waits for those that it needs.
pub struct Building<'a> {
    /// What is built.
    pub prepared: &'a Prepared,
    /// Who listens to the whole.
    audience: &'a Audience,
    /// Variables of all stages.
    pub globals: Mutex<Globals>,
    cache: Cache,
    /// The stages that the target needs.
    plan: Plan,
    /// What became of stages, by their numbers.
    done: Vec<watch::Sender<Option<Draft>>>,
    /// Commands that may run at a time.
    runs: Semaphore,
}

/// What is built, in which order it is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Plan {
    target: usize,
    /// For each stage its base, and the platform that it names.
    names: Vec<(String, Option<String>)>,
    /// For each stage the one that it begins with.
    bases: Vec<Option<usize>>,
    needed: Vec<bool>,
    /// For each stage the number of its first step.
    first: Vec<usize>,
    total: usize,
}

impl Prepared {
    /// Builds. What fails is told by the error alone.
    pub async fn run(self, audience: &Audience) -> Result<ImageRecord, Error> {
        let store = self.builder.store().clone();
        let reading = store.clone();
        let steps = crate::prepare::blocking(move || Ok(reading.step_cache()?)).await?;
        let mut from = Vec::new();
        for name in &self.request.cache_from {
            // One that is not here has nothing to give.
            from.extend(self.builder.here(name).await.ok());
        }
        let mut globals = Globals::new(self.request.build_args.clone());
        let plan = self.plan(&mut globals)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let building = Building {
            globals: Mutex::new(globals),
            cache: Cache {
                store,
                steps: Arc::new(steps),
                from: (!self.request.cache_from.is_empty()).then(|| Arc::new(from)),
                off: self.request.no_cache,
            },
            done: self.file.stages.iter().map(|_| watch::Sender::new(None)).collect(),
            plan,
            runs: Semaphore::new(cores.max(2)),
            prepared: &self,
            audience,
        };
        building.all().await
    }

    /// Which stages are built, and what they begin with.
    fn plan(&self, globals: &mut Globals) -> Result<Plan, Error> {
        let file = &self.file;
        for step in &file.globals {
            let known = globals.clone();
            let expanded = step
                .instruction
                .expand(file.escape, &|n| known.get(n))
                .map_err(|e| at(step, e))?;
            if let Instruction::Arg(list) = expanded {
                list.into_iter()
                    .for_each(|(name, default)| globals.declare(&name, default));
            }
        }
        let target = file
            .target(&self.request.target)
            .map_err(|e| Error::Invalid(e.to_string()))?;
        let mut names = Vec::with_capacity(file.stages.len());
        for stage in &file.stages {
            let expanded = stage.from.instruction.expand(file.escape, &|n| globals.get(n));
            match expanded.map_err(|e| at(&stage.from, e))? {
                Instruction::From { image, .. } if self.named.contains_key(&image) => {
                    return Err(at(
                        &stage.from,
                        format!("{image} is a directory of the client, and a stage begins with an image"),
                    ));
                }
                Instruction::From { image, platform, .. } => names.push((image, platform)),
                _ => return Err(at(&stage.from, "a stage begins with FROM".into())),
            }
        }
        let mut bases: Vec<Option<usize>> = names.iter().enumerate().map(|(i, (n, _))| file.stage(n, i)).collect();
        for (base, (name, _)) in bases.iter_mut().zip(&mut names) {
            if let Some(image) = self.request.contexts.get(name) {
                (*base, *name) = (None, image.clone());
            }
        }
        let needed = file.needed(target, &bases);
        // The classic builder counts the arguments before the first stage; BuildKit does not show them.
        let before = if self.request.parallel { 0 } else { file.globals.len() };
        let (mut first, mut total) = (Vec::new(), before);
        for (i, stage) in file.stages.iter().enumerate() {
            first.push(total + 1);
            let labels = usize::from(i == target && !self.request.labels.is_empty());
            total += if needed[i] { stage.steps.len() + 1 + labels } else { 0 };
        }
        Ok(Plan {
            target,
            names,
            bases,
            needed,
            first,
            total,
        })
    }
}

fn at(step: &Step, e: String) -> Error {
    Error::Invalid(format!("dockerfile parse error on line {}: {e}", step.line))
}

impl Building<'_> {
    /// The Dockerfile.
    pub fn file(&self) -> &Dockerfile {
        &self.prepared.file
    }

    /// Outcomes of earlier builds, for another thread.
    pub fn cache(&self) -> Cache {
        self.cache.clone()
    }

    /// The outcome of a step on this draft.
    pub fn lookup(&self, draft: &Draft, key: &str, by: &str) -> Option<(History, Option<KeptLayer>)> {
        self.cache.lookup(draft, key, by)
    }

    /// To be held while a command runs.
    pub async fn permit(&self) -> Result<SemaphorePermit<'_>, Error> {
        let permit = self.runs.acquire().await;
        permit.map_err(|_| Error::Failed("the build ends".into()))
    }

    async fn all(&self) -> Result<ImageRecord, Error> {
        let needed = (0..self.done.len()).filter(|i| self.plan.needed[*i]);
        if self.prepared.request.parallel {
            let mut stages: FuturesUnordered<_> = needed.map(|i| self.one(i)).collect();
            // The first that fails ends the others: what they run goes with them.
            while let Some(done) = stages.next().await {
                done?;
            }
        } else {
            let mut number = 1;
            for arg in &self.file().globals {
                self.begin_step(&mut number, arg, None, self.audience).await?;
            }
            for i in needed {
                self.one(i).await?;
            }
        }
        let record = self.image().await?;
        let unused = self.globals.lock().unused().join(" ");
        if !unused.is_empty() {
            self.audience
                .note(format!("[Warning] One or more build-args [{unused}] were not consumed"))
                .await?;
        }
        let image = record.image_id.to_string();
        self.audience.tell(Event::Built { image }).await?;
        self.name(&record).await?;
        Ok(record)
    }

    /// One stage, from its base to its last step.
    async fn one(&self, index: usize) -> Result<(), Error> {
        let audience = Audience {
            stage: self.prepared.request.parallel.then_some(index),
            ..self.audience.clone()
        };
        let done = self.begin(index, &audience).await;
        if let Err(e) = &done
            && !matches!(e, Error::Cancelled)
        {
            audience.tell(Event::Broken).await?;
        }
        done
    }

    async fn begin(&self, index: usize, audience: &Audience) -> Result<(), Error> {
        let stage = &self.file().stages[index];
        let (name, platform) = &self.plan.names[index];
        let base = self.plan.bases[index];
        // Only what can begin is told.
        if let Some(base) = base {
            self.stage_done(base, name, audience).await?;
        }
        let mut number = self.plan.first[index];
        self.begin_step(&mut number, &stage.from, stage.name.as_deref(), audience)
            .await?;
        if name.is_empty() {
            return Err(at(
                &stage.from,
                format!("base name ({}) should not be blank", stage.from.text),
            ));
        }
        check_platform(platform.as_deref())?;
        let draft = self.base(name, base, audience).await?;
        let fresh = stage.name.as_ref().is_some_and(|n| {
            let mut all = self.prepared.request.no_cache_stages.iter();
            all.any(|f| f.eq_ignore_ascii_case(n))
        });
        let mut made = Stage::new(draft, audience.clone(), fresh);
        if let Err(e) = self.stage(index, &mut made, number, audience).await {
            self.keep_for_next_try(&made.draft).await;
            return Err(e);
        }
        self.done[index].send_replace(Some(made.draft));
        Ok(())
    }

    async fn begin_step(
        &self,
        number: &mut usize,
        step: &Step,
        stage: Option<&str>,
        audience: &Audience,
    ) -> Result<(), Error> {
        let event = Event::Step {
            number: *number,
            total: self.plan.total,
            text: step.text.clone(),
            line: step.line,
            stage: stage.unwrap_or_default().to_owned(),
        };
        *number += 1;
        audience.tell(event).await
    }

    /// What became of a stage that is needed, once it is done.
    async fn stage_done(&self, index: usize, word: &str, audience: &Audience) -> Result<Draft, Error> {
        if !self.plan.needed[index] {
            return Err(Error::Invalid(format!(
                "stage {word} is named by a build trigger alone, and so was not built: name it in a COPY"
            )));
        }
        let mut done = self.done[index].subscribe();
        let waiting = async {
            let done = done.wait_for(Option::is_some).await;
            let draft = done.ok().and_then(|d| d.clone());
            draft.ok_or_else(|| Error::Failed(format!("stage {word} was not built")))
        };
        audience.wait(waiting).await
    }

    async fn base(&self, name: &str, stage: Option<usize>, audience: &Audience) -> Result<Draft, Error> {
        let store = self.prepared.builder.store().clone();
        if let Some(i) = stage {
            let draft = self.stage_done(i, name, audience).await?;
            let image = draft.id()?.to_string();
            audience.tell(Event::Made { image }).await?;
            // Its steps are those of another image.
            return Ok(draft);
        }
        if name.eq_ignore_ascii_case("scratch") {
            audience.note(" --->").await?;
            return Ok(store.draft_of_nothing(&Platform::host()));
        }
        let record = self.prepared.image(name, audience).await?;
        let image = record.image_id.to_string();
        audience.tell(Event::Made { image }).await?;
        let id = record.image_id;
        crate::prepare::blocking(move || Ok(store.draft(&id)?)).await
    }

    async fn stage(&self, index: usize, made: &mut Stage, mut number: usize, audience: &Audience) -> Result<(), Error> {
        let prepared = self.prepared;
        let triggers = made.triggers();
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            audience
                .note(format!("# Executing {} build trigger{plural}", triggers.len()))
                .await?;
        }
        for text in triggers {
            let instruction = Instruction::alone(&text).map_err(|e| Error::Invalid(format!("ONBUILD {text}: {e}")))?;
            let line = prepared.file.stages[index].from.line;
            let step = Step {
                line,
                text,
                instruction,
            };
            made.step(self, index, &step).await?;
        }
        for step in &prepared.file.stages[index].steps {
            self.begin_step(&mut number, step, prepared.file.stages[index].name.as_deref(), audience)
                .await?;
            made.step(self, index, step).await?;
        }
        let labels = &prepared.request.labels;
        if index == self.plan.target && !labels.is_empty() {
            let list: Vec<(String, String)> = labels.iter().map(|(k, v)| (quoted(k), quoted(v))).collect();
            let text = labels
                .iter()
                .fold("LABEL".to_owned(), |t, (k, v)| format!("{t} {k}={v}"));
            let step = Step {
                line: 0,
                text,
                instruction: Instruction::Label(list),
            };
            self.begin_step(&mut number, &step, None, audience).await?;
            made.step(self, index, &step).await?;
        }
        Ok(())
    }

    /// The layers of a stage before this one, once it is done, or of an image.
    pub async fn layers_of(&self, word: &str, index: usize, audience: &Audience) -> Result<Vec<LayerRecord>, Error> {
        if let Some(image) = self.prepared.request.contexts.get(word) {
            return Ok(self.prepared.image(image, audience).await?.layers);
        }
        if let Some(i) = self.file().stage(word, index) {
            let draft = self.stage_done(i, word, audience).await?;
            return Ok(self.prepared.builder.store().draft_layers(&draft));
        }
        Ok(self.prepared.image(word, audience).await?.layers)
    }

    fn drafts(&self) -> Vec<Option<Draft>> {
        self.done.iter().map(|d| d.borrow().clone()).collect()
    }

    /// Keeps the stages as images: the target's, and with it the others, for later builds.
    async fn image(&self) -> Result<ImageRecord, Error> {
        let target = self.plan.target;
        let drafts = self.drafts();
        let store = self.prepared.builder.store();
        let mut with: Vec<ImageId> = Vec::new();
        for draft in drafts
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != target)
            .filter_map(|(_, d)| d.as_ref())
        {
            if draft.own_steps() > 0 {
                with.push(store.keep_draft(draft, Built::default()).await?.image_id);
            }
        }
        let draft = drafts[target]
            .as_ref()
            .ok_or_else(|| Error::Failed("the target was not built".into()))?;
        let built = Built {
            with,
            until: self.prepared.request.discard.then(next_try).flatten(),
            ..Built::default()
        };
        Ok(store.keep_draft(draft, built).await?)
    }

    /// After a failure: what was good is used again if the next try comes soon enough.
    async fn keep_for_next_try(&self, draft: &Draft) {
        let store = self.prepared.builder.store();
        let until = next_try();
        for draft in self
            .drafts()
            .iter()
            .flatten()
            .chain([draft])
            .filter(|d| d.own_steps() > 0)
        {
            let built = Built {
                until,
                ..Built::default()
            };
            if let Err(e) = store.keep_draft(draft, built).await {
                tracing::warn!("the steps before the one that failed are not kept: {e}");
            }
        }
    }

    async fn name(&self, record: &ImageRecord) -> Result<(), Error> {
        let images = &self.prepared.builder.engine.images;
        let mut tags = self.prepared.request.tags.clone();
        tags.dedup();
        for tag in &tags {
            let name: Reference = tag.parse().map_err(Error::Invalid)?;
            images.name(&name, record).await?;
            let name = name.familiar();
            self.audience.tell(Event::Tagged { name }).await?;
        }
        if tags.is_empty() && !self.prepared.request.discard && record.built.is_some() {
            let id: String = record.image_id.hex().chars().take(12).collect();
            let made_up: Reference = format!("built:{id}").parse().map_err(Error::Failed)?;
            images.keep_nameless(&made_up, record).await?;
        }
        images.keep_budget(Some(&record.image_id)).await;
        Ok(())
    }
}

/// Until when something is kept for the next build alone.
fn next_try() -> Option<Timestamp> {
    Timestamp::from_second(Timestamp::now().as_second() + KEEP_FAILED).ok()
}

/// In quotes, so that nothing in it is taken for a variable.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn check_platform(wanted: Option<&str>) -> Result<(), Error> {
    let Some(text) = wanted.filter(|t| !t.is_empty()) else {
        return Ok(());
    };
    let wanted: Platform = text.parse().map_err(Error::Invalid)?;
    let host = Platform::host();
    match (&wanted.os, &wanted.architecture) == (&host.os, &host.architecture) {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "stages are built for the node's own platform {host}, not for {wanted}"
        ))),
    }
}
