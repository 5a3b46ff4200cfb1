//! Images on this node: pulls what `Image` objects ask for, and forgets what nobody names any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use biga_image::{Auth, ImageId, ImageRecord, ImageStore, LayerState, Platform, Progress, PullOptions};
use biga_model::kinds::image::NAMELESS;
use biga_model::{
    AGENT_FINALIZER, Condition, Image, ImageFormat, ImagePhase, ImageSpec, ImageStatus, Instance, Isolation, Object,
    PullPolicy, Reference, Timestamp,
};
use biga_store::Store;
use biga_store::typed::{DeleteOptions, Error as StoreError, ObjectEvent, Objects, SpecWriter, StatusWriter};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;

use crate::events::Recorder;
use crate::instance::Failure;

/// How often what nobody names is looked for without anybody asking.
const UPKEEP_EVERY: Duration = Duration::from_secs(600);

/// Progress is written at most so often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The images of this node. A cheap handle.
#[derive(Clone)]
pub struct Images {
    files: Arc<ImageStore>,
    objects: Objects<Image>,
    instances: Objects<Instance>,
    specs: SpecWriter<Image>,
    statuses: StatusWriter<Image>,
    events: Recorder,
    /// Uids of objects being pulled.
    pulling: Arc<Mutex<HashSet<String>>>,
}

impl Images {
    /// Over the files of this node and the objects of the store.
    pub fn new(files: Arc<ImageStore>, store: Arc<dyn Store>, events: Recorder) -> Images {
        Images {
            files,
            objects: Objects::new(store.clone()),
            instances: Objects::new(store.clone()),
            specs: SpecWriter::new(store.clone()),
            statuses: StatusWriter::new(store),
            events,
            pulling: Arc::default(),
        }
    }

    /// The files.
    pub fn files(&self) -> &Arc<ImageStore> {
        &self.files
    }

    /// Follows `Image` objects until the task is dropped.
    pub async fn run(self) {
        let following = async {
            loop {
                if let Err(e) = self.follow().await {
                    tracing::warn!("the watch on images broke, listing again: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                // What a crash left of a pull that nobody wants any more goes here.
                if let Err(f) = self.collect().await {
                    tracing::warn!("{f}");
                }
                self.keep_budget(None).await;
            }
        };
        tokio::join!(following, upkeep);
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let list = self.objects.list(None).await?;
        list.items.into_iter().for_each(|o| self.look(o));
        let mut events = self.objects.watch(None, Some(list.revision)).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(ObjectEvent::Put { object, .. }) => self.look(*object),
                Ok(ObjectEvent::Deleted { .. }) => {}
                Err(e @ StoreError::Store(_)) => return Err(e),
                Err(e) => tracing::error!("an image object cannot be read: {e}"),
            }
        }
        Ok(())
    }

