//! Signatures and bills of materials travel with their image.

use biga_image::{Error, ImageRecord, PullOptions, PushOptions};

use crate::fake::{Content, Fake, INDEX, MANIFEST, Reply};
use crate::signer::{artifact, http, signature, tag};
use crate::support::*;

const SBOM: &str = "application/spdx+json";

fn with_referrers() -> PullOptions {
    PullOptions {
        referrers: true,
        ..PullOptions::default()
    }
}

async fn pull(s: &Store, registry: &Registry, name: &str) -> ImageRecord {
    s.store
        .pull(&registry.reference(name), &with_referrers(), |_| {})
        .await
        .unwrap()
}

fn kinds(record: &ImageRecord) -> Vec<&str> {
    let mut all: Vec<&str> = record.referrers.iter().map(|r| r.artifact_type.as_str()).collect();
    all.sort_unstable();
    all
}

/// Debian's registry has no list of referrers, so everything goes by tags.
#[tokio::test(flavor = "multi_thread")]
async fn they_travel_between_registries() {
    let (one, two) = (Registry::plain(), Registry::plain());
    let a = Store::new();
    let image = a
        .import(TarBuilder::new().file("app", &noise(3000, 1)).end(), "app")
        .await;
    let name = one.reference("app:1");
    let pushed = a
        .store
        .push(&image.image_id, &name, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let digest = pushed.manifest_digest;
    let size = usize::try_from(pushed.manifest_size).unwrap();
    // A bill of materials, a signature of it, and a signature of the image as cosign places it.
    let sbom = artifact(b"{\"packages\":[]}", SBOM, "", SBOM, Some((&digest, size)));
    sbom.put(&one.host, "app", None);
    list(&one, &digest, &sbom.manifest, SBOM);
    let of_sbom = signature(b"text", b"sig", Some((&sha(&sbom.manifest), sbom.manifest.len())));
    of_sbom.put(&one.host, "app", None);
    list(
        &one,
        &sha(&sbom.manifest),
        &of_sbom.manifest,
        crate::signer::SIGNATURE_TYPE,
    );
    signature(b"other", b"sig", None).put(&one.host, "app", Some(&tag(&digest, ".sig")));

    let b = Store::new();
    let record = pull(&b, &one, "app:1").await;
    assert_eq!(
        kinds(&record),
        [SBOM, crate::signer::SIGNATURE_TYPE, crate::signer::SIGNATURE_TYPE]
    );
    let known = b
        .store
        .remote_referrers(&record.image_id, &name, &PullOptions::default())
        .await
        .unwrap();
    assert_eq!(known.len(), 3);
    // A collection keeps what the record names, and a pull without asking for them forgets none.
    b.store.gc(&[record.image_id.clone()].into()).await.unwrap();
    assert_eq!(
        b.files("blobs/sha256").len(),
        2 + 3 + 4,
        "manifest and config, three manifests, their blobs"
    );
    let again = b.store.pull(&name, &PullOptions::default(), |_| {}).await.unwrap();
    assert_eq!(again.referrers.len(), 3);

    // Into another registry, under the same manifest; read there by a store that knows nothing.
    let options = PushOptions {
        referrers: true,
        ..PushOptions::default()
    };
    let other = two.reference("mirror/app:1");
    let sent = b.store.push(&record.image_id, &other, &options, |_| {}).await.unwrap();
    assert_eq!((sent.manifest_digest.as_str(), sent.referrers), (digest.as_str(), 3));
    let c = Store::new();
    let copy = pull(&c, &two, "mirror/app:1").await;
    assert_eq!(kinds(&copy), kinds(&record));
    let sig = c.files("blobs/sha256");
    assert_eq!(sig, b.files("blobs/sha256"));
    // A second push changes nothing: the list has each once.
    b.store.push(&record.image_id, &other, &options, |_| {}).await.unwrap();
    let (status, _, body) = http(
        &two.host,
        "GET",
        &format!("/v2/mirror/app/manifests/{}", tag(&digest, "")),
        "",
        b"",
    );
    let listed: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, listed["manifests"].as_array().unwrap().len()), (200, 1));
    run(
        "skopeo",
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{}/mirror/app:{}", two.host, tag(&digest, ".sig")),
        ],
    );
    // Removed with their image.
    c.store.remove(&copy.image_id).await.unwrap();
    assert!(c.files("blobs/sha256").is_empty());
}

