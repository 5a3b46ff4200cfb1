//! What the controllers know: a copy of the store, kept by list and watch. Only what changed is ever parsed.

use std::collections::BTreeMap;
use std::sync::Arc;

use biga_model::{Event, GROUP, Image, Instance, Kind, Network, Node, Object, ObjectMeta, Timestamp, Volume};
use biga_store::{Entry, Error, ListOptions, Revision, Store, WatchEventKind, WatchStream, typed};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;

use crate::action::{Id, Resource};
use crate::garbage::Seen;

/// When an event last happened, and which it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenEvent {
    /// Which event.
    pub id: Id,
    /// When it last happened.
    pub time: Timestamp,
}

/// A copy of the store at one revision.
pub(crate) struct View {
    changes: WatchStream,
    pub revision: Revision,
    pub instances: BTreeMap<String, Object<Instance>>,
    pub nodes: BTreeMap<String, Object<Node>>,
    /// Every object but events, which own nothing.
    pub objects: BTreeMap<String, Seen>,
    pub events: BTreeMap<String, SeenEvent>,
}

/// All that is parsed of kinds that are only collected.
#[derive(Deserialize)]
struct OnlyMeta {
    metadata: ObjectMeta,
}

/// All that is parsed of an event.
#[derive(Deserialize)]
struct OnlyTime {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: EventTime,
}

#[derive(Deserialize, Default)]
struct EventTime {
    time: Option<Timestamp>,
}

impl View {
    /// Reads everything.
    pub async fn new(store: &Arc<dyn Store>) -> Result<View, Error> {
        let prefix = format!("/{GROUP}/");
        let list = store.list(&prefix, ListOptions::default()).await?;
        let mut view = View {
            changes: store.watch(&prefix, Some(list.revision)).await?,
            revision: list.revision,
            instances: BTreeMap::new(),
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            events: BTreeMap::new(),
        };
        for e in &list.entries {
            view.put(e);
        }
        Ok(view)
    }

    /// Waits for a change and takes it.
    pub async fn changed(&mut self) -> Result<(), Error> {
        match self.changes.next().await {
            Some(event) => self.take(event?),
            None => return Err(Error::Lagged),
        }
        Ok(())
    }

    /// Takes all changes that are there.
    pub fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            match self.changes.next().now_or_never() {
                None => return Ok(()),
                Some(Some(event)) => self.take(event?),
                Some(None) => return Err(Error::Lagged),
            }
        }
    }

    fn take(&mut self, event: biga_store::WatchEvent) {
        self.revision = event.entry.revision;
        match event.kind {
            WatchEventKind::Put => self.put(&event.entry),
            WatchEventKind::Delete => {
                let key = &event.entry.key;
                self.instances.remove(key);
                self.nodes.remove(key);
                self.objects.remove(key);
                self.events.remove(key);
            }
        }
    }

    fn put(&mut self, entry: &Entry) {
        let plural = entry.key.split('/').nth(2).unwrap_or_default();
        let done = match plural {
            Instance::PLURAL => typed::decode(entry).map(|o| {
                self.seen(entry, Resource::Instance, &o.metadata);
                self.instances.insert(entry.key.clone(), o);
            }),
            Node::PLURAL => typed::decode(entry).map(|o| {
                self.seen(entry, Resource::Node, &o.metadata);
                self.nodes.insert(entry.key.clone(), o);
            }),
            Image::PLURAL => self.collect(entry, Resource::Image),
            Volume::PLURAL => self.collect(entry, Resource::Volume),
            Network::PLURAL => self.collect(entry, Resource::Network),
            Event::PLURAL => self.event(entry),
            // Kinds without a controller here.
            _ => Ok(()),
        };
        if let Err(e) = done {
            tracing::error!(error = %e, "the controllers leave it out");
        }
    }

    fn seen(&mut self, entry: &Entry, resource: Resource, meta: &ObjectMeta) {
        self.objects.insert(entry.key.clone(), Seen::new(resource, meta));
    }

    fn collect(&mut self, entry: &Entry, resource: Resource) -> Result<(), typed::Error> {
        let o: OnlyMeta = parse(entry)?;
        self.seen(entry, resource, &o.metadata);
        Ok(())
    }

    fn event(&mut self, entry: &Entry) -> Result<(), typed::Error> {
        let o: OnlyTime = parse(entry)?;
        let time = o.spec.time.or(o.metadata.creation_timestamp).unwrap_or_default();
        let id = Seen::new(Resource::Event, &o.metadata).id;
        self.events.insert(entry.key.clone(), SeenEvent { id, time });
        Ok(())
    }
}

fn parse<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Result<T, typed::Error> {
    serde_json::from_slice(&entry.value).map_err(|e| typed::Error::Damaged {
        key: entry.key.clone(),
        why: e.to_string(),
    })
}
