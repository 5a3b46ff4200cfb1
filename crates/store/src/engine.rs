//! What the embedded and the memory engine share: the cache that serves reads and watches, and the one
//! writer thread that turns queued calls into commits.
//!
//! ```text
//!  put, delete, lease… ──► queue ──► writer thread: stage all that is queued (preconditions against the
//!                                    newest state) ──► one durable commit ──► publish to the cache ──► answer
//!  get, list           ◄── cache
//!  watch               ◄── cache's history, from any revision it still holds
//! ```
//!
//! Readers only ever see what is durable: a commit is published after it is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::api::{Entry, Error, LeaseId, ListOptions, Listing, Precondition, Revision, WatchEvent, WatchStream, Write};
use crate::batch::{Batch, HistoryLimits, State};

/// At most so many calls go into one commit.
const MAX_BATCH: usize = 1024;
/// A commit is closed once it holds so many bytes of values.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// A watch looks at so many changes under one lock.
const WATCH_CHUNK: usize = 256;

/// Where commits go.
pub(crate) trait Log: Send + 'static {
    /// Makes the batch durable, whole or not at all.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;

    /// The last call.
    fn close(&mut self) {}
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

enum Command {
    Put {
        key: String,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
        answer: Answer<Revision>,
    },
    Delete {
        key: String,
        precondition: Precondition,
        answer: Answer<Revision>,
    },
    Transact(Vec<Write>, Answer<Vec<Revision>>),
    Compact(Revision, Answer<()>),
    Grant(Duration, Answer<LeaseId>),
    Renew(LeaseId, Answer<()>),
    Revoke(LeaseId, Answer<()>),
    Stop,
}

struct Shared {
    state: RwLock<State>,
    /// Of all watches. Changed only while the state is held, so that both are always of one revision.
    interests: Mutex<Vec<Arc<Interest>>>,
    closed: AtomicBool,
}

/// What one watch waits for. Who waits for something else is not woken.
struct Interest {
    prefix: String,
    /// Up to here it has seen, or need not see, all.
    cursor: AtomicU64,
    /// Whether there may be something for it behind the cursor.
    behind: AtomicBool,
    wake: Notify,
}

impl Shared {
    /// Makes a commit visible, and wakes whom it concerns.
    fn publish(&self, batch: Batch) {
        let (events, revision) = (batch.events.clone(), batch.revision);
        let mut woken = Vec::new();
        {
            let mut state = self.state.write();
            batch.apply(&mut state);
            for i in self.interests.lock().iter() {
                if events.iter().any(|e| e.entry.key.starts_with(&i.prefix)) {
                    i.behind.store(true, Ordering::Relaxed);
                    woken.push(i.clone());
                } else if !i.behind.load(Ordering::Relaxed) {
                    i.cursor.store(revision, Ordering::Relaxed);
                }
            }
        }
        woken.iter().for_each(|i| i.wake.notify_one());
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.interests.lock().iter().for_each(|i| i.wake.notify_one());
    }
}

