//! Objects as JSON values, for kinds known only at run time.

use biga_model::Kind;
use http::{HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::{request, request_json};
use crate::params::{encode_query, encode_segment};
use crate::{Client, DeleteParams, Error, ListParams, Patch};

/// A kind of resource as the server names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `biga.dev/v1`, or `v1` for the core group.
    pub api_version: String,
    /// As `Instance`.
    pub kind: String,
    /// As `instances`.
    pub plural: String,
    /// As `instance`.
    pub singular: String,
    /// As `inst`.
    pub short_names: Vec<String>,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
}

impl Resource {
    /// One of Biga's own kinds.
    pub fn of<K: Kind>() -> Resource {
        Resource {
            api_version: biga_model::API_VERSION.into(),
            kind: K::KIND.into(),
            plural: K::PLURAL.into(),
            singular: K::SINGULAR.into(),
            short_names: K::SHORT_NAMES.iter().map(ToString::to_string).collect(),
            namespaced: K::NAMESPACED,
        }
    }

    /// Biga's own kinds.
    pub fn known() -> Vec<Resource> {
        use biga_model::{Event, Image, Instance, Network, Node, Volume};
        vec![
            Resource::of::<Instance>(),
            Resource::of::<Image>(),
            Resource::of::<Volume>(),
            Resource::of::<Network>(),
            Resource::of::<Node>(),
            Resource::of::<Event>(),
        ]
    }

    /// Whether a user who types `word` means this kind.
    pub fn answers_to(&self, word: &str) -> bool {
        let w = word.to_ascii_lowercase();
        let full = match self.api_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}", self.plural),
            None => self.plural.clone(),
        };
        w == self.plural
            || w == self.singular
            || w == full
            || w == self.kind.to_ascii_lowercase()
            || self.short_names.contains(&w)
    }

    fn prefix(&self) -> String {
        if self.api_version.contains('/') {
            format!("/apis/{}", self.api_version)
        } else {
            format!("/api/{}", self.api_version)
        }
    }

    /// The path of the collection, or of an object in it.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut p = self.prefix();
        if self.namespaced
            && let Some(ns) = namespace
        {
            p = format!("{p}/namespaces/{}", encode_segment(ns));
        }
        p = format!("{p}/{}", self.plural);
        if let Some(n) = name {
            p = format!("{p}/{}", encode_segment(n));
        }
        p
    }
}

/// Objects of one kind, as JSON values.
#[derive(Debug, Clone)]
pub struct RawApi {
    pub(crate) client: Client,
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
}

/// A list as the server gives it.
#[derive(Debug, Clone, Deserialize)]
pub struct List<T> {
    /// Revision and paging.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The objects.
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

/// Metadata of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The revision the list is of: watch from here.
    #[serde(default)]
    pub resource_version: String,
    /// Where it goes on, if there is more.
    #[serde(default, rename = "continue")]
    pub continue_token: Option<String>,
}

/// A table as the server prints it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Revision and paging.
    #[serde(default, skip_serializing)]
    pub metadata: ListMeta,
    /// The columns.
    #[serde(default)]
    pub column_definitions: Vec<TableColumn>,
    /// The rows.
    #[serde(default)]
    pub rows: Vec<TableRow>,
}

/// A column of a [`Table`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `date`, …
    #[serde(default, rename = "type")]
    pub type_: String,
    /// 0 is always shown, more is shown with `-o wide`.
    #[serde(default)]
    pub priority: i32,
}

/// A row of a [`Table`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableRow {
    /// One for each column.
    pub cells: Vec<Value>,
    /// The object's metadata (`PartialObjectMetadata`).
    #[serde(default)]
    pub object: Value,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

impl RawApi {
    pub(crate) fn new(client: Client, resource: Resource, namespace: Option<String>) -> RawApi {
        RawApi {
            client,
            resource,
            namespace,
        }
    }

