//! A socket that never blocks: what cannot be sent at once waits in memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use biga_wire::workload::{Host, Interest};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// One end of a stream socket, watched by the shim's loop.
#[derive(Debug)]
pub struct Duplex {
    fd: OwnedFd,
    token: u32,
    out: Vec<u8>,
    sent: usize,
    reading: bool,
    watched: Option<Interest>,
    closed: bool,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The other side is gone.
    End,
}

/// A pair of connected stream sockets: the near one does not block, the far one is for a child.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&near, true)?;
    Ok((near, far))
}

impl Duplex {
    /// Takes a descriptor that does not block.
    pub fn new(fd: OwnedFd, token: u32) -> Duplex {
        Duplex {
            fd,
            token,
            out: Vec::new(),
            sent: 0,
            reading: true,
            watched: None,
            closed: false,
        }
    }

    /// Begins to be watched.
    pub fn register(&mut self, host: &mut dyn Host) -> io::Result<()> {
        self.update(host)
    }

    /// Stops being watched, for good.
    pub fn close(&mut self, host: &mut dyn Host) {
        if self.watched.take().is_some() {
            host.unwatch(self.fd.as_fd());
        }
        self.closed = true;
        self.out.clear();
        self.sent = 0;
    }

    /// Whether to read; a reader that stands still leaves the other side waiting.
    pub fn set_reading(&mut self, reading: bool, host: &mut dyn Host) {
        self.reading = reading;
        // A descriptor that was watched once can be watched in another way.
        let _ = self.update(host);
    }

    /// Bytes waiting to be sent.
    pub fn queued(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Adds bytes and sends what goes out now.
    pub fn send(&mut self, bytes: &[u8], host: &mut dyn Host) {
        if self.closed {
            return;
        }
        self.out.extend_from_slice(bytes);
        self.flush(host);
    }

    /// Sends what goes out now.
    pub fn flush(&mut self, host: &mut dyn Host) {
        self.push_out();
        let _ = self.update(host);
    }

    fn push_out(&mut self) {
        while self.sent < self.out.len() {
            let rest = &self.out[self.sent..];
            match rustix::net::send(&self.fd, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The reader is gone; its end shows itself by reading.
                Err(_) => self.sent = self.out.len(),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > 1 << 20 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn update(&mut self, host: &mut dyn Host) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let want = Interest {
            read: self.reading,
            write: self.queued() > 0,
        };
        if self.watched != Some(want) {
            host.watch(self.fd.as_fd(), self.token, want)?;
            self.watched = Some(want);
        }
        Ok(())
    }

    /// Reads once.
    pub fn read(&mut self, buf: &mut [u8]) -> Got {
        if self.closed {
            return Got::End;
        }
        loop {
            return match rustix::io::read(&self.fd, &mut *buf) {
                Ok(0) => Got::End,
                Ok(n) => Got::Bytes(n),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Got::Nothing,
                Err(_) => Got::End,
            };
        }
    }

    /// Sends all that waits and waits for something to read, at most until `deadline`. Whether there is something.
    pub fn wait(&mut self, deadline: std::time::Instant) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            self.push_out();
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.closed {
                return false;
            }
            let mut flags = PollFlags::IN;
            if self.queued() > 0 {
                flags |= PollFlags::OUT;
            }
            let mut fds = [PollFd::new(&self.fd, flags)];
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos() as _,
            };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
            if fds[0]
                .revents()
                .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            {
                return true;
            }
        }
    }
}

impl AsFd for Duplex {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
