//! The writer against the kernel, `fsck.erofs` and GNU tar.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use biga_image::{LayerMounts, LayerRecord};
use proptest::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};

use crate::support::*;

/// A tree with everything that file systems have.
fn everything(root: &Path) {
    for (i, size) in [
        0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 16383, 16384, 70_000, 300_000,
    ]
    .iter()
    .enumerate()
    {
        fs::write(root.join(format!("size-{size}")), noise(*size, i as u64)).unwrap();
    }
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::hard_link(root.join("size-4097"), root.join("a/b/linked")).unwrap();
    fs::hard_link(root.join("size-1"), root.join("a/small-link")).unwrap();
    symlink("a/b", root.join("link")).unwrap();
    symlink("x".repeat(300), root.join("long-link")).unwrap();
    symlink("y/".repeat(2047), root.join("longest-link")).unwrap();
    fs::hard_link(root.join("link"), root.join("link-to-link")).unwrap();
    fs::write(root.join("n".repeat(255)), b"long name").unwrap();
    let deep = root.join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep"), b"deep").unwrap();
    fs::write(root.join("ümläut \n\t'\""), b"odd name").unwrap();
    let node = |name: &str, kind, dev| {
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, Mode::from_raw_mode(0o640), dev).unwrap()
    };
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("disk", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    node("pipe", FileType::Fifo, 0);
    for (name, mode) in [
        ("setuid", 0o4755),
        ("sticky", 0o1777),
        ("none", 0o000),
        ("setgid", 0o2711),
    ] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(root.join("owned"), b"ids").unwrap();
    chown(root.join("owned"), Some(4_000_000_000), Some(3_000_000_000)).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    sparse.write_all_at(b"middle", 10 << 20).unwrap();
    sparse.write_all_at(&noise(5000, 99), 30 << 20).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(root.join("capable"), noise(3000, 5)).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(root.join(name), key, value, XattrFlags::empty()).unwrap()
    };
    set("capable", "security.capability", &capability);
    set("a", "trusted.note", b"on a directory");
    set("size-1", "trusted.a", &noise(900, 7));
    set("size-1", "trusted.b", b"");
    for i in 0..3000 {
        fs::write(
            root.join("a/b/c").join(format!("file-{i:05}-{}", "z".repeat(i % 60))),
            format!("{i}"),
        )
        .unwrap();
    }
    times(root);
}

/// Times that have nanoseconds, and some before 1970.
fn times(root: &Path) {
    for (i, path) in inventory(root).into_keys().enumerate() {
        let seconds = if i % 50 == 0 {
            -1_000_000
        } else {
            1_600_000_000 + i as i64
        };
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: (i as i64 * 7_654_321) % 1_000_000_000,
        };
        let both = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(rustix::fs::CWD, root.join(path), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Packs by GNU tar, converts, mounts, and compares with what GNU tar extracts.
fn round_trip(source: &Path, names: &[&str], pack: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("t.tar");
    let mut args = vec!["-C", str(source), "-cf", str(&tar)];
    args.extend(pack);
    args.extend(names);
    run("tar", &args);
    let extracted = dir.path().join("x");
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
    let layer = layer(&bytes);
    fsck(&layer.image());
    assert_same(Mounted::new(&layer.image()).path(), &extracted);
    assert_eq!(sha(&layer.tar()), sha(&bytes), "the tar put together again");
    assert_eq!(layer.converted.tar_size, bytes.len() as u64);
}

#[test]
fn posix_tar_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    everything(dir.path());
    round_trip(
        dir.path(),
        &["."],
        &["--format=posix", "--xattrs", "--xattrs-include=*"],
    );
    for version in ["0.0", "0.1", "1.0"] {
        round_trip(
            dir.path(),
            &["sparse", "size-1"],
            &["--format=posix", "-S", &format!("--sparse-version={version}")],
        );
    }
}

#[test]
fn gnu_and_ustar_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    everything(dir.path());
    round_trip(dir.path(), &["."], &["--format=gnu", "-S"]);
    round_trip(
        dir.path(),
        &["a", "size-4097", "null", "pipe"],
        &["--format=ustar", "--mtime=@1600000000"],
    );
    round_trip(dir.path(), &["a", "setuid"], &["--format=v7", "--mtime=@1600000000"]);
}

