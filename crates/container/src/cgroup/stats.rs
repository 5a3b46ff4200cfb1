//! What a group uses.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use biga_wire::shim::{Pressure, Stats};
use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};

use super::{Group, Version, write};

/// Clock ticks of `cpuacct.stat` a second, fixed in the kernel's interface.
const TICK_NS: u64 = 10_000_000;
/// Version 1 says "no limit" by a number near the largest; nothing real is over this.
const UNLIMITED: u64 = 1 << 60;

impl Group {
    /// A sample; what the host does not count is 0. Networks are not of the group.
    pub fn stats(&self) -> Stats {
        let mut s = match self.version {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        };
        if s.memory_limit == 0 || s.memory_limit > UNLIMITED {
            let info = rustix::system::sysinfo();
            s.memory_limit = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
        }
        s
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.dir(controller).join(file)).unwrap_or_default()
    }

    fn number(&self, controller: &str, file: &str) -> u64 {
        self.read(controller, file).trim().parse().unwrap_or(0)
    }

    fn stats_v1(&self) -> Stats {
        let cpu = self.read("cpuacct", "cpuacct.stat");
        let memory = self.read("memory", "memory.stat");
        let cache = field(&memory, "total_inactive_file");
        let blocks = self.read("blkio", "blkio.throttle.io_service_bytes");
        let periods = match self.controllers.contains(&"cpu") {
            true => self.read("cpu", "cpu.stat"),
            false => String::new(),
        };
        let operations = self.read("blkio", "blkio.throttle.io_serviced");
        let usage = self.number("memory", "memory.usage_in_bytes");
        Stats {
            cpu_ns: self.number("cpuacct", "cpuacct.usage"),
            cpu_user_ns: field(&cpu, "user") * TICK_NS,
            cpu_system_ns: field(&cpu, "system") * TICK_NS,
            throttled_periods: field(&periods, "nr_throttled"),
            cpu_periods: field(&periods, "nr_periods"),
            throttled_ns: field(&periods, "throttled_time"),
            memory: usage.saturating_sub(cache),
            memory_swap: self
                .number("memory", "memory.memsw.usage_in_bytes")
                .saturating_sub(usage),
            block_reads: blocks_v1(&operations, "Read"),
            block_writes: blocks_v1(&operations, "Write"),
            hugetlb: match self.controllers.contains(&"hugetlb") {
                true => self.huge_pages("hugetlb", "usage_in_bytes"),
                false => self.huge_pages("unified", "current"),
            },
            pressure: self.pressure("unified"),
            memory_cache: cache,
            memory_limit: self.number("memory", "memory.limit_in_bytes"),
            memory_peak: self.number("memory", "memory.max_usage_in_bytes"),
            pids: self.number("pids", "pids.current"),
            pids_limit: self.number("pids", "pids.max"),
            block_read: blocks_v1(&blocks, "Read"),
            block_write: blocks_v1(&blocks, "Write"),
            oom_kills: self.oom_kills(),
            ..Stats::default()
        }
    }

    fn stats_v2(&self) -> Stats {
        let cpu = self.read("", "cpu.stat");
        let cache = field(&self.read("", "memory.stat"), "inactive_file");
        let io = self.read("", "io.stat");
        Stats {
            cpu_ns: field(&cpu, "usage_usec") * 1000,
            cpu_user_ns: field(&cpu, "user_usec") * 1000,
            cpu_system_ns: field(&cpu, "system_usec") * 1000,
            throttled_periods: field(&cpu, "nr_throttled"),
            cpu_periods: field(&cpu, "nr_periods"),
            throttled_ns: field(&cpu, "throttled_usec") * 1000,
            memory_swap: self.number("", "memory.swap.current"),
            block_reads: blocks_v2(&io, "rios="),
            block_writes: blocks_v2(&io, "wios="),
            hugetlb: self.huge_pages("", "current"),
            pressure: self.pressure(""),
            memory: self.number("", "memory.current").saturating_sub(cache),
            memory_cache: cache,
            memory_limit: self.number("", "memory.max"),
            memory_peak: self.number("", "memory.peak"),
            pids: self.number("", "pids.current"),
            pids_limit: self.number("", "pids.max"),
            block_read: blocks_v2(&io, "rbytes="),
            block_write: blocks_v2(&io, "wbytes="),
            oom_kills: self.oom_kills(),
            ..Stats::default()
        }
    }

    /// Bytes in huge pages by size; none where there are none in use.
    fn huge_pages(&self, controller: &str, file: &str) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(self.dir(controller)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let size = name
                .to_str()
                .and_then(|n| n.strip_prefix("hugetlb.")?.strip_suffix(file)?.strip_suffix('.'));
            if let Some(size) = size.filter(|s| !s.contains("rsvd")) {
                let bytes = self.number(controller, &format!("hugetlb.{size}.{file}"));
                if bytes > 0 {
                    all.insert(size.to_owned(), bytes);
                }
            }
        }
        all
    }

    fn pressure(&self, controller: &str) -> Option<Pressure> {
        let read = |file| fs::read_to_string(self.dir(controller).join(file)).ok();
        let (cpu, memory, io) = (read("cpu.pressure")?, read("memory.pressure")?, read("io.pressure")?);
        Some(Pressure {
            cpu_some_us: waited(&cpu, "some"),
            memory_some_us: waited(&memory, "some"),
            memory_full_us: waited(&memory, "full"),
            io_some_us: waited(&io, "some"),
            io_full_us: waited(&io, "full"),
        })
    }

    /// Processes the kernel killed in it for memory.
    pub fn oom_kills(&self) -> u64 {
        match self.version {
            Version::V1 => field(&self.read("memory", "memory.oom_control"), "oom_kill"),
            Version::V2 => field(&self.read("", "memory.events"), "oom_kill"),
        }
    }

    /// A descriptor that becomes readable when memory runs out in the group; read it empty with [`drain`]. `None` where the group has no limit
    /// (the host's own shortage is counted by [`Group::oom_kills`] all the same).
    pub fn oom_notice(&self) -> io::Result<Option<OwnedFd>> {
        if !self.has_memory_limit {
            return Ok(None);
        }
        match self.version {
            Version::V1 => {
                let dir = self.dir("memory");
                let control = rustix::fs::open(
                    dir.join("memory.oom_control"),
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
                write(&dir.join("cgroup.event_control"), &line)?;
                Ok(Some(event))
            }
            Version::V2 => {
                let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
                inotify::add_watch(&fd, self.dir("").join("memory.events"), inotify::WatchFlags::MODIFY)?;
                Ok(Some(fd))
            }
        }
    }
}

