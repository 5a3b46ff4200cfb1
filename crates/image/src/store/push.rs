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
use super::{ImageStore, LayerState, Progress, ProgressFn, PushOptions};
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
    pin_parts(&record, &mut pins);
    let mut repo = Repo::origin(&store.client, reference, &options.auth, options.insecure, "pull,push").await?;
    let neighbours = neighbours(&record, reference);
    for other in &neighbours {
        repo.also_pull(other);
    }
    let tag = reference
        .tag
        .clone()
        .or(reference.digest.clone())
        .unwrap_or_else(|| "latest".into());
    if let Some(pushed) = as_it_was(store, &record, &repo, &neighbours, &tag, progress).await? {
        return Ok(pushed);
    }
    let (owner, this) = (store.clone(), record.clone());
    let outgoing = blocking(move || owner.outgoing(&this)).await?;
    let known = outgoing
        .layers
        .iter()
        .map(|(d, _)| (d.digest.clone(), d.size))
        .collect();
    progress(Progress::Resolved {
        manifest_digest: record.manifest_digest.clone(),
        layers: known,
    });
    let mut layers = Vec::new();
    for (plain, source) in outgoing.layers {
        layers.push(layer(store, &repo, plain, source, progress).await?);
    }
    let config_digest = crate::digest::of(&outgoing.config);
    let config = Descriptor::new(oci::OCI_CONFIG, config_digest.clone(), outgoing.config.len() as u64);
    if !repo.has_blob(&config_digest, config.size).await? {
        repo.upload_bytes(&config_digest, outgoing.config.into()).await?;
    }
    finish(&repo, &tag, oci::OCI_MANIFEST, oci::manifest(config, layers)?).await
}

fn pin_parts(record: &ImageRecord, pins: &mut Pins) {
    for l in &record.layers {
        pins.add(Name::Layer(crate::digest::hex_of(&l.diff_id).to_owned()));
    }
    pins.add(Name::Disk(record.image_id.hex().to_owned()));
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

/// The original manifest, if the registry has or can mount every layer of it.
async fn as_it_was(
    store: &ImageStore,
    record: &ImageRecord,
    repo: &Repo<'_>,
    neighbours: &[String],
    tag: &str,
    progress: ProgressFn<'_>,
) -> Result<Option<Pushed>, Error> {
    if record.manifest_digest.is_empty() {
        return Ok(None);
    }
    let bytes = store.manifest(&record.image_id)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| Error::Invalid {
        what: format!("the manifest {}", record.manifest_digest),
        why: e.to_string(),
    })?;
    for blob in &manifest.layers {
        if !present(repo, blob, neighbours).await? {
            return Ok(None);
        }
        let (digest, total) = (blob.digest.clone(), blob.size);
        progress(Progress::Layer {
            digest,
            state: LayerState::Exists,
            done: total,
            total,
        });
    }
    if !present(repo, &manifest.config, neighbours).await? {
        let config = store.read_blob(&manifest.config.digest)?;
        repo.upload_bytes(&manifest.config.digest, config.into()).await?;
    }
    let media_type = if manifest.media_type.is_empty() {
        oci::OCI_MANIFEST
    } else {
        &manifest.media_type
    };
    finish(repo, tag, media_type, bytes).await.map(Some)
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
    fn compress(&self, source: &Source) -> Result<(NamedTempFile, String, u64), Error> {
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
