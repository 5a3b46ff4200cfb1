//! A tar into a directory of a tree.

use std::ffi::CString;
#[cfg(feature = "compression")]
use std::io::BufRead;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::beneath::{DIR, PATH, c_string, join, look, own_name, remove_all, resolve};
use super::pack::{is_kept, kind_of, refuse_kernel};
use super::{Error, Ids, MAX_DEPTH};
#[cfg(feature = "compression")]
use crate::compression::decompress;
use crate::tarstream::{self, Entry, EntryKind, Input, Reader};
use crate::{Attributes, show, split_last};

/// Most entries of one tar.
pub(super) const MAX_ENTRIES: usize = 2 << 20;
/// Most bytes of one tar, uncompressed.
pub(super) const MAX_BYTES: u64 = 1 << 40;
/// Uncompressed bytes for each compressed one; deflate itself cannot go beyond 1032.
pub const RATIO: u64 = 1100;

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As the tar says.
    Archive,
    /// This user and group, whatever the tar says.
    Fixed(u32, u32),
    /// Whoever unpacks it.
    Ours,
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct Unpack {
    /// Who owns it.
    pub owner: Owner,
    /// Refuse to put a directory where something else stands, and the other way round; else what stands there goes.
    pub keep_kinds: bool,
    /// What the first component of every name becomes.
    pub rename: Option<Vec<u8>>,
    /// Ids of the tree's users on this host.
    pub ids: Ids,
}

/// At work.
struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    dest: Vec<u8>,
    options: Unpack,
    /// The directory of the entry before: most entries share it with the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose times are set last: what comes into them changes those.
    dirs: Vec<(Vec<u8>, Timestamps)>,
}

/// Reads a tar (plain, gzip, bzip2, xz or zstd) to its end and unpacks it into the directory `dest` of the tree. Links in `dest`, and
/// links that stand in the way of entries, are followed within the tree.
#[cfg(feature = "compression")]
pub fn unpack(root: BorrowedFd<'_>, dest: &str, source: impl BufRead, options: Unpack) -> Result<(), Error> {
    plain(root, dest, decompress(source, RATIO).map_err(Error::Stream)?, options)
}

/// The same of a tar that is not compressed.
pub fn plain(root: BorrowedFd<'_>, dest: &str, source: impl Read, options: Unpack) -> Result<(), Error> {
    let dest = super::stat::absolute(dest);
    let at = resolve(root, &dest, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| Error::at("find", &dest, e))?;
    refuse_kernel(at.as_fd(), &dest)?;
    drop(at);
    let mut reader = Reader::new(Input::new(source, MAX_BYTES));
    let mut unpacker = Unpacker {
        root,
        dest,
        options,
        parent: None,
        dirs: Vec::new(),
    };
    let mut count = 0;
    while let Some(entry) = reader.next_entry()? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::TooMuch(format!("the tar has more than {MAX_ENTRIES} entries")));
        }
        unpacker.entry(&mut reader, &entry)?;
    }
    unpacker.finish()
}

