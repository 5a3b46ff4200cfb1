//! Waiting until an object is as wanted, on the store's watch.

use std::sync::Arc;
use std::time::Duration;

use biga_model::{Kind, Object};
use biga_store::typed::{Error as TypedError, ObjectEvent};
use biga_store::{Error as StoreError, Objects, Store};
use futures_util::StreamExt;

use crate::error::Result;

/// Follows one object through its changes until `decide` gives a value. `None` stands for an object that is gone, or
/// was replaced by another of the same name. Every change is shown, in order; after a watch that fell behind, the
/// newest state.
pub(crate) async fn follow<K: Kind, T>(
    store: &Arc<dyn Store>,
    namespace: &str,
    name: &str,
    uid: &str,
    mut decide: impl FnMut(Option<&Object<K>>) -> Option<T> + Send,
) -> Result<T> {
    let objects = Objects::<K>::new(store.clone());
    let mut name = name.to_string();
    loop {
        let from = store.revision().await?;
        let current = find(&objects, namespace, &name, uid).await?;
        if let Some(done) = decide(current.as_ref()) {
            return Ok(done);
        }
        let mut seen = from;
        if let Some(o) = &current {
            seen = seen.max(revision(o));
            name = o.name().into();
        }
        let mut watch = match objects.watch_one(namespace, &name, Some(from)).await {
            Err(e @ TypedError::Store(StoreError::Closed)) => return Err(e.into()),
            // Compacted meanwhile: look again.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Ok(w) => w,
        };
        while let Some(event) = watch.next().await {
            let object = match event {
                Ok(ObjectEvent::Put { object } | ObjectEvent::Deleted { object }) if revision(&object) <= seen => {
                    continue;
                }
                Ok(ObjectEvent::Put { object }) => Some(object).filter(|o| o.metadata.uid == uid),
                Ok(ObjectEvent::Deleted { .. }) => None,
                Err(TypedError::Store(StoreError::Closed)) => return Err(StoreError::Closed.into()),
                Err(TypedError::Store(_)) => break,
                Err(e) => return Err(e.into()),
            };
            if let Some(done) = decide(object.as_deref()) {
                return Ok(done);
            }
        }
    }
}

/// The object, whatever its name is by now.
async fn find<K: Kind>(objects: &Objects<K>, namespace: &str, name: &str, uid: &str) -> Result<Option<Object<K>>> {
    let named = objects.find(namespace, name).await?.filter(|o| o.metadata.uid == uid);
    match named {
        None if K::RENAMABLE => Ok(objects.find_uid(namespace, uid).await?),
        found => Ok(found),
    }
}

fn revision<K: Kind>(o: &Object<K>) -> u64 {
    o.metadata.resource_version.parse().unwrap_or(0)
}
