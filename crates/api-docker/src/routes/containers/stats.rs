//! `GET /containers/{id}/stats`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use biga_wire::shim::Stats;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, header};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;
use crate::translate::ids::docker_id;
use crate::translate::stats::{HostCpu, document, empty, host_cpu};

pub(super) async fn stats(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    let (id, name) = (docker_id(o.uid()), o.name().to_string());
    let stream = q.flag_or("stream", true);
    let one_shot = q.flag("one-shot");
    if stream && one_shot {
        return Err(Error::bad("cannot have stream=true and one-shot=true"));
    }
    if !o.status_or_default().phase.is_live() {
        return Ok(super::super::ok(&empty(&id, &name)));
    }
    let mut samples = api.backend().stats(api.ns(), &name, !one_shot).await?;
    if !stream {
        let mut next = async || match samples.next().await {
            Some(Ok(s)) => Ok(Some((s, host().await))),
            Some(Err(e)) => Err(Error::from(e)),
            None => Ok(None),
        };
        let first = next().await?;
        // Two samples make a rate, unless the client does its own arithmetic.
        let second = if one_shot { None } else { next().await? };
        let doc = match (&first, &second) {
            (Some(a), Some(b)) => pair(&id, &name, b, Some(a)),
            (Some(a), None) => pair(&id, &name, a, None),
            _ => empty(&id, &name),
        };
        return Ok(super::super::ok(&doc));
    }
    let mut before: Option<(Stats, HostCpu)> = None;
    let lines = samples.then(move |s| {
        let (id, name) = (id.clone(), name.clone());
        async move { (s, host().await, id, name) }
    });
    let lines = lines.map(move |(s, host, id, name)| {
        let now = (s.map_err(std::io::Error::other)?, host);
        let doc = pair(&id, &name, &now, before.as_ref());
        before = Some(now);
        Ok::<_, std::io::Error>(Bytes::from(doc.to_string() + "\n"))
    });
    let mut r = Response::new(Body::from_stream(lines));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(r)
}

fn pair(id: &str, name: &str, now: &(Stats, HostCpu), before: Option<&(Stats, HostCpu)>) -> Value {
    document(id, name, (&now.0, now.1), before.map(|(s, h)| (s, *h)))
}

async fn host() -> HostCpu {
    host_cpu(&tokio::fs::read_to_string("/proc/stat").await.unwrap_or_default())
}
