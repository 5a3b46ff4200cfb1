//! Archives, read in one pass: `docker save`'s and OCI layouts.
//!
//! Layers may come before the documents that name them, so every entry that is a tar becomes a layer at once, and what
//! turns out to be named by nothing is collected later.

use std::collections::HashMap;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;

use biga_model::Reference;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::ImageStore;
use super::files::{Name, Pins, blocking};
use super::import::BUFFER;
use super::layers::LayerMeta;
use super::oci::{self, Config, Descriptor, Document, Index, Manifest};
use crate::erofs::show;
use crate::layer::decompress;
use crate::registry::mismatch;
use crate::tarstream::{EntryKind, Input, Reader};
use crate::{Error, ImageRecord, Platform};

/// Larger entries are never documents.
const MAX_DOCUMENT: u64 = oci::MAX_CONFIG;
/// All documents of an archive together.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Names of one entry that lead to another.
const MAX_ALIASES: usize = 32;
/// Where newer writers put the full name of an image.
const FULL_NAME: &str = "io.containerd.image.name";
/// A tag, or by custom a full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image out of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The image.
    pub record: ImageRecord,
    /// The names the archive gives it.
    pub references: Vec<Reference>,
}

/// What an archive holds, by the entries' names.
struct Archive {
    documents: HashMap<String, Vec<u8>>,
    layers: HashMap<String, Part>,
    /// Links, to the names they mean.
    aliases: HashMap<String, String>,
    pins: Pins,
}

/// An entry that is a layer, or was taken for one.
struct Part {
    digest: String,
    size: u64,
    layer: Result<(String, LayerMeta), Error>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

pub(super) async fn load(
    store: &Arc<ImageStore>,
    reader: impl AsyncRead + Send + Unpin + 'static,
    platform: Option<Platform>,
) -> Result<Vec<Loaded>, Error> {
    store.options.policy.allows_archives()?;
    let store = store.clone();
    let reader = SyncIoBridge::new(reader);
    blocking(move || {
        let mut archive = read(&store, reader)?;
        if let Some(list) = archive.documents.get("manifest.json").cloned() {
            return docker(&store, &mut archive, &list, platform.as_ref());
        }
        match archive.documents.get("index.json").cloned() {
            Some(index) => oci_layout(&store, &mut archive, &index, platform.as_ref()),
            None => Err(invalid("it has neither manifest.json nor index.json".into())),
        }
    })
    .await
}

fn invalid(why: String) -> Error {
    Error::Invalid {
        what: "the archive".into(),
        why,
    }
}

fn read(store: &ImageStore, reader: impl Read) -> Result<Archive, Error> {
    let limits = &store.options.limits;
    let plain = decompress(BufReader::with_capacity(BUFFER, reader), limits.ratio).map_err(Error::Stream)?;
    let mut tar = Reader::new(Input::new(plain, limits.tar_bytes.saturating_mul(4)));
    let mut archive = Archive {
        documents: HashMap::new(),
        layers: HashMap::new(),
        aliases: HashMap::new(),
        pins: store.pins(),
    };
    let mut documents_size = 0;
    let broken = |e: crate::tarstream::Error| invalid(e.to_string());
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        let name = normal(&show(&entry.path), "");
        match entry.kind {
            EntryKind::File if entry.segments.is_none() => {
                let mut content = Content { tar: &mut tar };
                let mut head = Vec::new();
                if entry.size <= MAX_DOCUMENT {
                    (&mut content)
                        .take(entry.size)
                        .read_to_end(&mut head)
                        .map_err(Error::Stream)?;
                    if serde_json::from_slice::<serde::de::IgnoredAny>(&head).is_ok() {
                        documents_size += head.len() as u64;
                        if documents_size > MAX_DOCUMENTS {
                            return Err(invalid(format!("its documents are larger than {MAX_DOCUMENTS} bytes")));
                        }
                        archive.documents.insert(name, head);
                        continue;
                    }
                }
                let part = store.part(Cursor::new(head).chain(content), &name, &mut archive.pins)?;
                archive.layers.insert(name, part);
            }
            EntryKind::Symlink => {
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                let target = normal(&show(&entry.link), dir);
                archive.aliases.insert(name, target);
            }
            EntryKind::Link => {
                archive.aliases.insert(name, normal(&show(&entry.link), ""));
            }
            _ => {}
        }
    }
    Ok(archive)
}

/// A name within the archive without `.` and `..`, seen from a directory. It is only ever a key of a map.
fn normal(name: &str, dir: &str) -> String {
    let mut parts: Vec<&str> = if name.starts_with('/') {
        Vec::new()
    } else {
        dir.split('/').collect()
    };
    for part in name.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            other => parts.push(other),
        }
    }
    parts.retain(|p| !p.is_empty());
    parts.join("/")
}

/// The data of the entry at hand.
struct Content<'t, R> {
    tar: &'t mut Reader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let piece = self.tar.data(out.len() as u64).map_err(io::Error::other)?;
        out[..piece.len()].copy_from_slice(piece);
        Ok(piece.len())
    }
}

