//! What a container uses, once or again and again, and when it runs out of memory.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use biga_container::cgroup::{Group, Version};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};

use super::living;
use crate::args::{Global, Options};
use crate::error::{Error, Step};
use crate::state::State;

pub(super) fn events(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let o = Options::parse(rest, &[("stats", "", false), ("interval", "", true)], false)?;
    o.at_most(1)?;
    let (_, state, _) = living(global, o.id()?)?;
    let interval = duration(o.get("interval").unwrap_or("5s"))?;
    let group = state.group();
    if o.has("stats") {
        say(&json!({"type": "stats", "id": state.id, "data": stats(&group)}));
        return Ok(0);
    }
    follow(&state, &group, interval)
}

/// `5s`, `500ms`, `1m`.
fn duration(text: &str) -> Result<Duration, Error> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(n) if n > 0 && milliseconds > 0 => Ok(Duration::from_millis(n.saturating_mul(milliseconds))),
        _ => Err(Error::Usage(format!(
            "--interval takes a time as 5s or 500ms, not {text:?}"
        ))),
    }
}

/// Until the container ends, or nobody listens any more.
fn follow(state: &State, group: &Group, interval: Duration) -> Result<i32, Error> {
    let what = || "wait for events".into();
    let Some(process) = state.process() else { return Ok(0) };
    let notice: Option<OwnedFd> = group.oom_notice().step(what)?;
    let time = Timespec {
        tv_sec: interval.as_secs() as i64,
        tv_nsec: i64::from(interval.subsec_nanos()),
    };
    let mut kills = group.oom_kills();
    loop {
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        fds.extend(
            notice
                .iter()
                .map(|n| PollFd::from_borrowed_fd(n.as_fd(), PollFlags::IN)),
        );
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&time))).step(what)?;
        if fds[0].revents().contains(PollFlags::IN) {
            return Ok(0);
        }
        if let Some(notice) = notice.as_ref().filter(|_| ready > 0) {
            biga_container::cgroup::stats::drain(notice);
        }
        let now = group.oom_kills();
        let said = if now > kills {
            say(&json!({"type": "oom", "id": state.id}))
        } else if ready == 0 {
            say(&json!({"type": "stats", "id": state.id, "data": stats(group)}))
        } else {
            true
        };
        kills = now;
        if !said {
            return Ok(0);
        }
    }
}

/// Prints a line; false if nobody reads it.
fn say(line: &Value) -> bool {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

fn number(group: &Group, controller: &str, file: &str) -> u64 {
    let text = group.get(controller, file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Names and numbers of a file, a line each.
fn pairs(group: &Group, controller: &str, file: &str) -> serde_json::Map<String, Value> {
    let text = group.get(controller, file).unwrap_or_default();
    let pair = |l: &str| {
        let (key, value) = l.split_once(' ')?;
        Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
    };
    text.lines().filter_map(pair).collect()
}

/// In the form of `runc events`.
fn stats(group: &Group) -> Value {
    let s = group.stats();
    let v1 = group.version() == Version::V1;
    let throttling = if v1 {
        pairs(group, "cpu", "cpu.stat")
    } else {
        pairs(group, "", "cpu.stat")
    };
    let raw = if v1 {
        pairs(group, "memory", "memory.stat")
    } else {
        pairs(group, "", "memory.stat")
    };
    let of = |key: &str| throttling.get(key).and_then(Value::as_u64).unwrap_or(0);
    let percpu: Vec<u64> = group
        .get("cpuacct", "cpuacct.usage_percpu")
        .filter(|_| v1)
        .map(|t| t.split_whitespace().filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default();
    let (usage, peak, failures) = if v1 {
        (
            number(group, "memory", "memory.usage_in_bytes"),
            number(group, "memory", "memory.max_usage_in_bytes"),
            number(group, "memory", "memory.failcnt"),
        )
    } else {
        (number(group, "", "memory.current"), number(group, "", "memory.peak"), 0)
    };
    json!({
        "cpu": {
            "usage": {"total": s.cpu_ns, "percpu": percpu, "kernel": s.cpu_system_ns, "user": s.cpu_user_ns},
            "throttling": {
                "periods": of("nr_periods"),
                "throttledPeriods": of("nr_throttled"),
                "throttledTime": if v1 { of("throttled_time") } else { of("throttled_usec") * 1000 },
            },
        },
        "memory": {
            "cache": s.memory_cache,
            "usage": {"limit": s.memory_limit, "usage": usage, "max": peak, "failcnt": failures},
            "raw": raw,
        },
        "pids": {"current": s.pids, "limit": s.pids_limit},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"op": "Read", "value": s.block_read},
                {"op": "Write", "value": s.block_write},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "0s", "x", "5d", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
