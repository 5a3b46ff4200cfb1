//! What refers to an image, kept with it: signatures, bills of materials, attestations.
//!
//! They are small documents; those that are not, and those beyond a count, are left out with a warning.

use std::collections::HashSet;
use std::sync::Arc;

use biga_model::Reference;
use bytes::Bytes;

use super::files::{Pins, blocking};
use super::oci::{self, Descriptor, Document, Manifest};
use super::{ImageStore, PullOptions};
use crate::policy::signing::tag_of;
use crate::registry::Repo;
use crate::{Error, ImageId, Referrer};

/// Largest part of a referrer.
const MAX_PART: u64 = 32 << 20;
/// Parts of one referrer.
const MAX_PARTS: usize = 64;
/// All that is fetched for one image.
const MAX_TOTAL: u64 = 256 << 20;
/// Referrers of one image, those of its referrers included.
const MAX_COUNT: usize = 128;
/// Suffixes of the tags under which cosign keeps signatures, attestations and bills of materials.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// A referrer that was found, with its manifest.
struct Found {
    referrer: Referrer,
    bytes: Bytes,
    manifest: Manifest,
}

/// Config and layers of a referrer's manifest.
pub(super) fn parts(manifest: &[u8]) -> impl Iterator<Item = Descriptor> + use<> {
    let parsed: Option<Manifest> = serde_json::from_slice(manifest).ok();
    let all: Vec<Descriptor> = parsed
        .map(|m| m.layers.into_iter().chain([m.config]).collect())
        .unwrap_or_default();
    all.into_iter().filter(|d| crate::digest::is_digest(&d.digest))
}

/// What refers to a manifest, from the first place that knows of anything.
async fn of_one(sources: &[Repo<'_>], subject: &str) -> Result<Vec<Found>, Error> {
    let mut last = Ok(());
    for repo in sources {
        match of_one_in(repo, subject).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => return Ok(found),
            Err(e) => last = Err(e),
        }
    }
    last.map(|()| Vec::new())
}

async fn of_one_in(repo: &Repo<'_>, subject: &str) -> Result<Vec<Found>, Error> {
    let mut all: Vec<Found> = Vec::new();
    for d in repo.referrers(subject).await? {
        let got = repo.manifest(&d.digest).await?;
        all.extend(found(&got.bytes, &got.media_type, &got.digest, subject, None));
    }
    for suffix in SUFFIXES {
        let tag = tag_of(subject, suffix);
        if let Some(got) = repo.manifest_if_there(&tag).await?
            && !all.iter().any(|f| f.referrer.digest == got.digest)
        {
            all.extend(found(&got.bytes, &got.media_type, &got.digest, subject, Some(tag)));
        }
    }
    Ok(all)
}

fn found(bytes: &Bytes, media_type: &str, digest: &str, subject: &str, tag: Option<String>) -> Option<Found> {
    let manifest = match oci::document(bytes, media_type, digest) {
        Ok(Document::Manifest(m)) => m,
        Ok(Document::Index(_)) => {
            tracing::warn!("{digest}, which refers to {subject}, is an index: left out");
            return None;
        }
        Err(e) => {
            tracing::warn!("{digest}, which refers to {subject}, is left out: {e}");
            return None;
        }
    };
    // What is on the list must say so itself, else anybody's list could name anything.
    if tag.is_none() && manifest.subject.as_ref().is_none_or(|s| s.digest != subject) {
        tracing::warn!("{digest} does not refer to {subject}, as the registry says: left out");
        return None;
    }
    let own = manifest.artifact_type.clone().filter(|t| !t.is_empty());
    let media_type = match manifest.media_type.is_empty() {
        true => oci::OCI_MANIFEST.to_owned(),
        false => manifest.media_type.clone(),
    };
    let referrer = Referrer {
        digest: digest.to_owned(),
        media_type,
        size: bytes.len() as u64,
        artifact_type: own.unwrap_or_else(|| manifest.config.media_type.clone()),
        subject: subject.to_owned(),
        tag,
        annotations: manifest.annotations.clone(),
    };
    Some(Found {
        referrer,
        bytes: bytes.clone(),
        manifest,
    })
}