impl Unpacker<'_> {
    fn entry(&mut self, reader: &mut Reader<impl std::io::Read>, entry: &Entry) -> Result<(), Error> {
        if entry.kind == EntryKind::Remark {
            return Ok(());
        }
        let path = self.renamed(components(&entry.path)?);
        let (dir, name) = split_last(&path);
        let Some(name) = name else {
            // The directory itself: it is there, and stays as it is.
            return Ok(());
        };
        let dir_fd = self.directory(dir)?;
        let name = c_string(name).map_err(|e| Error::at("make", &path, e))?;
        // A directory that is held for the entries to come may be what has to go.
        if entry.kind != EntryKind::Dir && self.parent.as_ref().is_some_and(|(p, _)| p.starts_with(&path)) {
            self.parent = None;
        }
        let made = self.make_room(dir_fd.as_fd(), &name, &path, entry.kind)?;
        let owner = self.owner(&entry.attributes);
        match entry.kind {
            EntryKind::File => self.file(reader, entry, dir_fd.as_fd(), &name, &path)?,
            EntryKind::Dir => return self.dir(entry, dir_fd.as_fd(), &name, path, made),
            EntryKind::Symlink => {
                let target = c_string(&entry.link).map_err(|e| Error::at("link", &path, e))?;
                rustix::fs::symlinkat(&target, &dir_fd, &name).map_err(|e| Error::at("link", &path, e))?;
                own(dir_fd.as_fd(), &name, owner, &path)?;
            }
            EntryKind::Link => return self.link(entry, dir_fd.as_fd(), &name, &path),
            EntryKind::Char(major, minor) => {
                let device = rustix::fs::makedev(major, minor);
                self.node(entry, dir_fd.as_fd(), &name, &path, (FileType::CharacterDevice, device))?;
            }
            EntryKind::Block(major, minor) => {
                let device = rustix::fs::makedev(major, minor);
                self.node(entry, dir_fd.as_fd(), &name, &path, (FileType::BlockDevice, device))?;
            }
            EntryKind::Fifo => self.node(entry, dir_fd.as_fd(), &name, &path, (FileType::Fifo, 0))?,
            EntryKind::Remark => {}
        }
        let times = times(&entry.attributes);
        rustix::fs::utimensat(&dir_fd, &name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::at("set the times of", &path, e))
    }

    fn renamed(&self, path: Vec<u8>) -> Vec<u8> {
        match &self.options.rename {
            Some(name) if !path.is_empty() => {
                let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
                [&name[..], &path[end..]].concat()
            }
            _ => path,
        }
    }

    fn owner(&self, a: &Attributes) -> Option<(u32, u32)> {
        let ids = self.options.ids;
        let (uid, gid) = match self.options.owner {
            Owner::Archive => (a.uid, a.gid),
            Owner::Fixed(uid, gid) => (uid, gid),
            Owner::Ours => return None,
        };
        Some((ids.on_host(uid), ids.on_host(gid)))
    }

    /// Opens the directory of an entry, made where it is missing.
    fn directory(&mut self, dir: &[u8]) -> Result<OwnedFd, Error> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| Error::at("open", dir, e));
        if let Some((path, fd)) = &self.parent
            && path == dir
        {
            return copy(fd);
        }
        let fd = self.directory_anew(dir)?;
        self.parent = Some((dir.to_vec(), copy(&fd)?));
        Ok(fd)
    }

    fn directory_anew(&self, dir: &[u8]) -> Result<OwnedFd, Error> {
        let open = |path: &[u8]| resolve(self.root, path, OFlags::PATH | OFlags::DIRECTORY);
        let failed = |path: &[u8], e| Error::at("find", path, e);
        let whole = join(&self.dest, dir);
        match open(&whole).map_err(|e| failed(&whole, e)) {
            Err(e) if e.is_not_found() => {}
            Ok(fd) => {
                refuse_kernel(fd.as_fd(), &whole)?;
                return Ok(fd);
            }
            Err(e) => return Err(e),
        }
        let mut at = open(&self.dest).map_err(|e| failed(&self.dest, e))?;
        let mut walked = self.dest.clone();
        for part in dir.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            walked = join(&walked, part);
            at = match open(&walked).map_err(|e| failed(&walked, e)) {
                Err(e) if e.is_not_found() => {
                    let name = c_string(part).map_err(|e| failed(&walked, e))?;
                    make_dir(at.as_fd(), &name, 0o755).map_err(|e| Error::at("make", &walked, e))?;
                    if let Owner::Fixed(uid, gid) = self.options.owner {
                        let ids = self.options.ids;
                        let owner = (ids.on_host(uid), ids.on_host(gid));
                        own(at.as_fd(), &name, Some(owner), &walked)?;
                    }
                    open(&walked).map_err(|e| failed(&walked, e))?
                }
                other => other?,
            };
            refuse_kernel(at.as_fd(), &walked)?;
        }
        Ok(at)
    }

    /// Takes away what stands in an entry's place. A directory stays where a directory comes: then `true`.
    fn make_room(&self, dir: BorrowedFd<'_>, name: &CString, path: &[u8], kind: EntryKind) -> Result<bool, Error> {
        let stands = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(|e| Error::at("look at", path, e))?,
        };
        let is_dir = FileType::from_raw_mode(stands.st_mode) == FileType::Directory;
        let comes_dir = kind == EntryKind::Dir;
        if is_dir && comes_dir {
            return Ok(true);
        }
        let shown = show(path);
        match (self.options.keep_kinds, is_dir, comes_dir) {
            (true, true, false) => Err(Error::InTheWay(format!("directory {shown:?} with non-directory"))),
            (true, false, true) => Err(Error::InTheWay(format!("non-directory {shown:?} with directory"))),
            _ => remove_all(dir, name, path, MAX_DEPTH).map(|()| false),
        }
    }

    fn file(
        &self,
        reader: &mut Reader<impl std::io::Read>,
        entry: &Entry,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
    ) -> Result<(), Error> {
        let failed = |e: Errno| Error::at("make", path, e);
        // EXCL never follows a link, and never writes into what somebody else put there.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let file = std::fs::File::from(fd);
        content(reader, entry, &file, path)?;
        if let Some((uid, gid)) = self.owner(&entry.attributes) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
        }
        // After the owner, which clears set-user-id.
        rustix::fs::fchmod(&file, mode(&entry.attributes)).map_err(failed)?;
        set_xattrs(file.as_fd(), &entry.attributes, path)
    }

    fn dir(
        &mut self,
        entry: &Entry,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: Vec<u8>,
        stands: bool,
    ) -> Result<(), Error> {
        if !stands {
            make_dir(dir, name, 0o700).map_err(|e| Error::at("make", &path, e))?;
        }
        let failed = |e: Errno| Error::at("make", &path, e);
        let fd = rustix::fs::openat(dir, name, DIR, Mode::empty()).map_err(failed)?;
        refuse_kernel(fd.as_fd(), &path)?;
        if let Some((uid, gid)) = self.owner(&entry.attributes) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(failed)?;
        }
        rustix::fs::fchmod(&fd, mode(&entry.attributes)).map_err(failed)?;
        set_xattrs(fd.as_fd(), &entry.attributes, &path)?;
        self.dirs.push((path, times(&entry.attributes)));
        Ok(())
    }

    fn link(&mut self, entry: &Entry, dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<(), Error> {
        let target = self.renamed(components(&entry.link)?);
        let (from, from_name) = split_last(&target);
        let from_name = from_name.ok_or_else(|| Error::Escape(show(&entry.link)))?;
        let from = self.directory_anew(from)?;
        let from_name = c_string(from_name).map_err(|e| Error::at("link", path, e))?;
        rustix::fs::linkat(&from, &from_name, dir, name, AtFlags::empty()).map_err(|e| Error::at("link", path, e))
    }

    fn node(
        &self,
        entry: &Entry,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: &[u8],
        (kind, device): (FileType, u64),
    ) -> Result<(), Error> {
        let failed = |e: Errno| Error::at("make", path, e);
        rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device).map_err(failed)?;
        own(dir, name, self.owner(&entry.attributes), path)?;
        // By a descriptor: a change of mode by name would follow a link that was put there meanwhile.
        let fd = rustix::fs::openat(dir, name, PATH, Mode::empty()).map_err(failed)?;
        let s = look(&fd).map_err(failed)?;
        if kind_of(&s) == kind {
            rustix::fs::chmod(own_name(fd.as_fd()), mode(&entry.attributes)).map_err(failed)?;
        }
        Ok(())
    }

    /// The times of directories, innermost last in the tar and so first here.
    fn finish(self) -> Result<(), Error> {
        for (path, times) in self.dirs.iter().rev() {
            let whole = join(&self.dest, path);
            // One that was replaced meanwhile has no claim to them.
            if let Ok(fd) = resolve(self.root, &whole, DIR) {
                rustix::fs::futimens(&fd, times).map_err(|e| Error::at("set the times of", path, e))?;
            }
        }
        Ok(())
    }
}

