//! Terminals of containers: made inside, their master handed to whoever asked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use biga_container::beneath;
use biga_container::rootfs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::pty::OpenptFlags;

use crate::control::{self, Message};
use crate::error::{Error, Step};
use crate::spec::ConsoleSize;

/// Makes a terminal in the container's own `devpts`, gives the master to the runtime and keeps the slave.
pub fn make(root: BorrowedFd<'_>, size: Option<ConsoleSize>, socket: &OwnedFd) -> Result<OwnedFd, Error> {
    const DEVPTS_MAGIC: i64 = 0x1cd1;
    let what = || "make a terminal in the container".into();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    // With a /dev that is not ours, only this name may exist.
    let master = match beneath::open(root, "/dev/pts/ptmx", flags) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => beneath::open(root, "/dev/ptmx", flags),
        other => other,
    }
    .step(what)?;
    // A container may have put something else there: nobody must take that for a terminal.
    let real = rustix::fs::fstatfs(&master).step(what)?.f_type == DEVPTS_MAGIC
        && rustix::fs::fstat(&master).step(what)?.st_rdev == rustix::fs::makedev(5, 2);
    if !real {
        return Err(io::Error::other("its /dev/pts/ptmx is not a terminal multiplexer")).step(what);
    }
    rustix::pty::unlockpt(&master).step(what)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .step(what)?;
    if let Some(size) = size.filter(|s| s.height > 0 && s.width > 0) {
        biga_container::setup::resize(&master, size.height, size.width).step(what)?;
    }
    control::send(socket, &Message::Terminal, Some(master.as_fd())).step(what)?;
    Ok(slave)
}

/// Puts the first terminal at `/dev/console`. Its descriptor is mounted, so that no path of the container is looked at again.
pub fn bind(root: BorrowedFd<'_>, slave: &OwnedFd) -> Result<(), Error> {
    let what = || "make /dev/console".into();
    let dev = beneath::locate(root, "/dev").step(what)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).step(what),
    }
    let place = rustix::fs::openat(
        &dev,
        "console",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(what)?;
    let kind = FileType::from_raw_mode(rustix::fs::statat(&place, "", AtFlags::EMPTY_PATH).step(what)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
        return Err(Error::State(
            "cannot make /dev/console: the image has something else there".into(),
        ));
    }
    let tree = rootfs::clone_tree(slave, false).step(what)?;
    rootfs::attach(&tree, &place).step(what)
}

/// Connects to the socket at which somebody waits for the master.
pub fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).step(|| format!("connect to the console socket {}", path.display()))
}

/// Hands the master over.
pub fn send(socket: &UnixStream, master: &OwnedFd) -> Result<(), Error> {
    // The name is for people only.
    biga_sys::fd::send(socket, b"/dev/pts/ptmx", &[master.as_fd()]).step(|| "hand the terminal over".into())
}
