//! Signal dispositions, masks and signalfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::check;

/// Highest signal number.
pub const MAX: i32 = 64;

/// The kernel's own form of a disposition: the C library refuses to touch the two signals it uses itself, though they can be
/// inherited ignored like any other.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Every signal as in a fresh process: default disposition, none blocked. For a child before exec, since ignored
/// and blocked signals are inherited.
pub fn reset_all() {
    let default = KernelAction {
        handler: libc::SIG_DFL,
        flags: 0,
        restorer: 0,
        mask: 0,
    };
    for signal in 1..=MAX {
        // SAFETY: `default` has the layout and size the kernel expects, and SIG_DFL runs no code of ours. KILL and STOP
        // fail, which is right.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &default, 0usize, size_of::<u64>()) };
    }
    // SAFETY: an empty set is valid; the mask of this thread is changed and no memory beyond `set` is touched.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Ignores a signal.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Blocks signals for this thread and gives a descriptor (non-blocking) to read them from with [`read`].
/// Call before any other thread is made.
pub fn descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use and only passed by pointer.
    let fd = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for s in signals {
            libc::sigaddset(&mut set, *s);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()).into())?;
        check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?
    };
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Next signal of a [`descriptor`]; `None` if there is none.
pub fn read(fd: &OwnedFd) -> io::Result<Option<i32>> {
    // SAFETY: all-zero is a valid signalfd_siginfo.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` is writable for `size` bytes.
    match check(unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size) } as libc::c_long) {
        Ok(n) if n as usize == size => Ok(Some(info.ssi_signo as i32)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}
