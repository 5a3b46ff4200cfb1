//! Trees as tars and back, in trees that a hostile container changes meanwhile; what an overlay changed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use biga_image::files::stat::find;
use biga_image::files::unpack::unpack;
use biga_image::files::{ChangeKind, Crossing, Error, Ids, Owner, Packer, Unpack, changes};
use biga_image::{Commit, ImageId};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use crate::support::*;

const AS_IT_SAYS: Unpack = Unpack {
    owner: Owner::Archive,
    keep_kinds: true,
    rename: None,
    ids: Ids(None),
};

fn pack(root: &Path, path: &str) -> Result<Vec<u8>, Error> {
    let root = File::open(root).unwrap();
    let mut packer = Packer::new(Vec::new(), Crossing::Enter);
    packer.add(&find(root.as_fd(), path)?)?;
    packer.finish()
}

fn put(root: &Path, dest: &str, tar: &[u8]) -> Result<(), Error> {
    let root = File::open(root).unwrap();
    unpack(root.as_fd(), dest, tar, AS_IT_SAYS)
}

/// Names as `tar -t` prints them.
fn list(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect()
}

/// A tree with all kinds of files below `dir`.
fn zoo(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deeper")).unwrap();
    fs::write(dir.join("sub/file"), noise(300_000, 3)).unwrap();
    fs::write(dir.join("sub/empty"), "").unwrap();
    fs::hard_link(dir.join("sub/file"), dir.join("sub/deeper/again")).unwrap();
    symlink("../file", dir.join("sub/deeper/link")).unwrap();
    fs::write(dir.join(format!("sub/{}", "n".repeat(200))), "long").unwrap();
    fs::write(dir.join("sub/grün"), "umlaut").unwrap();
    run("mkfifo", &["-m", "600", str(&dir.join("sub/pipe"))]);
    run("mknod", &["-m", "640", str(&dir.join("sub/dev")), "c", "7", "300"]);
    run("chown", &["-h", "3000000:77", str(&dir.join("sub/deeper/link"))]);
    run("chown", &["5:6", str(&dir.join("sub/file"))]);
    fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(dir.join("sub/deeper"), fs::Permissions::from_mode(0o1700)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join("sub/file"), "user.note", b"kept", flags).unwrap();
    for (path, time) in [
        ("sub/empty", "@-12.5"),
        ("sub/deeper", "@1700000000.123456789"),
        ("sub", "@99"),
    ] {
        run("touch", &["-h", "-d", time, str(&dir.join(path))]);
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    zoo(from.path());
    let tar = pack(from.path(), "/sub").unwrap();
    put(to.path(), "/", &tar).unwrap();
    assert_same(from.path(), to.path());
    // GNU tar reads it the same.
    let gnu = tempfile::tempdir().unwrap();
    let file = from.path().join("x.tar");
    fs::write(&file, &tar).unwrap();
    run(
        "tar",
        &[
            "--xattrs",
            "--xattrs-include=user.*",
            "--numeric-owner",
            "-xpf",
            str(&file),
            "-C",
            str(gnu.path()),
        ],
    );
    assert_same(to.path(), gnu.path());
    // And what GNU tar writes we read, compressed or not.
    for how in ["--gzip", "--zstd", "--sparse"] {
        let again = tempfile::tempdir().unwrap();
        run(
            "tar",
            &[
                "--xattrs",
                "--format=posix",
                how,
                "-cf",
                str(&file),
                "-C",
                str(to.path()),
                "sub",
            ],
        );
        put(again.path(), "/", &fs::read(&file).unwrap()).unwrap();
        assert_same(to.path(), again.path());
    }
}

#[test]
fn names_in_the_tar_are_dockers() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "x").unwrap();
    symlink("/d", dir.path().join("l")).unwrap();
    for (path, want) in [
        ("/d", vec!["d/", "d/f"]),
        ("d/", vec!["d/", "d/f"]),
        ("/d/.", vec!["./", "./f"]),
        ("/d/f", vec!["f"]),
        ("/l", vec!["l"]),
        ("/l/", vec!["l/", "l/f"]),
        ("/l/.", vec!["./", "./f"]),
        ("/", vec!["/", "/d/", "/d/f", "/l"]),
    ] {
        assert_eq!(list(&pack(dir.path(), path).unwrap()), want, "{path}");
    }
    assert!(matches!(pack(dir.path(), "/none"), Err(Error::NotFound(_))));
    assert!(matches!(pack(dir.path(), "/d/f/"), Err(Error::NotADirectory(_))));
}

