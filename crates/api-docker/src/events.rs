//! `GET /events`: changes of objects in Docker's words.
//!
//! One task per kind follows the store; what changed is compared with what was known ([`crate::translate::events`]) and
//! told to every listener. The last messages are kept, as many as Docker keeps, for `since`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use biga_model::{Image, Instance, Kind, Network, Object, Volume};
use biga_store::typed::{Error as StoreError, ObjectEvent};
use biga_store::{Objects, Store};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::translate::events::{self, Message};

/// Messages kept for `since`.
const KEPT: usize = 256;
/// Messages a slow listener may be behind before it loses some.
const BEHIND: usize = 8192;

/// Collects and tells.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    ready: watch::Receiver<usize>,
    // Ends the tasks with the hub.
    _tasks: JoinSet<()>,
}

struct Shared {
    kept: Mutex<VecDeque<Arc<Message>>>,
    tell: broadcast::Sender<Arc<Message>>,
}

impl Shared {
    fn publish(&self, message: Message) {
        let message = Arc::new(message);
        let mut kept = self.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(message.clone());
        // Under the lock, so that a new listener gets each message either kept or told.
        let _ = self.tell.send(message);
    }
}

/// Kinds that are followed.
const KINDS: usize = 4;

impl Hub {
    /// Begins to follow the store.
    pub fn start(store: Arc<dyn Store>, namespace: String) -> Hub {
        let shared = Arc::new(Shared {
            kept: Mutex::default(),
            tell: broadcast::Sender::new(BEHIND),
        });
        let (up, ready) = watch::channel(0);
        let up = Arc::new(up);
        let mut tasks = JoinSet::new();
        let ns = Some(namespace);
        tasks.spawn(run::<Instance>(
            store.clone(),
            ns.clone(),
            shared.clone(),
            up.clone(),
            events::instance,
        ));
        tasks.spawn(run::<Volume>(
            store.clone(),
            ns,
            shared.clone(),
            up.clone(),
            events::volume,
        ));
        tasks.spawn(run::<Network>(
            store.clone(),
            None,
            shared.clone(),
            up.clone(),
            events::network,
        ));
        tasks.spawn(run::<Image>(store, None, shared.clone(), up, events::image));
        Hub {
            shared,
            ready,
            _tasks: tasks,
        }
    }

    /// Waits until what was there before is known, so that nothing that comes after is missed.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        let _ = ready.wait_for(|n| *n >= KINDS).await;
    }

    /// Tells what no object shows: signals, execs, attachments.
    pub fn publish(&self, message: Message) {
        self.shared.publish(message);
    }

    /// What was kept, and what comes.
    pub fn listen(&self) -> (Vec<Arc<Message>>, broadcast::Receiver<Arc<Message>>) {
        let kept = self.shared.kept.lock();
        (kept.iter().cloned().collect(), self.shared.tell.subscribe())
    }
}

type Compare<K> = fn(Option<&Object<K>>, Option<&Object<K>>) -> Vec<Message>;

async fn run<K: Kind>(
    store: Arc<dyn Store>,
    namespace: Option<String>,
    shared: Arc<Shared>,
    up: Arc<watch::Sender<usize>>,
    compare: Compare<K>,
) {
    let objects = Objects::<K>::new(store);
    let mut known: Option<HashMap<String, Object<K>>> = None;
    loop {
        match follow(&objects, namespace.as_deref(), &shared, &up, compare, &mut known).await {
            Err(StoreError::Store(biga_store::Error::Closed)) => return,
            Err(e) => tracing::warn!(kind = K::KIND, "events: the watch broke, listing again: {e}"),
            Ok(()) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn follow<K: Kind>(
    objects: &Objects<K>,
    namespace: Option<&str>,
    shared: &Shared,
    up: &watch::Sender<usize>,
    compare: Compare<K>,
    known: &mut Option<HashMap<String, Object<K>>>,
) -> Result<(), StoreError> {
    let list = objects.list(namespace).await?;
    let now: HashMap<String, Object<K>> = list.items.into_iter().map(|o| (o.metadata.uid.clone(), o)).collect();
    match known.take() {
        // What was there before the daemon is no news.
        None => up.send_modify(|n| *n += 1),
        Some(before) => {
            for (uid, old) in &before {
                compare(Some(old), now.get(uid))
                    .into_iter()
                    .for_each(|m| shared.publish(m));
            }
            for (_, new) in now.iter().filter(|(uid, _)| !before.contains_key(*uid)) {
                compare(None, Some(new)).into_iter().for_each(|m| shared.publish(m));
            }
        }
    }
    let known = known.insert(now);
    let mut watch = objects.watch(namespace, Some(list.revision)).await?;
    while let Some(event) = watch.next().await {
        match event {
            Ok(ObjectEvent::Put { object, .. }) => {
                let old = known.get(object.uid());
                compare(old, Some(&object)).into_iter().for_each(|m| shared.publish(m));
                known.insert(object.uid().to_string(), *object);
            }
            // It was told under its new name already.
            Ok(ObjectEvent::Deleted { object })
                if known.get(object.uid()).is_some_and(|o| o.name() != object.name()) => {}
            Ok(ObjectEvent::Deleted { object }) => {
                let old = known.remove(object.uid()).unwrap_or(*object);
                compare(Some(&old), None).into_iter().for_each(|m| shared.publish(m));
            }
            Err(e @ StoreError::Store(_)) => return Err(e),
            Err(e) => tracing::error!(kind = K::KIND, "events: an object cannot be read: {e}"),
        }
    }
    Ok(())
}
