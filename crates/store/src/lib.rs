//! The versioned store: one trait, one embedded engine, typed handles.
//!
//! Keys are paths: `/GROUP/PLURAL/NAMESPACE/NAME`, `/GROUP/PLURAL/NAME` for cluster-wide kinds. Values are
//! JSON. One revision counts all writes of the store; each entry carries the revision of its last write and of its creation.
//!
//! - [`api`]: the [`Store`] trait and its types
//! - `embedded`: the engine on one redb file
//! - `memory`: the same semantics without a file, for tests of others
//! - `typed`: [`Kind`](biga_model::Kind) objects over a store; separate handles for spec and status

pub mod api;

pub use api::{
    Entry, Error, LeaseId, ListOptions, Listing, Precondition, Revision, Store, WatchEvent, WatchEventKind, WatchStream,
};
