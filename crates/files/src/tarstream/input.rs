//! The bytes of a stream: read in large pieces, hashed once, handed out without copying.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::Error;

/// Bytes read at once: they stay in the second-level cache from decompression to hashing and writing.
const PIECE: usize = 128 << 10;

/// A buffered, hashed stream.
pub struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    hasher: Sha256,
    /// Bytes read from the source.
    read: u64,
    limit: u64,
}

impl<R: Read> Input<R> {
    /// Of at most so many bytes.
    pub fn new(source: R, limit: u64) -> Input<R> {
        Input {
            source,
            buffer: vec![0; PIECE],
            start: 0,
            end: 0,
            hasher: Sha256::new(),
            read: 0,
            limit,
        }
    }

    /// Bytes handed out.
    pub fn position(&self) -> u64 {
        self.read - (self.end - self.start) as u64
    }

    /// The next bytes, at most so many; empty at the end. They count as handed out.
    pub fn take(&mut self, max: u64) -> Result<&[u8], Error> {
        if self.start == self.end {
            self.fill()?;
        }
        let len = usize::try_from(max).unwrap_or(usize::MAX).min(self.end - self.start);
        let from = self.start;
        self.start += len;
        Ok(&self.buffer[from..from + len])
    }

    /// Fills the buffer whole unless the stream ends: decoders give small pieces, and hashing likes large ones.
    fn fill(&mut self) -> Result<(), Error> {
        (self.start, self.end) = (0, 0);
        while self.end < self.buffer.len() {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.hasher.update(&self.buffer[..self.end]);
        self.read += self.end as u64;
        if self.read > self.limit {
            return Err(Error::TooBig(self.limit));
        }
        Ok(())
    }

    /// Fills `out`; `Ok(false)` where the stream ended before its first byte.
    pub fn exact(&mut self, out: &mut [u8]) -> Result<bool, Error> {
        let mut filled = 0;
        while filled < out.len() {
            let piece = self.take((out.len() - filled) as u64)?;
            if piece.is_empty() {
                return if filled == 0 { Ok(false) } else { Err(Error::Truncated) };
            }
            out[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(true)
    }

    /// The source, the SHA-256 of all that was read, and how much that was.
    pub fn finish(self) -> (R, [u8; 32], u64) {
        (self.source, self.hasher.finalize().into(), self.read)
    }
}
