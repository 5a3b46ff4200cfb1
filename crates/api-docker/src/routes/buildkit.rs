//! `POST /grpc` and `POST /session`: connections that become BuildKit's.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::error::{Error, Result};
use crate::state::DockerApi;

/// HTTP/2 without TLS.
const H2C: &str = "h2c";

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/grpc", post(grpc))
        .route("/session", post(session))
}

async fn grpc(State(api): State<DockerApi>, request: Request) -> Result<Response> {
    let kit = api.inner.buildkit.clone().ok_or_else(super::build::no_buildkit)?;
    upgraded(request, move |_, io| async move { kit.serve(io).await })
}

async fn session(State(api): State<DockerApi>, request: Request) -> Result<Response> {
    let kit = api.inner.buildkit.clone().ok_or_else(super::build::no_buildkit)?;
    upgraded(request, move |headers, io| async move { kit.hold(&headers, io).await })
}

/// Answers that the connection changes its protocol, and hands it over.
fn upgraded<F, Fut>(request: Request, run: F) -> Result<Response>
where
    F: FnOnce(HeaderMap, TokioIo<hyper::upgrade::Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (mut parts, _) = request.into_parts();
    let wanted = parts.headers.get(header::UPGRADE).and_then(|v| v.to_str().ok());
    match wanted {
        Some(protocol) if protocol.eq_ignore_ascii_case(H2C) => {}
        Some(other) => return Err(Error::bad(format!("protocol {other} not supported"))),
        None => return Err(Error::bad("no upgrade proto in request")),
    }
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Error::bad("this connection cannot be upgraded"))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => run(parts.headers, TokioIo::new(io)).await,
            Err(e) => tracing::debug!("a client left before its connection was upgraded: {e}"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(H2C));
    Ok(response)
}
