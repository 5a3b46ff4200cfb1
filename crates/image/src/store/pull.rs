//! Pulling: manifest, config, then the layers, several at once.

use std::sync::Arc;

use biga_model::{ImageFormat, Reference};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::disks;
use super::files::{Name, Pins, blocking};
use super::layers::{Fresh, LayerMeta, Received};
use super::oci::{self, Descriptor, Document, Manifest};
use super::{ImageStore, LayerState, Progress, ProgressFn, PullOptions, referrers};
use crate::policy::signing;
use crate::registry::{Repo, fetch, mismatch};
use crate::{Error, ImageRecord, LayerRecord, Platform};

/// Indexes may name indexes, but not without end.
const MAX_DEPTH: usize = 4;
/// Pieces of a blob between the connection and the conversion: enough that neither waits for the other's every step.
const PIECES: usize = 64;

/// A manifest that was found for a platform.
struct Resolved {
    manifest: Manifest,
    bytes: Vec<u8>,
    digest: String,
    index_digest: String,
}

pub(super) async fn pull(
    store: &Arc<ImageStore>,
    reference: &Reference,
    options: &PullOptions,
    progress: ProgressFn<'_>,
) -> Result<ImageRecord, Error> {
    // What is refused wherever it comes from is not even asked for.
    store.options.policy.demand(reference)?;
    let auth = store.auth_or_own(&options.auth);
    let sources = Repo::sources(&store.client, reference, &auth, options.insecure).await?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let resolved = resolve(&sources, reference, &platform).await?;
    let subjects = [resolved.digest.as_str(), resolved.index_digest.as_str()];
    let verified = signing::admit(&store.options.policy, &sources, reference, &subjects).await?;
    let origin = format!("{}/{}", reference.registry, reference.repository);
    let layers = resolved
        .manifest
        .layers
        .iter()
        .map(|l| (l.digest.clone(), l.size))
        .collect();
    progress(Progress::Resolved {
        manifest_digest: resolved.digest.clone(),
        layers,
    });

    let mut pins = store.pins();
    let referrers = match options.referrers {
        true => referrers::fetch_all(store, &sources, &subjects, &mut pins).await?,
        false => Vec::new(),
    };
    if let Some(known) = store.known(&resolved.digest, &mut pins)? {
        let record = ImageRecord {
            index_digest: resolved.index_digest,
            sources: vec![origin],
            referrers,
            verified,
            ..known
        };
        tell_all_exist(&record, progress);
        return store.write_record(record);
    }
    let config_blob = &resolved.manifest.config;
    let config_bytes = any(&sources, |repo| {
        repo.small_blob(&config_blob.digest, config_blob.size, oci::MAX_CONFIG)
    })
    .await?;
    let what = reference.familiar();
    let config = oci::config(&config_bytes, resolved.manifest.layers.len(), &what)?;
    check_platform(options, &platform, &config.platform(), &what)?;
    pins.add(Name::Image(crate::digest::hex_of(&config_blob.digest).to_owned()));

    // Boxed, since a closure that borrows makes a future that is `Send` for one lifetime only, which no caller could spawn.
    let mut work: Vec<BoxFuture<'_, Result<(Pins, LayerMeta), Error>>> = Vec::new();
    for (blob, diff_id) in resolved.manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let mut pins = store.pins();
        let sources = &sources;
        work.push(Box::pin(async move {
            let meta = layer(store, sources, blob, diff_id, &mut pins, progress).await?;
            Ok((pins, meta))
        }));
    }
    let done: Vec<(Pins, LayerMeta)> = stream::iter(work)
        .buffered(store.options.parallel_layers.max(1))
        .try_collect()
        .await?;
    if let [(_, meta)] = &done[..]
        && let Some(only) = meta.only_file.clone()
    {
        let source = disks::FromLayer {
            resolved: resolved.bytes,
            digest: resolved.digest,
            index_digest: resolved.index_digest,
            origin,
            referrers,
            verified,
        };
        let record = disks::from_layer(store, config.rootfs.diff_ids[0].clone(), only, config_bytes, source).await?;
        // The disk was copied out of the layer, which nobody needs any more.
        drop(done);
        let store = store.clone();
        return blocking(move || store.gc_blocking(None).map(|_| record)).await;
    }
    let metas: Vec<LayerMeta> = done.iter().map(|(_, m)| m.clone()).collect();
    let record = store.record(&resolved.manifest, &resolved.digest, &config, &metas);
    let record = ImageRecord {
        index_digest: resolved.index_digest,
        sources: vec![origin],
        referrers,
        verified,
        ..record?
    };
    let store = store.clone();
    blocking(move || {
        // The pins of layers and image last until the record is written.
        let (_held, mut pins) = (done, pins);
        store.write_blob(&resolved.bytes, &mut pins)?;
        store.write_blob(&config_bytes, &mut pins)?;
        store.write_record(record)
    })
    .await
}