#[test]
fn a_real_tree() {
    let share = Path::new("/usr/share");
    let names: Vec<&str> = ["terminfo", "zoneinfo", "perl5", "bash-completion", "dpkg"]
        .into_iter()
        .filter(|n| share.join(n).is_dir())
        .collect();
    round_trip(share, &names, &["--format=posix"]);
    round_trip(Path::new("/usr"), &["sbin"], &["--format=gnu"]);
}

#[test]
fn many_entries_in_one_directory() {
    let mut t = TarBuilder::new();
    for i in 0..100_000 {
        t = t.file(&format!("big/{i:06}"), b"");
    }
    let layer = layer(&t.end());
    fsck(&layer.image());
    let m = Mounted::new(&layer.image());
    let big = m.path().join("big");
    let mut names: Vec<String> = fs::read_dir(&big)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 100_000);
    assert!(names.iter().enumerate().all(|(i, n)| *n == format!("{i:06}")));
    for i in [0, 1, 4_999, 50_000, 99_999] {
        assert!(big.join(format!("{i:06}")).exists(), "{i}");
    }
    assert!(!big.join("100000").exists());
}

#[test]
fn whiteouts_and_opaque_directories() {
    let lower = TarBuilder::new()
        .file("gone", b"1")
        .file("dir/old", b"2")
        .file("opaque/old", b"3")
        .file("kept/x", b"4")
        .file("swapped/old", b"5")
        .end();
    let upper = TarBuilder::new()
        .file(".wh.gone", b"")
        .file("dir/.wh.old", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"6")
        .file(".wh..wh.plnk", b"")
        .file(".wh.swapped", b"")
        .file("swapped/new", b"7")
        .end();
    let (lower, upper) = (layer(&lower), layer(&upper));
    fsck(&upper.image());
    let (l, u) = (Mounted::new(&lower.image()), Mounted::new(&upper.image()));
    let merged = tempfile::tempdir().unwrap();
    let options = std::ffi::CString::new(format!("lowerdir={}:{}", str(u.path()), str(l.path()))).unwrap();
    rustix::mount::mount(
        "overlay",
        merged.path(),
        "overlay",
        rustix::mount::MountFlags::RDONLY,
        Some(&*options),
    )
    .unwrap();
    let seen: Vec<_> = inventory(merged.path()).into_keys().collect();
    rustix::mount::unmount(merged.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let want = [
        "dir",
        "kept",
        "kept/x",
        "opaque",
        "opaque/new",
        "swapped",
        "swapped/new",
    ];
    assert_eq!(seen, want.map(std::path::PathBuf::from));
}

#[test]
fn same_tar_same_bytes() {
    let tar = TarBuilder::new()
        .file("a/b", &noise(100_000, 1))
        .file("c", b"x")
        .symlink("l", "c")
        .link("d/h", "c")
        .end();
    let (a, b) = (layer(&tar), layer(&gzip(&tar)));
    assert_eq!(fs::read(a.image()).unwrap(), fs::read(b.image()).unwrap());
    let zstd = layer(&zstd::encode_all(&tar[..], 3).unwrap());
    assert_eq!(fs::read(a.image()).unwrap(), fs::read(zstd.image()).unwrap());
    assert_eq!(a.converted, b.converted);
}

#[test]
fn zeros_take_no_space() {
    let layer = layer(&gzip(&TarBuilder::new().file("zeros", &vec![0; 64 << 20]).end()));
    let m = fs::metadata(layer.image()).unwrap();
    assert!(m.len() > 64 << 20);
    assert!(m.blocks() * 512 < 1 << 20, "{} bytes on disk", m.blocks() * 512);
    let mounted = Mounted::new(&layer.image());
    assert!(fs::read(mounted.path().join("zeros")).unwrap().iter().all(|&b| b == 0));
}

#[test]
fn layers_are_mounted_once() {
    let image = layer(&TarBuilder::new().file("hello", b"world").end());
    let record = LayerRecord {
        diff_id: format!("sha256:{}", "ab".repeat(32)),
        digest: String::new(),
        media_type: String::new(),
        blob_size: 0,
        file: image.image(),
        size: 0,
    };
    let run = tempfile::tempdir().unwrap();
    let guard = Unmount(run.path().join("layers"));
    let mounts = LayerMounts::new(run.path()).unwrap();
    let at = mounts.mount(&record, "one").unwrap();
    assert_eq!(mounts.mount(&record, "two").unwrap(), at);
    assert_eq!(fs::read(at.join("hello")).unwrap(), b"world");
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(info.lines().filter(|l| l.contains(str(&at))).count(), 1);
    mounts.release("one").unwrap();
    mounts.release("one").unwrap();
    assert!(at.join("hello").exists());
    mounts.release("two").unwrap();
    assert!(!at.exists());

    // A later process adopts what is in use and sweeps the rest.
    let other = LayerRecord {
        diff_id: format!("sha256:{}", "cd".repeat(32)),
        ..record.clone()
    };
    let kept = mounts.mount(&record, "one").unwrap();
    let left = mounts.mount(&other, "gone").unwrap();
    drop(mounts);
    let mounts = LayerMounts::new(run.path()).unwrap();
    mounts.adopt(std::slice::from_ref(&record), "one").unwrap();
    assert_eq!(mounts.sweep().unwrap(), 1);
    assert!(kept.join("hello").exists() && !left.exists());
    assert_eq!(mounts.mount(&record, "three").unwrap(), kept);
    mounts.release("three").unwrap();
    assert!(kept.join("hello").exists());
    mounts.release("one").unwrap();
    assert!(!kept.exists());
    drop(guard);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.0).output();
    }
}

