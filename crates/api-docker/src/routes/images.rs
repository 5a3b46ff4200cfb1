//! Images: list, inspect, history, tag, remove, prune.

use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use biga_model::{Image, Object, Reference};
use biga_store::typed::DeleteOptions;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{image_pull, image_transfer, ok};
use crate::backend::Reporter;
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::follow::follow;
use crate::lookup::FoundImage;
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::ids::{docker_id, short};
use crate::translate::{familiar, image};
use crate::version::{ApiVersion, MAX_API};

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(image_pull::create))
        .route("/images/load", post(image_transfer::load))
        .route("/images/get", get(image_transfer::save_many))
        .route("/images/prune", post(prune))
        .route("/images/search", get(search))
        // Names have slashes, so what comes after them is split off by hand.
        .route("/images/{*rest}", get(below).post(below).delete(remove))
}

async fn search() -> Error {
    Error::new(
        StatusCode::NOT_IMPLEMENTED,
        "search is not offered: registries of the OCI distribution specification have none. Docker Hub's is at \
         https://hub.docker.com/search",
    )
}

async fn below(State(api): State<DockerApi>, Path(rest): Path<String>, q: Query, request: Request) -> Result<Response> {
    let (name, verb) = rest
        .rsplit_once('/')
        .ok_or_else(|| Error::not_found("page not found"))?;
    match (request.method(), verb) {
        (&Method::GET | &Method::HEAD, "json") => {
            let version = request.extensions().get().copied().unwrap_or(MAX_API);
            inspect(&api, name, &q, as_for(version, request.headers())).await
        }
        (&Method::GET | &Method::HEAD, "history") => history(&api, name, &q).await,
        (&Method::GET, "get") => image_transfer::save(&api, &[name.to_string()], &q).await,
        (&Method::POST, "tag") => tag(&api, name, &q).await,
        (&Method::POST, "push") => image_transfer::push(api, name, &q, request.headers()).await,
        _ => Err(Error::not_found("page not found")),
    }
}

const FILTERS: &[&str] = &["before", "dangling", "label", "label!", "reference", "since", "until"];

async fn list(State(api): State<DockerApi>, Extension(version): Extension<ApiVersion>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let until = filters.until()?;
    let all = api.ready_images().await?;
    let mark = async |name: &str| -> Result<Option<biga_model::Timestamp>> {
        match filters.get(name) {
            None => Ok(None),
            Some(l) => Ok(image::created(
                &api.image(&l[0]).await?.objects.iter().collect::<Vec<_>>(),
            )),
        }
    };
    let (before, since) = (mark("before").await?, mark("since").await?);
    let mut groups = image::group(&all);
    groups.sort_by_key(|g| std::cmp::Reverse(image::created(&g.objects)));
    let mut out = Vec::new();
    for g in &mut groups {
        // Of an image with several names those that fit are shown.
        g.objects
            .retain(|o| filters.any("reference", |p| image::tags(&[o]).iter().any(|t| reference_fits(p, t))));
        if g.objects.is_empty() {
            continue;
        }
        let config = api.image_config(g.id).await;
        let labels = config
            .get("config")
            .and_then(|c| c.get("Labels"))
            .cloned()
            .unwrap_or(Value::Null);
        let made = image::created(&g.objects);
        let own = serde_json::from_value(labels.clone()).unwrap_or_default();
        let fits = dangling.is_none_or(|d| d == g.objects.iter().all(|o| image::is_nameless(o)))
            && filters.labels(&own)
            && until.is_none_or(|t| made.is_some_and(|c| c < t))
            && before.is_none_or(|t| made.is_some_and(|c| c < t))
            && since.is_none_or(|t| made.is_some_and(|c| c > t));
        if fits {
            // Containers are counted for `system df` only.
            let mut entry = image::entry(g, &labels, -1);
            image::line_of_version(&mut entry, version);
            if q.flag("manifests") {
                entry["Manifests"] = image::manifests(&g.objects, containers_of(&api, g.id).await?);
            }
            out.push(entry);
        }
    }
    Ok(ok(&Value::Array(out)))
}

