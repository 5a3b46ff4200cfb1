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
    // Some clients leave the colon of a tag that they do not give.
    let image = image.strip_suffix(':').unwrap_or(image);
    let reference = reference(image, q.get("tag").filter(|t| !t.is_empty()))?;
    let platform = q.platform()?;
    if q.get("tag").is_none_or(str::is_empty) && !says_which(image) {
        return pull_all(api, reference, platform, auth).await;
    }
    let before = known(&api, &reference).await?;
    if let Some(auth) = auth {
        return Ok(stream(move |lines| async move {
            begin(&lines, &reference).await;
            let end = pull_as(&api, &lines, &reference, platform.as_deref(), auth, &before).await;
            end_one(&lines, &reference, end).await;
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
        let end = tell(&lines, &reference, Some(Ok(first)), statuses, &before).await;
        end_one(&lines, &reference, end).await;
    }))
}

/// Whether a name says which image of its repository it means.
fn says_which(name: &str) -> bool {
    name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// What is known of an image before it is pulled.
async fn known(api: &DockerApi, reference: &Reference) -> Result<ImageStatus> {
    let found = api.images().find("", &reference.object_name()).await?;
    Ok(found.map(|o| o.status_or_default()).unwrap_or_default())
}

/// How a pull ended.
struct Pulled {
    digest: String,
    /// Whether it was there before.
    same: bool,
}

impl Pulled {
    fn new(before: &ImageStatus, image_id: &str, digest: String) -> Pulled {
        Pulled {
            digest,
            same: !before.image_id.is_empty() && before.image_id == image_id,
        }
    }
}

/// Every tag of a repository, one after the other, as with Docker when a pull names none.
async fn pull_all(
    api: DockerApi,
    repository: Reference,
    platform: Option<String>,
    auth: Option<RegistryAuth>,
) -> Result<Response> {
    let tags = api.backend().tags(&repository.to_string(), auth.clone()).await?;
    if tags.is_empty() {
        return Err(Error::not_found(format!(
            "{} has no tags",
            familiar_repository(&repository)
        )));
    }
    // They come from elsewhere.
    let named = tags
        .iter()
        .map(|tag| reference(&format!("{}/{}", repository.registry, repository.repository), Some(tag)));
    let references: Vec<Reference> = named.collect::<Result<_>>()?;
    Ok(stream(move |lines| async move {
        let mut all_same = true;
        for reference in references {
            begin(&lines, &reference).await;
            match pull_one(&api, &lines, &reference, platform.as_deref(), auth.as_ref()).await {
                Ok(done) => {
                    say_digest(&lines, &done.digest).await;
                    all_same &= done.same;
                }
                Err(e) => {
                    lines.error(&e).await;
                    return;
                }
            }
        }
        say_status(&lines, &familiar_repository(&repository), all_same).await;
    }))
}

/// A repository's name as people write it.
fn familiar_repository(r: &Reference) -> String {
    let bare = Reference {
        tag: None,
        digest: None,
        ..r.clone()
    };
    bare.familiar()
}

async fn pull_one(
    api: &DockerApi,
    lines: &Lines,
    reference: &Reference,
    platform: Option<&str>,
    auth: Option<&RegistryAuth>,
) -> Result<Pulled> {
    let before = known(api, reference).await?;
    match auth {
        Some(auth) => pull_as(api, lines, reference, platform, auth.clone(), &before).await,
        None => {
            let o = ask(api, reference, platform.map(str::to_string)).await?;
            let mut statuses = watch(api.clone(), &o);
            let first = statuses.recv().await;
            tell(lines, reference, first, statuses, &before).await
        }
    }
}

/// Pulls with credentials, which no object holds.
async fn pull_as(
    api: &DockerApi,
    lines: &Lines,
    reference: &Reference,
    platform: Option<&str>,
    auth: RegistryAuth,
    before: &ImageStatus,
) -> Result<Pulled> {
    let text = reference.to_string();
    let call = async |r| api.backend().image_pull(&text, platform, auth, r).await;
    let done = with_progress(lines, call).await?;
    let image = done.images.into_iter().next().unwrap_or_default();
    Ok(Pulled::new(before, &image.image_id, image.digest))
}

/// Tells what the node does, to its end.
async fn tell(
    lines: &Lines,
    reference: &Reference,
    first: Option<Result<ImageStatus>>,
    mut statuses: mpsc::Receiver<Result<ImageStatus>>,
    before: &ImageStatus,
) -> Result<Pulled> {
    let mut next = first;
    while let Some(news) = next {
        let s = news?;
        match s.phase {
            ImagePhase::Ready => {
                let done = Pulled::new(before, &s.image_id, s.digest);
                if !done.same {
                    lines
                        .send(json!({"status": "Pull complete", "progressDetail": {}, "id": id_of(reference)}))
                        .await;
                }
                return Ok(done);
            }
            ImagePhase::Failed => return Err(pull_failure(&s)),
            _ => {
                lines
                    .send(bar("Downloading", &id_of(reference), s.done_bytes, s.total_bytes))
                    .await;
            }
        }
        next = statuses.recv().await;
    }
    Err(Error::internal("the pull was not followed to its end"))
}

async fn end_one(lines: &Lines, reference: &Reference, end: Result<Pulled>) {
    match end {
        Ok(done) => {
            say_digest(lines, &done.digest).await;
            say_status(lines, &reference.familiar(), done.same).await;
        }
        Err(e) => {
            lines.error(&e).await;
        }
    }
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

async fn say_digest(lines: &Lines, digest: &str) {
    if !digest.is_empty() {
        lines.status(format!("Digest: {digest}")).await;
    }
}

async fn say_status(lines: &Lines, familiar: &str, same: bool) {
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
