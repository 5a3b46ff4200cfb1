//! Images without a manifest of their own get one made here.

use super::ImageStore;
use super::files::Pins;
use super::layers::LayerMeta;
use super::oci::{self, Config, Descriptor, Manifest};
use crate::{Error, ImageRecord};

impl ImageStore {
    /// Keeps a config and a manifest of plain layers for it, and writes the record.
    pub(super) fn assemble(
        &self,
        config_bytes: &[u8],
        config: &Config,
        metas: &[LayerMeta],
        pins: &mut Pins,
    ) -> Result<ImageRecord, Error> {
        let digest = self.write_blob(config_bytes, pins)?;
        let config_blob = Descriptor::new(oci::OCI_CONFIG, digest, config_bytes.len() as u64);
        let layers = plain_layers(&config.rootfs.diff_ids, metas.iter().map(|m| m.tar_size));
        self.keep_image(&oci::manifest(config_blob, layers)?, config, metas, pins)
    }

    /// Keeps a manifest whose config and layers are here, and writes the record.
    pub(super) fn keep_image(
        &self,
        manifest_bytes: &[u8],
        config: &Config,
        metas: &[LayerMeta],
        pins: &mut Pins,
    ) -> Result<ImageRecord, Error> {
        let digest = self.write_blob(manifest_bytes, pins)?;
        let manifest: Manifest = serde_json::from_slice(manifest_bytes).map_err(|e| Error::Invalid {
            what: format!("the manifest {digest}"),
            why: e.to_string(),
        })?;
        let record = self.record(&manifest, &digest, config, metas)?;
        self.write_record(record)
    }
}

/// Layers as uncompressed tars: their digest is the diff id.
pub(super) fn plain_layers<'d>(diff_ids: &'d [String], sizes: impl Iterator<Item = u64> + 'd) -> Vec<Descriptor> {
    diff_ids
        .iter()
        .zip(sizes)
        .map(|(id, size)| Descriptor::new(oci::OCI_LAYER, id.clone(), size))
        .collect()
}
