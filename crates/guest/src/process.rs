//! Starts a process of the image.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use biga_container::caps::Caps;
use biga_container::confine::{self, Confinement};
use biga_container::user;
use biga_sys::process::{Child, Fork, Namespaces};
use biga_wire::config::Process;
use biga_wire::guest::Setup;
use biga_wire::shim::{ErrorCode, ExecSpec};
use biga_wire::workload::Fault;
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde::{Deserialize, Serialize};

/// A running process and our ends of its streams, which do not block.
#[derive(Debug)]
pub struct Running {
    /// It.
    pub child: Child,
    /// Its input; a terminal's is its output too.
    pub stdin: Option<OwnedFd>,
    /// Its output, or its terminal.
    pub stdout: OwnedFd,
    /// Its error output.
    pub stderr: Option<OwnedFd>,
    /// Whether `stdout` is a terminal.
    pub tty: bool,
}

/// What is started.
#[derive(Debug)]
pub struct Plan {
    process: Process,
    confinement: Confinement,
    window: Option<(u16, u16)>,
}

/// Child's word when it cannot execute the program.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    code: ErrorCode,
    message: String,
}

impl Plan {
    /// The main process.
    pub fn main(setup: &Setup) -> Result<Plan, Fault> {
        Plan::new(setup, setup.process.clone(), setup.privileged, None)
    }

    /// A further process: the main one's, where the wish leaves something open.
    pub fn exec(setup: &Setup, spec: &ExecSpec) -> Result<Plan, Fault> {
        let main = &setup.process;
        let mut env = main.env.clone();
        for var in &spec.env {
            let name = var.split('=').next().unwrap_or(var);
            env.retain(|v| v.split('=').next() != Some(name));
            env.push(var.clone());
        }
        let process = Process {
            args: spec.args.clone(),
            env,
            cwd: spec.cwd.clone().unwrap_or_else(|| main.cwd.clone()),
            user: spec.user.clone().unwrap_or_else(|| main.user.clone()),
            tty: spec.tty,
            stdin: spec.stdin,
            ..main.clone()
        };
        Plan::new(setup, process, setup.privileged || spec.privileged, spec.window)
    }

    fn new(setup: &Setup, mut process: Process, privileged: bool, window: Option<(u16, u16)>) -> Result<Plan, Fault> {
        let read = |path| {
            fs::read(path)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default()
        };
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        let identity = user::resolve(&process.user, &process.additional_groups, &passwd, &group)?;
        let wanted = match privileged {
            true => Caps::ALL,
            false => Caps::parse(setup.capabilities.iter().map(String::as_str))?,
        };
        let mut rlimits = Vec::new();
        for (name, (soft, hard)) in &process.rlimits {
            rlimits.push((confine::resource(name)?, *soft, *hard));
        }
        let mut default = |name: &str, value: &str| {
            if !process.env.iter().any(|v| v.split('=').next() == Some(name)) {
                process.env.push(format!("{name}={value}"));
            }
        };
        default("HOME", &identity.home);
        if process.tty {
            default("TERM", "xterm");
        }
        let confinement = Confinement {
            identity,
            // An older kernel of the guest may know fewer.
            caps: wanted.and(biga_container::caps::available()?),
            filter: None,
            labels: Default::default(),
            no_new_privileges: setup.no_new_privileges,
            oom_score_adj: None,
            rlimits,
            umask: process.umask.unwrap_or(0o022),
            cwd: process.cwd.clone(),
        };
        Ok(Plan {
            process,
            confinement,
            window,
        })
    }

