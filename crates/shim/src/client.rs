//! A connection.

use std::os::fd::{AsFd, OwnedFd};

use biga_wire::workload::{Interest, StreamId};
use biga_wire::{Decoder, Frame, FrameKind, MAX_DATA};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::poll::{Poll, Source};

/// Bytes kept for a slow client before its process is held back.
pub const LIMIT: usize = 1 << 20;

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
            closing: false,
            finished: false,
            watched: None,
        }
    }

    /// Bytes not sent yet.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Bytes it takes before its process should be held back.
    pub fn room(&self) -> usize {
        LIMIT.saturating_sub(self.backlog())
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: &Frame) {
        if !self.closing {
            frame.encode(&mut self.out);
        }
    }

    /// Queues bytes of a process.
    pub fn push_output(&mut self, kind: FrameKind, bytes: &[u8]) {
        if self.closing {
            return;
        }
        for piece in bytes.chunks(MAX_DATA) {
            self.out.extend_from_slice(&Frame::header(kind, 0, piece.len()));
            self.out.extend_from_slice(piece);
        }
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
                Ok(n) => self.sent += n,
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
