//! Gives every instance placed on this node its task, and tells the task what is newest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use biga_model::{Instance, Object};
use biga_store::Store;
use biga_store::typed::{ObjectEvent, Objects};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Host;
use super::task::Task;

type Sender = watch::Sender<Option<Arc<Object<Instance>>>>;

/// The tasks of a node, by the uid of their instance.
pub struct Manager {
    node: String,
    host: Arc<dyn Host>,
    store: Arc<dyn Store>,
    tasks: HashMap<String, (Sender, JoinHandle<()>)>,
}

impl Manager {
    /// A manager of the instances placed on `node`.
    pub fn new(node: String, host: Arc<dyn Host>, store: Arc<dyn Store>) -> Manager {
        Manager {
            node,
            host,
            store,
            tasks: HashMap::new(),
        }
    }

    /// Follows the store until the task is dropped.
    pub async fn run(mut self) {
        let objects = Objects::<Instance>::new(self.store.clone());
        loop {
            if let Err(e) = self.follow(&objects).await {
                tracing::warn!("the watch on instances broke, listing again: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn follow(&mut self, objects: &Objects<Instance>) -> Result<(), biga_store::typed::Error> {
        let list = objects.list(None).await?;
        let present: Vec<String> = list.items.iter().map(|o| o.metadata.uid.clone()).collect();
        list.items.into_iter().for_each(|o| self.tell(o));
        for (uid, (newest, _)) in &self.tasks {
            if !present.contains(uid) {
                newest.send_replace(None);
            }
        }
        let mut events = objects.watch(None, Some(list.revision)).await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(ObjectEvent::Put { object, .. }) => self.tell(*object),
                Ok(ObjectEvent::Deleted { object }) => self.gone(&object),
                Err(e @ biga_store::typed::Error::Store(_)) => return Err(e),
                Err(e) => tracing::error!("an instance cannot be read: {e}"),
            }
            self.tasks.retain(|_, (_, task)| !task.is_finished());
        }
        Ok(())
    }

    /// Not where only its old name is gone: it was told under its new one already.
    fn gone(&self, object: &Object<Instance>) {
        let Some((newest, _)) = self.tasks.get(&object.metadata.uid) else {
            return;
        };
        newest.send_if_modified(|n| {
            let renamed = n.as_ref().is_some_and(|o| o.name() != object.name());
            if !renamed {
                *n = None;
            }
            !renamed
        });
    }

    fn tell(&mut self, object: Object<Instance>) {
        if object.spec.node_name.as_deref() != Some(self.node.as_str()) {
            return;
        }
        let object = Arc::new(object);
        match self.tasks.get(&object.metadata.uid) {
            Some((newest, task)) if !task.is_finished() => {
                newest.send_if_modified(|n| {
                    // The task's own status writes come back here; they say nothing new to it.
                    let news = n.as_ref().is_none_or(|old| {
                        old.metadata.generation != object.metadata.generation
                            || old.metadata.deletion_timestamp != object.metadata.deletion_timestamp
                            || old.metadata.deletion_grace_period_seconds
                                != object.metadata.deletion_grace_period_seconds
                            || old.metadata.name != object.metadata.name
                    });
                    *n = Some(object.clone());
                    news
                });
            }
            _ => {
                let (newest, rx) = watch::channel(Some(object.clone()));
                let task = Task::new(self.host.clone(), self.store.clone(), &object, rx);
                self.tasks
                    .insert(object.metadata.uid.clone(), (newest, tokio::spawn(task.run())));
            }
        }
    }
}
