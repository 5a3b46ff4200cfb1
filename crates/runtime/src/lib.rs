//! The one interface behind which isolations differ.
//!
//! - [`Runtime`]: what the agent asks of any isolation
//! - [`shim_client`]: talking to the shim that holds an instance
//! - [`fake`]: a runtime without processes, for tests of the whole stack

use std::path::PathBuf;

use async_trait::async_trait;
use biga_model::Isolation;
use biga_wire::config::{Limits, ShimConfig};
use biga_wire::shim::{Event, Exit, Reply, Request, Stats, Status};

pub mod fake;
pub mod shim_client;

/// A stream of events of one instance; ends when its shim is gone.
pub type Events = tokio::sync::mpsc::Receiver<Event>;

/// Starts and stops instances of one isolation. All three isolations are held by shims, so the calls are the same;
/// what they do differs in the shim's workload.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Which isolation.
    fn isolation(&self) -> Isolation;

    /// Makes the instance and, with `config.start`, runs it. The shim then lives by itself.
    async fn create(&self, config: &ShimConfig) -> Result<Status, Error>;

    /// Runs what was created.
    async fn start(&self, uid: &str) -> Result<Status, Error>;

    /// Sends a signal to the main process.
    async fn signal(&self, uid: &str, signal: i32) -> Result<(), Error>;

    /// Asks it to end and kills it after the grace; returns at once.
    async fn stop(&self, uid: &str, signal: i32, grace_ms: u64) -> Result<(), Error>;

    /// Freezes it.
    async fn pause(&self, uid: &str) -> Result<(), Error>;

    /// Thaws it.
    async fn resume(&self, uid: &str) -> Result<(), Error>;

    /// Changes its limits while it runs.
    async fn update(&self, uid: &str, limits: &Limits) -> Result<(), Error>;

    /// A sample of what it uses.
    async fn stats(&self, uid: &str) -> Result<Stats, Error>;

    /// Opens a stream (`Attach`, `Exec`, `Console`): the request was sent and its reply not yet read.
    async fn open(&self, uid: &str, request: &Request) -> Result<tokio::net::UnixStream, Error>;

    /// Asks about one container of a pod: starts, stops, signals, changes limits, samples. The answer is never [`Reply::Error`].
    async fn of(&self, uid: &str, container: &str, request: Request) -> Result<Reply, Error>;

    /// Ends a pod whose containers have ended, or are to end now: the instance ended like this.
    async fn finish(&self, uid: &str, exit: &Exit) -> Result<(), Error>;

    /// Its state and its events from now on; [`Error::Gone`] where no shim holds it (any more).
    async fn adopt(&self, uid: &str) -> Result<(Status, Events), Error>;

    /// Kills it if it runs and undoes all that `create` made. Removing what is gone is no error.
    async fn delete(&self, uid: &str) -> Result<(), Error>;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No shim holds this instance.
    #[error("no process holds instance {0}")]
    Gone(String),
    /// The shim said no.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: biga_wire::shim::ErrorCode,
        /// For people.
        message: String,
    },
    /// The shim could not be started.
    #[error("cannot start the shim of {uid}: {why}")]
    Spawn {
        /// Which instance.
        uid: String,
        /// The cause.
        why: String,
    },
    /// The connection broke.
    #[error("the shim at {path} does not answer")]
    Io {
        /// Its socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
