//! Reading.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use biga_model::{Kind, Object};
use futures_util::{Stream, StreamExt};

use super::{Error, decode, key, prefix};
use crate::api::{ListOptions, Revision, Store, WatchEvent, WatchEventKind};

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

    /// As [`Objects::watch`], of the one object of this name. What happens to others costs nothing.
    pub async fn watch_one(
        &self,
        namespace: &str,
        name: &str,
        from: Option<Revision>,
    ) -> Result<ObjectStream<K>, Error> {
        let key = key::<K>(namespace, name);
        let stream = self.store.watch(&key, from).await?;
        Ok(Box::pin(stream.filter_map(move |event| {
            let found = match event {
                // Keys that begin with this one come along.
                Ok(e) if e.entry.key != key => None,
                Ok(e) => Some(typed(&e)),
                Err(e) => Some(Err(e.into())),
            };
            std::future::ready(found)
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

fn typed<K: Kind>(event: &WatchEvent) -> Result<ObjectEvent<K>, Error> {
    let object = Box::new(decode(&event.entry)?);
    Ok(match event.kind {
        WatchEventKind::Put => ObjectEvent::Put { object },
        WatchEventKind::Delete => ObjectEvent::Deleted { object },
    })
}