#[test]
fn the_kernels_own_files_are_not_copied() {
    let root = Path::new("/");
    for path in [
        "/proc",
        "/proc/self/environ",
        "/sys/kernel",
        "/proc/self/root/etc/passwd",
    ] {
        assert!(pack(root, path).is_err(), "{path}");
        assert!(
            put(root, path, &TarBuilder::new().file("x", b"y").end()).is_err(),
            "{path}"
        );
    }
}

#[test]
fn mount_points_are_entered_or_stay_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mnt = dir.path().join("mnt");
    fs::create_dir(&mnt).unwrap();
    fs::write(dir.path().join("top"), "t").unwrap();
    rustix::mount::mount("tmpfs", &mnt, "tmpfs", MountFlags::empty(), None).unwrap();
    let _guard = Unmount(mnt.clone());
    fs::write(mnt.join("inner"), "i").unwrap();
    let root = File::open(dir.path()).unwrap();
    for (crossing, want) in [
        (Crossing::Enter, vec!["mnt/", "mnt/inner", "top"]),
        (Crossing::Stay, vec!["mnt/", "top"]),
    ] {
        let mut packer = Packer::new(Vec::new(), crossing);
        packer.add_content(root.as_fd()).unwrap();
        assert_eq!(list(&packer.finish().unwrap()), want);
    }
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn directories_and_other_files_do_not_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/inner")).unwrap();
    fs::write(dir.path().join("f"), "old").unwrap();
    symlink("d", dir.path().join("l")).unwrap();
    for tar in [
        TarBuilder::new().file("d", b"x").end(),
        TarBuilder::new().dir("f").end(),
        TarBuilder::new().dir("l").end(),
        TarBuilder::new().symlink("d", "f").end(),
    ] {
        assert!(matches!(put(dir.path(), "/", &tar), Err(Error::InTheWay(_))));
    }
    assert!(dir.path().join("d/inner").is_dir());
    // Unless that is wanted; and files replace files always.
    let root = File::open(dir.path()).unwrap();
    let replace = Unpack {
        keep_kinds: false,
        owner: Owner::Fixed(12, 34),
        rename: None,
        ids: Ids(None),
    };
    let tar = TarBuilder::new()
        .file("d", b"now a file")
        .dir("f")
        .file("f/x/y", b"deep")
        .end();
    unpack(root.as_fd(), "/", &tar[..], replace).unwrap();
    assert_eq!(fs::read(dir.path().join("d")).unwrap(), b"now a file");
    use std::os::unix::fs::MetadataExt;
    for p in ["d", "f", "f/x", "f/x/y"] {
        let m = fs::metadata(dir.path().join(p)).unwrap();
        assert_eq!((m.uid(), m.gid()), (12, 34), "{p}");
    }
}

