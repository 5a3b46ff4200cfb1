//! Checkpoints of instances: made by the shim through CRIU, kept with the instance, and gone with it.
//!
//! `<state>/instances/<uid>/checkpoints/<name>/` holds CRIU's images and what is known beside them; only root reads it, since it is
//! the memory of processes. One that is being made has a name that none can have, until it is whole.

use std::io;
use std::path::{Path, PathBuf};

use biga_container::criu;
use biga_model::{Instance, Object, checkpoint_name_fault};
use biga_wire::checkpoint::{Checkpoint, CheckpointSpec, CheckpointWanted, Restore, SAVED_FILE, Saved};
use biga_wire::config::{ShimConfig, Workload};
use biga_wire::shim::{ErrorCode, Reply, Request};

use crate::engine::{Layout, private_dir};
use crate::instance::Failure;
use crate::prepare;
use crate::streams::{Error, Streams, read_reply};

/// Reason in the status of an instance that could not go on from a checkpoint.
pub const RESTORE_FAILED: &str = "RestoreFailed";

fn directory(layout: &Layout, uid: &str) -> PathBuf {
    layout.state_dir(uid).join("checkpoints")
}

impl Streams {
    /// Saves the processes of an instance. Unless they are left running, it has ended or is about to, and its policy does not
    /// start it again.
    pub async fn checkpoint(&self, namespace: &str, instance: &str, wanted: &CheckpointWanted) -> Result<(), Error> {
        named(&wanted.name)?;
        let object = self.running(namespace, instance).await?;
        possible(&object)?;
        if object.spec.auto_remove && !wanted.leave_running {
            return Err(Error::State(format!(
                "instance {instance} removes itself when it ends, and its checkpoints go with it: leave it running (--leave-running)"
            )));
        }
        let all = directory(self.layout(), object.uid());
        let dir = all.join(&wanted.name);
        if dir.exists() {
            return Err(Error::State(format!(
                "instance {instance} has a checkpoint {} already: remove it first, or choose another name",
                wanted.name
            )));
        }
        private_dir(&all).map_err(|f| Error::Failed(f.message))?;
        let program = criu::program("criu").map_err(|e| Error::Refused {
            code: ErrorCode::Unsupported,
            message: e.to_string(),
        })?;
        let checkpoint = CheckpointSpec {
            program,
            dir,
            leave_running: wanted.leave_running,
            tcp_established: wanted.tcp_established,
        };
        let mut io = self.ask(&object, &Request::Checkpoint { checkpoint }).await?;
        match read_reply(&mut io).await? {
            Reply::Ok => Ok(()),
            Reply::Error { code, message } => Err(Error::Refused { code, message }),
            _ => Err(Error::Failed("the shim gave another answer than was asked for".into())),
        }
    }

    /// Checkpoints of an instance, oldest first.
    pub async fn checkpoints(&self, namespace: &str, instance: &str) -> Result<Vec<Checkpoint>, Error> {
        let object = self.object(namespace, instance).await?;
        possible(&object)?;
        list(&directory(self.layout(), object.uid()))
            .map_err(|e| Error::Failed(format!("cannot list the checkpoints of {instance}: {e}")))
    }

    /// Removes a checkpoint.
    pub async fn remove_checkpoint(&self, namespace: &str, instance: &str, name: &str) -> Result<(), Error> {
        named(name)?;
        let object = self.object(namespace, instance).await?;
        possible(&object)?;
        let all = directory(self.layout(), object.uid());
        // First out of sight: what is half removed is no checkpoint.
        let gone = all.join(format!(".gone-{name}"));
        let removed = std::fs::rename(all.join(name), &gone).and_then(|()| std::fs::remove_dir_all(&gone));
        removed.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Missing(format!("instance {instance} has no checkpoint {name}")),
            _ => Error::Failed(format!("cannot remove checkpoint {name} of {instance}: {e}")),
        })
    }
}

fn named(name: &str) -> Result<(), Error> {
    checkpoint_name_fault(name).map_or(Ok(()), |message| {
        Err(Error::Refused {
            code: ErrorCode::Invalid,
            message,
        })
    })
}

/// Refuses what has no checkpoints.
fn possible(o: &Object<Instance>) -> Result<(), Error> {
    let why = match prepare::no_checkpoints(o.spec.isolation) {
        None if o.spec.is_pod() => "has several containers that share namespaces, which CRIU does not save apart",
        None => return Ok(()),
        Some(why) => why,
    };
    Err(Error::Refused {
        code: ErrorCode::Unsupported,
        message: format!("instance {} cannot be checkpointed: it {why}", o.name()),
    })
}

fn list(dir: &Path) -> io::Result<Vec<Checkpoint>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if checkpoint_name_fault(&name).is_some() {
            continue;
        }
        if let Some(saved) = read(&entry.path()) {
            all.push(Checkpoint {
                name,
                created_ns: saved.created_ns,
                size: size(&entry.path()),
            });
        }
    }
    all.sort_by(|a, b| (a.created_ns, &a.name).cmp(&(b.created_ns, &b.name)));
    Ok(all)
}

fn read(dir: &Path) -> Option<Saved> {
    serde_json::from_slice(&std::fs::read(dir.join(SAVED_FILE)).ok()?).ok()
}

/// Bytes on disk of the files in a directory and those below it.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => size(&e.path()),
        Ok(m) => m.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// Makes a prepared run one that goes on from a checkpoint.
pub(crate) fn restore(layout: &Layout, name: &str, config: &mut ShimConfig) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(RESTORE_FAILED, why);
    let dir = directory(layout, &config.uid).join(name);
    if checkpoint_name_fault(name).is_some() || read(&dir).is_none() {
        return Err(failed(format!(
            "instance {} has no checkpoint {name}: `biga checkpoint ls {}` lists them",
            config.name, config.name
        )));
    }
    let program = criu::program("criu").map_err(|e| failed(e.to_string()))?;
    match &mut config.workload {
        Workload::Container(c) => c.restore = Some(Restore { program, dir }),
        _ => return Err(failed(format!("instance {} has no checkpoints", config.name))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_is_listed() {
        let dir = std::env::temp_dir().join(format!("biga-checkpoints-{}", std::process::id()));
        assert_eq!(list(&dir).unwrap(), []);
        for (name, created_ns) in [("b", Some(1)), ("a", Some(2)), (".new-c", Some(3)), ("broken", None)] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
            let saved = Saved {
                created_ns: created_ns.unwrap_or_default(),
                ..Saved::default()
            };
            if created_ns.is_some() {
                std::fs::write(dir.join(name).join(SAVED_FILE), serde_json::to_vec(&saved).unwrap()).unwrap();
            }
        }
        let names: Vec<String> = list(&dir).unwrap().into_iter().map(|c| c.name).collect();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names, ["b", "a"], "the oldest first");
    }
}
