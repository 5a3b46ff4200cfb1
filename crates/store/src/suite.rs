//! Tests every engine must pass: [`run`] takes a way to make an empty store and holds it to the promises of
//! [`Store`]. A check that fails panics with what was expected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use crate::api::{
    Entry, Error, ListOptions, Precondition, Revision, Store, WatchEvent, WatchEventKind, WatchStream, Write,
};

/// Longer than anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every check, each upon a store of its own.
pub async fn run<F, S>(make: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Store>>,
{
    reads_and_writes(make().await).await;
    preconditions(make().await).await;
    transactions(make().await).await;
    lists(make().await).await;
    watches(make().await).await;
    watch_from_the_past(make().await).await;
    compaction(make().await).await;
    leases(make().await).await;
    lease_expiry(make().await).await;
    limits(make().await).await;
    writers_at_once(make().await).await;
    no_gap_and_no_repeat(make().await).await;
}

async fn put(s: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    s.put(key, Bytes::from(value.to_string()), Precondition::None, None)
        .await
        .expect("a write without precondition")
}

async fn next(w: &mut WatchStream) -> WatchEvent {
    tokio::time::timeout(PATIENCE, w.next())
        .await
        .expect("the watch said nothing for too long")
        .expect("the watch ended")
        .expect("the watch failed")
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|e| e.key.as_str()).collect()
}

/// What is written is read, with its revisions.
pub async fn reads_and_writes(s: Arc<dyn Store>) {
    assert_eq!(s.revision().await.unwrap(), 0, "an empty store");
    assert_eq!(s.get("/a").await.unwrap(), None);
    let first = put(&s, "/a", "1").await;
    let second = put(&s, "/a", "2").await;
    assert!(second > first && first > 0);
    let e = s.get("/a").await.unwrap().expect("the entry");
    assert_eq!((&e.value[..], e.created, e.revision), (&b"2"[..], first, second));
    assert_eq!(s.revision().await.unwrap(), second);
    let gone = s.delete("/a", Precondition::None).await.unwrap();
    assert!(gone > second);
    assert_eq!(s.get("/a").await.unwrap(), None);
    assert_eq!(
        s.delete("/a", Precondition::None).await.unwrap(),
        gone,
        "removing nothing is no write"
    );
    let again = put(&s, "/a", "").await;
    let e = s.get("/a").await.unwrap().expect("the entry");
    assert_eq!((e.created, e.value.len()), (again, 0), "made anew");
}

/// Writes happen only where their precondition holds, and say what stands there otherwise.
pub async fn preconditions(s: Arc<dyn Store>) {
    let conflict = |e: Error| match e {
        Error::Conflict { key, current } if key == "/k" => current,
        other => panic!("expected a conflict, got {other:?}"),
    };
    let v = || Bytes::from_static(b"v");
    let on_missing = s.put("/k", v(), Precondition::Revision(1), None).await.unwrap_err();
    assert_eq!(conflict(on_missing), None);
    assert_eq!(
        conflict(s.delete("/k", Precondition::Revision(1)).await.unwrap_err()),
        None
    );
    let made = s.put("/k", v(), Precondition::DoesNotExist, None).await.unwrap();
    assert_eq!(
        conflict(s.put("/k", v(), Precondition::DoesNotExist, None).await.unwrap_err()),
        Some(made)
    );
    assert_eq!(
        conflict(
            s.put("/k", v(), Precondition::Revision(made + 1), None)
                .await
                .unwrap_err()
        ),
        Some(made)
    );
    assert_eq!(
        conflict(s.delete("/k", Precondition::DoesNotExist).await.unwrap_err()),
        Some(made)
    );
    let changed = s.put("/k", v(), Precondition::Revision(made), None).await.unwrap();
    assert_eq!(
        conflict(s.delete("/k", Precondition::Revision(made)).await.unwrap_err()),
        Some(changed)
    );
    assert_eq!(s.revision().await.unwrap(), changed, "refused writes leave no trace");
    s.delete("/k", Precondition::Revision(changed)).await.unwrap();
}