/// A step of building a random tree.
#[derive(Debug, Clone)]
enum Step {
    File(Vec<u8>, usize),
    Dir(Vec<u8>),
    Symlink(Vec<u8>, Vec<u8>),
    Link(Vec<u8>, usize),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec("[a-c!~.-]{1,3}", 1..4)
        .prop_map(|parts| parts.join("/").into_bytes())
        .prop_filter("no dots alone", |p| {
            !p.split(|&b| b == b'/').any(|c| c == b"." || c == b"..")
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (path(), prop_oneof![0..20usize, 3000..5000usize, 8000..20_000usize]).prop_map(|(p, n)| Step::File(p, n)),
        2 => path().prop_map(Step::Dir),
        1 => (path(), path()).prop_map(|(p, t)| Step::Symlink(p, t)),
        1 => (path(), 0..20usize).prop_map(|(p, n)| Step::Link(p, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_trees(steps in proptest::collection::vec(step(), 0..40)) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        let mut files: Vec<std::path::PathBuf> = Vec::new();
        let full = |p: &[u8]| root.join(std::str::from_utf8(p).unwrap());
        for (i, step) in steps.iter().enumerate() {
            let p = match step { Step::File(p, _) | Step::Dir(p) | Step::Symlink(p, _) | Step::Link(p, _) => full(p) };
            // What does not fit is left out: the tree is what the file system made of it.
            let parent = p.parent().unwrap();
            if parent.ancestors().any(|a| a.is_symlink()) || fs::create_dir_all(parent).is_err() {
                continue;
            }
            match step {
                Step::File(_, n) if fs::symlink_metadata(&p).is_err() => {
                    fs::write(&p, noise(*n, i as u64)).unwrap();
                    files.push(p);
                }
                Step::Dir(_) => drop(fs::create_dir(&p)),
                Step::Symlink(_, t) => drop(symlink(std::str::from_utf8(t).unwrap(), &p)),
                Step::Link(_, n) => drop(files.get(*n).map(|f| fs::hard_link(f, &p))),
                Step::File(..) => {}
            }
        }
        round_trip(&root, &["."], &["--format=posix"]);
    }
}
