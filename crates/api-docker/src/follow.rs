//! Waiting until an object is as wanted, on the store's watch.

use std::time::Duration;

use biga_model::{Kind, Object};
use biga_store::typed::{decode, key};
use biga_store::{Store, WatchEventKind};
use futures_util::StreamExt;

use crate::error::Result;

/// Follows one object through its changes until `decide` gives a value. `None` stands for an object that is gone, or
/// was replaced by another of the same name. Every change is shown, in order; after a watch that fell behind, the
/// newest state.
pub(crate) async fn follow<K: Kind, T>(
    store: &dyn Store,
    namespace: &str,
    name: &str,
    uid: &str,
    mut decide: impl FnMut(Option<&Object<K>>) -> Option<T> + Send,
) -> Result<T> {
    let key = key::<K>(namespace, name);
    loop {
        let mut seen = store.revision().await?;
        let entry = store.get(&key).await?;
        let from = seen;
        let current = entry
            .as_ref()
            .map(decode::<K>)
            .transpose()?
            .filter(|o| o.metadata.uid == uid);
        if let Some(e) = &entry {
            seen = seen.max(e.revision);
        }
        if let Some(done) = decide(current.as_ref()) {
            return Ok(done);
        }
        let mut watch = match store.watch(&key, Some(from)).await {
            Err(e @ biga_store::Error::Closed) => return Err(e.into()),
            // Compacted meanwhile: look again.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Ok(w) => w,
        };
        while let Some(event) = watch.next().await {
            let event = match event {
                Ok(e) => e,
                Err(e @ biga_store::Error::Closed) => return Err(e.into()),
                Err(_) => break,
            };
            if event.entry.key != key || event.entry.revision <= seen {
                continue;
            }
            let object = match event.kind {
                WatchEventKind::Put => Some(decode::<K>(&event.entry)?).filter(|o| o.metadata.uid == uid),
                WatchEventKind::Delete => None,
            };
            if let Some(done) = decide(object.as_ref()) {
                return Ok(done);
            }
        }
    }
}
