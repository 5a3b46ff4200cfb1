//! Calling a runtime: its command line, how long it may take, and what it says when it fails.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use biga_sys::process::{self, Child, Command, Ended, Fork, Namespaces};
use biga_sys::{fd, signal};
use biga_wire::config::OciRuntime;
use biga_wire::shim::ErrorCode;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::{Pid, WaitOptions};

use crate::Error;
use crate::error::Context;
use crate::setup::Streams;

/// How long a call may take that makes or starts something: some runtimes boot a kernel.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// How long any other may take.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// Of what a runtime says so many bytes are kept.
const SAID: usize = 1000;
const SIGKILL: i32 = 9;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A runtime as one container is given to it.
#[derive(Debug)]
pub(super) struct Program {
    runtime: OciRuntime,
    /// The container's name.
    id: String,
    /// The bundle; everything else is in there, too.
    dir: PathBuf,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// What is done, for people: "create the container".
    pub what: &'static str,
    /// The verb and its options; the container's name follows.
    pub args: &'a [&'a str],
    /// What follows the name.
    pub rest: &'a [&'a str],
    /// How long it may take.
    pub patience: Duration,
    /// Standard streams that it hands on to what it starts.
    pub streams: Option<&'a Streams>,
    /// Where errors of its own arrive, if they go the way of those streams.
    pub errors: Option<&'a OwnedFd>,
    /// The program that it is to run inside.
    pub program: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A call that starts nothing.
    pub fn plain(what: &'static str, args: &'a [&'a str]) -> Call<'a> {
        Call {
            what,
            args,
            rest: &[],
            patience: SHORT,
            streams: None,
            errors: None,
            program: None,
        }
    }
}

impl Program {
    /// `dir` exists.
    pub fn new(runtime: OciRuntime, id: &str, dir: &Path) -> Program {
        Program {
            runtime,
            id: id.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.runtime.name
    }

    /// A file or directory beside the bundle's configuration.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the runtime keeps what it knows of the container.
    pub fn state(&self) -> PathBuf {
        self.file("state")
    }

    fn patience(&self, call: &Call<'_>) -> Duration {
        self.runtime.patience_ms.map_or(call.patience, Duration::from_millis)
    }

    /// Carries a call out. After a failure nothing that the call started is left.
    pub fn call(&self, call: &Call<'_>) -> Result<(), Error> {
        let log = self.file("log");
        // Of the call before.
        let _ = fs::remove_file(&log);
        let said = rustix::fs::memfd_create("said", MemfdFlags::CLOEXEC).step(|| "make a file in memory".into())?;
        let before = children();
        let why = match self.run(call, &log, &said)? {
            Some(Ended::Code(0)) => return Ok(()),
            ended => ended,
        };
        end_others(&before);
        let patience = self.patience(call);
        let mut words = words(&fs::read_to_string(&log).unwrap_or_default());
        if words.is_empty() {
            words = last(&read(&said));
        }
        if let (true, Some(errors)) = (words.is_empty(), call.errors) {
            words = last(&read_now(errors));
        }
        let how = match why {
            None => format!(
                "it did not answer within {} seconds and was killed",
                patience.as_secs_f32()
            ),
            Some(Ended::Code(code)) => format!("it ended with code {code}"),
            Some(Ended::Signal(signal)) => format!("it was ended by signal {signal}"),
        };
        let said = match (words.is_empty(), why) {
            (true, _) => how,
            (false, None) => format!("{how}; its last words: {words}"),
            (false, _) => words,
        };
        let code = code(&said, call.program);
        let said = match call.program {
            Some(program) if code != ErrorCode::Failed && !said.contains(program) => format!("{program}: {said}"),
            _ => said,
        };
        Err(Error::Runtime {
            runtime: self.runtime.name.clone(),
            verb: call.what,
            code,
            said,
        })
    }

    /// How the runtime ended; `None` if it had to be killed.
    fn run(&self, call: &Call<'_>, log: &Path, said: &OwnedFd) -> Result<Option<Ended>, Error> {
        let what = || format!("start runtime {}", self.runtime.path.display());
        let (state, log) = (self.state(), log.to_owned());
        let text = |p: &Path| p.to_str().map(str::to_owned).ok_or(io::ErrorKind::InvalidInput);
        let (program, state, log) = (
            text(&self.runtime.path).step(what)?,
            text(&state).step(what)?,
            text(&log).step(what)?,
        );
        let global = [&program, "--root", &state, "--log", &log, "--log-format", "json"];
        let id = [self.id.as_str()];
        let args = global.iter().chain(call.args).chain(&id).chain(call.rest);
        let command = Command::new(args.copied(), [PATH]).step(what)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        let streams = match call.streams {
            Some([a, b, c]) => [a, b, c],
            None => [&null, said, said],
        };
        match process::fork(Namespaces::NONE, None).step(what)? {
            Fork::Child => self.become_it(&command, &program, streams),
            Fork::Parent(child) => wait(&child, self.patience(call)).step(what),
        }
    }

    fn become_it(&self, command: &Command, program: &str, streams: [&OwnedFd; 3]) -> ! {
        signal::reset_all();
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let ready = (|| {
            // A shim that is killed meanwhile leaves nobody at work.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            rustix::process::chdir(&self.dir)?;
            rustix::process::setsid()?;
            for (number, stream) in streams.into_iter().enumerate() {
                fd::place(stream.as_fd(), number as i32)?;
            }
            fd::cloexec_from(3)
        })();
        let e = match ready {
            Ok(()) => command.exec(program),
            Err(e) => e,
        };
        // Who called reads this as the runtime's own words.
        let text = format!("cannot execute {program}: {e}\n");
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
        process::exit_now(127)
    }
}

/// Waits for the end of a child, and no longer than this: it is killed then.
fn wait(child: &Child, patience: Duration) -> io::Result<Option<Ended>> {
    if !readable(&child.pidfd, patience)? {
        child.signal(SIGKILL)?;
        crate::workload::end_of(child)?;
        return Ok(None);
    }
    child.wait(false)
}

/// Whether a descriptor becomes readable within this time.
pub(super) fn readable(fd: &OwnedFd, within: Duration) -> io::Result<bool> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Ids of this process's children: what runtimes start becomes one when they are gone.
pub(super) fn children() -> Vec<u32> {
    let text = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// Reaps a child if it ended.
pub(super) fn reap(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Somebody else's by now, or alive: either way there is nothing to do.
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Ends all children but those known before: whose parent failed half-way.
pub(super) fn end_others(before: &[u32]) {
    let until = Instant::now() + SHORT;
    loop {
        let new: Vec<u32> = children().into_iter().filter(|c| !before.contains(c)).collect();
        if new.is_empty() || Instant::now() > until {
            return;
        }
        for pid in new {
            // It cannot be another's: nobody but this process reaps it.
            let _ = process::signal_pid(pid, SIGKILL);
            reap(pid);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The last complaint in a runtime's log; its lines are JSON where it does as it was told.
fn words(log: &str) -> String {
    let complaint = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let bad = matches!(line.get("level")?.as_str()?, "error" | "fatal" | "panic");
        bad.then(|| line.get("msg")?.as_str().map(str::to_owned))?
    };
    match log.lines().rev().find_map(complaint) {
        Some(said) => last(&said),
        None => last(
            log.lines()
                .rev()
                .find(|l| !l.trim().is_empty() && !l.starts_with('{'))
                .unwrap_or(""),
        ),
    }
}

/// The end of a text, as much as is kept.
fn last(text: &str) -> String {
    let text = text.trim();
    let mut from = text.len().saturating_sub(SAID);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

fn read(file: &OwnedFd) -> String {
    let size = rustix::fs::fstat(file).map_or(0, |s| s.st_size as u64);
    let mut buf = [0u8; 4 * SAID];
    let from = size.saturating_sub(buf.len() as u64);
    let n = rustix::io::pread(file, &mut buf, from).unwrap_or(0);
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

/// What lies in a pipe.
fn read_now(pipe: &OwnedFd) -> String {
    let mut buf = [0u8; 4 * SAID];
    let there = readable(pipe, Duration::ZERO).unwrap_or(false);
    let n = if there {
        rustix::io::read(pipe, &mut buf).unwrap_or(0)
    } else {
        0
    };
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

/// What a program can do about it. Runtimes say only in words that there is no such program.
fn code(said: &str, program: Option<&str>) -> ErrorCode {
    let said = said.to_lowercase();
    let any = |of: &[&str]| of.iter().any(|w| said.contains(w));
    let about = |program: &str| said.contains(&program.to_lowercase()) || said.contains("open executable");
    if !program.is_some_and(about) {
        ErrorCode::Failed
    } else if any(&["not found", "no such file or directory"]) {
        ErrorCode::NotFound
    } else if any(&[
        "permission denied",
        "operation not permitted",
        "exec format error",
        "is a directory",
        "cannot be executed",
    ]) {
        ErrorCode::NotExecutable
    } else {
        ErrorCode::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaint_counts() {
        let log = "{\"level\":\"warning\",\"msg\":\"odd\"}\n{\"level\":\"error\",\"msg\":\"first\"}\n\
                   {\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"debug\",\"msg\":\"end\"}\n";
        assert_eq!(words(log), "second");
        assert_eq!(words("{\"level\":\"warning\",\"msg\":\"odd\"}\n"), "");
        assert_eq!(
            words("time=1 level=error msg=\"plain\"\n\n"),
            "time=1 level=error msg=\"plain\""
        );
        assert_eq!(last(&"é".repeat(2 * SAID)).chars().count(), SAID / 2);
    }

    #[test]
    fn missing_programs_are_told_apart() {
        let runc = "runc create failed: unable to start container process: exec: \"nothing\": executable file not found in $PATH";
        assert_eq!(code(runc, Some("nothing")), ErrorCode::NotFound);
        assert_eq!(code(runc, Some("other")), ErrorCode::Failed);
        assert_eq!(
            code("exec: \"/etc\": Permission denied", Some("/etc")),
            ErrorCode::NotExecutable
        );
        assert_eq!(
            code("open executable: Operation not permitted", Some("/etc")),
            ErrorCode::NotExecutable
        );
        assert_eq!(code("mount: no such file or directory", Some("sh")), ErrorCode::Failed);
        assert_eq!(code("it ended with code 1", None), ErrorCode::Failed);
    }
}
