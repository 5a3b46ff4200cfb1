//! Files of instances: copied in and out, listed, exported, made an image of.
//!
//! ```text
//! client ── task ──channel── thread ──┬── runs:      /proc/<pid>/root, the root as the container has it
//!                                     └── does not:  its overlay and volumes, mounted for this thread alone
//! ```
//!
//! All of it is done from outside with descriptors of the root ([`biga_image::files`]): nothing of the container's is
//! executed, loaded or entered (CVE-2019-14271), and no path is resolved but by the kernel beneath that root
//! (CVE-2018-15664).
//!
//! A microvm's files are on a disk that only its own kernel reads: there its init does the same work, while it runs.
//!
//! - [`runs`]: an instance is not started while its files are in use without it
//! - [`source`]: where the root comes from
//! - [`guest`]: work that is done inside
//! - [`commit`]: changes as a layer, with a config

use std::io::BufReader;
use std::sync::Arc;

use biga_image::files::{Change, Crossing, Owner, Packer, Stat, Unpack, changes, stat, unpack};
use biga_model::{Instance, Object};
use biga_store::Store;
use biga_store::typed::{Error as StoreError, Objects};
use biga_wire::files::FileWork;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::engine::Engine;
use crate::instance::Failure;
use crate::streams::{self, Streams};

pub mod commit;
pub mod runs;

mod guest;
mod pipe;
mod source;

pub use commit::Commit;
pub use pipe::Pieces;

use pipe::{Incoming, Outgoing, Patience};
use source::Source;

/// Threads at work on files at once: each holds a descriptor for every level of directories.
const THREADS: usize = 24;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such instance, or not in a state for it.
    #[error(transparent)]
    Instance(#[from] streams::Error),
    /// A path, a tar, or what stands at a path.
    #[error(transparent)]
    Files(#[from] biga_image::files::Error),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// This isolation cannot do it; the message says what can.
    #[error("{0}")]
    Unsupported(String),
    /// Its state does not allow it.
    #[error("{0}")]
    State(String),
    /// Something of the engine's broke.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Error {
        Error::Instance(e.into())
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Error {
        Error::Failed(f.to_string())
    }
}

impl From<biga_container::Error> for Error {
    fn from(e: biga_container::Error) -> Error {
        Error::Failed(e.to_string())
    }
}

/// How a tar is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Put {
    /// Refuse to put a directory where something else stands, and the other way round.
    pub keep_kinds: bool,
    /// Give it to the user and group that the container runs as, whatever the tar says.
    pub to_user: bool,
}

/// Files of this node's instances. A cheap handle.
#[derive(Clone)]
pub struct Files {
    engine: Arc<Engine>,
    objects: Objects<Instance>,
    streams: Streams,
    threads: Arc<Semaphore>,
}

impl Files {
    /// Over the engine and the objects of the store.
    pub fn new(engine: Arc<Engine>, store: Arc<dyn Store>) -> Files {
        Files {
            streams: Streams::new(engine.clone(), store.clone()),
            engine,
            objects: Objects::new(store),
            threads: Arc::new(Semaphore::new(THREADS)),
        }
    }

    /// What stands at a path.
    pub async fn stat(&self, namespace: &str, name: &str, path: &str) -> Result<Stat, Error> {
        if let Some(guest) = self.guest(namespace, name).await? {
            return guest.stat(path).await;
        }
        let (source, path) = (self.source(namespace, name).await?, path.to_owned());
        self.work(source, move |source, _| {
            let root = source.root(true)?;
            Ok(stat::stat(root.borrow(), &stat::find(root.borrow(), &path)?)?)
        })
        .await
    }

    /// What stands at a path, and the tar of it and all beneath it. Its names begin with the path's last component.
    pub async fn read(&self, namespace: &str, name: &str, path: &str) -> Result<(Stat, Pieces), Error> {
        if let Some(guest) = self.guest(namespace, name).await? {
            return guest.read(path).await;
        }
        let (source, path) = (self.source(namespace, name).await?, path.to_owned());
        let (first, found) = oneshot::channel();
        let pieces = self
            .stream(source, move |source, out| {
                let root = source.root(true)?;
                let place = stat::find(root.borrow(), &path)?;
                // Nobody waits for it any more where the client left.
                let _ = first.send(stat::stat(root.borrow(), &place)?);
                let mut packer = Packer::new(out, Crossing::Enter).with_ids(source.ids());
                packer.add(&place)?;
                packer.finish().map(drop).map_err(Error::from)
            })
            .await?;
        match found.await {
            Ok(stat) => Ok((stat, pieces)),
            Err(_) => Err(last_error(pieces).await),
        }
    }