    fn look(&self, object: Object<Image>) {
        let status = object.status_or_default();
        let due = object.spec.pull_request > status.observed_pull;
        if !object.is_deleting() && !due {
            return;
        }
        if !self.pulling.lock().insert(object.metadata.uid.clone()) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            if object.is_deleting() {
                this.forget(&object).await;
            } else {
                this.pull(&object).await;
            }
            this.pulling.lock().remove(&object.metadata.uid);
            // What was asked for meanwhile.
            if let Ok(Some(newest)) = this.objects.find("", &object.metadata.name).await
                && newest.metadata.resource_version != object.metadata.resource_version
            {
                this.look(newest);
            }
        });
    }

    async fn write(&self, object: &Object<Image>, change: impl FnMut(&mut ImageStatus) + Send) {
        let m = &object.metadata;
        if let Err(e) = self.statuses.modify_status("", &m.name, &m.uid, change).await {
            tracing::debug!(image = %m.name, "status not written: {e}");
        }
    }

    async fn pull(&self, object: &Object<Image>) {
        let request = object.spec.pull_request;
        let result = self.pull_files(object).await;
        let now = Timestamp::now();
        match result {
            Ok(record) => {
                self.write(object, |s| {
                    *s = ready_status(&record, now);
                    s.observed_pull = request;
                    s.observed_generation = object.metadata.generation;
                })
                .await;
                self.events
                    .record(object, false, "Pulled", &format!("{} is here", object.spec.reference));
                self.keep_budget(Some(&record.image_id)).await;
            }
            Err(f) => {
                self.write(object, |s| {
                    s.phase = ImagePhase::Failed;
                    s.reason = f.reason.into();
                    s.message.clone_from(&f.message);
                    s.observed_pull = request;
                    s.observed_generation = object.metadata.generation;
                    Condition::set(&mut s.conditions, "Ready", false, f.reason, &f.message, now);
                })
                .await;
                self.events.record(object, true, f.reason, &f.message);
            }
        }
    }

    async fn pull_files(&self, object: &Object<Image>) -> Result<ImageRecord, Failure> {
        let failed = |why: String| Failure::new("PullFailed", why);
        let reference: Reference = object.spec.reference.parse().map_err(failed)?;
        let platform = match &object.spec.platform {
            Some(p) => Some(p.parse::<Platform>().map_err(|e| failed(e.to_string()))?),
            None => None,
        };
        let options = PullOptions {
            platform,
            auth: Auth::default(),
            ..PullOptions::default()
        };
        let (tx, rx) = tokio::sync::watch::channel((0u64, 0u64));
        let counted = Mutex::new(Counter::default());
        let progress = move |p: Progress| {
            let now = counted.lock().take(p);
            tx.send_replace(now);
        };
        let pulling = self.files.pull(&reference, &options, progress);
        let told = |(done, total)| {
            let change = move |s: &mut ImageStatus| {
                s.phase = ImagePhase::Pulling;
                (s.done_bytes, s.total_bytes) = (done, total);
            };
            self.write(object, change).boxed()
        };
        let result = with_progress(pulling, rx, told).await;
        result.map_err(|e| failed(format!("cannot pull {}: {e}", reference.familiar())))
    }

    async fn forget(&self, object: &Object<Image>) {
        let m = &object.metadata;
        match self
            .statuses
            .remove_finalizer("", &m.name, &m.uid, AGENT_FINALIZER)
            .await
        {
            Ok(_) => match self.collect().await {
                Ok(()) => self.events.record(object, false, "Removed", "the name is gone"),
                Err(f) => tracing::warn!("{f}"),
            },
            Err(e) => tracing::warn!(image = %m.name, "not removed: {e}"),
        }
    }

    /// Removes the files of images that no object and no instance names.
    pub async fn collect(&self) -> Result<(), Failure> {
        self.prune().await.map(drop)
    }

    /// As [`Images::collect`], with a report.
    pub async fn prune(&self) -> Result<biga_image::GcReport, Failure> {
        let in_use = self.in_use().await?;
        self.files.gc(&in_use).await.map_err(|e| uncollected(e.to_string()))
    }

    /// The images that somebody names, or that instances run.
    pub async fn in_use(&self) -> Result<HashSet<ImageId>, Failure> {
        let images = self.objects.list(None).await.map_err(|e| uncollected(e.to_string()))?;
        let instances = self
            .instances
            .list(None)
            .await
            .map_err(|e| uncollected(e.to_string()))?;
        let named = images.items.into_iter().map(|o| o.status_or_default().image_id);
        let statuses: Vec<_> = instances.items.into_iter().filter_map(|o| o.status).collect();
        let used = statuses.iter().flat_map(|s| s.image_ids().map(str::to_owned));
        Ok(named.chain(used).filter_map(|id| id.parse().ok()).collect())
    }

    /// Lets go of images that take too much disk: those used least recently, and only such as can be pulled again. What an
    /// instance names or runs from stays, and so does `fresh`, which just came.
    pub async fn keep_budget(&self, fresh: Option<&ImageId>) {
        if let Err(e) = self.try_keep_budget(fresh).await {
            tracing::warn!("the budget of images cannot be kept: {e}");
        }
    }

    async fn try_keep_budget(&self, fresh: Option<&ImageId>) -> Result<(), Failure> {
        let failed = |e: String| Failure::new("GarbageCollectionFailed", e);
        let none = HashSet::new();
        if self
            .files
            .over_budget(&none)
            .map_err(|e| failed(e.to_string()))?
            .is_empty()
        {
            return Ok(());
        }
        // What nobody names goes first.
        self.collect().await?;
        let instances = self
            .instances
            .list(None)
            .await
            .map_err(|e| failed(e.to_string()))?
            .items;
        let images = self.objects.list(None).await.map_err(|e| failed(e.to_string()))?.items;
        let id_of = |o: &Object<Image>| o.status_or_default().image_id.parse::<ImageId>().ok();
        let statuses: Vec<_> = instances.iter().filter_map(|o| o.status.as_ref()).collect();
        let used = statuses.iter().flat_map(|s| s.image_ids());
        let mut keep: HashSet<ImageId> = used.filter_map(|id| id.parse().ok()).collect();
        keep.extend(fresh.cloned());
        let wanted: HashSet<String> = instances
            .iter()
            .flat_map(|o| {
                let several = o.spec.init_containers.iter().chain(&o.spec.containers);
                let mounted = o.spec.volumes.iter().filter_map(|v| v.image.as_ref());
                std::iter::once(&o.spec.image)
                    .chain(several.map(|c| &c.image))
                    .chain(mounted)
            })
            .filter_map(|image| image.parse::<Reference>().ok())
            .map(|r| r.object_name())
            .collect();
        keep.extend(
            images
                .iter()
                .filter(|o| wanted.contains(&o.metadata.name))
                .filter_map(id_of),
        );
        let local = self.files.list().map_err(|e| failed(e.to_string()))?;
        keep.extend(local.into_iter().filter(|r| r.sources.is_empty()).map(|r| r.image_id));
        let gone = self.files.over_budget(&keep).map_err(|e| failed(e.to_string()))?;
        for object in images.iter().filter(|o| id_of(o).is_some_and(|id| gone.contains(&id))) {
            let m = &object.metadata;
            let options = DeleteOptions {
                uid: Some(m.uid.clone()),
                ..DeleteOptions::default()
            };
            let why = "images take more disk than they may, and this one was not used for the longest time";
            self.events.record(object, false, "Evicted", why);
            match self.specs.delete("", &m.name, &options).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(failed(e.to_string())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The image that `reference` means for an instance, pulled where the policy says so.
    pub async fn resolve(
        &self,
        reference: &str,
        policy: PullPolicy,
        isolation: Isolation,
    ) -> Result<ImageRecord, Failure> {
        let (record, name) = match reference.parse::<ImageId>() {
            Ok(id) => (self.files.get(&id).map_err(|_| not_here(reference))?, None),
            Err(_) => (self.resolve_name(reference, policy).await?, reference.parse().ok()),
        };
        // Judged when it came, and again now: the policy may be another, and a name may have been given to it here.
        self.files
            .policy()
            .allows_run(&record, name.as_ref())
            .map_err(|e| Failure::new("ImageRefused", e.to_string()))?;
        self.files.touch(&record.image_id);
        let is_disk = record.format == ImageFormat::Disk;
        if is_disk != (isolation == Isolation::Vm) {
            let (what, fits) = if is_disk {
                ("a machine's disk", "vm")
            } else {
                ("an OCI image", "container or microvm")
            };
            return Err(Failure::new(
                "WrongImageFormat",
                format!("{reference} is {what}: run it with isolation {fits}, not {isolation}"),
            ));
        }
        Ok(record)
    }

    async fn resolve_name(&self, text: &str, policy: PullPolicy) -> Result<ImageRecord, Failure> {
        let reference: Reference = text.parse().map_err(|e: String| Failure::new("BadReference", e))?;
        let name = reference.object_name();
        let store = |e: StoreError| Failure::new("StoreFailed", e.to_string());
        let found = self.objects.find("", &name).await.map_err(store)?;
        if policy != PullPolicy::Always
            && let Some(record) = found.as_ref().and_then(|o| self.record(o))
        {
            return Ok(record);
        }
        if policy == PullPolicy::Never {
            return Err(not_here(text));
        }
        let request = match found {
            Some(_) => {
                let raised = self
                    .specs
                    .modify("", &name, |o| o.spec.pull_request += 1)
                    .await
                    .map_err(store)?;
                raised.spec.pull_request
            }
            None => {
                let spec = ImageSpec {
                    reference: reference.to_string(),
                    platform: None,
                    pull_request: 1,
                };
                match self.specs.create(Object::new(&name, spec)).await {
                    Ok(_) | Err(StoreError::AlreadyExists { .. }) => 1,
                    Err(e) => return Err(store(e)),
                }
            }
        };
        self.wait_pulled(&name, request).await
    }

    fn record(&self, object: &Object<Image>) -> Option<ImageRecord> {
        let status = object.status.as_ref()?;
        // A failed newer pull takes nothing away from what is here.
        let id = status.image_id.parse().ok()?;
        self.files.get(&id).ok()
    }

    async fn wait_pulled(&self, name: &str, request: u64) -> Result<ImageRecord, Failure> {
        let store = |e: StoreError| Failure::new("StoreFailed", e.to_string());
        let list = self.objects.list(None).await.map_err(store)?;
        let mut events = self.objects.watch(None, Some(list.revision)).await.map_err(store)?;
        let mut newest = list.items.into_iter().find(|o| o.metadata.name == name);
        loop {
            if let Some(o) = &newest {
                let s = o.status_or_default();
                if s.observed_pull >= request {
                    return match s.phase {
                        ImagePhase::Ready => self.record(o).ok_or_else(|| not_here(&o.spec.reference)),
                        _ => Err(Failure::new("PullFailed", s.message)),
                    };
                }
            }
            match events.next().await {
                Some(Ok(ObjectEvent::Put { object, .. })) if object.metadata.name == name => newest = Some(*object),
                Some(Ok(ObjectEvent::Deleted { object })) if object.metadata.name == name => {
                    return Err(Failure::new("PullFailed", "the image was removed while it was pulled"));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(store(e)),
                None => return Err(Failure::new("StoreFailed", "the store closed")),
            }
        }
    }

    /// Keeps an image that was given no name: under one made of its id, which is marked, so that clients that know images without
    /// names show none.
    pub async fn keep_nameless(&self, reference: &Reference, record: &ImageRecord) -> Result<(), Failure> {
        self.name_as(reference, record, true).await
    }

    /// Makes `reference` name an image that is here (loaded, imported or tagged).
    pub async fn name(&self, reference: &Reference, record: &ImageRecord) -> Result<(), Failure> {
        self.name_as(reference, record, false).await
    }

    /// Notes the digest by which a registry knows an image since it was pushed there.
    pub async fn note_digest(&self, reference: &Reference, image: &ImageId, digest: &str) -> Result<(), Failure> {
        let store = |e: StoreError| Failure::new("StoreFailed", e.to_string());
        let object = self.objects.find("", &reference.object_name()).await.map_err(store)?;
        let Some(object) = object.filter(|o| o.status_or_default().image_id == image.to_string()) else {
            return Ok(());
        };
        let set = |s: &mut ImageStatus| {
            if s.image_id == image.to_string() {
                s.digest = digest.to_owned();
            }
        };
        let m = &object.metadata;
        let noted = self.statuses.modify_status("", &m.name, &m.uid, set).await;
        noted.map(drop).map_err(store)
    }

    async fn name_as(&self, reference: &Reference, record: &ImageRecord, nameless: bool) -> Result<(), Failure> {
        let store = |e: StoreError| Failure::new("StoreFailed", e.to_string());
        let name = reference.object_name();
        let spec = ImageSpec {
            reference: reference.to_string(),
            platform: None,
            pull_request: 0,
        };
        let mut object = Object::new(&name, spec);
        if nameless {
            object.metadata.annotations.insert(NAMELESS.into(), String::new());
        }
        let object = match self.specs.create(object).await {
            Ok(o) => o,
            // A name that was made up before is somebody's wish now.
            Err(StoreError::AlreadyExists { .. }) if !nameless => {
                let named = self
                    .specs
                    .modify("", &name, |o| drop(o.metadata.annotations.remove(NAMELESS)));
                named.await.map_err(store)?
            }
            Err(StoreError::AlreadyExists { .. }) => self.objects.get("", &name).await.map_err(store)?,
            Err(e) => return Err(store(e)),
        };
        let (now, generation) = (Timestamp::now(), object.metadata.generation);
        let observed = object.spec.pull_request;
        let set = |s: &mut ImageStatus| {
            *s = ready_status(record, now);
            (s.observed_pull, s.observed_generation) = (observed, generation);
        };
        self.statuses
            .modify_status("", &name, &object.metadata.uid, set)
            .await
            .map_err(store)?;
        Ok(())
    }
}

/// Does `work` to its end, and tells the newest of its progress beside it: telling is waited for never instead of the work.
async fn with_progress<'a, T, P: Copy>(
    work: impl Future<Output = T>,
    mut progress: tokio::sync::watch::Receiver<P>,
    mut tell: impl FnMut(P) -> BoxFuture<'a, ()>,
) -> T {
    let telling = async {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            if progress.changed().await.is_err() {
                // All is told; the end is the work's.
                return std::future::pending::<std::convert::Infallible>().await;
            }
            let newest = *progress.borrow_and_update();
            tell(newest).await;
        }
    };
    tokio::select! {
        biased;
        result = work => result,
        never = telling => match never {},
    }
}

fn not_here(reference: &str) -> Failure {
    Failure::new(
        "ImageNotPresent",
        format!("image {reference} is not on this node: `biga image pull` or `load` it"),
    )
}

fn ready_status(record: &ImageRecord, now: Timestamp) -> ImageStatus {
    let mut s = ImageStatus {
        phase: ImagePhase::Ready,
        image_id: record.image_id.to_string(),
        digest: record.manifest_digest.clone(),
        format: record.format,
        platform: record.platform.clone(),
        size: record.size,
        layers: record.layers.iter().map(|l| l.diff_id.clone()).collect(),
        created: record.created.as_deref().and_then(|c| c.parse().ok()),
        ..ImageStatus::default()
    };
    Condition::set(&mut s.conditions, "Ready", true, "Present", "", now);
    s
}

/// Adds up the progress of a pull's layers.
#[derive(Default)]
struct Counter {
    layers: HashMap<String, (u64, u64)>,
}

impl Counter {
    fn take(&mut self, p: Progress) -> (u64, u64) {
        match p {
            Progress::Resolved { layers, .. } => {
                self.layers = layers.into_iter().map(|(digest, size)| (digest, (0, size))).collect();
            }
            Progress::Layer {
                digest,
                state,
                done,
                total,
            } => {
                let done = if matches!(state, LayerState::Exists | LayerState::Done) {
                    total
                } else {
                    done
                };
                self.layers.insert(digest, (done, total));
            }
        }
        self.layers
            .values()
            .fold((0, 0), |(d, t), (done, total)| (d + done, t + total))
    }
}

fn uncollected(e: String) -> Failure {
    Failure::new("GarbageCollectionFailed", format!("cannot collect unused images: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_its_progress_waits_to_be_told() {
        let (tx, rx) = tokio::sync::watch::channel(0);
        let (asked, told) = tokio::sync::oneshot::channel();
        let mut asked = Some(asked);
        let work = async {
            tx.send_replace(1);
            // From here on somebody is being told, who never listens.
            let _ = told.await;
            for n in 2..100 {
                tx.send_replace(n);
                tokio::task::yield_now().await;
            }
            "done"
        };
        let tell = |n: i32| {
            if let Some(asked) = asked.take() {
                asked.send(n).unwrap();
            }
            std::future::pending().boxed()
        };
        assert_eq!(with_progress(work, rx, tell).await, "done");
    }

    #[tokio::test]
    async fn the_newest_progress_is_told() {
        let (tx, rx) = tokio::sync::watch::channel(0);
        let (seen, mut last) = tokio::sync::watch::channel(0);
        let work = async {
            for n in 1..=50 {
                tx.send_replace(n);
            }
            last.wait_for(|n| *n == 50).await.map(|n| *n).unwrap()
        };
        let mut calls = 0;
        let tell = |n: i32| {
            calls += 1;
            seen.send_replace(n);
            std::future::ready(()).boxed()
        };
        assert_eq!(with_progress(work, rx, tell).await, 50);
        assert_eq!(calls, 1, "what came between is left out");
    }
}
