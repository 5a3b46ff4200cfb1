//! `criu restore`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;

/// What goes on, and in what.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The program.
    pub program: &'a Path,
    /// The images.
    pub images: &'a Path,
    /// The root file system: a mount point of this process's mount namespace.
    pub root: &'a Path,
    /// File that the id of the first process is written to. It does not exist.
    pub pid_file: &'a Path,
    /// What was outside, as `--external` wants it: `mnt[key]:/host/path`.
    pub external: &'a [String],
    /// Descriptors that stand for what was outside, by their key: `pipe:[123]`, `file[18:3]`, `net`.
    pub inherit: &'a [(OwnedFd, String)],
    /// More options.
    pub options: &'a [OsString],
}

impl Restore<'_> {
    /// Replaces this process; returns only on failure. The first process becomes a child of this one's parent. What CRIU says goes
    /// into `log`.
    pub fn exec(&self, log: File) -> io::Error {
        for (fd, _) in self.inherit {
            if let Err(e) = rustix::io::fcntl_setfd(fd.as_fd(), FdFlags::empty()) {
                return e.into();
            }
        }
        self.command(log).exec()
    }

    fn command(&self, log: File) -> Command {
        use std::os::fd::AsRawFd;
        let mut command = super::call(self.program, Stdio::from(log));
        command.arg("restore").arg("--images-dir").arg(self.images);
        command.arg("--root").arg(self.root);
        command.arg("--pidfile").arg(self.pid_file);
        command.args(["--restore-detached", "--restore-sibling", "--manage-cgroups=ignore"]);
        for e in self.external {
            command.arg("--external").arg(e);
        }
        for (fd, key) in self.inherit {
            command.arg("--inherit-fd").arg(format!("fd[{}]:{key}", fd.as_raw_fd()));
        }
        command.args(self.options);
        command
    }
}
