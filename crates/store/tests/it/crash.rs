//! kill -9: what was acknowledged is there, what was not is there whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use biga_store::{EmbeddedStore, ListOptions, Precondition, Store};
use bytes::Bytes;

const VARIABLE: &str = "BIGA_STORE_CRASH_FILE";
const WRITERS: u64 = 4;

/// The value of a writer's `n`th write: long enough to lie on several pages, and checkable.
fn value(writer: u64, n: u64) -> Bytes {
    let len = 100 + (n * 7919 + writer * 104_729) % 9000;
    Bytes::from(format!("{writer}:{n}:{}", "x".repeat(len as usize)))
}

/// The child: writes for ever and says what was acknowledged. Does nothing when run as a test by itself.
#[tokio::test(flavor = "multi_thread")]
async fn child_writer() {
    let Some(path) = std::env::var_os(VARIABLE) else { return };
    let s = EmbeddedStore::open(path).unwrap();
    let start = s.revision().await.unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|w| {
            let s = s.clone();
            tokio::spawn(async move {
                for n in start.. {
                    // One key that is rewritten, and one that is made and removed.
                    let r = s
                        .put(&format!("/w/{w}"), value(w, n), Precondition::None, None)
                        .await
                        .unwrap();
                    println!("ack {w} {n} {r}");
                    let key = format!("/t/{w}/{n}");
                    s.put(&key, value(w, n), Precondition::DoesNotExist, None)
                        .await
                        .unwrap();
                    let gone = s.delete(&key, Precondition::None).await.unwrap();
                    println!("gone {w} {n} {gone}");
                }
            })
        })
        .collect();
    for t in tasks {
        t.await.unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// The last write of each writer, and its revision.
    last: BTreeMap<u64, (u64, u64)>,
    /// The last removal of each writer.
    gone: BTreeMap<u64, u64>,
    /// The highest revision of all.
    highest: u64,
}

/// Runs the child until it acknowledged `acks` writes, and kills it.
fn run_and_kill(path: &Path, acks: usize) -> Acknowledged {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_writer", "--nocapture"])
        .env(VARIABLE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let (mut a, mut seen) = (Acknowledged::default(), 0);
    for line in lines {
        let line = line.unwrap();
        // The test harness prints before the first line ends.
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|w| *w == "ack" || *w == "gone") else {
            continue;
        };
        // The last line may be cut by the kill.
        let numbers: Vec<u64> = words[at + 1..].iter().filter_map(|w| w.parse().ok()).collect();
        let [w, n, r] = numbers[..] else { continue };
        match words[at] {
            "ack" => drop(a.last.insert(w, (n, r))),
            _ => drop(a.gone.insert(w, n)),
        }
        a.highest = a.highest.max(r);
        seen += 1;
        if seen == acks {
            child.0.kill().unwrap();
        }
    }
    assert!(seen >= acks, "the child ended early, after {seen} of {acks}");
    a
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut floor = 0;
    for acks in [1, 2, 3, 5, 8, 13, 40, 7, 120, 1, 60] {
        let Acknowledged { last, gone, highest } = run_and_kill(&path, acks);
        runtime.block_on(async {
            let s = EmbeddedStore::open(&path).unwrap();
            let revision = s.revision().await.unwrap();
            assert!(
                revision >= highest && revision >= floor,
                "{revision} is behind {highest}"
            );
            floor = revision;
            for (w, (n, r)) in last {
                let e = s.get(&format!("/w/{w}")).await.unwrap().expect("an acknowledged write");
                assert!(e.revision >= r);
                let text = std::str::from_utf8(&e.value).unwrap();
                let have: u64 = text.split(':').nth(1).unwrap().parse().unwrap();
                assert!(have >= n, "writer {w}: {have} is behind {n}");
                assert_eq!(e.value, value(w, have), "whole");
            }
            for e in s.list("/t/", ListOptions::default()).await.unwrap().entries {
                let mut parts = e.key.split('/').skip(2).map(|p| p.parse::<u64>().unwrap());
                let (w, n) = (parts.next().unwrap(), parts.next().unwrap());
                assert_eq!(e.value, value(w, n), "whole");
                assert!(
                    gone.get(&w).is_none_or(|g| n != *g),
                    "a removal that was acknowledged came undone"
                );
            }
            s.close();
        });
    }
}
