//! Archives of ours and of skopeo's.

use std::path::Path;

use biga_image::{ArchiveFormat, Error, ImageRecord};

use crate::support::*;

fn tar() -> Vec<u8> {
    TarBuilder::new()
        .file("bin/app", &noise(50_000, 1))
        .link("bin/alias", "bin/app")
        .file("small", b"x")
        .end()
}

async fn save(s: &Store, image: &ImageRecord, names: &[&str], to: &Path, format: ArchiveFormat) {
    let names = names.iter().map(|n| n.parse().unwrap()).collect();
    let file = tokio::fs::File::create(to).await.unwrap();
    s.store
        .save(&[(image.image_id.clone(), names)], file, format)
        .await
        .unwrap();
}

async fn load(s: &Store, from: &Path) -> Result<Vec<biga_image::Loaded>, Error> {
    s.store.load(tokio::fs::File::open(from).await.unwrap(), None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips() {
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let file = a.dir.path().join("archive.tar");
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        save(&a, &image, &["app:1", "localhost:5000/other:2"], &file, format).await;
        let b = Store::new();
        let loaded = load(&b, &file).await.unwrap();
        assert_eq!(loaded.len(), 1, "{format:?}");
        assert_eq!(loaded[0].record.image_id, image.image_id);
        assert_eq!(loaded[0].record.config, image.config);
        assert_eq!(loaded[0].record.manifest_digest, image.manifest_digest);
        let names: Vec<String> = loaded[0].references.iter().map(|r| r.familiar()).collect();
        assert_eq!(names, ["app:1", "localhost:5000/other:2"]);
        let read = |r: &ImageRecord| std::fs::read(&r.layers[0].file).unwrap();
        assert_eq!(read(&loaded[0].record), read(&image));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_picks_and_refuses() {
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let file = a.dir.path().join("archive.tar");
    for format in [ArchiveFormat::Docker, ArchiveFormat::Oci] {
        save(&a, &image, &["app:1"], &file, format).await;
        let b = Store::new();
        let open = async || tokio::fs::File::open(&file).await.unwrap();
        let other = "linux/s390x".parse().unwrap();
        let refused = b.store.load(open().await, Some(other)).await;
        assert!(
            matches!(&refused, Err(Error::NoPlatform { wanted, available, .. })
                if wanted == "linux/s390x" && *available == image.platform),
            "{format:?}: {refused:?}"
        );
        let own = b
            .store
            .load(open().await, Some(image.platform.parse().unwrap()))
            .await
            .unwrap();
        assert_eq!(own.len(), 1);
        // Without one it is loaded whatever it is for.
        assert_eq!(load(&b, &file).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_what_we_write() {
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let file = a.dir.path().join("archive.tar");
    for (format, transport) in [
        (ArchiveFormat::Docker, "docker-archive"),
        (ArchiveFormat::Oci, "oci-archive"),
    ] {
        save(&a, &image, &["app:1"], &file, format).await;
        let config = run(
            "skopeo",
            &["inspect", "--config", &format!("{transport}:{}", str(&file))],
        );
        assert!(config.contains(&image.layers[0].diff_id), "{config}");
        let dir = tempfile::tempdir().unwrap();
        run(
            "skopeo",
            &[
                "copy",
                &format!("{transport}:{}", str(&file)),
                &format!("dir:{}", str(dir.path())),
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_skopeo_writes() {
    let a = Store::new();
    let image = a.import(tar(), "app").await;
    let ours = a.dir.path().join("ours.tar");
    save(&a, &image, &["app:1"], &ours, ArchiveFormat::Oci).await;
    for to in ["docker-archive", "oci-archive"] {
        let theirs = a.dir.path().join(format!("{to}.tar"));
        run(
            "skopeo",
            &[
                "copy",
                &format!("oci-archive:{}", str(&ours)),
                &format!("{to}:{}:docker.io/library/app:7", str(&theirs)),
            ],
        );
        for pack in ["", "gzip"] {
            if !pack.is_empty() {
                let packed = gzip(&std::fs::read(&theirs).unwrap());
                std::fs::write(&theirs, packed).unwrap();
            }
            let b = Store::new();
            let loaded = load(&b, &theirs).await.unwrap();
            assert_eq!(loaded[0].record.image_id, image.image_id, "{to}");
            assert_eq!(loaded[0].references[0].familiar(), "app:7", "{to}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_archives_with_links() {
    let layer = tar();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{0}","{0}"]}}}}"#,
        sha(&layer)
    );
    let archive = TarBuilder::new()
        .dir("one")
        .file("one/VERSION", b"1.0")
        .file("one/layer.tar", &layer)
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("config.json", config.as_bytes())
        .file(
            "manifest.json",
            br#"[{"Config":"config.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar"]}]"#,
        )
        .end();
    let s = Store::new();
    let loaded = s.store.load(std::io::Cursor::new(archive), None).await.unwrap();
    assert_eq!(loaded[0].record.layers.len(), 2);
    assert_eq!(loaded[0].record.image_id.as_str(), sha(config.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_archives_are_refused() {
    let layer = tar();
    let config = |id: &str| format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#);
    let list = br#"[{"Config":"c.json","RepoTags":[],"Layers":["l.tar"]}]"#;
    let with = |config: &str, layer: &[u8]| {
        TarBuilder::new()
            .file("l.tar", layer)
            .file("c.json", config.as_bytes())
            .file("manifest.json", list)
            .end()
    };
    let evil = TarBuilder::new().file("../../evil", b"x").end();
    let cases = [
        (with(&config(&sha(b"other")), &layer), "diff id"),
        (with(&config(&sha(&evil)), &evil), ".."),
        (with("[]", &layer), "config"),
        (TarBuilder::new().file("manifest.json", list).end(), "missing"),
        (TarBuilder::new().file("x", b"y").end(), "neither"),
        (b"this is no archive at all".to_vec(), "cut off"),
    ];
    for (archive, word) in cases {
        let s = Store::new();
        let e = s
            .store
            .load(std::io::Cursor::new(archive), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(e.contains(word), "{e} lacks {word}");
        assert!(s.files("images").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_disk_is_not_passed_on() {
    let s = Store::new();
    let image = s.import(tar(), "app").await;
    let file = &image.layers[0].file;
    let mut bytes = std::fs::read(file).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let to = tokio::fs::File::create(s.dir.path().join("a.tar")).await.unwrap();
    let e = s
        .store
        .save(&[(image.image_id, vec![])], to, ArchiveFormat::Docker)
        .await
        .unwrap_err();
    assert!(
        matches!(&e, Error::Stream(cause) if cause.to_string().contains("damaged")),
        "{e:?}"
    );
}
