//! Records, and what goes when no record reaches it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::ImageStore;
use super::files::Name;
use super::oci;
use crate::{Error, ImageId, ImageRecord};

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Images.
    pub images: usize,
    /// Layer files, disks, manifests and configs.
    pub files: usize,
    /// Their bytes on disk.
    pub bytes: u64,
}

impl ImageStore {
    pub(super) fn read_record(&self, id: &ImageId) -> Result<Option<ImageRecord>, Error> {
        read_record(&self.image_path(id.hex()))
    }

    pub(super) fn read_records(&self) -> Result<Vec<ImageRecord>, Error> {
        let mut all = Vec::new();
        for path in list(&self.root.join("images"))? {
            match read_record(&path) {
                Ok(record) => all.extend(record),
                Err(e) => tracing::warn!("left out of the list of images: {e}"),
            }
        }
        all.sort_by(|a, b| a.image_id.cmp(&b.image_id));
        Ok(all)
    }

    /// Writes a record, after everything it names. Repositories known from an earlier pull stay known.
    pub(super) fn write_record(&self, mut record: ImageRecord) -> Result<ImageRecord, Error> {
        if let Ok(Some(old)) = self.read_record(&record.image_id) {
            let more: Vec<_> = old
                .sources
                .into_iter()
                .filter(|s| !record.sources.contains(s))
                .collect();
            record.sources.extend(more);
            record.built = record.built.or(old.built);
            let same = old.manifest_digest == record.manifest_digest;
            let more: Vec<_> = old
                .referrers
                .into_iter()
                .filter(|r| same && !record.referrers.iter().any(|n| n.digest == r.digest))
                .collect();
            record.referrers.extend(more);
            let more: Vec<_> = old
                .verified
                .into_iter()
                .filter(|v| !record.verified.contains(v))
                .collect();
            record.verified.extend(more);
        }
        self.write_whole(&oci::json(&record)?, &self.image_path(record.image_id.hex()))?;
        Ok(record)
    }

