//! From a layer's blob to its EROFS file, in one pass.
//!
//! ```text
//! blob ── decompress ──┬── sha256 (diff id)
//!                      └── tar entries ──┬── contents ──► EROFS file
//!                                        └── the rest ──► split
//! ```
//!
//! Whiteouts are in the form of the OCI image specification: `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq`
//! hides all that lower layers have in its directory.

use std::fs::File;
use std::io::{self, BufRead, Read};

pub(crate) use biga_files::compression::decompress;

use crate::erofs::{self, OnlyFile, Special, StoredFile, Writer, split_last};
use crate::split::{Extent, SplitWriter};
use crate::tarstream::{self, Entry, EntryKind, Input, Reader};

/// Bounds on what one layer may hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Files, directories and so on, those implied by paths included.
    pub entries: usize,
    /// Bytes of tar.
    pub tar_bytes: u64,
    /// Bytes of the resulting file system, holes included.
    pub image_bytes: u64,
    /// Bytes held in memory while a layer is read: names, link targets, extended attributes, small files.
    pub memory: usize,
    /// Uncompressed bytes for each compressed one, counted where a layer has more than [`RATIO_FROM`].
    pub ratio: u64,
}

pub use biga_files::compression::RATIO_FROM;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 2 << 20,
            tar_bytes: 256 << 30,
            image_bytes: 4 << 40,
            memory: 768 << 20,
            // Deflate itself cannot go beyond 1032.
            ratio: 1100,
        }
    }
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its tar.
    #[error(transparent)]
    Tar(#[from] tarstream::Error),
    /// Its tree, or writing it.
    #[error(transparent)]
    Erofs(#[from] erofs::Error),
    /// The split could not be written.
    #[error("cannot write the layer's split")]
    Split(#[source] io::Error),
}

/// What a conversion made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: [u8; 32],
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Bytes of the EROFS file.
    pub image_size: u64,
    /// Its inodes.
    pub inodes: u64,
    /// Set where the layer is that of a disk image.
    pub only_file: Option<OnlyFile>,
}

/// A stretch of one file's content as it stood in the tar.
struct Stretch {
    file: u32,
    offset: u64,
    len: u64,
}

/// Reads a blob (plain, gzip, bzip2, xz or zstd) to its end and writes the layer into two empty files.
pub fn convert(blob: impl BufRead, image: File, split: File, limits: &Limits) -> Result<Converted, Error> {
    let source = decompress(blob, limits.ratio).map_err(tarstream::Error::Io)?;
    let split = SplitWriter::new(split).map_err(Error::Split)?;
    let mut reader = Reader::with(Input::new(source, limits.tar_bytes), split);
    let mut writer = Writer::new(image, limits);
    let mut stretches = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        add(&mut writer, &mut reader, &entry, &mut stretches)?;
    }
    let (input, split) = reader.finish();
    let (_, diff_id, tar_size) = input.finish();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&diff_id[..16]);
    let (_, stored, summary) = writer.finish(uuid)?;
    let extents: Vec<Extent<'_>> = stretches.iter().flat_map(|s| extents(s, &stored)).collect();
    split.finish(extents.into_iter(), tar_size).map_err(Error::Split)?;
    Ok(Converted {
        diff_id,
        tar_size,
        image_size: summary.size,
        inodes: summary.inodes,
        only_file: summary.only_file,
    })
}

fn add<R: Read>(
    writer: &mut Writer,
    reader: &mut Reader<R, SplitWriter>,
    entry: &Entry,
    stretches: &mut Vec<Stretch>,
) -> Result<(), Error> {
    let path = &entry.path[..];
    let attributes = &entry.attributes;
    let (dir, name) = split_last(path);
    if let Some(rest) = name.and_then(|n| n.strip_prefix(b".wh.")) {
        match rest {
            b".wh..opq" => writer.tree.set_opaque(dir)?,
            // Notes that AUFS kept for itself.
            _ if rest.starts_with(b".wh.") => {}
            _ => writer.tree.add_whiteout(dir, rest)?,
        }
        return Ok(());
    }
    match entry.kind {
        EntryKind::File => {
            let number = content(writer, reader, entry, stretches)?;
            writer.tree.add_file(path, number, attributes)?;
        }
        EntryKind::Dir => writer.tree.add_dir(path, attributes)?,
        EntryKind::Symlink => writer.tree.add_symlink(path, &entry.link, attributes)?,
        EntryKind::Link => writer.tree.add_link(path, &entry.link)?,
        EntryKind::Char(major, minor) => writer.tree.add_special(path, Special::Char(major, minor), attributes)?,
        EntryKind::Block(major, minor) => writer
            .tree
            .add_special(path, Special::Block(major, minor), attributes)?,
        EntryKind::Fifo => writer.tree.add_special(path, Special::Fifo, attributes)?,
        EntryKind::Remark => {}
    }
    Ok(())
}

/// Copies a file's content; returns its number.
fn content<R: Read>(
    writer: &mut Writer,
    reader: &mut Reader<R, SplitWriter>,
    entry: &Entry,
    stretches: &mut Vec<Stretch>,
) -> Result<u32, Error> {
    writer.begin_file(entry.size, &entry.attributes)?;
    let mut map = Vec::new();
    match &entry.segments {
        None => {
            loop {
                let piece = reader.data(u64::MAX)?;
                if piece.is_empty() {
                    break;
                }
                writer.data(piece)?;
            }
            map.push((0, entry.size));
        }
        Some(segments) => {
            sparse_content(writer, reader, entry.size, segments)?;
            map.clone_from(segments);
        }
    }
    let file = writer.end_file()?;
    writer.tree.charge(map.len() * std::mem::size_of::<Stretch>())?;
    let held = map.into_iter().filter(|&(_, len)| len > 0);
    stretches.extend(held.map(|(offset, len)| Stretch { file, offset, len }));
    Ok(file)
}

fn sparse_content<R: Read>(
    writer: &mut Writer,
    reader: &mut Reader<R, SplitWriter>,
    size: u64,
    segments: &[(u64, u64)],
) -> Result<(), Error> {
    let mut at = 0;
    for &(offset, len) in segments {
        writer.hole(offset - at)?;
        let mut left = len;
        while left > 0 {
            let piece = reader.data(left)?;
            if piece.is_empty() {
                return Err(tarstream::Error::Truncated.into());
            }
            left -= piece.len() as u64;
            writer.data(piece)?;
        }
        at = offset + len;
    }
    Ok(writer.hole(size - at)?)
}

/// Where a stretch lies in the image: in blocks, behind the inode, or (for files replaced later) nowhere.
fn extents<'t>(stretch: &Stretch, stored: &'t [StoredFile]) -> Vec<Extent<'t>> {
    let Some(file) = stored.get(stretch.file as usize) else {
        return Vec::new();
    };
    let in_blocks = file.size - file.tail.len() as u64;
    let end = stretch.offset + stretch.len;
    let mut all = Vec::with_capacity(2);
    if stretch.offset < in_blocks {
        all.push(Extent::File {
            offset: file.start + stretch.offset,
            len: end.min(in_blocks) - stretch.offset,
        });
    }
    if end > in_blocks {
        let from = stretch.offset.max(in_blocks) - in_blocks;
        let to = end - in_blocks;
        all.push(if file.tail_at == 0 {
            Extent::Literal(&file.tail[from as usize..to as usize])
        } else {
            Extent::File {
                offset: file.tail_at + from,
                len: to - from,
            }
        });
    }
    all
}
