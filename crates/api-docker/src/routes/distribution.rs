//! `GET /distribution/{name}/json`: what a registry says of an image.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use biga_model::Reference;
use http::HeaderMap;
use serde_json::{Value, json};

use super::ok;
use crate::backend::Platform;
use crate::error::{Error, Result};
use crate::extract::registry_auth;
use crate::state::DockerApi;

pub(super) fn routes() -> Router<DockerApi> {
    // Names have slashes, so what comes after them is split off by hand.
    Router::new().route("/distribution/{*rest}", get(inspect))
}

async fn inspect(State(api): State<DockerApi>, Path(rest): Path<String>, headers: HeaderMap) -> Result<Response> {
    let name = rest
        .strip_suffix("/json")
        .ok_or_else(|| Error::not_found("page not found"))?;
    let auth = registry_auth(&headers)?;
    let reference: Reference = name
        .parse()
        .map_err(|e: String| Error::bad(format!("invalid reference format: {e}")))?;
    let found = api.backend().distribution(&reference.to_string(), auth).await?;
    let platforms: Vec<Value> = found.platforms.iter().map(platform).collect();
    Ok(ok(&json!({
        "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
        "Platforms": platforms,
    })))
}

fn platform(p: &Platform) -> Value {
    let mut doc = json!({"architecture": p.architecture, "os": p.os});
    if !p.variant.is_empty() {
        doc["variant"] = p.variant.clone().into();
    }
    doc
}
