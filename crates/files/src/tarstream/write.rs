//! Tars that Biga makes itself: archives of images, and the layer of a disk image.

use std::io::{self, Read, Write};

const BLOCK: u64 = 512;
/// What eleven octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// One entry's header.
pub struct Header<'n> {
    /// At most 99 bytes.
    pub name: &'n str,
    /// Not a file.
    pub directory: bool,
    /// Permissions.
    pub mode: u32,
    /// Owner and group.
    pub id: u32,
    /// Bytes.
    pub size: u64,
}

impl Header<'_> {
    /// As it stands in a tar.
    pub fn encode(&self) -> [u8; 512] {
        let mut b = [0; 512];
        let name = &self.name.as_bytes()[..self.name.len().min(99)];
        b[..name.len()].copy_from_slice(name);
        octal(&mut b[100..108], u64::from(self.mode));
        octal(&mut b[108..116], u64::from(self.id));
        octal(&mut b[116..124], u64::from(self.id));
        if self.size <= MAX_OCTAL {
            octal(&mut b[124..136], self.size);
        } else {
            b[124] = 0x80;
            b[128..136].copy_from_slice(&self.size.to_be_bytes());
        }
        octal(&mut b[136..148], 0);
        b[156] = if self.directory { b'5' } else { b'0' };
        b[257..265].copy_from_slice(b"ustar\x0000");
        b[148..156].fill(b' ');
        let sum: u64 = b.iter().map(|&b| u64::from(b)).sum();
        octal(&mut b[148..155], sum);
        b
    }
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    for (i, byte) in field[..digits].iter_mut().enumerate() {
        *byte = b'0' + (value >> (3 * (digits - 1 - i)) & 7) as u8;
    }
    field[digits] = 0;
}

/// Zeros that fill the last block of so many bytes.
pub fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK) - size) as usize
}

/// Writes a file that must have exactly `size` bytes.
pub fn file(out: &mut impl Write, name: &str, size: u64, mut content: impl Read) -> io::Result<()> {
    out.write_all(
        &Header {
            name,
            directory: false,
            mode: 0o644,
            id: 0,
            size,
        }
        .encode(),
    )?;
    let copied = io::copy(&mut content, out)?;
    if copied != size {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} has {copied} bytes instead of {size}"),
        ));
    }
    out.write_all(&[0; 512][..padding(size)])
}

/// Writes a directory.
pub fn directory(out: &mut impl Write, name: &str) -> io::Result<()> {
    out.write_all(
        &Header {
            name,
            directory: true,
            mode: 0o755,
            id: 0,
            size: 0,
        }
        .encode(),
    )
}

/// The two empty blocks at the end.
pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 1024])
}
