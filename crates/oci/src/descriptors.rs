//! Which descriptors a program begins with: its streams, and those that were asked for. Nothing of the host leaks inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use biga_sys::fd;

use crate::confine::Confinement;
use crate::error::{Error, Step};
use crate::spec::Process;

/// Puts a terminal to 0, 1 and 2 (to be taken then by [`take_terminal`]), and closes everything but those, the `preserve` descriptors behind them, and what is to be kept
/// until the program runs. Answers the latter under their new numbers.
///
/// Nothing else that owns a descriptor may be dropped in this process after it, nor the owners of what is kept.
pub fn settle(
    terminal: Option<OwnedFd>,
    keep: &[BorrowedFd<'_>],
    preserve: RawFd,
    confinement: &mut Confinement,
) -> Result<Vec<OwnedFd>, Error> {
    let what = || "arrange descriptors".into();
    if let Some(slave) = &terminal {
        for number in 0..3 {
            fd::place(slave.as_fd(), number).step(what)?;
        }
    }
    let base = 3 + preserve;
    let label = confinement.take_label_file();
    // Beyond all numbers that are placed, first.
    let high = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, base + 16).step(what);
    let all = keep.iter().copied().chain(label.as_ref().map(AsFd::as_fd));
    let copies: Vec<OwnedFd> = all.map(high).collect::<Result<_, Error>>()?;
    for (i, source) in (0..).zip(&copies) {
        fd::place(source.as_fd(), base + i).step(what)?;
    }
    let (count, has_label) = (copies.len() as RawFd, label.is_some());
    // Their numbers are closed below, or stand for something else by now.
    std::mem::forget((copies, label, terminal));
    fd::close_from(base + count).step(what)?;
    let take = |number: RawFd| {
        let fd = fd::inherited(number).step(what)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).step(what)?;
        Ok(fd)
    };
    let mut kept = (0..count)
        .map(|i| take(base + i))
        .collect::<Result<Vec<OwnedFd>, Error>>()?;
    if has_label && let Some(file) = kept.pop() {
        confinement.set_label_file(file);
    }
    Ok(kept)
}

/// Makes the terminal at the standard streams, if the process has one, that of this process's session. It belongs to who uses it.
pub fn take_terminal(process: &Process) -> Result<(), Error> {
    if !process.terminal {
        return Ok(());
    }
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).step(|| "take the terminal".into())?;
    let uid = rustix::fs::Uid::from_raw(process.user.uid);
    match rustix::fs::fchown(rustix::stdio::stdin(), Some(uid), None) {
        Ok(()) | Err(rustix::io::Errno::ROFS | rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => Ok(()),
        Err(e) => Err(e).step(|| "give the terminal to its user".into()),
    }
}
