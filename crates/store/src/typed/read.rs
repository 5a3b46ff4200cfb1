//! Reading.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use biga_model::{Kind, Object};
use futures_util::{Stream, StreamExt};

use super::{Error, decode, key, key_of, prefix, revision_of};
use crate::api::{Entry, ListOptions, Revision, Store, WatchEvent, WatchEventKind, WatchStream};

/// Reads objects of one kind. Cheap to clone.
pub struct Objects<K: Kind> {
    store: Arc<dyn Store>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Clone for Objects<K> {
    fn clone(&self) -> Self {
        Objects::new(self.store.clone())
    }
}

/// Objects and the revision at which they were read.
#[derive(Debug, Clone)]
pub struct ObjectList<K: Kind> {
    /// The objects, by namespace and name.
    pub items: Vec<Object<K>>,
    /// Watch from here to miss nothing.
    pub revision: Revision,
}

/// One change of an object.
#[derive(Debug, Clone)]
pub enum ObjectEvent<K: Kind> {
    /// It was made or changed.
    Put {
        /// As it is now.
        object: Box<Object<K>>,
    },
    /// It is gone.
    Deleted {
        /// As it was last, with the deletion's `resourceVersion`.
        object: Box<Object<K>>,
    },
}

/// Changes, in order. Ends after its first error of the store; an object that cannot be read is an error that does not end it.
pub type ObjectStream<K> = Pin<Box<dyn Stream<Item = Result<ObjectEvent<K>, Error>> + Send>>;

impl<K: Kind> Objects<K> {
    /// A handle on `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Objects {
            store,
            kind: PhantomData,
        }
    }

    /// The object of this name.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Object<K>, Error> {
        match self.store.get(&key::<K>(namespace, name)).await? {
            Some(entry) => decode(&entry),
            None => Err(Error::not_found::<K>(name)),
        }
    }

    /// The object of this name, `None` where there is none.
    pub async fn find(&self, namespace: &str, name: &str) -> Result<Option<Object<K>>, Error> {
        match self.store.get(&key::<K>(namespace, name)).await? {
            Some(entry) => decode(&entry).map(Some),
            None => Ok(None),
        }
    }

    /// The object with this uid, whatever its name is now. Reads through a whole namespace: for the rare moment in which
    /// a name that was known leads nowhere.
    pub async fn find_uid(&self, namespace: &str, uid: &str) -> Result<Option<Object<K>>, Error> {
        let listing = self
            .store
            .list(&prefix::<K>(Some(namespace)), ListOptions::default())
            .await?;
        // Most are passed over without being parsed.
        let mentions = |e: &&Entry| std::str::from_utf8(&e.value).is_ok_and(|text| text.contains(uid));
        let mut found = listing.entries.iter().filter(mentions).filter_map(|e| decode(e).ok());
        Ok(found.find(|o: &Object<K>| o.metadata.uid == uid))
    }

    /// All objects, or those of one namespace. What cannot be read is left out and logged.
    pub async fn list(&self, namespace: Option<&str>) -> Result<ObjectList<K>, Error> {
        let listing = self.store.list(&prefix::<K>(namespace), ListOptions::default()).await?;
        let readable = |entry| match decode(entry) {
            Ok(o) => Some(o),
            Err(e) => {
                tracing::error!(error = %e, "left out of a list");
                None
            }
        };
        Ok(ObjectList {
            items: listing.entries.iter().filter_map(readable).collect(),
            revision: listing.revision,
        })
    }

    /// Changes after revision `from`; `None` starts now.
    pub async fn watch(&self, namespace: Option<&str>, from: Option<Revision>) -> Result<ObjectStream<K>, Error> {
        let stream = self.store.watch(&prefix::<K>(namespace), from).await?;
        Ok(Box::pin(stream.map(|event| typed(&event?))))
    }

    /// As [`Objects::watch`], of the one object of this name. What happens to others costs nothing. An object that gets
    /// another name is followed there: it is told as a change, not as a removal.
    pub async fn watch_one(
        &self,
        namespace: &str,
        name: &str,
        from: Option<Revision>,
    ) -> Result<ObjectStream<K>, Error> {
        let mut one = One {
            objects: self.clone(),
            namespace: namespace.into(),
            key: key::<K>(namespace, name),
            changes: None,
        };
        one.changes = Some(self.store.watch(&one.key, from).await?);
        Ok(Box::pin(futures_util::stream::unfold(one, |mut one| async move {
            Some((one.next().await?, one))
        })))
    }

    /// As [`Objects::watch`], of removals only.
    pub async fn watch_removals(
        &self,
        namespace: Option<&str>,
        from: Option<Revision>,
    ) -> Result<ObjectStream<K>, Error> {
        let stream = self.store.watch(&prefix::<K>(namespace), from).await?;
        Ok(Box::pin(stream.filter_map(|event| {
            let found = match event {
                Ok(e) if e.kind == WatchEventKind::Put => None,
                Ok(e) => Some(typed(&e)),
                Err(e) => Some(Err(e.into())),
            };
            std::future::ready(found)
        })))
    }
}

/// A watch on one object.
struct One<K: Kind> {
    objects: Objects<K>,
    namespace: String,
    key: String,
    /// `None` after an error that ends it.
    changes: Option<WatchStream>,
}

impl<K: Kind> One<K> {
    async fn next(&mut self) -> Option<Result<ObjectEvent<K>, Error>> {
        loop {
            let event = match self.changes.as_mut()?.next().await? {
                Ok(e) => e,
                Err(e) => {
                    self.changes = None;
                    return Some(Err(e.into()));
                }
            };
            // Keys that begin with this one come along.
            if event.entry.key != self.key {
                continue;
            }
            return Some(match typed(&event) {
                Ok(ObjectEvent::Deleted { object }) if K::RENAMABLE && !object.is_deleting() => {
                    self.follow(object).await
                }
                other => other,
            });
        }
    }

    /// Goes on under the new name of `old`, which is gone from its name without having been removed, if it has one.
    async fn follow(&mut self, old: Box<Object<K>>) -> Result<ObjectEvent<K>, Error> {
        let Some(now) = self.objects.find_uid(&self.namespace, &old.metadata.uid).await? else {
            return Ok(ObjectEvent::Deleted { object: old });
        };
        self.key = key_of(&now);
        let from = revision_of(&now)?;
        match self.objects.store.watch(&self.key, Some(from)).await {
            Ok(changes) => self.changes = Some(changes),
            Err(e) => {
                self.changes = None;
                return Err(e.into());
            }
        }
        Ok(ObjectEvent::Put { object: Box::new(now) })
    }
}

fn typed<K: Kind>(event: &WatchEvent) -> Result<ObjectEvent<K>, Error> {
    let object = Box::new(decode(&event.entry)?);
    Ok(match event.kind {
        WatchEventKind::Put => ObjectEvent::Put { object },
        WatchEventKind::Delete => ObjectEvent::Deleted { object },
    })
}
