//! Power loss at each write: the disk keeps what was synced, and any part of what was written since.

use std::io;
use std::sync::{Arc, Mutex};

use biga_store::embedded::Options;
use biga_store::{EmbeddedStore, Precondition, Store, Write};
use bytes::Bytes;
use redb::StorageBackend;

/// The store's two files: the trees and the journal.
const FILES: usize = 2;

/// What happened to the disk, in order; and to which file.
#[derive(Debug, Clone)]
enum Op {
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
}

impl Op {
    fn file(&self) -> usize {
        match self {
            Op::Write(f, ..) | Op::SetLen(f, _) | Op::Sync(f) => *f,
        }
    }
}

type Content = [Vec<u8>; FILES];

/// A file in memory. What happens to it is remembered, together with what happens to the others.
#[derive(Debug, Clone)]
struct File {
    number: usize,
    disk: Arc<Mutex<Content>>,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl File {
    /// The files of one disk.
    fn all(content: Content) -> [File; FILES] {
        let (disk, ops) = (Arc::new(Mutex::new(content)), Arc::default());
        [0, 1].map(|number| File {
            number,
            disk: Arc::clone(&disk),
            ops: Arc::clone(&ops),
        })
    }

    fn apply(&self, op: Op) {
        apply(&mut self.disk.lock().unwrap(), &op);
        self.ops.lock().unwrap().push(op);
    }
}

fn apply(disk: &mut Content, op: &Op) {
    let bytes = &mut disk[op.file()];
    match op {
        Op::Write(_, at, data) => {
            let end = *at as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at as usize..end].copy_from_slice(data);
        }
        Op::SetLen(_, len) => bytes.resize(*len as usize, 0),
        Op::Sync(_) => {}
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap()[self.number].len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.lock().unwrap();
        let from = offset as usize;
        let piece = disk[self.number]
            .get(from..from + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(piece);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.apply(Op::SetLen(self.number, len));
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.apply(Op::Sync(self.number));
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.apply(Op::Write(self.number, offset, data.to_vec()));
        Ok(())
    }
}

/// Small numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Which of the writes since the last sync reached the disk.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// None of them.
    All,
    /// All of them.
    Nothing,
    /// Some, in no order, each perhaps torn.
    Some(u64),
}

/// The disk as it is after power was lost when `ops` had happened.
fn after_loss(ops: &[Op], loss: Loss) -> Content {
    // A sync is of one file: it says nothing of what was written to the other.
    let synced = [0, 1].map(|f| {
        let last = ops.iter().rposition(|o| matches!(o, Op::Sync(of) if *of == f));
        last.map_or(0, |i| i + 1)
    });
    let mut disk = Content::default();
    let mut dice = Dice(match loss {
        Loss::Some(seed) => seed,
        Loss::All | Loss::Nothing => 1,
    });
    for (i, op) in ops.iter().enumerate() {
        let safe = i < synced[op.file()];
        match (op, loss) {
            (_, Loss::Nothing) => apply(&mut disk, op),
            _ if safe => apply(&mut disk, op),
            (_, Loss::All) => {}
            // A file system keeps the order of size changes, and data beyond the end is nowhere.
            (Op::SetLen(..), _) => apply(&mut disk, op),
            (Op::Write(file, at, data), _) => match dice.roll(3) {
                0 => {}
                1 => apply(&mut disk, op),
                _ => {
                    // Torn between two sectors.
                    let sectors = data.len().div_ceil(512);
                    let kept = (dice.roll(sectors + 1) * 512).min(data.len());
                    apply(&mut disk, &Op::Write(*file, *at, data[..kept].to_vec()));
                }
            },
            (Op::Sync(_), _) => {}
        }
    }
    disk
}

fn options() -> Options {
    Options {
        history_events: 8,
        // Full after a few writes, and too small for some.
        journal_bytes: 16 << 10,
        ..Options::default()
    }
}

fn value(n: u64) -> Bytes {
    let len = match n % 11 {
        7 => 20_000,
        _ => (n as usize * 997) % 6000,
    };
    Bytes::from(format!("{n}:{}", "v".repeat(len)))
}

/// Acknowledged writes: how many things had happened to the disk by then, and the revision.
type Acks = Vec<(usize, u64)>;

