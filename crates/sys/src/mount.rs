//! Mount calls that rustix lacks, and loop devices.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use crate::check;
use crate::mount_attr::{self, Change};

pub use crate::mount_attr::{NODEV, NOEXEC, NOSUID, RDONLY};

/// Sets attributes of the mount that `fd` stands for, and of those below it with `recursive`.
pub fn set_attributes(fd: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    let change = Change {
        set: attributes,
        ..Change::default()
    };
    mount_attr::change(fd, &change, recursive)
}

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A loop device over a file. It goes away by itself when it is neither open nor mounted any more.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its node.
    pub path: PathBuf,
    /// Keeps it alive until it is mounted.
    pub file: File,
}

/// Puts a free loop device over `backing`.
pub fn loop_device(backing: &File, read_only: bool) -> io::Result<LoopDevice> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    // Another process may take the free device first: try again then.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }.into())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = File::options().read(true).write(!read_only).open(&path)?;
        // SAFETY: all-zero is a valid loop_config.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = backing.as_raw_fd() as u32;
        config.info.flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
        // SAFETY: `config` has the layout of struct loop_config and outlives the call.
        match check(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_CONFIGURE as _, &config) }.into()) {
            Ok(_) => return Ok(LoopDevice { path, file }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "other processes took every free loop device",
    ))
}
