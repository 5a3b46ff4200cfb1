//! What may come in, and by whose signature.

use std::path::Path;
use std::process::Command;

use biga_image::policy::PolicyDocument;
use biga_image::{Error, ImageRecord, Policy, PullOptions, PushOptions};

use crate::fake::{Content, Fake, INDEX};
use crate::signer::{Signer, payload, put_manifest, signature, tag};
use crate::support::*;

/// A store with a policy that is written as JSON; `KEYS` stands for the directory.
fn store(keys: &Path, json: &str) -> Store {
    let json = json.replace("KEYS", str(keys));
    let document: PolicyDocument = serde_json::from_str(&json).unwrap();
    let policy = Policy::new(document, &keys.join("policy.yaml")).unwrap();
    Store::with(|o| o.policy = policy)
}

async fn pull(s: &Store, name: &biga_model::Reference) -> Result<ImageRecord, Error> {
    s.store.pull(name, &PullOptions::default(), |_| {}).await
}

/// An image in a registry; its digest.
async fn pushed(registry: &Registry, name: &str, seed: u64) -> String {
    let s = Store::new();
    let image = s
        .import(TarBuilder::new().file("app", &noise(2000, seed)).end(), "app")
        .await;
    let name = registry.reference(name);
    let pushed = s
        .store
        .push(&image.image_id, &name, &PushOptions::default(), |_| {})
        .await;
    pushed.unwrap().manifest_digest
}

