//! `POST /images/create`: pulls and imports.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use biga_model::{Image, ImagePhase, ImageSpec, ImageStatus, Object, Reference};
use biga_store::typed::Error as StoreError;
use futures_util::StreamExt;
use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;

use super::progress::{Lines, bar, stream, with_progress};
use crate::backend::{Import, RegistryAuth};
use crate::error::{Error, Result};
use crate::extract::{Query, registry_auth};
use crate::follow::follow;
use crate::state::DockerApi;
use crate::translate::events::Message;

pub(super) async fn create(State(api): State<DockerApi>, q: Query, request: Request) -> Result<Response> {
    let auth = registry_auth(request.headers())?;
    match (q.get("fromImage"), q.get("fromSrc")) {
        (Some(image), None) => pull(api, &q, image, auth).await,
        (None, Some(from)) => import(api, &q, from, request.into_body()).await,
        _ => Err(Error::bad("give either fromImage or fromSrc")),
    }
}

/// Name, and tag or digest of a query.
fn reference(name: &str, tag: Option<&str>) -> Result<Reference> {
    let text = match tag {
        Some(t) if t.starts_with("sha256:") => format!("{name}@{t}"),
        Some(t) => format!("{name}:{t}"),
        None => name.to_string(),
    };
    text.parse()
        .map_err(|e: String| Error::bad(format!("invalid reference format: {e}")))
}

async fn pull(api: DockerApi, q: &Query, image: &str, auth: Option<RegistryAuth>) -> Result<Response> {
    let reference = reference(image, q.get("tag"))?;
    let platform = q.platform()?;
    let before = api
        .images()
        .find("", &reference.object_name())
        .await?
        .map(|o| o.status_or_default())
        .unwrap_or_default();
    if let Some(auth) = auth {
        return Ok(stream(move |lines| async move {
            let text = reference.familiar();
            begin(&lines, &reference).await;
            let call = async |r| {
                api.backend()
                    .image_pull(&reference.to_string(), platform.as_deref(), auth, r)
                    .await
            };
            match with_progress(&lines, call).await {
                Ok(done) => {
                    let image = done.images.into_iter().next().unwrap_or_default();
                    let same = !before.image_id.is_empty() && before.image_id == image.image_id;
                    finish(&lines, &text, &image.digest, same).await;
                }
                Err(e) => {
                    lines.error(&e).await;
                }
            }
        }));
    }
    let o = ask(&api, &reference, platform).await?;
    let mut statuses = watch(api, &o);
    // The first news decide between an answer that streams and one that is an error.
    let first = statuses
        .recv()
        .await
        .unwrap_or_else(|| Err(Error::internal("the pull was not followed")))?;
    if first.phase == ImagePhase::Failed {
        return Err(pull_failure(&first));
    }
    Ok(stream(move |lines| async move {
        begin(&lines, &reference).await;
        let mut next = Some(Ok(first));
        while let Some(news) = next {
            match news {
                Ok(s) if s.phase == ImagePhase::Ready => {
                    let same = !before.image_id.is_empty() && before.image_id == s.image_id;
                    if !same {
                        lines
                            .send(json!({"status": "Pull complete", "progressDetail": {}, "id": id_of(&reference)}))
                            .await;
                    }
                    finish(&lines, &reference.familiar(), &s.digest, same).await;
                    return;
                }
                Ok(s) if s.phase == ImagePhase::Failed => {
                    lines.error(&pull_failure(&s)).await;
                    return;
                }
                Ok(s) => {
                    lines
                        .send(bar("Downloading", &id_of(&reference), s.done_bytes, s.total_bytes))
                        .await;
                }
                Err(e) => {
                    lines.error(&e).await;
                    return;
                }
            }
            next = statuses.recv().await;
        }
    }))
}

/// The node tells one progress for the whole image, so there is one line for it.
fn id_of(r: &Reference) -> String {
    r.tag.clone().unwrap_or_else(|| "image".into())
}

async fn begin(lines: &Lines, r: &Reference) {
    let id = r.tag.clone().or_else(|| r.digest.clone()).unwrap_or_default();
    lines
        .send(json!({"status": format!("Pulling from {}", r.repository), "id": id}))
        .await;
}

