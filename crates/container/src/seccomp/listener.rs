//! Calls that another program answers (`SCMP_ACT_NOTIFY`): its listener's descriptor goes to a unix socket, with the state of the
//! process, as the OCI runtime specification has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use biga_sys::process::{Child, take_fd};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

use crate::Error;
use crate::error::Context;

/// How long the other program may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the descriptor is called in the state.
const NAME: &str = "seccompFd";

/// Who answers calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    path: PathBuf,
    metadata: String,
}

impl Listener {
    /// The program behind a socket of this host, and what it is told besides.
    pub fn new(path: &str, metadata: &str) -> Result<Listener, Error> {
        if !path.starts_with('/') || SocketAddrUnix::new(path).is_err() {
            let why = format!("listenerPath {path:?} is no absolute path of a socket (at most 107 bytes)");
            return Err(Error::Field("the seccomp profile", why));
        }
        Ok(Listener {
            path: path.into(),
            metadata: metadata.to_owned(),
        })
    }

    /// Takes the descriptor of a process that installed a filter and waits, by its number there, and hands it over with its
    /// container's state.
    pub fn hand_over(&self, process: &Child, number: i32, version: &str, state: &Value) -> Result<(), Error> {
        let what = || {
            format!(
                "hand the listener of the system call filter to the program at {}: does it run?",
                self.path.display()
            )
        };
        let listener =
            take_fd(&process.pidfd, number).step(|| "take over the listener of the system call filter".into())?;
        let mut document = json!({
            "ociVersion": version,
            "fds": [NAME],
            "pid": process.pid,
            "state": state,
        });
        if !self.metadata.is_empty() {
            document["metadata"] = self.metadata.as_str().into();
        }
        let socket = self.connect().step(what)?;
        // In one message: who receives it reads no second one.
        biga_sys::fd::send(&socket, document.to_string().as_bytes(), &[listener.as_fd()]).step(what)
    }

    /// Not for ever: a program that accepts nothing must not hold up its caller.
    fn connect(&self) -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &SocketAddrUnix::new(&self.path)?)?;
        Ok(socket)
    }
}
