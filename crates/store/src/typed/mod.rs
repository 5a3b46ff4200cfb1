//! [`Kind`] objects over a store: one handle to read, one to write what is wanted, one to write what is seen.
//!
//! The one-way flow of the design, by type: API handlers and controllers hold a [`SpecWriter`], the node's
//! agent holds a [`StatusWriter`]; neither can touch the other's half. All writes are compare-and-swap.
//!
//! ```no_run
//! # use biga_model::{Instance, Phase};
//! # use biga_store::{MemoryStore, Objects, StatusWriter, typed::ObjectEvent};
//! # use futures_util::StreamExt;
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let store: std::sync::Arc<dyn biga_store::Store> = MemoryStore::new()?;
//! let instances = Objects::<Instance>::new(store.clone());
//! let status = StatusWriter::<Instance>::new(store);
//! let all = instances.list(None).await?;
//! let mut changes = instances.watch(None, Some(all.revision)).await?;
//! while let Some(change) = changes.next().await {
//!     if let ObjectEvent::Put { object, .. } = change? {
//!         let (ns, name) = (object.metadata.namespace.as_deref().unwrap_or(""), object.name());
//!         status.modify_status(ns, name, object.uid(), |s| s.phase = Phase::Preparing).await?;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Namespaces are passed as `&str`; kinds that live in none ignore it (pass `""`).

mod error;
mod read;
mod spec;
mod status;

use biga_model::{API_VERSION, GROUP, Kind, Object};
use bytes::Bytes;

pub use error::Error;
pub use read::{ObjectEvent, ObjectList, ObjectStream, Objects};
pub use spec::{
    Complete, DeleteOptions, Deletion, FOREGROUND_FINALIZER, ORPHAN_FINALIZER, Propagation, SpecWriter, generate_name,
    merge, prepare_new,
};
pub use status::StatusWriter;

use crate::api::Entry;

/// Key prefix of all objects of a kind, or of those in one namespace. Ends with `/`.
pub fn prefix<K: Kind>(namespace: Option<&str>) -> String {
    match namespace {
        Some(ns) if K::NAMESPACED => format!("/{GROUP}/{}/{ns}/", K::PLURAL),
        _ => format!("/{GROUP}/{}/", K::PLURAL),
    }
}

/// Key of one object.
pub fn key<K: Kind>(namespace: &str, name: &str) -> String {
    let mut key = prefix::<K>(Some(namespace));
    key.push_str(name);
    key
}

/// Key of this object.
pub fn key_of<K: Kind>(object: &Object<K>) -> String {
    key::<K>(
        object.metadata.namespace.as_deref().unwrap_or(""),
        &object.metadata.name,
    )
}

/// The bytes every value of this kind begins with: `resourceVersion` can be spliced in after them.
pub fn head<K: Kind>() -> String {
    format!(
        "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{}\",\"metadata\":{{",
        K::KIND
    )
}

/// The stored form of an object: JSON that begins with [`head`] and holds no `resourceVersion`
/// (that is the revision of its entry).
pub fn encode<K: Kind>(object: &Object<K>) -> Result<Bytes, Error> {
    let encoded = if object.metadata.resource_version.is_empty() {
        serde_json::to_vec(object)
    } else {
        let mut plain = object.clone();
        plain.metadata.resource_version.clear();
        serde_json::to_vec(&plain)
    };
    encoded.map(Bytes::from).map_err(|e| Error::Damaged {
        key: key_of(object),
        why: e.to_string(),
    })
}

/// The object of an entry, with its `resourceVersion`.
pub fn decode<K: Kind>(entry: &Entry) -> Result<Object<K>, Error> {
    let mut object: Object<K> = serde_json::from_slice(&entry.value).map_err(|e| Error::Damaged {
        key: entry.key.clone(),
        why: e.to_string(),
    })?;
    object.metadata.resource_version = entry.revision.to_string();
    Ok(object)
}

/// The store revision an object was read at.
pub(crate) fn revision_of<K: Kind>(object: &Object<K>) -> Result<u64, Error> {
    object
        .metadata
        .resource_version
        .parse()
        .map_err(|_| Error::Unversioned { key: key_of(object) })
}
