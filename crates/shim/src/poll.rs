//! Waiting: descriptors by epoll, timers by the timeout of the wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use biga_wire::workload::{Interest, StreamId};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The listening socket.
    Listener,
    /// A connection, by its number.
    Client(u32),
    /// The workload, by its token.
    Workload(u32),
}

impl Source {
    fn encode(self) -> u64 {
        match self {
            Source::Listener => 0,
            Source::Client(n) => 1 << 32 | u64::from(n),
            Source::Workload(n) => 2 << 32 | u64::from(n),
        }
    }

    fn decode(n: u64) -> Source {
        let low = n as u32;
        match n >> 32 {
            0 => Source::Listener,
            1 => Source::Client(low),
            _ => Source::Workload(low),
        }
    }
}

/// Which timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The grace of a stop is over.
    Grace,
    /// The grace of one container of a pod is over, by its entrypoint's stream.
    GraceOf(StreamId),
    /// Nobody came to attach.
    Hold,
    /// Nobody came after the end.
    Linger,
    /// Lines of a log wait for their receiver.
    Log,
    /// The workload's, by its token.
    Workload(u32),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// A descriptor is ready; `gone` when the other side closed altogether.
    Ready {
        /// Whose.
        source: Source,
        /// For what.
        ready: Interest,
        /// Hung up.
        gone: bool,
    },
    /// A timer ended.
    Timer(Timer),
}

/// Descriptors and timers waited for.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    known: BTreeSet<RawFd>,
    timers: BTreeMap<Timer, Instant>,
}

impl Poll {
    /// Nothing yet.
    pub fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            known: BTreeSet::new(),
            timers: BTreeMap::new(),
        })
    }

    /// Waits on a descriptor, or changes for what.
    pub fn watch(&mut self, fd: BorrowedFd<'_>, source: Source, interest: Interest) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, interest.read);
        flags.set(EventFlags::OUT, interest.write);
        let data = EventData::new_u64(source.encode());
        if self.known.contains(&fd.as_raw_fd()) {
            epoll::modify(&self.epoll, fd, data, flags)?;
        } else {
            epoll::add(&self.epoll, fd, data, flags)?;
            self.known.insert(fd.as_raw_fd());
        }
        Ok(())
    }

    /// Waits no more.
    pub fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        if self.known.remove(&fd.as_raw_fd()) {
            // It was added before, so this cannot fail.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    /// Sets, moves or cancels a timer.
    pub fn timer(&mut self, timer: Timer, after: Option<Duration>) {
        match after {
            Some(after) => self.timers.insert(timer, Instant::now() + after),
            None => self.timers.remove(&timer),
        };
    }

    /// Waits until something happens.
    pub fn wait(&mut self, happened: &mut Vec<Happened>) -> io::Result<()> {
        happened.clear();
        let next = self.timers.values().min();
        let timeout = next.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut buffer = [MaybeUninit::uninit(); 32];
        match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => happened.extend(events.iter().map(|e| {
                let (flags, data) = (e.flags, e.data);
                let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                Happened::Ready {
                    source: Source::decode(data.u64()),
                    ready: Interest {
                        read: gone || flags.contains(EventFlags::IN),
                        write: gone || flags.contains(EventFlags::OUT),
                    },
                    gone,
                }
            })),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let now = Instant::now();
        let ended: Vec<Timer> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(t, _)| *t)
            .collect();
        for timer in ended {
            self.timers.remove(&timer);
            happened.push(Happened::Timer(timer));
        }
        Ok(())
    }
}
