//! The kinds that are served, and the routes to them.
//!
//! Adding a kind is one call of [`Registry::with`].

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use biga_model::{Event, GROUP, Kind, VERSION};
use biga_store::{Objects, SpecWriter, Store};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::accept;
use crate::admission::Admission;
use crate::decode::MAX_BODY;
use crate::error::{ApiError, ErrorKind};
use crate::metadata::is_namespace;
use crate::query::{Query, decode_percent};
use crate::resource::{About, Call, Endpoint, Resource, json_response};
use crate::{core_events, discovery, openapi};

/// A body that is too large is still read so far: a client that is cut off while it sends does not see the answer.
const MAX_DRAINED: usize = 32 << 20;

/// What `/version` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Biga's version, as `0.1.0`.
    pub version: String,
    /// The commit it was built of, or empty.
    pub commit: String,
    /// As `amd64`.
    pub arch: &'static str,
}

impl Default for VersionInfo {
    fn default() -> Self {
        VersionInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: String::new(),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        }
    }
}

type Build = Box<dyn FnOnce(Arc<dyn Store>, Arc<Vec<Arc<dyn Admission>>>) -> Arc<dyn Endpoint> + Send>;

/// Collects kinds and hooks, and becomes a router.
pub struct Registry {
    store: Arc<dyn Store>,
    kinds: Vec<Build>,
    admission: Vec<Arc<dyn Admission>>,
    version: VersionInfo,
}

impl Registry {
    /// No kinds yet, over `store`.
    pub fn new(store: Arc<dyn Store>) -> Registry {
        Registry {
            store,
            kinds: Vec::new(),
            admission: Vec::new(),
            version: VersionInfo::default(),
        }
    }

    /// Serves a kind.
    #[must_use]
    pub fn with<K: Kind>(self) -> Registry {
        let writer = SpecWriter::new(self.store.clone());
        self.with_writer::<K>(writer)
    }

    /// Serves a kind whose specs this writes.
    #[must_use]
    pub fn with_writer<K: Kind>(mut self, writer: SpecWriter<K>) -> Registry {
        self.kinds.push(Box::new(|store, admission| {
            Arc::new(Resource::<K>::new(store, writer, admission))
        }));
        self
    }

    /// Asks `hook` before each write; hooks are asked in the order they were added.
    #[must_use]
    pub fn admission(mut self, hook: Arc<dyn Admission>) -> Registry {
        self.admission.push(hook);
        self
    }

    /// What `/version` says.
    #[must_use]
    pub fn version(mut self, version: VersionInfo) -> Registry {
        self.version = version;
        self
    }

    /// All routes, as the fallback of an otherwise empty router: more specific routes can be added to it.
    pub fn router(self) -> Router {
        let admission = Arc::new(self.admission);
        let endpoints: Vec<Arc<dyn Endpoint>> = self
            .kinds
            .into_iter()
            .map(|build| build(self.store.clone(), admission.clone()))
            .collect();
        let api = Arc::new(Api {
            about: endpoints.iter().map(|e| e.about()).collect(),
            endpoints,
            store: self.store,
            version: self.version,
        });
        let handler = move |request: Request| {
            let api = api.clone();
            async move { api.handle(request).await.unwrap_or_else(IntoResponse::into_response) }
        };
        Router::new()
            .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
            .fallback(handler)
    }
}

struct Api {
    endpoints: Vec<Arc<dyn Endpoint>>,
    about: Vec<About>,
    store: Arc<dyn Store>,
    version: VersionInfo,
}

