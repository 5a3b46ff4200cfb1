//! Every layer mounted once, for all who use it.
//!
//! A layer's EROFS file is mounted at `<run>/layers/<first digits of its diff id>`, straight from the file where
//! the kernel can, else through a loop device. [`LayerMounts::mount`] is a map look-up when the layer is mounted
//! already. Users are named (instance uids), so that a release can be repeated without harm.
//!
//! The parent directory is a private mount: nothing propagates into the mount namespaces of instances.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::LayerRecord;

/// Why a layer is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of mount points could not be made ready.
    #[error("cannot prepare {path} for mounting layers")]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the file, and the loop device failed too.
    #[error("cannot mount layer {file} at {at}: {why}")]
    Mount {
        /// The EROFS file.
        file: PathBuf,
        /// The mount point.
        at: PathBuf,
        /// Both causes.
        why: String,
    },
    /// A mount could not be undone.
    #[error("cannot unmount {at}")]
    Unmount {
        /// The mount point.
        at: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Digits of the diff id in a mount point's name. Short, so that the paths of 127 layers fit into one page of
/// overlay options.
const SHORT: usize = 12;

/// The mounted layers of this node.
#[derive(Debug)]
pub struct LayerMounts {
    dir: PathBuf,
    /// Not even try to mount from the file.
    by_loop: bool,
    /// By diff id. The inner lock is held while the layer is being mounted or unmounted.
    layers: Mutex<HashMap<String, Arc<Mutex<Layer>>>>,
}

#[derive(Debug, Default)]
struct Layer {
    /// Where it is mounted; `None` while it is not.
    at: Option<PathBuf>,
    users: HashSet<String>,
}

impl LayerMounts {
    /// Prepares `<run_root>/layers` as a private mount. Finds the mounts of an earlier process: tell their users by
    /// [`LayerMounts::adopt`], then [`LayerMounts::sweep`] the rest.
    pub fn new(run_root: &Path) -> Result<Arc<LayerMounts>, Error> {
        LayerMounts::with(run_root, false)
    }

    /// As [`LayerMounts::new`]; with `by_loop` every layer goes through a loop device, as on a kernel that cannot mount from
    /// a file.
    pub fn with(run_root: &Path, by_loop: bool) -> Result<Arc<LayerMounts>, Error> {
        let dir = run_root.join("layers");
        let failed = |source: io::Error| Error::Prepare {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let mounts = mount_points().map_err(failed)?;
        if !mounts.contains(&dir) {
            rustix::mount::mount_bind(&dir, &dir).map_err(|e| failed(e.into()))?;
        }
        rustix::mount::mount_change(&dir, MountPropagationFlags::PRIVATE).map_err(|e| failed(e.into()))?;
        Ok(Arc::new(LayerMounts {
            dir,
            by_loop,
            layers: Mutex::default(),
        }))
    }

    /// Mounts a layer unless it is, and notes its user. Blocks for as long as a mount takes.
    pub fn mount(&self, layer: &LayerRecord, user: &str) -> Result<PathBuf, Error> {
        loop {
            let entry = self.layers.lock().entry(layer.diff_id.clone()).or_default().clone();
            let mut held = entry.lock();
            // It may have been dropped from the map between the two locks.
            if !self.is_current(&layer.diff_id, &entry) {
                continue;
            }
            let at = match &held.at {
                Some(at) => at.clone(),
                None => self
                    .mount_now(layer)
                    .inspect_err(|_| self.forget(&layer.diff_id, &held))?,
            };
            held.at = Some(at.clone());
            if !held.users.contains(user) {
                held.users.insert(user.to_owned());
            }
            return Ok(at);
        }
    }

    /// Mounts all layers of an image, lowest first; releases `user`'s where one fails.
    pub fn mount_all(&self, layers: &[LayerRecord], user: &str) -> Result<Vec<PathBuf>, Error> {
        let mounted: Result<Vec<_>, _> = layers.iter().map(|l| self.mount(l, user)).collect();
        if mounted.is_err() {
            let _ = self.release(user);
        }
        mounted
    }

    /// Ends this user's use of every layer; unmounts those that nobody else uses.
    pub fn release(&self, user: &str) -> Result<(), Error> {
        let all: Vec<_> = self.layers.lock().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let mut result = Ok(());
        for (diff_id, entry) in all {
            let mut held = entry.lock();
            if !held.users.remove(user) || !held.users.is_empty() {
                continue;
            }
            if let Some(at) = held.at.take()
                && let Err(e) = unmount(&at)
            {
                result = Err(e);
            }
            self.forget(&diff_id, &held);
        }
        result
    }

    /// After a restart: notes that this user's instance still runs on these layers. A layer that is not mounted is left for
    /// [`LayerMounts::mount`].
    pub fn adopt(&self, layers: &[LayerRecord], user: &str) -> Result<(), Error> {
        let mounts = self.mounted()?;
        for layer in layers {
            let at = self.point(&layer.diff_id);
            if !mounts.contains(&at) {
                continue;
            }
            let entry = self.layers.lock().entry(layer.diff_id.clone()).or_default().clone();
            let mut held = entry.lock();
            held.at = Some(at);
            held.users.insert(user.to_owned());
        }
        Ok(())
    }

    /// Unmounts every layer that nobody adopted or mounted. Returns how many.
    pub fn sweep(&self) -> Result<usize, Error> {
        let mut swept = 0;
        for at in self.mounted()? {
            // Held while unmounting, so that no mount can begin here meanwhile; one under way holds its entry.
            let layers = self.layers.lock();
            let used = layers.iter().any(|(id, l)| match l.try_lock() {
                Some(l) => l.at.as_ref() == Some(&at),
                None => self.point(id) == at || self.dir.join(crate::digest::hex_of(id)) == at,
            });
            if !used {
                unmount(&at)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Where a layer is mounted when it is.
    fn point(&self, diff_id: &str) -> PathBuf {
        let hex = crate::digest::hex_of(diff_id);
        self.dir.join(hex.get(..SHORT).unwrap_or(hex))
    }

    /// As [`LayerMounts::point`], or the long name where another layer has the short one.
    fn free_point(&self, diff_id: &str) -> PathBuf {
        let short = self.point(diff_id);
        let taken = self.layers.lock().iter().any(|(id, l)| {
            id != diff_id && l.try_lock().is_none_or(|l| l.at.as_ref() == Some(&short)) && self.point(id) == short
        });
        if taken {
            self.dir.join(crate::digest::hex_of(diff_id))
        } else {
            short
        }
    }

    fn is_current(&self, diff_id: &str, entry: &Arc<Mutex<Layer>>) -> bool {
        self.layers.lock().get(diff_id).is_some_and(|e| Arc::ptr_eq(e, entry))
    }

    /// Drops the entry of a layer that is not mounted.
    fn forget(&self, diff_id: &str, held: &Layer) {
        if held.at.is_none() {
            self.layers.lock().remove(diff_id);
        }
    }

    fn mounted(&self) -> Result<Vec<PathBuf>, Error> {
        let all = mount_points().map_err(|source| Error::Prepare {
            path: self.dir.clone(),
            source,
        })?;
        Ok(all.into_iter().filter(|p| p.parent() == Some(&self.dir)).collect())
    }

    fn mount_now(&self, layer: &LayerRecord) -> Result<PathBuf, Error> {
        let at = self.free_point(&layer.diff_id);
        let failed = |why: String| Error::Mount {
            file: layer.file.clone(),
            at: at.clone(),
            why,
        };
        fs::create_dir_all(&at).map_err(|e| failed(e.to_string()))?;
        // A mount that no user adopted may be of another file: never reuse it.
        if mount_points().map_err(|e| failed(e.to_string()))?.contains(&at) {
            unmount(&at)?;
            fs::create_dir_all(&at).map_err(|e| failed(e.to_string()))?;
        }
        let flags = MountFlags::RDONLY | MountFlags::NODEV;
        let direct = match self.by_loop {
            true => "not tried, as it was set up".to_owned(),
            false => match rustix::mount::mount(&layer.file, &at, "erofs", flags, None) {
                Ok(()) => return Ok(at),
                Err(e) => e.to_string(),
            },
        };
        if let Err(looped) = mount_by_loop(&layer.file, &at) {
            let _ = fs::remove_dir(&at);
            return Err(failed(format!(
                "from the file: {direct}; through a loop device: {looped}"
            )));
        }
        Ok(at)
    }
}

/// Kernels before 6.12 mount EROFS from block devices only.
fn mount_by_loop(file: &Path, at: &Path) -> Result<(), String> {
    let out = Command::new("mount")
        .args(["-t", "erofs", "-o", "ro,nodev,loop"])
        .arg(file)
        .arg(at)
        .output()
        .map_err(|e| format!("cannot run mount: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).trim().to_owned())
    }
}

fn unmount(at: &Path) -> Result<(), Error> {
    let done = match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW) {
        // Somebody looks into it: it goes when they leave.
        Err(rustix::io::Errno::BUSY) => rustix::mount::unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    };
    match done {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
            let _ = fs::remove_dir(at);
            Ok(())
        }
        Err(e) => Err(Error::Unmount {
            at: at.to_path_buf(),
            source: e.into(),
        }),
    }
}

/// All mount points of this process's mount namespace.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|&b| b == b'\n')
        .filter_map(|line| line.split(|&b| b == b' ').nth(4))
        .map(unescape)
        .collect())
}

/// The kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field.get(i + 1..i + 4).and_then(|d| {
            d.iter().try_fold(0u32, |n, c| {
                matches!(c, b'0'..=b'7').then(|| n * 8 + u32::from(c - b'0'))
            })
        });
        match octal.and_then(|n| u8::try_from(n).ok()) {
            Some(byte) if field[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes() {
        assert_eq!(unescape(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(b"/a\\09"), Path::new("/a\\09"));
    }
}
