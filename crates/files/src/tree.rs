//! Trees of files to copy from, wherever they are kept: on disk, or in an archive that was never unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};

use super::beneath::{PATH, look, names, plain, reopen};
use super::pack::{kind_of, refuse_kernel, xattrs};
use super::{Error, MAX_NAMES};

/// Symbolic links followed on one path.
const MAX_LINKS: usize = 40;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "file types")]
pub enum NodeKind {
    File,
    Dir,
    Symlink,
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// One file, directory or the like, with all that a layer says of it.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of a file.
    pub size: u64,
    /// Target of a symbolic link.
    pub link: Vec<u8>,
    /// Extended attributes worth keeping.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a file.
    pub content: Content,
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// There are none.
    None,
    /// In memory.
    Memory(Arc<[u8]>),
    /// In a file, from this byte on.
    Stretch(Arc<File>, u64),
    /// Under this plain path of a tree.
    Beneath(Arc<OwnedFd>, Vec<u8>),
}

impl Node {
    /// A directory that belongs to root.
    pub fn dir(mode: u32, mtime: (i64, u32)) -> Node {
        Node {
            kind: NodeKind::Dir,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            size: 0,
            link: Vec::new(),
            xattrs: Vec::new(),
            content: Content::None,
        }
    }

    /// A file that belongs to root.
    pub fn file(bytes: &[u8], mode: u32, mtime: (i64, u32)) -> Node {
        Node {
            kind: NodeKind::File,
            size: bytes.len() as u64,
            content: Content::Memory(bytes.into()),
            ..Node::dir(mode, mtime)
        }
    }

    /// A file whose bytes are the whole of another.
    pub fn of_file(file: File, mode: u32, mtime: (i64, u32)) -> io::Result<Node> {
        Ok(Node {
            kind: NodeKind::File,
            size: file.metadata()?.len(),
            content: Content::Stretch(Arc::new(file), 0),
            ..Node::dir(mode, mtime)
        })
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == NodeKind::Dir
    }

    /// Exactly as many bytes as it says: a file that is shorter by now is an error.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.content {
            Content::None => Box::new(io::empty()),
            Content::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Content::Stretch(file, at) => Box::new(Stretch {
                file: file.clone(),
                at: *at,
                left: self.size,
            }),
            Content::Beneath(root, path) => {
                let found = plain(root.as_fd(), path, PATH)?;
                let file = File::from(reopen(found.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK)?);
                Box::new(Stretch {
                    file: Arc::new(file),
                    at: 0,
                    left: self.size,
                })
            }
        })
    }
}

struct Stretch {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Stretch {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut out[..want], self.at)?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter meanwhile",
            ));
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A tree. Paths are plain: relative, without `.`, `..` and links in them; the root is empty.
pub trait Tree {
    /// What stands at a path, itself not followed.
    fn look(&self, path: &[u8]) -> Result<Option<Node>, Error>;
    /// The names in a directory, in order.
    fn list(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, Error>;
}

/// A directory of this host.
#[derive(Debug, Clone)]
pub struct Disk(pub Arc<OwnedFd>);

impl Tree for Disk {
    fn look(&self, path: &[u8]) -> Result<Option<Node>, Error> {
        let fd = match plain(self.0.as_fd(), path, PATH) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::NotADirectory => {
                return Ok(None);
            }
            Err(e) => return Err(Error::at("open", path, e)),
        };
        refuse_kernel(fd.as_fd(), path)?;
        let s = look(&fd).map_err(|e| Error::at("look at", path, e))?;
        let kind = match kind_of(&s) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Dir,
            FileType::Symlink => NodeKind::Symlink,
            FileType::CharacterDevice => NodeKind::Char(s.stx_rdev_major, s.stx_rdev_minor),
            FileType::BlockDevice => NodeKind::Block(s.stx_rdev_major, s.stx_rdev_minor),
            FileType::Fifo => NodeKind::Fifo,
            // A socket is nothing without the process behind it.
            _ => return Ok(None),
        };
        let link = match kind {
            NodeKind::Symlink => rustix::fs::readlinkat(&fd, c"", Vec::new())
                .map_err(|e| Error::at("read the link", path, e))?
                .into_bytes(),
            _ => Vec::new(),
        };
        let kept = match kind {
            NodeKind::File | NodeKind::Dir => xattrs(fd.as_fd(), path)?,
            _ => Vec::new(),
        };
        Ok(Some(Node {
            kind,
            mode: u32::from(s.stx_mode) & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            mtime: (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec),
            size: if kind == NodeKind::File { s.stx_size } else { 0 },
            link,
            xattrs: kept,
            content: match kind {
                NodeKind::File => Content::Beneath(self.0.clone(), path.to_vec()),
                _ => Content::None,
            },
        }))
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let fd = plain(self.0.as_fd(), dir, OFlags::PATH | OFlags::DIRECTORY).map_err(|e| Error::at("open", dir, e))?;
        let mut budget = MAX_NAMES;
        let all = names(fd.as_fd(), dir, &mut budget)?;
        Ok(all.into_iter().map(|n| n.into_bytes()).collect())
    }
}

/// Where a path leads in a tree whose root is `/`: without `.`, `..` and links. What does not exist is taken as it is
/// written. The last component is followed only where that is asked for.
pub fn real_path(tree: &(impl Tree + ?Sized), path: &[u8], follow_last: bool) -> Result<Vec<u8>, Error> {
    let mut todo: Vec<Vec<u8>> = Vec::new();
    let push = |todo: &mut Vec<Vec<u8>>, path: &[u8]| {
        todo.extend(
            path.split(|b| *b == b'/')
                .rev()
                .filter(|p| !p.is_empty())
                .map(<[u8]>::to_vec),
        );
    };
    push(&mut todo, path);
    let mut real: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match &part[..] {
            b"." => continue,
            b".." => {
                let up = real.iter().rposition(|b| *b == b'/').unwrap_or(0);
                real.truncate(up);
                continue;
            }
            _ => {}
        }
        let next = super::beneath::join(&real, &part);
        let last = todo.is_empty();
        match tree.look(&next)? {
            Some(node) if node.kind == NodeKind::Symlink && (follow_last || !last) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::TooMuch(format!(
                        "{}: too many levels of symbolic links",
                        crate::show(path)
                    )));
                }
                if node.link.starts_with(b"/") {
                    real.clear();
                }
                push(&mut todo, &node.link);
            }
            Some(node) if !last && !node.is_dir() => return Err(Error::NotADirectory(crate::show(path))),
            _ => real = next,
        }
    }
    Ok(real)
}
