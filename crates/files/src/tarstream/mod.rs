//! Tar streams: every dialect read strictly.
//!
//! - [`Reader`]: entries of a stream (V7, ustar, GNU, PAX; sparse files of all four kinds)
//! - [`Beside`]: who is told what a tar has beside the contents of files, so that it can be put together again
//!
//! The `tar` crate is not used here because it gives no access to the raw bytes between entries, which the
//! split needs, and because limits must hold before anything is allocated.

mod acl;
mod header;
mod input;
mod pax;
mod reader;
mod sparse;
pub mod write;

pub use input::Input;
pub use reader::{Entry, EntryKind, Reader};

/// Is told of all of a tar, in order: bytes that are no file's content, and how much of that comes between.
pub trait Beside {
    /// Bytes of the tar.
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()>;
    /// So many bytes of a file's content.
    fn data(&mut self, len: u64) -> std::io::Result<()>;
}

/// Nobody.
impl Beside for () {
    fn raw(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn data(&mut self, _len: u64) -> std::io::Result<()> {
        Ok(())
    }
}

/// Why a stream is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream broke, or its decompression failed.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// It ended within an entry.
    #[error("the tar is cut off")]
    Truncated,
    /// A header's checksum does not match.
    #[error("the tar is damaged: wrong header checksum at byte {0}")]
    Checksum(u64),
    /// A header field is no number, or out of range.
    #[error("the tar is damaged: {field} of {path:?} is not valid")]
    Field {
        /// Which field.
        field: &'static str,
        /// The entry.
        path: String,
    },
    /// A PAX header breaks the rules.
    #[error("the tar is damaged: a PAX header is not valid: {0}")]
    Pax(&'static str),
    /// A sparse map breaks the rules.
    #[error("the sparse file {0:?} is not valid")]
    Sparse(String),
    /// A kind of entry that no file system has.
    #[error("{path:?} is of the unknown type {kind:?}")]
    Kind {
        /// The entry.
        path: String,
        /// The type's letter.
        kind: char,
    },
    /// Extended headers larger than allowed.
    #[error("an extended header of {0} bytes is too large")]
    HeaderTooBig(u64),
    /// More bytes than allowed.
    #[error("the tar is larger than {0} bytes")]
    TooBig(u64),
}
