//! Installing a system call filter.

use std::io;

use crate::check;

/// One instruction of classic BPF, as the kernel wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Insn,
}

/// Flag of [`install`]: do not slow speculation down.
pub const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// Applies a filter to this thread and all it will start. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn install(filter: &[Insn], flags: u32) -> io::Result<()> {
    let program = Program {
        len: u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        filter: filter.as_ptr(),
    };
    // SAFETY: `program` points to `len` instructions, which the kernel copies and verifies.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            &program,
        )
    })
    .map(drop)
}
