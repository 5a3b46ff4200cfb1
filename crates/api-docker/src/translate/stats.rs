//! A sample → Docker's document of statistics.

use biga_model::Timestamp;
use biga_wire::shim::Stats;
use serde_json::{Value, json};

/// What the host's processors did when a sample was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// CPU time of all processors since boot, nanoseconds.
    pub total_ns: u64,
    /// Processors.
    pub online: u32,
}

/// Reads the first line of `/proc/stat`. A tick is a hundredth of a second on Linux, for programs.
pub fn host_cpu(proc_stat: &str) -> HostCpu {
    let first = proc_stat.lines().next().unwrap_or("");
    let ticks: u64 = first
        .split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|w| w.parse::<u64>().ok())
        .sum();
    let is_cpu = |l: &&str| {
        l.strip_prefix("cpu")
            .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    };
    let online = proc_stat.lines().filter(is_cpu).count() as u32;
    HostCpu {
        total_ns: ticks.saturating_mul(10_000_000),
        online,
    }
}

fn time_of(s: &Stats) -> String {
    let t = i128::from(s.at_ns);
    super::time(Timestamp::from_nanosecond(t).ok().filter(|_| s.at_ns > 0))
}

fn cpu(s: &Stats, host: HostCpu) -> Value {
    json!({
        "cpu_usage": {
            "total_usage": s.cpu_ns,
            "usage_in_kernelmode": s.cpu_system_ns,
            "usage_in_usermode": s.cpu_user_ns,
        },
        "system_cpu_usage": host.total_ns,
        "online_cpus": host.online,
        "throttling_data": {
            "periods": s.cpu_periods,
            "throttled_periods": s.throttled_periods,
            "throttled_time": s.throttled_ns,
        },
    })
}

/// The document: a sample with the one before it.
pub fn document(id: &str, name: &str, now: (&Stats, HostCpu), before: Option<(&Stats, HostCpu)>) -> Value {
    let (s, host) = now;
    let none = Stats::default();
    let (p, p_host) = before.unwrap_or((&none, HostCpu::default()));
    let block = |op: &str, n: u64| json!({"major": 0, "minor": 0, "op": op, "value": n});
    let pids_limit = if s.pids_limit == 0 {
        Value::from(u64::MAX)
    } else {
        s.pids_limit.into()
    };
    json!({
        "name": format!("/{name}"),
        "id": id,
        "read": time_of(s),
        "preread": time_of(p),
        "num_procs": 0,
        "pids_stats": {"current": s.pids, "limit": pids_limit},
        "cpu_stats": cpu(s, host),
        "precpu_stats": cpu(p, p_host),
        "memory_stats": {
            "usage": s.memory + s.memory_cache,
            "max_usage": s.memory_peak,
            "limit": s.memory_limit,
            "failcnt": 0,
            // Both spellings: of cgroup v2 and of v1. Clients take one of them off the usage.
            "stats": {"inactive_file": s.memory_cache, "total_inactive_file": s.memory_cache},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [block("read", s.block_read), block("write", s.block_write)],
            "io_serviced_recursive": [block("read", s.block_reads), block("write", s.block_writes)],
            "io_queue_recursive": null,
            "io_service_time_recursive": null,
            "io_wait_time_recursive": null,
            "io_merged_recursive": null,
            "io_time_recursive": null,
            "sectors_recursive": null,
        },
        "storage_stats": {},
        "networks": {"eth0": {
            "rx_bytes": s.net_rx, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
            "tx_bytes": s.net_tx, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0,
        }},
    })
}

/// The document of a container that does not run.
pub fn empty(id: &str, name: &str) -> Value {
    json!({
        "name": format!("/{name}"),
        "id": id,
        "read": super::time(None),
        "preread": super::time(None),
        "pids_stats": {},
        "blkio_stats": {},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}, "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}},
        "precpu_stats": {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}, "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}},
        "memory_stats": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_processors_are_counted() {
        let text = "cpu  10 0 5 85 0 0 0 9 9 9\ncpu0 5 0 2 43 0\ncpu1 5 0 3 42 0\nintr 5\n";
        assert_eq!(
            host_cpu(text),
            HostCpu {
                total_ns: 1_000_000_000,
                online: 2
            }
        );
        assert_eq!(host_cpu(""), HostCpu::default());
    }
}
