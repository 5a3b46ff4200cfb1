//! A small shim: the loop that a workload needs, and a memory of all it said.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use biga_wire::config::Limits;
use biga_wire::shim::{Event, ExecSpec, Exit, Stats};
use biga_wire::workload::{FIRST_EXEC, Fault, Host, Interest, MAIN, Output, StreamId, Workload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(150);

/// What was heard of one stream.
#[derive(Debug, Default)]
pub struct Heard {
    pub started: Option<Result<u32, Fault>>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Option<Exit>,
    pub input_room: bool,
    /// Output this stream's client has not taken away; bounded when set.
    pub bound: Option<usize>,
}

impl Heard {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A watched descriptor: a copy, so that no borrowed one is kept.
struct Watched {
    copy: OwnedFd,
    token: u32,
    interest: Interest,
}

#[derive(Default)]
pub struct TestHost {
    watched: BTreeMap<RawFd, Watched>,
    timers: BTreeMap<u32, Instant>,
    pub streams: BTreeMap<StreamId, Heard>,
    pub events: Vec<Event>,
    pub accelerator: String,
    pub in_group: Vec<u32>,
}

impl Host for TestHost {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        let copy = fd.try_clone_to_owned()?;
        self.watched.insert(fd.as_raw_fd(), Watched { copy, token, interest });
        Ok(())
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        assert!(
            self.watched.remove(&fd.as_raw_fd()).is_some(),
            "unwatched what was not watched"
        );
    }

    fn timer(&mut self, token: u32, after: Option<Duration>) {
        match after {
            Some(after) => self.timers.insert(token, Instant::now() + after),
            None => self.timers.remove(&token),
        };
    }

    fn started(&mut self, stream: StreamId, result: Result<u32, Fault>) {
        let heard = self.streams.entry(stream).or_default();
        assert!(heard.started.is_none(), "stream {stream} started twice");
        heard.started = Some(result);
    }

    fn room(&self, stream: StreamId) -> usize {
        let heard = self.streams.get(&stream);
        match heard.and_then(|h| h.bound) {
            Some(bound) => bound.saturating_sub(heard.map_or(0, |h| h.stdout.len() + h.stderr.len())),
            None => usize::MAX,
        }
    }

    fn output(&mut self, stream: StreamId, output: Output, bytes: &[u8]) {
        let heard = self.streams.entry(stream).or_default();
        assert!(heard.exit.is_none(), "output of stream {stream} after its end");
        match output {
            Output::Stdout => heard.stdout.extend_from_slice(bytes),
            Output::Stderr => heard.stderr.extend_from_slice(bytes),
        }
    }

    fn input_room(&mut self, stream: StreamId) {
        self.streams.entry(stream).or_default().input_room = true;
    }

    fn exited(&mut self, stream: StreamId, exit: Exit) {
        let heard = self.streams.entry(stream).or_default();
        assert!(heard.exit.is_none(), "stream {stream} ended twice");
        assert!(
            matches!(heard.started, Some(Ok(_))),
            "stream {stream} ended without a start"
        );
        heard.exit = Some(exit);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn accelerator(&mut self, name: &str) {
        self.accelerator = name.to_owned();
    }

    fn cgroup_add(&mut self, pid: u32) -> io::Result<()> {
        self.in_group.push(pid);
        Ok(())
    }

    fn cgroup_limits(&mut self, _limits: &Limits) -> io::Result<()> {
        Ok(())
    }

    fn cgroup_stats(&mut self) -> Stats {
        Stats::default()
    }
}

/// A workload and its loop. Dropping it deletes the workload.
pub struct Shim {
    pub workload: Box<dyn Workload>,
    pub host: TestHost,
    next: StreamId,
}

impl Shim {
    pub fn new(workload: impl Workload + 'static) -> Shim {
        Shim {
            workload: Box::new(workload),
            host: TestHost::default(),
            next: FIRST_EXEC,
        }
    }

    /// Creates and starts; returns when the entrypoint was executed.
    pub fn boot(workload: impl Workload + 'static) -> Shim {
        let mut shim = Shim::new(workload);
        shim.workload.create(&mut shim.host).unwrap();
        shim.workload.start(&mut shim.host).unwrap();
        shim.until("the start", |host| host.streams.get(&MAIN)?.started.clone())
            .unwrap();
        shim
    }

    /// Runs the loop until `found` finds something.
    pub fn until<T>(&mut self, what: &str, mut found: impl FnMut(&TestHost) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(&self.host) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} came:\n{}", self.story());
            self.turn(Duration::from_millis(100));
        }
    }

    fn story(&self) -> String {
        let streams = self.host.streams.iter();
        streams
            .map(|(id, h)| {
                format!(
                    "stream {id}: started {:?}, exit {:?}\n--- out\n{}\n--- err\n{}\n",
                    h.started,
                    h.exit,
                    h.out(),
                    h.err()
                )
            })
            .collect()
    }

    /// Waits for what is ready, at most so long, and hands it to the workload.
    pub fn turn(&mut self, wait: Duration) {
        let now = Instant::now();
        let due: Vec<u32> = self
            .host
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(t, _)| *t)
            .collect();
        for token in due {
            self.host.timers.remove(&token);
            self.workload.timer(token, &mut self.host);
        }
        for (fd, token, ready) in poll_all(&self.host.watched, wait) {
            // An earlier one may have closed it.
            if self.host.watched.get(&fd).is_some_and(|w| w.token == token) {
                self.workload.ready(token, ready, &mut self.host);
            }
        }
    }

    pub fn main(&self) -> &Heard {
        &self.host.streams[&MAIN]
    }

    pub fn wait_exit(&mut self, stream: StreamId) -> Exit {
        self.until("exit", |host| host.streams.get(&stream)?.exit.clone())
    }

    /// Begins an exec and waits for its start.
    pub fn exec(&mut self, spec: ExecSpec) -> Result<StreamId, Fault> {
        let stream = self.next;
        self.next += 1;
        self.workload.exec(stream, &spec, &mut self.host)?;
        let started = self.until("exec", |host| host.streams.get(&stream)?.started.clone());
        started.map(|_| stream)
    }

    /// The client of the next exec takes only so many bytes.
    pub fn bound_next(&mut self, bytes: usize) {
        self.host.streams.entry(self.next).or_default().bound = Some(bytes);
    }

    /// Runs a shell line inside: its code and all its output.
    pub fn sh(&mut self, line: &str) -> (i32, String) {
        let stream = self.exec(shell(line)).unwrap();
        let exit = self.wait_exit(stream);
        let heard = &self.host.streams[&stream];
        (exit.code, heard.out() + &heard.err())
    }

    /// Sends all of the bytes as input.
    pub fn input(&mut self, stream: StreamId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.host.streams.entry(stream).or_default().input_room = false;
            let n = self.workload.input(stream, bytes, &mut self.host);
            bytes = &bytes[n..];
            if !bytes.is_empty() {
                self.until("room for input", |host| host.streams[&stream].input_room.then_some(()));
            }
        }
    }

    pub fn signal(&mut self, stream: StreamId, signal: i32) {
        self.workload.signal(stream, signal, &mut self.host).unwrap();
    }

    pub fn delete(&mut self) {
        self.workload.delete(&mut self.host).unwrap();
        assert!(self.host.watched.is_empty(), "descriptors are still watched");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        let _ = self.workload.delete(&mut self.host);
    }
}

/// `sh -c LINE`.
pub fn shell(line: &str) -> ExecSpec {
    ExecSpec {
        args: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        ..ExecSpec::default()
    }
}

fn poll_all(watched: &BTreeMap<RawFd, Watched>, wait: Duration) -> Vec<(RawFd, u32, Interest)> {
    let flags = |interest: Interest| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, interest.read);
        flags.set(PollFlags::OUT, interest.write);
        flags
    };
    let mut fds: Vec<_> = watched
        .values()
        .map(|w| PollFd::new(&w.copy, flags(w.interest)))
        .collect();
    let timeout = Timespec {
        tv_sec: wait.as_secs() as i64,
        tv_nsec: wait.subsec_nanos() as _,
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => panic!("poll: {e}"),
    }
    let ready = watched.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
    ready
        .map(|((number, w), fd)| {
            let interest = Interest {
                read: fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
                write: fd.revents().contains(PollFlags::OUT),
            };
            (*number, w.token, interest)
        })
        .collect()
}
