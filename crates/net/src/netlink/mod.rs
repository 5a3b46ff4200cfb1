//! A small synchronous rtnetlink: messages are built into one batch, sent by one system call, and acknowledged one
//! by one. Synchronous, because every request is answered within the `send` itself: there is nothing to wait for.
//!
//! - [`Socket`]: a connection to the network namespace of the thread that opened it
//! - [`Batch`]: messages to send together
//! - [`route`]: the messages we know

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;

pub mod route;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;
/// Type bits of an attribute's tag; the two others are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// Make it, and fail where it exists.
pub const CREATE: u16 = 0x400 | 0x200;
/// Make it, or change the one that exists.
pub const REPLACE: u16 = 0x400 | 0x100;

/// Messages to send together. Each is carried out by itself, in order; see [`Socket::run`].
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    sent: Vec<Sent>,
}

struct Sent {
    /// Where the message begins.
    start: usize,
    /// What it asks for.
    what: String,
    /// Whether a refusal is no error.
    optional: bool,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a message: its type, flags beside request and acknowledge, and what fills in its body. `what` is for
    /// error messages, after "refused to".
    fn message(&mut self, what: String, kind: u16, flags: u16, body: impl FnOnce(&mut Body<'_>)) {
        let start = self.bytes.len();
        self.sent.push(Sent {
            start,
            what,
            optional: false,
        });
        let bytes = &mut self.bytes;
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        body(&mut Body { bytes });
        let len = (bytes.len() - start) as u32;
        bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Makes the last message one whose refusal is no error.
    pub fn optional(&mut self) -> &mut Batch {
        if let Some(last) = self.sent.last_mut() {
            last.optional = true;
        }
        self
    }

    /// Numbers the messages from `first` on.
    fn number(&mut self, first: u32) {
        for (i, sent) in self.sent.iter().enumerate() {
            let seq = first.wrapping_add(i as u32);
            self.bytes[sent.start + 8..sent.start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
    }
}

/// Writes a message's body: a fixed part, then attributes, each padded to four bytes.
pub struct Body<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Body<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn attr(&mut self, tag: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&tag.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn attr_u32(&mut self, tag: u16, value: u32) {
        self.attr(tag, &value.to_ne_bytes());
    }

    /// A string with its closing NUL.
    fn attr_str(&mut self, tag: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(tag, &bytes);
    }

    fn nest(&mut self, tag: u16, inner: impl FnOnce(&mut Body<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(tag | NLA_F_NESTED).to_ne_bytes());
        inner(&mut Body { bytes: self.bytes });
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// A connection to rtnetlink.
pub struct Socket {
    fd: OwnedFd,
    next: u32,
}

impl Socket {
    /// Connects to the network namespace of the calling thread and stays connected to it, whoever uses it.
    pub fn open() -> io::Result<Socket> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&fd, &rustix::net::netlink::SocketAddrNetlink::new(0, 0))?;
        Ok(Socket { fd, next: 1 })
    }

    /// Carries out the batch. The first refusal is the error; it does not keep later messages from being tried.
    pub fn run(&mut self, batch: Batch) -> Result<(), Error> {
        let refused = self
            .exchange(batch)
            .map_err(|e| Error::netlink("talk over netlink", e))?;
        match refused {
            None => Ok(()),
            Some((what, errno)) => Err(Error::netlink(what, errno)),
        }
    }

    fn exchange(&mut self, mut batch: Batch) -> io::Result<Option<(String, Errno)>> {
        if batch.sent.is_empty() {
            return Ok(None);
        }
        let first = self.sequence(&mut batch);
        self.send(&batch.bytes)?;
        let mut refused = None;
        let mut answers = 0;
        let mut buffer = vec![0; 16 << 10];
        while answers < batch.sent.len() {
            let got = self.receive(&mut buffer)?;
            for message in messages(&buffer[..got]) {
                // What an earlier, broken-off exchange left is not ours.
                let index = message.seq.wrapping_sub(first) as usize;
                let Some(sent) = batch.sent.get(index).filter(|_| message.kind == NLMSG_ERROR) else {
                    continue;
                };
                answers += 1;
                if let Some(errno) = message.errno().filter(|_| refused.is_none() && !sent.optional) {
                    refused = Some((sent.what.clone(), errno));
                }
            }
        }
        Ok(refused)
    }

    /// Asks for a list; calls `each` with the body of every entry.
    fn dump(&mut self, what: &str, kind: u16, fixed: &[u8], each: impl FnMut(&[u8])) -> Result<(), Error> {
        self.ask(what, kind, NLM_F_DUMP, |b| b.raw(fixed), each)
    }

    /// Asks for a list, or (with `NLM_F_ACK` for its end) for one thing; calls `each` with the body of every answer.
    fn ask(
        &mut self,
        what: &str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let fail = |e: io::Error| Error::netlink(what, e);
        let mut batch = Batch::new();
        batch.message(what.to_owned(), kind, flags, body);
        let seq = self.sequence(&mut batch);
        self.send(&batch.bytes).map_err(fail)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = self.receive(&mut buffer).map_err(fail)?;
            for message in messages(&buffer[..got]).filter(|m| m.seq == seq) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.errno().map_or(Ok(()), |e| Err(fail(e.into()))),
                    _ => each(message.body),
                }
            }
        }
    }

    fn sequence(&mut self, batch: &mut Batch) -> u32 {
        let first = self.next;
        self.next = first.wrapping_add(batch.sent.len() as u32);
        batch.number(first);
        first
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()))?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (got, whole) = rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::TRUNC))?;
        if whole > got || got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(got)
    }
}

struct Message<'a> {
    kind: u16,
    seq: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// Of an `NLMSG_ERROR`: none where it is an acknowledgement.
    fn errno(&self) -> Option<Errno> {
        let code = self
            .body
            .get(..4)
            .map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let head = bytes.get(..HEADER)?;
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let body = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            seq: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            body,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a body, after its fixed part: tag (without flags) and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..4)?;
        let len = u16::from_ne_bytes([head[0], head[1]]) as usize;
        let value = bytes.get(4..len)?;
        let tag = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((tag, value))
    })
}
