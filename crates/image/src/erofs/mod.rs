//! Writes EROFS, the kernel's read-only file system, in one pass.
//!
//! ```text
//! block 0          superblock (written last, at byte 1024)
//! block 1 …        contents of files, each from a block of its own, as they arrive
//! meta_blkaddr …   inodes, each with its extended attributes and, where it pays, the last bytes of its content
//! …                directories too large for their inode, long link targets
//! ```
//!
//! Nothing is compressed: what is mounted is read at the speed of the page cache, and what is written was hashed and
//! decompressed a moment before. Inodes are of the 64-byte form (32-bit ids, times in nanoseconds).
//! The same calls give the same bytes.
//!
//! The form on disk: <https://docs.kernel.org/filesystems/erofs.html> and `fs/erofs/erofs_fs.h`.
//!
//! - [`Tree`]: names and inodes in memory: nothing here ever follows a link or touches the host's file system
//! - [`Writer`]: contents to the file, then the tree behind them

mod dirs;
mod format;
mod layout;
mod out;
mod tree;
mod writer;

pub use biga_files::Attributes;
pub(crate) use biga_files::{show, split_last};
pub use format::BLOCK;
pub use tree::{NodeId, Special, Tree};
pub use writer::{ImageSummary, OnlyFile, StoredFile, Writer};

/// Why a tree cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be written.
    #[error("cannot write the layer file")]
    Io(#[from] std::io::Error),
    /// A path wants to leave its root.
    #[error("the path {0:?} contains '..'")]
    Escape(String),
    /// A component is longer than 255 bytes or has a NUL, or the path is too long.
    #[error("the path {0:?} is too long or contains a NUL byte")]
    BadName(String),
    /// The empty path, for something that is no directory.
    #[error("the root must be a directory")]
    RootNotDirectory,
    /// A path leads through something that is no directory.
    #[error("the path {0:?} leads through something that is no directory")]
    NotADirectory(String),
    /// A hard link to nothing.
    #[error("{path:?} is a hard link to {target:?}, which is not in this layer")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// A hard link to a directory.
    #[error("{path:?} is a hard link to the directory {target:?}")]
    LinkToDirectory {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// A symbolic link's target is empty or longer than the kernel allows.
    #[error("the symbolic link {0:?} has an empty target or one longer than 4095 bytes")]
    BadSymlink(String),
    /// Extended attributes beyond what a file system holds.
    #[error("the extended attributes of {0:?} are too large")]
    Xattrs(String),
    /// More entries than allowed.
    #[error("it has more than {0} entries")]
    TooManyEntries(usize),
    /// More names and small things than may be held in memory.
    #[error("its names, attributes and small files need more than {0} bytes of memory")]
    TooMuchMemory(usize),
    /// The file system would be larger than allowed.
    #[error("its files are larger than {0} bytes together")]
    TooBig(u64),
}
