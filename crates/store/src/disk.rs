//! The redb file. Tables (how values are written is said in [`codec`](crate::codec)):
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `revision`, `compacted`, `lease`, `round` | number |
//! | `entries` | key | the record |
//! | `history` | revision | the change |
//! | `leases` | id | milliseconds it lives after a renewal |
//!
//! `round` is what the records of the [`journal`](crate::journal) that are not in these tables bear.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::api::{Entry, Error, WatchEvent};
use crate::batch::{Batch, State, weight};
use crate::codec::{decode_event, decode_record, encode_event, encode_record};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");

/// The layout of this file. 1 had no journal beside it, and is otherwise the same.
const FORMAT: u64 = 2;
const WITHOUT_JOURNAL: u64 = 1;
/// redb's own cache of pages; all entries are cached above it, so it only serves commits.
const PAGE_CACHE: usize = 8 << 20;

/// The file, with its tables made.
pub(crate) struct Disk {
    db: Database,
}

pub(crate) fn io<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |e| Error::Io {
        what,
        why: e.to_string(),
    }
}

/// Opens or makes a file that only root may read (mode 0600), in a directory that must exist.
pub(crate) fn open_file(path: &Path) -> Result<FileBackend, Error> {
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
    if new && let Some(dir) = path.parent() {
        // The file's name must survive a power loss as well as its contents.
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        File::open(dir).and_then(|d| d.sync_all()).map_err(|e| named(&e))?;
    }
    FileBackend::new(file).map_err(|e| named(&e))
}

impl Disk {
    /// Uses the file in `backend`, an empty one too.
    pub fn open(backend: impl redb::StorageBackend) -> Result<Disk, Error> {
        let mut b = Database::builder();
        b.set_cache_size(PAGE_CACHE);
        let db = b.create_with_backend(backend).map_err(io("open its file"))?;
        let tx = db.begin_write().map_err(io("begin a commit"))?;
        match make_tables(&tx).map_err(io("make its tables"))? {
            true => tx.commit().map_err(io("make its tables"))?,
            false => tx.abort().map_err(io("read its tables"))?,
        }
        Ok(Disk { db })
    }

    /// Reads everything, and the round of the journal that goes on from it.
    pub fn load(&self) -> Result<(State, u64), Error> {
        self.load_tables().map_err(io("read its file"))?
    }

    /// Makes the batch durable, whole or not at all, and begins a round of the journal.
    pub fn write(&self, batch: &Batch, round: u64) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            write_batch(&tx, batch, round)?;
            tx.commit()?;
            Ok(())
        };
        write().map_err(io("commit a write"))
    }

    fn load_tables(&self) -> Result<Result<(State, u64), Error>, redb::Error> {
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
        Ok(Ok((state, number("round")?)))
    }
}

fn corrupt(what: &str, which: &str) -> Error {
    Error::Io {
        what: "read its file",
        why: format!("{what} {which} is damaged"),
    }
}

/// Makes what is missing of the tables; whether anything was.
fn make_tables(tx: &WriteTransaction) -> Result<bool, redb::Error> {
    let mut meta = tx.open_table(META)?;
    let format = meta.get("format")?.map(|v| v.value());
    if format.is_some_and(|f| f != WITHOUT_JOURNAL) {
        return Ok(false);
    }
    meta.insert("format", FORMAT)?;
    meta.insert("round", new_round())?;
    tx.open_table(ENTRIES)?;
    tx.open_table(HISTORY)?;
    tx.open_table(LEASES)?;
    Ok(true)
}

/// The mark of a round. Nobody can guess it, so that nothing that is stored can pass for a record of the journal.
pub(crate) fn new_round() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

fn write_batch(tx: &WriteTransaction, batch: &Batch, round: u64) -> Result<(), redb::Error> {
    let mut meta = tx.open_table(META)?;
    meta.insert("round", round)?;
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
        let mut bytes = Vec::new();
        encode_event(e, &mut bytes);
        history.insert(e.entry.revision, bytes.as_slice())?;
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
