//! How entries, changes and whole commits are written as bytes. Numbers are little-endian.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Entry, LeaseId, Revision, WatchEvent, WatchEventKind};
use crate::batch::{Batch, Record, State};

/// Revision, creation revision, lease (8 bytes each), value.
pub(crate) fn encode_record(r: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + r.entry.value.len());
    for n in [r.entry.revision, r.entry.created, r.lease] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&r.entry.value);
    out
}

/// The number that `bytes` begin with, and the rest.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (n, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*n), rest))
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (n, rest) = number(bytes)?;
    *bytes = rest;
    Some(n)
}

pub(crate) fn decode_record(key: &str, bytes: &[u8]) -> Option<Record> {
    let (revision, rest) = number(bytes)?;
    let (created, rest) = number(rest)?;
    let (lease, value) = number(rest)?;
    let entry = Entry {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        revision,
        created,
    };
    Some(Record { entry, lease })
}

/// 1 for a write and 2 for a removal, creation revision (8), length of the key (4), key, value.
pub(crate) fn encode_event(e: &WatchEvent, out: &mut Vec<u8>) {
    let key = e.entry.key.as_bytes();
    out.push(match e.kind {
        WatchEventKind::Put => 1,
        WatchEventKind::Delete => 2,
    });
    out.extend_from_slice(&e.entry.created.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&e.entry.value);
}

pub(crate) fn event_len(e: &WatchEvent) -> usize {
    13 + e.entry.key.len() + e.entry.value.len()
}

pub(crate) fn decode_event(revision: Revision, bytes: &[u8]) -> Option<(WatchEventKind, Entry)> {
    let (kind, rest) = bytes.split_first()?;
    let kind = match kind {
        1 => WatchEventKind::Put,
        2 => WatchEventKind::Delete,
        _ => return None,
    };
    let (created, rest) = number(rest)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let entry = Entry {
        key: std::str::from_utf8(key).ok()?.into(),
        value: Bytes::copy_from_slice(value),
        revision,
        created,
    };
    Some((kind, entry))
}

/// Stands for a lease that ended.
const ENDED: u64 = u64::MAX;

/// Revision, compaction mark, last lease; how many leases, each an id and the milliseconds it lives after a renewal; the changes in
/// order, each its revision, the lease of its entry, its length, and the change.
pub(crate) fn encode_batch(b: &Batch, out: &mut Vec<u8>) {
    let changes: usize = b.events.iter().map(|e| 24 + event_len(e)).sum();
    out.reserve(32 + 16 * b.leases.len() + changes);
    let mut put = |n: u64| out.extend_from_slice(&n.to_le_bytes());
    for n in [b.revision, b.compacted, b.last_lease, b.leases.len() as u64] {
        put(n);
    }
    for (id, ttl) in &b.leases {
        put(*id);
        put(ttl.map_or(ENDED, |t| t.as_millis() as u64));
    }
    for e in &b.events {
        let lease = match b.records.get(&e.entry.key) {
            Some(Some(r)) => r.lease,
            _ => 0,
        };
        for n in [e.entry.revision, lease, event_len(e) as u64] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        encode_event(e, out);
    }
}

/// The commit that `bytes` hold, upon `state`.
pub(crate) fn decode_batch(mut bytes: &[u8], state: &State) -> Option<Batch> {
    let mut b = Batch::new(state);
    b.revision = take_number(&mut bytes)?;
    b.compacted = take_number(&mut bytes)?;
    b.last_lease = take_number(&mut bytes)?;
    for _ in 0..take_number(&mut bytes)? {
        let id: LeaseId = take_number(&mut bytes)?;
        let ttl = take_number(&mut bytes)?;
        b.leases.insert(id, (ttl != ENDED).then(|| Duration::from_millis(ttl)));
    }
    while !bytes.is_empty() {
        let revision = take_number(&mut bytes)?;
        let lease = take_number(&mut bytes)?;
        let len = take_number(&mut bytes)?;
        let (change, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
        bytes = rest;
        let (kind, entry) = decode_event(revision, change)?;
        let previous = match b.records.get(&entry.key) {
            Some(staged) => staged.as_ref(),
            None => state.records.get(&entry.key),
        };
        let previous = previous.map(|r| r.entry.clone());
        let record = (kind == WatchEventKind::Put).then(|| Record {
            entry: entry.clone(),
            lease,
        });
        b.records.insert(entry.key.clone(), record);
        b.events.push(Arc::new(WatchEvent { kind, entry, previous }));
    }
    b.dirty = true;
    Some(b)
}