/// Several writes happen together or not at all, and are told in their order.
pub async fn transactions(s: Arc<dyn Store>) {
    let write = |key: &str, value: Option<&'static str>, precondition| Write {
        key: key.into(),
        value: value.map(|v| Bytes::from_static(v.as_bytes())),
        precondition,
    };
    let made = put(&s, "/t/old", "1").await;
    let other = put(&s, "/t/other", "1").await;
    let moved = |to: &str| {
        vec![
            write(to, Some("2"), Precondition::DoesNotExist),
            write("/t/old", None, Precondition::Revision(made)),
            write("/t/none", None, Precondition::None),
        ]
    };
    match s.transact(moved("/t/other")).await.unwrap_err() {
        Error::Conflict { key, current } => assert_eq!((key.as_str(), current), ("/t/other", Some(other))),
        e => panic!("expected a conflict, got {e:?}"),
    }
    let gone = vec![
        write("/t/new", Some("2"), Precondition::None),
        write("/t/none", None, Precondition::Revision(made)),
    ];
    match s.transact(gone).await.unwrap_err() {
        Error::Conflict { key, current } => assert_eq!((key.as_str(), current), ("/t/none", None)),
        e => panic!("expected a conflict, got {e:?}"),
    }
    let twice = vec![write("/t/new", Some("2"), Precondition::None); 2];
    assert!(matches!(s.transact(twice).await, Err(Error::Invalid(_))));
    assert_eq!(s.revision().await.unwrap(), other, "what is refused leaves no trace");
    assert_eq!(s.transact(Vec::new()).await.unwrap(), Vec::<Revision>::new());

    let mut w = s.watch("/t/", None).await.unwrap();
    let revisions = s.transact(moved("/t/new")).await.unwrap();
    assert_eq!(revisions.len(), 3);
    let listing = s.list("/t/", ListOptions::default()).await.unwrap();
    assert_eq!(keys(&listing.entries), ["/t/new", "/t/other"]);
    assert_eq!(
        (listing.entries[0].revision, listing.entries[0].created),
        (revisions[0], revisions[0])
    );
    let (a, b) = (next(&mut w).await, next(&mut w).await);
    assert_eq!(
        (a.kind, a.entry.key.as_str(), a.entry.revision),
        (WatchEventKind::Put, "/t/new", revisions[0])
    );
    assert_eq!(
        (b.kind, b.entry.key.as_str(), b.entry.revision),
        (WatchEventKind::Delete, "/t/old", revisions[1])
    );
    assert!(w.next().now_or_never().is_none(), "removing nothing is no change");
}

/// Lists are in key order, by prefix, in pages.
pub async fn lists(s: Arc<dyn Store>) {
    for k in ["/b/2", "/a/1", "/b/1", "/b", "/b/10", "/c/1", "/b0"] {
        put(&s, k, k).await;
    }
    let all = s.list("/b/", ListOptions::default()).await.unwrap();
    assert_eq!(keys(&all.entries), ["/b/1", "/b/10", "/b/2"]);
    assert_eq!((all.revision, all.remaining), (7, 0));
    let page = |after: Option<&str>| ListOptions {
        limit: 2,
        after: after.map(String::from),
    };
    let first = s.list("/b/", page(None)).await.unwrap();
    assert_eq!((keys(&first.entries), first.remaining), (vec!["/b/1", "/b/10"], 1));
    let rest = s.list("/b/", page(Some("/b/10"))).await.unwrap();
    assert_eq!((keys(&rest.entries), rest.remaining), (vec!["/b/2"], 0));
    let gone = s.list("/b/", page(Some("/b/11"))).await.unwrap();
    assert_eq!(
        keys(&gone.entries),
        ["/b/2"],
        "the last key of a page may be gone by the next"
    );
    let before = s.list("/b/", page(Some("/a"))).await.unwrap();
    assert_eq!(keys(&before.entries), ["/b/1", "/b/10"]);
    assert_eq!(s.list("/x", ListOptions::default()).await.unwrap().entries, []);
    assert_eq!(s.list("", ListOptions::default()).await.unwrap().entries.len(), 7);
}

/// Watches see changes under their prefix, with what was before.
pub async fn watches(s: Arc<dyn Store>) {
    put(&s, "/w/before", "x").await;
    let mut w = s.watch("/w/", None).await.unwrap();
    let made = put(&s, "/w/a", "1").await;
    put(&s, "/other", "x").await;
    let changed = put(&s, "/w/a", "2").await;
    let gone = s.delete("/w/a", Precondition::None).await.unwrap();
    let e = next(&mut w).await;
    assert_eq!(
        (e.kind, e.entry.revision, e.previous),
        (WatchEventKind::Put, made, None)
    );
    let e = next(&mut w).await;
    assert_eq!(
        (e.entry.created, e.entry.revision, &e.entry.value[..]),
        (made, changed, &b"2"[..])
    );
    let before = e.previous.expect("what was before");
    assert_eq!((before.revision, &before.value[..]), (made, &b"1"[..]));
    let e = next(&mut w).await;
    assert_eq!(
        (e.kind, e.entry.revision, &e.entry.value[..]),
        (WatchEventKind::Delete, gone, &b"2"[..])
    );
    assert!(w.next().now_or_never().is_none(), "nothing else happened");
}

