//! Builds images of Dockerfiles.
//!
//! ```text
//! context's tar ──► one file and an index      Dockerfile ──► stages ──► those the target needs
//!                         │                                                 │ one step after the other
//!                         ▼                                                 ▼
//!        COPY, ADD: picked files ──► tar of a layer ──► image store ◄── tar of what RUN changed
//!                   (copy)                                                (run: an Instance as any other)
//! ```
//!
//! Between steps there are no images, only a [draft](biga_image::Draft): a config in memory and layers in the store. An image
//! is made where a `RUN` needs one to run from, and at the end of each stage. What a step was made of is its key: the id
//! of the draft before it, the words that Docker writes into the history, and in these the digest of what is copied. Images
//! keep the keys of their steps, and that is all the cache there is: it goes with the images.
//!
//! - [`prepare`]: request, context and Dockerfile
//! - [`git`]: contexts that are repositories
//! - [`stages`]: one stage after the other; [`stage`]: one instruction after the other
//! - [`base`]: what a stage begins with
//! - [`args`][]: variables
//! - [`pick`]: which files are meant; [`copy`]: the layer that they become
//! - [`run`]: a container for a step; [`mounts`]: what is mounted in it; [`caches`]: what of that is kept
//! - [`given`]: secrets that came with the request
//! - [`export`]: what is in an image, for others

mod args;
mod base;
mod caches;
mod copy;
mod export;
mod git;
mod given;
mod mounts;
mod pick;
mod prepare;
mod run;
mod stage;
mod stages;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use biga_agent::engine::Engine;
use biga_agent::files::Files;
use biga_agent::prepare::BUILDS;
use biga_agent::streams::Streams;
use biga_dockerfile::Dockerfile;
use biga_image::files::Tarball;
use biga_image::{Auth, ImageStore, KeptBuild};
use biga_model::{Instance, Isolation, Network};
use biga_store::Store;
use biga_store::typed::{Objects, SpecWriter};
use biga_wire::build::{Build, Event};
use biga_wire::cache::{CacheFilter, CacheRecord};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use caches::Caches;
pub use prepare::Parts;

/// Annotation of the instances that steps run in; its value is the id of the builder.
pub const LABEL: &str = "biga.dev/build";

fn record(k: KeptBuild) -> CacheRecord {
    CacheRecord {
        id: k.id.to_string(),
        kind: "regular".into(),
        description: k.description,
        size: k.size,
        in_use: false,
        shared: k.shared,
        created: k.created,
        used: k.used,
    }
}

/// Why a build came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request or the Dockerfile makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// An image, a file or the like is not there.
    #[error("{0}")]
    NotFound(String),
    /// This is not done here.
    #[error("{0}")]
    Unsupported(String),
    /// A command ended with another code than 0.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// Its words.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// Whoever wanted it is gone, or said so.
    #[error("the build was cancelled")]
    Cancelled,
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

impl From<biga_image::Error> for Error {
    fn from(e: biga_image::Error) -> Error {
        let mut text = e.to_string();
        let mut at = std::error::Error::source(&e);
        // The reason is often a level or two down.
        while let Some(e) = at {
            text = format!("{text}: {e}");
            at = e.source();
        }
        Error::Failed(text)
    }
}

impl From<biga_agent::instance::Failure> for Error {
    fn from(f: biga_agent::instance::Failure) -> Error {
        Error::Failed(f.to_string())
    }
}

impl From<biga_store::typed::Error> for Error {
    fn from(e: biga_store::typed::Error) -> Error {
        Error::Failed(e.to_string())
    }
}

/// Builds images on this node. A cheap handle.
#[derive(Clone)]
pub struct Builder {
    engine: Arc<Engine>,
    streams: Streams,
    files: Files,
    objects: Objects<Instance>,
    networks: Objects<Network>,
    specs: SpecWriter<Instance>,
    caches: Arc<Caches>,
    /// Of this process: what has another was left by one before.
    id: Arc<str>,
}