#[test]
fn nothing_is_written_outside() {
    let base = tempfile::tempdir().unwrap();
    let (root, outside) = (base.path().join("root"), base.path().join("outside"));
    fs::create_dir_all(root.join("in")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "host").unwrap();
    fs::set_permissions(outside.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&outside, root.join("abs")).unwrap();
    symlink("../outside", root.join("up")).unwrap();
    symlink("/in", root.join("fine")).unwrap();
    for name in ["../outside/new", "in/../../outside/new", "/../outside/new"] {
        let tar = TarBuilder::new().file(name, b"x").end();
        assert!(matches!(put(&root, "/", &tar), Err(Error::Escape(_))), "{name}");
    }
    // What the links lead to is looked for beneath the root, where it is not.
    for tar in [
        TarBuilder::new().file("up/new", b"x").end(),
        TarBuilder::new().symlink("s", "../outside").file("s/new", b"x").end(),
        TarBuilder::new().symlink("s", str(&outside)).file("s/new", b"x").end(),
        TarBuilder::new().link("h", "up/secret").end(),
    ] {
        let _ = put(&root, "/", &tar);
    }
    assert!(put(&root, "/abs", &TarBuilder::new().file("new", b"x").end()).is_err());
    assert!(put(&root, "/up", &TarBuilder::new().file("new", b"x").end()).is_err());
    // A link at the end is replaced and not written through.
    symlink(outside.join("secret"), root.join("s2")).unwrap();
    put(&root, "/", &TarBuilder::new().file("s2", b"inside").end()).unwrap();
    assert_eq!(fs::read(root.join("s2")).unwrap(), b"inside");
    // One that stays inside is followed.
    put(&root, "/fine", &TarBuilder::new().file("new", b"x").end()).unwrap();
    put(&root, "/", &TarBuilder::new().file("fine/more", b"x").end()).unwrap();
    assert!(root.join("in/new").is_file() && root.join("in/more").is_file());
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"host");
}

/// A tree in which a name is now a directory and now a link to the outside, as fast as can be (CVE-2018-15664).
struct Swapping {
    base: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapping {
    fn new() -> Swapping {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        fs::create_dir_all(root.join("stash")).unwrap();
        fs::create_dir(root.join("stash/dir")).unwrap();
        fs::write(root.join("stash/dir/secret"), "inside").unwrap();
        fs::create_dir(base.path().join("outside")).unwrap();
        fs::write(base.path().join("outside/secret"), "host").unwrap();
        symlink(base.path().join("outside"), root.join("stash/link")).unwrap();
        fs::rename(root.join("stash/dir"), root.join("swap")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (end, at) = (stop.clone(), root.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for (out, into) in [("stash/dir", "stash/link"), ("stash/link", "stash/dir")] {
                    let _ = fs::rename(at.join("swap"), at.join(out));
                    let _ = fs::rename(at.join(into), at.join("swap"));
                }
            }
        });
        Swapping {
            base,
            stop,
            thread: Some(thread),
        }
    }

    fn root(&self) -> std::path::PathBuf {
        self.base.path().join("root")
    }

