//! The host's side of the channel to the init inside a microvm: frames of many streams over one socket, with credit.
//!
//! The guest is not trusted: a frame that breaks the rules ends the conversation with an [`Error`].

use std::collections::BTreeMap;

use biga_wire::guest::{self, WINDOW};
use biga_wire::shim::{Exit, Reply};
use biga_wire::workload::{Host, Output};
use biga_wire::{Decoder, Frame, FrameError, FrameKind, MAX_DATA};

use crate::duplex::{Duplex, Got};

/// Bytes read before others get their turn.
const TURN: usize = 1 << 20;

/// How the guest broke the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a frame.
    #[error("the guest sent a malformed frame")]
    Frame(#[from] FrameError),
    /// Not the JSON it should be.
    #[error("the guest sent a malformed {0}")]
    Json(&'static str),
    /// A frame that a guest does not send.
    #[error("the guest sent an unexpected {0:?} frame")]
    Kind(FrameKind),
    /// More than it was allowed.
    #[error("the guest sent more than it was allowed on stream {0}")]
    Credit(u16),
}

/// What the guest sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// An answer.
    Reply(u16, Reply),
    /// Output of a process.
    Data(u16, Output, Vec<u8>),
    /// Room for more input.
    Credit(u16),
    /// A process ended.
    Exit(u16, Exit),
    /// A stream ended by an error.
    Error(u16, String),
    /// The connection is gone.
    End,
}

#[derive(Debug)]
struct Stream {
    /// Bytes of input we may send.
    may_send: u32,
    /// Bytes of output received and not yet allowed again.
    owed: u32,
    /// Of these, bytes that were handed on.
    handed: u32,
}

/// The protocol: bytes in, messages out; requests in, bytes out.
#[derive(Debug, Default)]
pub struct Codec {
    decoder: Decoder,
    streams: BTreeMap<u16, Stream>,
}

impl Codec {
    /// Begins a stream.
    pub fn open(&mut self, stream: u16) {
        let fresh = Stream {
            may_send: WINDOW,
            owed: 0,
            handed: 0,
        };
        self.streams.insert(stream, fresh);
    }

