//! Limits, in the words of either version.

use std::fs;
use std::path::{Path, PathBuf};

use biga_wire::config::Limits;

use super::{Group, ROOT, Version, write};
use crate::Error;
use crate::error::Context;

/// Microseconds of a scheduling period.
const PERIOD: u64 = 100_000;

impl Group {
    /// Applies limits; those that are `None` stay as they are.
    pub(super) fn apply(&mut self, limits: &Limits) -> Result<(), Error> {
        match self.version {
            Version::V1 => self.apply_v1(limits)?,
            Version::V2 => self.apply_v2(limits)?,
        }
        self.has_memory_limit |= limits.memory.is_some();
        Ok(())
    }

    /// Changes limits while processes run.
    pub fn update(&mut self, limits: &Limits) -> Result<(), Error> {
        if self.version == Version::V1 {
            let before = self.controllers.len();
            self.need_for(limits)?;
            let pids = self.pids().step(|| "list the processes of the control group".into())?;
            for controller in self.controllers[before..].iter().copied() {
                for pid in &pids {
                    // One that ended meanwhile is no failure.
                    let _ = write(&self.dir(controller).join("cgroup.procs"), &pid.to_string());
                }
            }
        }
        self.apply(limits)
    }

    fn apply_v1(&self, l: &Limits) -> Result<(), Error> {
        if let Some(bytes) = l.memory {
            let swap = l.memory_swap.map(|s| s.max(bytes).to_string());
            let memory = bytes.to_string();
            // Memory may never be over memory with swap: which comes first depends on the direction of the change.
            let first = self.write("memory", "memory.limit_in_bytes", &memory);
            if let Some(swap) = &swap {
                self.write("memory", "memory.memsw.limit_in_bytes", swap)?;
            }
            if first.is_err() {
                if swap.is_none() {
                    // Swap was not asked for: it must not stand in the way, and a kernel may not count it.
                    let _ = self.write("memory", "memory.memsw.limit_in_bytes", "-1");
                }
                self.write("memory", "memory.limit_in_bytes", &memory)?;
            }
        }
        if let Some(bytes) = l.memory_reservation {
            self.write("memory", "memory.soft_limit_in_bytes", &bytes.to_string())?;
        }
        if let Some(millis) = l.cpu_millis {
            self.write("cpu", "cpu.cfs_period_us", &PERIOD.to_string())?;
            self.write("cpu", "cpu.cfs_quota_us", &quota(millis).to_string())?;
        }
        if let Some(shares) = l.cpu_shares {
            self.write("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(cpus) = &l.cpuset_cpus {
            self.write("cpuset", "cpuset.cpus", cpus)?;
        }
        if let Some(pids) = l.pids {
            self.write("pids", "pids.max", &pids.to_string())?;
        }
        Ok(())
    }

    fn apply_v2(&self, l: &Limits) -> Result<(), Error> {
        let set = |file: &str, value: String| self.write("", file, &value);
        if let Some(bytes) = l.memory {
            set("memory.max", bytes.to_string())?;
            if let Some(swap) = l.memory_swap {
                set("memory.swap.max", swap.saturating_sub(bytes).to_string())?;
            }
        }
        if let Some(bytes) = l.memory_reservation {
            set("memory.low", bytes.to_string())?;
        }
        if let Some(millis) = l.cpu_millis {
            set("cpu.max", format!("{} {PERIOD}", quota(millis)))?;
        }
        if let Some(shares) = l.cpu_shares {
            set("cpu.weight", weight(shares).to_string())?;
        }
        if let Some(cpus) = &l.cpuset_cpus {
            set("cpuset.cpus", cpus.clone())?;
        }
        if let Some(pids) = l.pids {
            set("pids.max", pids.to_string())?;
        }
        Ok(())
    }
}

/// Microseconds a period; the kernel takes no less than a thousand.
fn quota(millis: u32) -> u64 {
    (u64::from(millis) * PERIOD / 1000).max(1000)
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Version 2: hands controllers down to the group's parents. One that a parent cannot give is missing then, and a limit that needs
/// it says so.
pub(super) fn delegate(path: &str) {
    let mut dir = PathBuf::from(ROOT);
    let parents: Vec<_> = Path::new(path).components().collect();
    for (i, part) in parents.iter().enumerate() {
        let control = dir.join("cgroup.subtree_control");
        let have = fs::read_to_string(&control).unwrap_or_default();
        for controller in ["cpu", "memory", "pids", "io", "cpuset"] {
            if !have.split_whitespace().any(|c| c == controller) {
                let _ = write(&control, &format!("+{controller}"));
            }
        }
        dir.push(part);
        if i + 1 < parents.len() {
            // A failure shows when the group itself is made.
            let _ = fs::create_dir(&dir);
        }
    }
}

/// Version 1: a new cpuset is empty, and takes processes only once it has processors and memory nodes.
pub(super) fn inherit_cpuset(path: &str) -> Result<(), Error> {
    let mut dir: PathBuf = [ROOT, "cpuset"].iter().collect();
    for part in Path::new(path).components() {
        let child = dir.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let what = || format!("hand {file} down to {}", child.display());
            let own = fs::read_to_string(child.join(file)).step(what)?;
            if own.trim().is_empty() {
                let from = fs::read_to_string(dir.join(file)).step(what)?;
                write(&child.join(file), from.trim()).step(what)?;
            }
        }
        dir = child;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(quota(1500), 150_000);
        assert_eq!(quota(1), 1000);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(1024), 39);
        assert_eq!(weight(262_144), 10_000);
    }
}
