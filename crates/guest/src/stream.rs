//! Input and output of one process, between its pipes or terminal and the host's frames, with credit in both directions.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use biga_sys::process::{Child, Ended};
use biga_wire::guest::WINDOW;
use biga_wire::shim::Exit;
use biga_wire::{Frame, FrameKind};
use rustix::io::Errno;

use crate::process::{Running, set_window};

/// Bytes read before another stream gets its turn.
const TURN: usize = 32 << 10;

/// One process.
#[derive(Debug)]
pub struct Stream {
    id: u16,
    child: Child,
    tty: bool,
    stdin: Option<OwnedFd>,
    waiting: VecDeque<u8>,
    /// Close the input once all of it was written.
    eof: bool,
    /// Input taken by the process and not yet allowed again.
    owed: u32,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Output the host has room for.
    may_send: u32,
    ended: Option<Ended>,
}

/// Which of a stream's descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Input, to be written.
    Stdin,
    /// Output, to be read.
    Stdout,
    /// Error output, to be read.
    Stderr,
    /// The process itself.
    Child,
}

impl Stream {
    /// Takes a started process.
    pub fn new(id: u16, running: Running) -> Stream {
        Stream {
            id,
            child: running.child,
            tty: running.tty,
            stdin: running.stdin,
            waiting: VecDeque::new(),
            eof: false,
            owed: 0,
            stdout: Some(running.stdout),
            stderr: running.stderr,
            may_send: WINDOW,
            ended: None,
        }
    }

    /// Id of the process.
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Descriptors to wait on now.
    pub fn interests(&self) -> Vec<(End, BorrowedFd<'_>)> {
        let mut out = Vec::new();
        if let Some(fd) = &self.stdin
            && !self.waiting.is_empty()
        {
            out.push((End::Stdin, fd.as_fd()));
        }
        if self.may_send > 0 {
            out.extend(self.stdout.iter().map(|fd| (End::Stdout, fd.as_fd())));
            out.extend(self.stderr.iter().map(|fd| (End::Stderr, fd.as_fd())));
        }
        if self.ended.is_none() {
            out.push((End::Child, self.child.pidfd.as_fd()));
        }
        out
    }

    /// A frame from the host.
    pub fn frame(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        match frame.kind {
            FrameKind::Stdin => self.input(&frame.payload, out),
            FrameKind::StdinEof => {
                self.eof = !self.tty;
                self.write(out);
            }
            FrameKind::Resize => {
                if let (Some((rows, cols)), true, Some(fd)) = (frame.window(), self.tty, &self.stdout) {
                    // A terminal that is gone needs no size.
                    let _ = set_window(fd, rows, cols);
                }
            }
            FrameKind::Signal => {
                if let Some(signal) = frame.number().and_then(|n| i32::try_from(n).ok()) {
                    // It may have ended at this moment.
                    let _ = self.child.signal(signal);
                }
            }
            FrameKind::Credit => {
                self.may_send = self.may_send.saturating_add(frame.number().unwrap_or(0)).min(WINDOW);
            }
            _ => {}
        }
    }

    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.stdin {
            Some(_) => {
                self.waiting.extend(bytes);
                self.write(out);
            }
            // Nobody reads: taken and dropped.
            None => self.taken(bytes.len(), out),
        }
    }

    /// Gives the process what waits for it.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        while let (Some(fd), false) = (&self.stdin, self.waiting.is_empty()) {
            let (front, _) = self.waiting.as_slices();
            match rustix::io::write(fd, front) {
                Ok(n) => {
                    self.waiting.drain(..n);
                    self.taken(n, out);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    let rest = self.waiting.len();
                    self.waiting.clear();
                    self.stdin = None;
                    self.taken(rest, out);
                }
            }
        }
        if self.eof && self.waiting.is_empty() {
            self.stdin = None;
        }
    }

    fn taken(&mut self, n: usize, out: &mut Vec<u8>) {
        self.owed += n as u32;
        if self.owed >= WINDOW / 4 {
            Frame::with_number(FrameKind::Credit, self.owed).on(self.id).encode(out);
            self.owed = 0;
        }
    }

    /// Reads one of the outputs. Whether there was something.
    pub fn read(&mut self, end: End, out: &mut Vec<u8>) -> bool {
        let (slot, kind) = match end {
            End::Stdout => (&mut self.stdout, FrameKind::Stdout),
            End::Stderr => (&mut self.stderr, FrameKind::Stderr),
            _ => return false,
        };
        let Some(fd) = slot else { return false };
        let most = TURN.min(self.may_send as usize);
        if most == 0 {
            return false;
        }
        let mut buf = vec![0; most];
        match rustix::io::read(&*fd, &mut buf) {
            Ok(0) => *slot = None,
            Ok(n) => {
                self.may_send -= n as u32;
                buf.truncate(n);
                Frame::new(kind, buf).on(self.id).encode(out);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal without processes.
            Err(_) => *slot = None,
        }
        false
    }

    /// Looks whether the process ended. Whether it did, now.
    pub fn reap(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = match self.child.wait(false) {
                Ok(ended) => ended,
                // Somebody took its status, which should not happen.
                Err(_) => Some(Ended::Code(255)),
            };
            return self.ended.is_some();
        }
        false
    }

    /// Whether the process ended.
    pub fn ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The last frame, once the process ended and what it wrote went out. A grandchild that holds the pipe open is not
    /// waited for: what is in the pipe now is all.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Option<Exit> {
        let ended = self.ended?;
        for end in [End::Stdout, End::Stderr] {
            while self.read(end, out) {}
        }
        if self.may_send == 0 && (self.stdout.is_some() || self.stderr.is_some()) {
            // The rest goes when the host has room.
            return None;
        }
        Some(Exit {
            code: ended.code(),
            signal: ended.signal(),
            ..Exit::default()
        })
    }
}
