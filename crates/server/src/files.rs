//! Files of instances: copied in and out, listed, exported, made an image of.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biga_api_kube::ApiError;
use biga_api_kube::query::Query;
use biga_wire::files::{Commit, PathStat, Put, STAT_HEADER};
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderValue, StatusCode, header};

use crate::Streams;
use crate::backend::{ByteStream, Upload};
use crate::long;

/// Largest body of a commit.
const MAX_COMMIT: usize = 1 << 20;

type InstancePath = Path<(String, String)>;

fn query(raw: Option<&str>) -> Result<(String, Query), ApiError> {
    let q = Query::parse(raw.unwrap_or_default())?;
    let path = q.get("path").filter(|p| !p.is_empty()).map(String::from);
    let path = path.ok_or_else(|| ApiError::bad_request("the query needs path="))?;
    Ok((path, q))
}

/// What stands at a path, as a header.
fn with_stat(mut r: Response, stat: &PathStat) -> Result<Response, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::internal(format!("cannot say what stands there: {e}"));
    let json = serde_json::to_vec(stat).map_err(|e| failed(&e))?;
    let value = HeaderValue::try_from(STANDARD.encode(json)).map_err(|e| failed(&e))?;
    r.headers_mut().insert(STAT_HEADER, value);
    Ok(r)
}

fn tar(stream: ByteStream) -> Response {
    let mut r = Response::new(Body::from_stream(stream));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    r
}

pub(crate) async fn read(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let (path, q) = query(raw.as_deref())?;
    if q.flag("stat")? {
        return Ok(Json(s.backend.files_stat(&ns, &name, &path).await?).into_response());
    }
    let (stat, stream) = s.backend.files_read(&ns, &name, &path).await?;
    with_stat(tar(stream), &stat)
}

pub(crate) async fn write(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Result<Response, ApiError> {
    let (path, q) = query(raw.as_deref())?;
    let put = Put {
        keep_kinds: q.flag("keepKinds")?,
        to_user: q.flag("toUser")?,
    };
    let content: Upload = body.into_data_stream().map_err(std::io::Error::other).boxed();
    s.backend.files_write(&ns, &name, &path, put, content).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn changes(State(s): State<Streams>, Path((ns, name)): InstancePath) -> Result<Response, ApiError> {
    Ok(Json(s.backend.changes(&ns, &name).await?).into_response())
}

pub(crate) async fn export(State(s): State<Streams>, Path((ns, name)): InstancePath) -> Result<Response, ApiError> {
    Ok(tar(s.backend.export(&ns, &name).await?))
}

pub(crate) async fn commit(
    State(s): State<Streams>,
    Path((ns, name)): InstancePath,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = axum::body::to_bytes(body, MAX_COMMIT).await;
    let bytes = bytes.map_err(|e| ApiError::bad_request(format!("the request cannot be read: {e}")))?;
    let commit: Commit =
        serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("this is no commit: {e}")))?;
    s.instances.get(&ns, &name).await?;
    Ok(long::answer(move |_report| async move {
        s.backend.commit(&ns, &name, commit).await
    }))
}
