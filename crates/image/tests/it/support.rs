//! What the tests share.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use biga_image::layer::{Converted, Limits, convert};
use biga_image::{ImageConfig, ImageRecord, ImageStore, Options};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// Longest that anything may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program; its output, which must be a success.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}{}",
        text(&out.stdout),
        text(&out.stderr)
    );
    text(&out.stdout)
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mounted EROFS file.
pub struct Mounted {
    dir: TempDir,
}

impl Mounted {
    pub fn new(image: &Path) -> Mounted {
        let dir = tempfile::tempdir().unwrap();
        let flags = MountFlags::RDONLY;
        if rustix::mount::mount(image, dir.path(), "erofs", flags, None).is_err() {
            run("mount", &["-t", "erofs", "-o", "ro,loop", str(image), str(dir.path())]);
        }
        Mounted { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// A converted tar.
pub struct Layer {
    pub dir: TempDir,
    pub converted: Converted,
}

impl Layer {
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("erofs")
    }

    pub fn split(&self) -> PathBuf {
        self.dir.path().join("split")
    }

    /// The tar put together again.
    pub fn tar(&self) -> Vec<u8> {
        let open = |p: PathBuf| File::open(p).unwrap();
        let mut reader = biga_image::split::TarReader::new(open(self.split()), open(self.image())).unwrap();
        let mut tar = Vec::new();
        reader.read_to_end(&mut tar).unwrap();
        tar
    }
}

pub fn try_layer(blob: &[u8], limits: &Limits) -> Result<Layer, biga_image::layer::Error> {
    let dir = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join(name))
            .unwrap()
    };
    let converted = convert(blob, create("erofs"), create("split"), limits)?;
    Ok(Layer { dir, converted })
}

pub fn layer(blob: &[u8]) -> Layer {
    try_layer(blob, &Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// `fsck.erofs` has nothing to say.
pub fn fsck(image: &Path) {
    run("fsck.erofs", &[str(image)]);
}

/// All that can be seen of one entry, as text.
fn describe(path: &Path, links: &mut BTreeMap<(u64, u64), String>, name: &str) -> String {
    let m = fs::symlink_metadata(path).unwrap();
    let kind = m.file_type();
    let mut text = format!(
        "mode {:o} uid {} gid {} mtime {}.{:09}",
        m.mode(),
        m.uid(),
        m.gid(),
        m.mtime(),
        m.mtime_nsec()
    );
    if kind.is_file() {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        use sha2::Digest;
        text += &format!(" size {} sha256 {:x?}", m.len(), sha2::Sha256::digest(&bytes));
    }
    if kind.is_symlink() {
        text += &format!(" -> {:?} size {}", fs::read_link(path).unwrap(), m.len());
    }
    if kind.is_char_device() || kind.is_block_device() {
        text += &format!(" rdev {:x}", m.rdev());
    }
    if !kind.is_dir() {
        let first = links.entry((m.dev(), m.ino())).or_insert_with(|| name.to_owned());
        text += &format!(" nlink {} same as {first}", m.nlink());
    }
    text + &xattrs(path)
}

fn xattrs(path: &Path) -> String {
    let mut list = vec![0u8; 65536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut all = BTreeMap::new();
    for name in list[..len].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let name = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0u8; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        all.insert(name.to_owned(), value);
    }
    all.iter().map(|(k, v)| format!(" {k:?}={v:x?}")).collect()
}

/// Every entry below a directory, by its path.
pub fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut all, mut links) = (BTreeMap::new(), BTreeMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        let mut names: Vec<_> = fs::read_dir(root.join(&dir))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let full = root.join(&path);
            if fs::symlink_metadata(&full).unwrap().is_dir() {
                todo.push(path.clone());
            }
            all.insert(path, full);
        }
    }
    all.into_iter()
        .map(|(path, full)| {
            let text = describe(&full, &mut links, str(&path));
            (path, text)
        })
        .collect()
}

