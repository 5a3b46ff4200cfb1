//! All that `mount_setattr` can change: attributes set and cleared, propagation, mapped ids.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::check;

/// Seen but not changed.
pub const RDONLY: u64 = 0x1;
/// No set-user-id programs.
pub const NOSUID: u64 = 0x2;
/// No device nodes.
pub const NODEV: u64 = 0x4;
/// No programs.
pub const NOEXEC: u64 = 0x8;
/// All bits that say when access times are kept; to be cleared when one of them is set.
pub const ATIME: u64 = 0x70;
/// Access times are kept when they are older than a change.
pub const RELATIME: u64 = 0x0;
/// Access times are not kept.
pub const NOATIME: u64 = 0x10;
/// Access times are always kept.
pub const STRICTATIME: u64 = 0x20;
/// Access times of directories are not kept.
pub const NODIRATIME: u64 = 0x80;
/// Symbolic links are not followed.
pub const NOSYMFOLLOW: u64 = 0x20_0000;
const IDMAP: u64 = 0x10_0000;

/// How mounts below this one spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the origin only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change of a mount.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear first.
    pub clear: u64,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// Show owners as this user namespace maps them.
    pub ids: Option<BorrowedFd<'a>>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `fd` stands for, and those below it with `recursive`.
pub fn change(fd: impl AsFd, change: &Change<'_>, recursive: bool) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: change.set | if change.ids.is_some() { IDMAP } else { 0 },
        attr_clr: change.clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: change.ids.map_or(0, |f| f.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string, `attr` has the size that is passed and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
