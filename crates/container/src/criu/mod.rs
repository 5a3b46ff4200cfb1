//! Checkpoints of containers by CRIU (<https://criu.org>): its program is run, nothing of it is linked.
//!
//! ```text
//!  dump:    mountinfo, namespaces, streams ─► what is not the container's own is named "external" ─► criu dump
//!  restore: a process in mounts of its own: control groups ─ root ─ what was external ─► criu restore ─► its child runs on
//! ```
//!
//! - [`program`], [`Program`]: is it there, and does it work here
//! - [`mountinfo`]: the mounts a process sees
//! - [`dump`], [`restore`]: CRIU's command lines
//! - [`reason`]: what CRIU's log says went wrong
//!
//! CRIU saves processes and memory, and the content of file systems in memory. The root file system, binds and volumes, the network
//! and control groups are whoever's makes the container: they are there again before it goes on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub mod dump;
pub mod mountinfo;
pub mod restore;

pub use dump::Dump;
pub use restore::Restore;

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error(
        "CRIU is not installed: checkpoints need its program `criu`, version 4 or newer on current kernels (Debian 13 has it; `biga doctor` tells whether one works here)"
    )]
    Missing,
    /// It was run and failed.
    #[error("CRIU cannot {what}: {reason}{}", log_hint(.log))]
    Failed {
        /// "save it" or "restore it".
        what: &'static str,
        /// What its log says.
        reason: String,
        /// The whole log, where it is kept.
        log: Option<PathBuf>,
    },
}

fn log_hint(log: &Option<PathBuf>) -> String {
    log.as_ref()
        .map_or_else(String::new, |l| format!(" (its log: {})", l.display()))
}

/// Where programs of administrators are, beside those of `PATH`.
const MORE: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Most of a log that is looked at, from its end.
const MAX_LOG: usize = 1 << 20;
/// Longest reason.
const MAX_REASON: usize = 700;
/// Most lines of a log that are shown.
const MAX_LINES: usize = 3;

/// The program of this name in `PATH`, or where administrators' programs are.
pub fn program(name: &str) -> Result<PathBuf, Error> {
    if name.contains('/') {
        return Some(PathBuf::from(name))
            .filter(|p| executable(p))
            .ok_or(Error::Missing);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(MORE.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|p| p.is_absolute() && executable(p))
        .ok_or(Error::Missing)
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// A call of the program that finds its helpers (`tar`, `ip`) and speaks to nobody; its log goes where `log` is.
fn call(program: &Path, log: Stdio) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().map(PathBuf::from));
    // Names with a colon in them were no paths before either.
    let path = std::env::join_paths(all).unwrap_or(path);
    command
        .env_clear()
        .env("PATH", path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
}

/// What a log says went wrong: its first errors that matter, without times and places in CRIU's source.
pub fn reason(log: &[u8]) -> String {
    let tail = &log[log.len().saturating_sub(MAX_LOG)..];
    let text = String::from_utf8_lossy(tail);
    let errors: Vec<&str> = text.lines().filter_map(error).collect();
    let mut said = String::new();
    for line in errors.iter().take(MAX_LINES) {
        if !said.is_empty() {
            said.push_str("; ");
        }
        said.extend(line.chars().filter(|c| !c.is_control()));
    }
    if said.is_empty() {
        // It said nothing in its own form: the dynamic linker, say.
        let last = text.lines().rev().find(|l| !l.trim().is_empty());
        said = last
            .unwrap_or("it does not say why")
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
    }
    said.truncate(said.floor_char_boundary(MAX_REASON));
    said
}

/// The message of a line `(00.123) 7: Error (criu/file.c:12): message`.
fn error(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Error (")?;
    let (_, message) = rest.split_once("): ")?;
    // Said on every host where this process may not raise limits, and at the end of everything.
    let idle = [
        "rlimit: Can't setup",
        "Dumping FAILED",
        "Restoring FAILED",
        "tun: Unable to create",
        "exited, status=",
    ];
    (!idle.iter().any(|i| message.contains(i))).then(|| message.trim())
}

/// Whether `criu check` finds what it needs in this kernel.
pub fn check(program: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Failed {
        what: "work on this host",
        reason,
        log: None,
    };
    let out = call(program, Stdio::piped()).arg("check").output();
    let out = out.map_err(|e| failed(format!("{} cannot be run: {e}", program.display())))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(failed(reason(&out.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_errors_that_matter_are_told() {
        let log = b"(00.058616) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
            (00.077880) Error (criu/files-reg.c:1790): Can't lookup mount=27 for fd=1 path=/tmp/o.txt\n\
            (00.077900)      1: Error (criu/cr-dump.c:1681): Dump files (pid: 24366) failed with -1\n\
            (00.148870) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        assert_eq!(
            reason(log),
            "Can't lookup mount=27 for fd=1 path=/tmp/o.txt; Dump files (pid: 24366) failed with -1"
        );
        assert_eq!(reason(b"x\ncriu: not found\n\n"), "criu: not found");
        assert_eq!(reason(b""), "it does not say why");
        let long = format!("Error (a.c:1): {}\x1b[2J", "\u{e4}".repeat(2000));
        assert!(reason(long.as_bytes()).len() <= MAX_REASON);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let none = program("/nonexistent/criu").unwrap_err().to_string();
        assert!(none.contains("CRIU is not installed"), "{none}");
        assert!(program("sh").unwrap().is_absolute());
    }

    #[test]
    fn one_that_does_not_work_says_why() {
        let failed = check(Path::new("/bin/false")).unwrap_err().to_string();
        assert!(failed.contains("CRIU cannot work on this host"), "{failed}");
    }
}
