//! What is known of a container between commands: a directory below the root, `<root>/<id>/`.
//!
//! ```text
//!  state.json    who it is; written when it is made
//!  config.json   the bundle's, as it was then
//!  start, result fifos by which `start` speaks to the waiting process; gone once it runs
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use biga_container::cgroup::Group;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Step};
use crate::spec::Spec;

/// What is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification that the bundle names.
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// Its first process, as this host sees it.
    pub pid: u32,
    /// When that was made, in clock ticks since the host started: tells it from another with its id.
    pub start_time: u64,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// When it was made.
    pub created: String,
    /// The bundle's.
    pub annotations: BTreeMap<String, String>,
    /// Path of its control group.
    pub cgroup: String,
    /// Whether its process ids are its own.
    pub own_pids: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl Status {
    /// As the specification writes it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Place(pub PathBuf);

impl Place {
    /// Where a container of this name is, or would be.
    pub fn of(root: &Path, id: &str) -> Result<Place, Error> {
        let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 1024 || !id.chars().all(good) || id == "." || id == ".." {
            return Err(Error::Usage(format!(
                "invalid id {id:?}: it may hold letters, digits and _+-. only"
            )));
        }
        Ok(Place(root.join(id)))
    }

    /// Takes the name.
    pub fn make(&self, id: &str) -> Result<(), Error> {
        let what = || format!("make directory {}", self.0.display());
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o711);
        match builder.create(&self.0) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(id.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = self.0.parent().unwrap_or(Path::new("/"));
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(parent)
                    .step(what)?;
                builder.create(&self.0).step(what)
            }
            Err(e) => Err(e).step(what),
        }
    }

    /// Gives the name back.
    pub fn remove(&self) -> Result<(), Error> {
        for name in ["state.json", "config.json", "start", "result", "pid"] {
            match fs::remove_file(self.0.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(e).step(|| format!("remove {}", self.0.join(name).display()));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.0) {
            // Somebody put something of his own there.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.0),
            // Who stays with a container deletes it too when it ends.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
        .step(|| format!("remove directory {}", self.0.display()))
    }

    /// Writes state and configuration down, so that no reader sees half of them.
    pub fn save(&self, state: &State, config: &[u8]) -> Result<(), Error> {
        let what = || format!("write the state to {}", self.0.display());
        fs::write(self.0.join("config.json"), config).step(what)?;
        let text = serde_json::to_vec(state).map_err(io::Error::from).step(what)?;
        let new = self.0.join("state.json.new");
        fs::write(&new, text).step(what)?;
        fs::rename(&new, self.0.join("state.json")).step(what)
    }

    /// Reads the state.
    pub fn load(&self) -> Result<State, Error> {
        let path = self.0.join("state.json");
        let text = match fs::read(&path) {
            Ok(t) => t,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let name = self.0.file_name().unwrap_or_default();
                return Err(Error::NotFound(name.to_string_lossy().into_owned()));
            }
            Err(e) => return Err(e).step(|| format!("read {}", path.display())),
        };
        serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.display().to_string(),
            source,
        })
    }

    /// Reads the configuration it was made with.
    pub fn config(&self) -> Result<Spec, Error> {
        read_spec(&self.0.join("config.json")).map(|(spec, _)| spec)
    }

    /// Whether its process waits for `start`.
    pub fn waits(&self) -> bool {
        self.0.join("start").exists()
    }
}

impl State {
    /// Holds its first process, if that still is.
    pub fn process(&self) -> Option<OwnedFd> {
        let pidfd = biga_sys::process::open_pidfd(self.pid).ok()?;
        // Looked at after it is held: now the id cannot change hands any more.
        (start_time(self.pid)? == self.start_time).then_some(pidfd)
    }

    /// Where it is in its life.
    pub fn status(&self, place: &Place) -> Status {
        if self.pid == 0 || start_time(self.pid) != Some(self.start_time) {
            Status::Stopped
        } else if self.group().is_frozen() {
            Status::Paused
        } else if place.waits() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// Its control group.
    pub fn group(&self) -> Group {
        Group::open(&self.cgroup)
    }

    /// What hooks and callers are told of it.
    pub fn document(&self, status: &str) -> serde_json::Value {
        let mut all = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": if status == "stopped" { 0 } else { self.pid },
            "bundle": self.bundle,
        });
        if !self.annotations.is_empty() {
            all["annotations"] = serde_json::json!(self.annotations);
        }
        all
    }
}

/// When a living process was made, in clock ticks since the host started; `None` for one that ended.
pub fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: what follows is behind its last parenthesis.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Reads a `config.json`, and its bytes.
pub fn read_spec(path: &Path) -> Result<(Spec, Vec<u8>), Error> {
    const MAX: u64 = 16 << 20;
    let what = || format!("read {}", path.display());
    if fs::metadata(path).step(what)?.len() > MAX {
        return Err(Error::Usage(format!(
            "{} is too large to be a configuration",
            path.display()
        )));
    }
    let text = fs::read(path).step(what)?;
    let spec = parse(&text).map_err(|source| Error::Json {
        path: path.display().to_string(),
        source,
    })?;
    Ok((spec, text))
}

/// Reads a document. Programs written in Go may say `null` where they mean nothing.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    match serde_json::from_slice(text) {
        Ok(t) => Ok(t),
        Err(e) => {
            let mut value: serde_json::Value = serde_json::from_slice(text)?;
            strip_nulls(&mut value);
            serde_json::from_value(value).map_err(|_| e)
        }
    }
}

fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root() {
        let root = Path::new("/run/x");
        assert!(Place::of(root, "web-1.a_b+c").is_ok());
        for id in ["", ".", "..", "a/b", "../a", "a b", "\u{e4}"] {
            assert!(Place::of(root, id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn nulls_are_nothing() {
        let spec: Spec = parse(br#"{"mounts": null, "process": {"args": null, "cwd": "/"}}"#).unwrap();
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.process.unwrap().cwd, "/");
        assert!(parse::<Spec>(br#"{"mounts": 3}"#).is_err());
    }

    #[test]
    fn this_process_is_known_by_its_start() {
        let own = std::process::id();
        assert!(start_time(own).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }
}
