//! What a forked child and its shim say to each other before the entrypoint runs, over a socket that exec closes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use biga_sys::fd;
use biga_wire::shim::ErrorCode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::Context;

/// One message.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub(crate) enum Message {
    /// Child: the master side of its terminal comes along.
    Terminal,
    /// Child: another process, of this id, goes on in its place; its descriptor comes along.
    Born(u32),
    /// Child: a filter of system calls is in force, whose listener is its open descriptor of this number. Shim: somebody listens.
    Listener(i32),
    /// Child: all is made, waiting to run. Shim: run.
    Ready,
    /// Child: all is done, about to be replaced by its program.
    Running,
    /// Child: it failed and ends.
    Failed(ErrorCode, String),
}

/// A pair of ends.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step(|| "make a socket pair".into())
}

/// Sends a message. Without a descriptor by a plain write: a system call filter may allow little else by then.
pub(crate) fn send(socket: impl AsFd, message: &Message, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    match with {
        Some(fd) => fd::send(socket, &bytes, &[fd]),
        None => {
            rustix::io::retry_on_intr(|| rustix::io::write(&socket, &bytes))?;
            Ok(())
        }
    }
}

/// Waits for a message; `None` when the other side is gone: a child ended, or executed its program.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut buf = [0u8; 8192];
    let (n, mut fds) = fd::receive(socket, &mut buf)?;
    if n == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buf[..n])?, fds.pop())))
}

/// Waits for a message without a descriptor, by a plain read.
pub(crate) fn receive_plain(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut buf = [0u8; 8192];
    match rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut buf))? {
        0 => Ok(None),
        n => Ok(Some(serde_json::from_slice(&buf[..n])?)),
    }
}

/// Tells the shim why this child ends.
pub(crate) fn fail(socket: impl AsFd, error: &Error) {
    let mut text = error.to_string();
    // Fits the receiver's buffer even when every byte is escaped.
    text.truncate(text.floor_char_boundary(1200));
    // With the shim gone there is nobody to tell.
    let _ = send(socket, &Message::Failed(error.code(), text), None);
}
