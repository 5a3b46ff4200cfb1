//! What a tar has beside the contents of files.
//!
//! The store keeps file contents once, in the layer's EROFS file. To push or save a layer under its own diff id, the tar must come
//! out byte for byte as it came in: headers of whatever dialect, padding, order, odd ends. All of that is kept here,
//! compressed, with marks where file contents go and a table of where those lie.
//!
//! ```text
//! zstd frame   records: 0 <n> <n bytes>     bytes of the tar
//!                       1 <n>               n bytes of file contents
//!                       2                   the end
//! zstd frame   <count>, then the contents in order: 0 <offset> <n>      bytes of the EROFS file
//!                                                   1 <n> <n bytes>     bytes that are not in it
//! 24 bytes     where the second frame begins, length of the tar, "BIGASPL1"
//! ```
//! Numbers in records are of variable length, seven bits a byte, low bits first.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::tarstream::Beside;

const MAGIC: &[u8; 8] = b"BIGASPL1";
const RAW: u8 = 0;
const DATA: u8 = 1;
const END: u8 = 2;
/// Bytes of the tar gathered into one record.
const GATHER: usize = 64 << 10;
/// Headers are alike: the fastest level already makes little of them.
const LEVEL: i32 = 1;

/// Where a piece of contents lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent<'t> {
    /// In the EROFS file.
    File {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Here.
    Literal(&'t [u8]),
}

/// Writes a split while the tar is read.
pub struct SplitWriter {
    encoder: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    gathered: Vec<u8>,
    data: u64,
}

impl SplitWriter {
    /// Writes to an empty file.
    pub fn new(file: File) -> io::Result<SplitWriter> {
        let encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
        Ok(SplitWriter {
            encoder,
            gathered: Vec::with_capacity(GATHER),
            data: 0,
        })
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            record(&mut self.encoder, RAW, &self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if self.data > 0 {
            self.encoder.write_all(&[DATA])?;
            varint(&mut self.encoder, self.data)?;
            self.data = 0;
        }
        Ok(())
    }

    /// Ends it: `extents` are the contents in the order of [`SplitWriter::data`]; `tar_size` is for readers.
    pub fn finish<'t>(mut self, extents: impl ExactSizeIterator<Item = Extent<'t>>, tar_size: u64) -> io::Result<File> {
        self.flush_raw()?;
        self.flush_data()?;
        self.encoder.write_all(&[END])?;
        let mut file = self.encoder.finish()?;
        let table_at = file.stream_position()?;
        let mut table = zstd::stream::write::Encoder::new(file, LEVEL)?;
        varint(&mut table, extents.len() as u64)?;
        for extent in extents {
            match extent {
                Extent::File { offset, len } => {
                    table.write_all(&[0])?;
                    varint(&mut table, offset)?;
                    varint(&mut table, len)?;
                }
                Extent::Literal(bytes) => record(&mut table, 1, bytes)?,
            }
        }
        let mut file = table.finish()?;
        file.write_all(&table_at.to_le_bytes())?;
        file.write_all(&tar_size.to_le_bytes())?;
        file.write_all(MAGIC)?;
        file.into_inner().map_err(|e| e.into_error())
    }
}

impl Beside for SplitWriter {
    /// Bytes of the tar that are no file's content.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush_data()?;
        if self.gathered.len() + bytes.len() > GATHER {
            self.flush_raw()?;
        }
        if bytes.len() >= GATHER {
            return record(&mut self.encoder, RAW, bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// So many bytes of a file's content.
    fn data(&mut self, len: u64) -> io::Result<()> {
        self.flush_raw()?;
        self.data += len;
        Ok(())
    }
}

fn record(out: &mut impl Write, tag: u8, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&[tag])?;
    varint(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

fn varint(out: &mut impl Write, mut n: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut len = 0;
    loop {
        bytes[len] = (n & 0x7f) as u8 | u8::from(n > 0x7f) << 7;
        len += 1;
        n >>= 7;
        if n == 0 {
            return out.write_all(&bytes[..len]);
        }
    }
}

fn read_varint(input: &mut impl Read) -> io::Result<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(input)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(damaged("a number is too long"))
}

fn read_byte(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the layer's split is damaged: {why}"),
    )
}

enum Piece {
    File { offset: u64, len: u64 },
    Literal(Vec<u8>),
}

/// Gives the tar again. Its digest is for the caller to check.
pub struct TarReader {
    image: File,
    records: BufReader<zstd::stream::read::Decoder<'static, BufReader<io::Take<File>>>>,
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<Piece>,
    /// Bytes of the current record.
    raw: u64,
    data: u64,
    ended: bool,
    tar_size: u64,
}

impl TarReader {
    /// `split` and the EROFS file it goes with.
    pub fn new(mut split: File, image: File) -> io::Result<TarReader> {
        let end = split.seek(SeekFrom::End(-24)).map_err(|_| damaged("it is too short"))?;
        let mut footer = [0; 24];
        split.read_exact(&mut footer)?;
        let number = |at: usize| footer[at..at + 8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let (table_at, tar_size) = (number(0), number(8));
        if &footer[16..] != MAGIC || table_at > end {
            return Err(damaged("its end is missing"));
        }
        split.seek(SeekFrom::Start(table_at))?;
        let pieces = read_table((&mut split).take(end - table_at))?;
        split.rewind()?;
        let records = zstd::stream::read::Decoder::new(split.take(table_at))?;
        Ok(TarReader {
            image,
            records: BufReader::new(records),
            pieces: pieces.into_iter(),
            piece: None,
            raw: 0,
            data: 0,
            ended: false,
            tar_size,
        })
    }

    /// Bytes of the whole tar.
    pub fn tar_size(&self) -> u64 {
        self.tar_size
    }

    fn next_record(&mut self) -> io::Result<()> {
        match read_byte(&mut self.records)? {
            RAW => self.raw = read_varint(&mut self.records)?,
            DATA => self.data = read_varint(&mut self.records)?,
            END => self.ended = true,
            _ => return Err(damaged("it has a record of an unknown kind")),
        }
        Ok(())
    }

    fn read_data(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.data).unwrap_or(usize::MAX).min(out.len());
        loop {
            let got = match &mut self.piece {
                Some(Piece::File { offset, len }) if *len > 0 => {
                    let want = usize::try_from(*len).unwrap_or(usize::MAX).min(max);
                    let got = self.image.read_at(&mut out[..want], *offset)?;
                    if got == 0 {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the layer file is cut off",
                        ));
                    }
                    *offset += got as u64;
                    *len -= got as u64;
                    got
                }
                Some(Piece::Literal(bytes)) if !bytes.is_empty() => {
                    let got = bytes.len().min(max);
                    out[..got].copy_from_slice(&bytes[..got]);
                    bytes.drain(..got);
                    got
                }
                _ => {
                    self.piece = Some(self.pieces.next().ok_or_else(|| damaged("contents are missing"))?);
                    continue;
                }
            };
            self.data -= got as u64;
            return Ok(got);
        }
    }
}

