//! Telling that the kernel killed something of a container for memory while the container goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use biga_wire::shim::Event;
use biga_wire::workload::{Host, Interest};

use crate::Error;
use crate::cgroup::{self, Group};
use crate::error::Context;

/// Token of the notice; no stream has it.
pub(crate) const OOM: u32 = u32::MAX;
/// The notice comes before the kill: how often and how long to wait for the count to grow.
const CHECKS: u32 = 20;
const WAIT: Duration = Duration::from_millis(25);

/// The kernel's notice of one control group.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    fd: Option<OwnedFd>,
    seen: u64,
    checks: u32,
}

impl Notice {
    /// Waits for it from now on. A kernel without the notice still counts, and the count is looked at when the container ends.
    pub(crate) fn begin(&mut self, group: &Group, host: &mut dyn Host) -> Result<(), Error> {
        self.fd = group.oom_notice().ok().flatten();
        match &self.fd {
            Some(fd) => host
                .watch(fd.as_fd(), OOM, Interest::READ)
                .step(|| "wait for memory notices".into()),
            None => Ok(()),
        }
    }

    /// Waits no more.
    pub(crate) fn end(&mut self, host: &mut dyn Host) {
        host.timer(OOM, None);
        if let Some(fd) = self.fd.take() {
            host.unwatch(fd.as_fd());
        }
    }

    /// It came.
    pub(crate) fn ready(&mut self, group: Option<&Group>, host: &mut dyn Host) {
        if let Some(fd) = &self.fd {
            cgroup::stats::drain(fd);
            self.checks = CHECKS;
            self.timer(group, host);
        }
    }

    /// Looks whether somebody was killed by now.
    pub(crate) fn timer(&mut self, group: Option<&Group>, host: &mut dyn Host) {
        let kills = group.map_or(0, Group::oom_kills);
        if kills > self.seen {
            self.seen = kills;
            host.event(Event::Oom);
        } else if self.checks > 0 {
            self.checks -= 1;
            host.timer(OOM, Some(WAIT));
        }
    }
}
