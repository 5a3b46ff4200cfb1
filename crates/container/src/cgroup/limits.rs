//! Limits: what both versions share, and changing them while processes run.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use biga_wire::config::Limits;

use super::{Group, ROOT, Version, v1, v2, write};
use crate::Error;
use crate::error::Context;

/// Microseconds of a scheduling period where none is given.
const PERIOD: u64 = 100_000;

impl Group {
    /// Applies limits; those that are `None` stay as they are.
    pub(super) fn apply(&mut self, limits: &Limits) -> Result<(), Error> {
        match self.version {
            Version::V1 => self.apply_v1(limits)?,
            Version::V2 => v2::apply(&self.dir(""), limits)?,
        }
        self.has_memory_limit |= limits.memory.is_some();
        Ok(())
    }

    /// Changes limits while processes run.
    pub fn update(&mut self, limits: &Limits) -> Result<(), Error> {
        let pids = self.pids().step(|| "list the processes of the control group".into())?;
        self.update_with(limits, &pids)
    }

    /// As [`Group::update`], where `pids` are the processes of the group and of those below it.
    pub fn update_with(&mut self, limits: &Limits, pids: &[u32]) -> Result<(), Error> {
        if self.version == Version::V1 {
            let before = self.controllers.len();
            self.need_for(limits)?;
            for controller in self.controllers[before..].iter().copied() {
                v1::move_all(&self.dir(controller), pids);
            }
        }
        self.apply(limits)
    }
}

/// Processor time a period.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Microseconds; `None` is no limit.
    pub quota: Option<u64>,
    /// Microseconds.
    pub period: u64,
}

impl Quota {
    /// What the limits say, if they say anything.
    pub fn of(l: &Limits) -> Option<Quota> {
        if l.cpu_millis.is_none() && l.cpu_quota.is_none() && l.cpu_period.is_none() {
            return None;
        }
        let period = l.cpu_period.unwrap_or(PERIOD);
        // The kernel takes no less than a thousand.
        let of_millis = |m| (u64::from(m) * period / 1000).max(1000);
        let quota = match l.cpu_quota {
            Some(q) => u64::try_from(q).ok().filter(|q| *q > 0),
            None => l.cpu_millis.map(of_millis),
        };
        Some(Quota { quota, period })
    }
}

/// Processor time a period in microseconds: how much (`None` is no limit), and the period. `None` where the limits say nothing of it.
pub(crate) fn quota(l: &Limits) -> Option<(Option<u64>, u64)> {
    Quota::of(l).map(|q| (q.quota, q.period))
}

/// A part of a file's name that leads nowhere else.
pub(super) fn plain_file(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Error::Field("the control group's file", name.to_owned()));
    }
    Ok(())
}

pub(super) fn no_weights() -> Error {
    Error::Field(
        "the weight for block devices",
        "this host's control groups have none: that takes the bfq scheduler, or io.weight of version 2".into(),
    )
}

/// `MAJOR:MINOR` of a block device.
pub(super) fn device_number(path: &Path) -> Result<String, Error> {
    let number = block_device(path)?;
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

/// The number of a block device.
pub(crate) fn block_device(path: &Path) -> Result<u64, Error> {
    let meta = fs::metadata(path).step(|| format!("find block device {}", path.display()))?;
    if !meta.file_type().is_block_device() {
        return Err(Error::Field(
            "the limit on a block device",
            format!("{} is no block device", path.display()),
        ));
    }
    Ok(meta.rdev())
}

/// Version 2: hands all controllers down to the group's parents. One that a parent cannot give is missing then, and a limit that needs
/// it says so.
pub(super) fn delegate(root: &Path, path: &str) {
    let mut dir = root.to_owned();
    let parents: Vec<_> = Path::new(path).components().collect();
    for (i, part) in parents.iter().enumerate() {
        let read = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let (there, have) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let control = dir.join("cgroup.subtree_control");
        for controller in there.split_whitespace() {
            if !have.split_whitespace().any(|c| c == controller) {
                // One at a time: what cannot be handed down must not keep the others back.
                let _ = write(&control, &format!("+{controller}"));
            }
        }
        dir.push(part);
        if i + 1 < parents.len() {
            // A failure shows when the group itself is made.
            let _ = super::open_dir(&dir);
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

/// Some disk of this host.
#[cfg(test)]
pub(super) fn any_disk() -> Option<PathBuf> {
    let names = fs::read_dir("/sys/class/block").ok()?.flatten();
    let paths = names.map(|e| Path::new("/dev").join(e.file_name()));
    paths.into_iter().find(|p| device_number(p).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let of = |cpu_millis, cpu_quota, cpu_period| {
            let limits = Limits {
                cpu_millis,
                cpu_quota,
                cpu_period,
                ..Limits::default()
            };
            Quota::of(&limits).map(|q| (q.quota, q.period))
        };
        assert_eq!(of(Some(1500), None, None), Some((Some(150_000), PERIOD)));
        assert_eq!(of(Some(1), None, None), Some((Some(1000), PERIOD)));
        assert_eq!(of(Some(500), None, Some(20_000)), Some((Some(10_000), 20_000)));
        assert_eq!(of(None, Some(5000), Some(10_000)), Some((Some(5000), 10_000)));
        assert_eq!(of(Some(500), Some(-1), None), Some((None, PERIOD)));
        assert_eq!(of(None, None, None), None);
    }

    #[test]
    fn names_of_files_stay_in_the_group() {
        for bad in ["", "..", "a/b", "/x", ".hidden"] {
            assert!(plain_file(bad).is_err(), "{bad:?}");
        }
        assert!(plain_file("memory.high").is_ok());
    }
}
