//! Steps of builds that are kept for later ones, though nobody names what they are part of.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use biga_model::Timestamp;

use super::files::{Name, Pins};
use super::{ImageStore, oci};
use crate::{Error, ImageId, ImageRecord};

/// One that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBuild {
    /// The image that its steps make.
    pub id: ImageId,
    /// Its last step.
    pub description: String,
    /// Bytes that no image with a name has, and none of those before it.
    pub size: u64,
    /// It is a stage of an image that stays; otherwise the good steps of a build that failed.
    pub shared: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// When it was used last.
    pub used: i64,
}

/// An image that is kept while this lives.
pub struct HeldImage {
    _pins: Pins,
}

fn seconds(t: SystemTime) -> i64 {
    let since = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The stages that images with names were built of, and those of these.
fn stages(records: &[ImageRecord], in_use: &HashSet<ImageId>) -> HashSet<ImageId> {
    let with = |r: &ImageRecord| r.built.iter().flat_map(|b| b.with.clone()).collect::<Vec<_>>();
    let mut todo: Vec<ImageId> = records
        .iter()
        .filter(|r| in_use.contains(&r.image_id))
        .flat_map(with)
        .collect();
    let mut found = HashSet::new();
    while let Some(id) = todo.pop() {
        if !found.insert(id.clone()) {
            continue;
        }
        todo.extend(records.iter().filter(|r| r.image_id == id).flat_map(with));
    }
    found
}

impl ImageStore {
    /// What is kept beside the images `in_use`. Blocks.
    pub fn kept_builds(&self, in_use: &HashSet<ImageId>) -> Result<Vec<KeptBuild>, Error> {
        let records = self.read_records()?;
        let stages = stages(&records, in_use);
        let now = Timestamp::now();
        let named = |r: &&ImageRecord| in_use.contains(&r.image_id);
        let of_images = records.iter().filter(named).flat_map(|r| &r.layers);
        let mut seen: HashSet<&str> = of_images.map(|l| l.diff_id.as_str()).collect();
        let mut kept = Vec::new();
        for r in records.iter().filter(|r| !named(r)) {
            let Some(built) = &r.built else { continue };
            let failed = built.until.is_some_and(|t| t > now);
            let shared = stages.contains(&r.image_id);
            if !failed && !shared {
                continue;
            }
            let hex = r.image_id.hex();
            let written = fs::metadata(self.image_path(hex)).and_then(|m| m.modified());
            let created = written.map_or(0, seconds);
            let fresh = r.layers.iter().filter(|l| seen.insert(l.diff_id.as_str()));
            kept.push(KeptBuild {
                size: fresh.map(|l| l.size).sum(),
                id: r.image_id.clone(),
                description: r.history.last().and_then(|h| h.created_by.clone()).unwrap_or_default(),
                shared,
                created,
                used: self.last_use(hex).map_or(created, |t| seconds(t).max(created)),
            });
        }
        Ok(kept)
    }

    /// Keeps an image for as long as what this gives lives, whether or not it is there already.
    pub fn hold_image(&self, id: &ImageId) -> HeldImage {
        let mut pins = self.pins();
        pins.add(Name::Image(id.hex().to_owned()));
        HeldImage { _pins: pins }
    }

    /// Forgets these, and with `all` what every image was built of: later builds begin anew. What nobody needs any more goes with
    /// the next collection, however young it is, and so do images that single steps of these ran from. `in_use` are those with names.
    pub async fn forget_builds(
        self: &Arc<Self>,
        mut chosen: HashSet<ImageId>,
        in_use: HashSet<ImageId>,
        all: bool,
    ) -> Result<(), Error> {
        let store = self.clone();
        super::files::blocking(move || {
            let records = store.read_records()?;
            let keys = |r: &ImageRecord| r.built.iter().flat_map(|b| b.keys.clone()).collect::<Vec<_>>();
            let gone = records.iter().filter(|r| chosen.contains(&r.image_id));
            let gone: HashSet<String> = gone.flat_map(keys).collect();
            let step = |r: &&ImageRecord| {
                let own = r
                    .built
                    .as_ref()
                    .is_some_and(|b| b.until.is_some() || !b.with.is_empty());
                let keys = keys(r);
                !own && !in_use.contains(&r.image_id) && !keys.is_empty() && keys.iter().all(|k| gone.contains(k))
            };
            chosen.extend(records.iter().filter(step).map(|r| r.image_id.clone()));
            for record in records {
                store.forget(record, &chosen, all)?;
            }
            Ok(())
        })
        .await
    }

    fn forget(&self, mut record: ImageRecord, chosen: &HashSet<ImageId>, all: bool) -> Result<(), Error> {
        let before = record.built.clone();
        let is_chosen = chosen.contains(&record.image_id);
        match &mut record.built {
            Some(_) if all || is_chosen => record.built = None,
            Some(built) => built.with.retain(|id| !chosen.contains(id)),
            None => {}
        }
        if record.built == before {
            return Ok(());
        }
        let path = self.image_path(record.image_id.hex());
        let written = match is_chosen {
            true => Ok(UNIX_EPOCH),
            // It is as old as before.
            false => fs::metadata(&path).and_then(|m| m.modified()),
        };
        if is_chosen {
            self.forget_use(record.image_id.hex());
        }
        self.write_whole(&oci::json(&record)?, &path)?;
        let kept = written.and_then(|t| fs::File::options().write(true).open(&path)?.set_modified(t));
        kept.map_err(Error::io("write", &path))
    }
}
