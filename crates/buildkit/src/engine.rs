//! What is asked of the node's builder.

use std::sync::Arc;

use async_trait::async_trait;
use biga_wire::build::{Build, Event};
use biga_wire::cache::{CacheFilter, CacheRecord};
use biga_wire::http::PruneResult;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::session::Session;

/// Bytes that arrive over time.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What is built, and of what.
pub struct Source {
    /// How.
    pub build: Build,
    /// The Dockerfile's text; that of the context where there is none.
    pub dockerfile: Option<Vec<u8>>,
    /// The context's tar. Not read where [`Build::remote`] names an address.
    pub context: ByteStream,
    /// Tars of further contexts, by name.
    pub named: Vec<(String, ByteStream)>,
    /// Who is asked for credentials and secrets.
    pub session: Arc<Session>,
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// A sentence for people.
    pub message: String,
    /// The line of the Dockerfile, where it is known.
    pub line: Option<usize>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// What is asked makes no sense.
    Invalid,
    /// No such thing.
    NotFound,
    /// It is not done here.
    Unsupported,
    /// Nobody wants it any more.
    Cancelled,
    /// It was tried and failed.
    Failed,
}

impl Fault {
    /// A failure without a line.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
            line: None,
        }
    }

    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Fault {
        Fault::new(FaultKind::Unsupported, format!("{what} is not supported by Biga"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Invalid, message)
    }
}

/// How an image is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The tar of its files, as a container sees them.
    Files,
    /// The archive of `docker save`.
    Docker,
    /// An OCI layout.
    Oci,
}

/// A build that was found to make sense.
#[async_trait]
pub trait Building: Send {
    /// Builds and tells what happens; gives the image's id. Dropping the call ends the build.
    async fn run(self: Box<Self>, events: mpsc::Sender<Event>) -> Result<String, Fault>;
}

/// The node's builder.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Reads a context to its end and the Dockerfile.
    async fn prepare(&self, source: Source) -> Result<Box<dyn Building>, Fault>;

    /// Writes an image out, with these names where the form has any.
    async fn export(&self, image: &str, names: &[String], form: Form) -> Result<ByteStream, Fault>;

    /// What builds left for later ones, in bytes.
    async fn usage(&self) -> Result<Vec<CacheRecord>, Fault>;

    /// Forgets what builds left for later ones.
    async fn prune(&self, filter: CacheFilter) -> Result<PruneResult, Fault>;
}
