//! The last steps before exec: limits, user, filter, capabilities; and exec itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use biga_sys::process::Command;
use rustix::fs::{CWD, Mode};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use crate::Error;
use crate::caps::{self, Caps};
use crate::control::{self, Message};
use crate::error::Context;
use crate::labels::Labels;
use crate::seccomp::Filter;
use crate::user::Identity;

/// How a process is confined.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Who it runs as.
    pub identity: Identity,
    /// What it may have at most.
    pub caps: Caps,
    /// System call filter.
    pub filter: Option<Filter>,
    /// No program can raise its rights.
    pub no_new_privileges: bool,
    /// Badness score.
    pub oom_score_adj: Option<i32>,
    /// Limits by name: soft and hard.
    pub rlimits: Vec<(Resource, i64, i64)>,
    /// File mode mask.
    pub umask: u32,
    /// Working directory.
    pub cwd: String,
    /// AppArmor and SELinux.
    pub labels: Labels,
}

/// The kernel's limit of this name, as Docker writes it.
pub fn resource(name: &str) -> Result<Resource, Error> {
    Ok(match name.to_ascii_lowercase().trim_start_matches("rlimit_") {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(Error::Rlimit(name.to_owned())),
    })
}

/// Sets a limit; a hard limit that this process may not raise stays as high as it is.
fn set_limit(what: Resource, soft: i64, hard: i64) -> Result<(), Error> {
    let value = |n: i64| u64::try_from(n).ok();
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let wanted = Rlimit {
        current: value(soft),
        maximum: value(hard),
    };
    match rustix::process::setrlimit(what, wanted) {
        Err(rustix::io::Errno::PERM) => {
            let maximum = least(value(hard), rustix::process::getrlimit(what).maximum);
            let current = least(value(soft), maximum);
            rustix::process::setrlimit(what, Rlimit { current, maximum })
        }
        other => other,
    }
    .step(|| format!("set resource limit {what:?}"))
}

/// Sets how gladly the kernel kills this process for memory.
pub fn set_oom_score(score: i32) -> Result<(), Error> {
    // Below the host's own score needs a capability that hosts may lack: the score then stays.
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(e).step(|| "set the out-of-memory score".into()),
        _ => Ok(()),
    }
}

/// Raises hard limits, while this process has the rights to; what it may not, stays.
pub fn raise_hard_limits(limits: &[(Resource, i64, i64)]) {
    for (what, _, hard) in limits {
        let now = rustix::process::getrlimit(*what);
        let wanted = u64::try_from(*hard).ok();
        let raises = now.maximum.is_some_and(|have| wanted.is_none_or(|w| w > have));
        if raises {
            let higher = Rlimit {
                current: now.current,
                maximum: wanted,
            };
            // Applied again, and clamped, when the program is confined.
            let _ = rustix::process::setrlimit(*what, higher);
        }
    }
}

impl Confinement {
    /// Applies all of it to this process, for good. The shim is told over the socket of a filter whose listener it must take over.
    pub fn apply(&self, socket: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        if let Some(score) = self.oom_score_adj {
            set_oom_score(score)?;
        }
        for (what, soft, hard) in &self.rlimits {
            set_limit(*what, *soft, *hard)?;
        }
        change_directory(&self.cwd)?;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).step(|| "forbid new privileges".into())?;
        }
        // The filter needs CAP_SYS_ADMIN (without no_new_privs), so it comes before capabilities go; what follows is allowed by it.
        if let Some(filter) = &self.filter {
            install(filter, socket)?;
        }
        self.change_user()?;
        self.labels.apply()?;
        // Dies with its shim. Changing the user undid it, so it comes last.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .step(|| "tie the process to its shim".into())
    }

    fn change_user(&self) -> Result<(), Error> {
        let who = &self.identity;
        let groups: Vec<Gid> = who.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
        caps::bound(self.caps)?;
        rustix::thread::set_thread_groups(&groups).step(|| "set supplementary groups".into())?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).step(|| format!("become group {}", who.gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step(|| format!("become user {}", who.uid))?;
        // Leaving user 0 cleared the capabilities already; setting would be refused.
        if who.uid == 0 { caps::apply(self.caps) } else { Ok(()) }
    }
}

