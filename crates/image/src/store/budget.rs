//! How much disk images take, when each was last used, and which must go where they take too much.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::ImageStore;
use super::files::Name;
use super::gc::{list, name_of, reach};
use crate::{Error, ImageId};

/// One image as the choice sees it.
struct Candidate {
    id: ImageId,
    used: SystemTime,
    keep: bool,
    parts: HashSet<Name>,
}

impl ImageStore {
    /// Notes that an image is used now.
    pub fn touch(&self, id: &ImageId) {
        let path = self.used_path(id.hex());
        let touched = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|f| f.set_modified(SystemTime::now()));
        if let Err(e) = touched {
            // Worth no failure: the image only seems to be unused for longer than it is.
            tracing::warn!("cannot note the use of an image in {}: {e}", path.display());
        }
    }

    /// Bytes of disk that images take.
    pub fn usage(&self) -> Result<u64, Error> {
        Ok(self.sizes()?.values().sum())
    }

    /// The images that must go so that the others fit into [`Options::disk_budget`](super::Options::disk_budget): those used least recently first, none
    /// of `keep`, and none that is being worked on. Nothing is removed here: whoever owns their names lets go of them, and
    /// collects.
    pub fn over_budget(&self, keep: &HashSet<ImageId>) -> Result<Vec<ImageId>, Error> {
        let Some(budget) = self.options.disk_budget else {
            return Ok(Vec::new());
        };
        let sizes = self.sizes()?;
        let mut candidates = Vec::new();
        for record in self.read_records()? {
            let mut parts = HashSet::new();
            reach(self, &record, &mut parts);
            let hex = record.image_id.hex();
            let written = fs::metadata(self.image_path(hex)).and_then(|m| m.modified()).ok();
            let used = written.max(self.last_use(hex)).unwrap_or(SystemTime::UNIX_EPOCH);
            let worked_on = self.pins.lock().contains_key(&Name::Image(hex.to_owned()));
            candidates.push(Candidate {
                keep: worked_on || keep.contains(&record.image_id),
                id: record.image_id,
                used,
                parts,
            });
        }
        Ok(choose(candidates, &sizes, budget))
    }

    /// When an image was last used.
    pub(super) fn last_use(&self, hex: &str) -> Option<SystemTime> {
        fs::metadata(self.used_path(hex)).and_then(|m| m.modified()).ok()
    }

    /// Drops the note on one.
    pub(super) fn forget_use(&self, hex: &str) {
        // There may be none.
        let _ = fs::remove_file(self.used_path(hex));
    }

    /// Drops the notes on images that are gone.
    pub(super) fn forget_uses(&self) {
        for path in list(&self.root.join("used")).unwrap_or_default() {
            let hex = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            if !self.image_path(&hex).exists() {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn used_path(&self, hex: &str) -> PathBuf {
        self.root.join("used").join(hex)
    }

    /// Bytes on disk of all content.
    fn sizes(&self) -> Result<HashMap<Name, u64>, Error> {
        let mut all: HashMap<Name, u64> = HashMap::new();
        for dir in ["blobs/sha256", "layers", "disks"] {
            for path in list(&self.root.join(dir))? {
                // A collection may be at work.
                if let Ok(m) = fs::metadata(&path) {
                    *all.entry(name_of(dir, &path)).or_default() += m.blocks() * 512;
                }
            }
        }
        Ok(all)
    }
}

/// Which images go. What two images share goes with the second.
fn choose(mut images: Vec<Candidate>, sizes: &HashMap<Name, u64>, budget: u64) -> Vec<ImageId> {
    let mut users: HashMap<&Name, usize> = HashMap::new();
    for name in images.iter().flat_map(|i| &i.parts) {
        if let Some((name, _)) = sizes.get_key_value(name) {
            *users.entry(name).or_default() += 1;
        }
    }
    let mut usage: u64 = sizes.values().sum();
    images.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    let mut gone = Vec::new();
    for image in images.iter().filter(|i| !i.keep) {
        if usage <= budget {
            break;
        }
        for name in &image.parts {
            if let Some(n) = users.get_mut(name) {
                *n -= 1;
                if *n == 0 {
                    usage -= sizes.get(name).copied().unwrap_or(0);
                }
            }
        }
        gone.push(image.id.clone());
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(c: char) -> ImageId {
        format!("sha256:{}", c.to_string().repeat(64)).parse().unwrap()
    }

    fn image(c: char, used: u64, keep: bool, layers: &[&str]) -> Candidate {
        Candidate {
            id: id(c),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
            keep,
            parts: layers.iter().map(|l| Name::Layer((*l).into())).collect(),
        }
    }

    #[test]
    fn the_least_recently_used_go_first_and_shared_layers_count_once() {
        let sizes: HashMap<Name, u64> = [("base", 100), ("a", 10), ("b", 20), ("c", 30)]
            .map(|(n, s)| (Name::Layer(n.into()), s))
            .into();
        let all = |kept: &str| {
            [
                ('a', 3, ["base", "a"]),
                ('b', 1, ["base", "b"]),
                ('c', 2, ["base", "c"]),
            ]
            .map(|(c, t, l)| image(c, t, kept.contains(c), &l))
            .into_iter()
            .collect::<Vec<_>>()
        };
        assert_eq!(choose(all(""), &sizes, 160), []);
        assert_eq!(choose(all(""), &sizes, 159), [id('b')]);
        assert_eq!(choose(all(""), &sizes, 139), [id('b'), id('c')]);
        assert_eq!(choose(all(""), &sizes, 109), [id('b'), id('c'), id('a')]);
        assert_eq!(choose(all("b"), &sizes, 139), [id('c')]);
        // What is kept stays, whatever the budget is.
        assert_eq!(choose(all("bc"), &sizes, 0), [id('a')]);
    }
}
