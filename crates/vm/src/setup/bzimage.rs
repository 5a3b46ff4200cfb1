//! The ELF kernel inside a packed one (`bzImage`, x86 boot protocol 2.08 and later).

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Largest unpacked kernel, bytes.
const MAX: usize = 512 << 20;

/// Why it cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another kind of file.
    #[error("it is not a Linux kernel for x86 (no boot header of protocol 2.08 or later)")]
    NotAKernel,
    /// Cut off.
    #[error("the file ends before its payload does")]
    Short,
    /// Not known.
    #[error("its payload is packed in a way that is not known (it begins with {0:02x?})")]
    Packing(Vec<u8>),
    /// Damaged.
    #[error("its LZ4 payload is damaged")]
    Lz4,
    /// Not an ELF file.
    #[error("its payload is no ELF file")]
    NotElf,
    /// The unpacking program.
    #[error("cannot unpack it by {program}; is it installed?")]
    Program {
        /// As `xz`.
        program: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The payload of a packed kernel.
fn payload(image: &[u8]) -> Result<&[u8], Error> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(Error::NotAKernel);
    }
    let protocol = u16::from_le_bytes([image[0x206], image[0x207]]);
    if protocol < 0x208 {
        return Err(Error::NotAKernel);
    }
    let sectors = match image[0x1f1] {
        0 => 4,
        n => n as usize,
    };
    let (Some(offset), Some(len)) = (le32(image, 0x248), le32(image, 0x24c)) else {
        return Err(Error::Short);
    };
    let start = (sectors + 1) * 512 + offset as usize;
    image.get(start..start + len as usize).ok_or(Error::Short)
}

/// The ELF kernel; an ELF file is given back as it is.
pub fn vmlinux(image: &[u8]) -> Result<Vec<u8>, Error> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let packed = payload(image)?;
    // All but gzip have the unpacked size appended.
    let body = &packed[..packed.len().saturating_sub(4)];
    let elf = match packed {
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4(&body[4..])?,
        [0x1f, 0x8b, ..] => by_program("gzip", packed)?,
        [0xfd, b'7', b'z', ..] => by_program("xz", body)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => by_program("zstd", body)?,
        _ => return Err(Error::Packing(packed.iter().take(4).copied().collect())),
    };
    match elf.starts_with(b"\x7fELF") {
        true => Ok(elf),
        false => Err(Error::NotElf),
    }
}

/// Unpacks LZ4's legacy frame without its magic number: blocks of 8 MiB, each with its packed size before it.
fn lz4(mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
    const BLOCK: usize = 8 << 20;
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let len = le32(bytes, 0).ok_or(Error::Lz4)? as usize;
        let block = bytes.get(4..4 + len).ok_or(Error::Lz4)?;
        let start = out.len();
        if start > MAX {
            return Err(Error::Lz4);
        }
        out.resize(start + BLOCK, 0);
        let n = lz4_flex::block::decompress_into(block, &mut out[start..]).map_err(|_| Error::Lz4)?;
        out.truncate(start + n);
        bytes = &bytes[4 + len..];
    }
    Ok(out)
}

/// Unpacks by a program that reads standard input.
pub(super) fn by_program(program: &'static str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Program { program, source };
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut input = child
        .stdin
        .take()
        .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let out = std::thread::scope(|scope| {
        // Fed from beside, since both pipes are small.
        scope.spawn(move || drop(input.write_all(bytes)));
        child.wait_with_output()
    })
    .map_err(failed)?;
    match out.status.success() {
        true => Ok(out.stdout),
        false => Err(failed(io::Error::other(format!("it ended with {}", out.status)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x1000];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        let offset = 0x1000u32 - 1024;
        image[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    fn elf() -> Vec<u8> {
        let mut elf = b"\x7fELF".to_vec();
        elf.extend((0..9_000_000u32).map(|i| (i / 1000) as u8));
        elf
    }

    #[test]
    fn an_lz4_kernel_of_several_blocks_is_unpacked() {
        let elf = elf();
        let mut payload = vec![0x02, 0x21, 0x4c, 0x18];
        for block in elf.chunks(8 << 20) {
            let packed = lz4_flex::block::compress(block);
            payload.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            payload.extend_from_slice(&packed);
        }
        payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        assert!(vmlinux(&image(&payload)).unwrap() == elf);
        for cut in [5, 100, 5000] {
            let image = image(&payload);
            assert!(vmlinux(&image[..image.len() - cut]).is_err(), "cut by {cut}");
        }
    }

    #[test]
    fn other_packings_are_unpacked_by_programs() {
        let elf = elf();
        for (program, tail) in [("gzip", 0), ("xz", 4), ("zstd", 4)] {
            let mut child = Command::new(program)
                .args(["-c", "-1"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let bytes = elf.clone();
            let feeder = std::thread::spawn(move || input.write_all(&bytes).unwrap());
            let mut payload = child.wait_with_output().unwrap().stdout;
            feeder.join().unwrap();
            payload.extend_from_slice(&vec![0; tail]);
            assert!(vmlinux(&image(&payload)).unwrap() == elf, "{program}");
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(matches!(vmlinux(b""), Err(Error::NotAKernel)));
        assert!(matches!(vmlinux(&[0; 5000]), Err(Error::NotAKernel)));
        assert!(matches!(vmlinux(&image(b"????1234")), Err(Error::Packing(_))));
        assert!(matches!(vmlinux(&image(&[])), Err(Error::Packing(_))));
        let mut old = image(b"x");
        old[0x206] = 0;
        assert!(matches!(vmlinux(&old), Err(Error::NotAKernel)));
        let bomb = [0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert!(matches!(vmlinux(&image(&bomb)), Err(Error::Lz4)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000)) {
            let _ = vmlinux(&bytes);
            let mut kind = image(&bytes);
            kind[0x1f1] = bytes.first().copied().unwrap_or(9);
            let _ = vmlinux(&kind);
        }
    }
}