fn install(filter: &Filter, socket: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let what = || "install the system call filter".into();
    if filter.listener.is_none() {
        return biga_sys::seccomp::install(&filter.code, filter.flags).step(what);
    }
    let Some(socket) = socket else {
        return Err(Error::State(
            "nobody can take over the listener of the system call filter",
        ));
    };
    let listener = biga_sys::seccomp::install_listening(&filter.code, filter.flags).step(what)?;
    // Any call from here on may wait for an answer, and nobody listens before this one was heard.
    let what = || "speak to the shim".into();
    control::send(socket, &Message::Listener(listener.as_raw_fd()), None).step(what)?;
    match control::receive_plain(socket).step(what)? {
        Some(Message::Listener(_)) => Ok(()),
        _ => Err(Error::State("the shim went away")),
    }
}

/// Enters the working directory.
fn change_directory(path: &str) -> Result<(), Error> {
    let path = if path.is_empty() { "/" } else { path };
    if !path.starts_with('/') {
        return Err(Error::Field("the working directory", path.to_owned()));
    }
    let what = || format!("enter working directory {path}");
    rustix::process::chdir(path).step(what)?;
    // A path through somebody's open directory may lie outside the root: the kernel then gives no absolute path.
    let real = rustix::process::getcwd(Vec::new()).step(what)?;
    if real.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::Field(
            "the working directory",
            format!("{path} is outside the container"),
        ))
    }
}

/// Replaces this process by a program, looked up in PATH as a shell does. Returns only on failure.
pub fn exec(args: &[String], env: &[String]) -> Error {
    let Some(program) = args.first().filter(|p| !p.is_empty()) else {
        return Error::Field("the command", "it is empty".into());
    };
    let failure = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound(program.clone()),
        _ => Error::NotExecutable {
            program: program.clone(),
            source: e,
        },
    };
    let command = match Command::new(args.iter().map(String::as_str), env.iter().map(String::as_str)) {
        Ok(c) => c,
        Err(e) => return Error::Field("the command or environment", e.to_string()),
    };
    if program.contains('/') {
        let e = command.exec(program);
        // The program is there, then what is missing is its interpreter.
        if e.kind() == io::ErrorKind::NotFound && is_file(program) {
            return Error::NotExecutable {
                program: program.clone(),
                source: e,
            };
        }
        return failure(e);
    }
    let path = env
        .iter()
        .rev()
        .find_map(|v| v.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for dir in path.split(':') {
        let candidate = format!("{}/{program}", if dir.is_empty() { "." } else { dir });
        if !is_file(&candidate) {
            continue;
        }
        let e = command.exec(&candidate);
        // Another directory may have one that can be executed.
        last = match e.kind() {
            io::ErrorKind::NotFound => {
                return Error::NotExecutable {
                    program: program.clone(),
                    source: e,
                };
            }
            _ => e,
        };
    }
    failure(last)
}

/// Where programs are looked for without a PATH.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_file(path: &str) -> bool {
    let kind = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty());
    kind.is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::RegularFile)
}

/// Lets the process's user reopen its own standard streams by `/dev/stdout` and the like.
pub fn own_streams(identity: &Identity) {
    if identity.uid == 0 {
        return;
    }
    let uid = rustix::fs::Uid::from_raw(identity.uid);
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    for fd in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        // /dev/null stays root's; a stream that cannot change hands only cannot be reopened.
        let null = rustix::fs::makedev(1, 3);
        if rustix::fs::fstat(fd).is_ok_and(|s| s.st_rdev != null) {
            let _ = rustix::fs::fchown(fd, Some(uid), None);
        }
    }
}
