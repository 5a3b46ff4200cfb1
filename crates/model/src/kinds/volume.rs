//! `Volume`: data that outlives an instance.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Memory;
use crate::kind::{Column, FieldError, Kind, column, wide};
use crate::object::{Condition, Object, Timestamp};

/// Marker of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume;

impl Kind for Volume {
    const KIND: &'static str = "Volume";
    const PLURAL: &'static str = "volumes";
    const SINGULAR: &'static str = "volume";
    const SHORT_NAMES: &'static [&'static str] = &["vol"];
    const NAMESPACED: bool = true;
    const FINALIZERS: &'static [&'static str] = &[super::instance::AGENT_FINALIZER];
    const SUBRESOURCES: &'static [&'static str] = &["status"];
    type Spec = VolumeSpec;
    type Status = VolumeStatus;

    fn validate(o: &Object<Self>, old: Option<&Object<Self>>) -> Vec<FieldError> {
        let mut e = Vec::new();
        match (o.spec.mode, o.spec.size) {
            (VolumeMode::Block, None) => {
                e.push(FieldError::new("spec.size", "is required with mode block, as in 10Gi"))
            }
            (VolumeMode::Block, Some(s)) if s.bytes() < 1 << 20 => {
                e.push(FieldError::new("spec.size", "is at least 1Mi"))
            }
            _ => {}
        }
        if let Some(m) = &o.spec.mount {
            if o.spec.mode != VolumeMode::Directory {
                e.push(FieldError::new("spec.mount", "is only for mode directory"));
            }
            if m.fs_type.is_empty() && m.device.is_empty() {
                e.push(FieldError::new("spec.mount", "names a file system or a device"));
            }
            if [&m.fs_type, &m.device, &m.options].iter().any(|w| w.contains('\0')) {
                e.push(FieldError::new("spec.mount", "must not hold a zero byte"));
            }
        }
        if let Some(old) = old {
            if old.spec.mount != o.spec.mount {
                e.push(FieldError::new("spec.mount", "cannot be changed"));
            }
            if old.spec.mode != o.spec.mode {
                e.push(FieldError::new("spec.mode", "cannot be changed"));
            }
            if o.spec.mode == VolumeMode::Block && o.spec.size < old.spec.size {
                e.push(FieldError::new("spec.size", "a block volume can grow, never shrink"));
            }
        }
        e
    }

    fn columns() -> &'static [Column] {
        &[
            const { column("Mode", "A directory or a block device.") },
            const { column("Size", "Size of a block volume.") },
            const { column("Status", "Whether it is there.") },
            const { wide("Path", "Where it is on the node.") },
        ]
    }

    fn cells(o: &Object<Self>, _now: Timestamp) -> Vec<Value> {
        let s = o.status_or_default();
        vec![
            json!(match o.spec.mode {
                VolumeMode::Directory => "directory",
                VolumeMode::Block => "block",
            }),
            json!(o.spec.size.map(Memory::human).unwrap_or_default()),
            json!(if s.ready {
                "Ready"
            } else if s.message.is_empty() {
                "Pending"
            } else {
                "Failed"
            }),
            json!(s.path),
        ]
    }
}

/// Form of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeMode {
    /// A directory: bound into containers, shared into microvms.
    #[default]
    Directory,
    /// A block device: a disk of machines, a file system of its own in microvms and containers.
    Block,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSpec {
    /// Directory or block.
    #[serde(default)]
    pub mode: VolumeMode,
    /// Of a block volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Memory>,
    /// What is mounted as this volume, instead of a directory of the node's own; only with mode directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<LocalMount>,
}

/// A mount, in the words of mount(8).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalMount {
    /// The file system, as `tmpfs` or `nfs`; `none` for a bind mount.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fs_type: String,
    /// A device, a directory, or an export, as `:/srv/data`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Options, as `size=100m,uid=1000` or `bind`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

/// What is seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeStatus {
    /// Whether it is there.
    #[serde(default)]
    pub ready: bool,
    /// The `metadata.generation` this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// Where it is on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Why it is not there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
