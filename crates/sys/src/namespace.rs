//! Namespaces of this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::check;
use crate::process::Namespaces;

/// Moves this process into new namespaces (of process ids: its children).
pub fn unshare(new: Namespaces) -> io::Result<()> {
    // SAFETY: only CLONE_NEW* bits can be in `new`: descriptors and memory stay shared as they were.
    check(unsafe { libc::unshare(new.bits() as libc::c_int) }.into()).map(drop)
}

/// The user namespace that a namespace of another kind belongs to.
pub fn user_namespace_of(namespace: impl AsFd) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: NS_GET_USERNS takes no argument.
    let fd = check(unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS as _) }.into())?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