fn read_table(frame: impl Read) -> io::Result<Vec<Piece>> {
    let mut table = BufReader::new(zstd::stream::read::Decoder::new(frame)?);
    let count = read_varint(&mut table)?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push(match read_byte(&mut table)? {
            0 => Piece::File {
                offset: read_varint(&mut table)?,
                len: read_varint(&mut table)?,
            },
            1 => {
                let len = read_varint(&mut table)?;
                let mut bytes = Vec::new();
                (&mut table).take(len).read_to_end(&mut bytes)?;
                Piece::Literal(bytes)
            }
            _ => return Err(damaged("its table has an unknown kind")),
        });
    }
    Ok(pieces)
}

impl Read for TarReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.raw > 0 {
                let max = usize::try_from(self.raw).unwrap_or(usize::MAX).min(out.len());
                let got = self.records.read(&mut out[..max])?;
                if got == 0 {
                    return Err(damaged("a record is cut off"));
                }
                self.raw -= got as u64;
                return Ok(got);
            }
            if self.data > 0 {
                return self.read_data(out);
            }
            if self.ended {
                return Ok(0);
            }
            self.next_record()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_comes_out_as_it_went_in() {
        let mut image = tempfile::tempfile().unwrap();
        image.write_all(b"....contents").unwrap();
        let mut split = SplitWriter::new(tempfile::tempfile().unwrap()).unwrap();
        let long = vec![7; 3 * GATHER];
        split.raw(b"head").unwrap();
        split.data(5).unwrap();
        split.data(3).unwrap();
        split.raw(&long).unwrap();
        split.data(2).unwrap();
        let extents = [
            Extent::File { offset: 4, len: 7 },
            Extent::Literal(b""),
            Extent::Literal(b"!"),
            Extent::File { offset: 10, len: 2 },
        ];
        let file = split.finish(extents.into_iter(), 99).unwrap();
        let mut reader = TarReader::new(file, image).unwrap();
        assert_eq!(reader.tar_size(), 99);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(out, [b"head", b"content!".as_slice(), &long, b"ts"].concat());
    }

    #[test]
    fn damage_is_noticed() {
        let file = |bytes: &[u8]| {
            let mut f = tempfile::tempfile().unwrap();
            f.write_all(bytes).unwrap();
            f
        };
        for bytes in [&b""[..], b"short", &[0xff; 200]] {
            assert!(TarReader::new(file(bytes), file(b"")).is_err());
        }
    }
}
