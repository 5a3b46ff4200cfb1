//! What a registry says of an image, without fetching it.

use std::sync::Arc;

use biga_model::Reference;

use super::oci::{self, Document};
use super::pull::any;
use super::{ImageStore, PullOptions};
use crate::registry::Repo;
use crate::{Error, Platform};

/// An image as its registry describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Media type of its manifest or index.
    pub media_type: String,
    /// Digest of that.
    pub digest: String,
    /// Bytes of that.
    pub size: u64,
    /// What it is for: one platform of a manifest, each of an index. What an index says of no platform is left out.
    pub platforms: Vec<Platform>,
}

impl ImageStore {
    /// Asks the registry of `reference` what stands there.
    pub async fn remote(self: &Arc<Self>, reference: &Reference, options: &PullOptions) -> Result<Remote, Error> {
        let auth = self.auth_or_own(&options.auth);
        let sources = Repo::sources(&self.client, reference, &auth, options.insecure).await?;
        let what = reference.familiar();
        let name = reference
            .digest
            .clone()
            .or(reference.tag.clone())
            .unwrap_or_else(|| "latest".into());
        let got = any(&sources, |repo| repo.manifest(&name)).await?;
        let platforms = match oci::document(&got.bytes, &got.media_type, &what)? {
            Document::Index(index) => index.manifests.into_iter().filter_map(|d| d.platform).collect(),
            Document::Manifest(m) => {
                let bytes = any(&sources, |repo| {
                    repo.small_blob(&m.config.digest, m.config.size, oci::MAX_CONFIG)
                })
                .await?;
                // The config of what is no image says nothing of platforms.
                match oci::config(&bytes, m.layers.len(), &what) {
                    Ok(config) => vec![config.platform()],
                    Err(_) => Vec::new(),
                }
            }
        };
        Ok(Remote {
            media_type: got.media_type,
            size: got.bytes.len() as u64,
            digest: got.digest,
            platforms,
        })
    }

    /// Asks the registry of `reference` which tags its repository has.
    pub async fn tags(self: &Arc<Self>, reference: &Reference, options: &PullOptions) -> Result<Vec<String>, Error> {
        let auth = self.auth_or_own(&options.auth);
        let sources = Repo::sources(&self.client, reference, &auth, options.insecure).await?;
        any(&sources, Repo::tags).await
    }
}
