//! Follows the objects of a kind that instances use: networks and volumes.

use std::future::Future;
use std::time::Duration;

use biga_model::{Instance, Kind, Object};
use biga_store::typed::{Error as StoreError, ObjectEvent, Objects};
use futures_util::StreamExt;

/// Who makes and removes the real thing behind each object of a kind.
pub(crate) trait Follower: Sync {
    /// The kind.
    type Kind: Kind;

    /// Its objects.
    fn objects(&self) -> &Objects<Self::Kind>;

    /// Those who use them.
    fn instances(&self) -> &Objects<Instance>;

    /// Brings the real thing to what the object says. False where a removal has to wait for an instance to go.
    fn look(&self, o: &Object<Self::Kind>) -> impl Future<Output = bool> + Send;
}

/// Follows until the task is dropped.
pub(crate) async fn follow<F: Follower>(f: &F) {
    loop {
        if let Err(e) = once(f).await {
            tracing::warn!("the watch on {} broke, listing again: {e}", F::Kind::PLURAL);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn look_at_all<F: Follower>(f: &F, all: &[Object<F::Kind>]) -> bool {
    let mut waiting = false;
    for o in all {
        waiting |= !f.look(o).await;
    }
    waiting
}

async fn once<F: Follower>(f: &F) -> Result<(), StoreError> {
    let list = f.objects().list(None).await?;
    let mut waiting = look_at_all(f, &list.items).await;
    let mut events = f.objects().watch(None, Some(list.revision)).await?;
    // What is in use goes when the last instance that uses it went.
    let mut instances = f.instances().watch_removals(None, Some(list.revision)).await?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(ObjectEvent::Put { object, .. })) => waiting |= !f.look(&object).await,
                Some(Ok(ObjectEvent::Deleted { .. })) => {}
                Some(Err(e @ StoreError::Store(_))) => return Err(e),
                Some(Err(e)) => tracing::error!("an object of {} cannot be read: {e}", F::Kind::PLURAL),
                None => return Ok(()),
            },
            event = instances.next() => match event {
                Some(Ok(ObjectEvent::Deleted { .. })) if waiting => {
                    waiting = look_at_all(f, &f.objects().list(None).await?.items).await;
                }
                Some(Err(e @ StoreError::Store(_))) => return Err(e),
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}