/// Hashes what passes.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.hasher.update(&out[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

impl ImageStore {
    /// Makes a layer of an entry. One that cannot be a layer matters only if something names it as one.
    fn part(&self, content: impl Read, name: &str, pins: &mut Pins) -> Result<Part, Error> {
        let mut hashed = Hashed {
            inner: content,
            hasher: Sha256::new(),
            size: 0,
        };
        let layer = match self.convert(BufReader::with_capacity(BUFFER, &mut hashed), name) {
            Ok(fresh) => {
                let diff_id = fresh.diff_id.clone();
                self.keep_layer(fresh, pins).map(|meta| (diff_id, meta))
            }
            Err(e) => Err(e),
        };
        match layer {
            Err(e @ Error::Io { .. }) => Err(e),
            layer => Ok(Part {
                digest: crate::digest::finish(hashed.hasher),
                size: hashed.size,
                layer,
            }),
        }
    }
}

impl Archive {
    fn resolve<'n>(&'n self, name: &'n str) -> &'n str {
        let mut name = name;
        for _ in 0..MAX_ALIASES {
            match self.aliases.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        name
    }

    fn document(&self, name: &str) -> Result<&[u8], Error> {
        let name = normal(name, "");
        let found = self.documents.get(self.resolve(&name));
        found
            .map(Vec::as_slice)
            .ok_or_else(|| invalid(format!("{name} is missing or no JSON document")))
    }

    /// A document by its digest, checked.
    fn blob(&self, digest: &str) -> Result<&[u8], Error> {
        let bytes = self.document(&format!("blobs/sha256/{}", crate::digest::hex_of(digest)))?;
        match crate::digest::of(bytes) {
            actual if actual == digest => Ok(bytes),
            actual => Err(mismatch("the digest of a blob in the archive", digest, &actual)),
        }
    }

    fn part(&mut self, name: &str) -> Result<&mut Part, Error> {
        let name = normal(name, "");
        let resolved = self.resolve(&name).to_owned();
        self.layers
            .get_mut(&resolved)
            .ok_or_else(|| invalid(format!("the layer {name} is missing")))
    }

    /// The layer at this name, which must have this diff id.
    fn layer(&mut self, name: &str, diff_id: &str) -> Result<LayerMeta, Error> {
        let part = self.part(name)?;
        match &part.layer {
            Ok((actual, meta)) if actual == diff_id => Ok(meta.clone()),
            Ok((actual, _)) => Err(mismatch(&format!("the diff id of {name}"), diff_id, actual)),
            Err(_) => {
                let taken = std::mem::replace(&mut part.layer, Err(Error::Cancelled));
                Err(taken.err().unwrap_or(Error::Cancelled))
            }
        }
    }
}

/// The images of an archive that are for other platforms than the one that was asked for.
struct Others(Vec<String>);

impl Others {
    /// Whether an image is for the platform; notes it where it is not.
    fn fits(&mut self, config: &Config, wanted: Option<&Platform>) -> bool {
        let offer = config.platform();
        let fits = wanted.is_none_or(|w| w.rank(&offer).is_some());
        if !fits && !self.0.contains(&offer.to_string()) {
            self.0.push(offer.to_string());
        }
        fits
    }

    /// Nothing at all for the platform is a mistake of whoever asked.
    fn refuse_none(self, loaded: &[Loaded], wanted: Option<&Platform>) -> Result<(), Error> {
        match wanted {
            Some(w) if loaded.is_empty() && !self.0.is_empty() => Err(Error::NoPlatform {
                what: "the archive".into(),
                wanted: w.to_string(),
                available: self.0.join(", "),
            }),
            _ => Ok(()),
        }
    }
}

fn docker(
    store: &ImageStore,
    archive: &mut Archive,
    list: &[u8],
    platform: Option<&Platform>,
) -> Result<Vec<Loaded>, Error> {
    let items: Vec<DockerItem> = serde_json::from_slice(list).map_err(|e| invalid(format!("manifest.json: {e}")))?;
    let (mut all, mut others) = (Vec::new(), Others(Vec::new()));
    for item in items {
        let config_bytes = archive.document(&item.config)?.to_vec();
        let config = oci::config(&config_bytes, item.layers.len(), &item.config)?;
        if !others.fits(&config, platform) {
            continue;
        }
        let metas = metas(archive, item.layers.iter(), &config)?;
        let mut pins = store.pins();
        pins.add(Name::Image(
            crate::digest::hex_of(&crate::digest::of(&config_bytes)).to_owned(),
        ));
        let record = store.assemble(&config_bytes, &config, &metas, &mut pins)?;
        let tags = item.repo_tags.unwrap_or_default();
        all.push(Loaded {
            record,
            references: tags.iter().filter_map(|t| reference(t)).collect(),
        });
    }
    others.refuse_none(&all, platform)?;
    Ok(all)
}

fn metas<'n>(
    archive: &mut Archive,
    names: impl Iterator<Item = &'n String>,
    config: &Config,
) -> Result<Vec<LayerMeta>, Error> {
    names
        .zip(&config.rootfs.diff_ids)
        .map(|(name, diff_id)| archive.layer(name, diff_id))
        .collect()
}

