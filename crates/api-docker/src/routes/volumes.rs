//! Volumes.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use biga_model::{Instance, Object, Volume, VolumeSpec, kind::is_resource_name};
use biga_store::typed::{DeleteOptions, Error as StoreError};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{empty, ok};
use crate::error::{Error, Result};
use crate::execs::new_id;
use crate::extract::{self, Query};
use crate::follow::follow;
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::ids::{docker_id, short};
use crate::translate::volume::ANONYMOUS;
use crate::translate::{labels, mounts::driver, volume};
use crate::types;
use crate::types::network::VolumeCreate;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove).put(no_update))
}

async fn no_update() -> Error {
    Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager: only cluster volumes can be updated",
    )
}

/// Whether an instance has this volume.
pub(super) fn uses(o: &Object<Instance>, name: &str) -> bool {
    o.spec.volumes.iter().any(|v| v.volume.as_deref() == Some(name))
}

async fn instances(api: &DockerApi) -> Result<Vec<Object<Instance>>> {
    Ok(api.instances().list(Some(api.ns())).await?.items)
}

async fn list(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let containers = instances(&api).await?;
    let all = api.volumes().list(Some(api.ns())).await?.items;
    let shown = all.iter().filter(|o| {
        let free = !containers.iter().any(|c| uses(c, o.name()));
        !o.is_deleting()
            && dangling.is_none_or(|d| d == free)
            && filters.any("name", |v| o.name().contains(v))
            && filters.any("driver", |v| v == "local")
            && filters.labels(&labels::read(&o.metadata))
    });
    let docs: Vec<Value> = shown.map(volume::inspect).collect();
    Ok(ok(&json!({"Volumes": docs, "Warnings": null})))
}

async fn inspect(State(api): State<DockerApi>, Path(name): Path<String>) -> Result<Response> {
    Ok(ok(&volume::inspect(&api.volume(&name).await?)))
}

async fn create(State(api): State<DockerApi>, headers: HeaderMap, body: Body) -> Result<Response> {
    let value: Option<Value> = extract::json_or_none(&headers, body).await?;
    let value = value.unwrap_or_else(|| json!({}));
    let body: VolumeCreate = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    if !body.cluster_volume_spec.values().all(crate::types::is_zero) {
        return Err(Error::missing("cluster volumes"));
    }
    let mut wanted = body.labels.clone();
    let name = match body.name.as_str() {
        "" => {
            wanted.insert(ANONYMOUS.into(), String::new());
            new_id()
        }
        n => n.to_string(),
    };
    if !is_resource_name(&name) || name.len() < 2 {
        return Err(Error::bad(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    let about = |e: Error| Error::new(e.status, format!("create {name}: {}", e.message));
    let mount = driver(&body.driver, &body.driver_opts).map_err(about)?;
    let spec = VolumeSpec {
        mount: mount.clone(),
        ..VolumeSpec::default()
    };
    let mut o = Object::<Volume>::new(name.clone(), spec);
    o.metadata.namespace = Some(api.ns().to_string());
    labels::write(&wanted, &mut o.metadata);
    let stored = match api.specs::<Volume>().create(o).await {
        // Making what is there is no failure, as with Docker.
        Err(StoreError::AlreadyExists { .. }) => {
            let there = api.volume(&name).await?;
            if mount.is_some() && there.spec.mount != mount {
                let message = format!("create {name}: a volume with this name and other options exists already");
                return Err(Error::conflict(message));
            }
            there
        }
        other => other?,
    };
    let made = follow::<Volume, _>(&api.inner.store, api.ns(), &name, stored.uid(), |seen| {
        let Some(o) = seen else {
            return Some(Err("it was removed meanwhile".to_string()));
        };
        let s = o.status_or_default();
        match (s.ready, s.message.is_empty()) {
            (true, _) => Some(Ok(o.clone())),
            (false, false) => Some(Err(s.message)),
            (false, true) => None,
        }
    })
    .await?
    .map_err(|why| Error::internal(format!("create {name}: {why}")))?;
    Ok(super::json(StatusCode::CREATED, &volume::inspect(&made)))
}

async fn remove(State(api): State<DockerApi>, Path(name): Path<String>, q: Query) -> Result<Response> {
    let o = match api.volume(&name).await {
        Err(e) if q.flag("force") && e.status == StatusCode::NOT_FOUND => return Ok(empty(StatusCode::NO_CONTENT)),
        other => other?,
    };
    let users: Vec<String> = instances(&api)
        .await?
        .iter()
        .filter(|c| uses(c, o.name()))
        .map(|c| docker_id(c.uid()))
        .collect();
    if !users.is_empty() {
        let shorts: Vec<String> = users.iter().map(|u| short(u)).collect();
        return Err(Error::conflict(format!(
            "remove {name}: volume is in use - [{}]",
            shorts.join(", ")
        )));
    }
    delete(&api, &o).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn delete(api: &DockerApi, o: &Object<Volume>) -> Result<()> {
    let options = DeleteOptions {
        uid: Some(o.uid().to_string()),
        ..DeleteOptions::default()
    };
    match api.specs::<Volume>().delete(api.ns(), o.name(), &options).await {
        Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
        other => {
            other?;
        }
    }
    follow::<Volume, _>(&api.inner.store, api.ns(), o.name(), o.uid(), |seen| {
        seen.is_none().then_some(())
    })
    .await
}

async fn prune(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(&["all", "label", "label!"])?;
    let every = filters.flag("all")?.unwrap_or(false);
    let containers = instances(&api).await?;
    let (mut removed, mut freed) = (Vec::new(), 0);
    for o in api.volumes().list(Some(api.ns())).await?.items {
        let own = labels::read(&o.metadata);
        let fits = every || own.contains_key(ANONYMOUS);
        if fits && !o.is_deleting() && filters.labels(&own) && !containers.iter().any(|c| uses(c, o.name())) {
            freed += super::usage::volumes(&api, &[&o]).await.iter().sum::<u64>();
            delete(&api, &o).await?;
            removed.push(o.name().to_string());
        }
    }
    api.inner.events.publish(Message::prune("volume", freed));
    Ok(ok(&json!({"VolumesDeleted": removed, "SpaceReclaimed": freed})))
}
