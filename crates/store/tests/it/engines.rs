//! The shared suite, and what only one engine has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use biga_store::embedded::Options;
use biga_store::{EmbeddedStore, Error, LeaseId, ListOptions, MemoryStore, Precondition, Store, WatchEventKind, suite};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use redb::ReadableTable;

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_engine_keeps_the_promises() {
    suite::run(|| async { MemoryStore::new().unwrap() as Arc<dyn Store> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    suite::run(|| async {
        let n = count.fetch_add(1, Ordering::Relaxed);
        EmbeddedStore::open(dir.path().join(format!("{n}.db"))).unwrap() as Arc<dyn Store>
    })
    .await;
}

fn value(n: u64) -> Bytes {
    Bytes::from(n.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let s = EmbeddedStore::open(&path).unwrap();
    for n in 0..50 {
        s.put(&format!("/k/{}", n % 7), value(n), Precondition::None, None)
            .await
            .unwrap();
    }
    s.delete("/k/3", Precondition::None).await.unwrap();
    s.compact(20).await.unwrap();
    let lease = s.lease_grant(Duration::from_secs(3600)).await.unwrap();
    s.put("/leased", value(1), Precondition::None, Some(lease))
        .await
        .unwrap();
    let before = s.list("", ListOptions::default()).await.unwrap();
    let events = |s: Arc<EmbeddedStore>| async move {
        let w = s.watch("", Some(20)).await.unwrap();
        w.take(32).map(|e| e.unwrap()).collect::<Vec<_>>().await
    };
    let seen = events(s.clone()).await;
    assert!(
        matches!(EmbeddedStore::open(&path), Err(Error::Io { .. })),
        "one process at a time"
    );
    s.close();
    assert!(matches!(s.get("/k/1").await, Err(Error::Closed)));
    assert!(matches!(
        s.put("/k/1", value(1), Precondition::None, None).await,
        Err(Error::Closed)
    ));

    let s = EmbeddedStore::open(&path).unwrap();
    let after = s.list("", ListOptions::default()).await.unwrap();
    assert_eq!((before.entries, before.revision), (after.entries, after.revision));
    let again = events(s.clone()).await;
    assert_eq!(seen.len(), again.len());
    for (a, b) in seen.iter().zip(&again) {
        assert_eq!((a.kind, &a.entry), (b.kind, &b.entry));
        // What was before may be forgotten over a restart, but never be another.
        assert!(b.previous.is_none() || a.previous == b.previous);
    }
    assert!(matches!(
        s.watch("", Some(19)).await,
        Err(Error::TooOld { asked: 19, oldest: 20 })
    ));
    s.lease_renew(lease).await.unwrap();
    assert_ne!(s.lease_grant(Duration::from_secs(1)).await.unwrap(), lease);
    s.lease_revoke(lease).await.unwrap();
    assert_eq!(s.get("/leased").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let s = EmbeddedStore::open(&path).unwrap();
    let lease: LeaseId = s.lease_grant(Duration::from_millis(300)).await.unwrap();
    match s.put("/leased", value(1), Precondition::None, Some(lease)).await {
        Ok(_) => {}
        // On a slow machine it is over before the write: nothing is left to test.
        Err(e) => return assert!(matches!(e, Error::NoLease(_)), "{e}"),
    }
    let now = s.revision().await.unwrap();
    s.close();
    drop(s);
    let s = EmbeddedStore::open(&path).unwrap();
    let mut w = s.watch("/leased", Some(now)).await.unwrap();
    if s.get("/leased").await.unwrap().is_some() {
        let e = tokio::time::timeout(Duration::from_secs(60), w.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(e.kind, WatchEventKind::Delete);
    }
    assert!(matches!(s.lease_renew(lease).await, Err(Error::NoLease(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_bounded_and_slow_watches_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let options = Options {
        history_events: 10,
        history_bytes: 1 << 20,
        ..Options::default()
    };
    let s = EmbeddedStore::open_with(&path, &options).unwrap();
    let mut slow = s.watch("", Some(0)).await.unwrap();
    let mut mine = s.watch("/none", Some(0)).await.unwrap();
    assert!(mine.next().now_or_never().is_none());
    for n in 0..25 {
        s.put("/k", value(n), Precondition::None, None).await.unwrap();
        assert!(
            mine.next().now_or_never().is_none(),
            "a watch that keeps up with others' changes does not lag"
        );
    }
    assert!(matches!(slow.next().await, Some(Err(Error::Lagged))));
    assert!(slow.next().await.is_none());
    assert!(matches!(
        s.watch("", Some(14)).await,
        Err(Error::TooOld { oldest: 15, .. })
    ));
    assert!(s.watch("", Some(15)).await.is_ok());
    s.put("/big", vec![0; 2 << 20].into(), Precondition::None, None)
        .await
        .unwrap();
    assert!(matches!(
        s.watch("", Some(25)).await,
        Err(Error::TooOld { oldest: 26, .. })
    ));
    s.close();
    drop(s);
    let s = EmbeddedStore::open_with(&path, &options).unwrap();
    assert!(s.watch("", Some(26)).await.is_ok());
    assert_eq!(s.revision().await.unwrap(), 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_with_the_store() {
    let s = MemoryStore::new().unwrap();
    s.put("/k", value(1), Precondition::None, None).await.unwrap();
    let mut w = s.watch("", Some(0)).await.unwrap();
    s.close();
    assert!(w.next().await.unwrap().is_ok(), "what was there is still delivered");
    assert!(matches!(w.next().await, Some(Err(Error::Closed))));
    assert!(w.next().await.is_none());
    let s = MemoryStore::new().unwrap();
    let mut w = s.watch("", None).await.unwrap();
    drop(s);
    assert!(matches!(w.next().await, Some(Err(Error::Closed))));
}

#[test]
fn a_foreign_file_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    std::fs::write(&path, "this is no store, but somebody's notes").unwrap();
    let e = EmbeddedStore::open(&path).err().unwrap();
    assert!(e.to_string().contains("other.db"), "{e}");
    assert!(!dir.path().join("other.db.journal").exists());
    let e = EmbeddedStore::open(dir.path().join("no/such/dir.db")).err().unwrap();
    assert!(e.to_string().contains("no/such/dir.db"), "{e}");
}

/// What an engine without a journal wrote is read, and marked so that such an engine does not write there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_first_format_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let s = EmbeddedStore::open(&path).unwrap();
    s.put("/k", value(7), Precondition::None, None).await.unwrap();
    s.close();
    drop(s);
    const META: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
    let format = |set: Option<u64>| {
        let db = redb::Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        let mut meta = tx.open_table(META).unwrap();
        if let Some(n) = set {
            meta.insert("format", n).unwrap();
            meta.remove("round").unwrap();
        }
        let now = meta.get("format").unwrap().unwrap().value();
        drop(meta);
        tx.commit().unwrap();
        now
    };
    format(Some(1));
    std::fs::remove_file(dir.path().join("store.db.journal")).unwrap();
    let s = EmbeddedStore::open(&path).unwrap();
    assert_eq!(s.get("/k").await.unwrap().unwrap().value, value(7));
    assert_eq!(s.put("/k", value(8), Precondition::None, None).await.unwrap(), 2);
    s.close();
    drop(s);
    assert_eq!(format(None), 2);
    format(Some(99));
    let e = EmbeddedStore::open(&path).err().unwrap();
    assert!(e.to_string().contains("format is 99"), "{e}");
}

/// Wakes only those whom a write concerns, and those who are not woken do not fall behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_others_wakes_nobody() {
    use futures_util::task::{ArcWake, waker};
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl ArcWake for Count {
        fn wake_by_ref(me: &Arc<Self>) {
            me.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let s = MemoryStore::with_history(10).unwrap();
    let count = Arc::new(Count::default());
    let waker = waker(count.clone());
    let mut cx = std::task::Context::from_waker(&waker);
    let mut mine = s.watch("/mine/", None).await.unwrap();
    assert!(mine.poll_next_unpin(&mut cx).is_pending());
    for n in 0..100 {
        s.put("/others/k", value(n), Precondition::None, None).await.unwrap();
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    let revision = s.put("/mine/k", value(1), Precondition::None, None).await.unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    let event = mine.next().await.unwrap().unwrap();
    assert_eq!((event.entry.key.as_str(), event.entry.revision), ("/mine/k", revision));
}