    /// Forgets a stream.
    pub fn close(&mut self, stream: u16) {
        self.streams.remove(&stream);
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next message. Frames of streams that are closed are dropped.
    pub fn next_message(&mut self) -> Result<Option<Incoming>, Error> {
        while let Some(frame) = self.decoder.next_frame()? {
            if frame.stream != 0 && !self.streams.contains_key(&frame.stream) {
                continue;
            }
            if let Some(message) = self.understand(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn understand(&mut self, frame: Frame) -> Result<Option<Incoming>, Error> {
        let id = frame.stream;
        let message = match frame.kind {
            FrameKind::Reply => Incoming::Reply(id, frame.parse().map_err(|_| Error::Json("reply"))?),
            FrameKind::Exit if id != 0 => Incoming::Exit(id, frame.parse().map_err(|_| Error::Json("exit"))?),
            FrameKind::Error if id != 0 => {
                let text: String = String::from_utf8_lossy(&frame.payload).chars().take(1000).collect();
                Incoming::Error(id, text)
            }
            FrameKind::Credit => {
                let more = frame.number().ok_or(Error::Json("credit"))?;
                let Some(stream) = self.streams.get_mut(&id) else {
                    return Ok(None);
                };
                stream.may_send = stream.may_send.saturating_add(more).min(WINDOW);
                Incoming::Credit(id)
            }
            FrameKind::Stdout | FrameKind::Stderr => {
                let Some(stream) = self.streams.get_mut(&id) else {
                    return Err(Error::Kind(frame.kind));
                };
                stream.owed = stream.owed.saturating_add(frame.payload.len() as u32);
                if stream.owed > WINDOW {
                    return Err(Error::Credit(id));
                }
                let output = match frame.kind {
                    FrameKind::Stdout => Output::Stdout,
                    _ => Output::Stderr,
                };
                Incoming::Data(id, output, frame.payload)
            }
            other => return Err(Error::Kind(other)),
        };
        Ok(Some(message))
    }

    /// Takes as many of the bytes as the guest has room for, as frames appended to `out`.
    pub fn input(&mut self, stream: u16, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(state) = self.streams.get_mut(&stream) else {
            return bytes.len();
        };
        let take = bytes.len().min(state.may_send as usize);
        state.may_send -= take as u32;
        for part in bytes[..take].chunks(MAX_DATA) {
            Frame::new(FrameKind::Stdin, part).on(stream).encode(out);
        }
        take
    }

    /// Bytes of a stream's output were handed on.
    pub fn handed(&mut self, stream: u16, bytes: usize) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.handed = state.handed.saturating_add(bytes as u32).min(state.owed);
        }
    }

    /// Allows the guest to send again what was handed on, if that is worth a frame.
    pub fn credit(&mut self, stream: u16, out: &mut Vec<u8>) {
        if let Some(state) = self.streams.get_mut(&stream)
            && state.handed >= WINDOW / 4
        {
            Frame::with_number(FrameKind::Credit, state.handed)
                .on(stream)
                .encode(out);
            state.owed -= state.handed;
            state.handed = 0;
        }
    }
}

/// The protocol on a socket.
#[derive(Debug)]
pub struct Channel {
    duplex: Duplex,
    codec: Codec,
}

impl Channel {
    /// Takes the near end of the port's socket.
    pub fn new(mut duplex: Duplex, host: &mut dyn Host) -> std::io::Result<Channel> {
        duplex.register(host)?;
        Ok(Channel {
            duplex,
            codec: Codec::default(),
        })
    }

    /// Sends a request; on a stream other than 0 it begins this stream.
    pub fn request(&mut self, stream: u16, request: &guest::Request, host: &mut dyn Host) {
        if stream != 0 {
            self.codec.open(stream);
        }
        self.send(Frame::json(FrameKind::Request, request).on(stream), host);
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame, host: &mut dyn Host) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.duplex.send(&bytes, host);
    }

    /// Sends input; answers how much was taken.
    pub fn input(&mut self, stream: u16, bytes: &[u8], host: &mut dyn Host) -> usize {
        let mut out = Vec::new();
        let taken = self.codec.input(stream, bytes, &mut out);
        self.duplex.send(&out, host);
        taken
    }

    /// Bytes of a stream's output were handed on.
    pub fn handed(&mut self, stream: u16, bytes: usize) {
        self.codec.handed(stream, bytes);
    }

    /// Lets the guest send more on a stream, as much as was handed on.
    pub fn credit(&mut self, stream: u16, host: &mut dyn Host) {
        let mut out = Vec::new();
        self.codec.credit(stream, &mut out);
        if !out.is_empty() {
            self.duplex.send(&out, host);
        }
    }

    /// Forgets a stream.
    pub fn close_stream(&mut self, stream: u16) {
        self.codec.close(stream);
    }

    /// Sends what waits and reads what came.
    pub fn messages(&mut self, host: &mut dyn Host) -> Result<Vec<Incoming>, Error> {
        self.duplex.flush(host);
        let mut out = Vec::new();
        let mut buf = vec![0; 64 << 10];
        let mut turn = 0;
        while turn < TURN {
            match self.duplex.read(&mut buf) {
                Got::Bytes(n) => {
                    turn += n;
                    self.codec.push(&buf[..n]);
                    while let Some(message) = self.codec.next_message()? {
                        out.push(message);
                    }
                }
                Got::Nothing => break,
                Got::End => {
                    self.duplex.close(host);
                    out.push(Incoming::End);
                    break;
                }
            }
        }
        Ok(out)
    }

    /// Stops being watched.
    pub fn close(&mut self, host: &mut dyn Host) {
        self.duplex.close(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(frames: &[Frame]) -> Codec {
        let mut codec = Codec::default();
        codec.open(1);
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| f.encode(&mut bytes));
        codec.push(&bytes);
        codec
    }

    #[test]
    fn input_stops_at_the_window_and_goes_on_by_credit() {
        let mut codec = codec(&[]);
        let bytes = vec![1; WINDOW as usize + 10];
        let mut out = Vec::new();
        assert_eq!(codec.input(1, &bytes, &mut out), WINDOW as usize);
        assert_eq!(codec.input(1, &bytes, &mut out), 0);
        let mut credit = Vec::new();
        Frame::with_number(FrameKind::Credit, 100).on(1).encode(&mut credit);
        codec.push(&credit);
        assert_eq!(codec.next_message().unwrap(), Some(Incoming::Credit(1)));
        assert_eq!(codec.input(1, &bytes, &mut out), 100);
        // A stream nobody reads takes and drops all.
        assert_eq!(codec.input(9, &bytes, &mut out), bytes.len());
    }

    #[test]
    fn a_guest_that_floods_is_stopped() {
        let block = Frame::new(FrameKind::Stdout, vec![0; MAX_DATA]).on(1);
        let mut codec = codec(&vec![block.clone(); 5]);
        for _ in 0..WINDOW as usize / MAX_DATA {
            assert!(matches!(codec.next_message(), Ok(Some(Incoming::Data(..)))));
        }
        assert!(matches!(codec.next_message(), Err(Error::Credit(1))));
    }

    #[test]
    fn credit_is_given_back_in_good_portions() {
        let block = Frame::new(FrameKind::Stderr, vec![0; MAX_DATA - 1]).on(1);
        let mut codec = codec(&[block.clone(), block]);
        let mut out = Vec::new();
        // Both were received; only what was handed on counts.
        assert!(codec.next_message().unwrap().is_some() && codec.next_message().unwrap().is_some());
        codec.handed(1, MAX_DATA - 1);
        codec.credit(1, &mut out);
        assert!(out.is_empty());
        codec.handed(1, MAX_DATA - 1);
        codec.credit(1, &mut out);
        let frame = Frame::read_from(&mut &out[..]).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.number()),
            (FrameKind::Credit, Some(2 * (MAX_DATA as u32 - 1)))
        );
    }

    #[test]
    fn hostile_frames_end_the_conversation() {
        let cases = [
            Frame::new(FrameKind::Reply, b"{".to_vec()),
            Frame::new(FrameKind::Exit, b"\"x\"".to_vec()).on(1),
            Frame::new(FrameKind::Exit, b"{}".to_vec()),
            Frame::new(FrameKind::Stdout, b"on control".to_vec()),
            Frame::new(FrameKind::Request, b"{}".to_vec()).on(1),
            Frame::new(FrameKind::Credit, b"123".to_vec()).on(1),
        ];
        for frame in cases {
            assert!(codec(std::slice::from_ref(&frame)).next_message().is_err(), "{frame:?}");
        }
        let mut garbage = Codec::default();
        garbage.push(&[200; 64]);
        assert!(garbage.next_message().is_err());
    }

    #[test]
    fn frames_of_closed_streams_are_dropped() {
        let mut codec = codec(&[
            Frame::new(FrameKind::Stdout, b"late".to_vec()).on(7),
            Frame::json(FrameKind::Exit, &Exit::default()).on(1),
        ]);
        assert!(matches!(codec.next_message(), Ok(Some(Incoming::Exit(1, _)))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(0u8..40, 0..3000)) {
            let mut codec = Codec::default();
            codec.open(1);
            codec.push(&bytes);
            while let Ok(Some(_)) = codec.next_message() {}
        }
    }
}