    pub(super) fn remove_blocking(&self, id: &ImageId) -> Result<GcReport, Error> {
        let path = self.image_path(id.hex());
        self.options.steps.at("remove record");
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoImage(id.to_string())),
            Err(e) => return Err(Error::io("remove", &path)(e)),
        }
        let report = self.gc_blocking(None)?;
        Ok(GcReport {
            images: report.images + 1,
            ..report
        })
    }

    /// Collects. `in_use`: only these images stay, with `None` all.
    pub(super) fn gc_blocking(&self, in_use: Option<&HashSet<ImageId>>) -> Result<GcReport, Error> {
        let mut report = GcReport::default();
        let trash = self.root.join("tmp");
        let mut moved = Vec::new();
        {
            // Whoever needs a name pins it under this lock before looking whether it is there.
            let pins = self.pins.lock();
            let mut reached = HashSet::new();
            for (path, record, stays) in self.judged(in_use, &pins)? {
                match record.filter(|_| stays) {
                    Some(record) => reach(self, &record, &mut reached),
                    None => {
                        // Records go before what they name, so that no crash leaves one that names nothing.
                        self.options.steps.at("remove record");
                        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                        report.images += 1;
                    }
                }
            }
            for dir in ["blobs/sha256", "layers", "disks"] {
                for path in list(&self.root.join(dir))? {
                    let name = name_of(dir, &path);
                    if reached.contains(&name) || pins.contains_key(&name) {
                        continue;
                    }
                    let to = trash.join(format!("trash-{}-{}", dir.replace('/', "-"), file_name(&path)));
                    self.options.steps.at("move away");
                    fs::rename(&path, &to).map_err(Error::io("remove", &path))?;
                    moved.push(to);
                }
            }
        }
        self.forget_uses();
        for path in moved {
            self.options.steps.at("remove file");
            let size = fs::metadata(&path).map_or(0, |m| m.blocks() * 512);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            report.files += 1;
            report.bytes += size;
        }
        Ok(report)
    }

    /// All records with their paths, and whether they stay: those in use, and the stages that images among them were built of.
    fn judged(
        &self,
        in_use: Option<&HashSet<ImageId>>,
        pins: &std::collections::HashMap<Name, usize>,
    ) -> Result<Vec<(PathBuf, Option<ImageRecord>, bool)>, Error> {
        let mut all = Vec::new();
        let mut with: Vec<ImageId> = Vec::new();
        for path in list(&self.root.join("images"))? {
            let record = match read_record(&path) {
                Ok(record) => record,
                Err(e @ Error::Damaged { .. }) => {
                    tracing::warn!("removing a record: {e}");
                    None
                }
                Err(e) => return Err(e),
            };
            let stays = record.as_ref().is_some_and(|r| self.stays(&path, r, in_use, pins));
            if let Some(built) = record.as_ref().filter(|_| stays).and_then(|r| r.built.as_ref()) {
                with.extend(built.with.iter().cloned());
            }
            all.push((path, record, stays));
        }
        while let Some(id) = with.pop() {
            let found = all
                .iter_mut()
                .find(|(_, r, stays)| !stays && r.as_ref().is_some_and(|r| r.image_id == id));
            if let Some((_, Some(record), stays)) = found {
                *stays = true;
                with.extend(record.built.iter().flat_map(|b| b.with.iter().cloned()));
            }
        }
        Ok(all)
    }

    fn stays(
        &self,
        path: &Path,
        record: &ImageRecord,
        in_use: Option<&HashSet<ImageId>>,
        pins: &std::collections::HashMap<Name, usize>,
    ) -> bool {
        let young = || {
            let written = fs::metadata(path).and_then(|m| m.modified());
            // A clock that went backwards makes it young.
            let is_young = |t: SystemTime| t.elapsed().map_or(true, |age| age < self.options.gc_grace);
            written.is_ok_and(is_young) || self.last_use(record.image_id.hex()).is_some_and(is_young)
        };
        let pinned = pins.contains_key(&Name::Image(record.image_id.hex().to_owned()));
        let until = record.built.as_ref().and_then(|b| b.until);
        let kept = until.is_some_and(|t| t > biga_model::Timestamp::now());
        in_use.is_none_or(|used| used.contains(&record.image_id)) || pinned || kept || young()
    }
}

/// Everything a record needs.
pub(super) fn reach(store: &ImageStore, record: &ImageRecord, reached: &mut HashSet<Name>) {
    let hex = |digest: &str| crate::digest::hex_of(digest).to_owned();
    reached.extend(record.layers.iter().map(|l| Name::Layer(hex(&l.diff_id))));
    if record.disk.is_some() {
        reached.insert(Name::Disk(record.image_id.hex().to_owned()));
    }
    for r in &record.referrers {
        reached.insert(Name::Blob(hex(&r.digest)));
        if let Ok(manifest) = store.read_blob(&r.digest) {
            reached.extend(super::referrers::parts(&manifest).map(|d| Name::Blob(hex(&d.digest))));
        }
    }
    if record.manifest_digest.is_empty() {
        return;
    }
    reached.insert(Name::Blob(hex(&record.manifest_digest)));
    if let Ok(manifest) = store.read_blob(&record.manifest_digest)
        && let Some(config) = oci::config_digest(&manifest)
    {
        reached.insert(Name::Blob(hex(&config)));
    }
}

fn read_record(path: &Path) -> Result<Option<ImageRecord>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let record = serde_json::from_slice(&bytes);
    record.map(Some).map_err(|e| Error::Damaged {
        path: path.to_path_buf(),
        why: e.to_string(),
    })
}

pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    entries
        .map(|e| e.map(|e| e.path()).map_err(Error::io("list", dir)))
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn name_of(dir: &str, path: &Path) -> Name {
    let file = file_name(path);
    let hex = file.split('.').next().unwrap_or_default().to_owned();
    match dir {
        "layers" => Name::Layer(hex),
        "disks" => Name::Disk(hex),
        _ => Name::Blob(hex),
    }
}
