//! What the runtime and the container's first process say to each other. Plain reads and writes, since later on a system call
//! filter may allow little else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use biga_sys::fd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{Error, Step};

/// One message: a letter, and for failures a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Child: it is in its new user namespace and waits for the maps. Runtime: they are there.
    Ids,
    /// Child: the master side of its terminal comes along.
    Terminal,
    /// Child: all is mounted, hooks of the host can run. Runtime: they ran.
    Mounted,
    /// Child: its child is the container's first process, with this id.
    Pid(u32),
    /// Child: a filter of system calls is in force, whose listener is its open descriptor of this number. Runtime: somebody listens.
    Listener(i32),
    /// Child: all is made. Runtime: run the program.
    Ready,
    /// Child: it failed and ends.
    Failed(String),
}

/// Longest message.
const MAX: usize = 4096;

/// A pair of ends.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step(|| "make a socket pair".into())
}

fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Ids => b"I".to_vec(),
        Message::Terminal => b"T".to_vec(),
        Message::Mounted => b"M".to_vec(),
        Message::Ready => b"R".to_vec(),
        Message::Pid(pid) => format!("P{pid}").into_bytes(),
        Message::Listener(number) => format!("L{number}").into_bytes(),
        Message::Failed(text) => format!("F{}", &text[..text.floor_char_boundary(MAX - 1)]).into_bytes(),
    }
}

fn decode(bytes: &[u8]) -> io::Result<Message> {
    let text = || String::from_utf8_lossy(&bytes[1..]).into_owned();
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the container's first process speaks another language",
        )
    };
    Ok(match bytes.first() {
        Some(b'I') => Message::Ids,
        Some(b'T') => Message::Terminal,
        Some(b'M') => Message::Mounted,
        Some(b'R') => Message::Ready,
        Some(b'P') => Message::Pid(text().parse().map_err(|_| bad())?),
        Some(b'L') => Message::Listener(text().parse().map_err(|_| bad())?),
        Some(b'F') => Message::Failed(text()),
        _ => return Err(bad()),
    })
}

/// Sends a message.
pub fn send(socket: impl AsFd, message: &Message, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = encode(message);
    match with {
        Some(fd) => fd::send(socket, &bytes, &[fd]),
        None => {
            rustix::io::retry_on_intr(|| rustix::io::write(&socket, &bytes))?;
            Ok(())
        }
    }
}

/// Waits for a message that carries nothing; `None` when the other side is gone: it ended, or executed its program.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut buf = [0u8; MAX];
    match rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut buf))? {
        0 => Ok(None),
        n => decode(&buf[..n]).map(Some),
    }
}

/// Waits for a message that may carry a descriptor.
pub fn receive_with(socket: impl AsFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut buf = [0u8; MAX];
    let (n, mut fds) = fd::receive(socket, &mut buf)?;
    if n == 0 {
        return Ok(None);
    }
    Ok(Some((decode(&buf[..n])?, fds.pop())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for message in [
            Message::Ids,
            Message::Terminal,
            Message::Mounted,
            Message::Ready,
            Message::Pid(77),
            Message::Listener(9),
            Message::Failed("no".into()),
        ] {
            assert_eq!(decode(&encode(&message)).unwrap(), message);
        }
        assert!(decode(b"").is_err() && decode(b"Px").is_err());
        assert!(encode(&Message::Failed("\u{e4}".repeat(9000))).len() <= MAX);
    }
}