/// Follows indexes down to the manifest for a platform.
async fn resolve(sources: &[Repo<'_>], reference: &Reference, platform: &Platform) -> Result<Resolved, Error> {
    let what = reference.familiar();
    let mut name = reference
        .digest
        .clone()
        .or(reference.tag.clone())
        .unwrap_or_else(|| "latest".into());
    let mut index_digest = String::new();
    let mut size: Option<u64> = None;
    for _ in 0..MAX_DEPTH {
        let got = any(sources, |repo| repo.manifest(&name)).await?;
        if let Some(size) = size.filter(|s| *s != got.bytes.len() as u64) {
            return Err(mismatch(
                &format!("the size of {name}"),
                &size.to_string(),
                &got.bytes.len().to_string(),
            ));
        }
        match oci::document(&got.bytes, &got.media_type, &what)? {
            Document::Manifest(manifest) => {
                return Ok(Resolved {
                    manifest,
                    bytes: got.bytes.to_vec(),
                    digest: got.digest,
                    index_digest,
                });
            }
            Document::Index(index) => {
                let chosen = oci::choose(&index, platform, &what)?;
                if index_digest.is_empty() {
                    index_digest = got.digest;
                }
                name.clone_from(&chosen.digest);
                size = Some(chosen.size);
            }
        }
    }
    Err(Error::Invalid {
        what,
        why: "its indexes name further indexes without end".into(),
    })
}

/// Asks one source after the other.
pub(super) async fn any<'r, 'c: 'r, T, F>(sources: &'r [Repo<'c>], ask: impl Fn(&'r Repo<'c>) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut last = Error::Cancelled;
    for repo in sources {
        match ask(repo).await {
            Ok(got) => return Ok(got),
            Err(e) => {
                tracing::debug!("{} failed: {e}", repo.registry);
                last = e;
            }
        }
    }
    Err(last)
}

/// A single image (no index) of another platform is refused only where a platform was asked for.
fn check_platform(options: &PullOptions, wanted: &Platform, has: &Platform, what: &str) -> Result<(), Error> {
    if wanted.rank(has).is_some() {
        return Ok(());
    }
    if options.platform.is_none() {
        tracing::warn!("{what} is for {has}, this host is {wanted}");
        return Ok(());
    }
    Err(Error::NoPlatform {
        what: what.to_owned(),
        wanted: wanted.to_string(),
        available: has.to_string(),
    })
}

fn tell_all_exist(record: &ImageRecord, progress: ProgressFn<'_>) {
    for l in &record.layers {
        let (digest, total) = (l.digest.clone(), l.blob_size);
        progress(Progress::Layer {
            digest,
            state: LayerState::Exists,
            done: total,
            total,
        });
    }
}

/// Gets one layer, unless it is here.
async fn layer(
    store: &Arc<ImageStore>,
    sources: &[Repo<'_>],
    blob: &Descriptor,
    diff_id: &str,
    pins: &mut Pins,
    progress: ProgressFn<'_>,
) -> Result<LayerMeta, Error> {
    let tell = |state, done| {
        progress(Progress::Layer {
            digest: blob.digest.clone(),
            state,
            done,
            total: blob.size,
        });
    };
    pins.add(Name::Layer(crate::digest::hex_of(diff_id).to_owned()));
    tell(LayerState::Waiting, 0);
    // Another pull of the same layer may be under way: when it is done, the layer is here.
    let lock = store.fetch_lock(diff_id);
    let _held = lock.lock().await;
    if let Some(meta) = store.layer(diff_id)? {
        tell(LayerState::Exists, blob.size);
        return Ok(meta);
    }
    tell(LayerState::Transferring, 0);
    let mut sources = sources;
    let fresh = loop {
        match fetch_layer(store, sources, blob, diff_id, &tell).await {
            // A mirror may be damaged, or lie: the next may not.
            Err(e @ (Error::Mismatch { .. } | Error::Layer { .. })) if sources.len() > 1 => {
                tracing::warn!(
                    "{} does not give what it should: {e}; asking the next",
                    sources[0].registry
                );
                sources = &sources[1..];
            }
            other => break other?,
        }
    };
    let mut more = store.pins();
    let keeper = store.clone();
    let meta = blocking(move || keeper.keep_layer(fresh, &mut more)).await?;
    tell(LayerState::Done, blob.size);
    Ok(meta)
}

/// One way of a layer from its blob to files that are not in their place yet.
async fn fetch_layer(
    store: &Arc<ImageStore>,
    sources: &[Repo<'_>],
    blob: &Descriptor,
    diff_id: &str,
    tell: &(dyn Fn(LayerState, u64) + Send + Sync),
) -> Result<Fresh, Error> {
    let (to, from) = tokio::sync::mpsc::channel(PIECES);
    let converter = store.clone();
    let name = blob.digest.clone();
    let converting = blocking(move || converter.convert(Received::new(from), &name));
    let on_bytes = |done| tell(LayerState::Transferring, done);
    let fetching = fetch(sources, &blob.digest, blob.size, to, &on_bytes);
    let (fetched, converted) = tokio::join!(fetching, converting);
    let fresh = match (fetched, converted) {
        (Ok(()), converted) => converted?,
        // A refused layer ends the fetch: the refusal is the cause.
        (Err(Error::Cancelled), Err(e)) => return Err(e),
        (Err(e), _) => return Err(e),
    };
    if fresh.diff_id != diff_id {
        let what = format!("the diff id of layer {}", blob.digest);
        return Err(mismatch(&what, diff_id, &fresh.diff_id));
    }
    Ok(fresh)
}

impl ImageStore {
    /// The record of an image that is here in full under this manifest.
    fn known(&self, manifest_digest: &str, pins: &mut Pins) -> Result<Option<ImageRecord>, Error> {
        let Some(record) = self
            .read_records()?
            .into_iter()
            .find(|r| r.manifest_digest == manifest_digest)
        else {
            return Ok(None);
        };
        let hex = |digest: &str| crate::digest::hex_of(digest).to_owned();
        pins.add(Name::Image(record.image_id.hex().to_owned()));
        pins.add(Name::Disk(record.image_id.hex().to_owned()));
        pins.add(Name::Blob(hex(manifest_digest)));
        for l in &record.layers {
            pins.add(Name::Layer(hex(&l.diff_id)));
        }
        let Ok(manifest) = self.read_blob(manifest_digest) else {
            return Ok(None);
        };
        let config = oci::config_digest(&manifest).unwrap_or_default();
        pins.add(Name::Blob(hex(&config)));
        // Only what is pinned and still there counts.
        let mut whole = self.read_blob(&config).is_ok() && record.disk.as_ref().is_none_or(|d| d.file.exists());
        for l in &record.layers {
            whole = whole && self.layer(&l.diff_id)?.is_some();
        }
        Ok(whole.then_some(record))
    }

    /// A record of what a manifest and config say.
    pub(super) fn record(
        &self,
        manifest: &Manifest,
        manifest_digest: &str,
        config: &oci::Config,
        metas: &[LayerMeta],
    ) -> Result<ImageRecord, Error> {
        let parts = manifest.layers.iter().zip(&config.rootfs.diff_ids).zip(metas);
        let layers: Vec<LayerRecord> = parts
            .map(|((blob, diff_id), meta)| LayerRecord {
                diff_id: diff_id.clone(),
                digest: blob.digest.clone(),
                media_type: blob.media_type.clone(),
                blob_size: blob.size,
                file: self.layer_file(diff_id),
                size: meta.image_size,
            })
            .collect();
        Ok(ImageRecord {
            image_id: manifest.config.digest.parse()?,
            manifest_digest: manifest_digest.to_owned(),
            index_digest: String::new(),
            format: ImageFormat::Oci,
            platform: config.platform().to_string(),
            size: layers.iter().map(|l| l.size).sum(),
            layers,
            config: config.config.clone().unwrap_or_default(),
            disk: None,
            created: config.created.clone(),
            history: config.history.clone().unwrap_or_default(),
            sources: Vec::new(),
            referrers: Vec::new(),
            verified: Vec::new(),
            built: None,
        })
    }
}
