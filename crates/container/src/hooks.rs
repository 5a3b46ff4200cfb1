//! Hooks: programs that run at points of a container's life and read its state from standard input.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use biga_sys::process::{self, Command, Ended, Fork, Namespaces, exit_now};
use biga_sys::{fd, signal};
use biga_wire::config::{Container, Hook as Wish, HookStage};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use serde_json::json;

use crate::Error;
use crate::error::Context;
use crate::oci_spec::{Hook, Hooks};

const SIGPIPE: i32 = 13;
const SIGKILL: i32 = 9;

/// What hooks of one of our own containers are told of it.
#[derive(Debug, Default)]
pub(crate) struct Told(String);

impl Told {
    /// To be called while the host's `/proc` can still be seen. `run_dir` gets a `config.json` that says where the root is, for
    /// hooks that work in it.
    pub fn new(container: &Container, run_dir: &Path, root: &Path) -> Result<Told, Error> {
        if container.hooks.is_empty() {
            return Ok(Told::default());
        }
        if container.namespaces.user.is_some() {
            let why = "they need the host's user ids (--userns host)";
            return Err(Error::Field("the container's hooks", why.into()));
        }
        let config = json!({"ociVersion": VERSION, "root": {"path": root}});
        let path = run_dir.join("config.json");
        std::fs::write(&path, config.to_string()).step(|| format!("write {}", path.display()))?;
        // As the host counts, whichever process ids this one has of its own.
        let own = std::fs::read_link("/proc/self").step(|| "read /proc/self".into())?;
        let pid: u32 = own.to_string_lossy().parse().unwrap_or_default();
        let id = run_dir.file_name().unwrap_or_default().to_string_lossy();
        let state = json!({"ociVersion": VERSION, "id": id, "status": "creating", "pid": pid, "bundle": run_dir});
        Ok(Told(state.to_string()))
    }

    /// Runs all hooks of a stage.
    pub fn run(&self, container: &Container, stage: HookStage) -> Result<(), Error> {
        let name = match stage {
            HookStage::CreateContainer => "createContainer",
            HookStage::StartContainer => "startContainer",
        };
        let wanted = container.hooks.iter().filter(|h| h.stage == stage);
        wanted.map(of).try_for_each(|h| one(&h, name, self.0.as_bytes()))
    }
}

/// Of the runtime specification that states follow.
const VERSION: &str = "1.0.2";

fn of(wish: &Wish) -> Hook {
    Hook {
        path: wish.path.clone(),
        args: wish.args.clone(),
        env: wish.env.clone(),
        timeout: wish.timeout,
    }
}

/// The same for another runtime.
pub(crate) fn document(container: &Container) -> Hooks {
    let at = |stage| container.hooks.iter().filter(|h| h.stage == stage).map(of).collect();
    Hooks {
        create_container: at(HookStage::CreateContainer),
        start_container: at(HookStage::StartContainer),
        ..Hooks::default()
    }
}

/// Runs a hook with `document` as its standard input.
pub fn one(hook: &Hook, stage: &'static str, document: &[u8]) -> Result<(), Error> {
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

fn execute(command: &Command, path: &str, input: &OwnedFd, output: &OwnedFd) -> io::Error {
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
            tv_sec: seconds.max(0),
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
