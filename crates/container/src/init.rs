//! A small PID 1 for programs that are not made to be one: passes signals on and reaps orphans.

use std::os::fd::{AsFd, OwnedFd};

use biga_sys::process::{self, Child, Fork, Namespaces, exit_now};
use biga_sys::signal;
use rustix::event::{PollFd, PollFlags};

use crate::confine::{self, Confinement};
use crate::control;
use crate::error::{Context, Error};
use crate::setup::{Program, launch};

/// Exit code when it cannot go on.
const FAILED: i32 = 125;

/// Runs the program in a child of this process, which becomes the init.
pub(crate) fn run(program: &Program, confinement: &Confinement, socket: &OwnedFd) -> ! {
    // Blocked before the fork, so that none is lost between; the child resets them.
    let ready = signal::descriptor(&passed_on()).and_then(|fd| Ok((fd, process::fork(Namespaces::NONE, None)?)));
    let (signals, child) = match ready {
        Ok((fd, Fork::Parent(child))) => (fd, child),
        Ok((_, Fork::Child)) => {
            signal::reset_all();
            own_group();
            let e = launch(program, confinement, socket);
            control::fail(socket, &e);
            exit_now(FAILED)
        }
        Err(source) => {
            let e = Error::Step {
                what: "run the program under an init".into(),
                source,
            };
            control::fail(socket, &e);
            exit_now(FAILED)
        }
    };
    // From here on the socket must be the child's alone: its end says that the program runs.
    if biga_sys::fd::replace_by_null(socket.as_fd()).is_err() || confinement.apply(None).is_err() {
        exit_now(FAILED);
    }
    watch(&signals, &child)
}

const SIGILL: i32 = 4;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGCHLD: i32 = 17;
const SIGSYS: i32 = 31;

/// The argument by which the shim's program is told to be such an init: where another runtime makes the container, that starts it as
/// process 1. What follows is the program and its arguments.
pub const INIT: &str = "--init";

/// Runs a program in a child of this process, which becomes the init. Returns only if that cannot be done.
pub fn as_program(args: &[String]) -> Error {
    let env: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
        .collect();
    let ready = signal::descriptor(&passed_on()).and_then(|fd| Ok((fd, process::fork(Namespaces::NONE, None)?)));
    match ready.step(|| "run the program under an init".into()) {
        Ok((signals, Fork::Parent(child))) => watch(&signals, &child),
        Ok((_, Fork::Child)) => {
            signal::reset_all();
            own_group();
            confine::exec(args, &env)
        }
        Err(e) => e,
    }
}

/// Signals that are meant for the program.
fn passed_on() -> Vec<i32> {
    let own = [9, 19, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS];
    (1..=signal::MAX).filter(|s| !own.contains(s)).collect()
}

/// Puts the program into a process group of its own in the foreground, so that a key press does not signal it twice.
fn own_group() {
    // Without a terminal there is no foreground, which is fine.
    if rustix::process::setpgid(None, None).is_ok() && signal::ignore(22).is_ok() {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
        signal::reset_all();
    }
}

fn watch(signals: &OwnedFd, child: &Child) -> ! {
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        // An interrupted wait is simply repeated.
        let _ = rustix::event::poll(&mut fds, None);
        while let Ok(Some(number)) = signal::read(signals) {
            if number != SIGCHLD {
                // It may have ended just now: then there is nobody to tell.
                let _ = child.signal(number);
            }
        }
        while let Ok(Some((pid, ended))) = process::reap_any() {
            if pid == child.pid {
                exit_now(ended.code());
            }
        }
    }
}
