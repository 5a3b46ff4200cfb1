//! Paths resolved by the kernel beneath a root, and names within one directory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::Error;

/// Only to find things by, without opening them: opening a device has effects.
pub(super) const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// To list it, and to work on what is in it.
pub(super) const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// Opens a path as if `root` were `/`. A symbolic link at the end is followed unless `flags` have `NOFOLLOW`.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere during the walk makes the kernel ask to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Opens a path of plain names: any symbolic link in it is an error.
pub(super) fn plain(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = c_string(if path.is_empty() { b"." } else { path })?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

pub(super) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the path holds a NUL byte"))
}

/// Owner, mode, size, times, and which mount it is on.
pub(super) fn look(fd: impl AsFd) -> rustix::io::Result<Statx> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, flags)
}

/// Opens again, now for its content, what was found by a `PATH` descriptor: the same inode, whatever its name leads to by
/// now.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(own_name(fd), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// The name under which this process reaches what a descriptor stands for.
pub(super) fn own_name(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The names in a directory, in order. `budget` is what all directories held at once may still cost.
pub(super) fn names(dir: BorrowedFd<'_>, path: &[u8], budget: &mut usize) -> Result<Vec<CString>, Error> {
    let failed = |e: Errno| Error::at("list", path, e);
    let readable = rustix::fs::openat(dir, c".", DIR, Mode::empty()).map_err(failed)?;
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::new(readable).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *budget = budget.checked_sub(cost(name.to_bytes())).ok_or_else(|| {
            Error::TooMuch(format!(
                "the directories of {} hold more names than can be kept in memory",
                crate::show(path)
            ))
        })?;
        all.push(name.to_owned());
    }
    all.sort_unstable();
    Ok(all)
}

/// Gives back what [`names`] took.
pub(super) fn release(names: &[CString], budget: &mut usize) {
    *budget += names.iter().map(|n| cost(n.to_bytes())).sum::<usize>();
}

fn cost(name: &[u8]) -> usize {
    name.len() + 32
}

/// `dir/name`, or the name alone.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        b"" => name.to_vec(),
        dir if dir.ends_with(b"/") => [dir, name].concat(),
        dir => [dir, b"/", name].concat(),
    }
}

/// Removes what stands at a name, with all beneath it where it is a directory. Nothing is followed.
pub(super) fn remove_all(dir: BorrowedFd<'_>, name: &CString, path: &[u8], depth: usize) -> Result<(), Error> {
    let failed = |e: Errno| Error::at("remove", path, e);
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(failed(e)),
    }
    if depth == 0 {
        return Err(Error::TooMuch(format!("{} is nested too deep", crate::show(path))));
    }
    let inner = rustix::fs::openat(dir, name, DIR, Mode::empty()).map_err(failed)?;
    let mut budget = super::MAX_NAMES;
    for child in names(inner.as_fd(), path, &mut budget)? {
        remove_all(inner.as_fd(), &child, &join(path, child.to_bytes()), depth - 1)?;
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}
