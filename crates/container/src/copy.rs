//! Copying what an image has at a path into a new volume. Only the container's own files are read, only the volume is
//! written, and neither side's symbolic links are followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};

/// Deeper trees are refused: each level holds two descriptors.
const MAX_DEPTH: usize = 200;

/// Copies the content of a directory, and its owner and mode, to another.
pub fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // What comes may be good only to find things by.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (from, to) = (open(from, c".", flags)?, open(to, c".", flags)?);
    directory(from.as_fd(), to.as_fd(), MAX_DEPTH)
}

fn open(dir: BorrowedFd<'_>, name: &std::ffi::CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "directories are nested too deep",
        ));
    }
    let readable = open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let (source, target) = (
                    open(from, name, OFlags::RDONLY | OFlags::DIRECTORY)?,
                    open(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?,
                );
                directory(source.as_fd(), target.as_fd(), depth - 1)?;
            }
            FileType::RegularFile => {
                let source = open(from, name, OFlags::RDONLY)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                content(&source, &target)?;
                attributes(source.as_fd(), target.as_fd(), &stat)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                own(to, name, &stat)?;
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                own(to, name, &stat)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
            }
        }
    }
    attributes(from, to, &rustix::fs::fstat(from)?)
}

fn content(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    io::copy(
        &mut std::fs::File::from(from.try_clone()?),
        &mut std::fs::File::from(to.try_clone()?),
    )
    .map(drop)
}

fn own(dir: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(
        dir,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Owner first (it clears set-user-id), then mode, extended attributes and times.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    extended(from, to)?;
    let time = |sec: i64, nsec: u64| Timespec {
        tv_sec: sec,
        tv_nsec: nsec as _,
    };
    rustix::fs::futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )?;
    Ok(())
}

fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let size = match rustix::fs::flistxattr(from, &mut names[..]) {
        Ok(n) => n,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for name in names[..size].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        // The overlay's own marks must not become a volume's.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
