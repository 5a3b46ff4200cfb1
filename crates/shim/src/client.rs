//! A connection.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use biga_wire::workload::{Interest, StreamId};
use biga_wire::{Decoder, Frame, FrameKind, MAX_DATA};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::poll::{Poll, Source};
use crate::spill::{self, Spill};

/// Bytes kept in memory for a slow client. Of a stream that others read too, more wait in a file; else, and when that is full, the
/// process is held back.
pub const LIMIT: usize = 1 << 20;

/// Bytes that come back from a file at once.
const PIECE: usize = 256 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Requests, one after another.
    Asking,
    /// Waits for the entrypoint to be executed.
    Starting,
    /// Shows a stream; `stdin` says whether its input counts.
    Stream {
        /// Which.
        stream: StreamId,
        /// Whether its input goes to the process.
        stdin: bool,
        /// Made the process, and waits for news of it.
        exec: bool,
    },
    /// Waits for a checkpoint to be whole.
    Saving,
    /// Gets events.
    Watching,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    number: u32,
    fd: OwnedFd,
    /// What it is for.
    pub role: Role,
    /// Received bytes.
    pub decoder: Decoder,
    /// Input that the process did not take yet.
    pub stalled: Option<Vec<u8>>,
    out: Vec<u8>,
    sent: usize,
    /// What comes after `out`.
    spill: Option<Spill>,
    /// What comes after `spill`, where no more could be written there.
    rest: Vec<u8>,
    /// Whether more than fits into memory may go to a file.
    spills: bool,
    /// Closed once all is sent.
    closing: bool,
    /// Nothing more comes from the other side.
    finished: bool,
    watched: Option<Interest>,
}

impl Client {
    /// A new connection, non-blocking.
    pub fn new(number: u32, fd: OwnedFd) -> Client {
        Client {
            number,
            fd,
            role: Role::Asking,
            decoder: Decoder::new(),
            stalled: None,
            out: Vec::new(),
            sent: 0,
            spill: None,
            rest: Vec::new(),
            spills: false,
            closing: false,
            finished: false,
            watched: None,
        }
    }

    /// Bytes not sent yet.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.sent + self.spill.as_ref().map_or(0, Spill::len) + self.rest.len()
    }

    /// Bytes it takes before its process should be held back.
    pub fn room(&self) -> usize {
        let limit = if self.spills { spill::LIMIT } else { LIMIT };
        limit.saturating_sub(self.backlog())
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: &Frame) {
        if !self.closing {
            frame.encode(self.end());
        }
    }

    /// The memory that what comes now is added to.
    fn end(&mut self) -> &mut Vec<u8> {
        match &self.spill {
            Some(_) => &mut self.rest,
            None => &mut self.out,
        }
    }

    /// Queues bytes of a process. What does not fit into memory goes to a file in `dir`, if there is one.
    pub fn push_output(&mut self, kind: FrameKind, bytes: &[u8], dir: Option<&Path>) {
        if self.closing {
            return;
        }
        let out = self.end();
        for piece in bytes.chunks(MAX_DATA) {
            out.extend_from_slice(&Frame::header(kind, 0, piece.len()));
            out.extend_from_slice(piece);
        }
        self.spills = dir.is_some();
        if let Some(dir) = dir {
            self.spill(dir);
        }
    }

    /// Moves what is too much for memory to the file. Where that fails it stays, and the process is held back.
    fn spill(&mut self, dir: &Path) {
        if self.spill.is_none() && self.out.len() - self.sent > LIMIT {
            self.rest = self.out.split_off(self.sent + LIMIT);
            self.spill = Spill::new(dir).ok();
            if self.spill.is_none() {
                self.out.append(&mut self.rest);
            }
        }
        let Some(spill) = &mut self.spill else {
            self.spills = self.out.len() - self.sent <= LIMIT;
            return;
        };
        self.spills = self.rest.is_empty() || spill.push(&self.rest).is_ok();
        if self.spills {
            self.rest.clear();
        }
    }

    /// Takes back what waits behind what was sent; false where the file cannot be read.
    fn unspill(&mut self) -> bool {
        let Some(spill) = &mut self.spill else { return true };
        if spill.take(PIECE, &mut self.out).is_err() {
            return false;
        }
        if spill.len() == 0 {
            self.spill = None;
            self.out.append(&mut self.rest);
        }
        true
    }

    /// Takes nothing more and closes once all is sent.
    pub fn close_after_flush(&mut self) {
        self.closing = true;
    }

    /// Whether it will be closed once all is sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the other side will send no more.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Sends what the socket takes; false when the connection is over.
    pub fn flush(&mut self) -> bool {
        while self.sent < self.out.len() {
            match rustix::net::send(
                &self.fd,
                &self.out[self.sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(n) => {
                    self.sent += n;
                    if self.sent == self.out.len() {
                        self.out.clear();
                        self.sent = 0;
                        // Bytes that are lost must not go unnoticed: the connection ends.
                        if !self.unspill() {
                            return false;
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Keeps the buffer from growing by what was sent already.
                    if self.sent > LIMIT {
                        self.out.drain(..self.sent);
                        self.sent = 0;
                    }
                    return true;
                }
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.sent = 0;
        self.out.shrink_to(MAX_DATA);
        let nothing_more_to_ask = self.finished && self.role == Role::Asking;
        !self.closing && !nothing_more_to_ask
    }

    /// Receives what has come; false when the connection is over.
    pub fn receive(&mut self) -> bool {
        let mut buf = [0u8; 16 << 10];
        match rustix::io::read(&self.fd, &mut buf) {
            Ok(0) => {
                self.finished = true;
                true
            }
            Ok(n) => {
                self.decoder.push(&buf[..n]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Waits for what is wanted now: bytes, unless the process is not taking any or none will come; room, if there is something to send.
    pub fn arm(&mut self, poll: &mut Poll) {
        let wanted = Interest {
            read: !self.finished && !self.closing && self.stalled.is_none(),
            write: self.backlog() > 0,
        };
        if self.watched != Some(wanted) {
            self.watched = Some(wanted);
            // Fails only without memory in the kernel; the client then notices silence.
            let _ = poll.watch(self.fd.as_fd(), Source::Client(self.number), wanted);
        }
    }

    /// Waits no more.
    pub fn disarm(&self, poll: &mut Poll) {
        poll.unwatch(self.fd.as_fd());
    }
}
