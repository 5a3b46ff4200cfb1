//! The kernel for microvms: a Debian kernel made ready to boot at once.
//!
//! [`prepare_kernel`] fills a directory:
//!
//! ```text
//! out/
//!   vmlinux      uncompressed ELF kernel, booted directly
//!   initrd.img   cpio: our init, and the modules
//!   modules/     the modules, kept so that a new init needs no new download
//!   meta.json    what all this was made from; written last
//! ```
//!
//! - [`bzimage`]: the ELF kernel inside a packed one
//! - [`modules`]: which modules, in which order
//! - [`cpio`]: the archive

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub mod bzimage;
pub mod cpio;
pub mod modules;

use cpio::Archive;
use modules::Module;

/// Layout of the directory; a new number makes everything anew.
const FORMAT: u32 = 1;

/// Package whose dependency is the newest kernel that fits.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Where a kernel comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Debian's cloud kernel, fetched by `apt-get download`.
    Download,
    /// A Debian kernel package at hand.
    Deb(PathBuf),
    /// The packed kernel and the modules of a host.
    Host {
        /// As `/boot/vmlinuz-6.1.0-57-amd64`.
        vmlinuz: PathBuf,
        /// As `/lib/modules/6.1.0-57-amd64`.
        modules: PathBuf,
    },
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The ELF kernel.
    pub vmlinux: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// Its release, as `6.1.0-57-cloud-amd64`.
    pub release: String,
}

