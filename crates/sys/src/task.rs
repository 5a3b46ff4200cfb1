//! What one process is to the scheduler and the kernel's keyrings.

use std::ffi::CStr;
use std::io;

use crate::check;

/// A scheduling policy with its parameters, as `sched_setattr(2)` takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_OTHER` is 0, and so on.
    pub policy: u32,
    /// Bits of `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the fair policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For the deadline policy, in nanoseconds.
    pub runtime: u64,
    /// For the deadline policy, in nanoseconds.
    pub deadline: u64,
    /// For the deadline policy, in nanoseconds.
    pub period: u64,
}

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the scheduling policy of this process.
pub fn set_scheduling(s: &Scheduling) -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    };
    // SAFETY: `attr` says its own size and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0) }).map(drop)
}

/// Sets the class (1 real-time, 2 best effort, 3 idle) and level of this process's disk access.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    let value = class << 13 | level & 0x1fff;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the execution domain of this process.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::personality(domain) }.into()).map(drop)
}

/// Gives this process a session keyring of its own. `false` where the kernel has no keyrings, or allows no more.
pub fn new_session_keyring(name: &CStr) -> io::Result<bool> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let made = check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) });
    match made {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EDQUOT)) => Ok(false),
        Err(e) => Err(e),
    }
}
