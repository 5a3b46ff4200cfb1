//! What a client sends, as the tar that the builder reads.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ::tar::{Builder, EntryType, Header};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{Piece, mode};
use crate::ByteStream;
use crate::proto::session::Stat;

const BLOCK: u64 = 512;

/// The tar, as it is read.
pub fn stream(pieces: mpsc::Receiver<Piece>) -> ByteStream {
    // What is padded behind the bytes of the file at hand, and whether all is said.
    let state = (pieces, 0u64, false);
    stream::unfold(state, |(mut pieces, mut padding, ended)| async move {
        if ended {
            return None;
        }
        let (item, ended) = match pieces.recv().await {
            Some(Piece::Entry { stat, size }) => {
                let before = std::mem::replace(&mut padding, (BLOCK - size % BLOCK) % BLOCK);
                (entry(&stat, size, before), false)
            }
            Some(Piece::Data(data)) => (Ok(data), false),
            Some(Piece::Failed(e)) => (Err(io::Error::other(e)), true),
            None => (Ok(zeros(padding + 2 * BLOCK)), true),
        };
        Some((item, (pieces, padding, ended)))
    })
    .boxed()
}

fn zeros(n: u64) -> Bytes {
    vec![0; usize::try_from(n).unwrap_or(0)].into()
}

/// The head of an entry behind the padding of the one before.
fn entry(stat: &Stat, size: u64, padding: u64) -> io::Result<Bytes> {
    let mut out = zeros(padding).to_vec();
    let mut header = Header::new_gnu();
    header.set_mode(mode::permissions(stat.mode));
    header.set_uid(stat.uid.into());
    header.set_gid(stat.gid.into());
    header.set_size(size);
    header.set_mtime(u64::try_from(stat.mod_time / 1_000_000_000).unwrap_or(0));
    let is_link = !stat.linkname.is_empty();
    let kind = match mode::kind(stat.mode) {
        mode::Kind::File if is_link => EntryType::Link,
        mode::Kind::File => EntryType::Regular,
        mode::Kind::Dir => EntryType::Directory,
        mode::Kind::Symlink => EntryType::Symlink,
        mode::Kind::Fifo => EntryType::Fifo,
        mode::Kind::Char => EntryType::Char,
        mode::Kind::Block => EntryType::Block,
        // Sockets and the like belong to who made them.
        mode::Kind::Other => return Ok(out.into()),
    };
    header.set_entry_type(kind);
    if matches!(kind, EntryType::Char | EntryType::Block) {
        let number = |n: i64| u32::try_from(n).map_err(io::Error::other);
        header.set_device_major(number(stat.devmajor)?)?;
        header.set_device_minor(number(stat.devminor)?)?;
    }
    let path = Path::new(OsStr::from_bytes(&stat.path));
    let mut builder = Builder::new(&mut out);
    let xattrs: Vec<(String, &[u8])> = stat
        .xattrs
        .iter()
        .map(|(k, v)| (format!("SCHILY.xattr.{k}"), &v[..]))
        .collect();
    if !xattrs.is_empty() {
        builder.append_pax_extensions(xattrs.iter().map(|(k, v)| (&k[..], *v)))?;
    }
    match kind {
        EntryType::Link | EntryType::Symlink => {
            builder.append_link(&mut header, path, Path::new(OsStr::from_bytes(&stat.linkname)))?;
        }
        _ => builder.append_data(&mut header, path, io::empty())?,
    }
    // The end of an archive is not written here.
    std::mem::forget(builder);
    Ok(out.into())
}
