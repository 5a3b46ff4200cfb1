//! Images that come and go as archives, and to registries.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::progress::{stream, with_progress};
use crate::error::{Error, Result};
use crate::extract::{Query, registry_auth};
use crate::state::DockerApi;

pub(super) async fn load(State(api): State<DockerApi>, q: Query, request: Request) -> Result<Response> {
    let platform = q.platform()?;
    let archive = request
        .into_body()
        .into_data_stream()
        .map(|r| r.map_err(std::io::Error::other))
        .boxed();
    Ok(stream(move |lines| async move {
        let call = async |r| api.backend().image_load(archive, platform.as_deref(), r).await;
        match with_progress(&lines, call).await {
            Ok(done) => {
                for i in done.images {
                    let text = match i.reference.is_empty() {
                        true => format!("Loaded image ID: {}\n", i.image_id),
                        false => format!("Loaded image: {}\n", i.reference),
                    };
                    lines.send(json!({"stream": text})).await;
                }
            }
            Err(e) => {
                lines.error(&e).await;
            }
        }
    }))
}

/// `GET /images/get?names=…` and `GET /images/{name}/get`.
pub(super) async fn save(api: &DockerApi, names: &[String], q: &Query) -> Result<Response> {
    let platform = q.platform()?;
    let mut references = Vec::new();
    for name in names.iter().flat_map(|n| n.split(',')).filter(|n| !n.is_empty()) {
        let image = api.image(name).await?;
        image.serves(platform.as_deref())?;
        references.push(
            image
                .named()
                .map_or_else(|| image.id.clone(), |o| o.spec.reference.clone()),
        );
    }
    if references.is_empty() {
        return Err(Error::bad("no image was named"));
    }
    let archive = api.backend().image_save(&references).await?;
    let mut r = Response::new(Body::from_stream(archive.map(|b| b.map_err(std::io::Error::other))));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(r)
}

pub(super) async fn save_many(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    save(&api, q.all("names"), &q).await
}

pub(super) async fn push(api: DockerApi, name: &str, q: &Query, headers: &HeaderMap) -> Result<Response> {
    let auth = registry_auth(headers)?;
    let platform = q.platform()?;
    let full = match q.get("tag") {
        Some(t) => format!("{name}:{t}"),
        None => name.to_string(),
    };
    let image = api.image(&full).await.map_err(|e| match e.status {
        http::StatusCode::NOT_FOUND => {
            Error::not_found(format!("An image does not exist locally with the tag: {name}"))
        }
        _ => e,
    })?;
    image.serves(platform.as_deref())?;
    let reference = image.named().map(|o| o.spec.reference.clone());
    let reference = reference.ok_or_else(|| Error::bad("an image is pushed by its name, not by its id"))?;
    let size = crate::translate::image::size(&image.objects.iter().collect::<Vec<_>>());
    let parsed: biga_model::Reference = reference.parse().map_err(|e: String| Error::bad(e))?;
    Ok(stream(move |lines| async move {
        let tag = parsed.tag.clone().unwrap_or_default();
        let to = format!("{}/{}", parsed.registry, parsed.repository);
        lines.status(format!("The push refers to repository [{to}]")).await;
        let call = async |r| api.backend().image_push(&reference, auth, r).await;
        match with_progress(&lines, call).await {
            Ok(done) => {
                let digest = done.images.first().map(|i| i.digest.clone()).unwrap_or_default();
                lines.status(format!("{tag}: digest: {digest} size: {size}")).await;
                lines
                    .send(json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}}))
                    .await;
            }
            Err(e) => {
                lines.error(&e).await;
            }
        }
    }))
}