/// Content of `meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Layout.
    pub format: u32,
    /// Release of the kernel.
    pub release: String,
    /// SHA-256 of the init program, hexadecimal.
    pub guest_sha256: String,
    /// Modules in the initramfs.
    pub modules: Vec<Module>,
}

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot {what} {path}")]
    File {
        /// As `read`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program did not start.
    #[error("cannot run {program}; install the package {package}")]
    Start {
        /// The program.
        program: String,
        /// Where it is.
        package: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {words}")]
    Program {
        /// Program and arguments.
        program: String,
        /// Its last words.
        words: String,
    },
    /// No package.
    #[error("apt knows no kernel by the name {META_PACKAGE}; run `apt-get update` first, or give a package with --deb")]
    NoPackage,
    /// A package without a kernel.
    #[error("{0} holds no kernel: there is no boot/vmlinuz-* and lib/modules/* in it")]
    NoKernel(PathBuf),
    /// The packed kernel.
    #[error("cannot unpack the kernel {path}")]
    BzImage {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: bzimage::Error,
    },
    /// The modules.
    #[error(transparent)]
    Modules(#[from] modules::Error),
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

/// The kernel in `out_dir` if it was made already and with this init program; does nothing else.
pub fn existing_kernel(out_dir: &Path, guest: &[u8]) -> Option<Kernel> {
    let meta = read_meta(out_dir)?;
    let kernel = kernel_of(out_dir, &meta);
    let whole = meta.guest_sha256 == sha256(guest) && kernel.vmlinux.is_file() && kernel.initrd.is_file();
    whole.then_some(kernel)
}

/// Makes kernel and initramfs in `out_dir`, with `guest` as the init program. What is there and fits is kept: a new init
/// program only packs the initramfs anew. Several callers wait for each other.
pub fn prepare_kernel(out_dir: &Path, source: &Source, guest: &[u8]) -> Result<Kernel, Error> {
    fs::create_dir_all(out_dir).map_err(file_error("make", out_dir))?;
    let _lock = lock(out_dir)?;
    if let Some(kernel) = existing_kernel(out_dir, guest) {
        return Ok(kernel);
    }
    let meta = match read_meta(out_dir).filter(|m| is_whole(out_dir, m)) {
        Some(meta) => meta,
        None => fetch(out_dir, source)?,
    };
    pack(out_dir, meta, guest)
}

/// Makes everything anew from `source`, also where a kernel is there already.
pub fn replace_kernel(out_dir: &Path, source: &Source, guest: &[u8]) -> Result<Kernel, Error> {
    fs::create_dir_all(out_dir).map_err(file_error("make", out_dir))?;
    let _lock = lock(out_dir)?;
    let meta = fetch(out_dir, source)?;
    pack(out_dir, meta, guest)
}

fn kernel_of(out_dir: &Path, meta: &Meta) -> Kernel {
    Kernel {
        vmlinux: out_dir.join("vmlinux"),
        initrd: out_dir.join("initrd.img"),
        release: meta.release.clone(),
    }
}

fn read_meta(out_dir: &Path) -> Option<Meta> {
    let bytes = fs::read(out_dir.join("meta.json")).ok()?;
    let meta: Meta = serde_json::from_slice(&bytes).ok()?;
    (meta.format == FORMAT).then_some(meta)
}

fn is_whole(out_dir: &Path, meta: &Meta) -> bool {
    let modules = out_dir.join("modules");
    out_dir.join("vmlinux").is_file() && meta.modules.iter().all(|m| modules.join(m.file()).is_file())
}

fn lock(out_dir: &Path) -> Result<File, Error> {
    let path = out_dir.join(".lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(file_error("open", &path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| file_error("lock", &path)(e.into()))?;
    Ok(file)
}

/// Fills `vmlinux` and `modules` from the source. The meta data is taken away first and comes back last.
fn fetch(out_dir: &Path, source: &Source) -> Result<Meta, Error> {
    let temp = tempfile::Builder::new().prefix(".fetch-").tempdir_in(out_dir);
    let temp = temp.map_err(file_error("make a directory in", out_dir))?;
    let (vmlinuz, tree) = match source {
        Source::Host { vmlinuz, modules } => (vmlinuz.clone(), modules.clone()),
        Source::Deb(deb) => unpack(deb, temp.path())?,
        Source::Download => unpack(&download(temp.path())?, temp.path())?,
    };
    let release = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let packed = fs::read(&vmlinuz).map_err(file_error("read", &vmlinuz))?;
    let elf = bzimage::vmlinux(&packed).map_err(|source| Error::BzImage { path: vmlinuz, source })?;
    let found = modules::collect(&tree)?;

    let meta_path = out_dir.join("meta.json");
    match fs::remove_file(&meta_path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error("remove", &meta_path)(e)),
        _ => {}
    }
    let dir = out_dir.join("modules");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(file_error("make", &dir))?;
    for (module, bytes) in &found {
        replace(&dir.join(module.file()), bytes)?;
    }
    replace(&out_dir.join("vmlinux"), &elf)?;
    Ok(Meta {
        format: FORMAT,
        release,
        guest_sha256: String::new(),
        modules: found.into_iter().map(|(m, _)| m).collect(),
    })
}

/// Packs the initramfs and writes the meta data.
fn pack(out_dir: &Path, mut meta: Meta, guest: &[u8]) -> Result<Kernel, Error> {
    let mut archive = Archive::new();
    archive.dir("dev", 0o755);
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.dir("modules", 0o755);
    archive.file("init", 0o755, guest);
    archive.file("modules/order", 0o644, modules::order(&meta.modules).as_bytes());
    for module in &meta.modules {
        let path = out_dir.join("modules").join(module.file());
        let bytes = fs::read(&path).map_err(file_error("read", &path))?;
        archive.file(&format!("modules/{}", module.file()), 0o644, &bytes);
    }
    replace(&out_dir.join("initrd.img"), &archive.finish())?;
    meta.guest_sha256 = sha256(guest);
    // Our own type: it cannot fail to serialize.
    let json = serde_json::to_vec_pretty(&meta).unwrap_or_default();
    replace(&out_dir.join("meta.json"), &json)?;
    Ok(kernel_of(out_dir, &meta))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Puts a file in place at once.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = path.with_file_name(format!(".{name}.new"));
    fs::write(&temp, bytes).map_err(file_error("write", &temp))?;
    fs::rename(&temp, path).map_err(file_error("put in place", path))
}

/// Fetches the newest cloud kernel into `dir`.
fn download(dir: &Path) -> Result<PathBuf, Error> {
    let mut show = Command::new("apt-cache");
    show.args(["depends", "--no-recommends", "--no-suggests", META_PACKAGE]);
    let depends = run(show, "apt").map_err(|e| match e {
        Error::Program { .. } => Error::NoPackage,
        other => other,
    })?;
    let text = String::from_utf8_lossy(&depends);
    let package = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends:"))
        .map(str::trim)
        .find(|p| p.starts_with("linux-image-"))
        .ok_or(Error::NoPackage)?;
    let mut get = Command::new("apt-get");
    get.args(["-o", "DPkg::Lock::Timeout=120", "-q", "download", package])
        .current_dir(dir);
    run(get, "apt")?;
    let entries = fs::read_dir(dir).map_err(file_error("read", dir))?;
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .ok_or(Error::NoPackage)
}

/// Unpacks a kernel package below `dir`: the packed kernel and the modules' directory.
fn unpack(deb: &Path, dir: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let root = dir.join("root");
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("-x").arg(deb).arg(&root);
    run(dpkg, "dpkg")?;
    let none = || Error::NoKernel(deb.to_owned());
    let first = |dir: &Path, prefix: &str| -> Option<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(dir).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
        found.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)));
        found.sort();
        found.into_iter().next()
    };
    let vmlinuz = first(&root.join("boot"), "vmlinuz-").ok_or_else(none)?;
    // Packages of merged-usr suites have their modules below usr.
    let modules = first(&root.join("lib/modules"), "")
        .or_else(|| first(&root.join("usr/lib/modules"), ""))
        .ok_or_else(none)?;
    Ok((vmlinuz, modules))
}

/// Runs a program and gives its output.
fn run(mut command: Command, package: &'static str) -> Result<Vec<u8>, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.env("LC_ALL", "C").stdin(Stdio::null()).output();
    let out = out.map_err(|source| Error::Start {
        program: program.clone(),
        package,
        source,
    })?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(Error::Program {
        program,
        words: words
            .trim()
            .chars()
            .rev()
            .take(500)
            .collect::<Vec<_>>()
            .iter()
            .rev()
            .collect(),
    })
}
