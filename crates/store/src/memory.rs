//! The engine without a file: the embedded engine's code with nothing behind it.

use std::sync::Arc;

use crate::api::Error;
use crate::batch::{Batch, HistoryLimits, State};
use crate::engine::{Engine, Log, store_by_engine};

/// A store in memory, for tests of others.
pub struct MemoryStore {
    engine: Engine,
}

struct Nowhere;

impl Log for Nowhere {
    fn commit(&mut self, _batch: &Batch) -> Result<(), Error> {
        Ok(())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Result<Arc<MemoryStore>, Error> {
        MemoryStore::with_history(crate::embedded::DEFAULT_HISTORY_EVENTS)
    }

    /// An empty store that keeps so many changes for watches.
    pub fn with_history(events: usize) -> Result<Arc<MemoryStore>, Error> {
        let limits = HistoryLimits {
            events,
            bytes: crate::embedded::DEFAULT_HISTORY_BYTES,
        };
        let engine = Engine::start(State::default(), Box::new(Nowhere), limits)?;
        Ok(Arc::new(MemoryStore { engine }))
    }

    /// Finishes what is queued, then refuses all further calls; watches end with [`Error::Closed`].
    pub fn close(&self) {
        self.engine.close();
    }
}

store_by_engine!(MemoryStore);
