//! `criu dump`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What is saved, and how.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The program.
    pub program: &'a Path,
    /// The first process, as this host sees it: it and all its descendants are saved.
    pub pid: u32,
    /// Directory for the images. It exists.
    pub images: &'a Path,
    /// What stays outside, as `--external` wants it: `mnt[/data]:key`, `net[4026532181]:key`, `file[18:3]`.
    pub external: &'a [String],
    /// Let the processes go on.
    pub leave_running: bool,
    /// More options.
    pub options: &'a [OsString],
}

impl Dump<'_> {
    /// Begins it; what it says goes into `log`.
    pub fn spawn(&self, log: File) -> io::Result<Child> {
        self.command(log).spawn()
    }

    fn command(&self, log: File) -> Command {
        let mut command = super::call(self.program, Stdio::from(log));
        command.arg("dump").arg("--tree").arg(self.pid.to_string());
        command.arg("--images-dir").arg(self.images);
        // The group is made anew, with its limits, by whoever makes the container.
        command.arg("--manage-cgroups=ignore");
        for e in self.external {
            command.arg("--external").arg(e);
        }
        if self.leave_running {
            command.arg("--leave-running");
        }
        command.args(self.options);
        command
    }
}