impl Api {
    async fn handle(&self, request: Request) -> Result<Response, ApiError> {
        let path: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| decode_percent(s).ok_or_else(ApiError::no_route))
            .collect::<Result<_, _>>()?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if let Some(namespace) = core_events::namespace_of(&path)
            && self.about.iter().any(|a| a.kind == Event::KIND)
        {
            let events = Objects::<Event>::new(self.store.clone());
            let query = Query::parse(request.uri().query().unwrap_or_default())?;
            return core_events::list(&events, namespace, request.method(), &query).await;
        }
        match &path[..] {
            ["apis", GROUP, VERSION, rest @ ..] if !rest.is_empty() => self.resource(rest, request).await,
            ["healthz" | "livez" | "readyz", ..] => {
                only_get(request.method())?;
                self.health().await
            }
            _ => {
                only_get(request.method())?;
                self.about(&path, request.headers())
            }
        }
    }

    /// Ready means: the store answers.
    async fn health(&self) -> Result<Response, ApiError> {
        self.store.revision().await?;
        let mut response = Response::new(Body::from("ok"));
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        Ok(response)
    }

    /// Discovery.
    fn about(&self, path: &[&str], headers: &HeaderMap) -> Result<Response, ApiError> {
        let version = &self.version.version;
        let value = match path {
            [] => {
                serde_json::json!({"paths": ["/api", "/apis", format!("/apis/{GROUP}"), format!("/apis/{GROUP}/{VERSION}"),
                    "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]})
            }
            ["api"] | ["apis"] => return Ok(self.roots(path == ["apis"], headers)),
            ["apis", GROUP] => discovery::one_group(),
            ["apis", GROUP, VERSION] => discovery::resources(&self.about),
            ["version"] => discovery::version(&self.version),
            ["openapi", "v2"] if accept::wants_protobuf(headers) => {
                let mut r = Response::new(Body::from(openapi::v2_protobuf(version)));
                let proto = HeaderValue::from_static(openapi::PROTOBUF_V2);
                r.headers_mut().insert(header::CONTENT_TYPE, proto);
                return Ok(r);
            }
            ["openapi", "v2"] => openapi::v2(&self.about, version),
            ["openapi", "v3"] => openapi::v3_root(),
            ["openapi", "v3", "apis", GROUP, VERSION] => openapi::v3(&self.about, version),
            _ => return Err(ApiError::no_route()),
        };
        Ok(json_response(value.to_string()))
    }

    fn roots(&self, groups: bool, headers: &HeaderMap) -> Response {
        let Some(v) = accept::aggregated_discovery(headers) else {
            let plain: Value = match groups {
                true => discovery::groups(),
                false => discovery::core_versions(),
            };
            return json_response(plain.to_string());
        };
        let kinds = groups.then_some(&self.about[..]);
        let mut r = json_response(discovery::aggregated(kinds, v).to_string());
        let media = format!("application/json;g=apidiscovery.k8s.io;v={v};as=APIGroupDiscoveryList");
        if let Ok(media) = HeaderValue::try_from(media) {
            r.headers_mut().insert(header::CONTENT_TYPE, media);
        }
        r.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        r
    }

    /// `[namespaces/NS/]PLURAL[/NAME[/SUB]]`.
    async fn resource(&self, path: &[&str], request: Request) -> Result<Response, ApiError> {
        let (namespace, rest) = match path {
            ["namespaces", ns, rest @ ..] if !rest.is_empty() => (Some(*ns), rest),
            _ => (None, path),
        };
        let (plural, name, sub) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, sub] => (*plural, Some(*name), Some(*sub)),
            _ => return Err(ApiError::no_route()),
        };
        let at = self.about.iter().position(|a| a.plural == plural);
        let at = at.ok_or_else(ApiError::no_route)?;
        let about = &self.about[at];
        let all_namespaces = about.namespaced && namespace.is_none();
        let collection_write = name.is_none() && !matches!(*request.method(), Method::GET | Method::HEAD);
        if (!about.namespaced && namespace.is_some()) || (all_namespaces && name.is_some()) {
            return Err(ApiError::no_route());
        }
        if all_namespaces && collection_write {
            return Err(ApiError::method_not_allowed());
        }
        if namespace.is_some_and(|ns| !is_namespace(ns)) {
            return Err(ApiError::bad_request(format!(
                "{:?} is no name of a namespace",
                namespace.unwrap_or("")
            )));
        }
        if let Some(name) = name
            && name.contains('/')
        {
            return Err(ApiError::not_found(about.plural, name));
        }
        if sub.is_some_and(|s| !about.subresources.contains(&s)) {
            return Err(ApiError::no_route());
        }
        let (namespace, name, sub) = (
            namespace.map(String::from),
            name.map(String::from),
            sub.map(String::from),
        );
        let (parts, body) = request.into_parts();
        let call = Call {
            namespace,
            name,
            subresource: sub,
            query: Query::parse(parts.uri.query().unwrap_or_default())?,
            headers: parts.headers,
            body: read_body(&parts.method, body).await?,
            method: match parts.method {
                Method::HEAD => Method::GET,
                m => m,
            },
        };
        self.endpoints[at].call(call).await
    }
}

fn only_get(method: &Method) -> Result<(), ApiError> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn read_body(method: &Method, mut body: Body) -> Result<Bytes, ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    let mut bytes = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size <= MAX_BODY {
            bytes.extend_from_slice(&data);
        } else if size > MAX_DRAINED {
            break;
        }
    }
    if size > MAX_BODY {
        return Err(ApiError::new(
            ErrorKind::TooLarge,
            format!("the body is larger than {MAX_BODY} bytes"),
        ));
    }
    Ok(bytes.freeze())
}
