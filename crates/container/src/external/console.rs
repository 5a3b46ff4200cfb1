//! Taking the master side of a terminal that a runtime made inside.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Error;
use crate::error::Context;

/// How long after its maker's success a terminal may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket at which a runtime hands a terminal over.
#[derive(Debug)]
pub(super) struct Console {
    listener: OwnedFd,
    path: PathBuf,
}

impl Console {
    /// Listens at a path, for one runtime at a time.
    pub fn listen(path: &Path) -> Result<Console, Error> {
        let what = || format!("listen at {}", path.display());
        // Of a shim that was killed.
        let _ = std::fs::remove_file(path);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).step(what)?;
        let address = SocketAddrUnix::new(path).step(what)?;
        rustix::net::bind(&listener, &address).step(what)?;
        rustix::net::listen(&listener, 1).step(what)?;
        Ok(Console {
            listener,
            path: path.to_owned(),
        })
    }

    /// The path as an argument.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// What the runtime handed over.
    pub fn terminal(&self) -> Result<OwnedFd, Error> {
        let what = || "take the terminal from the runtime".into();
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it handed none over");
        if !super::program::readable(&self.listener, PATIENCE).step(what)? {
            return Err(late()).step(what);
        }
        let connection = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC).step(what)?;
        if !super::program::readable(&connection, PATIENCE).step(what)? {
            return Err(late()).step(what);
        }
        let mut name = [0u8; 4096];
        let (_, mut fds) = biga_sys::fd::receive(&connection, &mut name).step(what)?;
        let master = fds.pop().ok_or_else(late).step(what)?;
        // A runtime is trusted with much, but the shim must not take anything else for a terminal.
        if rustix::fs::fstat(&master).step(what)?.st_rdev != rustix::fs::makedev(5, 2) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it handed over something else",
            ))
            .step(what);
        }
        Ok(master)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Whoever listens next removes it first.
        let _ = std::fs::remove_file(&self.path);
    }
}
