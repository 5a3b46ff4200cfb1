//! A path of a tree as a tar.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::beneath::{PATH, join, look, names, release, reopen};
use super::tar::{self, Head, Kind};
use super::{Error, Ids, MAX_DEPTH, MAX_NAMES};

/// Bytes read at once.
const PIECE: usize = 128 << 10;
/// Names of one tar that later entries may be hard links to.
const MAX_LINKS: usize = 1 << 20;
/// All extended attributes of one file.
const MAX_XATTRS: usize = 256 << 10;

/// What is done where another file system is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// It belongs to the tree, unless it is one of the kernel's own (`/proc`, `/sys`), which stay empty.
    Enter,
    /// It does not: a mount point stays empty.
    Stay,
}

/// Writes the entries of a tar.
pub struct Packer<W> {
    out: W,
    crossing: Crossing,
    /// Who owns it all, whoever does on this host.
    owner: Option<(u32, u32)>,
    ids: Ids,
    /// Files with several names, by device and inode: the first name they had in this tar.
    links: HashMap<(u64, u64), Vec<u8>>,
    budget: usize,
    piece: Vec<u8>,
}

impl<W: Write> Packer<W> {
    /// Writes to `out`.
    pub fn new(out: W, crossing: Crossing) -> Packer<W> {
        Packer {
            out,
            crossing,
            owner: None,
            ids: Ids::default(),
            links: HashMap::new(),
            budget: MAX_NAMES,
            piece: vec![0; PIECE],
        }
    }

    /// Every entry gets this owner and group.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Packer<W> {
        self.owner = Some((uid, gid));
        self
    }

    /// Owners are told as the tree's own users know them.
    pub fn with_ids(mut self, ids: Ids) -> Packer<W> {
        self.ids = ids;
        self
    }

    /// What stands at a place, with all beneath it. The entry is called `base`, those beneath it `base/…`.
    pub fn add(&mut self, place: &super::Place) -> Result<(), Error> {
        let top = match &place.base[..] {
            // What is at the end of `..` has no name of its own.
            b".." => b".".to_vec(),
            base => base.to_vec(),
        };
        self.entry(place.fd.as_fd(), &top, None, MAX_DEPTH)
    }

    /// All in a directory, called as they stand in it, and not the directory itself.
    pub fn add_content(&mut self, dir: BorrowedFd<'_>) -> Result<(), Error> {
        let at = look(dir).map_err(|e| Error::at("look at", b"/", e))?;
        self.children(dir, b"", at.stx_mnt_id, MAX_DEPTH)
    }

    /// One file or directory and nothing beneath it.
    pub(super) fn add_one(&mut self, fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        let s = look(fd).map_err(|e| Error::at("look at", name, e))?;
        self.one(fd, name, &s, false)
    }

    /// An empty file: marks of removed files in layers.
    pub(super) fn add_mark(&mut self, name: &[u8]) -> Result<(), Error> {
        let head = Head {
            name,
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: b"",
            xattrs: &[],
        };
        tar::head(&mut self.out, &head).map_err(Error::Stream)
    }

    /// Ends the tar.
    pub fn finish(mut self) -> Result<W, Error> {
        tar::end(&mut self.out).map_err(Error::Stream)?;
        self.out.flush().map_err(Error::Stream)?;
        Ok(self.out)
    }

    /// An entry and all beneath it. `above` is the mount its directory is on.
    fn entry(&mut self, fd: BorrowedFd<'_>, name: &[u8], above: Option<u64>, depth: usize) -> Result<(), Error> {
        let s = look(fd).map_err(|e| Error::at("look at", name, e))?;
        let crosses = above.is_some_and(|m| m != s.stx_mnt_id);
        let empty = crosses && (self.crossing == Crossing::Stay || is_kernel(fd));
        self.one(fd, name, &s, empty)?;
        if empty || kind_of(&s) != FileType::Directory {
            return Ok(());
        }
        // The root's own entry is `/`, and what is in it begins with one slash.
        let prefix = if name == b"/" { &b"/"[..] } else { name };
        self.children(fd, prefix, s.stx_mnt_id, depth)
    }

    fn children(&mut self, dir: BorrowedFd<'_>, prefix: &[u8], mount: u64, depth: usize) -> Result<(), Error> {
        if depth == 0 {
            let name = crate::show(prefix);
            return Err(Error::TooMuch(format!("{name} is nested too deep")));
        }
        let list = names(dir, prefix, &mut self.budget)?;
        for name in &list {
            let path = join(prefix, name.to_bytes());
            match open(dir, name) {
                Ok(fd) => self.entry(fd.as_fd(), &path, Some(mount), depth - 1)?,
                // Whoever runs in there may remove files at any moment.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(Error::at("open", &path, e)),
            }
        }
        release(&list, &mut self.budget);
        Ok(())
    }

    /// `empty` writes a file without its content.
    fn one(&mut self, fd: BorrowedFd<'_>, name: &[u8], s: &Statx, empty: bool) -> Result<(), Error> {
        let kind = match kind_of(s) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char(s.stx_rdev_major, s.stx_rdev_minor),
            FileType::BlockDevice => Kind::Block(s.stx_rdev_major, s.stx_rdev_minor),
            FileType::Fifo => Kind::Fifo,
            // A socket is nothing without the process behind it; tars have no word for it.
            _ => return Ok(()),
        };
        let link = match kind {
            Kind::Symlink => rustix::fs::readlinkat(fd, c"", Vec::new())
                .map_err(|e| Error::at("read the link", name, e))?
                .into_bytes(),
            _ => Vec::new(),
        };
        let xattrs = match kind {
            Kind::File | Kind::Dir => xattrs(fd, name)?,
            _ => Vec::new(),
        };
        let (uid, gid) = self
            .owner
            .unwrap_or((self.ids.inside(s.stx_uid), self.ids.inside(s.stx_gid)));
        let mut head = Head {
            name,
            kind,
            mode: u32::from(s.stx_mode),
            uid,
            gid,
            size: 0,
            mtime: (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
            link: &link,
            xattrs: &xattrs,
        };
        if kind != Kind::Dir
            && s.stx_nlink > 1
            && let Some(first) = self.linked(s, name)
        {
            head.kind = Kind::Link;
            head.link = &first;
            return tar::head(&mut self.out, &head).map_err(Error::Stream);
        }
        if kind != Kind::File || empty {
            return tar::head(&mut self.out, &head).map_err(Error::Stream);
        }
        let file = reopen(fd, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| Error::at("open", name, e))?;
        head.size = s.stx_size;
        tar::head(&mut self.out, &head).map_err(Error::Stream)?;
        self.content(&file, name, s.stx_size)
    }

    /// The earlier name of a file with several names, if this tar has one.
    fn linked(&mut self, s: &Statx, name: &[u8]) -> Option<Vec<u8>> {
        let device = u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor);
        let key = (device, s.stx_ino);
        if let Some(first) = self.links.get(&key) {
            return Some(first.clone());
        }
        if self.links.len() < MAX_LINKS && self.budget > name.len() {
            self.budget -= name.len();
            self.links.insert(key, name.to_vec());
        }
        None
    }

    /// Exactly as many bytes as the header said: a file that grows is cut, one that shrinks is filled up.
    fn content(&mut self, file: &OwnedFd, name: &[u8], size: u64) -> Result<(), Error> {
        let mut file = std::fs::File::from(file.try_clone().map_err(|e| Error::at("open", name, e))?);
        let mut left = size;
        while left > 0 {
            let want = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let got = match file.read(&mut self.piece[..want]) {
                Ok(0) => {
                    self.piece[..want].fill(0);
                    want
                }
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::at("read", name, e)),
            };
            self.out.write_all(&self.piece[..got]).map_err(Error::Stream)?;
            left -= got as u64;
        }
        tar::pad(&mut self.out, size).map_err(Error::Stream)
    }
}