/// The mounted image and the extracted tree agree in every entry.
pub fn assert_same(mounted: &Path, extracted: &Path) {
    let (a, b) = (inventory(mounted), inventory(extracted));
    for (path, text) in &b {
        assert_eq!(a.get(path), Some(text), "{path:?}");
    }
    for path in a.keys() {
        assert!(b.contains_key(path), "{path:?} is too much");
    }
}

pub struct TarBuilder(pub tar::Builder<Vec<u8>>);

impl TarBuilder {
    pub fn new() -> TarBuilder {
        TarBuilder(tar::Builder::new(Vec::new()))
    }

    pub fn entry(mut self, name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> TarBuilder {
        let mut h = tar::Header::new_gnu();
        // Set raw, as the builder itself refuses what hostile tars have.
        let field = &mut h.as_gnu_mut().unwrap().name;
        assert!(name.len() < field.len());
        field[..name.len()].copy_from_slice(name.as_bytes());
        h.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_entry_type(kind);
        h.set_size(content.len() as u64);
        h.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_700_000_000);
        h.set_cksum();
        self.0.append(&h, content).unwrap();
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> TarBuilder {
        self.entry(name, tar::EntryType::Regular, "", content)
    }

    pub fn dir(self, name: &str) -> TarBuilder {
        self.entry(name, tar::EntryType::Directory, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> TarBuilder {
        self.entry(name, tar::EntryType::Symlink, target, b"")
    }

    pub fn link(self, name: &str, target: &str) -> TarBuilder {
        self.entry(name, tar::EntryType::Link, target, b"")
    }

    pub fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

pub fn sha(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A store of its own in a directory that goes with it.
pub struct Store {
    pub store: Arc<ImageStore>,
    pub dir: TempDir,
}

impl Store {
    pub fn new() -> Store {
        Store::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let mut options = quick();
        change(&mut options);
        let store = ImageStore::open(dir.path(), options).unwrap();
        Store { store, dir }
    }

    /// Names of the files in one of its directories.
    pub fn files(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(dir)).unwrap();
        let mut all: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    pub async fn import(&self, tar: Vec<u8>, cmd: &str) -> ImageRecord {
        let config = ImageConfig {
            cmd: vec![cmd.into()],
            env: vec!["A=b".into()],
            ..ImageConfig::default()
        };
        self.store
            .import_rootfs(std::io::Cursor::new(tar), config, None)
            .await
            .unwrap()
    }
}

/// Options for tests: no grace, short pauses.
pub fn quick() -> Options {
    Options {
        gc_grace: Duration::ZERO,
        backoff: Duration::from_millis(10),
        certs_dir: "/nonexistent/certs.d".into(),
        ..Options::default()
    }
}

/// Debian's registry on a port of its own.
pub struct Registry {
    child: Child,
    pub host: String,
    _dir: TempDir,
}

impl Registry {
    pub fn plain() -> Registry {
        Registry::start(|_| String::new())
    }

    /// `http` gives further lines of the configuration, indented by two below `http:` or at the top.
    pub fn start(config: impl Fn(&Path) -> String) -> Registry {
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let host = format!("127.0.0.1:{port}");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{}",
                str(&dir.path().join("data")),
                config(dir.path()),
            );
            let file = dir.path().join("config.yml");
            fs::write(&file, text).unwrap();
            let child = Command::new("docker-registry")
                .args(["serve", str(&file)])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry");
            let mut registry = Registry { child, host, _dir: dir };
            if registry.wait() {
                return registry;
            }
        }
        panic!("docker-registry does not start");
    }

    /// One that lets in `me` with `secret` alone.
    pub fn with_password() -> Registry {
        // The password as bcrypt with the lowest cost that the registry takes.
        const HASH: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
        Registry::start(|dir| {
            fs::write(dir.join("htpasswd"), format!("me:{HASH}\n")).unwrap();
            let file = dir.join("htpasswd");
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", str(&file))
        })
    }

    fn wait(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if std::net::TcpStream::connect(&self.host).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn reference(&self, name: &str) -> biga_model::Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
