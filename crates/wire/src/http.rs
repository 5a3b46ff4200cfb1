//! What long calls of the native API answer: JSON lines, any number with `progress`, then one with `result` or `error`.
//!
//! | call | body | result |
//! |---|---|---|
//! | `POST nodes/self/image-load` | archive | [`ImageResult`] |
//! | `GET nodes/self/image-save?reference=&format=docker\|oci` | | (the answer's body is the archive itself) |
//! | `POST nodes/self/image-import?reference=&format=rootfs\|raw\|qcow2&config=` | tar or disk | [`ImageResult`] |
//! | `POST nodes/self/image-push?reference=&as=` | | [`ImageResult`] |
//! | `POST nodes/self/image-tag?reference=&as=` | | [`ImageResult`] |
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
