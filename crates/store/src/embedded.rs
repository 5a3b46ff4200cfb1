//! The engine on one redb file and its journal.

use std::path::Path;
use std::sync::Arc;

use crate::api::Error;
use crate::batch::HistoryLimits;
use crate::disk::{Disk, open_file};
use crate::engine::{Engine, store_by_engine};
use crate::journal::Journal;

/// How many changes are kept for watches where nothing else is said.
pub const DEFAULT_HISTORY_EVENTS: usize = 10_000;
/// How many bytes of changes are kept for watches where nothing else is said.
pub const DEFAULT_HISTORY_BYTES: usize = 12 << 20;

/// How large the journal is where nothing else is said: some two hundred writes.
pub const DEFAULT_JOURNAL_BYTES: usize = 1 << 20;
/// What the journal's name has behind that of the file.
const JOURNAL: &str = ".journal";

/// Settings of the embedded engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// At most so many changes are kept for watches.
    pub history_events: usize,
    /// At most so many bytes of changes are kept for watches.
    pub history_bytes: usize,
    /// How large the journal is. It is filled and emptied again and again.
    pub journal_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_events: DEFAULT_HISTORY_EVENTS,
            history_bytes: DEFAULT_HISTORY_BYTES,
            journal_bytes: DEFAULT_JOURNAL_BYTES,
        }
    }
}

/// A store in one file with a journal beside it, for one process. All entries are cached in memory; every write is on disk
/// before it is acknowledged; writes that arrive together share one commit.
pub struct EmbeddedStore {
    engine: Engine,
}

impl EmbeddedStore {
    /// Opens the file at `path` and its journal, or makes them (mode 0600) in a directory that must exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<EmbeddedStore>, Error> {
        EmbeddedStore::open_with(path, &Options::default())
    }

    /// As [`EmbeddedStore::open`], with other settings.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Arc<EmbeddedStore>, Error> {
        let path = path.as_ref();
        let disk = Disk::open(open_file(path)?).map_err(|e| at(path, e))?;
        let mut journal = path.as_os_str().to_os_string();
        journal.push(JOURNAL);
        let journal = Path::new(&journal);
        EmbeddedStore::start(disk, open_file(journal)?, options).map_err(|e| at(journal, e))
    }

    /// A store upon any two backends of redb, for the file and its journal: how tests take power away.
    pub fn open_backends(
        file: impl redb::StorageBackend,
        journal: impl redb::StorageBackend,
        options: &Options,
    ) -> Result<Arc<EmbeddedStore>, Error> {
        EmbeddedStore::start(Disk::open(file)?, journal, options)
    }

    fn start(disk: Disk, journal: impl redb::StorageBackend, options: &Options) -> Result<Arc<EmbeddedStore>, Error> {
        let (journal, state) = Journal::open(disk, Box::new(journal), options.journal_bytes)?;
        let limits = HistoryLimits {
            events: options.history_events,
            bytes: options.history_bytes,
        };
        let engine = Engine::start(state, Box::new(journal), limits)?;
        Ok(Arc::new(EmbeddedStore { engine }))
    }

    /// Finishes what is queued, then refuses all further calls and closes the file; watches end with
    /// [`Error::Closed`]. Blocks for the length of a commit.
    pub fn close(&self) {
        self.engine.close();
    }
}

/// An error of the engine's files, with the name of the file.
fn at(path: &Path, e: Error) -> Error {
    match e {
        Error::Io { what, why } => Error::Io {
            what,
            why: format!("{}: {why}", path.display()),
        },
        e => e,
    }
}

store_by_engine!(EmbeddedStore);
