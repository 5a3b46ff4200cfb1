//! `/containers/{id}/checkpoints`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Phase, Power};
use biga_wire::checkpoint::CheckpointWanted;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::super::{empty, ok};
use crate::error::{Error, Result};
use crate::extract::{self, Query};
use crate::state::DockerApi;
use crate::translate::ids::docker_id;
use crate::types::container::CheckpointBody;

pub(super) async fn create(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let body: CheckpointBody = extract::json(&headers, body).await?;
    own_directory(&body.checkpoint_dir)?;
    let o = api.container(&id).await?;
    match o.status_or_default().phase {
        Phase::Running => {}
        Phase::Paused => {
            return Err(Error::conflict(
                "cannot checkpoint a paused container, try unpause instead",
            ));
        }
        _ => {
            return Err(Error::conflict(format!(
                "Container {} is not running",
                docker_id(o.uid())
            )));
        }
    }
    let wanted = CheckpointWanted {
        name: body.checkpoint_id,
        leave_running: !body.exit,
        tcp_established: false,
    };
    api.backend().checkpoint(api.ns(), o.name(), wanted).await?;
    api.tell(&o, "checkpoint", &[]);
    if body.exit {
        let o = api.change(&o, |now| now.spec.power = Power::Stopped).await?;
        api.follow(&o, |seen| {
            seen.is_none_or(|o| !o.status_or_default().phase.is_live())
                .then_some(())
        })
        .await?;
    }
    Ok(empty(StatusCode::CREATED))
}

pub(super) async fn list(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    own_directory(q.get("dir").unwrap_or_default())?;
    let o = api.container(&id).await?;
    let all = api.backend().checkpoints(api.ns(), o.name()).await?;
    let names: Vec<_> = all.iter().map(|c| json!({"Name": c.name})).collect();
    Ok(ok(&json!(names)))
}

pub(super) async fn remove(
    State(api): State<DockerApi>,
    Path((id, name)): Path<(String, String)>,
    q: Query,
) -> Result<Response> {
    own_directory(q.get("dir").unwrap_or_default())?;
    let o = api.container(&id).await?;
    api.backend().checkpoint_remove(api.ns(), o.name(), &name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Checkpoints are kept with their container.
pub(super) fn own_directory(dir: &str) -> Result<()> {
    match dir.is_empty() {
        true => Ok(()),
        false => Err(Error::missing(
            "a directory of its own for checkpoints (--checkpoint-dir)",
        )),
    }
}
