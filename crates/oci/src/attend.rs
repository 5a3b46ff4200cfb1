//! Staying with a process until it ends: passing signals on, and its terminal's bytes both ways.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use biga_sys::process::{Child, Ended};
use biga_sys::signal;
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};

use crate::spec::ConsoleSize;

const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
/// Those that say that this process itself is broken, and those that cannot be caught.
const NOT_PASSED: [i32; 9] = [4, 5, 7, 8, 9, 11, 19, 31, SIGURG];

/// Signals that arrive from now on wait to be passed on.
pub fn signals() -> io::Result<OwnedFd> {
    let all: Vec<i32> = (1..=signal::MAX).filter(|s| !NOT_PASSED.contains(s)).collect();
    signal::descriptor(&all)
}

/// Makes the caller's terminal raw, and gives it back.
struct Raw(Option<Termios>);

impl Raw {
    fn of_stdin() -> Raw {
        let Ok(before) = rustix::termios::tcgetattr(rustix::stdio::stdin()) else {
            return Raw(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let set = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        Raw(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no mode.
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Waits for the end of a process.
pub fn wait(child: &Child, signals: &OwnedFd, terminal: Option<&OwnedFd>) -> io::Result<Ended> {
    let _raw = terminal.map(|master| {
        resize(master);
        Raw::of_stdin()
    });
    let mut input_open = terminal.is_some();
    let mut output_open = terminal.is_some();
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if let Some(master) = terminal {
            let on = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(master.as_fd(), on(output_open)));
            fds.push(PollFd::from_borrowed_fd(stdin, on(input_open)));
        }
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        let has = |i: usize| fds.get(i).is_some_and(|f| !f.revents().is_empty());
        let (ended, output, input) = (has(0), output_open && has(2), input_open && has(3));
        if let Some(master) = terminal {
            output_open = output_open && (!output || copy(master, rustix::stdio::stdout()));
            input_open = input_open && (!input || copy(stdin, master));
        }
        while let Some(number) = signal::read(signals)? {
            match number {
                SIGCHLD => {}
                SIGWINCH => terminal.into_iter().for_each(resize),
                // It may have ended just now: then there is nobody to tell.
                other => drop(child.signal(other)),
            }
        }
        if ended {
            if let Some(master) = terminal.filter(|_| output_open) {
                drain(master);
            }
            return child
                .wait(true)?
                .ok_or_else(|| io::Error::other("the process ended and has no status"));
        }
    }
}

/// Copies one piece; false at the end.
fn copy(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buf = [0u8; 8192];
    let n = match rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buf)) {
        Ok(0) => return false,
        Ok(n) => n,
        // A terminal answers so when nobody holds its other side.
        Err(e) => return e == rustix::io::Errno::AGAIN,
    };
    let mut rest = &buf[..n];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(&to, rest)) {
            Ok(n) => rest = &rest[n..],
            Err(_) => return false,
        }
    }
    true
}

/// What the ended process wrote last.
fn drain(master: &OwnedFd) {
    let _ = rustix::io::ioctl_fionbio(master, true);
    let mut left = 256;
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    while left > 0
        && rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
        && fds[0].revents().contains(PollFlags::IN)
        && copy(master, rustix::stdio::stdout())
    {
        left -= 1;
    }
}

/// The size of the caller's terminal, for one that is made for a program of its own.
pub fn size() -> Option<ConsoleSize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok()?;
    Some(ConsoleSize {
        height: size.ws_row,
        width: size.ws_col,
    })
}

/// Gives the container's terminal the size of the caller's.
fn resize(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        // Without a terminal there is no size.
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}
