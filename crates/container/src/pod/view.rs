//! The shim as one container of a pod sees it: its entrypoint is [`MAIN`] to it, and tokens are its own.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use biga_wire::config::Limits;
use biga_wire::shim::{Event, Exit, Stats};
use biga_wire::workload::{Fault, Host, Interest, MAIN, Output, StreamId};

/// Bits of a token that are the container's own.
const BITS: u32 = 20;
const MASK: u32 = (1 << BITS) - 1;
/// Tokens that no stream has are counted from the top: so many of them fit.
const SPECIAL: u32 = 16;

/// A container's token in the shim.
pub(super) fn outer(index: usize, token: u32) -> u32 {
    let own = match u32::MAX - token {
        from_top if from_top < SPECIAL => MASK - from_top,
        _ => token & MASK,
    };
    (index as u32) << BITS | own
}

/// The container that a token of the shim belongs to, and what it is there.
pub(super) fn inner(token: u32) -> (usize, u32) {
    let own = token & MASK;
    let token_inside = match MASK - own {
        from_top if from_top < SPECIAL => u32::MAX - from_top,
        _ => own,
    };
    ((token >> BITS) as usize, token_inside)
}

/// The shim for one container. What ended is kept back until the container is undone.
pub(super) struct View<'a> {
    host: &'a mut dyn Host,
    index: usize,
    main: StreamId,
    /// How the entrypoint ended.
    pub(super) ended: Option<Exit>,
    /// Execs that ended.
    pub(super) gone: Vec<StreamId>,
}

impl<'a> View<'a> {
    pub(super) fn new(host: &'a mut dyn Host, index: usize, main: StreamId) -> View<'a> {
        View {
            host,
            index,
            main,
            ended: None,
            gone: Vec::new(),
        }
    }

    fn stream(&self, stream: StreamId) -> StreamId {
        if stream == MAIN { self.main } else { stream }
    }
}

impl Host for View<'_> {
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u32, interest: Interest) -> io::Result<()> {
        self.host.watch(fd, outer(self.index, token), interest)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.host.unwatch(fd);
    }

    fn timer(&mut self, token: u32, after: Option<Duration>) {
        self.host.timer(outer(self.index, token), after);
    }

    fn started(&mut self, stream: StreamId, result: Result<u32, Fault>) {
        let stream = self.stream(stream);
        self.host.started(stream, result);
    }

    fn room(&self, stream: StreamId) -> usize {
        self.host.room(self.stream(stream))
    }

    fn output(&mut self, stream: StreamId, output: Output, bytes: &[u8]) {
        let stream = self.stream(stream);
        self.host.output(stream, output, bytes);
    }

    fn input_room(&mut self, stream: StreamId) {
        let stream = self.stream(stream);
        self.host.input_room(stream);
    }

    fn exited(&mut self, stream: StreamId, exit: Exit) {
        if stream == MAIN {
            self.ended = Some(exit);
        } else {
            self.gone.push(stream);
            self.host.exited(stream, exit);
        }
    }

    fn event(&mut self, event: Event) {
        self.host.event(event);
    }

    fn accelerator(&mut self, _name: &str) {}

    fn cgroup_add(&mut self, _pid: u32) -> io::Result<()> {
        // A container makes its own group.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn cgroup_limits(&mut self, _limits: &Limits) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn cgroup_stats(&mut self) -> Stats {
        Stats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        // A stream's token is its number and three bits.
        for index in [0, 1, 255] {
            for token in [0, 7, 8, 12345, (1 << 19) - 1, u32::MAX, u32::MAX - SPECIAL + 1] {
                assert_eq!(inner(outer(index, token)), (index, token));
            }
        }
    }
}
