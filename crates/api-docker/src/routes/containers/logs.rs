//! `GET /containers/{id}/logs`.

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderValue, header};

use crate::backend::LogQuery;
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;
use crate::stream::{Format, Recoder};
use crate::translate::log::is_readable;
use crate::translate::main_process;
use crate::version::ApiVersion;

pub(super) async fn logs(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    Extension(version): Extension<ApiVersion>,
    q: Query,
) -> Result<Response> {
    let (stdout, stderr) = (q.flag("stdout"), q.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::bad("Bad parameters: you must choose at least one stream"));
    }
    let o = api.container(&id).await?;
    if !is_readable(&o.spec.log) {
        return Err(Error::new(
            http::StatusCode::NOT_IMPLEMENTED,
            "configured logging driver does not support reading",
        ));
    }
    let query = LogQuery {
        follow: q.flag("follow") && o.status_or_default().phase.is_live(),
        // Docker: what is no number means all.
        tail: q.get("tail").and_then(|t| t.parse().ok()),
        since: q.time("since")?,
        until: q.time("until")?,
        timestamps: q.flag("timestamps"),
        details: q.flag("details"),
        stdout,
        stderr,
    };
    let frames = api.backend().logs(api.ns(), o.name(), query).await?;
    let format = Format::of_tty(main_process(&o.spec).tty);
    let mut recoder = Recoder::new(format);
    let out = frames.map(move |bytes| recoder.push(&bytes.map_err(std::io::Error::other)?));
    let mut r = Response::new(Body::from_stream(out));
    let kind = HeaderValue::from_static(format.content_type(version.at_least(42)));
    r.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(r)
}