/// A pattern with `*` over a familiar name, with or without its tag.
fn reference_fits(pattern: &str, tag: &str) -> bool {
    let bare = tag.rsplit_once(':').map_or(tag, |(n, _)| n);
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
}

/// `*` is any run without a slash, `?` any one byte.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == text[t] || (*c == b'?' && text[t] != b'/') => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((rp, rt)) if text[rt] != b'/' => {
                    retry = Some((rp, rt + 1));
                    (p, t) = (rp, rt + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The version whose document a client gets. docker-compose 1 speaks the newest of the engine's and wants what went with 1.45:
/// without it, it makes no container anew.
fn as_for(version: ApiVersion, headers: &HeaderMap) -> ApiVersion {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
    match agent.is_some_and(|a| a.contains("docker-compose/1.")) {
        true => version.min(ApiVersion { major: 1, minor: 44 }),
        false => version,
    }
}

async fn inspect(api: &DockerApi, name: &str, q: &Query, version: ApiVersion) -> Result<Response> {
    let found = api.image(name).await?;
    found.serves(q.platform()?.as_deref())?;
    let config = api.image_config(&found.id).await;
    let objects: Vec<&Object<Image>> = found.objects.iter().collect();
    let mut doc = image::inspect(&found.id, &objects, &config);
    image::of_version(&mut doc, version);
    if q.flag("manifests") {
        doc["Manifests"] = image::manifests(&objects, containers_of(api, &found.id).await?);
    }
    Ok(ok(&doc))
}

/// Ids of the containers that were made of an image.
async fn containers_of(api: &DockerApi, image_id: &str) -> Result<Vec<String>> {
    let all = api.instances().list(Some(api.ns())).await?.items;
    let made = all.iter().filter(|o| o.status_or_default().image_id == image_id);
    Ok(made.map(|o| docker_id(o.uid())).collect())
}

async fn history(api: &DockerApi, name: &str, q: &Query) -> Result<Response> {
    let found = api.image(name).await?;
    found.serves(q.platform()?.as_deref())?;
    let config = api.image_config(&found.id).await;
    let objects: Vec<&Object<Image>> = found.objects.iter().collect();
    // The steps are worth showing also where nothing is known of their sizes.
    let sizes = api.backend().layer_sizes(&found.id).await.unwrap_or_default();
    Ok(ok(&Value::Array(image::history(&found.id, &objects, &config, &sizes))))
}

async fn tag(api: &DockerApi, name: &str, q: &Query) -> Result<Response> {
    let repo = q
        .get("repo")
        .ok_or_else(|| Error::bad("repo is required: the new name"))?;
    let target = match q.get("tag") {
        Some(t) => format!("{repo}:{t}"),
        None => repo.to_string(),
    };
    let target: Reference = target
        .parse()
        .map_err(|e: String| Error::bad(format!("invalid reference format: {e}")))?;
    if target.digest.is_some() {
        return Err(Error::bad("refusing to create a tag with a digest reference"));
    }
    let found = api.image(name).await?;
    api.backend().image_tag(&found.reference(), &target.to_string()).await?;
    Ok(super::empty(StatusCode::CREATED))
}

async fn remove(State(api): State<DockerApi>, Path(name): Path<String>, q: Query) -> Result<Response> {
    let force = q.flag("force");
    let found = api.image(&name).await?;
    let lines = remove_image(&api, &found, force).await?;
    Ok(ok(&Value::Array(lines)))
}

/// Takes a name, or with an id all names, off an image.
async fn remove_image(api: &DockerApi, found: &FoundImage, force: bool) -> Result<Vec<Value>> {
    let named = found.named().cloned();
    let gone: Vec<Object<Image>> = match &named {
        Some(o) => vec![o.clone()],
        None => found.objects.clone(),
    };
    let id = short(&found.id);
    if named.is_none() && gone.len() > 1 && !force {
        return Err(Error::conflict(format!(
            "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let last = gone.len() == found.objects.len();
    if last {
        in_use(api, found, named.as_ref(), force).await?;
    }
    let mut lines = Vec::new();
    for o in &gone {
        let objects = [o];
        if !image::is_nameless(o) {
            lines.push(json!({"Untagged": familiar(&o.spec.reference)}));
        }
        lines.extend(
            image::digests(&objects)
                .into_iter()
                .filter(|d| *d != familiar(&o.spec.reference))
                .map(|d| json!({"Untagged": d})),
        );
        delete_object(api, o).await?;
    }
    if last {
        lines.push(json!({"Deleted": found.id}));
    }
    Ok(lines)
}

/// Refuses to remove what a container was made of.
async fn in_use(api: &DockerApi, found: &FoundImage, named: Option<&Object<Image>>, force: bool) -> Result<()> {
    let id = short(&found.id);
    for c in api.instances().list(Some(api.ns())).await?.items {
        let s = c.status_or_default();
        let is_named = |image: &str| {
            let mut objects = found.objects.iter();
            objects.any(|o| familiar(&o.spec.reference) == familiar(image))
        };
        let names = c.spec.all_containers().any(|k| is_named(c.spec.image_of(k))) || is_named(c.spec.main_image());
        let uses = s.image_ids().any(|id| id == found.id) || (s.image_id.is_empty() && names);
        if !uses {
            continue;
        }
        let container = short(&docker_id(c.uid()));
        if s.phase.is_live() {
            return Err(Error::conflict(format!(
                "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {container}"
            )));
        }
        if !force {
            return Err(Error::conflict(match named {
                Some(o) => format!(
                    "conflict: unable to remove repository reference \"{}\" (must force) - container {container} is using its referenced image {id}",
                    familiar(&o.spec.reference)
                ),
                None => format!(
                    "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {container}"
                ),
            }));
        }
    }
    Ok(())
}

async fn delete_object(api: &DockerApi, o: &Object<Image>) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        ..DeleteOptions::default()
    };
    match api.specs::<Image>().delete("", o.name(), &options).await {
        Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
        other => {
            other?;
        }
    }
    follow::<Image, _>(&api.inner.store, "", o.name(), o.uid(), |seen| {
        seen.is_none().then_some(())
    })
    .await
}

async fn prune(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(&["dangling", "label", "label!", "until"])?;
    let mut lines: Vec<Value> = Vec::new();
    let until = filters.until()?;
    let every = filters.flag("dangling")? == Some(false);
    let all = api.ready_images().await?;
    for g in image::group(&all) {
        let config = api.image_config(g.id).await;
        let labels = config
            .get("config")
            .and_then(|c| c.get("Labels"))
            .cloned()
            .unwrap_or_default();
        let labels = serde_json::from_value(labels).unwrap_or_default();
        let old = until.is_none_or(|t| image::created(&g.objects).is_some_and(|c| c < t));
        let meant = every || g.objects.iter().all(|o| image::is_nameless(o));
        if !meant || !old || !filters.labels(&labels) {
            continue;
        }
        let objects = g.objects.iter().map(|o| (*o).clone()).collect();
        let found = FoundImage {
            id: g.id.to_string(),
            by_name: None,
            objects,
        };
        // What is used stays.
        if in_use(&api, &found, None, false).await.is_ok() {
            lines.extend(remove_image(&api, &found, true).await?);
        }
    }
    // Nobody looks at the reports of a prune.
    let (tx, _rx) = mpsc::channel(1);
    let done = api.backend().prune(Reporter::new(tx)).await?;
    api.inner.events.publish(Message::prune("image", done.freed_bytes));
    Ok(ok(&json!({"ImagesDeleted": lines, "SpaceReclaimed": done.freed_bytes})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fit_patterns() {
        for (p, t, fits) in [
            ("busybox", "busybox:latest", true),
            ("busy*", "busybox:latest", true),
            ("*:latest", "busybox:latest", true),
            ("busybox:1", "busybox:latest", false),
            ("a/*", "a/b:1", true),
            ("*", "a/b:1", false),
            ("?/b", "a/b:1", true),
        ] {
            assert_eq!(reference_fits(p, t), fits, "{p} {t}");
        }
    }
}
