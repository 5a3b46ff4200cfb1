//! What a container's writable layer changed.
//!
//! The layer is a directory as overlayfs writes it: a character device 0:0 removes a name of the image, the attribute
//! `trusted.overlay.opaque` removes all that the image has in a directory, everything else replaces or adds.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::beneath::{DIR, PATH, join, look, names, own_name, plain, release};
use super::pack::{Crossing, Packer, kind_of, open, xattrs};
use super::{Error, MAX_DEPTH, MAX_NAMES};

/// Most changes listed.
const MAX_CHANGES: usize = 1 << 20;
/// Names that the engine makes in every container: places to mount on, directories or empty files.
const OWN: [&[u8]; 7] = [
    b"dev",
    b"proc",
    b"sys",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/resolv.conf",
    b"etc/mtab",
];

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Content, attributes, or something in the directory changed.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// One path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Without a slash in front; bytes as the file system has them.
    pub path: Vec<u8>,
    /// What became of it.
    pub kind: ChangeKind,
    /// A directory that hides all the image has in it.
    opaque: bool,
    /// Gone because its directory is opaque: a layer does not say it once more.
    hidden: bool,
}

impl Change {
    /// One that was told by somebody else: to show, not to write a layer of.
    pub fn told(path: Vec<u8>, kind: ChangeKind) -> Change {
        Change {
            path,
            kind,
            opaque: false,
            hidden: false,
        }
    }
}

/// The changes, ordered by path: a directory before what is in it. `upper` is the writable layer, `lower` the image's
/// layers as one; without them everything is new.
pub fn list(upper: BorrowedFd<'_>, lower: Option<BorrowedFd<'_>>) -> Result<Vec<Change>, Error> {
    list_without(upper, lower, &[])
}

/// The same without what was made at these paths only to mount something on it.
pub fn list_without(
    upper: BorrowedFd<'_>,
    lower: Option<BorrowedFd<'_>>,
    mounted: &[Vec<u8>],
) -> Result<Vec<Change>, Error> {
    let mut walk = Walk {
        mounted,
        found: Vec::new(),
        budget: MAX_NAMES,
    };
    walk.directory(upper, lower, b"", false, MAX_DEPTH)?;
    Ok(walk.found)
}

/// The changes as the tar of a layer of an image: removed names are marked by files `.wh.NAME`.
pub fn write_layer<W: Write>(upper: BorrowedFd<'_>, changes: &[Change], out: W) -> Result<W, Error> {
    let mut packer = Packer::new(out, Crossing::Stay);
    for change in changes {
        let (dir, name) = crate::split_last(&change.path);
        match change.kind {
            ChangeKind::Deleted if change.hidden => {}
            ChangeKind::Deleted => {
                let mark = [b".wh.", name.unwrap_or_default()].concat();
                packer.add_mark(&join(dir, &mark))?;
            }
            ChangeKind::Modified | ChangeKind::Added => {
                match plain(upper, &change.path, PATH) {
                    Ok(fd) => packer.add_one(fd.as_fd(), &change.path)?,
                    // It runs, and removed the file meanwhile.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(Error::at("open", &change.path, e)),
                }
                if change.opaque {
                    packer.add_mark(&join(&change.path, b".wh..wh..opq"))?;
                }
            }
        }
    }
    packer.finish()
}

struct Walk<'a> {
    mounted: &'a [Vec<u8>],
    found: Vec<Change>,
    budget: usize,
}

/// What came of a directory's content.
#[derive(Default)]
struct Seen {
    /// Something in it differs.
    changed: bool,
    /// The engine made something in it.
    own: bool,
}

