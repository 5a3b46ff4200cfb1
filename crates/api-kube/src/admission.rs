//! A hook for rules that need more than the object itself.

use std::any::Any;

use async_trait::async_trait;
use biga_model::{Kind, Object};

use crate::error::ApiError;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another spec or other metadata.
    Update,
    /// A removal.
    Delete,
}

/// A write that waits for consent. Defaults are filled in and the kind's own rules hold.
pub struct Review<'a> {
    /// What is about to be done.
    pub operation: Operation,
    /// The kind.
    pub kind: &'static str,
    /// The namespace, empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    pub(crate) object: Option<&'a (dyn Any + Send + Sync)>,
    pub(crate) old: Option<&'a (dyn Any + Send + Sync)>,
}

impl Review<'_> {
    /// The object as it would be stored, where it is of kind `K`; `None` for deletions.
    pub fn object<K: Kind>(&self) -> Option<&Object<K>> {
        self.object?.downcast_ref()
    }

    /// The object as it is stored, where it is of kind `K`; `None` for new ones.
    pub fn old<K: Kind>(&self) -> Option<&Object<K>> {
        self.old?.downcast_ref()
    }
}

/// Consents to writes through the API, or refuses them.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Looks at a write before it happens.
    async fn review(&self, review: &Review<'_>) -> Result<(), ApiError>;
}
