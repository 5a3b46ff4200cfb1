//! Blobs that may be compressed, and may mean no good.

use std::io::{self, BufRead, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Below so many uncompressed bytes the ratio does not matter.
pub const RATIO_FROM: u64 = 1 << 30;

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

/// What a blob holds, plain, gzip or zstd by its first bytes; media types are often wrong. More than `ratio` bytes for each of the
/// blob are refused, beyond [`RATIO_FROM`].
pub fn decompress<'b>(mut blob: impl BufRead + 'b, ratio: u64) -> io::Result<Box<dyn Read + 'b>> {
    let mut head = Vec::with_capacity(4);
    (&mut blob).take(4).read_to_end(&mut head)?;
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
    Ok(match kind {
        Compression::Gzip => Box::new(Guarded {
            inner: flate2::bufread::MultiGzDecoder::new(counted),
            count,
            out: 0,
            ratio,
        }),
        _ => Box::new(Guarded {
            inner: zstd::stream::read::Decoder::with_buffer(counted)?,
            count,
            out: 0,
            ratio,
        }),
    })
}

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes.
    fn of(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}
