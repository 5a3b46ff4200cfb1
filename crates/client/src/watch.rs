//! Following changes.
//!
//! A [`Watcher`] lists, then watches from the list's revision. When the connection ends it watches again from the last
//! revision it saw, so nothing is missed or repeated; when that revision was compacted away (410) it lists
//! again and says so with [`WatchEvent::Listed`], whose items replace all that was known. While the daemon is away it tries
//! again with growing pauses, and gives up after [`Watcher::give_up_after`].

use std::time::{Duration, Instant};

use biga_model::{Kind, Object};
use futures_util::Stream;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::api::unreadable;
use crate::http::{JsonLines, request};
use crate::params::encode_query;
use crate::raw::ListMeta;
use crate::{Error, ErrorKind, ListParams, RawApi};

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K: Kind> {
    /// All there is; replaces what was known. The first event, and again after a gap that cannot be closed.
    Listed(Vec<Object<K>>),
    /// An object was made or changed.
    Applied(Object<K>),
    /// An object is gone; its last state.
    Deleted(Object<K>),
}

/// Follows changes of objects of kind `K`.
#[derive(Debug)]
pub struct Watcher<K: Kind> {
    raw: RawApi,
    params: ListParams,
    revision: Option<String>,
    lines: Option<JsonLines<Line>>,
    give_up: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
    kind: std::marker::PhantomData<fn() -> K>,
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    type_: String,
    /// What it is depends on the type.
    object: Box<RawValue>,
}

/// An object of which only the revision counts.
#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl<K: Kind> Watcher<K> {
    pub(crate) fn new(raw: RawApi, params: ListParams, revision: Option<String>) -> Watcher<K> {
        Watcher {
            raw,
            params,
            revision,
            lines: None,
            give_up: Duration::from_secs(30),
            failing_since: None,
            pause: FIRST_PAUSE,
            kind: std::marker::PhantomData,
        }
    }

    /// For how long a daemon that was there is waited for when it goes away; 30 seconds at first.
    pub fn give_up_after(mut self, time: Duration) -> Watcher<K> {
        self.give_up = time;
        self
    }

    /// The next change.
    pub async fn next_event(&mut self) -> Result<WatchEvent<K>, Error> {
        loop {
            match self.step().await {
                Ok(Some(event)) => {
                    self.failing_since = None;
                    self.pause = FIRST_PAUSE;
                    return Ok(event);
                }
                Ok(None) => {}
                Err(e) if e.kind == ErrorKind::Expired => {
                    self.lines = None;
                    self.revision = None;
                }
                // A daemon that was never there is not waited for.
                Err(e) if e.retryable() && self.revision.is_some() => {
                    self.lines = None;
                    let since = *self.failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.give_up {
                        return Err(e);
                    }
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The changes as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchEvent<K>, Error>> {
        futures_util::stream::unfold(Some(self), |w| async move {
            let mut w = w?;
            let event = w.next_event().await;
            let next = event.is_ok().then_some(w);
            Some((event, next))
        })
    }

    /// One request, or one line of a running one.
    async fn step(&mut self) -> Result<Option<WatchEvent<K>>, Error> {
        let Some(revision) = self.revision.clone() else {
            let list = self.raw.list_as(&self.params).await?;
            self.revision = Some(list.metadata.resource_version);
            return Ok(Some(WatchEvent::Listed(list.items)));
        };
        if self.lines.is_none() {
            let mut q = self.params.query();
            q.push(("watch", "true".into()));
            q.push(("allowWatchBookmarks", "true".into()));
            q.push(("resourceVersion", revision));
            let path = format!("{}{}", self.raw.path(None), encode_query(&q));
            let bytes = self.raw.client.bytes(request(Method::GET, &path)?).await?;
            self.lines = Some(bytes.json_lines());
        }
        let Some(lines) = &mut self.lines else { return Ok(None) };
        match lines.next().await {
            Ok(Some(line)) => self.line(line),
            // The server ends a watch when its time is up; the next one goes on from the same revision.
            Ok(None) => {
                self.lines = None;
                Err(Error::new(ErrorKind::Unreachable, "the daemon ended the watch"))
            }
            Err(e) => Err(e),
        }
    }

    fn line(&mut self, line: Line) -> Result<Option<WatchEvent<K>>, Error> {
        match line.type_.as_str() {
            "ADDED" | "MODIFIED" => self.object(&line).map(|o| Some(WatchEvent::Applied(o))),
            "DELETED" => self.object(&line).map(|o| Some(WatchEvent::Deleted(o))),
            "ERROR" => Err(Error::from_status(&read(&line)?)),
            "BOOKMARK" => {
                self.saw(read::<Bookmark>(&line)?.metadata.resource_version);
                Ok(None)
            }
            // What later servers may send.
            _ => Ok(None),
        }
    }

    fn object(&mut self, line: &Line) -> Result<Object<K>, Error> {
        let object: Object<K> = read(line)?;
        self.saw(object.metadata.resource_version.clone());
        Ok(object)
    }

    fn saw(&mut self, revision: String) {
        if !revision.is_empty() {
            self.revision = Some(revision);
        }
    }
}

fn read<T: DeserializeOwned>(line: &Line) -> Result<T, Error> {
    serde_json::from_str(line.object.get()).map_err(|e| unreadable("change", &e))
}
