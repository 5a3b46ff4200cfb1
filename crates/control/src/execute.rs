//! Carrying actions out. What the plan saw may have changed meanwhile: then an action does nothing.

use std::sync::Arc;

use async_trait::async_trait;
use biga_model::{
    Condition, Event, EventSpec, EventType, Image, Instance, Kind, Network, Node, Object, ObjectRef, Timestamp, Volume,
};
use biga_store::typed::{self, DeleteOptions};
use biga_store::{SpecWriter, StatusWriter, Store};

use crate::action::{Action, Id, Resource};
use crate::schedule;

/// An action failed, or the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's answer.
    #[error("cannot {what}")]
    Store {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: typed::Error,
    },
}

impl Error {
    /// Whether the store closed: nothing more will ever be done.
    pub fn is_closed(&self) -> bool {
        let Error::Store { source, .. } = self;
        matches!(source, typed::Error::Store(biga_store::Error::Closed))
    }
}

pub(crate) fn failed<E: Into<typed::Error>>(what: impl ToString) -> impl FnOnce(E) -> Error {
    let what = what.to_string();
    move |e| Error::Store { what, source: e.into() }
}

/// What the collector does to any kind.
#[async_trait]
trait AnyKind: Send + Sync {
    async fn delete(&self, id: &Id) -> Result<(), typed::Error>;
    async fn remove_finalizer(&self, id: &Id, finalizer: &str) -> Result<(), typed::Error>;
    async fn remove_owner(&self, id: &Id, owner: &str) -> Result<(), typed::Error>;
}

struct Of<K: Kind>(SpecWriter<K>);

#[async_trait]
impl<K: Kind> AnyKind for Of<K> {
    async fn delete(&self, id: &Id) -> Result<(), typed::Error> {
        let options = DeleteOptions {
            uid: Some(id.uid.clone()),
            ..DeleteOptions::default()
        };
        self.0.delete(&id.namespace, &id.name, &options).await.map(drop)
    }

    async fn remove_finalizer(&self, id: &Id, finalizer: &str) -> Result<(), typed::Error> {
        let change = |o: &mut Object<K>| {
            if o.metadata.uid == id.uid {
                o.metadata.finalizers.retain(|f| f != finalizer);
            }
        };
        self.0.modify(&id.namespace, &id.name, change).await.map(drop)
    }

    async fn remove_owner(&self, id: &Id, owner: &str) -> Result<(), typed::Error> {
        let change = |o: &mut Object<K>| {
            if o.metadata.uid == id.uid {
                o.metadata.owner_references.retain(|r| r.uid != owner);
            }
        };
        self.0.modify(&id.namespace, &id.name, change).await.map(drop)
    }
}

/// Executes plans.
pub(crate) struct Executor {
    store: Arc<dyn Store>,
    instances: SpecWriter<Instance>,
    status: StatusWriter<Instance>,
    events: SpecWriter<Event>,
}

impl Executor {
    pub fn new(store: Arc<dyn Store>) -> Executor {
        Executor {
            instances: SpecWriter::new(store.clone()),
            status: StatusWriter::new(store.clone()),
            events: SpecWriter::new(store.clone()),
            store,
        }
    }

    fn kind(&self, resource: Resource) -> Box<dyn AnyKind> {
        fn of<K: Kind>(store: &Arc<dyn Store>) -> Box<dyn AnyKind> {
            Box::new(Of::<K>(SpecWriter::new(store.clone())))
        }
        match resource {
            Resource::Instance => of::<Instance>(&self.store),
            Resource::Image => of::<Image>(&self.store),
            Resource::Volume => of::<Volume>(&self.store),
            Resource::Network => of::<Network>(&self.store),
            Resource::Node => of::<Node>(&self.store),
            Resource::Event => of::<Event>(&self.store),
        }
    }

    /// Carries out one action.
    pub async fn execute(&self, action: &Action) -> Result<(), Error> {
        let done = match action {
            Action::Place { id, node } => self.place(id, node).await,
            Action::Unschedulable { id, message } => self.unschedulable(id, message).await,
            Action::Delete { id } => self.kind(id.resource).delete(id).await,
            Action::RemoveFinalizer { id, finalizer } => self.kind(id.resource).remove_finalizer(id, finalizer).await,
            Action::RemoveOwner { id, owner } => self.kind(id.resource).remove_owner(id, owner).await,
            Action::Compact { revision } => self.store.compact(*revision).await.map_err(typed::Error::from),
        };
        match done {
            // Gone, or a namesake stands there: nothing is left to do.
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            other => other.map_err(failed(action)),
        }
    }

    async fn place(&self, id: &Id, node: &str) -> Result<(), typed::Error> {
        let change = |o: &mut Object<Instance>| {
            if o.metadata.uid == id.uid && o.spec.node_name.is_none() && !o.is_deleting() {
                o.spec.node_name = Some(node.into());
            }
        };
        let placed = self.instances.modify(&id.namespace, &id.name, change).await?;
        // The condition is only there where it once could not be placed.
        let unplaced = |c: &Condition| c.type_ == schedule::CONDITION && c.status == "False";
        if placed.status_or_default().conditions.iter().any(unplaced) {
            let now = Timestamp::now();
            let message = format!("on node {node}");
            self.status
                .modify_status(&id.namespace, &id.name, &id.uid, |s| {
                    Condition::set(&mut s.conditions, schedule::CONDITION, true, "Placed", &message, now);
                })
                .await?;
        }
        Ok(())
    }

    async fn unschedulable(&self, id: &Id, message: &str) -> Result<(), typed::Error> {
        let now = Timestamp::now();
        self.status
            .modify_status(&id.namespace, &id.name, &id.uid, |s| {
                Condition::set(
                    &mut s.conditions,
                    schedule::CONDITION,
                    false,
                    schedule::REASON,
                    message,
                    now,
                );
            })
            .await?;
        let mut event = Object::<Event>::new(
            "",
            EventSpec {
                type_: EventType::Warning,
                reason: schedule::REASON.into(),
                message: message.into(),
                regarding: ObjectRef {
                    kind: id.resource.kind().into(),
                    namespace: id.namespace.clone(),
                    name: id.name.clone(),
                    uid: id.uid.clone(),
                },
                time: Some(now),
                count: 1,
            },
        );
        // The longest name of an instance leaves no room for a suffix.
        let base: String = id.name.chars().take(240).collect();
        event.metadata.generate_name = Some(format!("{base}."));
        event.metadata.namespace = Some(id.namespace.clone());
        self.events.create(event).await.map(drop)
    }
}
