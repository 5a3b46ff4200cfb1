//! Shapes that layers may have, beyond those of the other tests: ACLs, files larger than 4 GiB, 127 layers at once, a loop
//! device below each.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use biga_image::{LayerMounts, LayerRecord};

use crate::support::*;

/// A PAX record.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..)
        .map(|digits| rest + digits)
        .find(|n| n.to_string().len() + rest == *n)
        .unwrap();
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

/// An entry with PAX records before it.
fn with_records(records: &[(&str, &[u8])], name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
    let pax: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
    let t = TarBuilder::new().entry("x", tar::EntryType::XHeader, "", &pax);
    t.entry(name, kind, "", content).end()
}

/// `user::rw- user:1000:r-- group::r-- mask::r-- other::---` as the kernel keeps it.
fn acl() -> Vec<u8> {
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 4, 1000),
        entry(4, 4, none),
        entry(16, 4, none),
        entry(32, 0, none),
    ]
    .concat()
}

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 65536];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or_else(|e| panic!("{name}: {e}"));
    value.truncate(len);
    value
}

#[test]
fn acls_and_large_attributes() {
    let large = noise(40_000, 1);
    let file = with_records(
        &[
            ("SCHILY.xattr.system.posix_acl_access", &acl()),
            ("SCHILY.xattr.user.large", &large),
            (
                "SCHILY.xattr.security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
        ],
        "file",
        tar::EntryType::Regular,
        b"content",
    );
    let dir = with_records(
        &[("SCHILY.xattr.system.posix_acl_default", &acl())],
        "dir/",
        tar::EntryType::Directory,
        b"",
    );
    let both = [&file[..file.len() - 1024], &dir].concat();
    let l = layer(&both);
    fsck(&l.image());
    let m = Mounted::new(&l.image());
    assert_eq!(xattr(&m.path().join("file"), "system.posix_acl_access"), acl());
    assert_eq!(xattr(&m.path().join("file"), "user.large"), large);
    assert_eq!(xattr(&m.path().join("file"), "security.capability").len(), 20);
    assert_eq!(xattr(&m.path().join("dir"), "system.posix_acl_default"), acl());
    assert_eq!(fs::read(m.path().join("file")).unwrap(), b"content");
    assert_eq!(l.tar(), both);
}

/// GNU tar writes ACLs as text, in records of its own.
#[test]
fn acls_as_gnu_tar_writes_them() {
    let text = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---";
    let named = b"user::rw-\nuser:nobody-knows:r--:1000\ngroup::r--\nmask::r--\nother::---\n";
    for (value, what) in [(&text[..], "GNU"), (&named[..], "star")] {
        let tar = with_records(&[("SCHILY.acl.access", value)], "file", tar::EntryType::Regular, b"x");
        let l = layer(&tar);
        let m = Mounted::new(&l.image());
        assert_eq!(
            xattr(&m.path().join("file"), "system.posix_acl_access"),
            acl(),
            "{what}"
        );
    }
    // What is no ACL, or names somebody only the image knows, is left out, as it is by every other engine.
    for value in [
        &b"user:ann:r--"[..],
        b"",
        b"user::rwz",
        b"what:ever",
        b"user::rw-,group::r--,other::---,user:99999999999:r--",
    ] {
        let tar = with_records(&[("SCHILY.acl.access", value)], "file", tar::EntryType::Regular, b"x");
        let l = layer(&tar);
        let m = Mounted::new(&l.image());
        let mut buffer = [0; 256];
        assert!(rustix::fs::lgetxattr(m.path().join("file"), "system.posix_acl_access", &mut buffer[..]).is_err());
    }
}

#[test]
fn files_larger_than_four_gigabytes() {
    let dir = tempfile::tempdir().unwrap();
    let f = fs::File::create(dir.path().join("huge")).unwrap();
    let end = 9u64 << 30;
    f.set_len(end).unwrap();
    for at in [0, (4 << 30) - 3, (4 << 30) + 4096, end - 5] {
        f.write_all_at(b"data!", at).unwrap();
    }
    fs::write(dir.path().join("z"), b"behind it").unwrap();
    for format in ["gnu", "posix"] {
        let tar = dir.path().join("t");
        run(
            "tar",
            &[
                "-C",
                str(dir.path()),
                &format!("--format={format}"),
                "-S",
                "-cf",
                str(&tar),
                "huge",
                "z",
            ],
        );
        let bytes = fs::read(&tar).unwrap();
        let l = layer(&bytes);
        fsck(&l.image());
        let m = Mounted::new(&l.image());
        let huge = fs::File::open(m.path().join("huge")).unwrap();
        assert_eq!(huge.metadata().unwrap().len(), end);
        for at in [0, (4 << 30) - 3, (4 << 30) + 4096, end - 5] {
            let mut got = [0; 5];
            huge.read_exact_at(&mut got, at).unwrap();
            assert_eq!(&got, b"data!", "{format} {at}");
        }
        let mut got = [1; 4096];
        huge.read_exact_at(&mut got, 6 << 30).unwrap();
        assert_eq!(got, [0; 4096]);
        assert_eq!(fs::read(m.path().join("z")).unwrap(), b"behind it");
        assert_eq!(sha(&l.tar()), sha(&bytes));
        assert!(fs::metadata(l.image()).unwrap().blocks() * 512 < 1 << 20);
    }
}

/// Mount points that go with the test.
struct Layers {
    run: tempfile::TempDir,
}

impl Drop for Layers {
    fn drop(&mut self) {
        let dir = self.run.path().join("layers");
        let _ = std::process::Command::new("umount")
            .args(["-R", "-l"])
            .arg(dir)
            .output();
    }
}

fn records(layers: &[Layer]) -> Vec<LayerRecord> {
    layers
        .iter()
        .map(|l| LayerRecord {
            diff_id: sha(&l.converted.diff_id),
            digest: String::new(),
            media_type: String::new(),
            blob_size: 0,
            file: l.image(),
            size: 0,
        })
        .collect()
}

/// Files below a path that the kernel's loop devices stand on.
fn loop_devices_of(dir: &Path) -> Vec<String> {
    let all = fs::read_dir("/sys/block").unwrap().flatten();
    all.filter_map(|e| fs::read_to_string(e.path().join("loop/backing_file")).ok())
        .filter(|f| f.starts_with(str(dir)))
        .collect()
}

#[test]
fn through_loop_devices() {
    let l = layer(&TarBuilder::new().file("hello", b"world").end());
    let layers = Layers {
        run: tempfile::tempdir().unwrap(),
    };
    let record = &records(std::slice::from_ref(&l))[0];
    let mounts = LayerMounts::with(layers.run.path(), true).unwrap();
    let at = mounts.mount(record, "one").unwrap();
    assert_eq!(mounts.mount(record, "two").unwrap(), at);
    assert_eq!(fs::read(at.join("hello")).unwrap(), b"world");
    assert!(fs::write(at.join("hello"), b"x").is_err());
    assert_eq!(loop_devices_of(l.dir.path()).len(), 1);
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = info.lines().find(|l| l.contains(str(&at))).unwrap();
    assert!(line.contains("/dev/loop") && line.contains("nodev"), "{line}");
    // A later process takes it over and lets it go.
    drop(mounts);
    let mounts = LayerMounts::with(layers.run.path(), true).unwrap();
    mounts.adopt(std::slice::from_ref(record), "one").unwrap();
    assert_eq!(mounts.sweep().unwrap(), 0);
    mounts.release("one").unwrap();
    assert!(!at.exists());
    let start = std::time::Instant::now();
    while !loop_devices_of(l.dir.path()).is_empty() {
        assert!(start.elapsed() < PATIENCE, "the loop device stays");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What cannot be mounted says why.
    fs::write(l.image(), b"not a file system").unwrap();
    let e = mounts.mount(record, "one").unwrap_err().to_string();
    assert!(e.contains("loop device"), "{e}");
    assert!(!at.exists());
}

#[test]
fn a_hundred_and_twenty_seven_layers() {
    let made: Vec<Layer> = (0..127)
        .map(|i| {
            let t = TarBuilder::new()
                .file(&format!("own-{i}"), b"x")
                .file("top", format!("{i}").as_bytes());
            let t = match i % 2 {
                1 => t.file(&format!(".wh.own-{}", i - 1), b""),
                _ => t,
            };
            layer(&t.end())
        })
        .collect();
    let layers = Layers {
        run: tempfile::tempdir().unwrap(),
    };
    let mounts = LayerMounts::new(layers.run.path()).unwrap();
    let at = mounts.mount_all(&records(&made), "one").unwrap();
    let lower: Vec<&str> = at.iter().rev().map(|p| str(p)).collect();
    let merged = tempfile::tempdir().unwrap();
    // All of them in one page of options, as the container's mount has it.
    let base = layers.run.path().join("layers");
    let names: Vec<&str> = lower
        .iter()
        .map(|l| l.strip_prefix(str(&base)).unwrap().trim_start_matches('/'))
        .collect();
    let options = format!("lowerdir={}", names.join(":"));
    assert!(options.len() < 4096, "{}", options.len());
    let status = std::process::Command::new("mount")
        .args([
            "-t",
            "overlay",
            "overlay",
            "-o",
            &format!("ro,{options}"),
            str(merged.path()),
        ])
        .current_dir(&base)
        .status()
        .unwrap();
    assert!(status.success());
    let seen: BTreeMap<_, _> = inventory(merged.path());
    let top = fs::read_to_string(merged.path().join("top"));
    rustix::mount::unmount(merged.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(top.unwrap(), "126");
    // The even ones below 126 are whited out.
    assert_eq!(seen.len(), 1 + 63 + 1);
    assert!(seen.contains_key(Path::new("own-126")) && seen.contains_key(Path::new("own-1")));
    mounts.release("one").unwrap();
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
}

/// Large parts of a real Debian, against what GNU tar makes of them.
#[test]
fn debian_trees() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("t");
    for (root, names) in [
        (
            "/",
            &["etc", "usr/lib/x86_64-linux-gnu/perl-base", "var/lib/dpkg/info"][..],
        ),
        ("/usr/share", &["locale/de", "python3", "perl"]),
    ] {
        let there: Vec<&str> = names
            .iter()
            .copied()
            .filter(|n| Path::new(root).join(n).is_dir())
            .collect();
        let mut args = vec![
            "-C",
            root,
            "--format=posix",
            "--xattrs",
            "--xattrs-include=*",
            "-cf",
            str(&tar),
        ];
        // Other programs may write below /etc meanwhile: what was packed is what counts.
        args.extend(["--warning=no-file-changed", "--ignore-failed-read"]);
        args.extend(&there);
        let status = std::process::Command::new("tar").args(&args).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
        let extracted = dir.path().join(format!("x{}", root.len()));
        fs::create_dir(&extracted).unwrap();
        run(
            "tar",
            &[
                "-C",
                str(&extracted),
                "--xattrs",
                "--xattrs-include=*",
                "--numeric-owner",
                "-xpf",
                str(&tar),
            ],
        );
        let bytes = fs::read(&tar).unwrap();
        let l = layer(&bytes);
        fsck(&l.image());
        let m = Mounted::new(&l.image());
        for name in &there {
            // Below each name: the directories on the way were not packed, so GNU tar gives them what it likes.
            assert_same(&m.path().join(name), &extracted.join(name));
        }
        assert_eq!(sha(&l.tar()), sha(&bytes));
        // The same again is the same file.
        assert_eq!(
            sha(&fs::read(l.image()).unwrap()),
            sha(&fs::read(layer(&bytes).image()).unwrap())
        );
    }
}
