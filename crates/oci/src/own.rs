//! This program's own file: a container must not be able to write to it through `/proc/PID/exe` of a process that is on its way
//! in. It is therefore run from a file that cannot be written: sealed memory, or a mount that is read-only and is nowhere.

use std::io;
use std::os::fd::AsRawFd;

use biga_container::rootfs;
use biga_sys::mount_attr::{self as attr, Change};
use biga_sys::process::Command;
use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::error::{Error, Step};

/// Verbs that bring this program near a container.
const NEAR: [&str; 4] = ["create", "run", "exec", "start"];

/// Runs this program again from a file that cannot be written, if it is not yet and `args` (with the program's name) ask for
/// what brings it near a container.
pub fn protect(args: &[String]) -> Result<(), Error> {
    if !args.iter().skip(1).any(|a| NEAR.contains(&a.as_str())) {
        return Ok(());
    }
    let what = || "protect this program from containers".to_owned();
    let own = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    let sealed = rustix::fs::fcntl_get_seals(&own).is_ok_and(|s| s.contains(SealFlags::WRITE));
    let read_only = rustix::fs::fstatvfs(&own).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    if sealed || read_only {
        return Ok(());
    }
    let tree = rootfs::clone_tree(&own, false).step(what)?;
    let change = Change {
        set: attr::RDONLY,
        ..Change::default()
    };
    attr::change(&tree, &change, false).step(what)?;
    let env: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    let command = Command::new(args.iter().map(String::as_str), env.iter().map(String::as_str)).step(what)?;
    // The descriptor is closed by exec, and with it the mount is gone for everybody.
    let e: io::Error = command.exec(&format!("/proc/self/fd/{}", tree.as_raw_fd()));
    Err(e).step(what)
}
