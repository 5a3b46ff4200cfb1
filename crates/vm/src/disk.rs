//! Disk images: clones, sizes, and a look at what a header claims before QEMU believes it.
//!
//! A qcow2 header can name any file of the host as its backing or data file, which a guest could then read. So an image from outside
//! is looked at by [`inspect`] first, and its format is always named, never guessed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Formats the engine keeps images in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bytes as they are.
    Raw,
    /// QEMU's own.
    Qcow2,
}

impl Format {
    /// As QEMU calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Format of the file.
    pub format: Format,
    /// Bytes of the disk that a guest sees.
    pub size: u64,
}

/// Why a disk cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot {what} {path}")]
    File {
        /// As `open`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A header that asks for too much.
    #[error("the disk image {path} is refused: {why}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// The cause.
        why: &'static str,
    },
    /// The tool is missing.
    #[error("cannot run qemu-img; install the package qemu-utils")]
    Start(#[source] io::Error),
    /// The tool failed.
    #[error("qemu-img cannot {what} {path}: {words}")]
    Tool {
        /// As `resize`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Its words.
        words: String,
    },
}

const MAGIC: &[u8] = b"QFI\xfb";
/// Bytes of a qcow2 header that are looked at.
const HEADER: usize = 104;
/// Incompatible features that stay within the file: dirty, corrupt, compression type, extended entries.
const HARMLESS: u64 = 1 | 2 | 8 | 16;
/// The largest disk, bytes.
const MAX_SIZE: u64 = 64 << 40;

/// Looks at an image from outside without QEMU. Refused is a qcow2 that refers to other files or that QEMU would not open
/// safely; anything else is taken as raw.
pub fn inspect(path: &Path) -> Result<Info, Error> {
    let file = |what, source| Error::File {
        what,
        path: path.to_owned(),
        source,
    };
    let mut f = File::open(path).map_err(|e| file("open", e))?;
    let mut header = Vec::new();
    f.by_ref()
        .take(HEADER as u64)
        .read_to_end(&mut header)
        .map_err(|e| file("read", e))?;
    if !header.starts_with(MAGIC) {
        let size = f.seek(SeekFrom::End(0)).map_err(|e| file("read", e))?;
        return Ok(Info {
            format: Format::Raw,
            size,
        });
    }
    let size = qcow2_size(&header).map_err(|why| Error::Refused {
        path: path.to_owned(),
        why,
    })?;
    Ok(Info {
        format: Format::Qcow2,
        size,
    })
}

fn qcow2_size(header: &[u8]) -> Result<u64, &'static str> {
    let be32 = |at: usize| {
        header
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_be_bytes)
    };
    let be64 = |at: usize| {
        header
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_be_bytes)
    };
    let cut = "its header is cut off";
    let version = be32(4).ok_or(cut)?;
    if be64(8).ok_or(cut)? != 0 {
        return Err("it has a backing file; flatten it with `qemu-img convert` first");
    }
    if be32(32).ok_or(cut)? != 0 {
        return Err("it is encrypted; decrypt it with `qemu-img convert` first");
    }
    match version {
        2 => {}
        3 if be64(72).ok_or(cut)? & !HARMLESS != 0 => {
            return Err(
                "it keeps its data in another file, or needs a feature that is not known; convert it with `qemu-img convert` first",
            );
        }
        3 => {}
        _ => return Err("its version of qcow2 is not known"),
    }
    let size = be64(24).ok_or(cut)?;
    match size {
        0 => Err("its disk has no size"),
        n if n > MAX_SIZE => Err("its disk is larger than 64 TiB"),
        n => Ok(n),
    }
}

/// Makes a linked clone: a qcow2 at `clone` that holds only what differs from `base`, at least as large as `size` asks for.
/// `base` must have passed [`inspect`], and must not change as long as a clone exists.
pub fn clone(base: &Path, base_info: Info, clone: &Path, size: Option<u64>) -> Result<(), Error> {
    let temp = clone.with_extension("new");
    let size = size.unwrap_or(0).max(base_info.size);
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-u", "-F", base_info.format.name(), "-b"]);
    command.arg(base).arg(&temp).arg(size.to_string());
    qemu_img(command, "make a clone of", base)?;
    fs::rename(&temp, clone).map_err(|source| Error::File {
        what: "put in place",
        path: clone.to_owned(),
        source,
    })
}

/// Makes the disk larger, while nothing uses it. A smaller size is refused: it would cut data off.
pub fn grow(path: &Path, format: Format, size: u64) -> Result<(), Error> {
    let mut command = Command::new("qemu-img");
    command
        .args(["resize", "-q", "-f", format.name()])
        .arg(path)
        .arg(size.to_string());
    qemu_img(command, "resize", path)
}

/// Makes an empty raw disk. It takes no space until written to.
pub fn raw(path: &Path, size: u64) -> Result<(), Error> {
    let failed = |what| {
        move |source| Error::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let file = File::options()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed("make"))?;
    file.set_len(size).map_err(failed("size"))
}

/// Makes an empty raw disk with an ext4 file system, as block volumes for microvms are.
pub fn ext4(path: &Path, size: u64) -> Result<(), Error> {
    crate::microvm::boot::make_ext4(path, size).map_err(|fault| Error::File {
        what: "make",
        path: path.to_owned(),
        source: io::Error::other(fault.message),
    })
}

fn qemu_img(mut command: Command, what: &'static str, path: &Path) -> Result<(), Error> {
    let out = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::Start)?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    Err(Error::Tool {
        what,
        path: path.to_owned(),
        words: words.trim().chars().take(500).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(edit: impl FnOnce(&mut Vec<u8>)) -> Result<u64, &'static str> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[7] = 3;
        bytes[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        edit(&mut bytes);
        qcow2_size(&bytes)
    }

    #[test]
    fn a_clone_stands_on_its_base_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let (base, copy) = (dir.path().join("base.raw"), dir.path().join("copy.qcow2"));
        raw(&base, 8 << 20).unwrap();
        assert!(raw(&base, 8 << 20).is_err(), "never over one that is there");
        let info = inspect(&base).unwrap();
        assert_eq!((info.format, info.size), (Format::Raw, 8 << 20));
        clone(&base, info, &copy, Some(16 << 20)).unwrap();
        // A clone refers to its base: as an image from outside it is refused.
        assert!(matches!(inspect(&copy), Err(Error::Refused { .. })));
        grow(&copy, Format::Qcow2, 32 << 20).unwrap();
        assert!(grow(&copy, Format::Qcow2, 1 << 20).is_err());
        let mut bytes = fs::read(&copy).unwrap();
        bytes[8..16].fill(0);
        assert_eq!(qcow2_size(&bytes), Ok(32 << 20));
    }

    #[test]
    fn a_plain_qcow2_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.qcow2");
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("64M");
        qemu_img(command, "make", &path).unwrap();
        assert_eq!(
            inspect(&path).unwrap(),
            Info {
                format: Format::Qcow2,
                size: 64 << 20
            }
        );
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert_eq!(header(|_| {}), Ok(1 << 30));
        assert!(header(|b| b[15] = 1).is_err(), "backing file");
        assert!(header(|b| b[79] = 4).is_err(), "data file");
        assert!(header(|b| b[35] = 1).is_err(), "encrypted");
        assert!(header(|b| b[7] = 9).is_err(), "version");
        assert!(header(|b| b[24] = 0xff).is_err(), "endless");
        assert!(header(|b| b.truncate(20)).is_err(), "cut off");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = qcow2_size(&bytes);
        }
    }
}