    fn assert_outside_is_whole(&self) {
        let outside = self.base.path().join("outside");
        let names: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"host");
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_swapped_directory_leads_nowhere_on_reading() {
    let tree = Swapping::new();
    for _ in 0..400 {
        for path in ["/swap/secret", "/swap/", "/"] {
            if let Ok(tar) = pack(&tree.root(), path) {
                assert!(!tar.windows(4).any(|w| w == b"host"), "{path}");
            }
        }
    }
}

#[test]
fn a_swapped_directory_leads_nowhere_on_writing() {
    let tree = Swapping::new();
    let tar = TarBuilder::new()
        .dir("swap")
        .file("swap/secret", b"inside")
        .file("swap/more", b"inside")
        .symlink("swap/sym", "x")
        .entry("swap/fifo", tar::EntryType::Fifo, "", b"")
        .link("swap/hard", "swap/secret")
        .end();
    let inner = TarBuilder::new().file("secret", b"inside").file("more", b"x").end();
    for _ in 0..400 {
        let _ = put(&tree.root(), "/", &tar);
        let _ = put(&tree.root(), "/swap", &inner);
        tree.assert_outside_is_whole();
    }
}

#[test]
fn a_file_that_changes_its_size_gives_a_whole_tar() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, vec![1; 100_000]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (end, at) = (stop.clone(), path.clone());
    let thread = std::thread::spawn(move || {
        let f = File::options().write(true).open(at).unwrap();
        while !end.load(Ordering::Relaxed) {
            for size in [0, 700_000, 13] {
                f.set_len(size).unwrap();
            }
        }
    });
    for _ in 0..300 {
        assert_eq!(list(&pack(dir.path(), "/").unwrap()), ["/", "/f"]);
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn bounds_hold() {
    let dir = tempfile::tempdir().unwrap();
    let deep = vec!["d"; 400].join("/");
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    assert!(matches!(pack(dir.path(), "/"), Err(Error::TooMuch(_))));
    let bytes = noise(900, 1);
    assert!(put(dir.path(), "/", &bytes).is_err(), "noise is no tar");
    let cut = &TarBuilder::new().file("x", &bytes).end()[..700];
    assert!(put(dir.path(), "/", cut).is_err(), "a tar that is cut off");
}

/// A real overlay: lower directories below an upper one.
struct Overlay {
    dir: TempDir,
}

impl Overlay {
    fn new(fill: impl FnOnce(&Path)) -> Overlay {
        let dir = tempfile::tempdir().unwrap();
        for d in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.path().join(d)).unwrap();
        }
        fill(&dir.path().join("lower"));
        let at = |d: &str| dir.path().join(d).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            at("lower"),
            at("upper"),
            at("work")
        );
        let options = std::ffi::CString::new(options).unwrap();
        let none = MountFlags::empty();
        rustix::mount::mount(
            "overlay",
            dir.path().join("merged"),
            "overlay",
            none,
            options.as_c_str(),
        )
        .unwrap();
        Overlay { dir }
    }

    /// Runs a script in the merged tree.
    fn sh(&self, script: &str) {
        let mut c = Command::new("sh");
        c.args(["-ec", script]).current_dir(self.dir.path().join("merged"));
        assert!(c.status().unwrap().success(), "{script}");
    }

    fn changes(&self) -> Vec<changes::Change> {
        let open = |d: &str| File::open(self.dir.path().join(d)).unwrap();
        let (upper, lower) = (open("upper"), open("lower"));
        changes::list(upper.as_fd(), Some(lower.as_fd())).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        let letter = |k| match k {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        let show = |c: &changes::Change| format!("{} {}", letter(c.kind), String::from_utf8_lossy(&c.path));
        self.changes().iter().map(show).collect()
    }

    fn layer(&self) -> Vec<u8> {
        let upper = File::open(self.dir.path().join("upper")).unwrap();
        changes::write_layer(upper.as_fd(), &self.changes(), Vec::new()).unwrap()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path().join("merged"), UnmountFlags::DETACH);
    }
}

fn image(dir: &Path) {
    for d in ["etc/conf.d", "var/cache/deep", "data", "same"] {
        fs::create_dir_all(dir.join(d)).unwrap();
    }
    for f in [
        "etc/passwd",
        "etc/conf.d/one",
        "etc/conf.d/two",
        "var/cache/a",
        "var/cache/deep/b",
        "data/f",
        "same/f",
    ] {
        fs::write(dir.join(f), format!("image's {f}")).unwrap();
    }
    symlink("f", dir.join("data/link")).unwrap();
}

#[test]
fn changes_are_listed_as_they_are() {
    let o = Overlay::new(image);
    assert_eq!(o.lines(), [""; 0]);
    // Places for mounts, as the engine makes them.
    o.sh("mkdir dev proc sys; : > etc/hosts; : > etc/hostname; : > etc/resolv.conf");
    assert_eq!(o.lines(), [""; 0]);
    o.sh("rm -r var/cache; mkdir var/cache; echo x > var/cache/a; echo x > var/cache/c");
    o.sh("echo more >> etc/passwd; rm etc/conf.d/one; mkdir -p new/sub; echo x > new/sub/f");
    o.sh("chmod 700 same; rm data/link; mkdir data/link; rm data/f; echo x > tmp; rm tmp");
    let want = [
        "C data",
        "D data/f",
        "C data/link",
        "C etc",
        "C etc/conf.d",
        "D etc/conf.d/one",
        "C etc/passwd",
        "A new",
        "A new/sub",
        "A new/sub/f",
        "C same",
        "C var",
        "C var/cache",
        "C var/cache/a",
        "A var/cache/c",
        "D var/cache/deep",
    ];
    assert_eq!(o.lines(), want);
}

