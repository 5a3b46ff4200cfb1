//! The versioned store: one trait, one embedded engine, typed handles.
//!
//! Keys are paths: `/GROUP/PLURAL/NAMESPACE/NAME`, `/GROUP/PLURAL/NAME` for cluster-wide kinds. Values are
//! JSON. One revision counts all writes of the store; each entry carries the revision of its last write and of its creation.
//!
//! - [`api`]: the [`Store`] trait and its types
//! - [`embedded`]: the engine on one redb file and its journal
//! - [`memory`]: the same semantics without a file, for tests of others
//! - [`typed`]: [`Kind`](biga_model::Kind) objects over a store; separate handles for spec and status
//! - [`suite`]: the tests every engine must pass
//!
//! Inside, `engine` holds what the two engines share: the cache that serves reads and watches, and the
//! writer thread; `batch` is the pure part of a commit; `journal` makes it durable, and `disk` is the redb file behind it.

pub mod api;
mod batch;
mod codec;
mod disk;
pub mod embedded;
mod engine;
mod journal;
pub mod memory;
pub mod suite;
pub mod typed;

pub use api::{
    Entry, Error, LeaseId, ListOptions, Listing, Precondition, Revision, Store, WatchEvent, WatchEventKind,
    WatchStream, Write,
};
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use typed::{Objects, SpecWriter, StatusWriter};
