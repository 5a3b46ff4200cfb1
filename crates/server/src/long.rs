//! Answers of long calls: JSON lines of progress, then one of result or error.

use std::future::Future;
use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;
use biga_api_kube::ApiError;
use biga_wire::http::Line;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::backend::Reporter;

/// Reports that may wait for a slow client; more are dropped.
const QUEUE: usize = 64;

type Work = Pin<Box<dyn Future<Output = Result<serde_json::Value, ApiError>> + Send>>;

struct State {
    /// The call; gone when it ended.
    work: Option<Work>,
    lines: mpsc::Receiver<Line>,
    last: Option<Line>,
}

/// Runs `call` as long as the client reads, and answers with its lines.
pub(crate) fn answer<T, F>(call: impl FnOnce(Reporter) -> F) -> Response
where
    T: Serialize,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    let (sender, lines) = mpsc::channel(QUEUE);
    let call = call(Reporter::new(sender));
    let work: Work = Box::pin(async move {
        let result = call.await?;
        serde_json::to_value(result).map_err(|e| ApiError::internal(format!("the result cannot be written: {e}")))
    });
    let state = State {
        work: Some(work),
        lines,
        last: None,
    };
    let body = futures_util::stream::unfold(state, |mut s| async move {
        let line = s.next().await?;
        Some((Ok::<_, std::convert::Infallible>(encode(&line)), s))
    });
    json_lines(Body::from_stream(body))
}

impl State {
    async fn next(&mut self) -> Option<Line> {
        if let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                Some(line) = self.lines.recv() => return Some(line),
                done = work => {
                    self.work = None;
                    self.last = Some(match done {
                        Ok(v) => Line { result: Some(v), ..Line::default() },
                        Err(e) => Line { error: Some(e.status()), ..Line::default() },
                    });
                }
            }
        }
        // What was reported before the end comes before the result.
        match self.lines.try_recv() {
            Ok(line) => Some(line),
            Err(_) => self.last.take(),
        }
    }
}

/// One value and a line feed.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    // Only our own types come here, and none of them can fail to serialize.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// A body of JSON lines.
pub(crate) fn json_lines(body: Body) -> Response {
    let mut r = Response::new(body);
    let json = HeaderValue::from_static("application/json-seq");
    r.headers_mut().insert(header::CONTENT_TYPE, json);
    r
}
