//! Images that come and go as archives, and to registries.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use biga_model::Reference;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;

use super::progress::{stream, with_progress};
use crate::error::{Error, Result};
use crate::extract::{Query, registry_auth};
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::without_tag;

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
                    let id = &i.image_id;
                    api.inner.events.publish(Message::image("load", id, id));
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
    let (mut references, mut ids) = (Vec::new(), Vec::new());
    for name in names.iter().flat_map(|n| n.split(',')).filter(|n| !n.is_empty()) {
        let image = api.image(name).await?;
        image.serves(platform.as_deref())?;
        references.push(
            image
                .named()
                .map_or_else(|| image.id.clone(), |o| o.spec.reference.clone()),
        );
        ids.push(image.id);
    }
    if references.is_empty() {
        return Err(Error::bad("no image was named"));
    }
    let archive = api.backend().image_save(&references).await?;
    for id in ids {
        api.inner.events.publish(Message::image("save", &id, &id));
    }
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
    let images = match (q.get("tag"), name.parse::<Reference>()) {
        // Without a tag all that there are in the repository.
        (None, Ok(r)) if r.digest.is_none() && !with_tag(name) => in_repository(&api, &r).await?,
        (tag, _) => vec![tag.map_or_else(|| name.to_string(), |t| format!("{name}:{t}"))],
    };
    let missing = || Error::not_found(format!("An image does not exist locally with the tag: {name}"));
    if images.is_empty() {
        return Err(missing());
    }
    let mut references = Vec::new();
    for full in images {
        let image = api.image(&full).await.map_err(|e| match e.status {
            http::StatusCode::NOT_FOUND => missing(),
            _ => e,
        })?;
        image.serves(platform.as_deref())?;
        let reference = image.named().map(|o| o.spec.reference.clone());
        let reference = reference.ok_or_else(|| Error::bad("an image is pushed by its name, not by its id"))?;
        let parsed: Reference = reference.parse().map_err(|e: String| Error::bad(e))?;
        references.push((reference, parsed));
    }
    Ok(stream(move |lines| async move {
        let to = &references[0].1;
        let to = format!("{}/{}", to.registry, to.repository);
        lines.status(format!("The push refers to repository [{to}]")).await;
        for (reference, parsed) in references {
            let tag = parsed.tag.clone().unwrap_or_default();
            let call = async |r| api.backend().image_push(&reference, auth.clone(), r).await;
            match with_progress(&lines, call).await {
                Ok(done) => {
                    let (full, name) = (parsed.familiar(), without_tag(&parsed.familiar()).to_string());
                    api.inner.events.publish(Message::image("push", &full, &name));
                    let line = done.images.first().cloned().unwrap_or_default();
                    let (digest, size) = (line.digest, line.manifest_size);
                    lines.status(format!("{tag}: digest: {digest} size: {size}")).await;
                    lines
                        .send(json!({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": size}}))
                        .await;
                }
                Err(e) => {
                    lines.error(&e).await;
                    return;
                }
            }
        }
    }))
}

/// Whether a name says its tag; a port is none.
fn with_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// Every name with a tag in the repository of `r`.
async fn in_repository(api: &DockerApi, r: &Reference) -> Result<Vec<String>> {
    let all = api.ready_images().await?;
    let names = all.iter().filter_map(|o| o.spec.reference.parse::<Reference>().ok());
    let same = names.filter(|n| n.registry == r.registry && n.repository == r.repository && n.tag.is_some());
    let mut names: Vec<String> = same.map(|n| n.to_string()).collect();
    names.sort();
    Ok(names)
}