/// Everything that refers to these manifests, and to what refers to them.
async fn all_of(sources: &[Repo<'_>], subjects: &[&str]) -> Result<Vec<Found>, Error> {
    let mut todo: Vec<String> = subjects
        .iter()
        .filter(|s| !s.is_empty())
        .map(|s| (*s).to_owned())
        .collect();
    let mut seen: HashSet<String> = HashSet::new();
    let mut all = Vec::new();
    while let Some(subject) = todo.pop() {
        for f in of_one(sources, &subject).await? {
            if !seen.insert(f.referrer.digest.clone()) {
                continue;
            }
            if all.len() >= MAX_COUNT {
                tracing::warn!(
                    "more than {MAX_COUNT} things refer to {}: the rest is left out",
                    subjects[0]
                );
                return Ok(all);
            }
            todo.push(f.referrer.digest.clone());
            all.push(f);
        }
    }
    Ok(all)
}

/// Fetches everything that refers to an image; its manifest, and the index it was chosen from, have these digests.
pub(super) async fn fetch_all(
    store: &Arc<ImageStore>,
    sources: &[Repo<'_>],
    subjects: &[&str],
    pins: &mut Pins,
) -> Result<Vec<Referrer>, Error> {
    let mut total = 0u64;
    let mut kept = Vec::new();
    for f in all_of(sources, subjects).await? {
        let parts: Vec<&Descriptor> = f.manifest.layers.iter().chain([&f.manifest.config]).collect();
        let size: u64 = parts.iter().fold(f.referrer.size, |n, d| n.saturating_add(d.size));
        total = total.saturating_add(size);
        if parts.len() > MAX_PARTS || total > MAX_TOTAL || parts.iter().any(|d| d.size > MAX_PART) {
            tracing::warn!(
                "{} ({} bytes) is too large to be kept with the image: left out",
                f.referrer.digest,
                size
            );
            total -= size.min(total);
            continue;
        }
        let mut blobs = vec![f.bytes.clone()];
        for d in parts {
            blobs.push(super::pull::any(sources, |repo| repo.small_blob(&d.digest, d.size, MAX_PART)).await?);
        }
        let (owner, mut held) = (store.clone(), store.pins());
        let held = blocking(move || {
            for bytes in &blobs {
                owner.write_blob(bytes, &mut held)?;
            }
            Ok(held)
        })
        .await?;
        pins.take_over(held);
        kept.push(f.referrer);
    }
    Ok(kept)
}

impl ImageStore {
    /// What refers to an image in its registry, without fetching it.
    pub async fn remote_referrers(
        self: &Arc<Self>,
        id: &ImageId,
        reference: &Reference,
        options: &PullOptions,
    ) -> Result<Vec<Referrer>, Error> {
        let record = self.get(id)?;
        let auth = self.auth_or_own(&options.auth);
        let sources = Repo::sources(&self.client, reference, &auth, options.insecure).await?;
        let found = all_of(&sources, &[&record.manifest_digest, &record.index_digest]).await?;
        Ok(found.into_iter().map(|f| f.referrer).collect())
    }
}

/// Sends those referrers that speak of the manifest that was pushed, and of them. Returns how many.
pub(super) async fn push_all(
    store: &Arc<ImageStore>,
    referrers: &[Referrer],
    repo: &Repo<'_>,
    manifest_digest: &str,
) -> Result<usize, Error> {
    let mut subjects = vec![manifest_digest.to_owned()];
    let mut sent = 0;
    while let Some(subject) = subjects.pop() {
        for r in referrers.iter().filter(|r| r.subject == subject) {
            push_one(store, r, repo).await?;
            subjects.push(r.digest.clone());
            sent += 1;
        }
    }
    Ok(sent)
}

async fn push_one(store: &Arc<ImageStore>, r: &Referrer, repo: &Repo<'_>) -> Result<(), Error> {
    let bytes = store.read_blob(&r.digest)?;
    for part in parts(&bytes) {
        if !repo.has_blob(&part.digest, part.size).await? {
            let content = store.read_blob(&part.digest)?;
            repo.upload_bytes(&part.digest, content.into()).await?;
        }
    }
    if let Some(tag) = &r.tag {
        repo.put_manifest(tag, &r.media_type, bytes.into()).await?;
        return Ok(());
    }
    let entry = Descriptor {
        artifact_type: Some(r.artifact_type.clone()).filter(|t| !t.is_empty()),
        annotations: r.annotations.clone(),
        ..Descriptor::new(&r.media_type, r.digest.clone(), r.size)
    };
    repo.put_referrer(&entry, &r.subject, bytes.into()).await
}
