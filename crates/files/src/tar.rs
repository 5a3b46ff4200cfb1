//! Entries of a tar as POSIX says since 2001: what does not fit into the old header goes into a PAX header before it.

use std::io::{self, Write};

/// Bytes of a block.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Link,
    Symlink,
    Char(u32, u32),
    Block(u32, u32),
    Dir,
    Fifo,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Kind::File => b'0',
            Kind::Link => b'1',
            Kind::Symlink => b'2',
            Kind::Char(..) => b'3',
            Kind::Block(..) => b'4',
            Kind::Dir => b'5',
            Kind::Fifo => b'6',
        }
    }
}

/// One entry's header.
#[derive(Debug, Clone)]
pub(super) struct Head<'a> {
    pub name: &'a [u8],
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link.
    pub link: &'a [u8],
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Writes a header. `size` bytes of data have to follow, and [`pad`].
pub(super) fn head(out: &mut impl Write, h: &Head<'_>) -> io::Result<()> {
    let name = match h.kind {
        Kind::Dir if !h.name.ends_with(b"/") => [h.name, b"/"].concat(),
        _ => h.name.to_vec(),
    };
    let pax = extended(&name, h);
    if !pax.is_empty() {
        let mut block = [0; BLOCK];
        block[..13].copy_from_slice(b"PaxHeaders/x\0");
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], pax.len() as u64);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        out.write_all(&sealed(block))?;
        out.write_all(&pax)?;
        pad(out, pax.len() as u64)?;
    }
    let mut block = [0; BLOCK];
    let short = |field: &mut [u8], text: &[u8]| {
        let n = text.len().min(field.len());
        field[..n].copy_from_slice(&text[..n]);
    };
    short(&mut block[..100], &name);
    octal(&mut block[100..108], u64::from(h.mode & 0o7777));
    octal(&mut block[108..116], u64::from(h.uid));
    octal(&mut block[116..124], u64::from(h.gid));
    octal(&mut block[124..136], h.size);
    octal(&mut block[136..148], u64::try_from(h.mtime.0).unwrap_or(0));
    block[156] = h.kind.letter();
    short(&mut block[157..257], h.link);
    if let Kind::Char(major, minor) | Kind::Block(major, minor) = h.kind {
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
    }
    out.write_all(&sealed(block))
}

/// Magic and checksum.
fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Zeros that fill the last block of so many bytes.
pub(super) fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 {
        return Ok(());
    }
    out.write_all(&[0; BLOCK][over..])
}

/// The two empty blocks at the end.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// Records for all that the old header has no room for.
fn extended(name: &[u8], h: &Head<'_>) -> Vec<u8> {
    let mut pax = Vec::new();
    let ascii = |text: &[u8]| text.len() <= 100 && text.is_ascii();
    if !ascii(name) {
        record(&mut pax, b"path", name);
    }
    if !ascii(h.link) {
        record(&mut pax, b"linkpath", h.link);
    }
    for (key, value, digits) in [
        (&b"uid"[..], u64::from(h.uid), 7),
        (b"gid", u64::from(h.gid), 7),
        (b"size", h.size, 11),
    ] {
        if value >> (3 * digits) != 0 {
            record(&mut pax, key, value.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = h.mtime;
    if nanos != 0 || seconds < 0 || seconds >> 33 != 0 {
        record(&mut pax, b"mtime", time(seconds, nanos).as_bytes());
    }
    for (key, value) in h.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", &key[..]].concat(), value);
    }
    pax
}

/// Seconds with a decimal fraction; before 1970 the fraction points backwards.
fn time(seconds: i64, nanos: u32) -> String {
    let text = match (seconds, nanos) {
        (s, 0) => return s.to_string(),
        (s, n) if s >= 0 => format!("{s}.{n:09}"),
        (s, n) => format!("-{}.{:09}", -(s + 1), 1_000_000_000 - n),
    };
    text.trim_end_matches('0').to_owned()
}

/// `length key=value\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + digits(len) != len {
        len = rest + digits(len);
    }
    pax.extend_from_slice(len.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

/// The lowest digits, where there is no room for all: a PAX record then says the whole.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    for (i, byte) in field[..digits].iter_mut().enumerate() {
        *byte = b'0' + (value >> (3 * (digits - 1 - i)) & 7) as u8;
    }
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarstream::{EntryKind, Input, Reader};

    /// Through the reader and back.
    fn read(h: &Head<'_>) -> crate::tarstream::Entry {
        let mut bytes = Vec::new();
        head(&mut bytes, h).unwrap();
        end(&mut bytes).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(Input::new(&bytes[..], 1 << 20));
        reader.next_entry().unwrap().unwrap()
    }

    #[test]
    fn what_is_large_or_strange_comes_back() {
        let long = vec![b'n'; 300];
        let xattrs = [(b"user.key".to_vec(), b"va\nl=ue\0".to_vec())];
        let h = Head {
            name: &long,
            kind: Kind::Symlink,
            mode: 0o4755,
            uid: u32::MAX,
            gid: 0o7777777 + 1,
            size: 0,
            mtime: (-2, 750_000_000),
            link: "zü".as_bytes(),
            xattrs: &xattrs,
        };
        let e = read(&h);
        assert_eq!((&e.path, &e.link[..], e.kind), (&long, h.link, EntryKind::Symlink));
        let a = &e.attributes;
        assert_eq!((a.mode, a.uid, a.gid), (0o4755, h.uid, h.gid));
        assert_eq!((a.mtime, a.mtime_nsec), h.mtime);
        assert_eq!(a.xattrs, xattrs);
        let big = Head {
            kind: Kind::Block(250, 70_000),
            ..h
        };
        assert_eq!(read(&big).kind, EntryKind::Block(250, 70_000));
    }

    #[test]
    fn a_plain_entry_is_one_block() {
        let mut bytes = Vec::new();
        let h = Head {
            name: b"dir",
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (1_700_000_000, 0),
            link: b"",
            xattrs: &[],
        };
        head(&mut bytes, &h).unwrap();
        assert_eq!(bytes.len(), BLOCK);
        assert!(bytes.starts_with(b"dir/\0"));
    }

    #[test]
    fn a_records_length_counts_itself() {
        // Around the lengths at which the count of digits grows.
        for n in 0..2000 {
            let mut pax = Vec::new();
            record(&mut pax, b"k", &vec![b'v'; n]);
            let text = String::from_utf8(pax.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), pax.len());
        }
    }
}