async fn finish(lines: &Lines, familiar: &str, digest: &str, same: bool) {
    if !digest.is_empty() {
        lines.status(format!("Digest: {digest}")).await;
    }
    let what = if same {
        "Image is up to date for"
    } else {
        "Downloaded newer image for"
    };
    lines.status(format!("Status: {what} {familiar}")).await;
}

fn pull_failure(s: &ImageStatus) -> Error {
    let why = if s.message.is_empty() {
        s.reason.clone()
    } else {
        s.message.clone()
    };
    let lower = why.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| lower.contains(w));
    if says(&["not found", "unknown", "no such", "404"]) {
        return Error::not_found(why);
    }
    if says(&["unauthorized", "denied", "401", "403"]) {
        return Error::new(StatusCode::NOT_FOUND, format!("pull access denied: {why}"));
    }
    Error::internal(why)
}

/// Creates the `Image`, or raises the pull request of the one that is there.
async fn ask(api: &DockerApi, reference: &Reference, platform: Option<String>) -> Result<Object<Image>> {
    let spec = ImageSpec {
        reference: reference.to_string(),
        platform: platform.clone(),
        pull_request: 1,
    };
    let mut o = Object::<Image>::new(reference.object_name(), spec);
    o.metadata.namespace = None;
    let name = o.name().to_string();
    match api.specs::<Image>().create(o).await {
        Err(StoreError::AlreadyExists { .. }) => {}
        other => return Ok(other?),
    }
    let raised = api
        .specs::<Image>()
        .modify("", &name, |o| {
            o.spec.pull_request += 1;
            // What an earlier pull asked for is of no matter to this one.
            o.spec.platform.clone_from(&platform);
        })
        .await?;
    Ok(raised)
}

/// Statuses that answer this pull, until it is over. Progress is dropped where the client is slow, the end never.
fn watch(api: DockerApi, o: &Object<Image>) -> mpsc::Receiver<Result<ImageStatus>> {
    let (tx, rx) = mpsc::channel(16);
    let (name, uid, wanted) = (o.name().to_string(), o.uid().to_string(), o.spec.pull_request);
    tokio::spawn(async move {
        let end = follow::<Image, _>(&api.inner.store, "", &name, &uid, |seen| {
            let Some(o) = seen else { return Some(None) };
            let s = o.status_or_default();
            let settled = matches!(s.phase, ImagePhase::Ready | ImagePhase::Failed);
            if settled && s.observed_pull >= wanted {
                return Some(Some(s));
            }
            if s.phase == ImagePhase::Pulling {
                let _ = tx.try_send(Ok(s));
            }
            None
        })
        .await;
        let end = match end {
            Ok(Some(s)) => Ok(s),
            Ok(None) => Err(Error::internal("the image was removed while it was pulled")),
            Err(e) => Err(e),
        };
        let _ = tx.send(end).await;
    });
    rx
}

async fn import(api: DockerApi, q: &Query, from: &str, body: Body) -> Result<Response> {
    let reference = q.get("repo").map(|name| reference(name, q.get("tag"))).transpose()?;
    let changes = q.all("changes").iter().filter(|c| !c.trim().is_empty());
    // As Docker: an address without a scheme is one of http.
    let address = match from {
        "-" => None,
        a if a.contains("://") => Some(a.to_string()),
        a => Some(format!("http://{a}")),
    };
    let wanted = Import {
        reference: reference.map(|r| r.to_string()),
        changes: changes.cloned().collect(),
        message: q.get("message").map(str::to_string),
        platform: q.platform()?,
        address: address.clone(),
    };
    let content = body
        .into_data_stream()
        .map(|r| r.map_err(std::io::Error::other))
        .boxed();
    Ok(stream(move |lines| async move {
        if let Some(address) = address {
            lines.status(format!("Downloading from {address}")).await;
        }
        let call = async |r| api.backend().image_import(wanted, content, r).await;
        match with_progress(&lines, call).await {
            Ok(done) => {
                let id = done.images.first().map(|i| i.image_id.clone()).unwrap_or_default();
                api.inner.events.publish(Message::image("import", &id, &id));
                lines.status(id).await;
            }
            Err(e) => {
                lines.error(&e).await;
            }
        }
    }))
}
