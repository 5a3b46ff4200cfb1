//! Errors of the typed handles.

use biga_model::Kind;

use crate::api;

/// Why a call on a typed handle failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such object, or it has another uid than was asked for: it was removed and made anew.
    #[error("{plural} {name:?} not found")]
    NotFound {
        /// Plural of the kind.
        plural: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("{plural} {name:?} already exists")]
    AlreadyExists {
        /// Plural of the kind.
        plural: &'static str,
        /// Its name.
        name: String,
    },
    /// It was changed by somebody else since it was read; read it again and try again.
    #[error("{plural} {name:?}: {why}")]
    Conflict {
        /// Plural of the kind.
        plural: &'static str,
        /// Its name.
        name: String,
        /// What differs.
        why: &'static str,
    },
    /// The object was never read from a store, so it cannot be replaced.
    #[error("{key} has no resourceVersion: read it from the store before writing it")]
    Unversioned {
        /// Its key.
        key: String,
    },
    /// What is stored is no object of the kind.
    #[error("what is stored under {key} cannot be read: {why}")]
    Damaged {
        /// Its key.
        key: String,
        /// What the parser says.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] api::Error),
}

/// Said on a failed compare-and-swap.
pub(crate) const CHANGED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Error {
    pub(crate) fn not_found<K: Kind>(name: &str) -> Error {
        Error::NotFound {
            plural: K::PLURAL,
            name: name.into(),
        }
    }

    pub(crate) fn conflict<K: Kind>(name: &str, why: &'static str) -> Error {
        Error::Conflict {
            plural: K::PLURAL,
            name: name.into(),
            why,
        }
    }

    /// Makes of the store's refusal of a compare-and-swap what it means for the object.
    pub(crate) fn of_swap<K: Kind>(e: api::Error, name: &str) -> Error {
        match e {
            api::Error::Conflict { current: None, .. } => Error::not_found::<K>(name),
            api::Error::Conflict { .. } => Error::conflict::<K>(name, CHANGED),
            e => Error::Store(e),
        }
    }

    /// Whether the object (with that uid) is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }

    /// Whether reading again and trying again can help.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict { .. })
    }
}
