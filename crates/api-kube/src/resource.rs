//! One kind served: the verbs' common ground. The verbs themselves are in [`crate::list`], [`crate::watch`],
//! [`crate::write`], [`crate::patch`], [`crate::rename`] and [`crate::delete`].

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use biga_model::{Kind, Object, Timestamp};
use biga_store::{Objects, SpecWriter, StatusWriter, Store, typed};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::accept;
use crate::admission::{Admission, Operation, Review};
use crate::error::ApiError;
use crate::pick::Picker;
use crate::query::Query;
use crate::render::{IncludeObject, Style};
use crate::selection::Selection;

/// A request to one kind's collection or to one object.
pub(crate) struct Call {
    pub method: Method,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// `status` or `rename`; other subresources are not served here.
    pub subresource: Option<String>,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    /// The namespace for keys: empty for cluster-wide kinds.
    pub fn ns(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    /// The object's name; the router sends object verbs only with one.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    /// `dryRun=All`.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        dry_run(self.query.all("dryRun"))
    }

    /// How the answer is written.
    pub fn style(&self) -> Result<Style, ApiError> {
        Ok(Style {
            representation: accept::representation(&self.headers)?,
            include: IncludeObject::parse(self.query.get("includeObject"))?,
            now: Timestamp::now(),
        })
    }
}

pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for v in values {
        match v {
            "All" => dry = true,
            "" => {}
            other => return Err(ApiError::bad_request(format!("dryRun is All, not {other:?}"))),
        }
    }
    Ok(dry)
}

/// What discovery says of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub namespaced: bool,
    pub subresources: &'static [&'static str],
}

/// A kind behind the router.
#[async_trait]
pub(crate) trait Endpoint: Send + Sync {
    fn about(&self) -> About;
    async fn call(&self, call: Call) -> Result<Response, ApiError>;
}

/// A kind over a store.
pub(crate) struct Resource<K: Kind> {
    pub store: Arc<dyn Store>,
    pub objects: Objects<K>,
    pub spec: SpecWriter<K>,
    pub status: StatusWriter<K>,
    pub admission: Arc<Vec<Arc<dyn Admission>>>,
    /// What every stored value begins with.
    pub head: Arc<str>,
    /// Selects among stored values.
    pub picker: Arc<Picker<K>>,
}

impl<K: Kind> Resource<K> {
    pub fn new(store: Arc<dyn Store>, spec: SpecWriter<K>, admission: Arc<Vec<Arc<dyn Admission>>>) -> Self {
        let head: Arc<str> = typed::head::<K>().into();
        Resource {
            objects: Objects::new(store.clone()),
            spec,
            status: StatusWriter::new(store.clone()),
            store,
            admission,
            picker: Arc::new(Picker::new(head.clone())),
            head,
        }
    }

    /// The one key that a selection is about, where it names an object of a known namespace. What is left of the
    /// selection must still match.
    pub fn only_key(call: &Call, selection: &mut Selection) -> Option<String> {
        if K::NAMESPACED && call.namespace.is_none() {
            return None;
        }
        selection.take_name().map(|name| typed::key::<K>(call.ns(), &name))
    }

    /// Asks every admission hook.
    pub async fn admit(
        &self,
        operation: Operation,
        object: Option<&Object<K>>,
        old: Option<&Object<K>>,
    ) -> Result<(), ApiError> {
        let Some(any) = object.or(old) else { return Ok(()) };
        let review = Review {
            operation,
            kind: K::KIND,
            namespace: any.metadata.namespace.as_deref().unwrap_or(""),
            name: &any.metadata.name,
            object: object.map(|o| o as _),
            old: old.map(|o| o as _),
        };
        for a in self.admission.iter() {
            a.review(&review).await?;
        }
        Ok(())
    }

    /// An answer with one object.
    pub fn answer(
        &self,
        call: &Call,
        status: StatusCode,
        object: &Object<K>,
        warnings: &[String],
    ) -> Result<Response, ApiError> {
        let mut response = json_response(call.style()?.one(object, true)?);
        *response.status_mut() = status;
        for w in warnings {
            // 299 is "miscellaneous persistent warning"; the text is quoted (RFC 7234, 5.5).
            let text = w.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(v) = HeaderValue::try_from(format!("299 - \"{text}\"")) {
                response.headers_mut().append(header::WARNING, v);
            }
        }
        Ok(response)
    }
}

/// 200 with JSON.
pub(crate) fn json_response(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[async_trait]
impl<K: Kind> Endpoint for Resource<K> {
    fn about(&self) -> About {
        About {
            kind: K::KIND,
            plural: K::PLURAL,
            singular: K::SINGULAR,
            short_names: K::SHORT_NAMES,
            namespaced: K::NAMESPACED,
            subresources: K::SUBRESOURCES,
        }
    }

    async fn call(&self, call: Call) -> Result<Response, ApiError> {
        let on_object = call.name.is_some();
        match (on_object, call.subresource.as_deref(), call.method.as_str()) {
            (false, None, "GET") if call.query.flag("watch")? => self.watch(&call).await,
            (false, None, "GET") => self.list(&call).await,
            (false, None, "POST") => self.create(&call).await,
            (false, None, "DELETE") => self.delete_collection(&call).await,
            (true, None | Some("status"), "GET") => self.get(&call).await,
            (true, None, "PUT") => self.update(&call).await,
            (true, None, "PATCH") => self.patch(&call).await,
            (true, None, "DELETE") => self.delete(&call).await,
            (true, Some("status"), "PUT") => self.update_status(&call).await,
            (true, Some("status"), "PATCH") => self.patch_status(&call).await,
            (true, Some("rename"), "POST") if K::RENAMABLE => self.rename(&call).await,
            (true, Some("rename"), _) if K::RENAMABLE => Err(ApiError::method_not_allowed()),
            (_, None | Some("status"), _) => Err(ApiError::method_not_allowed()),
            _ => Err(ApiError::no_route()),
        }
    }
}
