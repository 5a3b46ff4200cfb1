//! What long calls of the native API answer: JSON lines, any number with `progress`, then one with `result` or `error`.
//!
//! | call | body | result |
//! |---|---|---|
//! | `POST nodes/self/image-load` | archive | [`ImageResult`] |
//! | `GET nodes/self/image-save?reference=&format=docker\|oci` (any number of references) | | (the answer's body is the archive itself) |
//! | `POST nodes/self/image-import?reference=&format=rootfs\|raw\|qcow2&config=` | tar or disk | [`ImageResult`] |
//! | `POST nodes/self/image-pull?reference=&platform=&referrers=` | | [`ImageResult`] |
//! | `POST nodes/self/image-push?reference=&as=&referrers=` | | [`ImageResult`] |
//! | `GET nodes/self/image-detail?reference=` | | (one JSON document) [`ImageDetail`] |
//! | `GET nodes/self/image-referrers?reference=` | | (one JSON document) a list of [`ImageReferrer`] |
//! | `POST nodes/self/registry-login` | | (one JSON document, empty) |
//! | `POST nodes/self/image-tag?reference=&as=` | | [`ImageResult`] |
//! | `POST nodes/self/build?options=` | the context's tar | lines with [`crate::build::Event`]s, then [`ImageResult`] |
//! | `POST nodes/self/prune` | | [`PruneResult`] |

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What happens in a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<crate::build::Event>,
    /// The last line of a call that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The last line of a call that failed: a Kubernetes `Status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

/// How far a long call is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Which part, as a layer's digest; empty for the whole.
    pub part: String,
    /// What is being done, as `uploading`.
    pub action: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, 0 while unknown.
    pub total: u64,
}

/// Images a call made or sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageResult {
    /// Each image.
    pub images: Vec<ImageLine>,
}

/// One image of an [`ImageResult`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageLine {
    /// As users type it.
    pub reference: String,
    /// `sha256:…` of the config or the disk.
    pub image_id: String,
    /// `sha256:…` of the manifest, where there is one.
    pub digest: String,
    /// Bytes of the manifest, where it was sent to a registry.
    #[serde(skip_serializing_if = "is_zero")]
    pub manifest_size: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// All that a node knows of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageDetail {
    /// `sha256:…` of the config or the disk.
    pub image_id: String,
    /// `sha256:…` of the manifest; empty for an imported disk.
    pub digest: String,
    /// `sha256:…` of the index it was chosen from; empty where there was none.
    pub index_digest: String,
    /// Repositories that it is known to be in.
    pub sources: Vec<String>,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// A machine's disk: format, and bytes that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ImageDisk>,
    /// What was fetched with it and refers to it.
    pub referrers: Vec<ImageReferrer>,
    /// SHA-256 of the keys whose signatures were verified when it came.
    pub signed_by: Vec<String>,
    /// The whole OCI config.
    pub config: Value,
    /// The manifest.
    pub manifest: Value,
}

/// One layer of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageLayer {
    /// `sha256:…` of the tar.
    pub diff_id: String,
    /// `sha256:…` of the blob as it came.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Bytes of the blob.
    pub blob_size: u64,
    /// Bytes on this node's disk.
    pub size: u64,
}

/// A machine's disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageDisk {
    /// `raw` or `qcow2`.
    pub format: String,
    /// Bytes that the guest sees.
    pub virtual_size: u64,
}

/// Something that refers to an image: a signature, a bill of materials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageReferrer {
    /// `sha256:…` of its manifest.
    pub digest: String,
    /// What it is.
    pub artifact_type: String,
    /// Of which manifest it speaks.
    pub subject: String,
    /// The tag it is found by, where it is found by that alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Bytes of its manifest.
    pub size: u64,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PruneResult {
    /// References and blobs that are gone.
    pub removed: Vec<String>,
    /// Bytes of disk that are free again.
    pub freed_bytes: u64,
}