impl Builder {
    /// Over an agent's parts and the objects of the store; `specs` makes instances.
    pub fn new(
        engine: Arc<Engine>,
        streams: Streams,
        files: Files,
        store: Arc<dyn Store>,
        specs: SpecWriter<Instance>,
    ) -> Builder {
        // Secrets of builds that a daemon before this one left.
        let left = engine.layout.run.join(BUILDS);
        if let Err(e) = std::fs::remove_dir_all(&left)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{} stays: {e}", left.display());
        }
        let caches = Arc::new(Caches::new(engine.layout.state.join("build-cache")));
        Builder {
            caches,
            engine,
            streams,
            files,
            objects: Objects::new(store.clone()),
            networks: Objects::new(store),
            specs,
            id: format!(
                "{}-{}",
                std::process::id(),
                biga_model::Timestamp::now().as_nanosecond()
            )
            .into(),
        }
    }

    /// What is kept for later builds beside images.
    pub async fn records(&self) -> Result<Vec<CacheRecord>, Error> {
        let in_use = self.engine.images.in_use().await?;
        let (caches, store) = (self.caches.clone(), self.store().clone());
        prepare::blocking(move || {
            let mut all = caches.usage();
            all.extend(store.kept_builds(&in_use)?.into_iter().map(record));
            Ok(all)
        })
        .await
    }

    /// Forgets what fits, but for what a step uses; their ids, and the bytes of directories. What else nobody needs any more is left
    /// to the next collection of images.
    pub async fn forget(&self, filter: &CacheFilter) -> Result<(Vec<String>, u64), Error> {
        let now = biga_model::Timestamp::now().as_second();
        let chosen = filter.choose(&self.records().await?, now);
        let whole = filter.all && filter.any.is_empty() && filter.unused_for.is_none() && filter.keep_bytes.is_none();
        let (dirs, images): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|r| r.kind == caches::CACHE);
        let ids = images.iter().filter_map(|r| r.id.parse().ok()).collect();
        let in_use = self.engine.images.in_use().await?;
        self.store().forget_builds(ids, in_use, whole).await?;
        let (caches, dirs) = (self.caches.clone(), dirs.into_iter().map(|r| r.id).collect::<Vec<_>>());
        let (mut removed, bytes) = prepare::blocking(move || Ok(caches.prune(&dirs))).await?;
        removed.extend(images.into_iter().map(|r| r.id));
        Ok((removed, bytes))
    }

    fn store(&self) -> &Arc<ImageStore> {
        self.engine.images.files()
    }
}

/// Who wants the build, where there is somebody to ask.
#[async_trait]
pub trait Client: Send + Sync {
    /// User and password for a registry, where the client has any.
    async fn credentials(&self, registry: &str) -> Result<Option<(String, String)>, Error>;

    /// A secret, where the client has it.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Whether the client forwards this agent of SSH.
    async fn has_agent(&self, id: &str) -> Result<bool, Error>;

    /// Passes a connection on to that agent until either side ends it.
    async fn forward_agent(&self, id: &str, io: tokio::net::UnixStream) -> Result<(), Error>;
}

/// A build that can begin: its context is here and its Dockerfile makes sense.
pub struct Prepared {
    builder: Builder,
    request: Build,
    /// What steps run in.
    isolation: Isolation,
    /// Who asks registries, by their names.
    auths: HashMap<String, Auth>,
    file: Dockerfile,
    context: Arc<Tarball>,
    client: Option<Arc<dyn Client>>,
    /// Contexts beside the main one.
    named: HashMap<String, Arc<Tarball>>,
}

/// Where a build tells what happens, and hears that nobody wants it any more.
#[derive(Clone)]
pub struct Audience {
    /// What happens.
    pub events: mpsc::Sender<Event>,
    /// Cancelled when the build should end.
    pub cancel: CancellationToken,
    /// The stage that it is told of, where several are built at a time.
    stage: Option<usize>,
}

impl Audience {
    /// Of a whole build.
    pub fn new(events: mpsc::Sender<Event>, cancel: CancellationToken) -> Audience {
        Audience {
            events,
            cancel,
            stage: None,
        }
    }

    /// Tells; waits for a slow listener.
    async fn tell(&self, event: Event) -> Result<(), Error> {
        let event = match self.stage {
            None => event,
            Some(stage) => Event::Of {
                stage,
                event: Box::new(event),
            },
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            sent = self.events.send(event) => sent.map_err(|_| Error::Cancelled),
        }
    }

    async fn note(&self, text: impl Into<String>) -> Result<(), Error> {
        self.tell(Event::Note { text: text.into() }).await
    }

    /// Runs to the end what may take long, unless the build is cancelled.
    async fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }
}
