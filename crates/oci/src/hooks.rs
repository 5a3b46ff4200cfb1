//! Hooks: programs that run at points of a container's life and read its state from standard input.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use biga_sys::process::{self, Command, Ended, Fork, Namespaces, exit_now};
use biga_sys::{fd, signal};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;

use crate::error::{Error, Step};
use crate::spec::Hook;
use crate::state::State;

/// Runs hooks one after the other; the first that fails ends it.
pub fn run(hooks: &[Hook], stage: &'static str, state: &State, status: &str) -> Result<(), Error> {
    if hooks.is_empty() {
        return Ok(());
    }
    let document = state.document(status).to_string();
    hooks.iter().try_for_each(|h| one(h, stage, document.as_bytes()))
}

fn one(hook: &Hook, stage: &'static str, document: &[u8]) -> Result<(), Error> {
    let failed = |why: String| Error::Hook {
        path: hook.path.clone(),
        stage,
        why,
    };
    let name = [hook.path.clone()];
    let args: &[String] = if hook.args.is_empty() { &name } else { &hook.args };
    let command = Command::new(args.iter().map(String::as_str), hook.env.iter().map(String::as_str))
        .map_err(|e| failed(e.to_string()))?;
    let what = || format!("run hook {}", hook.path);
    let (input, give) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step(what)?;
    let (said, output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step(what)?;
    let child = match process::fork(Namespaces::NONE, None).step(what)? {
        Fork::Child => {
            let e = execute(&command, &hook.path, &input, &output);
            // What was said here is the reason of the failure.
            let _ = rustix::io::write(&output, e.to_string().as_bytes());
            exit_now(127)
        }
        Fork::Parent(child) => child,
    };
    drop((input, output));
    // The state is smaller than a pipe. A hook that does not read it is no failure.
    let _ = signal::ignore(SIGPIPE);
    let _ = rustix::io::write(&give, document);
    drop(give);
    let ended = wait(&child, hook.timeout).step(what)?;
    match ended {
        Some(Ended::Code(0)) => Ok(()),
        Some(Ended::Code(n)) => Err(failed(format!("it ended with {n}{}", words(&said)))),
        Some(Ended::Signal(n)) => Err(failed(format!("signal {n} ended it{}", words(&said)))),
        None => Err(failed(format!(
            "it took longer than {} seconds",
            hook.timeout.unwrap_or_default()
        ))),
    }
}

const SIGPIPE: i32 = 13;
const SIGKILL: i32 = 9;

fn execute(command: &Command, path: &str, input: &OwnedFd, output: &OwnedFd) -> io::Error {
    use std::os::fd::AsFd;
    let placed = fd::place(input.as_fd(), 0)
        .and_then(|()| fd::place(output.as_fd(), 1))
        .and_then(|()| fd::place(output.as_fd(), 2))
        .and_then(|()| fd::cloexec_from(3));
    signal::reset_all();
    match placed {
        Ok(()) => command.exec(path),
        Err(e) => e,
    }
}

/// Waits for the end; `None` when it took too long and was killed.
fn wait(child: &process::Child, timeout: Option<i64>) -> io::Result<Option<Ended>> {
    if let Some(seconds) = timeout {
        let time = Timespec {
            tv_sec: Duration::from_secs(seconds.max(0) as u64).as_secs() as i64,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&child.pidfd, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&time)))? == 0 {
            child.signal(SIGKILL)?;
            child.wait(true)?;
            return Ok(None);
        }
    }
    child.wait(true)
}

/// The end of what it wrote.
fn words(said: &OwnedFd) -> String {
    const MAX: usize = 1000;
    let _ = rustix::io::ioctl_fionbio(said, true);
    let mut buf = vec![0u8; 16 << 10];
    let n = rustix::io::read(said, &mut buf[..]).unwrap_or(0);
    let text = String::from_utf8_lossy(&buf[..n]);
    let text = text.trim();
    let start = text.floor_char_boundary(text.len().saturating_sub(MAX));
    if text.is_empty() {
        String::new()
    } else {
        format!(": {}", &text[start..])
    }
}