/// A watch from the past sees all that came after.
pub async fn watch_from_the_past(s: Arc<dyn Store>) {
    let first = put(&s, "/p/a", "1").await;
    put(&s, "/p/b", "1").await;
    s.delete("/p/a", Precondition::None).await.unwrap();
    let mut w = s.watch("/p/", Some(first)).await.unwrap();
    assert_eq!(next(&mut w).await.entry.key, "/p/b");
    let e = next(&mut w).await;
    assert_eq!((e.kind, e.entry.key.as_str()), (WatchEventKind::Delete, "/p/a"));
    put(&s, "/p/c", "1").await;
    assert_eq!(next(&mut w).await.entry.key, "/p/c");
    let mut all = s.watch("", Some(0)).await.unwrap();
    assert_eq!(next(&mut all).await.entry.revision, first);
}

/// After a compaction older watches are refused; newer ones and the entries stay.
pub async fn compaction(s: Arc<dyn Store>) {
    let one = put(&s, "/a", "1").await;
    let two = put(&s, "/a", "2").await;
    let three = put(&s, "/a", "3").await;
    s.compact(two).await.unwrap();
    match s.watch("", Some(one)).await.err() {
        Some(Error::TooOld { asked, oldest }) => assert_eq!((asked, oldest), (one, two)),
        other => panic!("expected TooOld, got {other:?}"),
    }
    let mut w = s.watch("", Some(two)).await.unwrap();
    assert_eq!(next(&mut w).await.entry.revision, three);
    assert_eq!(&s.get("/a").await.unwrap().expect("the entry").value[..], b"3");
    s.compact(one).await.unwrap();
    assert!(
        s.watch("", Some(one)).await.is_err(),
        "an older compaction changes nothing"
    );
    s.compact(three + 1000).await.unwrap();
    assert!(
        s.watch("", Some(three)).await.is_ok(),
        "there is no compacting beyond the present"
    );
    let four = put(&s, "/a", "4").await;
    assert_eq!(
        next(&mut w).await.entry.revision,
        four,
        "a running watch that saw all goes on"
    );
}

/// Entries go with their lease, and leave it by being written without.
pub async fn leases(s: Arc<dyn Store>) {
    let lease = s.lease_grant(Duration::from_secs(3600)).await.unwrap();
    let other = s.lease_grant(Duration::from_secs(3600)).await.unwrap();
    assert_ne!(lease, other);
    let with = |k: &'static str, l| s.put(k, Bytes::from_static(b"x"), Precondition::None, Some(l));
    for k in ["/l/a", "/l/b", "/l/left", "/l/moved"] {
        with(k, lease).await.unwrap();
    }
    with("/l/moved", other).await.unwrap();
    put(&s, "/l/left", "stays").await;
    let before = s.revision().await.unwrap();
    let mut w = s.watch("/l/", None).await.unwrap();
    s.lease_renew(lease).await.unwrap();
    s.lease_revoke(lease).await.unwrap();
    let left = s.list("/l/", ListOptions::default()).await.unwrap();
    assert_eq!(keys(&left.entries), ["/l/left", "/l/moved"]);
    let (a, b) = (next(&mut w).await, next(&mut w).await);
    assert_eq!((a.kind, a.entry.key.as_str()), (WatchEventKind::Delete, "/l/a"));
    assert_eq!(b.entry.key, "/l/b");
    assert!(
        before < a.entry.revision && a.entry.revision < b.entry.revision,
        "each removal has its revision"
    );
    for e in [
        s.lease_renew(lease).await.unwrap_err(),
        s.lease_revoke(lease).await.unwrap_err(),
        with("/l/c", lease).await.unwrap_err(),
    ] {
        assert!(matches!(e, Error::NoLease(l) if l == lease), "{e:?}");
    }
}

