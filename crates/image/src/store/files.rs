//! Files of the store: their names, and how they appear whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tempfile::NamedTempFile;

use super::ImageStore;
use crate::{DiskFormat, Error};

/// Another process that is just ending may hold the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A content-addressed thing in the store. The text is the digits of its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Blob(String),
    Layer(String),
    Disk(String),
    /// A record that is being written.
    Image(String),
}

pub(super) type PinTable = Arc<Mutex<HashMap<Name, usize>>>;

/// Keeps names from being collected until it is dropped.
pub(super) struct Pins {
    table: PinTable,
    names: Vec<Name>,
}

impl Pins {
    pub(super) fn add(&mut self, name: Name) {
        *self.table.lock().entry(name.clone()).or_default() += 1;
        self.names.push(name);
    }

    /// Keeps what the other kept.
    pub(super) fn take_over(&mut self, mut other: Pins) {
        self.names.append(&mut other.names);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        for name in &self.names {
            if let Some(count) = table.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    table.remove(name);
                }
            }
        }
    }
}

/// Makes the directories, takes the lock, and clears what a crash left. The file returned holds the lock.
pub(super) fn prepare(root: &Path) -> Result<File, Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for dir in ["", "images", "blobs/sha256", "layers", "disks", "used", "tmp"] {
        let path = root.join(dir);
        builder.create(&path).map_err(Error::io("create", &path))?;
    }
    let path = root.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    let started = std::time::Instant::now();
    while let Err(e) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if e != rustix::io::Errno::WOULDBLOCK {
            return Err(Error::io("lock", &path)(e.into()));
        }
        if started.elapsed() > LOCK_PATIENCE {
            return Err(Error::Locked(root.to_path_buf()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let tmp = root.join("tmp");
    for entry in fs::read_dir(&tmp).map_err(Error::io("list", &tmp))? {
        let path = entry.map_err(Error::io("list", &tmp))?.path();
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(lock)
}

/// Runs what blocks where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Cancelled)?
}

impl ImageStore {
    pub(super) fn pins(&self) -> Pins {
        Pins {
            table: self.pins.clone(),
            names: Vec::new(),
        }
    }

    pub(super) fn blob_path(&self, hex: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex)
    }

    pub(super) fn layer_path(&self, hex: &str, extension: &str) -> PathBuf {
        self.root.join("layers").join(format!("{hex}.{extension}"))
    }

    pub(super) fn disk_path(&self, hex: &str, format: DiskFormat) -> PathBuf {
        self.root.join("disks").join(format!("{hex}.{}", format.as_str()))
    }

    pub(super) fn image_path(&self, hex: &str) -> PathBuf {
        self.root.join("images").join(format!("{hex}.json"))
    }

    /// A file that vanishes unless it is put in its place.
    pub(super) fn temp(&self) -> Result<NamedTempFile, Error> {
        let dir = self.root.join("tmp");
        NamedTempFile::new_in(&dir).map_err(Error::io("create a file in", &dir))
    }

    /// Puts a finished file in its place, after its content reached the disk. Replaces what is there.
    pub(super) fn place(&self, file: NamedTempFile, path: &Path) -> Result<(), Error> {
        file.as_file().sync_data().map_err(Error::io("write", file.path()))?;
        let mode = fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(mode)
            .map_err(Error::io("write", file.path()))?;
        self.options.steps.at("place");
        file.persist(path).map_err(|e| Error::io("create", path)(e.error))?;
        let dir = path.parent().unwrap_or(path);
        let sync = File::open(dir).and_then(|d| d.sync_all());
        sync.map_err(Error::io("write", dir))
    }

    pub(super) fn write_whole(&self, bytes: &[u8], path: &Path) -> Result<(), Error> {
        let mut file = self.temp()?;
        file.write_all(bytes).map_err(Error::io("write", path))?;
        self.place(file, path)
    }

    /// Keeps a document; returns its digest.
    pub(super) fn write_blob(&self, bytes: &[u8], pins: &mut Pins) -> Result<String, Error> {
        let digest = crate::digest::of(bytes);
        let hex = crate::digest::hex_of(&digest);
        pins.add(Name::Blob(hex.to_owned()));
        let path = self.blob_path(hex);
        if !path.exists() {
            self.write_whole(bytes, &path)?;
        }
        Ok(digest)
    }

    /// A document, checked.
    pub(super) fn read_blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(crate::digest::hex_of(digest));
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        if crate::digest::of(&bytes) != digest {
            return Err(Error::Damaged {
                path,
                why: "its digest is not its name".into(),
            });
        }
        Ok(bytes)
    }
}