/// Empties the descriptor of [`Group::oom_notice`].
pub fn drain(fd: impl AsFd) {
    let mut buf = [0u8; 512];
    // Not blocking: ends when it is empty.
    while rustix::io::read(&fd, &mut buf).is_ok_and(|n| n > 8) {}
}

/// Number after `key` at the beginning of a line.
fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .find(|(k, _)| *k == key)
        .and_then(|(_, v)| v.trim().parse().ok())
        .unwrap_or(0)
}

/// `8:0 Read 4096`, a line a device.
fn blocks_v1(text: &str, direction: &str) -> u64 {
    let of = |l: &str| {
        let mut words = l.split_whitespace();
        let device = words.next()?;
        (device.contains(':') && words.next()? == direction).then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(of).sum()
}

/// `8:0 rbytes=4096 wbytes=0 …`, a line a device.
fn blocks_v2(text: &str, key: &str) -> u64 {
    text.split_whitespace()
        .filter_map(|w| w.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`.
fn waited(text: &str, who: &str) -> u64 {
    let line = text.lines().find(|l| l.split(' ').next() == Some(who));
    let total = line.and_then(|l| l.split(' ').find_map(|w| w.strip_prefix("total=")));
    total.and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_by_line() {
        let text =
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=45\n";
        assert_eq!(
            (waited(text, "some"), waited(text, "full"), waited("", "some")),
            (123, 45, 0)
        );
    }

    #[test]
    fn counters_of_both_versions() {
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), 3);
        assert_eq!(field("a 1\n", "b"), 0);
        assert_eq!(
            blocks_v1("8:0 Read 5\n8:0 Write 7\n254:0 Read 10\nTotal 22\n", "Read"),
            15
        );
        assert_eq!(
            blocks_v2("8:0 rbytes=5 wbytes=7\n9:0 rbytes=1 wbytes=0\n", "rbytes="),
            6
        );
    }
}
