//! The routes.

mod absent;
mod build;
mod buildkit;
mod containers;
mod distribution;
mod events;
mod exec;
mod image_pull;
mod image_transfer;
mod images;
mod network_joins;
mod networks;
mod progress;
mod system;
mod usage;
mod volumes;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use tower::ServiceExt;

use crate::error::Error;
use crate::state::DockerApi;
use crate::version::{self, MAX_API};

/// Largest text of an error that another layer made.
const MAX_ERROR: usize = 64 << 10;

/// Bodies up to this are read before anything is done.
const SMALL: usize = 64 << 10;

/// All routes, with and without a version in front. Serve it by [`crate::serve`], or any HTTP/1 server with upgrades.
pub fn router(api: DockerApi) -> Router {
    let routes = Router::new()
        .merge(system::routes())
        .merge(events::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(network_joins::routes())
        .merge(networks::routes())
        .merge(volumes::routes())
        .merge(build::routes())
        .merge(buildkit::routes())
        .merge(distribution::routes())
        .merge(absent::routes())
        .fallback(no_page)
        .method_not_allowed_fallback(no_page)
        .with_state(api.clone());
    Router::new().fallback(enter).with_state(Outer { api, routes })
}

#[derive(Clone)]
struct Outer {
    api: DockerApi,
    routes: Router,
}

async fn no_page() -> Error {
    Error::not_found("page not found")
}

/// Takes the version off the path and puts Docker's headers on the answer.
async fn enter(State(outer): State<Outer>, mut request: Request) -> Response {
    let mut response = match version::split(request.uri()) {
        Ok((version, uri)) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            // Nothing that this request changes may be missed by the events.
            outer.api.inner.events.ready().await;
            match whole(request).await {
                Ok(request) => match outer.routes.oneshot(request).await {
                    Ok(r) => with_message(r).await,
                    Err(never) => match never {},
                },
                Err(e) => e.into_response(),
            }
        }
        Err(e) => e.into_response(),
    };
    let version = outer.api.inner.node.version.clone();
    let headers = response.headers_mut();
    if let Ok(v) = HeaderValue::from_str(&MAX_API.to_string()) {
        headers.insert("Api-Version", v);
    }
    if let Ok(v) = HeaderValue::from_str(&format!("Biga/{version} (linux)")) {
        headers.insert(header::SERVER, v);
    }
    headers.insert("Docker-Experimental", HeaderValue::from_static("true"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    response
}

/// A request with its body, where that is small: of one that nobody read, the rest would end the connection, and a client's next
/// request with it.
async fn whole(request: Request) -> Result<Request, Error> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()).and_then(|l| l.parse().ok());
    if !length.is_some_and(|l: usize| (1..=SMALL).contains(&l)) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, SMALL).await {
        Ok(bytes) => Ok(Request::from_parts(parts, Body::from(bytes))),
        Err(e) => Err(Error::bad(format!("the body cannot be read: {e}"))),
    }
}

/// Errors of the framework (a path that is no UTF-8, for one) in Docker's form.
async fn with_message(response: Response) -> Response {
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    if response.status().as_u16() < 400 || is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_ERROR).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    Error::new(
        parts.status,
        if text.is_empty() {
            parts.status.to_string()
        } else {
            text
        },
    )
    .into_response()
}

/// An answer with a status and JSON.
fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut r = json_bytes((value.to_string() + "\n").into_bytes());
    *r.status_mut() = status;
    r
}

/// An answer of JSON that is written already.
fn json_bytes(text: Vec<u8>) -> Response {
    let mut r = Response::new(Body::from(text));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    r
}

fn ok(value: &serde_json::Value) -> Response {
    json(StatusCode::OK, value)
}

fn empty(status: StatusCode) -> Response {
    let mut r = Response::new(Body::empty());
    *r.status_mut() = status;
    r
}
