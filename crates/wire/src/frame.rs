//! The framing.

use std::io::{self, Read, Write};

/// Bytes of a header.
pub const HEADER: usize = 8;
/// Largest payload of a data frame (stdin, stdout, stderr).
pub const MAX_DATA: usize = 64 << 10;
/// Largest payload of any other frame.
pub const MAX_CONTROL: usize = 4 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// JSON of [`crate::shim::Request`].
    Request = 1,
    /// JSON of [`crate::shim::Reply`].
    Reply = 2,
    /// JSON of [`crate::shim::Event`].
    Event = 3,
    /// Bytes for the process.
    Stdin = 16,
    /// Bytes of the process; also all output of a terminal.
    Stdout = 17,
    /// Bytes of the process.
    Stderr = 18,
    /// No more bytes for the process; empty.
    StdinEof = 19,
    /// `u16` rows, `u16` columns, little-endian.
    Resize = 20,
    /// `u32` signal number, little-endian.
    Signal = 21,
    /// JSON of [`crate::shim::Exit`]; the last frame of a shim's stream.
    Exit = 22,
    /// `u32` bytes, little-endian: the receiver has room for so many more. Only on the guest's channel.
    Credit = 23,
    /// UTF-8 text: the stream ends by an error; the last frame of a stream.
    Error = 24,
    /// Empty. From the daemon, after `Exit` of an instance that is not started again: the end stands in its status too, or it has
    /// removed itself as it was to.
    Settled = 25,
}

impl FrameKind {
    /// The kind with this number.
    pub fn from_u8(n: u8) -> Option<FrameKind> {
        use FrameKind::*;
        [
            Request, Reply, Event, Stdin, Stdout, Stderr, StdinEof, Resize, Signal, Exit, Credit, Error, Settled,
        ]
        .into_iter()
        .find(|k| *k as u8 == n)
    }

    fn max(self) -> usize {
        match self {
            FrameKind::Stdin | FrameKind::Stdout | FrameKind::Stderr => MAX_DATA,
            _ => MAX_CONTROL,
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// Which stream; 0 on connections that carry one.
    pub stream: u16,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// A frame that is none.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// An unknown kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A payload over its kind's limit.
    #[error("frame of {0} bytes is over the limit of {1}")]
    Size(usize, usize),
}

impl From<FrameError> for io::Error {
    fn from(e: FrameError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, e)
    }
}

impl Frame {
    /// A frame of stream 0.
    pub fn new(kind: FrameKind, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            kind,
            stream: 0,
            payload: payload.into(),
        }
    }

    /// A frame of stream 0 with JSON.
    pub fn json<T: serde::Serialize>(kind: FrameKind, value: &T) -> Frame {
        // Only our own types come here, and none of them can fail to serialize.
        Frame::new(kind, serde_json::to_vec(value).unwrap_or_default())
    }

    /// The same frame on another stream.
    pub fn on(mut self, stream: u16) -> Frame {
        self.stream = stream;
        self
    }

    /// The payload as JSON.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.payload).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// A window size for [`FrameKind::Resize`].
    pub fn resize(rows: u16, cols: u16) -> Frame {
        let [r0, r1] = rows.to_le_bytes();
        let [c0, c1] = cols.to_le_bytes();
        Frame::new(FrameKind::Resize, [r0, r1, c0, c1])
    }

    /// Rows and columns of a [`FrameKind::Resize`] frame.
    pub fn window(&self) -> Option<(u16, u16)> {
        match self.payload[..] {
            [r0, r1, c0, c1] => Some((u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]))),
            _ => None,
        }
    }

    /// The number in a `Signal` or `Credit` frame.
    pub fn number(&self) -> Option<u32> {
        self.payload[..].try_into().ok().map(u32::from_le_bytes)
    }

    /// A frame that carries a number.
    pub fn with_number(kind: FrameKind, n: u32) -> Frame {
        Frame::new(kind, n.to_le_bytes())
    }

    /// The header of a frame.
    pub fn header(kind: FrameKind, stream: u16, len: usize) -> [u8; HEADER] {
        let [s0, s1] = stream.to_le_bytes();
        let [l0, l1, l2, l3] = (len as u32).to_le_bytes();
        [kind as u8, 0, s0, s1, l0, l1, l2, l3]
    }

    /// Appends header and payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Frame::header(self.kind, self.stream, self.payload.len()));
        out.extend_from_slice(&self.payload);
    }

    /// Writes header and payload in one call.
    pub fn write_to(&self, w: &mut impl Write) -> io::Result<()> {
        let mut buf = Vec::with_capacity(HEADER + self.payload.len());
        self.encode(&mut buf);
        w.write_all(&buf)
    }

    /// Reads one frame; `None` at the end of the stream between frames.
    pub fn read_from(r: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut header = [0u8; HEADER];
        let mut have = 0;
        while have < HEADER {
            match r.read(&mut header[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let (kind, stream, len) = parse_header(&header)?;
        let mut payload = vec![0; len];
        r.read_exact(&mut payload)?;
        Ok(Some(Frame { kind, stream, payload }))
    }
}

fn parse_header(h: &[u8; HEADER]) -> Result<(FrameKind, u16, usize), FrameError> {
    let kind = FrameKind::from_u8(h[0]).ok_or(FrameError::Kind(h[0]))?;
    let len = u32::from_le_bytes([h[4], h[5], h[6], h[7]]) as usize;
    if len > kind.max() {
        return Err(FrameError::Size(len, kind.max()));
    }
    Ok((kind, u16::from_le_bytes([h[2], h[3]]), len))
}

/// Cuts a byte stream into frames, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
        } else if self.start > MAX_DATA {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buf[self.start..].first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, stream, len) = parse_header(header)?;
        let from = self.start + HEADER;
        let Some(payload) = self.buf.get(from..from + len) else {
            return Ok(None);
        };
        let frame = Frame {
            kind,
            stream,
            payload: payload.to_vec(),
        };
        self.start = from + len;
        Ok(Some(frame))
    }

    /// Bytes received and not yet given out.
    pub fn pending(&self) -> usize {
        self.buf.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_in_any_pieces() {
        let frames = [
            Frame::new(FrameKind::Stdout, vec![7; 1000]).on(3),
            Frame::resize(24, 80),
            Frame::new(FrameKind::StdinEof, []),
            Frame::with_number(FrameKind::Signal, 15),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| f.encode(&mut bytes));
        for piece in [1, 3, 8, 100, 5000] {
            let mut d = Decoder::new();
            let mut got = Vec::new();
            for p in bytes.chunks(piece) {
                d.push(p);
                while let Some(f) = d.next_frame().unwrap() {
                    got.push(f);
                }
            }
            assert_eq!(got, frames, "in pieces of {piece}");
        }
        assert_eq!(frames[1].window(), Some((24, 80)));
        assert_eq!(frames[3].number(), Some(15));
    }

    #[test]
    fn oversized_and_unknown_frames_are_refused() {
        let mut d = Decoder::new();
        d.push(&Frame::header(FrameKind::Stdout, 0, MAX_DATA + 1));
        assert!(matches!(d.next_frame(), Err(FrameError::Size(..))));
        let mut d = Decoder::new();
        d.push(&[99, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(d.next_frame(), Err(FrameError::Kind(99))));
        let cut = Frame::header(FrameKind::Stdout, 0, 10);
        assert!(Frame::read_from(&mut &cut[..]).is_err());
    }
}