pub(super) fn open(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, PATH, Mode::empty())
}

pub(super) fn kind_of(s: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(s.stx_mode))
}

/// Names and values of extended attributes.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Attributes worth keeping: capabilities, access lists and what users set. What the kernel's overlay and security modules
/// keep for themselves means something on this host only.
pub(super) fn xattrs(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, Error> {
    let failed = |e: Errno| Error::at("read the attributes of", name, e);
    // A descriptor that only names a file has no attributes; its name in /proc leads to them.
    let own = super::beneath::own_name(fd);
    let mut list = vec![0u8; 64 << 10];
    let size = match rustix::fs::listxattr(&own, &mut list[..]) {
        Ok(n) => n,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut all = Vec::new();
    let mut total = 0;
    for key in list[..size].split(|b| *b == 0).filter(|k| is_kept(k)) {
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::getxattr(&own, key, &mut value[..]) {
            Ok(n) => value.truncate(n),
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(failed(e)),
        }
        total += key.len() + value.len();
        if total > MAX_XATTRS {
            let name = crate::show(name);
            return Err(Error::TooMuch(format!(
                "the extended attributes of {name} are too large"
            )));
        }
        all.push((key.to_vec(), value));
    }
    all.sort_unstable();
    Ok(all)
}

/// Whether an extended attribute goes along.
pub(super) fn is_kept(key: &[u8]) -> bool {
    key.starts_with(b"user.") || key == b"security.capability" || key.starts_with(b"system.posix_acl_")
}

/// Refuses what is made by the kernel: its files have no size, block, and say more to us than to the container.
pub(super) fn refuse_kernel(fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    match is_kernel(fd) {
        true => Err(Error::Kernel(crate::show(path))),
        false => Ok(()),
    }
}

fn is_kernel(fd: BorrowedFd<'_>) -> bool {
    /// proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf, pstore, efivarfs, selinuxfs.
    const MAGICS: [i64; 13] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x1980_0202,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
        0x6165_676c,
        0xde5e_81e4,
        0xf97c_ff8c,
    ];
    // Where it cannot be told it is taken for one.
    rustix::fs::fstatfs(fd).map_or(true, |s| MAGICS.contains(&s.f_type))
}
