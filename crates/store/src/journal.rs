//! The journal: what was committed since the trees of the redb file were last changed.
//!
//! Changing trees costs pages, checksums and more than one write for each commit. So a commit is one record appended here, and
//! synced; once the journal is full all of it goes into the trees together, and it begins again at its start.
//!
//! ```text
//!  block 0              block 2        block 3
//!  ├ record 1 ─────────┤├ record 2 ───┤├ record of an earlier round …
//! ```
//!
//! A record is a digest (16 bytes), the round (8), the length of its body (4) and its body; it begins on a block of its own, so that
//! no write ever touches what was acknowledged. Whenever the trees are changed, the same commit notes the mark of a new round: what
//! is left of earlier rounds is then known to be old. A record that is not whole is the end: its write was never acknowledged.

use redb::StorageBackend;
use sha2::{Digest, Sha256};

use crate::api::Error;
use crate::batch::{Batch, State};
use crate::codec;
use crate::disk::{Disk, io, new_round};
use crate::engine::Log;

/// What is written at once without tearing what lies beside it, on any disk.
const BLOCK: usize = 4096;
const DIGEST: usize = 16;
const HEADER: usize = DIGEST + 8 + 4;

/// The redb file with a journal before it.
pub(crate) struct Journal {
    disk: Disk,
    file: Box<dyn StorageBackend>,
    /// Bytes of the file.
    size: usize,
    /// Where the next record goes.
    end: usize,
    round: u64,
    /// All that is in the journal and not in the trees.
    pending: Option<Batch>,
}

impl Journal {
    /// Opens a journal of `size` bytes (rounded up to blocks) in `file`, and the state that it and the trees of `disk` hold.
    pub fn open(disk: Disk, file: Box<dyn StorageBackend>, size: usize) -> Result<(Journal, State), Error> {
        let (mut state, round) = disk.load()?;
        let mut journal = Journal {
            disk,
            file,
            size: size.next_multiple_of(BLOCK),
            end: 0,
            round,
            pending: None,
        };
        journal.replay(&mut state)?;
        // What comes now must not be taken for more of what was read.
        journal.settle()?;
        journal.make_room()?;
        Ok((journal, state))
    }

    /// Reads what was committed and is not in the trees.
    fn replay(&mut self, state: &mut State) -> Result<(), Error> {
        let failed = io("read its journal");
        let len = self.file.len().map_err(failed)? as usize;
        let mut bytes = vec![0; len];
        self.file.read(0, &mut bytes).map_err(io("read its journal"))?;
        let mut at = 0;
        while let Some((body, next)) = record(&bytes, at, self.round) {
            let batch = codec::decode_batch(body, state).ok_or_else(|| Error::Io {
                what: "read its journal",
                why: format!("the record at {at} is damaged"),
            })?;
            self.remember(&batch);
            batch.apply(state);
            at = next;
        }
        Ok(())
    }

    /// Gives the file its length, filled with zeros: a write that makes a file longer costs its file system a commit as well.
    fn make_room(&mut self) -> Result<(), Error> {
        let failed = || io("make room for its journal");
        let len = self.file.len().map_err(failed())? as usize;
        if len < self.size {
            self.file
                .write(len as u64, &vec![0; self.size - len])
                .map_err(failed())?;
            self.file.sync_data().map_err(failed())?;
        }
        Ok(())
    }

    fn remember(&mut self, batch: &Batch) {
        match &mut self.pending {
            Some(p) => p.append(batch),
            None => self.pending = Some(batch.clone()),
        }
    }

    /// Puts all that is pending into the trees, and begins the journal anew.
    fn settle(&mut self) -> Result<(), Error> {
        if let Some(batch) = &self.pending {
            let round = new_round();
            self.disk.write(batch, round)?;
            self.round = round;
            self.pending = None;
        }
        self.end = 0;
        Ok(())
    }
}

impl Log for Journal {
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let bytes = encode(batch, self.round);
        if self.end + bytes.len() > self.size {
            // With what is pending this is on disk too, and needs no record.
            self.remember(batch);
            return self.settle();
        }
        self.file
            .write(self.end as u64, &bytes)
            .map_err(io("write its journal"))?;
        self.file.sync_data().map_err(io("sync its journal"))?;
        self.end += bytes.len();
        self.remember(batch);
        Ok(())
    }

    fn close(&mut self) {
        if let Err(e) = self.settle() {
            // Nothing is lost: the journal is read at the next start.
            tracing::warn!(error = %e, "the store's journal was left for the next start");
        }
    }
}

fn digest(bytes: &[u8]) -> [u8; DIGEST] {
    let mut out = [0; DIGEST];
    out.copy_from_slice(&Sha256::digest(bytes)[..DIGEST]);
    out
}

/// A record, filled up to whole blocks.
fn encode(batch: &Batch, round: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    codec::encode_batch(batch, &mut out);
    let body = (out.len() - HEADER) as u32;
    out[DIGEST..DIGEST + 8].copy_from_slice(&round.to_le_bytes());
    out[DIGEST + 8..HEADER].copy_from_slice(&body.to_le_bytes());
    let digest = digest(&out[DIGEST..]);
    out[..DIGEST].copy_from_slice(&digest);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// The body of the record at `at`, and where the next one begins; `None` where no whole record of this round is.
fn record(bytes: &[u8], at: usize, round: u64) -> Option<(&[u8], usize)> {
    let bytes = bytes.get(at..)?;
    let (want, rest) = bytes.split_first_chunk::<DIGEST>()?;
    let (found, _) = codec::number(rest)?;
    let len = u32::from_le_bytes(*rest.get(8..)?.first_chunk()?) as usize;
    let checked = rest.get(..HEADER - DIGEST + len)?;
    if found != round || digest(checked) != *want {
        return None;
    }
    Some((&checked[HEADER - DIGEST..], at + (HEADER + len).next_multiple_of(BLOCK)))
}
