//! Blobs that may be compressed, and may mean no good.

use std::io::{self, BufRead, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Below so many uncompressed bytes the ratio does not matter.
pub const RATIO_FROM: u64 = 1 << 30;
/// Bytes that tell what a blob is.
const HEAD: usize = 6;
/// Most KiB that the window of an archive in xz may take: four times what the tightest level of `xz` wants.
const XZ_MEMORY: u32 = 256 << 10;

/// Counts the bytes taken from a blob.
struct Counted<B> {
    inner: B,
    count: Arc<AtomicU64>,
}

impl<B: BufRead> Read for Counted<B> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl<B: BufRead> BufRead for Counted<B> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.count.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Refuses what unpacks to far more than it is.
struct Guarded<R> {
    inner: R,
    count: Arc<AtomicU64>,
    out: u64,
    ratio: u64,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.out += n as u64;
        // Decoders read ahead, so the count is never behind what made these bytes.
        if self.out > RATIO_FROM && self.out / self.ratio > self.count.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it unpacks to more than {} times its size", self.ratio),
            ));
        }
        Ok(n)
    }
}

/// What a blob holds, plain or in gzip, zstd, bzip2 or xz by its first bytes; media types are often wrong. More than `ratio` bytes
/// for each of the blob are refused, beyond [`RATIO_FROM`].
pub fn decompress<'b>(mut blob: impl BufRead + 'b, ratio: u64) -> io::Result<Box<dyn Read + 'b>> {
    let mut head = Vec::with_capacity(HEAD);
    (&mut blob).take(HEAD as u64).read_to_end(&mut head)?;
    let kind = Compression::of(&head);
    let whole = Cursor::new(head).chain(blob);
    if kind == Compression::None {
        return Ok(Box::new(whole));
    }
    let count = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        inner: whole,
        count: count.clone(),
    };
    let inner: Box<dyn Read + 'b> = match kind {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(counted)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(counted)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(counted, true, XZ_MEMORY)),
    };
    Ok(Box::new(Guarded {
        inner,
        count,
        out: 0,
        ratio,
    }))
}

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    /// By the first bytes.
    fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// By the programs that others pack with.
    fn packed(program: &[&str], plain: &[u8]) -> Vec<u8> {
        let mut c = Command::new(program[0]);
        let c = c.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = c.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = plain.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        out.stdout
    }

    fn unpacked(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(blob, 100)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_format_and_what_is_behind_it() {
        let plain: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_string().into_bytes()).collect();
        assert!(unpacked(&plain).unwrap() == plain);
        for program in [
            &["gzip", "-c"][..],
            &["bzip2", "-c"],
            &["xz", "-c"],
            &["xz", "-9", "--check=sha256", "-c"],
        ] {
            let one = packed(program, &plain);
            assert!(
                one.len() < plain.len() / 2 && unpacked(&one).unwrap() == plain,
                "{program:?}"
            );
            // Several one after the other, as programs with threads write them.
            let two = [&one[..], &one].concat();
            assert!(unpacked(&two).unwrap() == [&plain[..], &plain].concat(), "{program:?}");
            // Cut off, or with other bytes.
            assert!(unpacked(&one[..one.len() / 2]).is_err(), "{program:?}");
            let mut bad = one.clone();
            let at = bad.len() / 2;
            bad[at] ^= 0x55;
            assert!(unpacked(&bad).is_err(), "{program:?}");
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        // A block's header says how much memory it wants: here 768 MiB.
        let wants = packed(&["xz", "--lzma2=dict=768MiB", "-c"], b"little");
        let e = unpacked(&wants).unwrap_err();
        assert!(e.to_string().contains("mem_limit"), "{e}");
    }
}