    /// The kind.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    pub(crate) fn path(&self, name: Option<&str>) -> String {
        self.resource.path(self.namespace.as_deref(), name)
    }

    /// One object.
    pub async fn get(&self, name: &str) -> Result<Value, Error> {
        self.get_as(name).await
    }

    pub(crate) async fn get_as<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.client.json(request(Method::GET, &self.path(Some(name)))?).await
    }

    /// One object, or `None` where there is none of this name.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Value>, Error> {
        optional(self.get(name).await)
    }

    /// All objects `params` select: pages are fetched until none is left, unless `params` limits the number.
    pub async fn list(&self, params: &ListParams) -> Result<List<Value>, Error> {
        self.list_as(params).await
    }

    pub(crate) async fn list_as<T: DeserializeOwned>(&self, params: &ListParams) -> Result<List<T>, Error> {
        let mut page = self.list_page(params).await?;
        while params.limit.is_none() && page.metadata.continue_token.as_deref().is_some_and(|t| !t.is_empty()) {
            let next = ListParams {
                continue_token: page.metadata.continue_token.take(),
                ..params.clone()
            };
            let more: List<T> = self.list_page(&next).await?;
            page.items.extend(more.items);
            page.metadata = more.metadata;
        }
        Ok(page)
    }

    async fn list_page<T: DeserializeOwned>(&self, params: &ListParams) -> Result<List<T>, Error> {
        let path = format!("{}{}", self.path(None), encode_query(&params.query()));
        self.client.json(request(Method::GET, &path)?).await
    }

    /// The table of all objects `params` select.
    pub async fn list_table(&self, params: &ListParams) -> Result<Table, Error> {
        self.table(&format!("{}{}", self.path(None), encode_query(&params.query())))
            .await
    }

    /// The table of one object.
    pub async fn get_table(&self, name: &str) -> Result<Table, Error> {
        self.table(&self.path(Some(name))).await
    }

    async fn table(&self, path: &str) -> Result<Table, Error> {
        let mut r = request(Method::GET, path)?;
        r.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(TABLE));
        self.client.json(r).await
    }

    /// Stores a new object.
    pub async fn create(&self, object: &Value) -> Result<Value, Error> {
        self.create_as(object).await
    }

    pub(crate) async fn create_as<T: Serialize + DeserializeOwned>(&self, object: &T) -> Result<T, Error> {
        let r = request_json(Method::POST, &self.path(None), "application/json", object)?;
        self.client.json(r).await
    }

    /// Replaces an object; with a `resourceVersion`, only if it is still of that revision.
    pub async fn update(&self, name: &str, object: &Value) -> Result<Value, Error> {
        self.update_as(name, object).await
    }

    pub(crate) async fn update_as<T: Serialize + DeserializeOwned>(&self, name: &str, object: &T) -> Result<T, Error> {
        let r = request_json(Method::PUT, &self.path(Some(name)), "application/json", object)?;
        self.client.json(r).await
    }

    /// Replaces the status of an object.
    pub async fn update_status(&self, name: &str, object: &Value) -> Result<Value, Error> {
        self.update_status_as(name, object).await
    }

    pub(crate) async fn update_status_as<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        object: &T,
    ) -> Result<T, Error> {
        let path = format!("{}/status", self.path(Some(name)));
        self.client
            .json(request_json(Method::PUT, &path, "application/json", object)?)
            .await
    }

    /// Changes an object.
    pub async fn patch(&self, name: &str, patch: &Patch) -> Result<Value, Error> {
        self.patch_as(name, patch).await
    }

    pub(crate) async fn patch_as<T: DeserializeOwned>(&self, name: &str, patch: &Patch) -> Result<T, Error> {
        let path = self.path(Some(name));
        self.client
            .json(request_json(Method::PATCH, &path, patch.content_type(), patch.value())?)
            .await
    }

    /// Gives an object, that with this uid, another name.
    pub async fn rename(&self, name: &str, uid: &str, to: &str) -> Result<Value, Error> {
        let path = format!("{}/rename", self.path(Some(name)));
        let body = serde_json::json!({"name": to, "uid": uid});
        self.client
            .json(request_json(Method::POST, &path, "application/json", &body)?)
            .await
    }

    /// Asks for an object's deletion. Gives what the server answers: the object while finalizers are at work, or a `Status`.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<Value, Error> {
        let path = self.path(Some(name));
        self.client
            .json(request_json(Method::DELETE, &path, "application/json", &params.body())?)
            .await
    }
}

/// `None` for what is not there.
pub(crate) fn optional<T>(r: Result<T, Error>) -> Result<Option<T>, Error> {
    match r {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_scope_and_group() {
        let i = Resource::of::<biga_model::Instance>();
        assert_eq!(i.path(Some("a"), None), "/apis/biga.dev/v1/namespaces/a/instances");
        assert_eq!(i.path(None, None), "/apis/biga.dev/v1/instances");
        assert_eq!(
            i.path(Some("a/b"), Some("../x")),
            "/apis/biga.dev/v1/namespaces/a%2Fb/instances/..%2Fx"
        );
        let n = Resource::of::<biga_model::Network>();
        assert_eq!(n.path(Some("a"), Some("x")), "/apis/biga.dev/v1/networks/x");
        assert!(i.answers_to("inst") && i.answers_to("Instances") && i.answers_to("instances.biga.dev"));
        assert!(!i.answers_to("image"));
    }
}
