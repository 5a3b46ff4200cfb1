//! Archives, written in one pass without temporary files: tars come out of the layers as they once went in.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::sync::Arc;

use biga_model::Reference;
use serde::Serialize;
use tokio::io::AsyncWrite;
use tokio_util::io::SyncIoBridge;

use super::ImageStore;
use super::assemble::plain_layers;
use super::disks;
use super::files::{Name, blocking};
use super::oci::{self, Config, Descriptor, Index, RootFs};
use crate::tarstream::write;
use crate::{Error, ImageId, ImageRecord, Platform};

/// Bytes written at once.
const BUFFER: usize = 256 << 10;

/// Forms of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// As `docker save` writes it: `docker load` of any version reads it, and newer ones find an OCI layout in it.
    #[default]
    Docker,
    /// An OCI image layout in a tar.
    Oci,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// One layer to be written.
pub(super) enum Source {
    Layer(String),
    Disk(crate::DiskRecord),
}

/// An image as it goes out: all layers as plain tars.
pub(super) struct Outgoing {
    pub config: Vec<u8>,
    pub layers: Vec<(Descriptor, Source)>,
}

pub(super) async fn save(
    store: &Arc<ImageStore>,
    images: &[(ImageId, Vec<Reference>)],
    writer: impl AsyncWrite + Send + Unpin + 'static,
    format: ArchiveFormat,
) -> Result<(), Error> {
    let (store, images) = (store.clone(), images.to_vec());
    let writer = SyncIoBridge::new(writer);
    blocking(move || {
        let mut out = BufWriter::with_capacity(BUFFER, writer);
        store.save_blocking(&images, &mut out, format)?;
        let mut writer = out.into_inner().map_err(|e| Error::Stream(e.into_error()))?;
        writer.flush().map_err(Error::Stream)?;
        writer.shutdown().map_err(Error::Stream)
    })
    .await
}

