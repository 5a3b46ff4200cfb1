//! `GET /events`: changes of objects in Docker's words.
//!
//! One task per kind follows the store; what changed is compared with what was known ([`crate::translate::events`]) and
//! told to every listener. The last messages are kept, as many as Docker keeps, for `since`.

use std::collections::VecDeque;
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
use crate::translate::ids::{docker_id, docker_network};

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
    /// Revision up to which changes of instances are told.
    told: watch::Sender<u64>,
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
            told: watch::Sender::new(0),
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

    /// Waits until the change of an instance that has this revision is told.
    pub async fn told(&self, revision: u64) {
        let mut told = self.shared.told.subscribe();
        let _ = told.wait_for(|r| *r >= revision).await;
    }

    /// Tells what no object shows: signals, execs, attachments.
    pub fn publish(&self, message: Message) {
        self.shared.publish(message);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.shared.tell.receiver_count()
    }

    /// What was kept, and what comes.
    pub fn listen(&self) -> (Vec<Arc<Message>>, broadcast::Receiver<Arc<Message>>) {
        let kept = self.shared.kept.lock();
        (kept.iter().cloned().collect(), self.shared.tell.subscribe())
    }
}

type Compare<K> = fn(Option<&Object<K>>, Option<&Object<K>>, &events::All<K>) -> Vec<Message>;

/// Finds what happened to the objects of a kind, and tells it.
struct Teller<K: Kind> {
    compare: Compare<K>,
    networks: Objects<Network>,
    shared: Arc<Shared>,
}

impl<K: Kind> Teller<K> {
    async fn tell(&self, old: Option<&Object<K>>, new: Option<&Object<K>>, all: &events::All<K>) {
        for mut m in (self.compare)(old, new, all) {
            // An instance knows its networks by their names only.
            if m.kind == "network" && m.attributes.contains_key("container") {
                m.id = match self.networks.get("", &m.id).await {
                    Ok(n) => docker_id(n.uid()),
                    // It is gone already.
                    Err(_) => docker_network(&m.id).into(),
                };
            }
            self.shared.publish(m);
        }
    }

    /// Everything up to this revision is told.
    fn reached(&self, revision: u64) {
        if K::KIND == Instance::KIND {
            self.shared.told.send_replace(revision);
        }
    }
}

async fn run<K: Kind>(
    store: Arc<dyn Store>,
    namespace: Option<String>,
    shared: Arc<Shared>,
    up: Arc<watch::Sender<usize>>,
    compare: Compare<K>,
) {
    let objects = Objects::<K>::new(store.clone());
    let teller = Teller {
        compare,
        networks: Objects::new(store),
        shared,
    };
    let mut known: Option<events::All<K>> = None;
    loop {
        match follow(&objects, namespace.as_deref(), &teller, &up, &mut known).await {
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
    teller: &Teller<K>,
    up: &watch::Sender<usize>,
    known: &mut Option<events::All<K>>,
) -> Result<(), StoreError> {
    let list = objects.list(namespace).await?;
    let now: events::All<K> = list.items.into_iter().map(|o| (o.metadata.uid.clone(), o)).collect();
    match known.take() {
        // What was there before the daemon is no news.
        None => up.send_modify(|n| *n += 1),
        Some(before) => {
            for (uid, old) in &before {
                teller.tell(Some(old), now.get(uid), &now).await;
            }
            for (_, new) in now.iter().filter(|(uid, _)| !before.contains_key(*uid)) {
                teller.tell(None, Some(new), &now).await;
            }
        }
    }
    teller.reached(list.revision);
    let known = known.insert(now);
    let mut watch = objects.watch(namespace, Some(list.revision)).await?;
    while let Some(event) = watch.next().await {
        match event {
            Ok(ObjectEvent::Put { object, .. }) => {
                teller.tell(known.get(object.uid()), Some(&object), known).await;
                teller.reached(object.metadata.resource_version.parse().unwrap_or(0));
                known.insert(object.uid().to_string(), *object);
            }
            // It was told under its new name already.
            Ok(ObjectEvent::Deleted { object })
                if known.get(object.uid()).is_some_and(|o| o.name() != object.name()) => {}
            Ok(ObjectEvent::Deleted { object }) => {
                let old = known.remove(object.uid()).unwrap_or(*object);
                teller.tell(Some(&old), None, known).await;
            }
            Err(e @ StoreError::Store(_)) => return Err(e),
            Err(e) => tracing::error!(kind = K::KIND, "events: an object cannot be read: {e}"),
        }
    }
    Ok(())
}