fn refusal(result: Result<ImageRecord, Error>) -> String {
    match result {
        Err(e @ Error::Refused { .. }) => {
            assert!(!e.retryable() && e.reason() == "PolicyRefused");
            e.to_string()
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_comes_in() {
    let registry = Registry::plain();
    let keys = tempfile::tempdir().unwrap();
    let name = registry.reference("team/app:1");
    let digest = pushed(&registry, "team/app:1", 1).await;
    let own = format!("{}/team/app", registry.host);
    for (algorithm, file) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ecdsa.pub"),
        (&rcgen::PKCS_ED25519, "ed25519.pub"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "p384.pub"),
    ] {
        let signer = Signer::new(algorithm, &keys.path().join(file));
        let json = format!(r#"{{"default":"reject","rules":{{"{own}":{{"signedBy":{{"keys":["KEYS/{file}"]}}}}}}}}"#);
        let s = store(keys.path(), &json);
        let why = refusal(pull(&s, &name).await);
        assert!(
            s.files("layers").is_empty() && s.files("images").is_empty(),
            "{file}: {why}"
        );

        let text = payload(&own, &digest);
        signature(&text, &signer.sign(&text), None).put(&registry.host, "team/app", Some(&tag(&digest, ".sig")));
        let record = pull(&s, &name).await.unwrap();
        assert_eq!(
            (record.verified.len(), record.verified[0].digest.as_str()),
            (1, digest.as_str()),
            "{file}"
        );
        s.store.policy().allows_run(&record, Some(&name)).unwrap();
        // Under another name it is refused, and with no name it goes by where it came from.
        let other = registry.reference("other/app:1");
        assert!(s.store.policy().allows_run(&record, Some(&other)).is_err());
        s.store.policy().allows_run(&record, None).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_openssl_signed() {
    let registry = Registry::plain();
    let keys = tempfile::tempdir().unwrap();
    let p = |n: &str| keys.path().join(n);
    let digest = pushed(&registry, "app:1", 2).await;
    let own = format!("{}/app", registry.host);
    run(
        "openssl",
        &[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            str(&p("ec")),
        ],
    );
    run(
        "openssl",
        &["ec", "-in", str(&p("ec")), "-pubout", "-out", str(&p("ec.pub"))],
    );
    run("openssl", &["genrsa", "-out", str(&p("rsa")), "2048"]);
    run(
        "openssl",
        &["rsa", "-in", str(&p("rsa")), "-pubout", "-out", str(&p("rsa.pub"))],
    );
    let text = payload(&own, &digest);
    std::fs::write(p("text"), &text).unwrap();
    for key in ["ec", "rsa"] {
        let file = p("signature");
        run(
            "openssl",
            &[
                "dgst",
                "-sha256",
                "-sign",
                str(&p(key)),
                "-out",
                str(&file),
                str(&p("text")),
            ],
        );
        let bytes = std::fs::read(&file).unwrap();
        signature(&text, &bytes, None).put(&registry.host, "app", Some(&tag(&digest, ".sig")));
        let json = format!(r#"{{"default":{{"signedBy":{{"keys":["{key}.pub"]}}}}}}"#);
        let s = store(keys.path(), &json);
        pull(&s, &registry.reference("app:1"))
            .await
            .unwrap_or_else(|e| panic!("{key}: {e}"));
    }
    assert!(Command::new("openssl").arg("version").status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_do_not_count() {
    let registry = Registry::plain();
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::new(&rcgen::PKCS_ECDSA_P256_SHA256, &keys.path().join("a.pub"));
    let stranger = Signer::new(&rcgen::PKCS_ECDSA_P256_SHA256, &keys.path().join("b.pub"));
    let digest = pushed(&registry, "app:1", 3).await;
    let other = pushed(&registry, "app:2", 4).await;
    let own = format!("{}/app", registry.host);
    let name = registry.reference("app:1");
    let s = store(keys.path(), r#"{"default":{"signedBy":{"keys":["a.pub"]}}}"#);
    assert!(refusal(pull(&s, &name).await).contains("not signed"));
    let good = payload(&own, &digest);
    let replaced = String::from_utf8(good.clone())
        .unwrap()
        .replace("cosign container image signature", "something else");
    let cases: [(&str, Vec<u8>, Vec<u8>); 6] = [
        ("another's key", good.clone(), stranger.sign(&good)),
        (
            "another image",
            payload(&own, &other),
            signer.sign(&payload(&own, &other)),
        ),
        (
            "another name",
            payload("evil.example/app", &digest),
            signer.sign(&payload("evil.example/app", &digest)),
        ),
        ("another text", good.clone(), signer.sign(b"another text")),
        ("no document", b"hello".to_vec(), signer.sign(b"hello")),
        (
            "another type",
            replaced.clone().into_bytes(),
            signer.sign(replaced.as_bytes()),
        ),
    ];
    for (what, text, bytes) in cases {
        signature(&text, &bytes, None).put(&registry.host, "app", Some(&tag(&digest, ".sig")));
        let why = refusal(pull(&s, &name).await);
        assert!(why.contains("none of its 1 signatures"), "{what}: {why}");
    }
    // A copy that was signed under its first name, where the policy says which.
    let text = payload("first.example/app", &digest);
    signature(&text, &signer.sign(&text), None).put(&registry.host, "app", Some(&tag(&digest, ".sig")));
    refusal(pull(&s, &name).await);
    for (identity, taken) in [
        ("first.example/app", true),
        ("any", true),
        ("second.example/app", false),
    ] {
        let json = format!(r#"{{"default":{{"signedBy":{{"keys":["b.pub","a.pub"],"identity":"{identity}"}}}}}}"#);
        assert_eq!(
            pull(&store(keys.path(), &json), &name).await.is_ok(),
            taken,
            "{identity}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_among_referrers_and_of_indexes() {
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::new(&rcgen::PKCS_ED25519, &keys.path().join("a.pub"));
    let c = Content::of(&TarBuilder::new().file("app", b"x").end(), "amd64");
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        crate::fake::MANIFEST,
        sha(&c.manifest),
        c.manifest.len()
    );
    for (what, subject, api) in [
        ("manifest, by the registry's list", sha(&c.manifest), true),
        ("index, by the registry's list", sha(index.as_bytes()), true),
        ("manifest, by the tag", sha(&c.manifest), false),
    ] {
        let mut all = c.clone();
        all.manifest("latest", index.clone().into_bytes());
        let text = payload("", &subject);
        let a = signature(&text, &signer.sign(&text), Some((&subject, c.manifest.len())));
        for b in &a.blobs {
            all.files
                .insert(format!("/v2/app/blobs/{}", sha(b)), (String::new(), b.clone()));
        }
        all.manifest("unused", a.manifest.clone());
        let list = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{}","artifactType":"{}","digest":"{}","size":{}}}]}}"#,
            crate::fake::MANIFEST,
            crate::signer::SIGNATURE_TYPE,
            sha(&a.manifest),
            a.manifest.len()
        )
        .into_bytes();
        match api {
            true => drop(
                all.files
                    .insert(format!("/v2/app/referrers/{subject}"), (INDEX.into(), list)),
            ),
            false => all.manifest(&tag(&subject, ""), list),
        }
        let fake = Fake::start(move |a| all.reply(a));
        let s = store(
            keys.path(),
            r#"{"default":{"signedBy":{"keys":["a.pub"],"identity":"any"}}}"#,
        );
        let options = PullOptions {
            platform: Some("linux/amd64".parse().unwrap()),
            ..PullOptions::default()
        };
        let record = s.store.pull(&fake.reference("app"), &options, |_| {}).await;
        assert_eq!(
            record.unwrap_or_else(|e| panic!("{what}: {e}")).verified[0].digest,
            subject,
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_and_archives_are_refused() {
    let registry = Registry::plain();
    pushed(&registry, "good/app:1", 5).await;
    pushed(&registry, "bad/app:1", 6).await;
    let keys = tempfile::tempdir().unwrap();
    let json = format!(
        r#"{{"default":"reject","rules":{{"{}/good":"accept"}}}}"#,
        registry.host
    );
    let s = store(keys.path(), &json);
    let good = pull(&s, &registry.reference("good/app:1")).await.unwrap();
    s.store.policy().allows_run(&good, None).unwrap();
    let why = refusal(pull(&s, &registry.reference("bad/app:1")).await);
    assert!(why.contains("policy.yaml"), "{why}");
    let tar = TarBuilder::new().file("x", b"").end();
    let imported = s
        .store
        .import_rootfs(std::io::Cursor::new(tar), Default::default(), None)
        .await;
    refusal(imported);
    let disk = s
        .store
        .import_disk(std::io::Cursor::new(vec![1; 512]), biga_image::DiskFormat::Raw)
        .await;
    refusal(disk);
    assert!(matches!(s.store.load(&b""[..], None).await, Err(Error::Refused { .. })));
    // A registry that is refused is not even asked.
    let fake = Fake::start(|_| Default::default());
    refusal(pull(&s, &fake.reference("app")).await);
    assert_eq!(fake.count(""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_nowhere_runs_under_names_that_no_rule_is_about() {
    let keys = tempfile::tempdir().unwrap();
    Signer::new(&rcgen::PKCS_ED25519, &keys.path().join("a.pub"));
    let s = store(
        keys.path(),
        r#"{"default":"reject","archives":"accept","rules":{"r.example/signed":{"signedBy":{"keys":["a.pub"]}}}}"#,
    );
    let image = s.import(TarBuilder::new().file("x", b"").end(), "app").await;
    let runs = |name: &str| {
        s.store
            .policy()
            .allows_run(&image, Some(&name.parse().unwrap()))
            .is_ok()
    };
    assert!(runs("busybox") && runs("r.example/other") && !runs("r.example/signed"));
    s.store.policy().allows_run(&image, None).unwrap();
    // One that came from a registry has no such freedom.
    let pulled = ImageRecord {
        sources: vec!["r.example/other".into()],
        ..image.clone()
    };
    assert!(
        s.store
            .policy()
            .allows_run(&pulled, Some(&"busybox".parse().unwrap()))
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_holds_for_what_is_here() {
    let registry = Registry::plain();
    let digest = pushed(&registry, "app:1", 7).await;
    let s = Store::new();
    let name = registry.reference("app:1");
    let record = pull(&s, &name).await.unwrap();
    let keys = tempfile::tempdir().unwrap();
    let signer = Signer::new(&rcgen::PKCS_ED25519, &keys.path().join("a.pub"));
    let Store { store: open, dir } = s;
    drop(open);
    let document = serde_json::from_str(r#"{"default":{"signedBy":{"keys":["a.pub"]}}}"#).unwrap();
    let options = biga_image::Options {
        policy: Policy::new(document, &keys.path().join("p")).unwrap(),
        ..quick()
    };
    let s = Store {
        store: biga_image::ImageStore::open(dir.path(), options).unwrap(),
        dir,
    };
    let e = s.store.policy().allows_run(&record, Some(&name)).unwrap_err();
    assert!(e.to_string().contains("pull it again"), "{e}");
    assert!(s.store.policy().allows_run(&record, None).is_err());
    // Signed meanwhile: another pull is enough, and fetches no layer.
    let text = payload(&format!("{}/app", registry.host), &digest);
    let a = signature(&text, &signer.sign(&text), None);
    a.put(&registry.host, "app", Some(&tag(&digest, ".sig")));
    let record = pull(&s, &name).await.unwrap();
    s.store.policy().allows_run(&record, Some(&name)).unwrap();
    // The tag may as well be something else entirely.
    put_manifest(
        &registry.host,
        "app",
        &tag(&digest, ".sig"),
        crate::fake::MANIFEST,
        &a.manifest,
    );
}
