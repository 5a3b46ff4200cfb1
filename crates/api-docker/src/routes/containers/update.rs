//! `POST /containers/{id}/update`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Kind};
use http::HeaderMap;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::extract;
use crate::state::DockerApi;
use crate::translate::create::restart_policy;
use crate::translate::hostconfig::limits;
use crate::types::container::UpdateBody;
use crate::types::{self, is_zero};

pub(super) async fn update(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let value: Value = extract::json(&headers, body).await?;
    let body: UpdateBody = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    if let Some((field, _)) = body
        .rest
        .iter()
        .find(|(k, v)| !is_zero(v) && !k.starts_with("KernelMemory"))
    {
        return Err(Error::missing(format!("changing {field} of a container")));
    }
    let o = api.container(&id).await?;
    let mut warnings = Vec::new();
    if o.spec.resources.cpus.is_some() {
        for (what, given) in [
            ("CPU Period", body.resources.cpu_period != 0),
            ("CPU Quota", body.resources.cpu_quota != 0),
        ] {
            if given {
                return Err(Error::bad(format!(
                    "Cannot update container {}: Conflicting options: {what} cannot be updated as NanoCPUs has already been set",
                    crate::translate::ids::docker_id(o.uid())
                )));
            }
        }
    }
    let mut wanted = o.clone();
    limits(&body.resources, &mut wanted.spec.resources, &mut warnings)?;
    if !body.restart_policy.name.is_empty() {
        wanted.spec.restart_policy = restart_policy(&body.restart_policy)?;
        if o.spec.auto_remove && wanted.spec.restart_policy.policy != biga_model::RestartWhen::No {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
    }
    let wrong = Instance::validate(&wanted, Some(&o));
    if !wrong.is_empty() {
        return Err(Error::invalid(&wrong));
    }
    api.has_processors(&wanted.spec)?;
    let spec = wanted.spec;
    let o = api
        .change(&o, |now| {
            now.spec.resources = spec.resources.clone();
            now.spec.restart_policy = spec.restart_policy.clone();
        })
        .await?;
    api.tell(&o, "update", &[]);
    Ok(super::super::ok(&json!({"Warnings": warnings})))
}
