//! Trees of files as tars, and back: what copying, exporting and committing stand on. No I/O but on trees: the engine works with
//! it on containers, and the init of a microvm on its own root.
//!
//! - [`pack`]: a path of a tree as a tar
//! - [`unpack`]: a tar into a directory of a tree
//! - [`stat`]: what stands at a path
//! - [`tree`]: trees to copy from; [`tarball`]: archives as trees
//! - [`compose`]: the layer made of files that are copied, without a container
//! - [`tarstream`]: reads tar streams of any dialect
//! - [`compression`]: blobs that may be compressed (with the feature of that name, which the init has not)
//! - [`changes`]: what a container's writable layer changed, as a list and as the tar of a layer
//!
//! A tree is a descriptor of its root. It may belong to a container that runs and is hostile: it may swap any name for a
//! symbolic link between two of our calls. So the kernel resolves every path beneath the root (`openat2` with
//! `RESOLVE_IN_ROOT`), what was looked at is what is used (descriptors, never a second look-up by name), and the last
//! component is never followed unless that was asked for.

use std::io;

pub mod changes;
pub mod compose;
#[cfg(feature = "compression")]
pub mod compression;
pub mod pack;
pub mod stat;
#[cfg(feature = "compression")]
pub mod tarball;
pub mod tarstream;
pub mod tree;
pub mod unpack;

mod beneath;
mod names;
mod tar;

pub use changes::{Change, ChangeKind};
pub use compose::Compose;
pub use names::{Attributes, show, split_last};
pub use pack::{Crossing, Packer};
pub use stat::{Place, Stat};
#[cfg(feature = "compression")]
pub use tarball::Tarball;
pub use tree::{Disk, Node, NodeKind, Tree};
pub use unpack::{Owner, Unpack};

/// Directories nested deeper than this are refused: each level holds a descriptor.
pub const MAX_DEPTH: usize = 256;
/// Names held in memory at once, in bytes: what a tree may cost however it is built.
pub const MAX_NAMES: usize = 128 << 20;

/// User and group ids of a tree whose users are others on this host: its 0 is `base` here, and so on. Without one they are
/// the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ids(pub Option<(u32, u32)>);

/// What an id is called where it has no name: the kernel's overflow id.
const NOBODY: u32 = 65_534;

impl Ids {
    /// So many ids from `base` up.
    pub fn mapped(base: u32, size: u32) -> Ids {
        Ids(Some((base, size)))
    }

    fn inside(self, host: u32) -> u32 {
        match self.0 {
            None => host,
            Some((base, size)) => host.checked_sub(base).filter(|id| *id < size).unwrap_or(NOBODY),
        }
    }

    fn on_host(self, inside: u32) -> u32 {
        match self.0 {
            None => inside,
            Some((base, size)) if inside < size => base.saturating_add(inside),
            Some((base, size)) => base.saturating_add(NOBODY.min(size.saturating_sub(1))),
        }
    }
}

/// Why a tree was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing stands at the path.
    #[error("no such file or directory: {0}")]
    NotFound(String),
    /// The path leads through something that is no directory, or what has to be a directory is none.
    #[error("not a directory: {0}")]
    NotADirectory(String),
    /// A directory and something else stand in each other's way.
    #[error("cannot overwrite {0}")]
    InTheWay(String),
    /// The tree, or this part of it, is read-only.
    #[error("{0} is on a read-only file system")]
    ReadOnly(String),
    /// An entry of a tar wants to leave the directory.
    #[error("{0:?} would leave the directory it is to be unpacked in")]
    Escape(String),
    /// Made by the kernel, without content of its own.
    #[error("{0} is made by the kernel while the instance runs and has no files to copy: read it by a program inside")]
    Kernel(String),
    /// The tar cannot be read.
    #[error("{0}")]
    Tar(#[from] crate::tarstream::Error),
    /// Deeper, longer or more than is allowed.
    #[error("{0}")]
    TooMuch(String),
    /// A call failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Whoever reads or sends the tar is gone.
    #[error("the stream broke: {0}")]
    Stream(#[source] io::Error),
}

impl Error {
    /// A failed call at a path, by the reasons that mean something of their own.
    fn at(what: &'static str, path: &[u8], e: impl Into<io::Error>) -> Error {
        let source = e.into();
        let path = crate::show(path);
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT) => Error::NotFound(path),
            Some(rustix::io::Errno::NOTDIR) => Error::NotADirectory(path),
            Some(rustix::io::Errno::ROFS) => Error::ReadOnly(path),
            _ => Error::Io { what, path, source },
        }
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound(_))
    }
}
