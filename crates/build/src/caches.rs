//! Directories of `RUN --mount=type=cache`: each found again by its name, and in use by as many steps as its sharing allows.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use biga_dockerfile::Sharing;
use biga_wire::cache::CacheRecord;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::Error;
use crate::pick::hex;

/// Most directories of one name, where each step gets its own.
const MAX_PRIVATE: usize = 64;
/// What such a directory is in BuildKit's words.
pub const CACHE: &str = "exec.cachemount";
/// The file beside one with its id.
const ID: &str = "id";
/// The file beside one that is as old as its last use.
const USED: &str = "used";

/// All of them.
pub struct Caches {
    dir: PathBuf,
    used: Mutex<HashMap<String, Use>>,
    changed: watch::Sender<()>,
}

/// Steps that use one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Shared(usize),
    Alone,
}

/// One in use, for as long as this is held.
pub struct Held {
    caches: Arc<Caches>,
    name: String,
    /// Where its files are.
    pub path: PathBuf,
    /// Whether it was made for this.
    pub new: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut used = self.caches.used.lock();
        match used.get_mut(&self.name) {
            Some(Use::Shared(n)) if *n > 1 => *n -= 1,
            _ => drop(used.remove(&self.name)),
        }
        drop(used);
        self.caches.changed.send_replace(());
    }
}

/// How a new one is made.
#[derive(Debug, Clone, Copy)]
pub struct New {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Caches {
    /// Kept in this directory.
    pub fn new(dir: PathBuf) -> Caches {
        Caches {
            dir,
            used: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// The directory of this id, made where it is missing. Waits where nobody else may have it.
    pub async fn hold(self: &Arc<Self>, id: &str, sharing: Sharing, new: New) -> Result<Held, Error> {
        let hash: String = hex(&Sha256::digest(id.as_bytes())).chars().take(32).collect();
        let mut changed = self.changed.subscribe();
        let name = loop {
            changed.borrow_and_update();
            if let Some(name) = self.take(&hash, sharing)? {
                break name;
            }
            // The sender lives as long as this does.
            let _ = changed.changed().await;
        };
        let mut held = Held {
            path: self.dir.join(&name).join("files"),
            caches: self.clone(),
            name,
            new: false,
        };
        let failed = |e: std::io::Error| Error::Failed(format!("the cache {id} cannot be made: {e}"));
        held.new = self.make(&held, id, new).map_err(failed)?;
        Ok(held)
    }

    fn take(&self, hash: &str, sharing: Sharing) -> Result<Option<String>, Error> {
        let mut used = self.used.lock();
        let name = |n: usize| format!("{hash}-{n}");
        let mut first = || match (used.get_mut(&name(0)), sharing) {
            (None, Sharing::Shared) => Some(Use::Shared(1)),
            (None, _) => Some(Use::Alone),
            (Some(Use::Shared(n)), Sharing::Shared) => Some(Use::Shared(*n + 1)),
            _ => None,
        };
        if let Some(taken) = first() {
            used.insert(name(0), taken);
            return Ok(Some(name(0)));
        }
        if sharing != Sharing::Private {
            return Ok(None);
        }
        let free = (1..MAX_PRIVATE).map(name).find(|n| !used.contains_key(n));
        let free = free.ok_or_else(|| Error::Failed("too many steps use one private cache at a time".into()))?;
        used.insert(free.clone(), Use::Alone);
        Ok(Some(free))
    }

    fn make(&self, held: &Held, id: &str, new: New) -> std::io::Result<bool> {
        let dir = self.dir.join(&held.name);
        std::fs::create_dir_all(&dir)?;
        std::fs::File::create(dir.join(USED))?.set_modified(std::time::SystemTime::now())?;
        if held.path.is_dir() {
            return Ok(false);
        }
        // Others than root see no files of builds.
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o700))?;
        std::fs::write(dir.join(ID), id)?;
        // Under its own name only when it is complete.
        let making = dir.join("making");
        let _ = std::fs::remove_dir_all(&making);
        std::fs::create_dir(&making)?;
        std::os::unix::fs::chown(&making, Some(new.uid), Some(new.gid))?;
        std::fs::set_permissions(&making, std::fs::Permissions::from_mode(new.mode))?;
        std::fs::rename(&making, &held.path)?;
        Ok(true)
    }

    fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = all.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What there is. Reads every directory: to be called where that is allowed.
    pub fn usage(&self) -> Vec<CacheRecord> {
        let one = |name: String| {
            let dir = self.dir.join(&name);
            let id = std::fs::read_to_string(dir.join(ID)).unwrap_or_default();
            let time = |file: &str| std::fs::metadata(dir.join(file)).map_or(0, |m| m.mtime());
            let created = time(ID);
            CacheRecord {
                kind: CACHE.into(),
                description: format!("cached mount {id}"),
                size: size(&dir),
                in_use: self.used.lock().contains_key(&name),
                shared: false,
                created,
                used: time(USED).max(created),
                id: name,
            }
        };
        self.names().into_iter().map(one).collect()
    }

    /// Removes those of these that no step uses; their ids and bytes.
    pub fn prune(&self, chosen: &[String]) -> (Vec<String>, u64) {
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for name in self.names().into_iter().filter(|n| chosen.contains(n)) {
            {
                let mut used = self.used.lock();
                if used.contains_key(&name) {
                    continue;
                }
                // Nobody takes it while it goes.
                used.insert(name.clone(), Use::Alone);
            }
            let dir = self.dir.join(&name);
            let freed = size(&dir);
            match std::fs::remove_dir_all(&dir) {
                Ok(()) => {
                    bytes += freed;
                    removed.push(name.clone());
                }
                Err(e) => tracing::warn!("the cache {} stays: {e}", dir.display()),
            }
            self.used.lock().remove(&name);
            self.changed.send_replace(());
        }
        (removed, bytes)
    }
}

/// Bytes on disk of a directory, without following links.
fn size(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: New = New {
        mode: 0o755,
        uid: 0,
        gid: 0,
    };

    #[tokio::test]
    async fn who_shares_and_who_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let caches = Arc::new(Caches::new(dir.path().join("c")));
        // Owners are root's to give.
        if std::fs::create_dir_all(dir.path().join("c")).is_err() || !rooted(dir.path()) {
            return;
        }
        let a = caches.hold("x", Sharing::Shared, NEW).await.unwrap();
        let b = caches.hold("x", Sharing::Shared, NEW).await.unwrap();
        assert!(a.path == b.path && a.new && !b.new);
        let private = caches.hold("x", Sharing::Private, NEW).await.unwrap();
        assert_ne!(private.path, a.path);
        let other = caches.clone();
        let waiting = tokio::spawn(async move { other.hold("x", Sharing::Locked, NEW).await.map(|h| h.path.clone()) });
        drop(a);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let path = b.path.clone();
        std::fs::write(path.join("kept"), "1234").unwrap();
        drop(b);
        assert_eq!(waiting.await.unwrap().unwrap(), path);
        // In use by a step it stays.
        let all: Vec<String> = caches.usage().into_iter().map(|u| u.id).collect();
        assert_eq!(caches.prune(&all[..0]).0.len(), 0);
        assert_eq!(caches.prune(&all).0.len(), 1);
        assert!(private.path.is_dir() && !path.exists());
        let usage = caches.usage();
        assert!(usage.len() == 1 && usage[0].in_use && usage[0].description.ends_with("mount x"));
        assert!(usage[0].created > 0 && usage[0].used >= usage[0].created);
    }

    fn rooted(dir: &Path) -> bool {
        std::fs::metadata(dir).is_ok_and(|m| m.uid() == 0)
    }
}
