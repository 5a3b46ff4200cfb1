//! Reading `/proc`: processes, their CPU time and their memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// Its parent's id.
    pub parent: u32,
    /// Real user id.
    pub uid: u32,
    /// CPU time of all its threads.
    pub cpu: Duration,
    /// CPU time of its children that ended and were waited for.
    pub children_cpu: Duration,
    /// Resident bytes.
    pub resident: u64,
    /// Its command line, or its name in brackets.
    pub command: String,
}

impl Process {
    /// Reads `/proc/PID`; `None` where it is gone.
    pub fn read(dir: &Path) -> Option<Process> {
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let mut p = Process::of_stat(&stat)?;
        let command = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = command
            .split(|b| *b == 0)
            .filter(|w| !w.is_empty())
            .map(String::from_utf8_lossy)
            .collect();
        if !words.is_empty() {
            p.command = words.join(" ");
        }
        let status = std::fs::read_to_string(dir.join("status")).unwrap_or_default();
        p.uid = status
            .lines()
            .find_map(|l| l.strip_prefix("Uid:"))
            .and_then(|l| l.split_whitespace().next())
            .and_then(|n| n.parse().ok())
            .unwrap_or_default();
        Some(p)
    }

    /// Reads the text of `/proc/PID/stat`, see proc_pid_stat(5).
    fn of_stat(stat: &str) -> Option<Process> {
        // The name may hold spaces and brackets: the last bracket ends it.
        let (front, rest) = stat.rsplit_once(')')?;
        let name = front.split_once('(')?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let time = |n: u64| Duration::from_nanos(n.saturating_mul(1_000_000_000 / ticks));
        Some(Process {
            parent: number(1)? as u32,
            uid: 0,
            cpu: time(number(11)? + number(12)?),
            children_cpu: time(number(13)? + number(14)?),
            resident: number(21)?.saturating_mul(rustix::param::page_size() as u64),
            command: format!("[{name}]"),
        })
    }
}

/// All processes by id.
pub fn all() -> BTreeMap<u32, Process> {
    let Ok(dir) = std::fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    dir.flatten()
        .filter_map(|e| {
            let pid: u32 = e.file_name().to_str()?.parse().ok()?;
            Some((pid, Process::read(&e.path())?))
        })
        .collect()
}

/// `root` and all that descend from it.
pub fn tree(all: &BTreeMap<u32, Process>, root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if all.contains_key(&pid) && !found.contains(&pid) {
            found.push(pid);
            next.extend(all.iter().filter(|(_, p)| p.parent == pid).map(|(n, _)| *n));
        }
    }
    found
}

/// Exact CPU time of a process: nanoseconds of all its threads from `schedstat`, or the ticks of `stat`.
pub fn cpu_exact(pid: u32) -> Duration {
    let mut total = 0u64;
    if let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        for t in tasks.flatten() {
            let text = std::fs::read_to_string(t.path().join("schedstat")).unwrap_or_default();
            total += text
                .split_whitespace()
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0);
        }
    }
    let ticks = Process::read(Path::new(&format!("/proc/{pid}"))).map_or(Duration::ZERO, |p| p.cpu);
    // Threads that ended are only in the ticks.
    Duration::from_nanos(total).max(ticks)
}

/// Proportional memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pss {
    /// Bytes in all.
    pub total: u64,
    /// Of it, pages of files: programs, and image pages mapped in.
    pub file: u64,
}

/// Proportional memory of a process, from `smaps_rollup`.
pub fn pss(pid: u32) -> Option<Pss> {
    Some(pss_of(
        &std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?,
    ))
}

fn pss_of(text: &str) -> Pss {
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
            << 10
    };
    Pss {
        total: field("Pss"),
        file: field("Pss_File"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_process_names_are_read() {
        let stat =
            "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 20 10 20 0 1 0 100 1000 25 18446744073709551615";
        let p = Process::of_stat(stat).unwrap();
        assert_eq!((p.parent, p.command.as_str()), (7, "[a) b (c]"));
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(p.cpu, Duration::from_nanos(200 * (1_000_000_000 / ticks)));
        assert!(Process::of_stat("nonsense").is_none());
    }

    #[test]
    fn a_tree_is_followed_down() {
        let p = |parent| Process {
            parent,
            ..Process::default()
        };
        let all = BTreeMap::from([(1, p(0)), (2, p(1)), (3, p(2)), (4, p(1)), (9, p(0))]);
        let mut t = tree(&all, 1);
        t.sort();
        assert_eq!(t, [1, 2, 3, 4]);
        assert!(tree(&all, 77).is_empty());
    }

    #[test]
    fn rollups_are_read() {
        let text = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 300 kB\nPss_Dirty: 5 kB\nPss_Anon: 90 kB\nPss_File: 210 kB\n";
        assert_eq!(
            pss_of(text),
            Pss {
                total: 300 << 10,
                file: 210 << 10
            }
        );
        assert!(pss(std::process::id()).unwrap().total > 0);
    }
}
