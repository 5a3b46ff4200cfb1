//! Child processes of a workload, with descriptors handed over.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

/// A child process and a descriptor that becomes readable when it ends.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pidfd: OwnedFd,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `program` in a process group of its own, without input; `hand_over` stay open in it under their numbers.
    /// What it writes on standard error goes to `stderr`.
    pub fn spawn<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
        hand_over: &[OwnedFd],
        stderr: OwnedFd,
    ) -> io::Result<Daemon> {
        for fd in hand_over {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        let stdout = stderr.try_clone()?;
        let spawned = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .current_dir("/")
            .process_group(0)
            .spawn();
        for fd in hand_over {
            rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        let mut child = spawned?;
        match pidfd(&child) {
            Ok(pidfd) => Ok(Daemon {
                child,
                pidfd,
                ended: None,
            }),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// Like [`Daemon::spawn`], but the program runs without capabilities, cannot gain any, and is killed when the thread that
    /// started it ends. `setpriv` of util-linux arranges it; where that is missing the program runs as it is.
    pub fn spawn_confined(
        program: &Path,
        args: impl IntoIterator<Item = String>,
        hand_over: &[OwnedFd],
        stderr: OwnedFd,
    ) -> io::Result<Daemon> {
        let confine = ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new);
        let Some(setpriv) = confine.into_iter().find(|p| p.exists()) else {
            return Daemon::spawn(program, args, hand_over, stderr);
        };
        let options = [
            "--pdeathsig=KILL",
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--",
        ];
        let mut line: Vec<String> = options.map(str::to_owned).to_vec();
        line.push(program.to_string_lossy().into_owned());
        line.extend(args);
        Daemon::spawn(setpriv, line, hand_over, stderr)
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless it ended.
    pub fn kill(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may end at this moment; that is what was wanted.
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Whether it ended, and how. Does not wait.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = match self.child.try_wait() {
                Ok(status) => status,
                // Somebody else took its status: it did end.
                Err(_) => Some(ExitStatus::from_raw(0)),
            };
        }
        self.ended
    }

    /// Kills it and waits for its end.
    pub fn end(&mut self) {
        if self.try_wait().is_none() {
            self.kill(Signal::KILL);
            self.ended = Some(self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(9)));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsFd for Daemon {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Numbers of descriptors, for a command line.
pub fn number(fd: &OwnedFd) -> i32 {
    fd.as_raw_fd()
}

/// Why a QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not started.
    #[error("cannot start {program}; is QEMU installed?")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An unknown answer.
    #[error("{program} --version answered {answer:?}, in which there is no version")]
    Version {
        /// The program.
        program: String,
        /// Its words.
        answer: String,
    },
}

/// Version of a QEMU: major, minor.
pub fn version(qemu: &Path) -> Result<(u32, u32), Error> {
    let program = qemu.display().to_string();
    let out = Command::new(qemu).arg("--version").stdin(Stdio::null()).output();
    let out = out.map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    let answer = String::from_utf8_lossy(&out.stdout);
    parse_version(&answer).ok_or_else(|| Error::Version {
        program,
        answer: answer.chars().take(200).collect(),
    })
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split("version ").nth(1)?;
    let mut parts = rest.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(parse_version(text), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(parse_version("nonsense"), None);
    }
}
