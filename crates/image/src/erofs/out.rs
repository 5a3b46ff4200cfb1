//! The file behind a writer: large writes, and holes for what is zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Small pieces are gathered up to this many bytes.
const GATHER: usize = 256 << 10;
/// Pieces of at least this size go to the kernel as they are.
const DIRECT: usize = 32 << 10;
/// Zeros are left out in units of this size, aligned in the piece being written.
const HOLE: usize = 32 << 10;

/// Appends to a file.
#[derive(Debug)]
pub(super) struct Out {
    file: File,
    /// Bytes written or left out, the gathered ones included.
    pos: u64,
    gathered: Vec<u8>,
}

impl Out {
    /// Starts at this offset.
    pub(super) fn new(file: File, pos: u64) -> Out {
        Out {
            file,
            pos,
            gathered: Vec::with_capacity(GATHER),
        }
    }

    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= DIRECT {
            self.flush()?;
            write_sparse(&self.file, bytes, self.pos)?;
            self.pos += bytes.len() as u64;
            return Ok(());
        }
        if self.gathered.len() + bytes.len() > GATHER {
            self.flush()?;
        }
        self.gathered.extend_from_slice(bytes);
        self.pos += bytes.len() as u64;
        Ok(())
    }

    /// Goes on behind so many zeros.
    pub(super) fn skip(&mut self, len: u64) -> io::Result<()> {
        if len < DIRECT as u64 && self.gathered.len() + (len as usize) <= GATHER {
            self.gathered.resize(self.gathered.len() + len as usize, 0);
        } else {
            self.flush()?;
        }
        self.pos += len;
        Ok(())
    }

    /// Goes on at a multiple of `unit`.
    pub(super) fn align(&mut self, unit: u64) -> io::Result<()> {
        self.skip(self.pos.next_multiple_of(unit) - self.pos)
    }

    fn flush(&mut self) -> io::Result<()> {
        write_sparse(&self.file, &self.gathered, self.pos - self.gathered.len() as u64)?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes what is left and gives the file its length.
    pub(super) fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        self.file.set_len(self.pos)?;
        Ok(self.file)
    }
}

/// Writes all but long runs of zeros, which the file shows anyway where nothing was written.
fn write_sparse(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let mut start = 0;
    for (i, unit) in bytes.chunks_exact(HOLE).enumerate() {
        if is_zero(unit) {
            let end = i * HOLE;
            file.write_all_at(&bytes[start..end], at + start as u64)?;
            start = end + HOLE;
        }
    }
    file.write_all_at(&bytes[start..], at + start as u64)
}

fn is_zero(bytes: &[u8]) -> bool {
    // Most data shows in its first bytes that it is none.
    bytes[..8] == [0; 8] && bytes.iter().all(|&b| b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_become_holes_and_read_back() {
        let file = tempfile::tempfile().unwrap();
        let mut out = Out::new(file, 4096);
        let mut want = vec![0; 4096];
        let mut put = |out: &mut Out, bytes: Vec<u8>| {
            out.write(&bytes).unwrap();
            want.extend(bytes);
        };
        put(&mut out, vec![1; 10]);
        put(&mut out, vec![0; 1 << 20]);
        put(&mut out, [vec![2; HOLE], vec![0; HOLE], vec![3; HOLE + 5]].concat());
        put(&mut out, vec![4; 100]);
        out.skip(1 << 20).unwrap();
        want.resize(want.len() + (1 << 20), 0);
        out.align(4096).unwrap();
        want.resize(want.len().next_multiple_of(4096), 0);
        assert_eq!(out.pos(), want.len() as u64);
        let file = out.finish().unwrap();
        let mut got = vec![9; want.len()];
        file.read_exact_at(&mut got, 0).unwrap();
        assert!(got == want);
        assert_eq!(file.metadata().unwrap().len(), want.len() as u64);
        use std::os::unix::fs::MetadataExt;
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
