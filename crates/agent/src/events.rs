//! Telling people what happened: `Event` objects, written behind the work, never in its way.

use std::sync::Arc;

use biga_model::{Event, EventSpec, EventType, Kind, Object, ObjectRef};
use biga_store::Store;
use biga_store::typed::SpecWriter;
use tokio::sync::mpsc;

/// Events that wait to be written; more are dropped and logged.
const QUEUE: usize = 1024;

/// Records events. A cheap handle.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Object<Event>>,
}

impl Recorder {
    /// A recorder that writes into `store`, and the task that does the writing.
    pub fn new(store: Arc<dyn Store>) -> (Recorder, impl Future<Output = ()> + Send) {
        let (queue, mut waiting) = mpsc::channel::<Object<Event>>(QUEUE);
        let writer = SpecWriter::<Event>::new(store);
        let work = async move {
            while let Some(event) = waiting.recv().await {
                let regarding = event.spec.regarding.name.clone();
                if let Err(e) = writer.create(event).await {
                    tracing::warn!("an event about {regarding} was not written: {e}");
                }
            }
        };
        (Recorder { queue }, work)
    }

    /// Says that something happened to `object`.
    pub fn record<K: Kind>(&self, object: &Object<K>, warning: bool, reason: &str, message: &str) {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let m = &object.metadata;
        let spec = EventSpec {
            type_,
            reason: reason.into(),
            message: message.into(),
            regarding: ObjectRef {
                kind: K::KIND.into(),
                namespace: m.namespace.clone().unwrap_or_default(),
                name: m.name.clone(),
                uid: m.uid.clone(),
            },
            time: Some(biga_model::Timestamp::now()),
            count: 1,
        };
        let mut event: Object<Event> = Object::new("", spec);
        if let Some(ns) = &m.namespace {
            event.metadata.namespace = Some(ns.clone());
        }
        event.metadata.generate_name = Some(format!("{}.", m.name.chars().take(200).collect::<String>()));
        if self.queue.try_send(event).is_err() {
            tracing::warn!("too many events at once: one about {} was dropped", m.name);
        }
    }
}
