//! Checkpoints of instances.

use axum::Json;
use axum::extract::{Path, State};
use biga_api_kube::ApiError;
use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use bytes::Bytes;
use http::StatusCode;

use crate::Streams;

type InstancePath = Path<(String, String)>;

pub(crate) async fn make(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let wanted: CheckpointWanted = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("the body is not what is wanted of a checkpoint: {e}")))?;
    s.backend.checkpoint(&ns, &name, wanted).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn list(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
) -> Result<Json<Vec<Checkpoint>>, ApiError> {
    Ok(Json(s.backend.checkpoints(&ns, &name).await?))
}

pub(crate) async fn remove(
    State(s): State<Streams>,
    Path((ns, name, checkpoint)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    s.backend.checkpoint_remove(&ns, &name, &checkpoint).await?;
    Ok(StatusCode::NO_CONTENT)
}
