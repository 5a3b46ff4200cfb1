//! `POST /containers/{id}/rename`.

use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Object, Phase};
use biga_store::typed::Error as StoreError;
use http::StatusCode;

use super::super::empty;
use super::create::{checked_name, taken};
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;

/// Why it cannot be called so.
fn about(e: Error) -> Error {
    let why = e.message.replacen("container name (", "container name (/", 1);
    Error::new(e.status, format!("Error when allocating new name: {why}"))
}

pub(super) async fn rename(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let to = q
        .get("name")
        .map(|n| n.strip_prefix('/').unwrap_or(n))
        .unwrap_or_default();
    if to.is_empty() {
        return Err(Error::bad("Neither old nor new names may be empty"));
    }
    let to = checked_name(to).map_err(about)?;
    if to == o.name() {
        return Err(Error::bad(
            "Renaming a container with the same name as its current name",
        ));
    }
    let renamed = match api.specs::<Instance>().rename(&o, to).await {
        Err(StoreError::AlreadyExists { name, .. }) => return Err(about(taken(&api, &name).await)),
        Err(e) if e.is_not_found() => return Err(Error::not_found(format!("No such container: {id}"))),
        other => other?,
    };
    known(&api, &renamed).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Waits until the node has taken the names that the spec has now, so that they are found by them.
pub(super) async fn known(api: &DockerApi, o: &Object<Instance>) -> Result<()> {
    let generation = o.metadata.generation;
    api.follow(o, |seen| {
        let Some(o) = seen else { return Some(()) };
        let s = o.status_or_default();
        let known = s.observed_networks >= generation || s.phase == Phase::Stopping || !s.phase.is_live();
        known.then_some(())
    })
    .await
}