    /// Unpacks a tar (plain, gzip, bzip2, xz or zstd) into a directory.
    pub async fn write<S>(&self, namespace: &str, name: &str, path: &str, tar: S, put: Put) -> Result<(), Error>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        if let Some(guest) = self.guest(namespace, name).await? {
            return guest.write(path, tar, put).await;
        }
        let (source, path) = (self.source(namespace, name).await?, path.to_owned());
        source.keeps()?;
        let (to, from) = mpsc::channel(pipe::QUEUE);
        let unpacking = self.work(source, move |source, patience| {
            let root = source.root(true)?;
            let owner = match put.to_user {
                true => source.user(root.borrow())?,
                false => Owner::Archive,
            };
            let options = Unpack {
                owner,
                keep_kinds: put.keep_kinds,
                rename: None,
                ids: source.ids(),
            };
            let incoming = Incoming {
                from,
                patience,
                piece: Bytes::new(),
            };
            Ok(unpack::unpack(root.borrow(), &path, BufReader::new(incoming), options)?)
        });
        let feeding = pipe::feed(tar, to);
        // The outcome counts, whether or not all was read.
        tokio::pin!(unpacking, feeding);
        tokio::select! {
            done = &mut unpacking => return done,
            () = &mut feeding => {}
        }
        unpacking.await
    }

    /// A tar of the whole root file system, without what is mounted over it.
    pub async fn export(&self, namespace: &str, name: &str) -> Result<Pieces, Error> {
        if let Some(guest) = self.guest(namespace, name).await? {
            return guest.tar(FileWork::Export).await;
        }
        let source = self.source(namespace, name).await?;
        let (first, begun) = oneshot::channel();
        let pieces = self
            .stream(source, move |source, out| {
                let root = source.root(false)?;
                let _ = first.send(());
                let mut packer = Packer::new(out, Crossing::Stay).with_ids(source.ids());
                packer.add_content(root.borrow())?;
                packer.finish().map(drop).map_err(Error::from)
            })
            .await?;
        match begun.await {
            Ok(()) => Ok(pieces),
            Err(_) => Err(last_error(pieces).await),
        }
    }

    /// What its writable layer changed of the image, ordered by path.
    pub async fn changes(&self, namespace: &str, name: &str) -> Result<Vec<Change>, Error> {
        if let Some(guest) = self.guest(namespace, name).await? {
            return guest.changes().await;
        }
        let source = self.source(namespace, name).await?;
        self.work(source, |source, _| {
            let Some(upper) = changes::directory(&source.upper())? else {
                return Ok(Vec::new());
            };
            use std::os::fd::AsFd;
            let lower = source.lower()?;
            Ok(changes::list(upper.as_fd(), Some(lower.as_fd()))?)
        })
        .await
    }

    async fn object(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Error> {
        Ok(self.objects.get(namespace, name).await?)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = self.threads.clone().acquire_owned().await;
        permit.map_err(|_| Error::Failed("the daemon ends".into()))
    }

    /// Runs work on a thread of its own and waits for it.
    async fn work<T: Send + 'static>(
        &self,
        source: Source,
        work: impl FnOnce(&Source, Patience) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let patience = source.patience();
        thread(move || {
            let result = inside(source, |source| work(source, patience));
            let _ = done.send(result.unwrap_or_else(|| Err(Error::Failed("the work on files crashed".into()))));
        })?;
        result
            .await
            .map_err(|_| Error::Failed("the work on files crashed".into()))?
    }

    /// Runs work on a thread of its own and gives what it writes. An error is the last piece.
    async fn stream(
        &self,
        source: Source,
        work: impl FnOnce(&Source, Outgoing) -> Result<(), Error> + Send + 'static,
    ) -> Result<Pieces, Error> {
        let (to, pieces) = mpsc::channel(pipe::QUEUE);
        let patience = source.patience();
        let handle = tokio::runtime::Handle::current();
        thread(move || {
            // What was mounted goes before the client is told.
            let result = inside(source, |source| work(source, Outgoing::new(to.clone(), patience)));
            let crashed = || Err(Error::Failed("the work on files crashed".into()));
            if let Err(e) = result.unwrap_or_else(crashed) {
                let _ = handle.block_on(to.send(Err(e)));
            }
        })?;
        Ok(pieces)
    }
}

/// Runs work on a thread that may take on other namespaces and ids, and releases the layers where these do not count: unmounted in
/// a namespace of its own, a layer would stay mounted for all others. `None` where it crashed.
fn inside<T: Send>(source: Source, work: impl FnOnce(&Source) -> T + Send) -> Option<T> {
    let done = std::thread::scope(|scope| {
        let inner = std::thread::Builder::new()
            .name("files-view".into())
            .spawn_scoped(scope, move || {
                let result = work(&source);
                source.leave();
                (source, result)
            });
        inner.ok()?.join().ok()
    });
    done.map(|(source, result)| {
        drop(source);
        result
    })
}

fn thread(work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let made = std::thread::Builder::new().name("files".into()).spawn(work);
    made.map(drop)
        .map_err(|e| Error::Failed(format!("cannot start a thread: {e}")))
}

/// Why a stream never began.
async fn last_error(mut pieces: Pieces) -> Error {
    while let Some(piece) = pieces.recv().await {
        if let Err(e) = piece {
            return e;
        }
    }
    Error::Failed("the work on files crashed".into())
}