/// A running engine. Dropping it closes it.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    queue: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the writer thread upon `state`.
    pub fn start(state: State, log: Box<dyn Log>, limits: HistoryLimits) -> Result<Engine, Error> {
        let now = Instant::now();
        let deadlines = state.leases.iter().map(|(id, ttl)| (*id, now + *ttl)).collect();
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            interests: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let (queue, commands) = mpsc::channel();
        let writer = Writer {
            shared: shared.clone(),
            commands,
            log,
            limits,
            deadlines,
            failed: None,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|e| Error::Io {
                what: "start its writer thread",
                why: e.to_string(),
            })?;
        Ok(Engine {
            shared,
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Finishes what is queued, then refuses all further calls; watches end with [`Error::Closed`].
    pub fn close(&self) {
        let _ = self.queue.send(Command::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }

    fn open(&self) -> Result<(), Error> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.open()?;
        Ok(self.shared.state.read().records.get(key).map(|r| r.entry.clone()))
    }

    pub fn list(&self, prefix: &str, options: &ListOptions) -> Result<Listing, Error> {
        self.open()?;
        let state = self.shared.state.read();
        let from = match options.after.as_deref() {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut matching = state
            .records
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(k, _)| k.starts_with(prefix));
        let limit = match options.limit {
            0 => usize::MAX,
            n => n,
        };
        let entries = matching.by_ref().take(limit).map(|(_, r)| r.entry.clone()).collect();
        let remaining = matching.count();
        Ok(Listing {
            entries,
            revision: state.revision,
            remaining,
        })
    }

    pub fn revision(&self) -> Result<Revision, Error> {
        self.open()?;
        Ok(self.shared.state.read().revision)
    }

    pub fn watch(&self, prefix: &str, from: Option<Revision>) -> Result<WatchStream, Error> {
        self.open()?;
        let state = self.shared.state.read();
        let cursor = from.unwrap_or(state.revision);
        if cursor < state.compacted {
            return Err(Error::TooOld {
                asked: cursor,
                oldest: state.compacted,
            });
        }
        let interest = Arc::new(Interest {
            prefix: prefix.into(),
            cursor: AtomicU64::new(cursor),
            behind: AtomicBool::new(cursor < state.revision),
            wake: Notify::new(),
        });
        self.shared.interests.lock().push(interest.clone());
        let watcher = Watcher {
            shared: Arc::downgrade(&self.shared),
            interest,
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(Box::pin(futures_util::stream::unfold(watcher, |mut w| async move {
            let item = w.next().await?;
            Some((item, w))
        })))
    }

    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> Result<Revision, Error> {
        let key = key.to_string();
        self.call(|answer| Command::Put {
            key,
            value,
            precondition,
            lease,
            answer,
        })
        .await
    }

    pub async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision, Error> {
        let key = key.to_string();
        self.call(|answer| Command::Delete {
            key,
            precondition,
            answer,
        })
        .await
    }

    pub async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Revision>, Error> {
        self.call(|answer| Command::Transact(writes, answer)).await
    }

    pub async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.call(|answer| Command::Compact(revision, answer)).await
    }

    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.call(|answer| Command::Grant(ttl, answer)).await
    }

    pub async fn renew(&self, lease: LeaseId) -> Result<(), Error> {
        self.call(|answer| Command::Renew(lease, answer)).await
    }

    pub async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.call(|answer| Command::Revoke(lease, answer)).await
    }

    async fn call<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, Error> {
        let (answer, result) = oneshot::channel();
        self.queue.send(command(answer)).map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// One reader of changes. It holds no queue: it reads the cache's history from its own cursor, and
/// where the history moved past the cursor it fell behind.
struct Watcher {
    shared: Weak<Shared>,
    interest: Arc<Interest>,
    ready: VecDeque<Arc<WatchEvent>>,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok((*event).clone()));
            }
            // Read first: what was there when the store closed is still told.
            let closed = self.shared.upgrade().is_none_or(|s| s.closed.load(Ordering::Acquire));
            if let Err(e) = self.fill() {
                self.ended = true;
                return Some(Err(e));
            }
            if !self.ready.is_empty() {
                continue;
            }
            if closed {
                self.ended = true;
                return Some(Err(Error::Closed));
            }
            self.interest.wake.notified().await;
        }
    }

    /// Takes the next matching changes out of the history.
    fn fill(&mut self) -> Result<(), Error> {
        let shared = self.shared.upgrade().ok_or(Error::Closed)?;
        loop {
            // No commit comes between while this is held.
            let state = shared.state.read();
            let mut cursor = self.interest.cursor.load(Ordering::Relaxed);
            if cursor < state.compacted {
                return Err(Error::Lagged);
            }
            let start = state.history.partition_point(|e| e.entry.revision <= cursor);
            let mut seen = 0;
            for event in state.history.range(start..).take(WATCH_CHUNK) {
                seen += 1;
                cursor = event.entry.revision;
                if event.entry.key.starts_with(&self.interest.prefix) {
                    self.ready.push_back(event.clone());
                }
            }
            self.interest.cursor.store(cursor, Ordering::Relaxed);
            if seen < WATCH_CHUNK {
                self.interest.behind.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.interests.lock().retain(|i| !Arc::ptr_eq(i, &self.interest));
        }
    }
}

/// The one writer.
struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    log: Box<dyn Log>,
    limits: HistoryLimits,
    /// When each lease ends.
    deadlines: BTreeMap<LeaseId, Instant>,
    /// Set once a commit failed: what is on disk is then unknown, and only a new start can tell.
    failed: Option<Error>,
}

type Reply = Box<dyn FnOnce(Result<(), Error>)>;

/// An answer that is known, and waits for the commit.
fn reply<T: 'static>(answer: Answer<T>, result: Result<T, Error>) -> Reply {
    Box::new(move |committed| {
        let _ = answer.send(result.and_then(|v| committed.map(|()| v)));
    })
}

impl Writer {
    fn run(mut self) {
        let mut stopping = false;
        while !stopping {
            let commands = self.collect(&mut stopping);
            self.commit(commands);
        }
        self.log.close();
        self.shared.close();
    }

