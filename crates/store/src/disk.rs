//! The redb file. Tables:
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `revision`, `compacted`, `lease` | number |
//! | `entries` | key | revision, creation revision, lease (8 bytes each, little-endian), value |
//! | `history` | revision | 1 for a write and 2 for a removal, creation revision (8), length of the key (4), key, value |
//! | `leases` | id | milliseconds it lives after a renewal |

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::api::{Entry, Error, WatchEvent, WatchEventKind};
use crate::batch::{Batch, Record, State, weight};
use crate::engine::Log;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");

/// The layout of this file.
const FORMAT: u64 = 1;
/// redb's own cache of pages; all entries are cached above it, so it only serves commits.
const PAGE_CACHE: usize = 8 << 20;

/// The file, with its tables made.
pub(crate) struct Disk {
    db: Database,
}

fn io<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Io {
        what,
        why: e.to_string(),
    }
}

impl Disk {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Disk, Error> {
        let named = |e: &dyn std::fmt::Display| Error::Io {
            what: "open its file",
            why: format!("{}: {e}", path.display()),
        };
        let new = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| named(&e))?;
        let backend = redb::backends::FileBackend::new(file).map_err(|e| named(&e))?;
        let db = builder().create_with_backend(backend).map_err(|e| named(&e))?;
        let disk = Disk::prepare(db)?;
        if new && let Some(dir) = path.parent() {
            // The file's name must survive a power loss as well as its contents.
            let dir = if dir.as_os_str().is_empty() {
                Path::new(".")
            } else {
                dir
            };
            File::open(dir).and_then(|d| d.sync_all()).map_err(|e| named(&e))?;
        }
        Ok(disk)
    }

    /// Uses a backend instead of a file.
    pub fn with_backend(backend: impl redb::StorageBackend) -> Result<Disk, Error> {
        let db = builder().create_with_backend(backend).map_err(io("open its backend"))?;
        Disk::prepare(db)
    }

    fn prepare(db: Database) -> Result<Disk, Error> {
        let tx = db.begin_write().map_err(io("begin a commit"))?;
        let fresh = make_tables(&tx).map_err(io("make its tables"))?;
        match fresh {
            true => tx.commit().map_err(io("make its tables"))?,
            false => tx.abort().map_err(io("read its tables"))?,
        }
        Ok(Disk { db })
    }

    /// Reads everything.
    pub fn load(&self) -> Result<State, Error> {
        self.load_tables().map_err(io("read its file"))?
    }

    fn load_tables(&self) -> Result<Result<State, Error>, redb::Error> {
        let tx = self.db.begin_read()?;
        let meta = tx.open_table(META)?;
        let number = |name: &str| meta.get(name).map(|v| v.map_or(0, |v| v.value()));
        let format = number("format")?;
        if format != FORMAT {
            return Ok(Err(Error::Io {
                what: "read its file",
                why: format!("its format is {format}, this program knows {FORMAT}"),
            }));
        }
        let mut state = State {
            revision: number("revision")?,
            compacted: number("compacted")?,
            last_lease: number("lease")?,
            ..State::default()
        };
        for row in tx.open_table(ENTRIES)?.iter()? {
            let (key, value) = row?;
            match decode_record(key.value(), value.value()) {
                Some(r) => state.records.insert(key.value().into(), r),
                None => return Ok(Err(corrupt("entry", key.value()))),
            };
        }
        let mut last: HashMap<String, Entry> = HashMap::new();
        for row in tx.open_table(HISTORY)?.iter()? {
            let (revision, value) = row?;
            let Some((kind, entry)) = decode_event(revision.value(), value.value()) else {
                return Ok(Err(corrupt("change", &revision.value().to_string())));
            };
            let previous = last.insert(entry.key.clone(), entry.clone());
            let previous = previous.filter(|_| entry.created != entry.revision);
            let event = WatchEvent { kind, entry, previous };
            state.history_bytes += weight(&event);
            state.history.push_back(Arc::new(event));
        }
        for row in tx.open_table(LEASES)?.iter()? {
            let (id, ttl) = row?;
            state.leases.insert(id.value(), Duration::from_millis(ttl.value()));
        }
        Ok(Ok(state))
    }
}

fn corrupt(what: &str, which: &str) -> Error {
    Error::Io {
        what: "read its file",
        why: format!("{what} {which} is damaged"),
    }
}

fn builder() -> redb::Builder {
    let mut b = Database::builder();
    b.set_cache_size(PAGE_CACHE);
    b
}

/// Makes the tables of a new file; whether it was new.
fn make_tables(tx: &WriteTransaction) -> Result<bool, redb::Error> {
    let mut meta = tx.open_table(META)?;
    if meta.get("format")?.is_some() {
        return Ok(false);
    }
    meta.insert("format", FORMAT)?;
    tx.open_table(ENTRIES)?;
    tx.open_table(HISTORY)?;
    tx.open_table(LEASES)?;
    Ok(true)
}

impl Log for Disk {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            write_batch(&tx, batch)?;
            tx.commit()?;
            Ok(())
        };
        write().map_err(io("commit a write"))
    }
}

fn write_batch(tx: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    let mut meta = tx.open_table(META)?;
    meta.insert("revision", batch.revision)?;
    meta.insert("compacted", batch.compacted)?;
    meta.insert("lease", batch.last_lease)?;
    let mut entries = tx.open_table(ENTRIES)?;
    for (key, record) in &batch.records {
        match record {
            Some(r) => entries.insert(key.as_str(), encode_record(r).as_slice())?,
            None => entries.remove(key.as_str())?,
        };
    }
    let mut history = tx.open_table(HISTORY)?;
    for e in batch.events.iter().filter(|e| e.entry.revision > batch.compacted) {
        history.insert(e.entry.revision, encode_event(e).as_slice())?;
    }
    while history.first()?.is_some_and(|(r, _)| r.value() <= batch.compacted) {
        history.pop_first()?;
    }
    if !batch.leases.is_empty() {
        let mut leases = tx.open_table(LEASES)?;
        for (id, ttl) in &batch.leases {
            match ttl {
                Some(ttl) => leases.insert(id, ttl.as_millis() as u64)?,
                None => leases.remove(id)?,
            };
        }
    }
    Ok(())
}

fn encode_record(r: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + r.entry.value.len());
    for n in [r.entry.revision, r.entry.created, r.lease] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&r.entry.value);
    out
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (n, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*n), rest))
}

fn decode_record(key: &str, bytes: &[u8]) -> Option<Record> {
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

fn encode_event(e: &WatchEvent) -> Vec<u8> {
    let key = e.entry.key.as_bytes();
    let mut out = Vec::with_capacity(13 + key.len() + e.entry.value.len());
    out.push(match e.kind {
        WatchEventKind::Put => 1,
        WatchEventKind::Delete => 2,
    });
    out.extend_from_slice(&e.entry.created.to_le_bytes());
    out.extend_from_slice(&(key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&e.entry.value);
    out
}

fn decode_event(revision: u64, bytes: &[u8]) -> Option<(WatchEventKind, Entry)> {
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
