//! Bytes for one who reads slowly, on disk: in a file that has no name and is gone with its descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Most bytes that wait in a file.
pub const LIMIT: usize = 128 << 20;

/// What waits in a file.
#[derive(Debug)]
pub struct Spill {
    file: File,
    begin: u64,
    end: u64,
}

impl Spill {
    /// An empty one in a directory.
    pub fn new(dir: &Path) -> io::Result<Spill> {
        let flags = OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(dir)?;
        Ok(Spill { file, begin: 0, end: 0 })
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        usize::try_from(self.end - self.begin).unwrap_or(usize::MAX)
    }

    /// Adds to the end: all of it, or nothing where that fails.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes up to `most` bytes from the beginning, to the end of `to`.
    pub fn take(&mut self, most: usize, to: &mut Vec<u8>) -> io::Result<()> {
        let from = to.len();
        let len = self.len().min(most);
        to.resize(from + len, 0);
        if let Err(e) = self.file.read_exact_at(&mut to[from..], self.begin) {
            to.truncate(from);
            return Err(e);
        }
        self.begin += len as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_order_and_the_file_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = Spill::new(dir.path()).unwrap();
        for i in 0..100u8 {
            s.push(&[i; 1000]).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut out = Vec::new();
        while s.len() > 0 {
            s.take(777, &mut out).unwrap();
            if out.len() == 7770 {
                s.push(b"later").unwrap();
            }
        }
        assert_eq!(out.len(), 100_005);
        assert!(
            out.iter()
                .take(100_000)
                .enumerate()
                .all(|(at, b)| usize::from(*b) == at / 1000)
        );
        assert!(out.ends_with(b"later"));
    }
}
