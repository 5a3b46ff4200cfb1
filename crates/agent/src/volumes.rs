//! Volumes on this node: a directory or a sparse disk file each, below `<state>/volumes/<uid>`.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use biga_model::{
    AGENT_FINALIZER, Condition, Instance, Object, Timestamp, Volume, VolumeMode, VolumeSpec, VolumeStatus,
};
use biga_store::Store;
use biga_store::typed::{Error as StoreError, Objects, SpecWriter, StatusWriter};

use crate::events::Recorder;
use crate::follow::{Follower, follow};
use crate::instance::Failure;
use crate::local_mounts;

/// The volumes of this node. A cheap handle.
#[derive(Clone)]
pub struct Volumes {
    root: PathBuf,
    objects: Objects<Volume>,
    instances: Objects<Instance>,
    specs: SpecWriter<Volume>,
    statuses: StatusWriter<Volume>,
    events: Recorder,
}

impl Volumes {
    /// Below `root`.
    pub fn new(root: PathBuf, store: Arc<dyn Store>, events: Recorder) -> Volumes {
        Volumes {
            root,
            objects: Objects::new(store.clone()),
            instances: Objects::new(store.clone()),
            specs: SpecWriter::new(store.clone()),
            statuses: StatusWriter::new(store),
            events,
        }
    }

    /// Follows `Volume` objects until the task is dropped.
    pub async fn run(self) {
        follow(&self).await;
    }

    /// Makes the volume and says so in its status.
    async fn make(&self, o: &Object<Volume>) -> Result<PathBuf, Failure> {
        let result = make_files(&self.root, o);
        let now = Timestamp::now();
        let status = match &result {
            Ok(path) => VolumeStatus {
                ready: true,
                path: path.display().to_string(),
                ..VolumeStatus::default()
            },
            Err(e) => VolumeStatus {
                message: e.to_string(),
                ..VolumeStatus::default()
            },
        };
        let generation = o.metadata.generation;
        let set = |s: &mut VolumeStatus| {
            let conditions = std::mem::take(&mut s.conditions);
            *s = VolumeStatus {
                conditions,
                observed_generation: generation,
                ..status.clone()
            };
            let reason = if s.ready { "Made" } else { "VolumeFailed" };
            Condition::set(&mut s.conditions, "Ready", s.ready, reason, &status.message, now);
        };
        let m = &o.metadata;
        let ns = m.namespace.as_deref().unwrap_or_default();
        if let Err(e) = self.statuses.modify_status(ns, &m.name, &m.uid, set).await {
            tracing::debug!(volume = %m.name, "status not written: {e}");
        }
        result.map_err(|e| Failure::new("VolumeFailed", format!("cannot make volume {}: {e}", m.name)))
    }

    async fn remove(&self, o: &Object<Volume>) -> bool {
        let m = &o.metadata;
        let ns = m.namespace.as_deref().unwrap_or_default();
        match self.user_of(ns, &m.name).await {
            Ok(None) => {}
            Ok(Some(user)) => {
                let message = format!("it goes when instance {user} is removed, which uses it");
                self.events.record(o, true, "VolumeInUse", &message);
                return false;
            }
            Err(e) => {
                tracing::warn!("cannot tell who uses volume {}: {e}", m.name);
                return false;
            }
        }
        let dir = self.root.join(&m.uid);
        // What is mounted there is not ours to delete.
        if let Err(e) = local_mounts::unmount(&dir.join("_data")).and_then(|()| remove_tree(&dir)) {
            self.events
                .record(o, true, "VolumeFailed", &format!("its files cannot be removed: {e}"));
            return false;
        }
        match self
            .statuses
            .remove_finalizer(ns, &m.name, &m.uid, AGENT_FINALIZER)
            .await
        {
            Ok(_) => true,
            Err(e) => e.is_not_found(),
        }
    }

    async fn user_of(&self, namespace: &str, volume: &str) -> Result<Option<String>, StoreError> {
        let all = self.instances.list(Some(namespace)).await?;
        let uses = |o: &Object<Instance>| o.spec.volumes.iter().any(|v| v.volume.as_deref() == Some(volume));
        Ok(all.items.into_iter().find(uses).map(|o| o.metadata.name))
    }

    /// As [`Volumes::resolve`], for use now: what is to be mounted is mounted. The last value says whether something is.
    pub async fn open(&self, namespace: &str, name: &str) -> Result<(VolumeMode, PathBuf, bool), Failure> {
        let (mode, path) = self.resolve(namespace, name).await?;
        let object = self.objects.find(namespace, name).await;
        let object = object.map_err(|e| Failure::new("StoreFailed", e.to_string()))?;
        let wanted = object.and_then(|o| o.spec.mount);
        if let Some(m) = &wanted {
            local_mounts::mount(m, &path).await?;
        }
        Ok((mode, path, wanted.is_some()))
    }

