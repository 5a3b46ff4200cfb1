//! Safe wrappers over system calls: the only crate of the workspace with `unsafe`.
//!
//! `rustix` gives most calls safely already and is used directly by the other crates. Here is what it lacks or
//! marks unsafe: making processes, reading and blocking signals, a few mount and BPF calls, and ioctls.
//!
//! - [`activation`]: sockets that the service manager hands over
//! - [`process`]: clone, exec, wait by pidfd
//! - [`signal`]: dispositions, masks, signalfd
//! - [`fd`]: close_range, taking inherited descriptors, sealed memory files, passing descriptors over sockets
//! - [`memory`]: giving back what is free
//! - [`mount`], [`mount_attr`]: mount_setattr, loop devices
//! - [`namespace`]: namespaces of this process
//! - [`partition`]: partitions without a table
//! - [`seccomp`]: installing a filter
//! - [`device_filter`]: the device program of a control group of version 2
//! - [`task`]: scheduling, keyrings
//! - [`tun`]: tap interfaces

pub mod activation;
pub mod device_filter;
pub mod fd;
pub mod memory;
pub mod mount;
pub mod mount_attr;
pub mod namespace;
pub mod partition;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod task;
pub mod tun;

use std::io;

/// Turns a system call's result into one of Rust's.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
