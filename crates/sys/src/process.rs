//! Making, replacing and waiting for processes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;

/// New namespaces for [`fork`]: bits of `CLONE_NEW*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    /// None: the parent's.
    pub const NONE: Namespaces = Namespaces(0);
    /// Process ids.
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u64);
    /// Mounts.
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u64);
    /// System V IPC and message queues.
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u64);
    /// Host name.
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u64);
    /// Network.
    pub const NET: Namespaces = Namespaces(libc::CLONE_NEWNET as u64);
    /// Control groups.
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u64);

    /// Users and groups.
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u64);
    /// Clocks, for [`crate::namespace::unshare`] only: children are born into it.
    pub const TIME: Namespaces = Namespaces(0x80);

    /// Both.
    pub const fn and(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }

    /// As bits of `CLONE_NEW*`.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The one that called.
    Parent(Child),
}

/// A child of this process, held by descriptor so that its id cannot be taken for another's.
#[derive(Debug)]
pub struct Child {
    /// Its id.
    pub pid: u32,
    /// Readable once it ended.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The code a shell would show: 128+n after signal n.
    pub fn code(self) -> i32 {
        match self {
            Ended::Code(c) => c,
            Ended::Signal(s) => 128 + s,
        }
    }

    /// The signal.
    pub fn signal(self) -> Option<i32> {
        match self {
            Ended::Code(_) => None,
            Ended::Signal(s) => Some(s),
        }
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks this process into new namespaces and, on version 2, straight into a control group.
///
/// Refused with [`io::ErrorKind::Unsupported`] when this process has more than one thread: the child would inherit locks
/// that nobody holds.
pub fn fork(new: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    fork_with(new, cgroup, false)
}

/// Like [`fork`], but the child becomes one of this process's parent, which waits for it by its id.
pub fn fork_sibling(new: Namespaces) -> io::Result<Fork> {
    fork_with(new, None, true)
}

fn fork_with(new: Namespaces, cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> io::Result<Fork> {
    if !alone()? {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "only a process with one thread can fork",
        ));
    }
    let mut pidfd: libc::c_int = -1;
    let args = CloneArgs {
        flags: new.0
            | CLONE_PIDFD
            | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 }
            | if sibling { libc::CLONE_PARENT as u64 } else { 0 },
        pidfd: &raw mut pidfd as u64,
        // A sibling has this process's own.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args without CLONE_VM and without a stack, so the child gets a copy of this
    // address space and returns here like after fork(2). There is one thread (checked above), so no lock is held by
    // a thread that the child lacks. `pidfd` outlives the call.
    let made = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) });
    let pid = match made {
        // A filter, as the default one of containers, answers so that programs use the older call.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => older_clone(&args, &mut pidfd)?,
        other => other?,
    };
    if pid == 0 {
        return Ok(Fork::Child);
    }
    Ok(Fork::Parent(Child {
        pid: pid as u32,
        // SAFETY: the kernel put a new descriptor there, which nobody else owns.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    }))
}

/// The same by `clone(2)`, which cannot place the child in a control group.
fn older_clone(args: &CloneArgs, pidfd: &mut libc::c_int) -> io::Result<libc::c_long> {
    let flags = args.flags | args.exit_signal;
    // SAFETY: as of the newer call: no shared memory and no stack of its own, one thread. The third argument is where the kernel
    // puts the descriptor, which `pidfd` outlives; the others are unused without their flags.
    check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            0usize,
            pidfd as *mut libc::c_int,
            0usize,
            0usize,
        )
    })
}

/// Whether this process has one thread. The kernel is asked by a call that would separate threads and does nothing with one:
/// `/proc` may be another's by now, or one in which this process is not.
fn alone() -> io::Result<bool> {
    // SAFETY: with one thread the call has no effect, and with more it is refused.
    match check(unsafe { libc::unshare(libc::CLONE_THREAD) }.into()) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // A filter around this process may forbid the call. The directory has one link a thread beside the usual two.
        Err(_) => Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3),
    }
}

impl Child {
    /// How it ended, if it did; reaps it. Blocks until then with `block`. A child that was reaped by someone else is an
    /// error, never "exited with 0".
    pub fn wait(&self, block: bool) -> io::Result<Option<Ended>> {
        loop {
            // SAFETY: all-zero is a valid siginfo_t.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
            // SAFETY: `info` is writable and outlives the call.
            let r = unsafe { libc::waitid(libc::P_PIDFD, self.pidfd.as_raw_fd() as libc::id_t, &mut info, flags) };
            if r < 0 {
                let e = io::Error::last_os_error();
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e);
            }
            // SAFETY: waitid filled the SIGCHLD part, or left zeros.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            if pid == 0 {
                return Ok(None);
            }
            return Ok(Some(match info.si_code {
                libc::CLD_EXITED => Ended::Code(status),
                _ => Ended::Signal(status),
            }));
        }
    }

    /// Sends a signal. A process that ended already is no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        signal_pidfd(&self.pidfd, signal)
    }
}

/// Holds a process by its id; its id may be another's by now, so compare what it is after this.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0u32) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A copy (close-on-exec) of another process's open descriptor, by its number there. Needs the right to trace that process.
pub fn take_fd(pidfd: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0u32) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal by descriptor. A process that ended already is no error.
pub fn signal_pidfd(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let r = check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0usize, 0u32) });
    ignore_gone(r)
}

/// Sends a signal by id. A process that ended already is no error.
pub fn signal_pid(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: no memory is passed.
    ignore_gone(check(unsafe { libc::kill(pid, signal) }.into()))
}

fn ignore_gone(r: io::Result<libc::c_long>) -> io::Result<()> {
    match r {
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

/// Program, arguments and environment in the form the kernel wants.
#[derive(Debug)]
pub struct Command {
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Command {
    /// Fails if a string holds a NUL byte.
    pub fn new<'a>(
        args: impl IntoIterator<Item = &'a str>,
        env: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Command> {
        fn all<'a>(strings: impl IntoIterator<Item = &'a str>) -> io::Result<Vec<CString>> {
            strings
                .into_iter()
                .map(|s| CString::new(s).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e)))
                .collect()
        }
        Ok(Command {
            args: all(args)?,
            env: all(env)?,
        })
    }

    /// Replaces this process; returns only on failure.
    pub fn exec(&self, path: &str) -> io::Error {
        let path = match CString::new(path) {
            Ok(p) => p,
            Err(e) => return io::Error::new(io::ErrorKind::InvalidInput, e),
        };
        let pointers = |v: &[CString]| -> Vec<*const libc::c_char> {
            v.iter()
                .map(|s| s.as_ptr())
                .chain(std::iter::once(std::ptr::null()))
                .collect()
        };
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        // SAFETY: path is NUL-terminated; both lists end with a null pointer and point to strings owned by `self`.
        unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Ends this process at once, without running anything of it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Reaps one ended child of any kind and answers its id; `None` if no child ended. For PID 1 of a container or guest.
pub fn reap_any() -> io::Result<Option<(u32, Ended)>> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        1.. => {
            let ended = if libc::WIFSIGNALED(status) {
                Ended::Signal(libc::WTERMSIG(status))
            } else {
                Ended::Code(libc::WEXITSTATUS(status))
            };
            Ok(Some((pid as u32, ended)))
        }
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            e => Err(e),
        },
    }
}

/// Makes this process unreadable for others in `/proc` and by ptrace, until the next exec.
pub fn set_undumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    )?)
}
