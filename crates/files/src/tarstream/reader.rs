//! Entries of a stream, one after the other.

use std::io::Read;

use super::header::{BLOCK, Header};
use super::pax::Pax;
use super::sparse::{self, LineMap, Segment};
use super::{Beside, Error, Input};
use crate::{Attributes, show};

/// Largest PAX header.
const MAX_PAX: u64 = 1 << 20;
/// Largest GNU long name.
const MAX_LONG_NAME: u64 = 64 << 10;

/// Extended headers and long names before one entry, all together: each alone is small, and there may be any number.
const MAX_AHEAD: u64 = 4 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Its content follows.
    File,
    /// A directory.
    Dir,
    /// `link` is its target.
    Symlink,
    /// `link` names the other entry.
    Link,
    /// Major and minor number.
    Char(u32, u32),
    /// Major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A remark, no file.
    Remark,
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it stands in the tar.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Owner, mode, times, extended attributes.
    pub attributes: Attributes,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Of a sparse file: the pieces that the tar holds, in order.
    pub segments: Option<Vec<Segment>>,
}

/// Reads a stream to its end.
pub struct Reader<R, B = ()> {
    input: Input<R>,
    split: B,
    /// Bytes of the entry's data, and of the padding behind it, not yet read.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What extended headers said about the entry to come.
#[derive(Default)]
struct Ahead {
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Only its entries.
    pub fn new(input: Input<R>) -> Reader<R> {
        Reader::with(input, ())
    }
}

impl<R: Read, B: Beside> Reader<R, B> {
    /// And somebody who is told what stands beside them.
    pub fn with(input: Input<R>, split: B) -> Reader<R, B> {
        Reader {
            input,
            split,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry. What was not read of the one before is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.pass_over()?;
        let mut ahead = Ahead::default();
        let start = self.input.position();
        while !self.ended {
            let mut block = [0; BLOCK];
            let at = self.input.position();
            if at - start > MAX_AHEAD {
                return Err(Error::HeaderTooBig(at - start));
            }
            if !self.input.exact(&mut block)? {
                self.ended = true;
                break;
            }
            self.split.raw(&block)?;
            let header = Header(&block);
            if header.is_zero() {
                self.drain()?;
                break;
            }
            if !header.checksum_holds() {
                return Err(Error::Checksum(at));
            }
            match header.kind() {
                b'x' | b'X' => {
                    let bytes = self.extended(&header, MAX_PAX)?;
                    ahead.pax.read(&bytes)?;
                }
                // Global headers carry remarks (as the commit of `git archive`), which concern no entry.
                b'g' => drop(self.extended(&header, MAX_PAX)?),
                b'L' => ahead.name = Some(self.long_name(&header)?),
                b'K' => ahead.link = Some(self.long_name(&header)?),
                _ => return self.entry(&header, ahead).map(Some),
            }
        }
        Ok(None)
    }

    /// The next piece of the entry's data, at most so many bytes; empty at its end.
    pub fn data(&mut self, max: u64) -> Result<&[u8], Error> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let piece = self.input.take(self.left.min(max))?;
        if piece.is_empty() {
            return Err(Error::Truncated);
        }
        self.left -= piece.len() as u64;
        self.split.data(piece.len() as u64)?;
        Ok(piece)
    }

    /// After the last entry: the input and who was told.
    pub fn finish(self) -> (Input<R>, B) {
        (self.input, self.split)
    }

    fn entry(&mut self, header: &Header<'_>, ahead: Ahead) -> Result<Entry, Error> {
        let Ahead { pax, name, link } = ahead;
        let sparse_name = pax.sparse.name.clone();
        let path = sparse_name
            .or(pax.path.clone())
            .or(name)
            .unwrap_or_else(|| header.name());
        let link = pax.link.clone().or(link).unwrap_or_else(|| header.link());
        let field = |field: &'static str| Error::Field {
            field,
            path: show(&path),
        };
        let kind = kind(header, &path)?;
        let held = match header.kind() {
            // These have no data, whatever their size says.
            b'1'..=b'6' => 0,
            _ => pax
                .size
                .or_else(|| header.size())
                .and_then(|n| u64::try_from(n).ok())
                .ok_or(field("size"))?,
        };
        let attributes = attributes(header, &pax, &field)?;
        self.left = held;
        self.padding = held.checked_next_multiple_of(BLOCK as u64).ok_or(field("size"))? - held;
        let mut entry = Entry {
            path,
            link,
            kind,
            attributes,
            size: held,
            segments: None,
        };
        if kind == EntryKind::File {
            self.sparse(header, &pax, &mut entry)?;
        }
        Ok(entry)
    }

