//! Writing what is seen: the status, and giving up a finalizer. Nothing else can be touched by this handle.

use std::marker::PhantomData;
use std::sync::Arc;

use biga_model::{Kind, Object};

use super::{Error, Objects, encode, key_of, revision_of};
use crate::api::{Precondition, Store};

/// Writes statuses of one kind. Cheap to clone.
pub struct StatusWriter<K: Kind> {
    store: Arc<dyn Store>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Clone for StatusWriter<K> {
    fn clone(&self) -> Self {
        StatusWriter::new(self.store.clone())
    }
}

impl<K: Kind> StatusWriter<K> {
    /// A handle on `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        StatusWriter {
            store,
            kind: PhantomData,
        }
    }

    /// Changes the status of the object with this uid, known by this name, by `change`, again on the newest state until nobody
    /// came between. Writes nothing where `change` changed nothing. [`Error::NotFound`] where there is no such
    /// object, or it has another uid (an empty `uid` takes any). `change` may run several times.
    pub async fn modify_status(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        mut change: impl FnMut(&mut K::Status) + Send,
    ) -> Result<Object<K>, Error> {
        loop {
            let current = self.current(namespace, name, uid).await?;
            let mut status = current.status_or_default();
            change(&mut status);
            match self.replace(&current, status).await {
                // Gone from under this name: whether it is gone altogether is seen in the next round.
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                other => return other,
            }
        }
    }

    /// Replaces the status of `current`, as it was read. Writes nothing where it is the same.
    pub async fn replace(&self, current: &Object<K>, status: K::Status) -> Result<Object<K>, Error> {
        let at = Precondition::Revision(revision_of(current)?);
        if current.status.as_ref() == Some(&status) {
            return Ok(current.clone());
        }
        let mut new = current.clone();
        new.status = Some(status);
        self.swap(at, new).await
    }

    /// Gives up a finalizer; where it was the last and deletion was asked for, the object goes. `None` where it is gone now.
    /// Giving up what is not held, or on what is gone already, is no error.
    pub async fn remove_finalizer(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        finalizer: &str,
    ) -> Result<Option<Object<K>>, Error> {
        loop {
            let current = match self.current(namespace, name, uid).await {
                Err(e) if e.is_not_found() => return Ok(None),
                other => other?,
            };
            let at = Precondition::Revision(revision_of(&current)?);
            let mut new = current.clone();
            new.metadata.finalizers.retain(|f| f != finalizer);
            if new.is_deleting() && new.metadata.finalizers.is_empty() {
                let deleted = self.store.delete(&key_of(&current), at).await;
                match deleted.map_err(|e| Error::of_swap::<K>(e, name)) {
                    Err(e) if e.is_conflict() || e.is_not_found() => continue,
                    Err(e) => return Err(e),
                    Ok(_) => return Ok(None),
                }
            }
            if new == current {
                return Ok(Some(current));
            }
            match self.swap(at, new).await {
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                other => return other.map(Some),
            }
        }
    }

    /// Lets an object go that removes itself at its end, in one write: where `finalizer` is all it still waits for, it is
    /// deleted. False where others have a say, so that its deletion must be asked for as usual.
    pub async fn remove_finished(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        finalizer: &str,
    ) -> Result<bool, Error> {
        loop {
            let current = match self.current(namespace, name, uid).await {
                Err(e) if e.is_not_found() => return Ok(true),
                other => other?,
            };
            if current.metadata.finalizers.iter().any(|f| f != finalizer) {
                return Ok(false);
            }
            let at = Precondition::Revision(revision_of(&current)?);
            let deleted = self.store.delete(&key_of(&current), at).await;
            match deleted.map_err(|e| Error::of_swap::<K>(e, name)) {
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                Err(e) => return Err(e),
                Ok(_) => return Ok(true),
            }
        }
    }

    /// The object with this uid: under the name by which it was known, or under one that it was given since.
    async fn current(&self, namespace: &str, name: &str, uid: &str) -> Result<Object<K>, Error> {
        let objects = Objects::<K>::new(self.store.clone());
        match objects.find(namespace, name).await? {
            Some(o) if uid.is_empty() || o.metadata.uid == uid => return Ok(o),
            _ => {}
        }
        let renamed = match K::RENAMABLE && !uid.is_empty() {
            true => objects.find_uid(namespace, uid).await?,
            false => None,
        };
        renamed.ok_or_else(|| Error::not_found::<K>(name))
    }

    async fn swap(&self, at: Precondition, mut new: Object<K>) -> Result<Object<K>, Error> {
        let put = self.store.put(&key_of(&new), encode(&new)?, at, None).await;
        let revision = put.map_err(|e| Error::of_swap::<K>(e, &new.metadata.name))?;
        new.metadata.resource_version = revision.to_string();
        Ok(new)
    }
}
