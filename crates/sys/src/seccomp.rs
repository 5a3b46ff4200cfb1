//! Installing a system call filter, and answering the calls that one has answered.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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

/// Flag of [`install_listening`]: a caller that waits for an answer can only be killed, not interrupted.
pub const WAIT_KILLABLE: u32 = 1 << 5;
/// Gives a descriptor at which calls are answered.
const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// Applies a filter to this thread and all it will start. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub fn install(filter: &[Insn], flags: u32) -> io::Result<()> {
    seccomp(filter, flags).map(drop)
}

/// The same for a filter that has calls answered by another program: gives the descriptor that this listens at (closed by exec).
pub fn install_listening(filter: &[Insn], flags: u32) -> io::Result<OwnedFd> {
    let fd = seccomp(filter, flags | NEW_LISTENER)?;
    // SAFETY: with this flag the kernel answers a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn seccomp(filter: &[Insn], flags: u32) -> io::Result<libc::c_long> {
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
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Call {
    /// Its own number, to answer by.
    pub id: u64,
    /// Who makes it, as this process sees it.
    pub pid: u32,
    flags: u32,
    /// The system call.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where from.
    pub instruction: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `_IOWR('!', number, size)`.
const fn request(number: u32, size: usize) -> libc::c_ulong {
    (0xc000_2100 | (size as u32) << 16 | number) as libc::c_ulong
}

/// Waits for the next call at a listener.
pub fn next_call(listener: impl AsFd) -> io::Result<Call> {
    let mut call = Call::default();
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel fills the zeroed structure, which has its layout and size and outlives the call.
    check(unsafe { libc::ioctl(fd, request(0, size_of::<Call>()), &mut call) }.into())?;
    Ok(call)
}

/// Answers a call: with a value, or with an error number. An error says that its caller is gone.
pub fn answer(listener: impl AsFd, call: &Call, result: Result<i64, i32>) -> io::Result<()> {
    let answer = Answer {
        id: call.id,
        value: result.unwrap_or(0),
        error: result.err().map_or(0, |e| -e),
        flags: 0,
    };
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads a structure of its layout and size, which outlives the call.
    check(unsafe { libc::ioctl(fd, request(1, size_of::<Answer>()), &answer) }.into()).map(drop)
}
