//! Paths of the container, resolved by the kernel beneath its root: whatever symbolic links the image holds, they cannot
//! lead out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens a path beneath `root`. Symbolic links are followed as if `root` were `/`.
pub fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere during the walk makes the kernel ask to try again.
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Like [`open`] with `O_PATH`.
pub fn locate(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Reads a whole (small) file of the image; empty if there is none.
pub fn read(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    use io::Read;
    const MAX: u64 = 1 << 20;
    let fd = match open(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a mount needs to be put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Any other file.
    File,
}

/// Finds the place for a mount, making it and the directories above it where they are missing.
pub fn place(root: BorrowedFd<'_>, path: &str, kind: Kind) -> io::Result<OwnedFd> {
    // Most targets exist: one call.
    match locate(root, path) {
        Ok(fd) => return Ok(fd),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let names: Vec<&OsStr> = Path::new(path)
        .components()
        .filter_map(|c| match c {
            Component::Normal(n) => Some(Ok(n)),
            Component::ParentDir => Some(Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a path to be made must not hold ..",
            ))),
            _ => None,
        })
        .collect::<io::Result<_>>()?;
    let mut walked = String::from("/");
    let mut at = locate(root, "/")?;
    for (i, name) in names.iter().enumerate() {
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path inside must be UTF-8"))?;
        walked.push_str(name);
        at = match locate(root, &walked) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let last = i + 1 == names.len();
                make(at.as_fd(), name, if last { kind } else { Kind::Directory })?;
                locate(root, &walked)?
            }
            Err(e) => return Err(e),
        };
        walked.push('/');
    }
    Ok(at)
}

fn make(dir: BorrowedFd<'_>, name: &str, kind: Kind) -> io::Result<()> {
    let made = match kind {
        Kind::Directory => rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Kind::File => rustix::fs::openat(
            dir,
            name,
            // EXCL never follows a symbolic link at the end.
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .map(drop),
    };
    match made {
        // A symbolic link that leads nowhere stands there.
        Err(Errno::EXIST) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "a symbolic link in the image stands at this path and leads nowhere",
        )),
        other => Ok(other?),
    }
}

/// Whether a directory is empty.
pub fn is_empty(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let fd = rustix::fs::openat(
        dir,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for entry in rustix::fs::Dir::new(fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        // A fresh file system of a block volume has this one directory.
        if name != b"." && name != b".." && name != b"lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether what a descriptor stands for is a directory.
pub fn is_dir(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}