impl Walk<'_> {
    /// Whether the engine makes something at this path to mount on it.
    fn is_mounted(&self, path: &[u8]) -> bool {
        OWN.contains(&path) || self.mounted.iter().any(|m| m == path)
    }

    fn push(&mut self, path: Vec<u8>, kind: ChangeKind, hidden: bool) -> Result<usize, Error> {
        let cost = path.len() + 64;
        if self.found.len() >= MAX_CHANGES || self.budget < cost {
            return Err(Error::TooMuch("more changes than can be listed".into()));
        }
        self.budget -= cost;
        self.found.push(Change {
            path,
            kind,
            opaque: false,
            hidden,
        });
        Ok(self.found.len() - 1)
    }

    /// Everything in a directory. In an `opaque` one nothing of the image is seen.
    fn directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<BorrowedFd<'_>>,
        path: &[u8],
        opaque: bool,
        depth: usize,
    ) -> Result<Seen, Error> {
        if depth == 0 {
            let name = crate::show(path);
            return Err(Error::TooMuch(format!("{name} is nested too deep")));
        }
        let mut all = names(upper, path, &mut self.budget)?;
        if opaque && let Some(lower) = lower {
            all.extend(names(lower, path, &mut self.budget)?);
            all.sort_unstable();
            all.dedup();
        }
        let mut seen = Seen::default();
        for name in &all {
            let at = join(path, name.to_bytes());
            let one = self.one(upper, lower, name, at, opaque, depth)?;
            seen.changed |= one.changed;
            seen.own |= one.own;
        }
        release(&all, &mut self.budget);
        Ok(seen)
    }

    fn one(
        &mut self,
        upper: BorrowedFd<'_>,
        lower: Option<BorrowedFd<'_>>,
        name: &CString,
        path: Vec<u8>,
        opaque: bool,
        depth: usize,
    ) -> Result<Seen, Error> {
        let changed = Seen {
            changed: true,
            own: false,
        };
        let below = lower.map(|l| find(l, name, &path)).transpose()?.flatten();
        let Some((fd, s)) = find(upper, name, &path)? else {
            // Only the image has it: hidden by an opaque directory.
            if below.is_some() {
                self.push(path, ChangeKind::Deleted, true)?;
                return Ok(changed);
            }
            return Ok(Seen::default());
        };
        if is_whiteout(&s) {
            if below.is_some() {
                self.push(path, ChangeKind::Deleted, opaque)?;
                return Ok(changed);
            }
            return Ok(Seen::default());
        }
        if kind_of(&s) != FileType::Directory {
            if below.is_none() && s.stx_size == 0 && self.is_mounted(&path) {
                return Ok(Seen {
                    changed: false,
                    own: true,
                });
            }
            if kind_of(&s) == FileType::RegularFile {
                refuse_redirects(fd.as_fd(), &path)?;
            }
            let kind = below.map_or(ChangeKind::Added, |_| ChangeKind::Modified);
            self.push(path, kind, false)?;
            return Ok(changed);
        }
        refuse_redirects(fd.as_fd(), &path)?;
        let inner = rustix::fs::openat(fd.as_fd(), c".", DIR, Mode::empty());
        let inner = inner.map_err(|e| Error::at("open", &path, e))?;
        self.dir(&inner, &s, below, path, opaque, depth)
    }

    fn dir(
        &mut self,
        upper: &OwnedFd,
        s: &Statx,
        below: Option<(OwnedFd, Statx)>,
        path: Vec<u8>,
        opaque: bool,
        depth: usize,
    ) -> Result<Seen, Error> {
        let lower_dir = match &below {
            Some((fd, l)) if kind_of(l) == FileType::Directory => Some(fd),
            _ => None,
        };
        let hides = is_opaque(upper, &path)?;
        let kind = below.as_ref().map_or(ChangeKind::Added, |_| ChangeKind::Modified);
        // Before what is in it, and taken back where nothing differs.
        let at = self.push(path.clone(), kind, false)?;
        let lower_fd = lower_dir.map(|fd| rustix::fs::openat(fd, c".", DIR, Mode::empty()));
        let lower_fd = lower_fd.transpose().map_err(|e| Error::at("open", &path, e))?;
        let inner = self.directory(
            upper.as_fd(),
            lower_fd.as_ref().map(AsFd::as_fd),
            &path,
            opaque || hides,
            depth - 1,
        )?;
        // What replaced a file hides nothing that could be hidden.
        let replaced = below.is_some() && lower_dir.is_none();
        self.found[at].opaque = hides && lower_dir.is_some() && !opaque;
        let same = match (&below, lower_dir) {
            (Some((fd, l)), Some(_)) => same_directory(upper, s, fd, l, &path, &inner)?,
            (None, _) => is_own(self.is_mounted(&path), s, &inner),
            _ => false,
        };
        if same && !inner.changed && !replaced && !self.found[at].opaque {
            let gone = self.found.pop();
            self.budget += gone.map_or(0, |c| c.path.len() + 64);
            return Ok(Seen {
                changed: false,
                own: below.is_none() || inner.own,
            });
        }
        Ok(Seen {
            changed: true,
            own: false,
        })
    }
}

