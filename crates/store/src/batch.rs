//! What one commit changes, worked out against the newest state. Pure: no I/O, no locks, no clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Entry, Error, LeaseId, Precondition, Revision, WatchEvent, WatchEventKind, Write};

/// Largest key in bytes.
pub(crate) const MAX_KEY: usize = 1024;
/// Largest value in bytes.
pub(crate) const MAX_VALUE: usize = 8 << 20;

/// An entry and the lease it goes with (0 for none).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub entry: Entry,
    pub lease: LeaseId,
}

/// Everything the store knows: what reads, lists and watches are served from.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Revision of the last write.
    pub revision: Revision,
    /// Changes up to here are forgotten.
    pub compacted: Revision,
    /// The entries by key.
    pub records: BTreeMap<String, Record>,
    /// The changes after `compacted`, in order.
    pub history: VecDeque<Arc<WatchEvent>>,
    /// Bytes of keys and values in `history`.
    pub history_bytes: usize,
    /// The id the next lease gets, less one.
    pub last_lease: LeaseId,
    /// Leases and how long each lives after a renewal.
    pub leases: BTreeMap<LeaseId, Duration>,
}

/// How much history is kept at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimits {
    pub events: usize,
    pub bytes: usize,
}

/// The changes of one commit, or of several that are written together.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Revision after the commit.
    pub revision: Revision,
    /// Compaction mark after the commit.
    pub compacted: Revision,
    /// Last lease id after the commit.
    pub last_lease: LeaseId,
    /// The changes, in order.
    pub events: Vec<Arc<WatchEvent>>,
    /// Touched keys and what stands there after the commit.
    pub records: HashMap<String, Option<Record>>,
    /// Touched leases; `None` where it ended.
    pub leases: BTreeMap<LeaseId, Option<Duration>>,
    /// Whether anything has to be written.
    pub dirty: bool,
}

/// Bytes that an event holds of the history's limit.
pub(crate) fn weight(e: &WatchEvent) -> usize {
    e.entry.key.len() + e.entry.value.len()
}

impl Batch {
    /// An empty batch upon `state`.
    pub fn new(state: &State) -> Batch {
        Batch {
            revision: state.revision,
            compacted: state.compacted,
            last_lease: state.last_lease,
            events: Vec::new(),
            records: HashMap::new(),
            leases: BTreeMap::new(),
            dirty: false,
        }
    }

    fn record<'a>(&'a self, state: &'a State, key: &str) -> Option<&'a Record> {
        match self.records.get(key) {
            Some(staged) => staged.as_ref(),
            None => state.records.get(key),
        }
    }

    fn check(&self, state: &State, key: &str, precondition: Precondition) -> Result<Option<Record>, Error> {
        let current = self.record(state, key).cloned();
        let revision = current.as_ref().map(|r| r.entry.revision);
        let holds = match precondition {
            Precondition::None => true,
            Precondition::DoesNotExist => revision.is_none(),
            Precondition::Revision(r) => revision == Some(r),
        };
        if holds {
            Ok(current)
        } else {
            Err(Error::Conflict {
                key: key.into(),
                current: revision,
            })
        }
    }

    fn has_lease(&self, state: &State, lease: LeaseId) -> bool {
        match self.leases.get(&lease) {
            Some(staged) => staged.is_some(),
            None => state.leases.contains_key(&lease),
        }
    }

    /// Stages a write.
    pub fn put(
        &mut self,
        state: &State,
        key: &str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> Result<Revision, Error> {
        check_size(key, &value)?;
        if let Some(lease) = lease
            && !self.has_lease(state, lease)
        {
            return Err(Error::NoLease(lease));
        }
        let previous = self.check(state, key, precondition)?.map(|r| r.entry);
        let revision = self.revision + 1;
        let entry = Entry {
            key: key.into(),
            value,
            revision,
            created: previous.as_ref().map_or(revision, |p| p.created),
        };
        let record = Record {
            entry: entry.clone(),
            lease: lease.unwrap_or(0),
        };
        self.change(WatchEventKind::Put, entry, previous, Some(record));
        Ok(revision)
    }

    /// Stages a removal.
    pub fn delete(&mut self, state: &State, key: &str, precondition: Precondition) -> Result<Revision, Error> {
        match self.check(state, key, precondition)? {
            Some(record) => Ok(self.remove(record.entry)),
            None if precondition == Precondition::None => Ok(self.revision),
            None => Err(Error::Conflict {
                key: key.into(),
                current: None,
            }),
        }
    }

    /// Stages all of `writes`, or nothing.
    pub fn transact(&mut self, state: &State, writes: Vec<Write>) -> Result<Vec<Revision>, Error> {
        let mut keys = HashSet::new();
        for w in &writes {
            if !keys.insert(&w.key) {
                return Err(Error::Invalid(format!("{} is written twice in one commit", w.key)));
            }
            self.allowed(state, w)?;
        }
        // Each is of its own key and allowed, so none can fail from here on.
        let one = |w: Write| match w.value {
            Some(value) => self.put(state, &w.key, value, w.precondition, None),
            None => self.delete(state, &w.key, w.precondition),
        };
        writes.into_iter().map(one).collect()
    }

    fn allowed(&self, state: &State, w: &Write) -> Result<(), Error> {
        let current = self.check(state, &w.key, w.precondition)?;
        match &w.value {
            Some(value) => check_size(&w.key, value),
            None if current.is_none() && w.precondition != Precondition::None => Err(Error::Conflict {
                key: w.key.clone(),
                current: None,
            }),
            None => Ok(()),
        }
    }

    fn remove(&mut self, previous: Entry) -> Revision {
        let revision = self.revision + 1;
        let entry = Entry {
            revision,
            ..previous.clone()
        };
        self.change(WatchEventKind::Delete, entry, Some(previous), None);
        revision
    }

    fn change(&mut self, kind: WatchEventKind, entry: Entry, previous: Option<Entry>, record: Option<Record>) {
        self.revision = entry.revision;
        self.records.insert(entry.key.clone(), record);
        self.events.push(Arc::new(WatchEvent { kind, entry, previous }));
        self.dirty = true;
    }

    /// Stages a new lease.
    pub fn grant(&mut self, ttl: Duration) -> LeaseId {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, Some(ttl));
        self.dirty = true;
        self.last_lease
    }

