//! The engine on one redb file.

use std::path::Path;
use std::sync::Arc;

use crate::api::Error;
use crate::batch::HistoryLimits;
use crate::disk::Disk;
use crate::engine::{Engine, store_by_engine};

/// How many changes are kept for watches where nothing else is said.
pub const DEFAULT_HISTORY_EVENTS: usize = 10_000;
/// How many bytes of changes are kept for watches where nothing else is said.
pub const DEFAULT_HISTORY_BYTES: usize = 32 << 20;

/// Settings of the embedded engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// At most so many changes are kept for watches.
    pub history_events: usize,
    /// At most so many bytes of changes are kept for watches.
    pub history_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_events: DEFAULT_HISTORY_EVENTS,
            history_bytes: DEFAULT_HISTORY_BYTES,
        }
    }
}

/// A store in one file, for one process. All entries are cached in memory; every write is on disk
/// before it is acknowledged; writes that arrive together share one commit.
pub struct EmbeddedStore {
    engine: Engine,
}

impl EmbeddedStore {
    /// Opens the file at `path`, or makes it (mode 0600) in a directory that must exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<EmbeddedStore>, Error> {
        EmbeddedStore::open_with(path, &Options::default())
    }

    /// As [`EmbeddedStore::open`], with other settings.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Arc<EmbeddedStore>, Error> {
        EmbeddedStore::start(Disk::open(path.as_ref())?, options)
    }

    /// A store upon any backend of redb: how tests take power away.
    pub fn open_backend(backend: impl redb::StorageBackend, options: &Options) -> Result<Arc<EmbeddedStore>, Error> {
        EmbeddedStore::start(Disk::with_backend(backend)?, options)
    }

    fn start(disk: Disk, options: &Options) -> Result<Arc<EmbeddedStore>, Error> {
        let state = disk.load()?;
        let limits = HistoryLimits {
            events: options.history_events,
            bytes: options.history_bytes,
        };
        let engine = Engine::start(state, Box::new(disk), limits)?;
        Ok(Arc::new(EmbeddedStore { engine }))
    }

    /// Finishes what is queued, then refuses all further calls and closes the file; watches end with
    /// [`Error::Closed`]. Blocks for the length of a commit.
    pub fn close(&self) {
        self.engine.close();
    }
}

store_by_engine!(EmbeddedStore);
