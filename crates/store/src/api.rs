//! The trait.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

/// Counts the writes of a store, from 1; 0 is the empty store.
pub type Revision = u64;

/// Identity of a lease.
pub type LeaseId = u64;

/// A versioned key-value store with watches.
///
/// Promises, kept by every engine and tested by one suite:
/// - A write that was acknowledged survives the end of the process and of power.
/// - Writes are totally ordered by revision; a reader never sees a revision and then an older one.
/// - A watch from revision `r` gives every later change under its prefix once, in order, with no gap; where
///   `r` is older than the last compaction it answers [`Error::TooOld`] instead.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry under `key`.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Entries whose key starts with `prefix`, in key order, with the store's revision at that moment.
    async fn list(&self, prefix: &str, options: ListOptions) -> Result<Listing, Error>;

    /// Writes `value` under `key` if `precondition` holds; the entry goes with its lease where one is given.
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> Result<Revision, Error>;

    /// Removes `key` if `precondition` holds. Removing what is not there fails with [`Error::Conflict`]
    /// unless the precondition is [`Precondition::None`], which then answers the current revision.
    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision, Error>;

    /// Makes all of `writes` in one commit and in their order, or none of them: what forbids one is the error. No two may
    /// be of the same key. Answers the revision of each.
    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Revision>, Error>;

    /// Changes under `prefix` after revision `from`; `None` starts now.
    async fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, Error>;

    /// The revision of the last write.
    async fn revision(&self) -> Result<Revision, Error>;

    /// Forgets the history up to `revision`: watches from before it answer [`Error::TooOld`].
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// A lease that ends `ttl` after its last renewal and takes its entries with it.
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error>;

    /// Renews a lease; [`Error::NoLease`] if it ended.
    async fn lease_renew(&self, lease: LeaseId) -> Result<(), Error>;

    /// Ends a lease now.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error>;
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Revision of its last write.
    pub revision: Revision,
    /// Revision of its creation.
    pub created: Revision,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// At most so many entries; 0 for all.
    pub limit: usize,
    /// Only keys after this one: the last of the page before.
    pub after: Option<String>,
}

/// Answer to a list.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The store's revision: watch from here to miss nothing.
    pub revision: Revision,
    /// How many more there are after this page.
    pub remaining: usize,
}

/// What must hold for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    DoesNotExist,
    /// The entry's last write has this revision.
    Revision(Revision),
}

/// One write of several that belong together; see [`Store::transact`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which key.
    pub key: String,
    /// What shall stand there; `None` removes the key.
    pub value: Option<Bytes>,
    /// What must hold before any of the writes.
    pub precondition: Precondition,
}

/// Changes, in order. Ends with an error where the reader fell too far behind or the store closed.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Error>> + Send>>;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed.
    pub kind: WatchEventKind,
    /// The entry after the change; after a deletion, as it was before, with the deletion's revision.
    pub entry: Entry,
    /// The entry before the change, where there was one and the engine still knows it.
    pub previous: Option<Entry>,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEventKind {
    /// Written.
    Put,
    /// Removed.
    Delete,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The precondition does not hold; `current` is what stands there now.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// Which key.
        key: String,
        /// Revision of its last write, `None` where it does not exist.
        current: Option<Revision>,
    },
    /// The revision was compacted away.
    #[error("revision {asked} is too old: the history starts at {oldest}")]
    TooOld {
        /// What was asked for.
        asked: Revision,
        /// What can be had.
        oldest: Revision,
    },
    /// The watch's reader was too slow; list and watch again.
    #[error("the watch fell behind: list again and watch from there")]
    Lagged,
    /// No such lease.
    #[error("lease {0} does not exist or has ended")]
    NoLease(LeaseId),
    /// A key or value over the limits.
    #[error("{0}")]
    Invalid(String),
    /// The engine cannot read or write.
    #[error("the store cannot {what}: {why}")]
    Io {
        /// What it tried.
        what: &'static str,
        /// The cause.
        why: String,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether trying the same again can help.
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Lagged | Error::Closed)
    }
}