    /// How long the lease lives after a renewal.
    pub fn ttl(&self, state: &State, lease: LeaseId) -> Result<Duration, Error> {
        let ttl = match self.leases.get(&lease) {
            Some(staged) => *staged,
            None => state.leases.get(&lease).copied(),
        };
        ttl.ok_or(Error::NoLease(lease))
    }

    /// Stages the end of a lease and of all entries that go with it.
    pub fn revoke(&mut self, state: &State, lease: LeaseId) -> Result<(), Error> {
        self.ttl(state, lease)?;
        let mut gone: Vec<Entry> = Vec::new();
        for record in state.records.values() {
            if record.lease == lease && !self.records.contains_key(&record.entry.key) {
                gone.push(record.entry.clone());
            }
        }
        let staged = self.records.values().flatten().filter(|r| r.lease == lease);
        gone.extend(staged.map(|r| r.entry.clone()));
        gone.sort_by(|a, b| a.key.cmp(&b.key));
        for entry in gone {
            self.remove(entry);
        }
        self.leases.insert(lease, None);
        self.dirty = true;
        Ok(())
    }

    /// Stages a compaction; a revision that does not exist yet means: up to now.
    pub fn compact(&mut self, revision: Revision) {
        let to = revision.min(self.revision);
        if to > self.compacted {
            self.compacted = to;
            self.dirty = true;
        }
    }

    /// Moves the compaction mark as far as the limits of the history demand. The last step of a batch.
    pub fn trim(&mut self, state: &State, limits: HistoryLimits) {
        let all = || state.history.iter().chain(&self.events);
        let mut events = state.history.len() + self.events.len();
        let mut bytes = state.history_bytes + self.events.iter().map(|e| weight(e)).sum::<usize>();
        let mut compacted = self.compacted;
        for e in all() {
            if events <= limits.events && bytes <= limits.bytes {
                break;
            }
            events -= 1;
            bytes -= weight(e);
            compacted = compacted.max(e.entry.revision);
        }
        self.compacted = compacted;
    }

    /// Adds what a later commit changes.
    pub fn append(&mut self, later: &Batch) {
        self.revision = later.revision;
        self.compacted = later.compacted;
        self.last_lease = later.last_lease;
        self.events.extend(later.events.iter().cloned());
        self.records
            .extend(later.records.iter().map(|(k, r)| (k.clone(), r.clone())));
        self.leases.extend(&later.leases);
        self.dirty |= later.dirty;
    }

    /// Makes the staged changes the state.
    pub fn apply(self, state: &mut State) {
        state.revision = self.revision;
        state.last_lease = self.last_lease;
        for (key, record) in self.records {
            match record {
                Some(r) => state.records.insert(key, r),
                None => state.records.remove(&key),
            };
        }
        for (id, ttl) in self.leases {
            match ttl {
                Some(ttl) => state.leases.insert(id, ttl),
                None => state.leases.remove(&id),
            };
        }
        state.history_bytes += self.events.iter().map(|e| weight(e)).sum::<usize>();
        state.history.extend(self.events);
        state.compacted = self.compacted;
        while let Some(front) = state.history.front()
            && front.entry.revision <= state.compacted
        {
            state.history_bytes -= weight(front);
            state.history.pop_front();
        }
    }
}

fn check_size(key: &str, value: &Bytes) -> Result<(), Error> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Error::Invalid(format!(
            "a key has 1 to {MAX_KEY} bytes, this one has {}",
            key.len()
        )));
    }
    if value.len() > MAX_VALUE {
        return Err(Error::Invalid(format!(
            "{key}: a value has at most {MAX_VALUE} bytes, this one has {}",
            value.len()
        )));
    }
    Ok(())
}