    /// The volume `name`, made where it does not exist: its mode and its path.
    pub async fn resolve(&self, namespace: &str, name: &str) -> Result<(VolumeMode, PathBuf), Failure> {
        let store = |e: StoreError| Failure::new("StoreFailed", e.to_string());
        let object = match self.objects.find(namespace, name).await.map_err(store)? {
            Some(o) => o,
            None => {
                let mut o = Object::new(name, VolumeSpec::default());
                o.metadata.namespace = Some(namespace.into());
                match self.specs.create(o).await {
                    Ok(o) => o,
                    Err(StoreError::AlreadyExists { .. }) => self.objects.get(namespace, name).await.map_err(store)?,
                    Err(e) => return Err(store(e)),
                }
            }
        };
        if object.is_deleting() {
            return Err(Failure::new("VolumeRemoved", format!("volume {name} is being removed")));
        }
        let status = object.status_or_default();
        if status.ready && status.observed_generation == object.metadata.generation {
            return Ok((object.spec.mode, PathBuf::from(status.path)));
        }
        Ok((object.spec.mode, self.make(&object).await?))
    }
}

impl Follower for Volumes {
    type Kind = Volume;

    fn objects(&self) -> &Objects<Volume> {
        &self.objects
    }

    fn instances(&self) -> &Objects<Instance> {
        &self.instances
    }

    async fn look(&self, o: &Object<Volume>) -> bool {
        if o.is_deleting() {
            return self.remove(o).await;
        }
        let s = o.status_or_default();
        if s.observed_generation != o.metadata.generation
            && let Err(f) = self.make(o).await
        {
            self.events.record(o, true, f.reason, &f.message);
        }
        true
    }
}

fn make_files(root: &Path, o: &Object<Volume>) -> io::Result<PathBuf> {
    let dir = root.join(&o.metadata.uid);
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
    match o.spec.mode {
        VolumeMode::Directory => {
            let data = dir.join("_data");
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&data)?;
            Ok(data)
        }
        VolumeMode::Block => {
            let file = dir.join("disk.raw");
            let size = o.spec.size.map_or(0, |s| s.bytes());
            let f = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file)?;
            if f.metadata()?.len() < size {
                f.set_len(size)?;
            }
            Ok(file)
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Puts an ext4 file system on a block volume that is still blank.
pub async fn format_if_blank(file: &Path) -> Result<(), Failure> {
    let failed = |why: String| Failure::new("VolumeFailed", format!("cannot format {}: {why}", file.display()));
    let mut head = vec![0u8; 64 << 10];
    let f = std::fs::File::open(file).map_err(|e| failed(e.to_string()))?;
    let got = f.read_at(&mut head, 0).map_err(|e| failed(e.to_string()))?;
    if head[..got].iter().any(|b| *b != 0) {
        return Ok(());
    }
    drop(f);
    let out = tokio::process::Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        ])
        .arg(file)
        .output()
        .await
        .map_err(|e| failed(format!("mkfs.ext4: {e} (package e2fsprogs)")))?;
    if !out.status.success() {
        return Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use biga_model::Memory;

    use super::*;

    #[test]
    fn files_are_made_and_grow() {
        let dir = tempfile::tempdir().unwrap();
        let mut o: Object<Volume> = Object::new("v", VolumeSpec::default());
        o.metadata.uid = "u1".into();
        assert!(make_files(dir.path(), &o).unwrap().is_dir());
        o.metadata.uid = "u2".into();
        o.spec = VolumeSpec {
            mode: VolumeMode::Block,
            size: Some(Memory::mib(2)),
            ..VolumeSpec::default()
        };
        let file = make_files(dir.path(), &o).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .write_at(b"data", 10)
            .unwrap();
        o.spec.size = Some(Memory::mib(3));
        make_files(dir.path(), &o).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!((bytes.len(), &bytes[10..14]), (3 << 20, &b"data"[..]));
        remove_tree(&dir.path().join("u2")).unwrap();
        remove_tree(&dir.path().join("u2")).unwrap();
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_file_system_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.raw");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        format_if_blank(&file).await.unwrap();
        let read_uuid = || std::fs::read(&file).unwrap()[1024 + 0x68..1024 + 0x78].to_vec();
        let first = read_uuid();
        assert!(first.iter().any(|b| *b != 0));
        format_if_blank(&file).await.unwrap();
        assert_eq!(read_uuid(), first);
    }
}
