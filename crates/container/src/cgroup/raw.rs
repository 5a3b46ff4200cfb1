//! A group as a caller knows it who speaks in controllers and files, and who comes back to a group made by another process.

use std::io;
use std::path::{Path, PathBuf};

use super::{Group, ROOT, Version, limits, make_dir, version, write};
use crate::Error;
use crate::error::Context;

/// Controllers of version 1 that a group may have, in the order in which they are looked at.
const V1: [&str; 13] = [
    "memory",
    "pids",
    "cpuacct",
    "freezer",
    "devices",
    "blkio",
    "cpu",
    "cpuset",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

impl Group {
    /// Takes a group over that exists already; nothing of it is changed. One that is gone has no processes and can be removed.
    pub fn open(path: &str) -> Group {
        let version = version();
        let there = |c: &&str| [ROOT, c, path].iter().collect::<PathBuf>().is_dir();
        let controllers = match version {
            Version::V1 => V1.into_iter().filter(there).collect(),
            Version::V2 => Vec::new(),
        };
        Group {
            path: path.to_owned(),
            version,
            controllers,
            has_memory_limit: true,
        }
    }

    /// Which version it is on.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Path below the root(s).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Version 1: the controllers it has.
    pub fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }

    /// Its directory, of a controller on version 1.
    pub fn directory_of(&self, controller: &str) -> PathBuf {
        self.dir(controller)
    }

    /// Version 1: makes sure that the group has this controller, and moves its processes there.
    pub fn need(&mut self, controller: &str) -> Result<(), Error> {
        if self.version == Version::V2 || self.controllers.contains(&controller) {
            return Ok(());
        }
        let known = V1.iter().find(|c| **c == controller);
        let mounted = known.filter(|c| Path::new(ROOT).join(c).is_dir());
        let Some(controller) = mounted else {
            return Err(Error::Field(
                "the control group",
                format!("this host has no controller {controller}"),
            ));
        };
        let pids = if self.controllers.is_empty() {
            Vec::new()
        } else {
            self.pids().step(|| "list the processes of the control group".into())?
        };
        make_dir(&self.dir(controller))?;
        if *controller == "cpuset" {
            limits::inherit_cpuset(&self.path)?;
        }
        for pid in pids {
            // One that ended meanwhile is no failure.
            let _ = write(&self.dir(controller).join("cgroup.procs"), &pid.to_string());
        }
        self.controllers.push(controller);
        Ok(())
    }

    /// Writes one of its files.
    pub fn set(&self, controller: &str, file: &str, value: &str) -> Result<(), Error> {
        self.write(controller, file, value)
    }

    /// Reads one of its files; nothing where there is none.
    pub fn get(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.dir(controller).join(file)).ok()
    }

    /// Whether its processes are frozen.
    pub fn is_frozen(&self) -> bool {
        match self.version {
            Version::V1 => self
                .get("freezer", "freezer.state")
                .is_some_and(|s| !s.starts_with("THAWED")),
            Version::V2 => self.get("", "cgroup.events").is_some_and(|s| s.contains("frozen 1")),
        }
    }

    /// Whether there is anything left of it.
    pub fn exists(&self) -> bool {
        match self.version {
            Version::V1 => !self.controllers.is_empty(),
            Version::V2 => self.dir("").is_dir(),
        }
    }

    /// Ids of its processes and of those in groups below it.
    pub fn all_pids(&self) -> io::Result<Vec<u32>> {
        let controller = self.controllers.first().copied().unwrap_or_default();
        let mut pids = Vec::new();
        collect(&self.dir(controller), &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

fn collect(dir: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    match super::pids_in(dir) {
        Ok(found) => pids.extend(found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A threaded group of version 2 lists no processes: they are in the one above it.
        Err(e) if e.raw_os_error() == Some(95) => {}
        Err(e) => return Err(e),
    }
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), pids)?;
        }
    }
    Ok(())
}