/// A path without `.`, `..` and slashes at either end; one that would climb out is refused.
pub(super) fn components(path: &[u8]) -> Result<Vec<u8>, Error> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or_else(|| Error::Escape(show(path)))?),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

fn content(
    reader: &mut Reader<impl std::io::Read>,
    entry: &Entry,
    file: &std::fs::File,
    path: &[u8],
) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::at("write", path, e);
    let whole = [(0, entry.size)];
    for &(offset, len) in entry.segments.as_deref().unwrap_or(&whole) {
        let mut file = file;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).map_err(failed)?;
        let mut left = len;
        while left > 0 {
            let piece = reader.data(left)?;
            if piece.is_empty() {
                return Err(tarstream::Error::Truncated.into());
            }
            left -= piece.len() as u64;
            file.write_all(piece).map_err(failed)?;
        }
    }
    if entry.segments.is_some() {
        file.set_len(entry.size).map_err(failed)?;
    }
    Ok(())
}

/// A directory whose mode does not depend on this process's mask.
fn make_dir(dir: BorrowedFd<'_>, name: &CString, bits: u32) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(bits)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e),
    }
    let fd = rustix::fs::openat(dir, name, DIR, Mode::empty())?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(bits))
}

fn own(dir: BorrowedFd<'_>, name: &CString, owner: Option<(u32, u32)>, path: &[u8]) -> Result<(), Error> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| Error::at("set the owner of", path, e))
}

fn mode(a: &Attributes) -> Mode {
    Mode::from_raw_mode(u32::from(a.mode) & 0o7777)
}

fn times(a: &Attributes) -> Timestamps {
    let time = Timespec {
        tv_sec: a.mtime,
        tv_nsec: a.mtime_nsec as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_xattrs(fd: BorrowedFd<'_>, a: &Attributes, path: &[u8]) -> Result<(), Error> {
    for (key, value) in a.xattrs.iter().filter(|(k, _)| is_kept(k)) {
        match rustix::fs::fsetxattr(fd, &key[..], value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(Error::at("set the attributes of", path, e)),
        }
    }
    Ok(())
}