    /// Starts it; returns when it was executed.
    pub fn start(self) -> Result<Running, Fault> {
        let failed = |e: std::io::Error| Fault::failed(format!("cannot start a process: {e}"));
        let (ours, theirs) = self.streams().map_err(failed)?;
        let (report, word) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let child = match biga_sys::process::fork(Namespaces::NONE, None).map_err(failed)? {
            Fork::Child => self.become_it(theirs, word),
            Fork::Parent(child) => child,
        };
        drop((theirs, word));
        let mut text = Vec::new();
        // Ends when the program was executed (the kernel closes the pipe) or the child gave up.
        File::from(report).read_to_end(&mut text).map_err(failed)?;
        if !text.is_empty() {
            // Its word is enough; how it exited adds nothing.
            let _ = child.wait(true);
            return Err(match serde_json::from_slice::<Failure>(&text) {
                Ok(failure) => Fault::new(failure.code, failure.message),
                Err(_) => Fault::failed("a process could not be started"),
            });
        }
        let (stdin, stdout, stderr) = ours;
        Ok(Running {
            child,
            stdin,
            stdout,
            stderr,
            tty: self.process.tty,
        })
    }

    fn streams(&self) -> std::io::Result<(Ours, [OwnedFd; 3])> {
        if self.process.tty {
            let (master, slave) = self.terminal()?;
            let theirs = [slave.try_clone()?, slave.try_clone()?, slave];
            return Ok(((Some(master.try_clone()?), master, None), theirs));
        }
        pipes(self.process.stdin)
    }

    fn terminal(&self) -> std::io::Result<(OwnedFd, OwnedFd)> {
        let master = rustix::fs::open(
            "/dev/pts/ptmx",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some((rows, cols)) = self.window {
            set_window(&master, rows, cols)?;
        }
        let owner = rustix::fs::Uid::from_raw(self.confinement.identity.uid);
        rustix::fs::fchown(&slave, Some(owner), None)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok((master, slave))
    }

    /// In the child: never returns.
    fn become_it(&self, theirs: [OwnedFd; 3], word: OwnedFd) -> ! {
        let failure = match self.confine(&theirs) {
            Ok(()) => confine::exec(&self.process.args, &self.process.env).into(),
            Err(fault) => fault,
        };
        let failure = Failure {
            code: failure.code,
            message: failure.message,
        };
        // Nobody is left to hear of a pipe that fails.
        let _ = File::from(word).write_all(&serde_json::to_vec(&failure).unwrap_or_default());
        biga_sys::process::exit_now(127)
    }

    fn confine(&self, theirs: &[OwnedFd; 3]) -> Result<(), Fault> {
        let failed = |e: std::io::Error| Fault::failed(format!("cannot set up a process: {e}"));
        biga_sys::signal::reset_all();
        rustix::process::setsid().map_err(|e| failed(e.into()))?;
        if self.process.tty {
            rustix::process::ioctl_tiocsctty(&theirs[0]).map_err(|e| failed(e.into()))?;
        }
        for (number, fd) in (0..).zip(theirs) {
            biga_sys::fd::place(fd.as_fd(), number).map_err(failed)?;
        }
        biga_sys::fd::cloexec_from(3).map_err(failed)?;
        if !self.process.tty {
            confine::own_streams(&self.confinement.identity);
        }
        Ok(self.confinement.apply(None)?)
    }
}

/// Our ends of streams: input, output, error output.
pub type Ours = (Option<OwnedFd>, OwnedFd, Option<OwnedFd>);

/// Pipes for a process without a terminal: our ends, which do not block, and its own.
pub fn pipes(stdin: bool) -> std::io::Result<(Ours, [OwnedFd; 3])> {
    let near = |fd: &OwnedFd| rustix::io::ioctl_fionbio(fd, true);
    let (out_r, out_w) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (err_r, err_w) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    near(&out_r)?;
    near(&err_r)?;
    let (stdin, input) = match stdin {
        true => {
            let (r, w) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            near(&w)?;
            (Some(w), r)
        }
        false => (None, File::open("/dev/null")?.into()),
    };
    Ok(((stdin, out_r, Some(err_r)), [input, out_w, err_w]))
}

/// Sets a terminal's size.
pub fn set_window(terminal: &OwnedFd, rows: u16, cols: u16) -> std::io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
