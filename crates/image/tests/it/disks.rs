//! Disk images made by qemu-img.

use std::path::Path;

use biga_image::{DiskFormat, Error, ImageRecord};
use biga_model::ImageFormat;

use crate::fake::{Content, Fake};
use crate::support::*;

async fn import(s: &Store, file: &Path, format: DiskFormat) -> Result<ImageRecord, Error> {
    s.store
        .import_disk(tokio::fs::File::open(file).await.unwrap(), format)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn qcow2_and_raw() {
    let s = Store::new();
    let dir = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (dir.path().join("d.raw"), dir.path().join("d.qcow2"));
    std::fs::write(&raw, [noise(100_000, 1), vec![0; 948_576]].concat()).unwrap();
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", str(&raw), str(&qcow2)],
    );
    for (file, format) in [(&raw, DiskFormat::Raw), (&qcow2, DiskFormat::Qcow2)] {
        let record = import(&s, file, format).await.unwrap();
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(
            (record.format, record.image_id.as_str()),
            (ImageFormat::Disk, sha(&bytes).as_str())
        );
        let disk = record.disk.clone().unwrap();
        assert_eq!((disk.format, disk.virtual_size), (format, 1_048_576));
        assert!(std::fs::read(&disk.file).unwrap() == bytes);
        // The same, compressed on the way.
        let packed = s
            .store
            .import_disk(std::io::Cursor::new(gzip(&bytes)), format)
            .await
            .unwrap();
        assert_eq!(packed, record);
    }
    assert!(matches!(import(&s, &qcow2, DiskFormat::Raw).await, Err(Error::Disk(_))));
    assert!(matches!(import(&s, &raw, DiskFormat::Qcow2).await, Err(Error::Disk(_))));
}

/// A containerDisk as KubeVirt's users build it: `FROM scratch`, `ADD --chown=107:107 fedora.qcow2 /disk/`.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_somebody_else_built() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (dir.path().join("d.raw"), dir.path().join("disk/fedora.qcow2"));
    std::fs::create_dir(dir.path().join("disk")).unwrap();
    std::fs::write(&raw, [noise(100_000, 1), vec![0; 948_576]].concat()).unwrap();
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", str(&raw), str(&qcow2)],
    );
    let tar = dir.path().join("layer.tar");
    let owner = ["--owner=107", "--group=107", "--numeric-owner"];
    run(
        "tar",
        &[&["-C", str(dir.path()), "-cf", str(&tar)], &owner[..], &["disk"]].concat(),
    );
    let c = Content::of(&std::fs::read(&tar).unwrap(), "amd64");
    let fake = Fake::start(move |a| c.reply(a));
    let s = Store::new();
    let record = s
        .store
        .pull(&fake.reference("app"), &Default::default(), |_| {})
        .await
        .unwrap();
    let bytes = std::fs::read(&qcow2).unwrap();
    assert_eq!(
        (record.format, record.image_id.as_str()),
        (ImageFormat::Disk, sha(&bytes).as_str())
    );
    let disk = record.disk.unwrap();
    assert_eq!((disk.format, disk.virtual_size), (DiskFormat::Qcow2, 1_048_576));
    assert!(std::fs::read(&disk.file).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_name_other_files_are_refused() {
    let s = Store::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n);
    run("qemu-img", &["create", "-f", "raw", str(&path("base.raw")), "1M"]);
    run(
        "qemu-img",
        &[
            "create",
            "-f",
            "qcow2",
            "-b",
            str(&path("base.raw")),
            "-F",
            "raw",
            str(&path("backed.qcow2")),
        ],
    );
    run(
        "qemu-img",
        &[
            "create",
            "-f",
            "qcow2",
            "-o",
            &format!("data_file={}", str(&path("data.raw"))),
            str(&path("external.qcow2")),
            "1M",
        ],
    );
    run("qemu-img", &["create", "-f", "vmdk", str(&path("disk.vmdk")), "1M"]);
    run("qemu-img", &["create", "-f", "vhdx", str(&path("disk.vhdx")), "1M"]);
    for (name, format, word) in [
        ("backed.qcow2", DiskFormat::Qcow2, "backing"),
        ("external.qcow2", DiskFormat::Qcow2, "external data file"),
        ("disk.vmdk", DiskFormat::Raw, "VMDK"),
        ("disk.vhdx", DiskFormat::Raw, "VHDX"),
    ] {
        let e = import(&s, &path(name), format).await.unwrap_err().to_string();
        assert!(e.contains(word), "{name}: {e}");
    }
    assert!(s.files("disks").is_empty() && s.files("images").is_empty() && s.files("tmp").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_saved_and_removed() {
    let s = Store::new();
    let image = s
        .store
        .import_disk(std::io::Cursor::new(noise(40_000, 1)), DiskFormat::Raw)
        .await
        .unwrap();
    let file = s.dir.path().join("disk.tar");
    let to = tokio::fs::File::create(&file).await.unwrap();
    s.store
        .save(
            &[(image.image_id.clone(), vec!["disk:1".parse().unwrap()])],
            to,
            Default::default(),
        )
        .await
        .unwrap();
    let config = run(
        "skopeo",
        &["inspect", "--config", &format!("docker-archive:{}", str(&file))],
    );
    assert!(config.contains("diff_ids"), "{config}");
    s.store.remove(&image.image_id).await.unwrap();
    assert!(s.files("disks").is_empty());
}
