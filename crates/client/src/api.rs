//! Objects of one kind, typed.

use std::marker::PhantomData;

use biga_model::{Kind, Object};
use serde_json::Value;

use crate::raw::{List, ListMeta, RawApi, Resource, Table, optional};
use crate::watch::{WatchEvent, Watcher};
use crate::{Client, DeleteParams, Error, ListParams, Patch};

/// Objects of kind `K` in one namespace, or in all.
#[derive(Debug, Clone)]
pub struct Api<K: Kind> {
    raw: RawApi,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Api<K> {
    pub(crate) fn new(client: Client, namespace: &str) -> Api<K> {
        Api {
            raw: RawApi::new(client, Resource::of::<K>(), Some(namespace.to_string())),
            kind: PhantomData,
        }
    }

    pub(crate) fn all(client: Client) -> Api<K> {
        Api {
            raw: RawApi::new(client, Resource::of::<K>(), None),
            kind: PhantomData,
        }
    }

    /// The same over JSON values.
    pub fn raw(&self) -> &RawApi {
        &self.raw
    }

    /// One object.
    pub async fn get(&self, name: &str) -> Result<Object<K>, Error> {
        self.raw.get_as(name).await
    }

    /// One object, or `None` where there is none of this name.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Object<K>>, Error> {
        optional(self.get(name).await)
    }

    /// All objects `params` select.
    pub async fn list(&self, params: &ListParams) -> Result<TypedList<K>, Error> {
        let List { metadata, items } = self.raw.list_as(params).await?;
        Ok(TypedList { metadata, items })
    }

    /// The table of all objects `params` select.
    pub async fn list_table(&self, params: &ListParams) -> Result<Table, Error> {
        self.raw.list_table(params).await
    }

    /// Stores a new object.
    pub async fn create(&self, object: &Object<K>) -> Result<Object<K>, Error> {
        self.raw.create_as(object).await
    }

    /// Replaces an object; with a `resourceVersion`, only if it is still of that revision.
    pub async fn update(&self, object: &Object<K>) -> Result<Object<K>, Error> {
        self.raw.update_as(object.name(), object).await
    }

    /// Replaces the status of an object.
    pub async fn update_status(&self, object: &Object<K>) -> Result<Object<K>, Error> {
        self.raw.update_status_as(object.name(), object).await
    }

    /// Changes an object.
    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<Object<K>, Error> {
        self.raw.patch_as(name, patch).await
    }

    /// Gives an object another name.
    pub async fn rename(&self, object: &Object<K>, to: &str) -> Result<Object<K>, Error> {
        parse(self.raw.rename(object.name(), object.uid(), to).await?)
    }

    /// Asks for an object's deletion. `None` where it is gone already; the object while its finalizers are at work.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<Option<Object<K>>, Error> {
        let v = self.raw.delete(name, params).await?;
        if v["kind"] == K::KIND && v["metadata"]["deletionTimestamp"].is_string() {
            return parse(v).map(Some);
        }
        Ok(None)
    }

    /// Lists what `params` select, then follows its changes.
    pub fn watch(&self, params: &ListParams) -> Watcher<K> {
        Watcher::new(self.raw.clone(), params.clone(), None)
    }

    /// Follows changes after the revision `from`.
    pub fn watch_from(&self, params: &ListParams, from: &str) -> Watcher<K> {
        Watcher::new(self.raw.clone(), params.clone(), Some(from.to_string()))
    }

    /// Follows `object` from the state in which it was read until `done` gives a value; called with `None` when it is
    /// gone. The state itself is looked at first, so nothing has to be listed.
    pub async fn wait_from<T>(
        &self,
        object: &Object<K>,
        mut done: impl FnMut(Option<&Object<K>>) -> Option<T>,
    ) -> Result<T, Error> {
        if object.metadata.resource_version.is_empty() {
            return self.wait_for(object.name(), done).await;
        }
        match done(Some(object)) {
            Some(v) => Ok(v),
            None => {
                let from = &object.metadata.resource_version;
                let watch = self.watch_from(&ListParams::named(object.name()), from);
                self.follow(watch, object.name(), done).await
            }
        }
    }

    /// Follows one object until `done` gives a value; called with `None` when the object is gone. One that gets another
    /// name meanwhile is followed there.
    pub async fn wait_for<T>(&self, name: &str, done: impl FnMut(Option<&Object<K>>) -> Option<T>) -> Result<T, Error> {
        self.follow(self.watch(&ListParams::named(name)), name, done).await
    }

    async fn follow<T>(
        &self,
        mut watch: Watcher<K>,
        name: &str,
        mut done: impl FnMut(Option<&Object<K>>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut name = name.to_string();
        loop {
            let found = match watch.next_event().await? {
                WatchEvent::Listed(items) => done(items.iter().find(|o| o.name() == name)),
                WatchEvent::Applied(o) if o.name() == name => done(Some(&o)),
                WatchEvent::Deleted(o) if o.name() == name => match self.renamed(&o).await? {
                    Some(now) => {
                        name = now.name().to_string();
                        watch = self.watch_from(&ListParams::named(&name), &now.metadata.resource_version);
                        done(Some(&now))
                    }
                    None => done(None),
                },
                _ => None,
            };
            if let Some(v) = found {
                return Ok(v);
            }
        }
    }

    /// What is gone from its name without having been removed may only have got another one.
    async fn renamed(&self, gone: &Object<K>) -> Result<Option<Object<K>>, Error> {
        if !K::RENAMABLE || gone.is_deleting() {
            return Ok(None);
        }
        let all = self.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|o| o.uid() == gone.uid()))
    }
}

/// A typed list.
#[derive(Debug, Clone)]
pub struct TypedList<K: Kind> {
    /// Revision and paging.
    pub metadata: ListMeta,
    /// The objects.
    pub items: Vec<Object<K>>,
}

fn parse<K: Kind>(v: Value) -> Result<Object<K>, Error> {
    serde_json::from_value(v).map_err(|e| unreadable(K::SINGULAR, &e))
}

/// What is said of an object that the daemon gave.
pub(crate) fn unreadable(what: &str, e: &serde_json::Error) -> Error {
    Error::protocol(format!(
        "a {what} as the daemon gave it cannot be read ({e}): client and daemon may be of different versions"
    ))
}
