//! Disk images: which format a file has, and whether it is safe to hand to QEMU.
//!
//! A qcow2 header can name other files (a backing file, an external data file), which QEMU would open. A disk
//! that came from outside must not do that, so it is refused. Formats are never guessed by QEMU: the record
//! names the one that was checked here.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::DiskFormat;

/// Why a disk is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not what it was said to be.
    #[error("it is no {0} file: its header says otherwise; name the format it has")]
    WrongFormat(&'static str),
    /// A format that must be converted first.
    #[error("it is a {0} file: convert it by `qemu-img convert -O qcow2` first")]
    Foreign(&'static str),
    /// The header breaks the format's rules.
    #[error("its qcow2 header is damaged: {0}")]
    Header(&'static str),
    /// It would make QEMU open another file.
    #[error("it names {0}: flatten it by `qemu-img convert -O qcow2` first")]
    External(&'static str),
    /// A feature this program does not know.
    #[error("it uses {0}, which is not supported: convert it by `qemu-img convert -O qcow2` first")]
    Feature(String),
    /// More bytes than allowed.
    #[error("it is larger than {0} bytes")]
    TooBig(u64),
    /// It could not be read.
    #[error("it cannot be read")]
    Read(#[from] std::io::Error),
}

/// First bytes of a qcow2 file.
const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Header extension: name of the backing file's format.
const EXT_BACKING_FORMAT: u32 = 0xE279_2ACA;
/// Header extension: name of an external data file.
const EXT_DATA_FILE: u32 = 0x4441_5441;
/// Incompatible features: bit 0 dirty, 1 corrupt, 2 external data file, 3 compression type, 4 extended L2 entries.
const KNOWN_FEATURES: u64 = 0b1_1111;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
/// The largest disk QEMU makes.
const MAX_VIRTUAL: u64 = 1 << 56;

/// Checks a file against the format it was said to have; returns the bytes a guest sees.
pub fn check(file: &File, format: DiskFormat) -> Result<u64, Error> {
    let len = file.metadata()?.len();
    let head = read_head(file, len)?;
    match format {
        DiskFormat::Raw if len == 0 => Err(Error::WrongFormat("raw disk")),
        DiskFormat::Raw => match foreign(&head) {
            Some("qcow2") => Err(Error::WrongFormat("raw disk")),
            Some(other) => Err(Error::Foreign(other)),
            None => Ok(len),
        },
        DiskFormat::Qcow2 => check_qcow2(&head),
    }
}

/// The format of a file out of an image that does not name one: by its header, once, when it enters the store.
pub fn detect(file: &File) -> Result<(DiskFormat, u64), Error> {
    let head = read_head(file, file.metadata()?.len())?;
    let format = if head.starts_with(MAGIC) {
        DiskFormat::Qcow2
    } else {
        DiskFormat::Raw
    };
    Ok((format, check(file, format)?))
}

fn read_head(file: &File, len: u64) -> Result<Vec<u8>, Error> {
    let mut head = vec![0; usize::try_from(len.min(65536)).unwrap_or(65536)];
    file.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// Other disk formats, by their first bytes.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(magic));
    match () {
        () if at(0, MAGIC) => Some("qcow2"),
        () if at(0, b"KDMV") || at(0, b"COWD") || at(0, b"# Disk DescriptorFile") => Some("VMDK"),
        () if at(0, b"vhdxfile") => Some("VHDX"),
        () if at(0, b"conectix") => Some("VHD"),
        () if at(0x40, &[0x7f, 0x10, 0xda, 0xbe]) => Some("VDI"),
        () if at(0, b"QED\0") => Some("QED"),
        () if at(0, b"LUKS\xba\xbe") => Some("LUKS"),
        () => None,
    }
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, Error> {
    let b = head.get(at..at + 4).ok_or(Error::Header("it is cut off"))?;
    Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, Error> {
    Ok(u64::from(u32_at(head, at)?) << 32 | u64::from(u32_at(head, at + 4)?))
}

/// <https://www.qemu.org/docs/master/interop/qcow2.html>
fn check_qcow2(head: &[u8]) -> Result<u64, Error> {
    if !head.starts_with(MAGIC) {
        return Err(Error::WrongFormat("qcow2"));
    }
    let version = u32_at(head, 4)?;
    if !matches!(version, 2 | 3) {
        return Err(Error::Feature(format!("qcow2 version {version}")));
    }
    if u64_at(head, 8)? != 0 || u32_at(head, 16)? != 0 {
        return Err(Error::External("a backing file"));
    }
    if !(9..=21).contains(&u32_at(head, 20)?) {
        return Err(Error::Header("the cluster size is out of range"));
    }
    let virtual_size = u64_at(head, 24)?;
    if virtual_size == 0 || virtual_size > MAX_VIRTUAL {
        return Err(Error::Header("the virtual size is out of range"));
    }
    if u32_at(head, 32)? != 0 {
        return Err(Error::Feature("encryption".into()));
    }
    let header_len = if version == 2 { 72 } else { check_version3(head)? };
    check_extensions(head, header_len)?;
    Ok(virtual_size)
}

fn check_version3(head: &[u8]) -> Result<usize, Error> {
    let features = u64_at(head, 72)?;
    if features & EXTERNAL_DATA != 0 {
        return Err(Error::External("an external data file"));
    }
    if features & CORRUPT != 0 {
        return Err(Error::Header("it is marked as corrupt"));
    }
    if features & !KNOWN_FEATURES != 0 {
        return Err(Error::Feature(format!("the incompatible features {features:#x}")));
    }
    match u32_at(head, 100)? {
        n @ 104..=4096 if n % 8 == 0 => Ok(n as usize),
        _ => Err(Error::Header("the header length is out of range")),
    }
}

fn check_extensions(head: &[u8], start: usize) -> Result<(), Error> {
    let mut at = start;
    while at + 8 <= head.len() {
        let (kind, len) = (u32_at(head, at)?, u32_at(head, at + 4)? as usize);
        match kind {
            0 => return Ok(()),
            EXT_BACKING_FORMAT => return Err(Error::External("a backing file's format")),
            EXT_DATA_FILE => return Err(Error::External("an external data file")),
            _ => {}
        }
        if len > head.len() {
            return Err(Error::Header("a header extension is too long"));
        }
        at += 8 + len.next_multiple_of(8);
    }
    Err(Error::Header("the header extensions do not end"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn qcow2() -> Vec<u8> {
        let mut h = vec![0u8; 65536];
        h[..4].copy_from_slice(MAGIC);
        h[7] = 3;
        h[23] = 16;
        h[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        h[103] = 104;
        h
    }

    fn file(bytes: &[u8]) -> File {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        f
    }

    #[test]
    fn sound_files_are_taken() {
        assert_eq!(check(&file(&qcow2()), DiskFormat::Qcow2).unwrap(), 1 << 30);
        assert_eq!(detect(&file(&qcow2())).unwrap(), (DiskFormat::Qcow2, 1 << 30));
        assert_eq!(detect(&file(&[0; 5000])).unwrap(), (DiskFormat::Raw, 5000));
    }

    #[test]
    fn files_that_name_others_are_refused() {
        let cases: [(usize, &[u8], &str); 8] = [
            (8, &[0, 0, 0, 0, 0, 0, 2, 0], "backing"),
            (16, &[0, 0, 0, 9], "backing"),
            (79, &[4], "external"),
            (104, &[0xE2, 0x79, 0x2A, 0xCA, 0, 0, 0, 3], "format"),
            (104, &[0x44, 0x41, 0x54, 0x41, 0, 0, 0, 3], "external"),
            (35, &[2], "encryption"),
            (79, &[2], "corrupt"),
            (104, &[1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff], "too long"),
        ];
        for (at, bytes, word) in cases {
            let mut h = qcow2();
            h[at..at + bytes.len()].copy_from_slice(bytes);
            let e = check(&file(&h), DiskFormat::Qcow2).unwrap_err();
            assert!(e.to_string().contains(word), "{e} lacks {word}");
        }
    }

    #[test]
    fn formats_are_not_confused() {
        assert!(matches!(
            check(&file(&qcow2()), DiskFormat::Raw),
            Err(Error::WrongFormat(_))
        ));
        assert!(matches!(
            check(&file(&[0; 512]), DiskFormat::Qcow2),
            Err(Error::WrongFormat(_))
        ));
        assert!(matches!(
            detect(&file(b"vhdxfile........")),
            Err(Error::Foreign("VHDX"))
        ));
        assert!(check(&file(b"QFI\xfb\0\0\0\x03"), DiskFormat::Qcow2).is_err());
    }
}
