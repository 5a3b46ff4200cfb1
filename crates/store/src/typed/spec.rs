//! Writing what is wanted: spec and metadata. The status stays as it is.

use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use biga_model::{DEFAULT_NAMESPACE, Kind, Object, Timestamp};

use super::{Error, Objects, encode, key_of, revision_of};
use crate::api::{self, Precondition, Store, Write};

/// Writes specs and metadata of one kind. Cheap to clone.
pub struct SpecWriter<K: Kind> {
    store: Arc<dyn Store>,
    completer: Option<Arc<dyn Complete<K>>>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Clone for SpecWriter<K> {
    fn clone(&self) -> Self {
        SpecWriter {
            store: self.store.clone(),
            completer: self.completer.clone(),
            kind: PhantomData,
        }
    }
}

/// Decides for a new object what its maker left open, in the write that makes it: one write where a controller would need a second.
#[async_trait]
pub trait Complete<K: Kind>: Send + Sync + 'static {
    /// Fills in what can be decided now. The rest is left to the controllers.
    async fn complete(&self, new: &mut Object<K>);
}

/// What becomes of the objects whose owner is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// The garbage collector deletes them afterwards.
    #[default]
    Background,
    /// The owner goes after them.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// The finalizer under which dependents lose their owner before it goes.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// The finalizer under which dependents go before their owner.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only at this `resourceVersion`.
    pub resource_version: Option<String>,
    /// Seconds of grace for what has to end; `None` leaves it to the object.
    pub grace_seconds: Option<i64>,
    /// What becomes of dependents.
    pub propagation: Propagation,
}

/// What a deletion did.
#[derive(Debug, Clone)]
pub enum Deletion<K: Kind> {
    /// The object is gone; this is how it was.
    Gone(Box<Object<K>>),
    /// It waits for its finalizers; this is how it stands now.
    Waiting(Box<Object<K>>),
}

