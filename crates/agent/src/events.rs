//! Telling people what happened: `Event` objects, written behind the work, never in its way.
//!
//! They are gathered for a moment and written together, so that the store makes one commit of them: a short run has
//! three, and each commit of its own would cost as much as the run's status.

use std::sync::Arc;
use std::time::Duration;

use biga_model::{Event, EventSpec, EventType, Kind, Object, ObjectRef};
use biga_store::Store;
use biga_store::typed::SpecWriter;
use futures_util::future::join_all;
use tokio::sync::mpsc;

/// Events that wait to be written; more are dropped and logged.
const QUEUE: usize = 1024;
/// So many are written together at most.
const TOGETHER: usize = 256;
/// For so long they are gathered.
const GATHER: Duration = Duration::from_millis(50);

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
            let mut batch = Vec::new();
            while let Some(first) = waiting.recv().await {
                batch.push(first);
                tokio::time::sleep(GATHER).await;
                while batch.len() < TOGETHER
                    && let Ok(event) = waiting.try_recv()
                {
                    batch.push(event);
                }
                // All are queued before the store's writer takes up the first, or it takes two commits.
                join_all(batch.drain(..).map(|event| write(&writer, event))).await;
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

async fn write(writer: &SpecWriter<Event>, event: Object<Event>) {
    let regarding = event.spec.regarding.name.clone();
    if let Err(e) = writer.create(event).await {
        tracing::warn!("an event about {regarding} was not written: {e}");
    }
}
