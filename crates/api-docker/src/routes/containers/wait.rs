//! `POST /containers/{id}/wait`: the headers go at once, the body when it happened.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use biga_model::{Instance, Object, Phase, Power};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::json;

use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    NotRunning,
    NextExit,
    Removed,
}

pub(super) async fn wait(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let until = match q.get("condition") {
        None | Some("not-running") => Until::NotRunning,
        Some("next-exit") => Until::NextExit,
        Some("removed") => Until::Removed,
        Some(other) => return Err(Error::bad(format!("invalid condition: {other:?}"))),
    };
    let o = api.container(&id).await?;
    // Begin before the headers go: what happens after them must be seen.
    let mut watching = Box::pin(async move { ended(&api, &o, until).await });
    let first = futures_util::poll!(watching.as_mut());
    let body = futures_util::stream::once(async move {
        let end = match first {
            std::task::Poll::Ready(end) => end,
            std::task::Poll::Pending => watching.await,
        };
        let doc = match end {
            Ok(code) => json!({"StatusCode": code}),
            Err(e) => json!({"StatusCode": -1, "Error": {"Message": e.message}}),
        };
        Ok::<_, std::io::Error>(Bytes::from(doc.to_string() + "\n"))
    });
    let mut r = Response::new(Body::from_stream(body));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(r)
}

/// Waits, and answers the exit code.
async fn ended(api: &DockerApi, o: &Object<Instance>, until: Until) -> Result<i32> {
    let begin = o.status_or_default();
    // What tells one run from the next, for ends that came between two looks.
    let mark = (begin.started_at, begin.finished_at, begin.restart_count);
    let mut ran = begin.phase.is_live();
    let mut code = begin.exit_code.unwrap_or(0);
    let code = api
        .follow(o, move |seen| {
            let Some(o) = seen else { return Some(code) };
            let s = o.status_or_default();
            if let Some(c) = s.exit_code {
                code = c;
            }
            ran |= s.phase.is_live();
            let another = (s.started_at, s.finished_at, s.restart_count) != mark;
            let over = match until {
                Until::Removed => false,
                Until::NextExit => s.phase.is_ended() && (ran || another),
                Until::NotRunning => {
                    let about_to = matches!(s.phase, Phase::Pending | Phase::Preparing | Phase::Created)
                        && o.spec.power != Power::Stopped;
                    !s.phase.is_live() && !about_to
                }
            };
            over.then_some(code)
        })
        .await?;
    api.inner.attaches.have_read(o.uid()).await;
    Ok(code)
}
