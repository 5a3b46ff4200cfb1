//! Pushing. What the registry has, or can take from another of its repositories, is not sent: then the image arrives under
//! the very manifest it once had. Layers that must be sent are compressed anew, and get a manifest to match.

use std::io;
use std::sync::Arc;

use biga_model::Reference;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::files::{Name, Pins, blocking};
use super::oci::{self, Descriptor, Manifest};
use super::save::Source;
use super::{ImageStore, LayerState, Progress, ProgressFn, PushOptions, exact, referrers};
use crate::registry::{Repo, Upload};
use crate::{Error, ImageId, ImageRecord};

/// Deflate's usual level.
const LEVEL: u32 = 6;

/// What a push made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…` of the manifest in the registry.
    pub manifest_digest: String,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// How many things that refer to it were sent along.
    pub referrers: usize,
}

pub(super) async fn push(
    store: &Arc<ImageStore>,
    id: &ImageId,
    reference: &Reference,
    options: &PushOptions,
    progress: ProgressFn<'_>,
) -> Result<Pushed, Error> {
    let mut pins = store.pins();
    pins.add(Name::Image(id.hex().to_owned()));
    let record = store.get(id)?;
    pin_parts(store, &record, &mut pins);
    let auth = store.auth_or_own(&options.auth);
    let mut repo = Repo::origin(&store.client, reference, &auth, options.insecure, "pull,push").await?;
    let neighbours = neighbours(&record, reference);
    for other in &neighbours {
        repo.also_pull(other);
    }
    let tag = reference
        .tag
        .clone()
        .or(reference.digest.clone())
        .unwrap_or_else(|| "latest".into());
    // What refers to the image would refer to nothing if it arrived under another manifest.
    let exact = options.referrers && !record.referrers.is_empty();
    let job = Job {
        store,
        record: &record,
        repo: &repo,
        neighbours: &neighbours,
        tag: &tag,
        progress,
    };
    let pushed = match as_it_was(&job, exact).await? {
        Some(pushed) => pushed,
        None => anew(&job).await?,
    };
    if !exact {
        return Ok(pushed);
    }
    let referrers = referrers::push_all(store, &record.referrers, &repo, &pushed.manifest_digest).await?;
    Ok(Pushed { referrers, ..pushed })
}

/// What a push works with.
struct Job<'p> {
    store: &'p Arc<ImageStore>,
    record: &'p ImageRecord,
    repo: &'p Repo<'p>,
    neighbours: &'p [String],
    tag: &'p str,
    progress: ProgressFn<'p>,
}

/// Compresses the layers and makes a manifest for them; where they come out as they once came in, it is the original one.
async fn anew(job: &Job<'_>) -> Result<Pushed, Error> {
    let (owner, this) = (job.store.clone(), job.record.clone());
    let outgoing = blocking(move || owner.outgoing(&this)).await?;
    let known = outgoing
        .layers
        .iter()
        .map(|(d, _)| (d.digest.clone(), d.size))
        .collect();
    (job.progress)(Progress::Resolved {
        manifest_digest: job.record.manifest_digest.clone(),
        layers: known,
    });
    let mut layers = Vec::new();
    for (plain, source) in outgoing.layers {
        layers.push(layer(job.store, job.repo, plain, source, job.progress).await?);
    }
    let config_digest = crate::digest::of(&outgoing.config);
    let config = Descriptor::new(oci::OCI_CONFIG, config_digest.clone(), outgoing.config.len() as u64);
    if !job.repo.has_blob(&config_digest, config.size).await? {
        job.repo.upload_bytes(&config_digest, outgoing.config.into()).await?;
    }
    if let Some((bytes, original)) = original(job.store, job.record)? {
        let digests = |m: &[Descriptor]| m.iter().map(|d| d.digest.clone()).collect::<Vec<_>>();
        if original.config.digest == config_digest && digests(&original.layers) == digests(&layers) {
            return finish(job.repo, job.tag, media_type(&original), bytes).await;
        }
    }
    finish(job.repo, job.tag, oci::OCI_MANIFEST, oci::manifest(config, layers)?).await
}

/// The manifest that an image came with.
fn original(store: &ImageStore, record: &ImageRecord) -> Result<Option<(Vec<u8>, Manifest)>, Error> {
    if record.manifest_digest.is_empty() {
        return Ok(None);
    }
    let bytes = store.manifest(&record.image_id)?;
    let manifest = serde_json::from_slice(&bytes).map_err(|e| Error::Invalid {
        what: format!("the manifest {}", record.manifest_digest),
        why: e.to_string(),
    })?;
    Ok(Some((bytes, manifest)))
}

fn media_type(manifest: &Manifest) -> &str {
    match manifest.media_type.as_str() {
        "" => oci::OCI_MANIFEST,
        named => named,
    }
}

fn pin_parts(store: &ImageStore, record: &ImageRecord, pins: &mut Pins) {
    let mut parts = std::collections::HashSet::from([Name::Disk(record.image_id.hex().to_owned())]);
    super::gc::reach(store, record, &mut parts);
    parts.into_iter().for_each(|name| pins.add(name));
}