/// A directory that the engine made to mount on, or one that holds such places only.
fn is_own(mounted: bool, s: &Statx, inner: &Seen) -> bool {
    let plain = (u32::from(s.stx_mode) & 0o7777, s.stx_uid, s.stx_gid) == (0o755, 0, 0);
    plain && !inner.changed && (mounted || inner.own)
}

/// Whether a directory's own attributes are as in the image. Its time does not count where the engine made something in it.
fn same_directory(
    upper: &OwnedFd,
    s: &Statx,
    lower: &OwnedFd,
    l: &Statx,
    path: &[u8],
    inner: &Seen,
) -> Result<bool, Error> {
    let of = |s: &Statx| (s.stx_mode, s.stx_uid, s.stx_gid);
    let time = |s: &Statx| (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec);
    if of(s) != of(l) || (!inner.own && time(s) != time(l)) {
        return Ok(false);
    }
    Ok(xattrs(upper.as_fd(), path)? == xattrs(lower.as_fd(), path)?)
}

fn find(dir: BorrowedFd<'_>, name: &CString, path: &[u8]) -> Result<Option<(OwnedFd, Statx)>, Error> {
    let fd = match open(dir, name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Error::at("open", path, e)),
    };
    let s = look(&fd).map_err(|e| Error::at("look at", path, e))?;
    Ok(Some((fd, s)))
}

fn is_whiteout(s: &Statx) -> bool {
    kind_of(s) == FileType::CharacterDevice && (s.stx_rdev_major, s.stx_rdev_minor) == (0, 0)
}

fn is_opaque(dir: &OwnedFd, path: &[u8]) -> Result<bool, Error> {
    let mut value = [0; 2];
    match rustix::fs::getxattr(own_name(dir.as_fd()), "trusted.overlay.opaque", &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(Error::at("read the attributes of", path, e)),
    }
}

/// Where the kernel's overlay was told to, a renamed directory or a file with a new owner only names where the image has
/// its content: taken for what it looks like, it would be empty.
fn refuse_redirects(fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    for (key, option) in [
        ("trusted.overlay.redirect", "redirect_dir"),
        ("trusted.overlay.metacopy", "metacopy"),
    ] {
        match rustix::fs::getxattr(own_name(fd), key, &mut [0u8; 0]) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) if e != Errno::RANGE => return Err(Error::at("read the attributes of", path, e)),
            _ => {
                let path = crate::show(path);
                return Err(Error::TooMuch(format!(
                    "{path} was written by an overlay with {option}=on, which this cannot read: write N to \
                     /sys/module/overlay/parameters/{option} and make the instance anew"
                )));
            }
        }
    }
    Ok(())
}

/// A directory to list changes in, by its path on this host.
pub fn directory(path: &std::path::Path) -> Result<Option<OwnedFd>, Error> {
    use std::os::unix::ffi::OsStrExt;
    match rustix::fs::open(path, DIR & !OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::at("open", path.as_os_str().as_bytes(), e)),
    }
}
