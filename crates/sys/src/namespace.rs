//! Namespaces of this process.

use std::io;

use crate::check;
use crate::process::Namespaces;

/// Moves this process into new namespaces (of process ids: its children).
pub fn unshare(new: Namespaces) -> io::Result<()> {
    // SAFETY: only CLONE_NEW* bits can be in `new`: descriptors and memory stay shared as they were.
    check(unsafe { libc::unshare(new.bits() as libc::c_int) }.into()).map(drop)
}