/// Other repositories of the same registry that are known to have the blobs.
fn neighbours(record: &ImageRecord, reference: &Reference) -> Vec<String> {
    let prefix = format!("{}/", reference.registry);
    let names = record.sources.iter().filter_map(|s| s.strip_prefix(&prefix));
    names
        .filter(|n| *n != reference.repository)
        .map(str::to_owned)
        .collect()
}

/// The original manifest, if the registry has or can mount every layer of it. If it must be `exact`, what the registry lacks
/// is made or fetched, and it is an error where that cannot be.
async fn as_it_was(job: &Job<'_>, exact: bool) -> Result<Option<Pushed>, Error> {
    let Some((bytes, manifest)) = original(job.store, job.record)? else {
        return Ok(None);
    };
    for blob in &manifest.layers {
        let tell = |state, done| {
            (job.progress)(Progress::Layer {
                digest: blob.digest.clone(),
                state,
                done,
                total: blob.size,
            });
        };
        if present(job.repo, blob, job.neighbours).await? {
            tell(LayerState::Exists, blob.size);
            continue;
        }
        if !exact {
            return Ok(None);
        }
        tell(LayerState::Transferring, 0);
        let file = exact::blob(job.store, job.record, blob).await?;
        let upload = Upload {
            digest: &blob.digest,
            file: file.path(),
            size: blob.size,
        };
        job.repo
            .upload(&upload, &|sent| tell(LayerState::Transferring, sent))
            .await?;
        tell(LayerState::Done, blob.size);
    }
    if !present(job.repo, &manifest.config, job.neighbours).await? {
        let config = job.store.read_blob(&manifest.config.digest)?;
        job.repo.upload_bytes(&manifest.config.digest, config.into()).await?;
    }
    finish(job.repo, job.tag, media_type(&manifest), bytes).await.map(Some)
}

async fn present(repo: &Repo<'_>, blob: &Descriptor, neighbours: &[String]) -> Result<bool, Error> {
    if repo.has_blob(&blob.digest, blob.size).await? {
        return Ok(true);
    }
    for other in neighbours {
        if repo.mount_blob(&blob.digest, other).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn finish(repo: &Repo<'_>, tag: &str, media_type: &str, manifest: Vec<u8>) -> Result<Pushed, Error> {
    let pushed = Pushed {
        manifest_digest: crate::digest::of(&manifest),
        manifest_size: manifest.len() as u64,
        referrers: 0,
    };
    repo.put_manifest(tag, media_type, Bytes::from(manifest)).await?;
    Ok(pushed)
}

/// Compresses one layer and sends it, unless the registry has it.
async fn layer(
    store: &Arc<ImageStore>,
    repo: &Repo<'_>,
    plain: Descriptor,
    source: Source,
    progress: ProgressFn<'_>,
) -> Result<Descriptor, Error> {
    let name = plain.digest.clone();
    let tell = |state, done, total| {
        progress(Progress::Layer {
            digest: name.clone(),
            state,
            done,
            total,
        });
    };
    tell(LayerState::Waiting, 0, plain.size);
    let owner = store.clone();
    let (file, digest, size) = blocking(move || owner.compress(&source)).await?;
    let blob = Descriptor::new(oci::OCI_LAYER_GZIP, digest, size);
    if repo.has_blob(&blob.digest, blob.size).await? {
        tell(LayerState::Exists, size, size);
        return Ok(blob);
    }
    let upload = Upload {
        digest: &blob.digest,
        file: file.path(),
        size,
    };
    repo.upload(&upload, &|sent| tell(LayerState::Transferring, sent, size))
        .await?;
    tell(LayerState::Done, size, size);
    Ok(blob)
}

impl ImageStore {
    /// The gzip of a layer's tar; the same tar gives the same bytes.
    pub(super) fn compress(&self, source: &Source) -> Result<(NamedTempFile, String, u64), Error> {
        let mut tar = self.open_source(source)?;
        let temp = self.temp()?;
        let file = temp.reopen().map_err(Error::io("open", temp.path()))?;
        let out = Hashing {
            inner: io::BufWriter::new(file),
            hasher: Sha256::new(),
            size: 0,
        };
        let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::new(LEVEL));
        let mut piece = vec![0; 128 << 10];
        loop {
            match io::Read::read(&mut tar, &mut piece).map_err(Error::Stream)? {
                0 => break,
                n => io::Write::write_all(&mut gzip, &piece[..n]).map_err(Error::io("write", temp.path()))?,
            }
        }
        let out = gzip.finish().map_err(Error::io("write", temp.path()))?;
        let (digest, size) = (crate::digest::finish(out.hasher), out.size);
        out.inner
            .into_inner()
            .map_err(|e| Error::io("write", temp.path())(e.into_error()))?;
        Ok((temp, digest, size))
    }
}

/// Hashes what is written.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