impl<K: Kind> SpecWriter<K> {
    /// A handle on `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        SpecWriter {
            store,
            completer: None,
            kind: PhantomData,
        }
    }

    /// The same, with new objects completed.
    #[must_use]
    pub fn completed_by(mut self, completer: Arc<dyn Complete<K>>) -> Self {
        self.completer = Some(completer);
        self
    }

    /// Stores a new object: gives it uid, name (from `generateName`), creation time, generation 1 and the
    /// kind's finalizers. Its status, if any, is dropped.
    pub async fn create(&self, mut object: Object<K>) -> Result<Object<K>, Error> {
        prepare_new(&mut object, Timestamp::now());
        self.insert(object).await
    }

    /// Stores an object as [`prepare_new`] made it.
    pub async fn insert(&self, mut object: Object<K>) -> Result<Object<K>, Error> {
        if let Some(completer) = &self.completer {
            completer.complete(&mut object).await;
        }
        let value = encode(&object)?;
        let key = key_of(&object);
        match self.store.put(&key, value, Precondition::DoesNotExist, None).await {
            Ok(revision) => {
                object.metadata.resource_version = revision.to_string();
                Ok(object)
            }
            Err(api::Error::Conflict { .. }) => Err(Error::AlreadyExists {
                plural: K::PLURAL,
                name: object.metadata.name,
            }),
            Err(e) => Err(e.into()),
        }
    }

    /// Replaces spec, labels, annotations, owners and finalizers of an object by those of `object`, if it still
    /// is at `object`'s `resourceVersion` (where that is set) and has its uid (where that is set).
    pub async fn update(&self, object: Object<K>) -> Result<Object<K>, Error> {
        let ns = object.metadata.namespace.clone().unwrap_or_default();
        let current = Objects::<K>::new(self.store.clone())
            .get(&ns, &object.metadata.name)
            .await?;
        let m = &object.metadata;
        if !m.uid.is_empty() && m.uid != current.metadata.uid {
            return Err(Error::conflict::<K>(
                &m.name,
                "it has another uid: it was removed and made anew",
            ));
        }
        if !m.resource_version.is_empty() && m.resource_version != current.metadata.resource_version {
            return Err(Error::conflict::<K>(&m.name, super::error::CHANGED));
        }
        self.replace(&current, object).await
    }

    /// Changes spec and metadata by `change`, again on the newest state until nobody came between.
    /// Writes nothing where `change` changed nothing.
    pub async fn modify(
        &self,
        namespace: &str,
        name: &str,
        mut change: impl FnMut(&mut Object<K>) + Send,
    ) -> Result<Object<K>, Error> {
        let objects = Objects::<K>::new(self.store.clone());
        loop {
            let current = objects.get(namespace, name).await?;
            let mut new = current.clone();
            change(&mut new);
            match self.replace(&current, new).await {
                Err(e) if e.is_conflict() => {}
                other => return other,
            }
        }
    }

    /// Gives an object another name, in one commit with all of its namespace that refer to it by name. It keeps its uid,
    /// its status and all else; its generation counts it as a change. [`Error::AlreadyExists`] where the name is taken.
    pub async fn rename(&self, current: &Object<K>, to: &str) -> Result<Object<K>, Error> {
        let m = &current.metadata;
        let namespace = m.namespace.as_deref().unwrap_or("");
        let objects = Objects::<K>::new(self.store.clone());
        loop {
            let current = objects.get(namespace, &m.name).await?;
            if current.metadata.uid != m.uid {
                return Err(Error::not_found::<K>(&m.name));
            }
            if current.is_deleting() {
                return Err(Error::conflict::<K>(&m.name, "it is being removed"));
            }
            let mut new = current.clone();
            new.metadata.name = to.into();
            new.metadata.generation += 1;
            let mut writes = vec![
                write(&new, Precondition::DoesNotExist)?,
                Write {
                    key: key_of(&current),
                    value: None,
                    precondition: Precondition::Revision(revision_of(&current)?),
                },
            ];
            for other in objects.list(Some(namespace)).await?.items {
                let mut changed = other.clone();
                K::follow_rename(&mut changed.spec, &m.name, to);
                if changed.spec != other.spec && other.metadata.uid != m.uid {
                    changed.metadata.generation += 1;
                    writes.push(write(&changed, Precondition::Revision(revision_of(&other)?))?);
                }
            }
            let target = writes[0].key.clone();
            match self.store.transact(writes).await {
                Ok(revisions) => {
                    new.metadata.resource_version = revisions.first().copied().unwrap_or_default().to_string();
                    return Ok(new);
                }
                Err(api::Error::Conflict { key, .. }) if key == target => {
                    return Err(Error::AlreadyExists {
                        plural: K::PLURAL,
                        name: to.into(),
                    });
                }
                // Somebody changed one of them meanwhile.
                Err(api::Error::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Replaces `current`, as it was read, by [`merge`] of `new`. Where nothing changes nothing is written; where a
    /// deletion was asked for and the last finalizer is gone, the object goes.
    pub async fn replace(&self, current: &Object<K>, new: Object<K>) -> Result<Object<K>, Error> {
        let at = Precondition::Revision(revision_of(current)?);
        let mut new = merge(current, new);
        if new == *current {
            return Ok(new);
        }
        let name = &current.metadata.name;
        let key = key_of(current);
        let done = if new.is_deleting() && new.metadata.finalizers.is_empty() {
            self.store.delete(&key, at).await
        } else {
            self.store.put(&key, encode(&new)?, at, None).await
        };
        let revision = done.map_err(|e| Error::of_swap::<K>(e, name))?;
        new.metadata.resource_version = revision.to_string();
        Ok(new)
    }

    /// Deletes an object: at once where nobody holds a finalizer on it, else it is marked and goes with its last finalizer.
    pub async fn delete(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Deletion<K>, Error> {
        let objects = Objects::<K>::new(self.store.clone());
        loop {
            let current = objects.get(namespace, name).await?;
            check_delete(&current, options)?;
            match self.delete_once(current, options).await {
                // Somebody changed it meanwhile: where the caller named no version that is no reason to stop.
                Err(e) if e.is_conflict() => {}
                other => return other,
            }
        }
    }

    async fn delete_once(&self, current: Object<K>, options: &DeleteOptions) -> Result<Deletion<K>, Error> {
        let at = Precondition::Revision(revision_of(&current)?);
        let key = key_of(&current);
        let marked = mark_deleted(&current, options, Timestamp::now());
        let swap = |e| Error::of_swap::<K>(e, &current.metadata.name);
        if marked.metadata.finalizers.is_empty() {
            let revision = self.store.delete(&key, at).await.map_err(swap)?;
            let mut gone = current;
            gone.metadata.resource_version = revision.to_string();
            return Ok(Deletion::Gone(Box::new(gone)));
        }
        if marked == current {
            return Ok(Deletion::Waiting(Box::new(current)));
        }
        let revision = self.store.put(&key, encode(&marked)?, at, None).await.map_err(swap)?;
        let mut marked = marked;
        marked.metadata.resource_version = revision.to_string();
        Ok(Deletion::Waiting(Box::new(marked)))
    }
}

fn write<K: Kind>(object: &Object<K>, precondition: Precondition) -> Result<Write, Error> {
    Ok(Write {
        key: key_of(object),
        value: Some(encode(object)?),
        precondition,
    })
}

fn check_delete<K: Kind>(current: &Object<K>, options: &DeleteOptions) -> Result<(), Error> {
    let m = &current.metadata;
    if options.uid.as_ref().is_some_and(|uid| *uid != m.uid) {
        return Err(Error::conflict::<K>(
            &m.name,
            "the UID in the precondition does not match",
        ));
    }
    if options
        .resource_version
        .as_ref()
        .is_some_and(|rv| *rv != m.resource_version)
    {
        return Err(Error::conflict::<K>(
            &m.name,
            "the ResourceVersion in the precondition does not match",
        ));
    }
    Ok(())
}

fn mark_deleted<K: Kind>(current: &Object<K>, options: &DeleteOptions, now: Timestamp) -> Object<K> {
    let mut o = current.clone();
    let m = &mut o.metadata;
    let finalizer = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND_FINALIZER),
        Propagation::Orphan => Some(ORPHAN_FINALIZER),
    };
    // A deletion under way takes no new finalizers.
    if let Some(f) = finalizer
        && m.deletion_timestamp.is_none()
        && !m.finalizers.iter().any(|have| have == f)
    {
        m.finalizers.push(f.into());
    }
    if m.deletion_timestamp.is_none() {
        m.deletion_timestamp = Some(whole_seconds(now));
        m.deletion_grace_period_seconds = options.grace_seconds;
    } else if let Some(grace) = options.grace_seconds
        && m.deletion_grace_period_seconds.is_none_or(|have| grace < have)
    {
        m.deletion_grace_period_seconds = Some(grace);
    }
    o
}

/// `new` with all that only the server writes taken from `current`; the generation counts changes of the spec.
pub fn merge<K: Kind>(current: &Object<K>, new: Object<K>) -> Object<K> {
    let mut m = current.metadata.clone();
    m.labels = new.metadata.labels;
    m.annotations = new.metadata.annotations;
    m.owner_references = new.metadata.owner_references;
    m.finalizers = match current.is_deleting() {
        false => new.metadata.finalizers,
        // Once deletion began finalizers can only go.
        true => {
            let keep = |f: &String| current.metadata.finalizers.contains(f);
            new.metadata.finalizers.into_iter().filter(keep).collect()
        }
    };
    if new.spec != current.spec {
        m.generation += 1;
    }
    Object {
        api_version: current.api_version.clone(),
        kind: current.kind.clone(),
        metadata: m,
        spec: new.spec,
        status: current.status.clone(),
    }
}

/// Gives a new object what the server gives: identity, name, times, generation, finalizers.
pub fn prepare_new<K: Kind>(object: &mut Object<K>, now: Timestamp) {
    object.api_version = biga_model::API_VERSION.into();
    object.kind = K::KIND.into();
    object.status = None;
    let m = &mut object.metadata;
    m.namespace = match K::NAMESPACED {
        true => m.namespace.take().or_else(|| Some(DEFAULT_NAMESPACE.into())),
        false => None,
    };
    if m.name.is_empty()
        && let Some(base) = &m.generate_name
    {
        m.name = generate_name(base);
    }
    m.uid = uuid::Uuid::new_v4().to_string();
    m.resource_version.clear();
    m.generation = 1;
    m.creation_timestamp = Some(whole_seconds(now));
    m.deletion_timestamp = None;
    m.deletion_grace_period_seconds = None;
    m.managed_fields = None;
    m.self_link = None;
    for f in K::FINALIZERS {
        if !m.finalizers.iter().any(|have| have == f) {
            m.finalizers.push((*f).into());
        }
    }
}

/// `base` and five random letters or digits, none of which is easily taken for another.
pub fn generate_name(base: &str) -> String {
    const LETTERS: &[u8; 32] = b"bcdfghjklmnpqrstvwxz0123456789ae";
    let random = uuid::Uuid::new_v4();
    let suffix = random.as_bytes()[..5]
        .iter()
        .map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()]));
    base.chars().chain(suffix).collect()
}

/// API timestamps have whole seconds.
fn whole_seconds(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}
