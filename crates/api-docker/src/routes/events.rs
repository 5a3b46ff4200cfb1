//! `GET /events`.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use biga_model::Timestamp;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, header};
use tokio::sync::broadcast::error::RecvError;

use crate::error::{Error, Result};
use crate::extract::{Filters, Query};
use crate::state::DockerApi;
use crate::translate::events::Message;
use crate::translate::without_tag;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new().route("/events", get(events))
}

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

async fn events(State(api): State<DockerApi>, q: Query) -> Result<Response> {
    let filters = q.filters()?.only(FILTERS)?;
    let (since, until) = (moment(&q, "since")?, moment(&q, "until")?);
    if let (Some(s), Some(u)) = (since, until)
        && s > u
    {
        return Err(Error::bad(format!(
            "`since` time ({s}) cannot be after `until` time ({u})"
        )));
    }
    let (kept, mut news) = api.inner.events.listen();
    let fits = move |m: &Message| {
        since.is_none_or(|t| m.time >= t) && until.is_none_or(|t| m.time <= t) && matches(&filters, m)
    };
    let line = |m: &Message| Bytes::from(m.to_json().to_string() + "\n");
    // An end without a beginning asks for what there was before it.
    let old: Vec<Bytes> = match since.or(until) {
        Some(_) => kept.iter().filter(|m| fits(m)).map(|m| line(m)).collect(),
        None => Vec::new(),
    };
    let (tx, rx) = tokio::sync::mpsc::channel::<std::result::Result<Bytes, std::io::Error>>(64);
    tokio::spawn(async move {
        for l in old {
            if tx.send(Ok(l)).await.is_err() {
                return;
            }
        }
        let over = async {
            match until {
                None => std::future::pending().await,
                Some(t) => {
                    let left = t.duration_since(Timestamp::now());
                    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
                }
            }
        };
        tokio::pin!(over);
        loop {
            let message = tokio::select! {
                () = &mut over => return,
                () = tx.closed() => return,
                m = news.recv() => m,
            };
            match message {
                Ok(m) if fits(&m) => {
                    if tx.send(Ok(line(&m))).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(n)) => tracing::warn!("a slow listener of events lost {n} of them"),
                Err(RecvError::Closed) => return,
            }
        }
    });
    let lines = futures_util::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|l| (l, rx)) });
    let mut r = Response::new(Body::from_stream(lines.boxed()));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(r)
}

/// A moment of the query. Here `0` is one as any other: the beginning of all times.
fn moment(q: &Query, name: &str) -> Result<Option<Timestamp>> {
    match q.get(name) {
        Some("0") => Ok(Some(Timestamp::UNIX_EPOCH)),
        _ => q.time(name),
    }
}

fn matches(f: &Filters, m: &Message) -> bool {
    let name = m.attributes.get("name").map_or("", String::as_str);
    let about = |kind: &str| {
        f.any(kind, |v| {
            m.kind == kind && (m.id == v || name == v || m.id.starts_with(v))
        })
    };
    let image = |v: &str| {
        let of = m.attributes.get("image").map_or("", String::as_str);
        // As it is called, or without its tag; `latest` need not be said.
        let bare = |s: &str| s.strip_suffix(":latest").unwrap_or(s).to_string();
        let called = |s: &str| bare(s) == bare(v) || without_tag(s) == v;
        match m.kind {
            "image" => m.id == v || called(name) || called(&m.id),
            "container" => called(of),
            _ => false,
        }
    };
    let word = m.action.split(':').next().unwrap_or("");
    f.any("type", |v| v == m.kind)
        && f.any("event", |v| v == word || v == m.action)
        && f.any("scope", |v| v == "local")
        && about("container")
        && about("network")
        && about("volume")
        && f.any("image", image)
        && ["config", "daemon", "node", "plugin", "secret", "service"]
            .iter()
            .all(|k| f.get(k).is_none())
        && f.labels(&m.attributes)
}