fn oci_layout(
    store: &ImageStore,
    archive: &mut Archive,
    index: &[u8],
    asked: Option<&Platform>,
) -> Result<Vec<Loaded>, Error> {
    let Document::Index(index) = oci::document(index, oci::OCI_INDEX, "index.json")? else {
        return Err(invalid("index.json is no index".into()));
    };
    let host = Platform::host();
    let platform = asked.unwrap_or(&host);
    let (mut all, mut others): (Vec<Loaded>, _) = (Vec::new(), Others(Vec::new()));
    for descriptor in wanted(&index, platform)? {
        let manifest_bytes = image_manifest(archive, descriptor, platform)?;
        let Some(record) = oci_image(store, archive, &manifest_bytes, asked, &mut others)? else {
            continue;
        };
        let name = descriptor.annotations.get(FULL_NAME).or_else(|| {
            // A tag alone names no image.
            descriptor.annotations.get(REF_NAME).filter(|n| n.contains([':', '/']))
        });
        let references: Vec<Reference> = name.and_then(|n| reference(n)).into_iter().collect();
        match all.iter_mut().find(|l| l.record.image_id == record.image_id) {
            Some(same) => same.references.extend(references),
            None => all.push(Loaded { record, references }),
        }
    }
    others.refuse_none(&all, asked)?;
    Ok(all)
}

/// The entries to load: all that have names; of several for different platforms, the one that fits.
fn wanted<'i>(index: &'i Index, platform: &Platform) -> Result<Vec<&'i Descriptor>, Error> {
    let named = |d: &&Descriptor| d.annotations.contains_key(FULL_NAME) || d.annotations.contains_key(REF_NAME);
    let all: Vec<&Descriptor> = index.manifests.iter().collect();
    let mut with_name: Vec<&Descriptor> = all.iter().copied().filter(named).collect();
    if with_name.is_empty() && all.iter().all(|d| d.platform.is_some()) && all.len() > 1 {
        with_name.push(oci::choose(index, platform, "the archive")?);
    }
    Ok(if with_name.is_empty() { all } else { with_name })
}

/// Follows an index within the archive to the manifest for the platform.
fn image_manifest(archive: &Archive, descriptor: &Descriptor, platform: &Platform) -> Result<Vec<u8>, Error> {
    let bytes = archive.blob(&descriptor.digest)?;
    match oci::document(bytes, &descriptor.media_type, &descriptor.digest)? {
        Document::Manifest(_) => Ok(bytes.to_vec()),
        Document::Index(index) => {
            let chosen = oci::choose(&index, platform, &descriptor.digest)?;
            let bytes = archive.blob(&chosen.digest)?;
            match oci::document(bytes, &chosen.media_type, &chosen.digest)? {
                Document::Manifest(_) => Ok(bytes.to_vec()),
                Document::Index(_) => Err(invalid("its indexes name further indexes".into())),
            }
        }
    }
}

/// Nothing where the image is for another platform than the one asked for.
fn oci_image(
    store: &ImageStore,
    archive: &mut Archive,
    manifest_bytes: &[u8],
    platform: Option<&Platform>,
    others: &mut Others,
) -> Result<Option<ImageRecord>, Error> {
    let manifest: Manifest = serde_json::from_slice(manifest_bytes).map_err(|e| invalid(e.to_string()))?;
    let config_bytes = archive.blob(&manifest.config.digest)?.to_vec();
    let config = oci::config(&config_bytes, manifest.layers.len(), &manifest.config.digest)?;
    if !others.fits(&config, platform) {
        return Ok(None);
    }
    let names: Vec<String> = manifest
        .layers
        .iter()
        .map(|l| format!("blobs/sha256/{}", crate::digest::hex_of(&l.digest)))
        .collect();
    for (blob, name) in manifest.layers.iter().zip(&names) {
        let part = archive.part(name)?;
        if part.layer.is_ok() && (part.digest != blob.digest || part.size != blob.size) {
            return Err(mismatch(
                "the digest of a layer in the archive",
                &blob.digest,
                &part.digest,
            ));
        }
    }
    let metas = metas(archive, names.iter(), &config)?;
    let mut pins = store.pins();
    pins.add(Name::Image(crate::digest::hex_of(&manifest.config.digest).to_owned()));
    store.write_blob(&config_bytes, &mut pins)?;
    store.keep_image(manifest_bytes, &config, &metas, &mut pins).map(Some)
}

fn reference(text: &str) -> Option<Reference> {
    text.parse()
        .inspect_err(|e| tracing::warn!("a name in the archive is left out: {e}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        assert_eq!(normal("./a//b", ""), "a/b");
        assert_eq!(normal("../x/layer.tar", "y"), "x/layer.tar");
        assert_eq!(normal("../../../etc/passwd", "y"), "etc/passwd");
        assert_eq!(normal("/abs", "y"), "abs");
    }
}