#[test]
fn only_a_time_is_a_change_too() {
    let o = Overlay::new(image);
    o.sh("touch -d @77 same");
    assert_eq!(o.lines(), ["C same"]);
    o.sh("touch -h -d @77 data/link");
    assert_eq!(o.lines(), ["C data", "C data/link", "C same"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_layer_gives_the_same_tree() {
    let o = Overlay::new(image);
    o.sh("rm -r var/cache; mkdir var/cache; echo x > var/cache/a; echo more >> etc/passwd; rm etc/conf.d/one");
    o.sh("mkdir -p new; echo x > new/f; ln new/f new/g; chmod 700 same; chown 5:6 data/f; ln -s nowhere new/l");
    o.sh("rm data/link; mkdir data/link; touch -d @77 data/link");
    let s = Store::new();
    let mut base = TarBuilder::new();
    base.0.follow_symlinks(false);
    base.0.append_dir_all("", o.dir.path().join("lower")).unwrap();
    let base = s.import(base.end(), "app").await;
    let mut config = serde_json::Map::new();
    config.insert("Cmd".into(), serde_json::json!(["new"]));
    let commit = Commit {
        config,
        author: "Ann".into(),
        comment: "why".into(),
        created_by: "sh".into(),
        created: "2026-01-02T03:04:05Z".into(),
    };
    let made = s
        .store
        .commit(&base.image_id, std::io::Cursor::new(o.layer()), commit.clone())
        .await
        .unwrap();
    assert_eq!(made.layers.len(), 2);
    assert_eq!(made.layers[0], base.layers[0]);
    assert_eq!(made.config.cmd, ["new"]);
    let raw: serde_json::Value = serde_json::from_slice(&s.store.raw_config(&made.image_id).unwrap()).unwrap();
    assert_eq!(
        (&raw["author"], &raw["created"]),
        (&"Ann".into(), &"2026-01-02T03:04:05Z".into())
    );
    let history = raw["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(
        (&history[1]["comment"], &history[1]["created_by"]),
        (&"why".into(), &"sh".into())
    );
    // What is mounted of it is what the container had.
    let (low, high) = (Mounted::new(&made.layers[0].file), Mounted::new(&made.layers[1].file));
    let both = tempfile::tempdir().unwrap();
    let options = format!("lowerdir={}:{}", str(high.path()), str(low.path()));
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount(
        "overlay",
        both.path(),
        "overlay",
        MountFlags::RDONLY,
        options.as_c_str(),
    )
    .unwrap();
    let _guard = Unmount(both.path().to_path_buf());
    let show = |tree: &Path| {
        let script = "find . -not -name . -printf '%P %y %m %U:%G %l ' -exec sh -c 'test -f \"$1\" -a ! -L \"$1\" && cat \"$1\"; echo' _ {} \\; | sort";
        let out = Command::new("sh")
            .args(["-c", script])
            .current_dir(tree)
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(show(both.path()), show(&o.dir.path().join("merged")));
    // The same once more is the same image, and it can go to an archive and come back.
    let again = s
        .store
        .commit(&base.image_id, std::io::Cursor::new(o.layer()), commit)
        .await
        .unwrap();
    assert_eq!(again.image_id, made.image_id);
    let file = s.dir.path().join("x.tar");
    let out = tokio::fs::File::create(&file).await.unwrap();
    let names = vec!["made:1".parse().unwrap()];
    s.store
        .save(&[(made.image_id.clone(), names)], out, biga_image::ArchiveFormat::Oci)
        .await
        .unwrap();
    let other = Store::new();
    let loaded = other
        .store
        .load(tokio::fs::File::open(&file).await.unwrap(), None)
        .await
        .unwrap();
    assert_eq!(loaded[0].record.image_id, made.image_id);
    let nobody: ImageId = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    assert!(
        s.store
            .commit(&nobody, std::io::empty(), Commit::default())
            .await
            .is_err()
    );
}