/// A lease that is not renewed ends by itself.
pub async fn lease_expiry(s: Arc<dyn Store>) {
    let long = s.lease_grant(Duration::from_secs(3600)).await.unwrap();
    let short = s.lease_grant(Duration::from_millis(50)).await.unwrap();
    let v = || Bytes::from_static(b"x");
    let mut w = s.watch("/e/", None).await.unwrap();
    s.put("/e/long", v(), Precondition::None, Some(long)).await.unwrap();
    match s.put("/e/short", v(), Precondition::None, Some(short)).await {
        Ok(_) => {
            for kind in [WatchEventKind::Put, WatchEventKind::Put, WatchEventKind::Delete] {
                assert_eq!(next(&mut w).await.kind, kind);
            }
        }
        // On a slow machine it is over before the write.
        Err(e) => assert!(matches!(e, Error::NoLease(_)), "{e:?}"),
    }
    assert_eq!(s.get("/e/short").await.unwrap(), None);
    assert!(s.get("/e/long").await.unwrap().is_some());
}

/// Sizes are bounded.
pub async fn limits(s: Arc<dyn Store>) {
    let v = || Bytes::from_static(b"x");
    for bad in [String::new(), "k".repeat(5000)] {
        let e = s.put(&bad, v(), Precondition::None, None).await.unwrap_err();
        assert!(matches!(e, Error::Invalid(_)), "{e:?}");
    }
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    let e = s.put("/large", large, Precondition::None, None).await.unwrap_err();
    assert!(matches!(e, Error::Invalid(_)), "{e:?}");
    assert_eq!(s.revision().await.unwrap(), 0);
    let fits = Bytes::from(vec![b'x'; 3 << 20]);
    s.put("/fits", fits, Precondition::None, None).await.unwrap();
}

/// Many writers on one key: every compare-and-swap that succeeds counts exactly once.
pub async fn writers_at_once(s: Arc<dyn Store>) {
    put(&s, "/n", "0").await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let s = s.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    add_one(&s).await;
                }
            })
        })
        .collect();
    for t in tasks {
        t.await.expect("a writer");
    }
    assert_eq!(&s.get("/n").await.unwrap().expect("the entry").value[..], b"80");
    assert_eq!(s.revision().await.unwrap(), 81);
}

async fn add_one(s: &Arc<dyn Store>) {
    loop {
        let e = s.get("/n").await.unwrap().expect("the entry");
        let n: u32 = std::str::from_utf8(&e.value).unwrap().parse().unwrap();
        let value = Bytes::from((n + 1).to_string());
        match s.put("/n", value, Precondition::Revision(e.revision), None).await {
            Ok(_) => return,
            Err(Error::Conflict { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// List, then watch from there, while others write: list and changes together are exactly the end state.
pub async fn no_gap_and_no_repeat(s: Arc<dyn Store>) {
    const WRITES: usize = 300;
    let writer = {
        let s = s.clone();
        tokio::spawn(async move {
            for i in 0..WRITES {
                let key = format!("/g/{}", i * 7 % 13);
                match i % 5 {
                    4 => drop(s.delete(&key, Precondition::None).await.unwrap()),
                    _ => drop(put(&s, &key, &i.to_string()).await),
                }
            }
            put(&s, "/g/end", "").await
        })
    };
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let s = s.clone();
            tokio::spawn(async move { replica(&s).await })
        })
        .collect();
    writer.await.expect("the writer");
    let end = s.list("/g/", ListOptions::default()).await.unwrap();
    let end: BTreeMap<String, Entry> = end.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
    for r in readers {
        assert_eq!(r.await.expect("a reader"), end);
    }
}

/// A copy of the store kept by list and watch, when `/g/end` appears.
async fn replica(s: &Arc<dyn Store>) -> BTreeMap<String, Entry> {
    let list = s.list("/g/", ListOptions::default()).await.unwrap();
    let mut copy: BTreeMap<String, Entry> = list.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
    let mut last = list.revision;
    let mut w = s.watch("/g/", Some(last)).await.unwrap();
    while !copy.contains_key("/g/end") {
        let e = next(&mut w).await;
        assert!(e.entry.revision > last, "revision {} after {last}", e.entry.revision);
        last = e.entry.revision;
        let previous = match e.kind {
            WatchEventKind::Put => copy.insert(e.entry.key.clone(), e.entry),
            WatchEventKind::Delete => copy.remove(&e.entry.key),
        };
        assert_eq!(e.previous, previous, "what was before is what was seen before");
    }
    copy
}
