//! Power loss at each write: the disk keeps what was synced, and any part of what was written since.

use std::io;
use std::sync::{Arc, Mutex};

use biga_store::embedded::Options;
use biga_store::{EmbeddedStore, Precondition, Store, Write};
use bytes::Bytes;
use redb::StorageBackend;

/// What happened to the disk, in order.
#[derive(Debug, Clone)]
enum Op {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A disk in memory that remembers everything that happened to it.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl Disk {
    fn with(bytes: Vec<u8>) -> Disk {
        Disk {
            bytes: Arc::new(Mutex::new(bytes)),
            ops: Arc::default(),
        }
    }

    fn apply(&self, op: Op) {
        apply(&mut self.bytes.lock().unwrap(), &op);
        self.ops.lock().unwrap().push(op);
    }
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(at, data) => {
            let end = *at as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at as usize..end].copy_from_slice(data);
        }
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Sync => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let from = offset as usize;
        let piece = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(piece);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.apply(Op::SetLen(len));
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.apply(Op::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.apply(Op::Write(offset, data.to_vec()));
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
fn after_loss(ops: &[Op], loss: Loss) -> Vec<u8> {
    let synced = ops.iter().rposition(|o| matches!(o, Op::Sync)).map_or(0, |i| i + 1);
    let mut bytes = Vec::new();
    ops[..synced].iter().for_each(|op| apply(&mut bytes, op));
    let mut dice = match loss {
        Loss::All => return bytes,
        Loss::Nothing => {
            ops[synced..].iter().for_each(|op| apply(&mut bytes, op));
            return bytes;
        }
        Loss::Some(seed) => Dice(seed),
    };
    for op in &ops[synced..] {
        match op {
            // A file system keeps the order of size changes, and data beyond the end is nowhere.
            Op::SetLen(_) => apply(&mut bytes, op),
            Op::Write(at, data) => match dice.roll(3) {
                0 => {}
                1 => apply(&mut bytes, op),
                _ => {
                    // Torn between two sectors.
                    let sectors = data.len().div_ceil(512);
                    let kept = (dice.roll(sectors + 1) * 512).min(data.len());
                    apply(&mut bytes, &Op::Write(*at, data[..kept].to_vec()));
                }
            },
            Op::Sync => {}
        }
    }
    bytes
}

fn options() -> Options {
    Options {
        history_events: 8,
        ..Options::default()
    }
}

fn value(n: u64) -> Bytes {
    Bytes::from(format!("{n}:{}", "v".repeat((n as usize * 997) % 6000)))
}

/// Acknowledged writes: how many things had happened to the disk by then, and the revision.
type Acks = Vec<(usize, u64)>;

async fn record() -> (Vec<Op>, Acks) {
    let disk = Disk::default();
    let ops = disk.ops.clone();
    let s = EmbeddedStore::open_backend(disk, &options()).unwrap();
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

async fn check(bytes: Vec<u8>, at: usize, loss: Loss, acks: &Acks) {
    let acknowledged = acks.iter().rev().find(|(ops, _)| *ops <= at).map(|(_, r)| *r);
    let s = match EmbeddedStore::open_backend(Disk::with(bytes), &options()) {
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
    let syncs = ops.iter().filter(|o| matches!(o, Op::Sync)).count();
    assert!(syncs >= 24, "each acknowledged write was synced: {syncs}");
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
    let disk = Disk::default();
    let ops = disk.ops.clone();
    let s = EmbeddedStore::open_backend(disk, &options()).unwrap();
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
            let s = EmbeddedStore::open_backend(Disk::with(after_loss(&ops[..cut], loss)), &options()).unwrap();
            let all = s.list("/n/", Default::default()).await.unwrap().entries;
            let values: Vec<_> = all.iter().map(|e| e.value.clone()).collect();
            assert_eq!(values, [value(9)], "power lost at {cut} ({loss:?})");
        }
    }
}