    /// Waits for a call or the end of a lease, and takes all else that is queued by then.
    fn collect(&self, stopping: &mut bool) -> Vec<Command> {
        let first = match self.deadlines.values().min() {
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.commands.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let mut commands = Vec::new();
        let mut bytes = 0;
        let mut next = match first {
            Ok(c) => Some(c),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                *stopping = true;
                None
            }
        };
        while let Some(command) = next.take() {
            match command {
                Command::Stop => {
                    *stopping = true;
                    break;
                }
                Command::Put { ref value, .. } => {
                    bytes += value.len();
                    commands.push(command);
                }
                Command::Transact(ref writes, _) => {
                    bytes += writes.iter().flat_map(|w| &w.value).map(Bytes::len).sum::<usize>();
                    commands.push(command);
                }
                command => commands.push(command),
            }
            if commands.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                next = self.commands.try_recv().ok();
            }
        }
        commands
    }

    fn commit(&mut self, commands: Vec<Command>) {
        let (batch, replies) = {
            // Only this thread writes the state, so what is read here stays true until `apply`.
            let shared = self.shared.clone();
            let state = shared.state.read();
            let mut batch = Batch::new(&state);
            self.end_leases(&state, &mut batch);
            let replies: Vec<Reply> = commands
                .into_iter()
                .map(|c| self.stage(&state, &mut batch, c))
                .collect();
            batch.trim(&state, self.limits);
            (batch, replies)
        };
        let result = match &self.failed {
            Some(e) => Err(e.clone()),
            None if batch.dirty => self.log.commit(&batch),
            None => Ok(()),
        };
        match &result {
            Ok(()) if batch.dirty => self.publish(batch),
            Ok(()) => {}
            Err(e) => {
                if self.failed.is_none() {
                    tracing::error!(error = %e, "the store failed and refuses all writes until it is opened again");
                    self.failed = Some(e.clone());
                }
                // Their entries stay; without this the writer would spin on a lease that cannot be ended.
                self.deadlines.clear();
            }
        }
        for reply in replies {
            reply(result.clone());
        }
    }

    fn publish(&mut self, batch: Batch) {
        for (id, ttl) in &batch.leases {
            match ttl {
                Some(ttl) => self.deadlines.insert(*id, Instant::now() + *ttl),
                None => self.deadlines.remove(id),
            };
        }
        self.shared.publish(batch);
    }

    fn end_leases(&mut self, state: &State, batch: &mut Batch) {
        let now = Instant::now();
        let ended: Vec<LeaseId> = self
            .deadlines
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            // A lease that is in `deadlines` is in the state, so this cannot fail.
            let _ = batch.revoke(state, id);
        }
    }

    fn stage(&mut self, state: &State, batch: &mut Batch, command: Command) -> Reply {
        match command {
            Command::Put {
                key,
                value,
                precondition,
                lease,
                answer,
            } => reply(answer, batch.put(state, &key, value, precondition, lease)),
            Command::Delete {
                key,
                precondition,
                answer,
            } => reply(answer, batch.delete(state, &key, precondition)),
            Command::Transact(writes, answer) => reply(answer, batch.transact(state, writes)),
            Command::Compact(revision, answer) => {
                batch.compact(revision);
                reply(answer, Ok(()))
            }
            Command::Grant(ttl, answer) => reply(answer, Ok(batch.grant(ttl))),
            Command::Renew(id, answer) => {
                let ttl = batch.ttl(state, id);
                if let Ok(ttl) = ttl
                    && let Some(at) = self.deadlines.get_mut(&id)
                {
                    *at = Instant::now() + ttl;
                }
                reply(answer, ttl.map(|_| ()))
            }
            Command::Revoke(id, answer) => reply(answer, batch.revoke(state, id)),
            // `collect` keeps it back.
            Command::Stop => Box::new(|_| {}),
        }
    }
}

/// Implements [`crate::Store`] for a type with a field `engine: Engine`.
macro_rules! store_by_engine {
    ($type:ty) => {
        #[async_trait::async_trait]
        impl crate::api::Store for $type {
            async fn get(&self, key: &str) -> Result<Option<crate::Entry>, crate::Error> {
                self.engine.get(key)
            }
            async fn list(&self, prefix: &str, options: crate::ListOptions) -> Result<crate::Listing, crate::Error> {
                self.engine.list(prefix, &options)
            }
            async fn put(
                &self,
                key: &str,
                value: bytes::Bytes,
                precondition: crate::Precondition,
                lease: Option<crate::LeaseId>,
            ) -> Result<crate::Revision, crate::Error> {
                self.engine.put(key, value, precondition, lease).await
            }
            async fn delete(
                &self,
                key: &str,
                precondition: crate::Precondition,
            ) -> Result<crate::Revision, crate::Error> {
                self.engine.delete(key, precondition).await
            }
            async fn transact(&self, writes: Vec<crate::Write>) -> Result<Vec<crate::Revision>, crate::Error> {
                self.engine.transact(writes).await
            }
            async fn watch(
                &self,
                prefix: &str,
                from: Option<crate::Revision>,
            ) -> Result<crate::WatchStream, crate::Error> {
                self.engine.watch(prefix, from)
            }
            async fn revision(&self) -> Result<crate::Revision, crate::Error> {
                self.engine.revision()
            }
            async fn compact(&self, revision: crate::Revision) -> Result<(), crate::Error> {
                self.engine.compact(revision).await
            }
            async fn lease_grant(&self, ttl: std::time::Duration) -> Result<crate::LeaseId, crate::Error> {
                self.engine.grant(ttl).await
            }
            async fn lease_renew(&self, lease: crate::LeaseId) -> Result<(), crate::Error> {
                self.engine.renew(lease).await
            }
            async fn lease_revoke(&self, lease: crate::LeaseId) -> Result<(), crate::Error> {
                self.engine.revoke(lease).await
            }
        }
    };
}
pub(crate) use store_by_engine;