impl ImageStore {
    fn save_blocking(
        &self,
        images: &[(ImageId, Vec<Reference>)],
        out: &mut impl Write,
        format: ArchiveFormat,
    ) -> Result<(), Error> {
        let mut written = std::collections::HashSet::new();
        let (mut items, mut manifests) = (Vec::new(), Vec::new());
        for dir in ["blobs/", "blobs/sha256/"] {
            write::directory(out, dir).map_err(Error::Stream)?;
        }
        let mut pins = self.pins();
        for (id, references) in images {
            pins.add(Name::Image(id.hex().to_owned()));
            let record = self.get(id)?;
            let outgoing = self.outgoing(&record)?;
            for (blob, source) in &outgoing.layers {
                pins.add(Name::Layer(crate::digest::hex_of(&blob.digest).to_owned()));
                if written.insert(blob.digest.clone()) {
                    let tar = self.open_source(source)?;
                    write::file(out, &blob_name(&blob.digest), blob.size, tar).map_err(Error::Stream)?;
                }
            }
            let mut document = |bytes: &[u8], out: &mut _| -> Result<String, Error> {
                let digest = crate::digest::of(bytes);
                if written.insert(digest.clone()) {
                    write::file(out, &blob_name(&digest), bytes.len() as u64, bytes).map_err(Error::Stream)?;
                }
                Ok(digest)
            };
            let config = document(&outgoing.config, out)?;
            let layers: Vec<Descriptor> = outgoing.layers.into_iter().map(|(d, _)| d).collect();
            items.push(DockerItem {
                config: blob_name(&config),
                repo_tags: references.iter().filter(|r| r.tag.is_some()).map(repo_tag).collect(),
                layers: layers.iter().map(|l| blob_name(&l.digest)).collect(),
            });
            let config = Descriptor::new(oci::OCI_CONFIG, config, outgoing.config.len() as u64);
            let manifest = oci::manifest(config, layers)?;
            let digest = document(&manifest, out)?;
            let entry = Descriptor {
                platform: record.platform.parse().ok(),
                ..Descriptor::new(oci::OCI_MANIFEST, digest, manifest.len() as u64)
            };
            manifests.extend(entries(entry, references));
        }
        let index = Index {
            schema_version: 2,
            media_type: oci::OCI_INDEX.into(),
            manifests,
        };
        let mut top =
            |name: &str, bytes: Vec<u8>| write::file(out, name, bytes.len() as u64, &bytes[..]).map_err(Error::Stream);
        top("index.json", oci::json(&index)?)?;
        top("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())?;
        if format == ArchiveFormat::Docker {
            top("manifest.json", oci::json(&items)?)?;
        }
        write::end(out).map_err(Error::Stream)
    }

    /// Config and layers of an image; a disk gets a layer around it.
    pub(super) fn outgoing(&self, record: &ImageRecord) -> Result<Outgoing, Error> {
        let Some(disk) = &record.disk else {
            let sizes: Vec<u64> = record
                .layers
                .iter()
                .map(|l| self.whole_layer(&l.diff_id).map(|m| m.tar_size))
                .collect::<Result<_, _>>()?;
            let diff_ids: Vec<String> = record.layers.iter().map(|l| l.diff_id.clone()).collect();
            let plain = plain_layers(&diff_ids, sizes.into_iter());
            let layers = plain
                .into_iter()
                .map(|d| (d.clone(), Source::Layer(d.digest)))
                .collect();
            return Ok(Outgoing {
                config: self.raw_config(&record.image_id)?,
                layers,
            });
        };
        let tar = disks::layer_tar(disk)?;
        let size = tar.size;
        let diff_id = digest_of(tar.reader).map_err(Error::io("read", &disk.file))?;
        let platform: Platform = record.platform.parse().unwrap_or_else(|_| Platform::host());
        let config = Config {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            created: record.created.clone(),
            config: None,
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: vec![diff_id.clone()],
            },
            history: None,
        };
        let layer = (
            Descriptor::new(oci::OCI_LAYER, diff_id, size),
            Source::Disk(disk.clone()),
        );
        Ok(Outgoing {
            config: oci::json(&config)?,
            layers: vec![layer],
        })
    }

    fn whole_layer(&self, diff_id: &str) -> Result<super::layers::LayerMeta, Error> {
        self.layer(diff_id)?.ok_or_else(|| Error::Damaged {
            path: self.layer_file(diff_id),
            why: "it is not there or not whole".into(),
        })
    }

    pub(super) fn open_source(&self, source: &Source) -> Result<Box<dyn Read + Send>, Error> {
        Ok(match source {
            Source::Layer(diff_id) => Box::new(self.layer_tar(diff_id)?),
            Source::Disk(disk) => disks::layer_tar(disk)?.reader,
        })
    }
}

fn digest_of(mut reader: impl Read) -> std::io::Result<String> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    let mut piece = vec![0; BUFFER];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(crate::digest::finish(hasher)),
            n => hasher.update(&piece[..n]),
        }
    }
}

/// One entry of the index for each name.
fn entries(entry: Descriptor, references: &[Reference]) -> Vec<Descriptor> {
    if references.is_empty() {
        return vec![entry];
    }
    let with_name = |r: &Reference| {
        let mut annotations = BTreeMap::from([("io.containerd.image.name".to_owned(), r.to_string())]);
        if let Some(tag) = &r.tag {
            annotations.insert("org.opencontainers.image.ref.name".into(), tag.clone());
        }
        Descriptor {
            annotations,
            ..entry.clone()
        }
    };
    references.iter().map(with_name).collect()
}

/// `name:tag` without a digest, in Docker's short spelling.
fn repo_tag(reference: &Reference) -> String {
    Reference {
        digest: None,
        ..reference.clone()
    }
    .familiar()
}

fn blob_name(digest: &str) -> String {
    format!("blobs/sha256/{}", crate::digest::hex_of(digest))
}
