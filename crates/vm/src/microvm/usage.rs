//! What a machine uses, and small helpers that microvms and machines share.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use biga_wire::config::Nic;
use biga_wire::shim::Stats;
use biga_wire::workload::{Fault, Host};
use serde_json::Value;

use crate::qmp::Qmp;

/// A sample is not worth a longer wait; the last figures are given then.
const WAIT: Duration = Duration::from_millis(300);

/// The last figures of the block devices.
#[derive(Debug, Default)]
pub struct Usage {
    read: u64,
    written: u64,
}

impl Usage {
    /// A sample: processor of QEMU's control group (of its process where there is none), memory of the process, block
    /// devices as QEMU counts them, networks by the taps.
    pub fn sample(&mut self, qmp: &mut Qmp, pid: u32, nics: &[Nic], size: u64, host: &mut dyn Host) -> Stats {
        let mut stats = host.cgroup_stats();
        let (user, system) = cpu_of(pid);
        if stats.cpu_ns == 0 {
            (stats.cpu_user_ns, stats.cpu_system_ns) = (user, system);
            stats.cpu_ns = user + system;
        }
        if stats.memory == 0 {
            stats.memory = status_kib(pid, "VmRSS:") << 10;
        }
        if stats.memory_peak == 0 {
            stats.memory_peak = status_kib(pid, "VmHWM:") << 10;
        }
        // The guest's size bounds the guest; QEMU's own memory comes on top and only the host bounds that.
        stats.memory_limit = stats.memory_limit.max(size);
        if let Ok(answer) = qmp.call("query-blockstats", Value::Null, WAIT, host) {
            (self.read, self.written) = block_totals(&answer);
        }
        (stats.block_read, stats.block_write) = (self.read, self.written);
        // Not `/sys/class/net`: that shows the network namespace in which sysfs was mounted, which need not be ours.
        let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        for nic in nics {
            let (received, sent) = traffic(&devices, &nic.tap);
            // What the tap receives is what the guest sent.
            stats.net_rx += sent;
            stats.net_tx += received;
        }
        stats
    }
}

fn block_totals(answer: &Value) -> (u64, u64) {
    let sum = |name: &str| {
        let devices = answer.as_array().into_iter().flatten();
        devices.filter_map(|d| d["stats"][name].as_u64()).sum()
    };
    (sum("rd_bytes"), sum("wr_bytes"))
}

/// Bytes that an interface received and sent, of the text of `/proc/PID/net/dev`.
fn traffic(devices: &str, interface: &str) -> (u64, u64) {
    let mut lines = devices.lines().filter_map(|l| l.split_once(':'));
    let line = lines
        .find(|(name, _)| name.trim() == interface)
        .map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    let at = |i: usize| fields.get(i).copied().unwrap_or(0);
    (at(0), at(8))
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// User and system time of a process in nanoseconds.
fn cpu_of(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything, so count from its end.
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let at = |i: usize| fields.get(i).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * tick;
    (at(11), at(12))
}

/// Opens the tap of each card.
pub fn open_taps(nics: &[Nic]) -> Result<Vec<OwnedFd>, Fault> {
    nics.iter()
        .map(|nic| {
            biga_sys::tun::open_tap(&nic.tap).map_err(|e| {
                Fault::failed(format!(
                    "cannot open the tap interface {}: {e}; is /dev/net/tun there, and nobody else using it?",
                    nic.tap
                ))
            })
        })
        .collect()
}

/// A new file for what a child says.
pub fn log_file(path: &Path) -> Result<OwnedFd, Fault> {
    File::create(path)
        .map(OwnedFd::from)
        .map_err(|e| Fault::failed(format!("cannot make {}: {e}", path.display())))
}

/// Adds bytes to the last `max` ones.
pub fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8], max: usize) {
    tail.extend_from_slice(bytes);
    if tail.len() > max {
        tail.drain(..tail.len() - max);
    }
}

/// The last lines of a text, in one.
pub fn last_lines(text: &str, count: usize) -> String {
    let mut last: VecDeque<&str> = VecDeque::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        last.push_back(line);
        if last.len() > count {
            last.pop_front();
        }
    }
    last.make_contiguous().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let me = std::process::id();
        assert!(status_kib(me, "VmRSS:") > 100);
        // Burn until the kernel has counted a tick.
        while cpu_of(me).0 == 0 {
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
        assert_eq!(cpu_of(0), (0, 0));
    }

    #[test]
    fn block_devices_are_summed_and_nonsense_counts_nothing() {
        let answer = serde_json::json!([{"stats": {"rd_bytes": 5, "wr_bytes": 1}}, {"stats": {"rd_bytes": 6}}, 7, {}]);
        assert_eq!(block_totals(&answer), (11, 1));
        assert_eq!(block_totals(&Value::Null), (0, 0));
    }

    #[test]
    fn traffic_is_read_of_the_interface_itself() {
        let text = "Inter-|   Receive                  |  Transmit\n face |bytes packets\n    lo:  7 1 0 0 0 0 0 0  7 1 0 0 0 0 0 0\n\
                    bigat0: 1500 3 0 0 0 0 0 0 42 1 0 0 0 0 0 0\n bigat01:9 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text, "bigat0"), (1500, 42));
        assert_eq!(traffic(text, "bigat01"), (9, 8));
        assert_eq!(traffic(text, "bigat"), (0, 0));
        assert_eq!(traffic("bigat0: x y\n", "bigat0"), (0, 0));
    }

    #[test]
    fn tails_are_short() {
        let mut tail = Vec::new();
        keep_tail(&mut tail, b"abcdef", 4);
        keep_tail(&mut tail, b"gh", 4);
        assert_eq!(tail, b"efgh");
        assert_eq!(last_lines("a\n\nb\r\nc\n", 2), "b | c");
    }
}