/// Puts a list under the tag that stands for it.
fn list(registry: &Registry, subject: &str, manifest: &[u8], kind: &str) {
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","artifactType":"{kind}","digest":"{}","size":{}}}]}}"#,
        sha(manifest),
        manifest.len()
    );
    crate::signer::put_manifest(&registry.host, "app", &tag(subject, ""), INDEX, index.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_gone_are_fetched_from_where_they_came() {
    // Layers compressed by somebody else: packing them again gives other bytes.
    let tar = TarBuilder::new().file("app", &noise(3000, 2)).end();
    let c = Content::with_blob(&tar, zstd::encode_all(&tar[..], 7).unwrap(), "amd64");
    let digest = sha(&c.manifest);
    let sbom = artifact(b"{}\n", SBOM, "", SBOM, Some((&digest, c.manifest.len())));
    let mut all = c.clone();
    for b in &sbom.blobs {
        all.files
            .insert(format!("/v2/app/blobs/{}", sha(b)), (String::new(), b.clone()));
    }
    all.manifest("unused", sbom.manifest.clone());
    let entry = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":{}}}]}}"#,
        sha(&sbom.manifest),
        sbom.manifest.len()
    );
    all.files.insert(
        format!("/v2/app/referrers/{digest}"),
        (INDEX.into(), entry.into_bytes()),
    );
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let alive = up.clone();
    let fake = Fake::start(move |a| match alive.load(std::sync::atomic::Ordering::Relaxed) {
        true => all.reply(a),
        false => Reply {
            status: 404,
            ..Reply::default()
        },
    });
    let s = Store::new();
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..with_referrers()
    };
    let record = s.store.pull(&fake.reference("app"), &options, |_| {}).await.unwrap();
    assert_eq!(kinds(&record), [SBOM]);
    let (with, without) = (
        PushOptions {
            referrers: true,
            ..PushOptions::default()
        },
        PushOptions::default(),
    );
    let registry = Registry::plain();
    let sent = s
        .store
        .push(&record.image_id, &registry.reference("app:1"), &with, |_| {})
        .await
        .unwrap();
    assert_eq!((sent.manifest_digest, sent.referrers), (digest.clone(), 1));
    // Where they came from is gone: said before anything gets a name that would promise too much.
    up.store(false, std::sync::atomic::Ordering::Relaxed);
    let other = Registry::plain();
    let e = s
        .store
        .push(&record.image_id, &other.reference("app:1"), &with, |_| {})
        .await
        .unwrap_err();
    assert!(matches!(e, Error::NotExact { .. }), "{e}");
    let (status, ..) = http(&other.host, "GET", "/v2/app/manifests/1", "", b"");
    assert_eq!(status, 404);
    // Without them it goes, under a manifest of its own.
    let sent = s
        .store
        .push(&record.image_id, &other.reference("app:1"), &without, |_| {})
        .await
        .unwrap();
    assert_ne!(sent.manifest_digest, digest);
    assert!(s.files("tmp").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lie_are_not_believed() {
    let c = Content::of(&TarBuilder::new().file("app", b"x").end(), "amd64");
    let digest = sha(&c.manifest);
    let stranger = artifact(b"{}", SBOM, "", SBOM, Some((&sha(b"something else"), 14)));
    let mut all = c.clone();
    all.manifest("unused", stranger.manifest.clone());
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":{}}},{{"mediaType":"{INDEX}","digest":"{digest}","size":{}}}]}}"#,
        sha(&stranger.manifest),
        stranger.manifest.len(),
        c.manifest.len()
    );
    all.files
        .insert(format!("/v2/app/referrers/{digest}"), (INDEX.into(), list.into_bytes()));
    let fake = Fake::start(move |a| all.reply(a));
    let s = Store::new();
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..with_referrers()
    };
    let record = s.store.pull(&fake.reference("app"), &options, |_| {}).await.unwrap();
    assert!(record.referrers.is_empty());
}
