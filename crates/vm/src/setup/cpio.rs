//! Writer of cpio archives in the "new ASCII" form, as the kernel reads them for its initramfs.

/// An archive in memory.
#[derive(Debug, Default)]
pub struct Archive {
    out: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a directory; parents come first.
    pub fn dir(&mut self, path: &str, mode: u32) {
        self.entry(path, 0o040000 | mode, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.entry(path, 0o100000 | mode, (0, 0), bytes);
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, 0o020000 | mode, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.out.resize(self.out.len().next_multiple_of(512), 0);
        self.out
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            bytes.len() as u32,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.out.extend_from_slice(path.as_bytes());
        self.out.push(0);
        self.pad();
        self.out.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_what_cpio_readers_expect() {
        let mut archive = Archive::new();
        archive.dir("d", 0o755);
        archive.file("d/abc", 0o644, b"hello");
        archive.char_device("console", 0o600, 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);

        // A reader of its own: names, modes, contents in order.
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
                u32::from_str_radix(text, 16).unwrap() as usize
            };
            let (mode, size, names) = (field(1), field(6), field(11));
            let name = std::str::from_utf8(&bytes[at + 110..at + 110 + names - 1]).unwrap();
            let data = (at + 110 + names).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            seen.push((
                name.to_owned(),
                mode,
                bytes[data..data + size].to_vec(),
                (field(9), field(10)),
            ));
            at = (data + size).next_multiple_of(4);
        }
        assert_eq!(
            seen,
            [
                ("d".to_owned(), 0o040755, vec![], (0, 0)),
                ("d/abc".to_owned(), 0o100644, b"hello".to_vec(), (0, 0)),
                ("console".to_owned(), 0o020600, vec![], (5, 1)),
            ]
        );
    }
}