async fn record() -> (Vec<Op>, Acks) {
    let [trees, journal] = File::all(Content::default());
    let ops = trees.ops.clone();
    let s = EmbeddedStore::open_backends(trees, journal, &options()).unwrap();
    let mut acks = vec![(ops.lock().unwrap().len(), 0)];
    for n in 1..=24u64 {
        let revision = match n % 6 {
            5 => s
                .delete(&format!("/k/{}", (n - 1) % 5), Precondition::None)
                .await
                .unwrap(),
            _ => s
                .put(&format!("/k/{}", n % 5), value(n), Precondition::None, None)
                .await
                .unwrap(),
        };
        assert_eq!(revision, n, "each step is one revision");
        acks.push((ops.lock().unwrap().len(), revision));
    }
    s.close();
    let ops = ops.lock().unwrap().clone();
    (ops, acks)
}

/// What must stand in the store at a revision.
fn expected(revision: u64) -> std::collections::BTreeMap<String, Bytes> {
    let mut all = std::collections::BTreeMap::new();
    for n in 1..=revision {
        match n % 6 {
            5 => drop(all.remove(&format!("/k/{}", (n - 1) % 5))),
            _ => drop(all.insert(format!("/k/{}", n % 5), value(n))),
        }
    }
    all
}

async fn check(disk: Content, at: usize, loss: Loss, acks: &Acks) {
    let acknowledged = acks.iter().rev().find(|(ops, _)| *ops <= at).map(|(_, r)| *r);
    let [trees, journal] = File::all(disk);
    let s = match EmbeddedStore::open_backends(trees, journal, &options()) {
        Ok(s) => s,
        // Before the file was made whole for the first time nothing was promised.
        Err(e) => return assert_eq!(acknowledged, None, "power lost at {at} ({loss:?}): {e}"),
    };
    let revision = s.revision().await.unwrap();
    let floor = acknowledged.unwrap_or(0);
    assert!(
        revision == floor || revision == floor + 1,
        "power lost at {at} ({loss:?}): revision {revision}, acknowledged {floor}"
    );
    let all = s.list("", Default::default()).await.unwrap().entries;
    let have: std::collections::BTreeMap<_, _> = all.into_iter().map(|e| (e.key, e.value)).collect();
    assert!(
        have == expected(revision),
        "power lost at {at} ({loss:?}): not the state of revision {revision}"
    );
    // And it goes on.
    assert_eq!(
        s.put("/more", value(1), Precondition::None, None).await.unwrap(),
        revision + 1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_loss_at_each_write() {
    let (ops, acks) = record().await;
    let syncs = |file| ops.iter().filter(|o| matches!(o, Op::Sync(f) if *f == file)).count();
    let (trees, journal) = (syncs(0), syncs(1));
    assert!(
        trees + journal >= 24,
        "each acknowledged write was synced: {trees}, {journal}"
    );
    assert!(
        journal >= 12 && trees >= 4,
        "both ways were gone: {trees} to the trees, {journal} to the journal"
    );
    for at in 0..=ops.len() {
        for loss in [Loss::All, Loss::Nothing, Loss::Some(at as u64 * 2 + 1)] {
            check(after_loss(&ops[..at], loss), at, loss, &acks).await;
        }
    }
}

/// The test itself is tested: a disk that loses what was synced is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_lying_disk_is_noticed() {
    let (ops, acks) = record().await;
    let at = acks[20].0;
    let earlier = after_loss(&ops[..acks[10].0], Loss::All);
    let checked = tokio::spawn(async move { check(earlier, at, Loss::All, &acks).await });
    assert!(checked.await.is_err());
}

/// One entry moves from name to name; whenever power is lost it stands under one of them, whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_is_never_lost_and_never_there_twice() {
    let [trees, journal] = File::all(Content::default());
    let ops = trees.ops.clone();
    let s = EmbeddedStore::open_backends(trees, journal, &options()).unwrap();
    let mut at = s.put("/n/0", value(9), Precondition::None, None).await.unwrap();
    let begun = ops.lock().unwrap().len();
    for n in 1..=8u64 {
        let put = Write {
            key: format!("/n/{n}"),
            value: Some(value(9)),
            precondition: Precondition::DoesNotExist,
        };
        let delete = Write {
            key: format!("/n/{}", n - 1),
            value: None,
            precondition: Precondition::Revision(at),
        };
        at = s.transact(vec![put, delete]).await.unwrap()[0];
    }
    s.close();
    let ops = ops.lock().unwrap().clone();
    for cut in begun..=ops.len() {
        for loss in [Loss::All, Loss::Nothing, Loss::Some(cut as u64 * 2 + 1)] {
            let [trees, journal] = File::all(after_loss(&ops[..cut], loss));
            let s = EmbeddedStore::open_backends(trees, journal, &options()).unwrap();
            let all = s.list("/n/", Default::default()).await.unwrap().entries;
            let values: Vec<_> = all.iter().map(|e| e.value.clone()).collect();
            assert_eq!(values, [value(9)], "power lost at {cut} ({loss:?})");
        }
    }
}
