//! Limits in the files of version 1.

use std::path::Path;

use biga_wire::config::{IoLimit, Limits};

use super::limits::{self, Quota};
use super::{Group, realtime, write};
use crate::Error;
use crate::error::Context;

impl Group {
    pub(super) fn apply_v1(&self, l: &Limits) -> Result<(), Error> {
        self.memory_v1(l)?;
        self.cpu_v1(l)?;
        if let Some(pids) = l.pids {
            self.write("pids", "pids.max", &pids.to_string())?;
        }
        if let Some(weight) = l.io_weight {
            self.weight_v1("", &weight.to_string())?;
        }
        l.io_devices.iter().try_for_each(|d| self.device_v1(d))?;
        self.huge_pages_v1(l)?;
        for (file, value) in &l.unified {
            limits::plain_file(file)?;
            self.write("unified", file, value)?;
        }
        Ok(())
    }

    fn memory_v1(&self, l: &Limits) -> Result<(), Error> {
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
        if let Some(n) = l.memory_swappiness {
            self.write("memory", "memory.swappiness", &n.to_string())?;
        }
        if let Some(disable) = l.oom_kill_disable {
            self.write("memory", "memory.oom_control", if disable { "1" } else { "0" })?;
        }
        Ok(())
    }

    fn cpu_v1(&self, l: &Limits) -> Result<(), Error> {
        if let Some(q) = Quota::of(l) {
            let file = "cpu.cfs_quota_us";
            // A burst may never be over the quota.
            if l.cpu_burst.is_some() {
                let _ = self.write("cpu", "cpu.cfs_burst_us", "0");
            }
            self.write("cpu", "cpu.cfs_period_us", &q.period.to_string())?;
            self.write("cpu", file, &q.quota.map_or(-1, |n| n as i64).to_string())?;
        }
        if let Some(burst) = l.cpu_burst {
            self.write("cpu", "cpu.cfs_burst_us", &burst.to_string())?;
        }
        if let Some(shares) = l.cpu_shares {
            self.write("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(cpus) = &l.cpuset_cpus {
            self.write("cpuset", "cpuset.cpus", cpus)?;
        }
        if let Some(nodes) = &l.cpuset_mems {
            self.write("cpuset", "cpuset.mems", nodes)?;
        }
        realtime::apply(&self.dir("cpu"), l)
    }

    /// Which scheduler has weights decides where they are written.
    fn weight_v1(&self, suffix: &str, value: &str) -> Result<(), Error> {
        let dir = self.dir("blkio");
        let files = ["blkio.bfq.weight", "blkio.weight"].map(|f| format!("{f}{suffix}"));
        let file = files
            .iter()
            .find(|f| dir.join(f).exists())
            .ok_or_else(limits::no_weights)?;
        self.write("blkio", file, value)
    }

    fn device_v1(&self, d: &IoLimit) -> Result<(), Error> {
        let number = limits::device_number(&d.device)?;
        if let Some(weight) = d.weight {
            self.weight_v1("_device", &format!("{number} {weight}"))?;
        }
        let rates = [
            ("read_bps", d.read_bps),
            ("write_bps", d.write_bps),
            ("read_iops", d.read_iops),
            ("write_iops", d.write_iops),
        ];
        for (what, rate) in rates {
            if let Some(rate) = rate {
                let file = format!("blkio.throttle.{what}_device");
                self.write("blkio", &file, &format!("{number} {rate}"))?;
            }
        }
        Ok(())
    }

    /// On hybrid hosts the controller may be in the tree of version 2.
    fn huge_pages_v1(&self, l: &Limits) -> Result<(), Error> {
        for (size, bytes) in &l.hugetlb {
            limits::plain_file(size)?;
            if self.controllers.contains(&"hugetlb") {
                self.write("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), &bytes.to_string())?;
            } else {
                self.write("unified", &format!("hugetlb.{size}.max"), &bytes.to_string())?;
            }
        }
        Ok(())
    }

    /// Makes the group in the version 2 tree of a hybrid host, with the controllers that are there.
    pub(super) fn make_unified(&self) -> Result<(), Error> {
        let root = Path::new(super::ROOT).join("unified");
        if !root.join("cgroup.controllers").exists() {
            return Err(Error::Field(
                "the control group",
                "this host has neither the controller nor a tree of version 2 for the limit that was asked for".into(),
            ));
        }
        super::limits::delegate(&root, &self.path);
        super::make_dir(&self.dir("unified"))
    }
}

/// Lets a container's root make groups below its own.
pub(super) fn hand_over(dir: &Path, owner: u32) -> Result<(), Error> {
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
        let path = if file.is_empty() {
            dir.to_owned()
        } else {
            dir.join(file)
        };
        if path.exists() {
            std::os::unix::fs::chown(&path, Some(owner), Some(owner))
                .step(|| format!("hand control group {} over", path.display()))?;
        }
    }
    Ok(())
}

/// Moves processes into the group of a controller that was made later.
pub(super) fn move_all(dir: &Path, pids: &[u32]) {
    for pid in pids {
        // One that ended meanwhile is no failure.
        let _ = write(&dir.join("cgroup.procs"), &pid.to_string());
    }
}
