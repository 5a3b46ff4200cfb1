//! Broken connections, lies, crashes, and two doing the same at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use biga_image::{Auth, Error, Platform, PullOptions};

use crate::fake::{Content, Fake, INDEX, MANIFEST, Reply};
use crate::support::*;

fn content() -> Content {
    Content::of(&TarBuilder::new().file("data", &noise(1 << 20, 1)).end(), "amd64")
}

fn amd64() -> PullOptions {
    PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..PullOptions::default()
    }
}

async fn pull(fake: &Fake, store: &Store) -> Result<biga_image::ImageRecord, Error> {
    store.store.pull(&fake.reference("app"), &amd64(), |_| {}).await
}

fn nothing_left(s: &Store) {
    assert!(s.files("tmp").is_empty());
    assert!(s.files("layers").is_empty());
    assert!(s.files("images").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_blob_is_taken_up_where_it_broke() {
    let c = content();
    let (path, len) = (c.layer_path(), c.layer.len());
    let fake = Fake::start(move |a| {
        let reply = c.reply(a);
        let cut = (a.path == path && reply.body.len() > len / 3).then_some(len / 4);
        Reply { cut, ..reply }
    });
    let s = Store::new();
    pull(&fake, &s).await.unwrap();
    let ranges: Vec<usize> = fake
        .log
        .lock()
        .iter()
        .filter_map(|a| {
            a.headers
                .get("range")?
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .collect();
    assert!(ranges.len() >= 2 && ranges.is_sorted() && ranges[0] > 0, "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_read_again() {
    let c = content();
    let path = c.layer_path();
    let tries = AtomicUsize::new(0);
    let fake = Fake::start(move |a| {
        let mut plain = a.clone();
        plain.headers.remove("range");
        let reply = c.reply(&plain);
        let first = a.path == path && tries.fetch_add(1, Ordering::Relaxed) == 0;
        Reply {
            cut: first.then_some(100_000),
            ..reply
        }
    });
    pull(&fake, &Store::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_broken_fails_and_leaves_nothing() {
    let c = content();
    let path = c.layer_path();
    let fake = Fake::start(move |a| Reply {
        cut: (a.path == path).then_some(0),
        ..c.reply(a)
    });
    let s = Store::new();
    let e = pull(&fake, &s).await.unwrap_err();
    assert!(matches!(e, Error::Unreachable { .. }) && e.retryable(), "{e}");
    nothing_left(&s);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_errors_are_tried_again() {
    let c = content();
    let tries = AtomicUsize::new(0);
    let fake = Fake::start(move |a| match tries.fetch_add(1, Ordering::Relaxed) % 3 {
        0 if a.path != "/v2/" => Reply {
            status: 503,
            headers: vec![("Retry-After".into(), "0".into())],
            ..Reply::default()
        },
        _ => c.reply(a),
    });
    pull(&fake, &Store::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_noticed() {
    let good = content();
    for (what, part) in [
        ("layer", good.layer_path()),
        ("manifest", format!("/v2/app/manifests/{}", sha(&good.manifest))),
    ] {
        let c = good.clone();
        let fake = Fake::start(move |a| {
            let mut reply = c.reply(a);
            if a.path == part {
                let last = reply.body.len() - 9;
                reply.body[last] ^= 1;
            }
            reply
        });
        let s = Store::new();
        let name = fake.reference(&format!("app@{}", sha(&good.manifest)));
        let e = s.store.pull(&name, &amd64(), |_| {}).await.unwrap_err();
        assert!(matches!(e, Error::Mismatch { .. } | Error::Layer { .. }), "{what}: {e}");
        nothing_left(&s);
    }
    // A blob longer than its descriptor says, and one whose tar is not the one the config names.
    let c = good.clone();
    let path = c.layer_path();
    let fake = Fake::start(move |a| {
        let mut reply = c.reply(a);
        if a.path == path {
            reply.body.extend([0; 100]);
        }
        reply
    });
    let e = pull(&fake, &Store::new()).await.unwrap_err();
    assert!(matches!(e, Error::Mismatch { .. } | Error::Layer { .. }), "{e}");
    let other = TarBuilder::new().file("evil", b"x").end();
    let c = Content::with_blob(&TarBuilder::new().file("good", b"x").end(), gzip(&other), "amd64");
    let s = Store::new();
    let e = pull(&Fake::start(move |a| c.reply(a)), &s).await.unwrap_err();
    assert!(e.to_string().contains("diff id"), "{e}");
    nothing_left(&s);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_from_an_index() {
    let (arm, amd) = (
        Content::of(&TarBuilder::new().file("arm", b"").end(), "arm64"),
        Content::of(&TarBuilder::new().file("amd", b"").end(), "amd64"),
    );
    let mut all = Content::default();
    all.files.extend(arm.files.clone());
    all.files.extend(amd.files.clone());
    let entry = |c: &Content, arch: &str| {
        format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
            sha(&c.manifest),
            c.manifest.len()
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{},{}]}}"#,
        entry(&arm, "arm64"),
        entry(&amd, "amd64")
    );
    all.manifest("latest", index.clone().into_bytes());
    let fake = Fake::start(move |a| all.reply(a));
    let s = Store::new();
    for (platform, c) in [("linux/arm64", &arm), ("linux/amd64", &amd)] {
        let options = PullOptions {
            platform: Some(platform.parse().unwrap()),
            ..PullOptions::default()
        };
        let got = s.store.pull(&fake.reference("app"), &options, |_| {}).await.unwrap();
        assert_eq!(got.manifest_digest, sha(&c.manifest));
        assert_eq!(got.index_digest, sha(index.as_bytes()));
        assert_eq!(got.platform, platform);
    }
    let options = PullOptions {
        platform: Some("linux/s390x".parse::<Platform>().unwrap()),
        ..PullOptions::default()
    };
    let e = s
        .store
        .pull(&fake.reference("app"), &options, |_| {})
        .await
        .unwrap_err();
    assert!(e.to_string().contains("linux/arm64, linux/amd64"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_got_and_stay_with_their_host() {
    let c = content();
    let cdn_content = c.clone();
    let cdn = Fake::start(move |a| cdn_content.reply(a));
    let (path, target) = (c.layer_path(), format!("http://{}{}?sig=1", cdn.host, c.layer_path()));
    let me: Arc<parking_lot::Mutex<String>> = Arc::default();
    let my_name = me.clone();
    let fake = Fake::start(move |a| {
        if a.path.starts_with("/token") {
            let ok = a.headers.get("authorization").is_some_and(|v| v == "Basic bWU6cHc=")
                && a.path.contains("scope=repository%3Aapp%3Apull")
                && a.path.contains("service=reg");
            let status = if ok { 200 } else { 401 };
            return Reply {
                status,
                body: br#"{"token":"T"}"#.to_vec(),
                ..Reply::default()
            };
        }
        if a.headers.get("authorization").is_none_or(|v| v != "Bearer T") {
            let demand = format!(
                r#"Bearer realm="http://{}/token",service="reg",scope="repository:app:pull""#,
                my_name.lock()
            );
            return Reply {
                status: 401,
                headers: vec![("WWW-Authenticate".into(), demand)],
                ..Reply::default()
            };
        }
        if a.path == path {
            return Reply {
                status: 307,
                headers: vec![("Location".into(), target.clone())],
                ..Reply::default()
            };
        }
        c.reply(a)
    });
    me.lock().clone_from(&fake.host);
    let auth = Auth::Basic {
        username: "me".into(),
        password: "pw".into(),
    };
    let s = Store::new();
    s.store
        .pull(&fake.reference("app"), &PullOptions { auth, ..amd64() }, |_| {})
        .await
        .unwrap();
    assert_eq!(fake.count("/token"), 1);
    let asked = cdn.log.lock().clone();
    assert!(asked.iter().any(|a| a.path.contains("blobs")));
    assert!(asked.iter().all(|a| !a.headers.contains_key("authorization")));
    let e = s
        .store
        .pull(&fake.reference("app"), &amd64(), |_| {})
        .await
        .unwrap_err();
    assert!(matches!(e, Error::Denied { .. }), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_may_fail() {
    let c = content();
    let (one, two) = (c.clone(), c.clone());
    let path = c.layer_path();
    // This mirror has the manifest and no layer.
    let mirror = Fake::start(move |a| {
        if a.path == path {
            Reply {
                status: 404,
                ..Reply::default()
            }
        } else {
            one.reply(a)
        }
    });
    let origin = Fake::start(move |a| two.reply(a));
    let s = Store::with(|o| {
        let mirrors = vec!["http://127.0.0.1:1".to_owned(), format!("http://{}", mirror.host)];
        o.mirrors.insert(origin.host.clone(), mirrors);
        o.attempts = 2;
    });
    pull(&origin, &s).await.unwrap();
    assert_eq!((origin.count("/manifests/"), origin.count("/blobs/")), (0, 1));
    assert_eq!(mirror.count("/manifests/"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_is_passed_over() {
    let c = content();
    for change in [|b: &mut Vec<u8>| b[5000] ^= 1, |b: &mut Vec<u8>| b.extend([0; 10])] {
        let (bad, good) = (c.clone(), c.clone());
        let path = c.layer_path();
        let mirror = Fake::start(move |a| {
            let mut reply = bad.reply(a);
            if a.path == path {
                change(&mut reply.body);
            }
            reply
        });
        let origin = Fake::start(move |a| good.reply(a));
        let s = Store::with(|o| {
            o.mirrors
                .insert(origin.host.clone(), vec![format!("http://{}", mirror.host)]);
        });
        pull(&origin, &s).await.unwrap();
        assert_eq!((mirror.count("/blobs/"), origin.count("/blobs/")), (2, 1));
        assert!(s.files("tmp").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_fetched_at_once() {
    let tars: Vec<Vec<u8>> = (0..3)
        .map(|i| TarBuilder::new().file("x", &noise(5000, i)).end())
        .collect();
    let c = Content::of_layers(&tars, "amd64");
    // Each blob of a layer waits until all three have been asked for.
    let together = Arc::new(std::sync::Barrier::new(3));
    let fake = Fake::start(move |a| {
        let reply = c.reply(a);
        if a.path.contains("/blobs/") && reply.body.len() > 3000 {
            together.wait();
        }
        reply
    });
    let record = tokio::time::timeout(PATIENCE, pull(&fake, &Store::new())).await;
    assert_eq!(record.expect("one after the other").unwrap().layers.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_without_compression() {
    let tar = TarBuilder::new().file("data", &noise(50_000, 1)).end();
    let c = Content::with_blob(&tar, tar.clone(), "amd64");
    let record = pull(&Fake::start(move |a| c.reply(a)), &Store::new()).await.unwrap();
    assert_eq!(record.layers[0].digest, record.layers[0].diff_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_on_the_way_is_got_anew() {
    let c = content();
    let me: Arc<parking_lot::Mutex<String>> = Arc::default();
    let my_name = me.clone();
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Every token is good for one request.
    let fake = Fake::start(move |a| {
        if a.path.starts_with("/token") {
            let body = format!(r#"{{"token":"T{}"}}"#, given.fetch_add(1, Ordering::SeqCst));
            return Reply {
                status: 200,
                body: body.into_bytes(),
                ..Reply::default()
            };
        }
        let token = a
            .headers
            .get("authorization")
            .and_then(|v| v.strip_prefix("Bearer T")?.parse().ok());
        if a.path != "/v2/" && token.is_none_or(|t: usize| t < used.fetch_max(t + 1, Ordering::SeqCst)) {
            let demand = format!(r#"Bearer realm="http://{}/token",service="reg""#, my_name.lock());
            return Reply {
                status: 401,
                headers: vec![("WWW-Authenticate".into(), demand)],
                ..Reply::default()
            };
        }
        c.reply(a)
    });
    me.lock().clone_from(&fake.host);
    pull(&fake, &Store::new()).await.unwrap();
    assert!(fake.count("/token") >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_end_after_as_many_as_allowed() {
    for attempts in [1, 3] {
        let fake = Fake::start(|_| Reply {
            status: 503,
            ..Reply::default()
        });
        let s = Store::with(|o| o.attempts = attempts);
        let e = pull(&fake, &s).await.unwrap_err();
        assert!(matches!(e, Error::Registry { status: 503, .. }) && e.retryable(), "{e}");
        assert_eq!(fake.count("/manifests/"), attempts as usize);
    }
    // What will not pass is not tried again.
    let fake = Fake::start(|_| Reply {
        status: 403,
        ..Reply::default()
    });
    assert!(matches!(pull(&fake, &Store::new()).await, Err(Error::Denied { .. })));
    assert_eq!(fake.count("/manifests/"), 1);
}

#[tokio::test]
async fn plain_http_is_for_this_host() {
    let s = Store::new();
    for (host, insecure, allowed) in [
        ("192.0.2.1:9", false, false),
        ("127.0.0.1:1", false, true),
        ("127.0.0.1:1", true, true),
    ] {
        let name = format!("{host}/app").parse().unwrap();
        let options = PullOptions { insecure, ..amd64() };
        let pulling = s.store.pull(&name, &options, |_| {});
        let Ok(result) = tokio::time::timeout(std::time::Duration::from_secs(3), pulling).await else {
            assert!(!allowed);
            continue;
        };
        let text = result.unwrap_err().to_string();
        assert_eq!(text.contains("http://"), allowed, "{text}");
    }
    // A redirect to plain HTTP elsewhere is not followed.
    let fake = Fake::start(|_| Reply {
        status: 302,
        headers: vec![("Location".into(), "http://192.0.2.1/x".into())],
        ..Reply::default()
    });
    let e = pull(&fake, &s).await.unwrap_err();
    assert!(matches!(e, Error::PlainHttp { .. }), "{e}");
}

/// Beyond loopback plain HTTP takes a setting for the registry, or a wish for one call.
#[tokio::test(flavor = "multi_thread")]
async fn plain_http_elsewhere_is_by_setting() {
    let c = content();
    let fake = Fake::start(move |a| c.reply(a));
    // An address that is not of loopback to us, and this host to the kernel.
    let port = fake.host.rsplit(':').next().unwrap();
    let host = format!("0.0.0.0:{port}");
    let name = format!("{host}/app").parse().unwrap();
    let s = Store::with(|o| o.attempts = 1);
    let e = s.store.pull(&name, &amd64(), |_| {}).await.unwrap_err();
    assert!(e.to_string().contains("https://0.0.0.0"), "{e}");
    assert_eq!(fake.count("/manifests/"), 0);
    let wish = PullOptions {
        insecure: true,
        ..amd64()
    };
    s.store.pull(&name, &wish, |_| {}).await.unwrap();
    let s = Store::with(|o| o.insecure_registries.push(host));
    s.store.pull(&name, &amd64(), |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_share_the_work() {
    let c = content();
    let fake = Fake::start(move |a| c.reply(a));
    let s = Store::new();
    let pulls = (0..4).map(|_| pull(&fake, &s));
    let all = futures_util::future::join_all(pulls).await;
    let first = all[0].as_ref().unwrap().clone();
    assert!(all.iter().all(|r| r.as_ref().unwrap().image_id == first.image_id));
    let blob = first.layers[0].digest.clone();
    assert_eq!(fake.count(&blob), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing() {
    let c = content();
    let path = c.layer_path();
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let release = Arc::new(std::sync::Barrier::new(2));
    let hold = release.clone();
    let fake = Fake::start(move |a| {
        if a.path == path {
            opened.notify_one();
            hold.wait();
            return Reply {
                cut: Some(1000),
                ..c.reply(a)
            };
        }
        c.reply(a)
    });
    let s = Store::new();
    let store = s.store.clone();
    let name = fake.reference("app");
    let pulling = tokio::spawn(async move { store.pull(&name, &amd64(), |_| {}).await.map(drop) });
    gate.notified().await;
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    release.wait();
    let start = std::time::Instant::now();
    while !s.files("tmp").is_empty() && start.elapsed() < PATIENCE {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    nothing_left(&s);
    s.store.gc(&HashSet::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_cleared() {
    let s = Store::new();
    let kept = s.import(TarBuilder::new().file("kept", b"1").end(), "a").await;
    let gone = s.import(TarBuilder::new().file("gone", b"2").end(), "b").await;
    let root = s.dir.path().to_path_buf();
    // Steps of a pull at which a crash may come: a temporary file, layer files without their mark, a whole layer without a record,
    // a document without a record.
    std::fs::write(root.join("tmp/.tmpXYZ"), b"half").unwrap();
    let hex = "e".repeat(64);
    std::fs::write(root.join(format!("layers/{hex}.erofs")), b"half").unwrap();
    std::fs::write(root.join(format!("blobs/sha256/{hex}")), b"{}").unwrap();
    std::fs::write(root.join("images/torn.json"), b"{\"imageId").unwrap();
    std::fs::remove_file(root.join(format!("images/{}.json", gone.image_id.hex()))).unwrap();
    let Store { store, dir } = s;
    drop(store);
    let s = Store {
        store: biga_image::ImageStore::open(dir.path(), quick()).unwrap(),
        dir,
    };
    assert!(s.files("tmp").is_empty());
    assert_eq!(s.store.list().unwrap(), std::slice::from_ref(&kept));
    let report = s.store.gc(&HashSet::from([kept.image_id.clone()])).await.unwrap();
    assert_eq!((report.images, report.files), (1, 7), "{report:?}");
    assert_eq!(
        (
            s.files("layers").len(),
            s.files("blobs/sha256").len(),
            s.files("images").len()
        ),
        (3, 2, 1)
    );
    assert_eq!(
        std::fs::read(&kept.layers[0].file).unwrap().len() as u64,
        kept.layers[0].size
    );
    assert!(matches!(
        biga_image::ImageStore::open(dir_of(&s), quick()),
        Err(Error::Locked(_))
    ));
    let report = s.store.gc(&HashSet::new()).await.unwrap();
    assert_eq!((report.images, report.files), (1, 5));
    assert!(report.bytes > 0);
    nothing_left(&s);
}

fn dir_of(s: &Store) -> &std::path::Path {
    s.dir.path()
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_keeps_what_others_share() {
    let s = Store::new();
    let tar = TarBuilder::new().file("shared", b"1").end();
    let (a, b) = (s.import(tar.clone(), "a").await, s.import(tar, "b").await);
    assert_ne!(a.image_id, b.image_id);
    assert_eq!(a.layers, b.layers);
    s.store.remove(&a.image_id).await.unwrap();
    assert!(b.layers[0].file.exists());
    assert!(matches!(s.store.remove(&a.image_id).await, Err(Error::NoImage(_))));
    let report = s.store.remove(&b.image_id).await.unwrap();
    assert_eq!(report.images, 1);
    nothing_left(&s);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_young_are_spared() {
    let s = Store::with(|o| o.gc_grace = std::time::Duration::from_secs(3600));
    let image = s.import(TarBuilder::new().file("x", b"1").end(), "a").await;
    assert_eq!(
        s.store.gc(&HashSet::new()).await.unwrap(),
        biga_image::GcReport::default()
    );
    assert!(s.store.get(&image.image_id).is_ok());
}
