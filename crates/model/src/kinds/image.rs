//! `Image`: one reference and what it means on the node. Creating one pulls it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kind::{Column, FieldError, Kind, column, wide};
use crate::object::{Condition, Object, Timestamp};
use crate::{Memory, Reference};

/// Marker of the kind. Objects are named by [`Reference::object_name`].
#[derive(Debug, Clone, PartialEq)]
pub struct Image;

/// Annotation of an image that nobody gave a name: the one it has is made of its id.
pub const NAMELESS: &str = "biga.dev/nameless";

impl Kind for Image {
    const KIND: &'static str = "Image";
    const PLURAL: &'static str = "images";
    const SINGULAR: &'static str = "image";
    const SHORT_NAMES: &'static [&'static str] = &["img"];
    const NAMESPACED: bool = false;
    const FINALIZERS: &'static [&'static str] = &[super::instance::AGENT_FINALIZER];
    const SUBRESOURCES: &'static [&'static str] = &["status"];
    type Spec = ImageSpec;
    type Status = ImageStatus;

    fn validate(o: &Object<Self>, old: Option<&Object<Self>>) -> Vec<FieldError> {
        let mut e = Vec::new();
        if let Err(why) = o.spec.reference.parse::<Reference>() {
            e.push(FieldError::new("spec.reference", why));
        }
        if old.is_some_and(|old| old.spec.reference != o.spec.reference) {
            e.push(FieldError::new(
                "spec.reference",
                "cannot be changed: make another Image",
            ));
        }
        e
    }

    fn columns() -> &'static [Column] {
        &[
            const { column("Reference", "As users type it.") },
            const { column("ID", "The first twelve digits of the image's id.") },
            const { column("Format", "oci or disk.") },
            const { column("Size", "Bytes on this node's disk.") },
            const { column("Status", "Whether it is here.") },
            const { wide("Layers", "How many layers it has.") },
            const { wide("Digest", "Digest of its manifest.") },
        ]
    }

    fn cells(o: &Object<Self>, _now: Timestamp) -> Vec<Value> {
        let s = o.status_or_default();
        let id = s.image_id.strip_prefix("sha256:").unwrap_or(&s.image_id);
        let reference = o
            .spec
            .reference
            .parse::<Reference>()
            .map_or(o.spec.reference.clone(), |r| r.familiar());
        let status = match (s.phase, s.total_bytes) {
            (ImagePhase::Pulling, t) if t > 0 => format!("Pulling {}%", (s.done_bytes.min(t)) * 100 / t),
            (ImagePhase::Failed, _) => format!("Failed: {}", s.reason),
            (p, _) => format!("{p:?}"),
        };
        vec![
            json!(reference),
            json!(id.get(..12).unwrap_or(id)),
            json!(if s.phase == ImagePhase::Ready {
                s.format.as_str()
            } else {
                ""
            }),
            json!(if s.size > 0 {
                Memory(s.size).human()
            } else {
                String::new()
            }),
            json!(status),
            json!(s.layers.len().to_string()),
            json!(s.digest),
        ]
    }
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Only if it is not on the node.
    #[default]
    IfNotPresent,
    /// Every time.
    Always,
    /// Never.
    Never,
}

/// What is wanted: that this reference be on the node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSpec {
    /// As users type it.
    pub reference: String,
    /// `os/architecture[/variant]`; the node's own where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Raise by one to pull again; compared with `status.observedPull`. 0 means: never pull, the image was loaded or imported.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pull_request: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Config and layers.
    #[default]
    Oci,
    /// A machine's disk.
    Disk,
}

impl ImageFormat {
    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageFormat::Oci => "oci",
            ImageFormat::Disk => "disk",
        }
    }
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ImagePhase {
    /// Asked for.
    #[default]
    Pending,
    /// On its way.
    Pulling,
    /// Here.
    Ready,
    /// Not to be had; `message` says why.
    Failed,
}

/// What is seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageStatus {
    /// How far it is.
    #[serde(default)]
    pub phase: ImagePhase,
    /// The `metadata.generation` this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// The `spec.pullRequest` that was carried out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub observed_pull: u64,
    /// One word on why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `sha256:…` of the config (OCI) or of the disk file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    /// `sha256:…` of the manifest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// OCI or disk.
    #[serde(default)]
    pub format: ImageFormat,
    /// `os/architecture`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Bytes on this node's disk.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Diff ids of the layers, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// When the image was made, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// While pulling: bytes received.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub done_bytes: u64,
    /// While pulling: bytes in all, 0 while unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total_bytes: u64,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
