//! Watch: changes as JSON lines.
//!
//! With a selection an object that begins to match is `ADDED` and one that ceases to match is `DELETED`, whatever
//! happened in the store. Bookmarks carry the store's revision, so that a client of a quiet kind can resume after
//! long without being told that its revision is too old.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use biga_model::{Kind, Object};
use biga_store::{Entry, ListOptions, Revision, Store, WatchEvent, WatchEventKind, WatchStream, typed};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::accept::Representation;
use crate::error::ApiError;
use crate::list::{not_ahead, revision_param};
use crate::pick::Picker;
use crate::query::Query;
use crate::render::{self, Style};
use crate::resource::{Call, Resource, json_response};
use crate::selection::Selection;

/// Time between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How long a watch lives where the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long a watch lives at most.
const MAX_TIMEOUT: u64 = 24 * 3600;
/// So many bytes of events are sent in one piece where that many are ready.
const CHUNK: usize = 64 << 10;

/// How a watch begins.
enum Start {
    /// With the present objects, then changes; the flag asks for a bookmark between the two.
    Present { announce_end: bool },
    /// With changes after this revision.
    After(Revision),
}

fn start(query: &Query, bookmarks: bool) -> Result<Start, ApiError> {
    let from = revision_param(query)?;
    let kind = query.get("resourceVersionMatch");
    if query.has("sendInitialEvents") {
        let initial = query.flag("sendInitialEvents")?;
        if kind != Some("NotOlderThan") {
            return Err(ApiError::bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if initial && !bookmarks {
            return Err(ApiError::bad_request(
                "sendInitialEvents requires setting allowWatchBookmarks to true",
            ));
        }
        return Ok(match (initial, from) {
            (true, _) => Start::Present { announce_end: true },
            (false, Some(rv)) if rv > 0 => Start::After(rv),
            (false, _) => Start::Present { announce_end: false },
        });
    }
    if kind.is_some() {
        return Err(ApiError::bad_request(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    Ok(match from {
        None | Some(0) => Start::Present { announce_end: false },
        Some(rv) => Start::After(rv),
    })
}

/// Makes lines of events.
struct Lines<K: Kind> {
    head: Arc<str>,
    style: Style,
    selection: Selection,
    picker: Arc<Picker<K>>,
    columns_sent: bool,
    buffer: Vec<u8>,
}

impl<K: Kind> Lines<K> {
    fn change(&mut self, event: &WatchEvent) -> Result<(), ApiError> {
        let matches = self.picker.selects(&self.selection, &event.entry);
        let existed = event.entry.created != event.entry.revision;
        let matched = match &event.previous {
            Some(p) => self.picker.selects(&self.selection, p),
            // Where the store no longer knows, the client hears of it rather than not.
            None => existed || event.kind == WatchEventKind::Delete,
        };
        let type_ = match (event.kind, matched, matches) {
            (WatchEventKind::Put, false, true) => "ADDED",
            (WatchEventKind::Put, true, true) if existed => "MODIFIED",
            (WatchEventKind::Put, true, true) => "ADDED",
            (WatchEventKind::Put, true, false) => "DELETED",
            (WatchEventKind::Delete, true, _) => "DELETED",
            (_, false, _) => return Ok(()),
        };
        self.entry(type_, &event.entry)
    }

    fn present(&mut self, entry: &Entry) -> Result<(), ApiError> {
        match self.picker.selects(&self.selection, entry) {
            true => self.entry("ADDED", entry),
            false => Ok(()),
        }
    }

    fn entry(&mut self, type_: &str, entry: &Entry) -> Result<(), ApiError> {
        if self.style.representation == Representation::Json {
            return self.line(type_, |out, head| render::splice::<K>(out, head, entry));
        }
        self.object(type_, &typed::decode::<K>(entry)?)
    }

    fn object(&mut self, type_: &str, object: &Object<K>) -> Result<(), ApiError> {
        let body = self.style.one(object, !self.columns_sent)?;
        self.columns_sent = true;
        self.line(type_, |out, _| {
            out.extend_from_slice(&body);
            Ok(())
        })
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.style.representation {
            Representation::Json => json!({"kind": K::KIND, "apiVersion": biga_model::API_VERSION, "metadata": meta}),
            Representation::Partial(v) => json!({"kind": "PartialObjectMetadata", "apiVersion": v, "metadata": meta}),
            Representation::Table(v) => {
                json!({"kind": "Table", "apiVersion": v, "metadata": meta, "columnDefinitions": null, "rows": []})
            }
        };
        self.value("BOOKMARK", &object);
    }

    fn value(&mut self, type_: &str, object: &Value) {
        self.buffer
            .extend_from_slice(format!("{{\"type\":\"{type_}\",\"object\":{object}}}\n").as_bytes());
    }

    /// One line, or nothing where the object cannot be written.
    fn line(
        &mut self,
        type_: &str,
        object: impl FnOnce(&mut Vec<u8>, &str) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let at = self.buffer.len();
        self.buffer
            .extend_from_slice(format!("{{\"type\":\"{type_}\",\"object\":").as_bytes());
        match object(&mut self.buffer, &self.head) {
            Ok(()) => {
                self.buffer.extend_from_slice(b"}\n");
                Ok(())
            }
            Err(e) => {
                self.buffer.truncate(at);
                Err(e)
            }
        }
    }
}

/// A running watch.
struct Watch<K: Kind> {
    store: Arc<dyn Store>,
    upstream: WatchStream,
    lines: Lines<K>,
    /// The present objects that were not sent yet.
    present: VecDeque<Entry>,
    /// Revision of the bookmark that ends them.
    announce_end: Option<Revision>,
    bookmarks: Option<Interval>,
    deadline: Instant,
    ended: bool,
    /// The one key it is about, where it is about one.
    only: Option<String>,
}

impl<K: Kind> Watch<K> {
    /// The next piece of the answer.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.send_present();
            if !self.lines.buffer.is_empty() {
                return Some(std::mem::take(&mut self.lines.buffer).into());
            }
            if self.ended {
                return None;
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(i) => {
                        i.tick().await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.upstream.next() => self.take(event),
                () = tick => self.mark().await,
                () = tokio::time::sleep_until(self.deadline) => {
                    if self.bookmarks.is_some() {
                        self.mark().await;
                    }
                    self.ended = true;
                }
            }
        }
    }

    fn send_present(&mut self) {
        while self.lines.buffer.len() < CHUNK
            && let Some(entry) = self.present.pop_front()
        {
            self.report(|l| l.present(&entry));
        }
        if self.present.is_empty()
            && let Some(revision) = self.announce_end.take()
        {
            self.lines.bookmark(revision, true);
        }
    }

    /// Takes an event, and those that are ready with it.
    fn take(&mut self, mut event: Option<Result<WatchEvent, biga_store::Error>>) {
        loop {
            match event {
                // Keys that begin with the wanted one come along.
                Some(Ok(e)) if self.only.as_ref().is_some_and(|key| *key != e.entry.key) => {}
                Some(Ok(e)) => self.report(|l| l.change(&e)),
                Some(Err(e)) => {
                    // The client lists again; a closed store only ends the watch.
                    if !matches!(e, biga_store::Error::Closed) {
                        self.lines.value("ERROR", &ApiError::from(e).status());
                    }
                    self.ended = true;
                    return;
                }
                None => {
                    self.ended = true;
                    return;
                }
            }
            if self.lines.buffer.len() >= CHUNK {
                return;
            }
            match self.upstream.next().now_or_never() {
                Some(next) => event = next,
                None => return,
            }
        }
    }

    /// Sends a bookmark. The revision is read first; what the upstream then has ready goes before the bookmark, so
    /// the client has seen all that is not newer.
    async fn mark(&mut self) {
        let Ok(revision) = self.store.revision().await else {
            self.ended = true;
            return;
        };
        while let Some(event) = self.upstream.next().now_or_never() {
            self.take(event);
            if self.ended {
                return;
            }
        }
        self.lines.bookmark(revision, false);
    }

    fn report(&mut self, line: impl FnOnce(&mut Lines<K>) -> Result<(), ApiError>) {
        if let Err(e) = line(&mut self.lines) {
            tracing::error!(error = %e, "left out of a watch");
        }
    }
}

impl<K: Kind> Resource<K> {
    pub async fn watch(&self, call: &Call) -> Result<Response, ApiError> {
        let style = call.style()?;
        let mut selection = Selection::parse::<K>(&call.query)?;
        let bookmarks = call.query.flag("allowWatchBookmarks")?;
        let timeout = match call.query.number::<u64>("timeoutSeconds")? {
            None | Some(0) => DEFAULT_TIMEOUT,
            Some(s) => Duration::from_secs(s.min(MAX_TIMEOUT)),
        };
        let only = Self::only_key(call, &mut selection);
        let prefix = only
            .clone()
            .unwrap_or_else(|| typed::prefix::<K>(call.namespace.as_deref()));
        let mut present = VecDeque::new();
        let mut end = None;
        let from = match start(&call.query, bookmarks)? {
            Start::After(revision) => {
                not_ahead(revision, self.store.revision().await?)?;
                revision
            }
            Start::Present { announce_end } => {
                let listing = self.store.list(&prefix, ListOptions::default()).await?;
                present = listing.entries.into();
                present.retain(|e: &Entry| only.as_ref().is_none_or(|key| *key == e.key));
                end = announce_end.then_some(listing.revision);
                listing.revision
            }
        };
        let watch = Watch::<K> {
            store: self.store.clone(),
            upstream: self.store.watch(&prefix, Some(from)).await?,
            lines: Lines {
                head: self.head.clone(),
                style,
                selection,
                picker: self.picker.clone(),
                columns_sent: false,
                buffer: Vec::new(),
            },
            present,
            announce_end: end,
            bookmarks: bookmarks.then(|| {
                let mut i = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
                i.set_missed_tick_behavior(MissedTickBehavior::Delay);
                i
            }),
            deadline: Instant::now() + timeout,
            ended: false,
            only,
        };
        let lines = futures_util::stream::unfold(watch, |mut w| async move {
            let piece = w.next().await?;
            Some((Ok::<_, std::convert::Infallible>(piece), w))
        });
        Ok(json_response(Body::from_stream(lines)))
    }
}