    /// Finds out whether a file is sparse, by GNU's four ways of saying so.
    fn sparse(&mut self, header: &Header<'_>, pax: &Pax, entry: &mut Entry) -> Result<(), Error> {
        let bad = |()| Error::Sparse(show(&entry.path));
        let (map, real_size) = if header.kind() == b'S' {
            (self.old_gnu_map(header, &entry.path)?, header.gnu_real_size())
        } else if pax.sparse.major == Some(1) && pax.sparse.minor == Some(0) {
            (self.line_map(&entry.path)?, pax.sparse.real_size)
        } else if let Some(map) = sparse::from_pax(&pax.sparse).map_err(bad)? {
            (map, pax.sparse.real_size)
        } else {
            return Ok(());
        };
        let real_size = real_size.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| bad(()))?;
        sparse::check(&map, real_size, self.left).map_err(bad)?;
        entry.size = real_size;
        entry.segments = Some(map);
        Ok(())
    }

    fn old_gnu_map(&mut self, header: &Header<'_>, path: &[u8]) -> Result<Vec<Segment>, Error> {
        let bad = |()| Error::Sparse(show(path));
        let mut map = Vec::new();
        sparse::old_gnu(header.gnu_sparse(), &mut map).map_err(bad)?;
        let mut more = header.gnu_extended();
        while more {
            let mut block = [0; BLOCK];
            self.raw_exact(&mut block)?;
            let before = map.len();
            sparse::old_gnu(&block[..504], &mut map).map_err(bad)?;
            more = block[504] != 0;
            if more && map.len() == before {
                return Err(bad(()));
            }
        }
        Ok(map)
    }

    fn line_map(&mut self, path: &[u8]) -> Result<Vec<Segment>, Error> {
        let bad = |()| Error::Sparse(show(path));
        let mut lines = LineMap::default();
        let mut done = false;
        while !done {
            // The map is padded to whole blocks, which are part of the entry's data.
            self.left = self.left.checked_sub(BLOCK as u64).ok_or_else(|| bad(()))?;
            let mut block = [0; BLOCK];
            self.raw_exact(&mut block)?;
            for &byte in &block {
                done = lines.feed(byte).map_err(bad)?;
                if done {
                    break;
                }
            }
        }
        Ok(lines.map)
    }

    /// The content of an extended header and its padding.
    fn extended(&mut self, header: &Header<'_>, max: u64) -> Result<Vec<u8>, Error> {
        let size = header.size().and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or(Error::Field {
            field: "size",
            path: "an extended header".into(),
        })?;
        if size > max {
            return Err(Error::HeaderTooBig(size));
        }
        let mut bytes = vec![0; (size as usize).next_multiple_of(BLOCK)];
        self.raw_exact(&mut bytes)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, Error> {
        let mut name = self.extended(header, MAX_LONG_NAME)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn raw_exact(&mut self, out: &mut [u8]) -> Result<(), Error> {
        if !out.is_empty() && !self.input.exact(out)? {
            return Err(Error::Truncated);
        }
        Ok(self.split.raw(out)?)
    }

    /// What is left of the entry, kept in the split as it is.
    fn pass_over(&mut self) -> Result<(), Error> {
        let mut left = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        while left > 0 {
            let piece = self.input.take(left)?;
            if piece.is_empty() {
                return Err(Error::Truncated);
            }
            left -= piece.len() as u64;
            self.split.raw(piece)?;
        }
        Ok(())
    }

    /// Everything behind the end mark: zeros as a rule, but it counts for the digest.
    fn drain(&mut self) -> Result<(), Error> {
        self.ended = true;
        loop {
            let piece = self.input.take(u64::MAX)?;
            if piece.is_empty() {
                return Ok(());
            }
            self.split.raw(piece)?;
        }
    }
}

fn kind(header: &Header<'_>, path: &[u8]) -> Result<EntryKind, Error> {
    let device = |what: fn(u32, u32) -> EntryKind| {
        let part = |n: Option<i64>, max: u32| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
        // What the kernel's device numbers hold.
        let (major, minor) = (part(header.major(), 0xfff), part(header.minor(), 0xf_ffff));
        let numbers = major.zip(minor);
        let (major, minor) = numbers.ok_or(Error::Field {
            field: "device number",
            path: show(path),
        })?;
        Ok(what(major, minor))
    };
    match header.kind() {
        // The oldest tars know directories by their slash alone.
        0 | b'0' | b'7' if path.ends_with(b"/") => Ok(EntryKind::Dir),
        0 | b'0' | b'7' | b'S' => Ok(EntryKind::File),
        b'1' => Ok(EntryKind::Link),
        b'2' => Ok(EntryKind::Symlink),
        b'3' => device(EntryKind::Char),
        b'4' => device(EntryKind::Block),
        b'5' | b'D' => Ok(EntryKind::Dir),
        b'6' => Ok(EntryKind::Fifo),
        b'V' => Ok(EntryKind::Remark),
        other => Err(Error::Kind {
            path: show(path),
            kind: other.into(),
        }),
    }
}

fn attributes(header: &Header<'_>, pax: &Pax, field: &dyn Fn(&'static str) -> Error) -> Result<Attributes, Error> {
    let id = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    let (mtime, mtime_nsec) = match pax.mtime {
        Some(time) => time,
        None => (header.mtime().ok_or_else(|| field("modification time"))?, 0),
    };
    Ok(Attributes {
        mode: (header.mode().ok_or_else(|| field("mode"))? & 0o7777) as u16,
        uid: id(pax.uid.or_else(|| header.uid())).ok_or_else(|| field("owner"))?,
        gid: id(pax.gid.or_else(|| header.gid())).ok_or_else(|| field("group"))?,
        mtime,
        mtime_nsec,
        xattrs: pax.xattrs.clone(),
    })
}
