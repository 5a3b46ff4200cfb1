//! What only Linux has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::resources::Resources;

/// What only Linux has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// User ids of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// Limits.
    pub resources: Option<Resources>,
    /// Path of its control group.
    pub cgroups_path: String,
    /// New or joined.
    pub namespaces: Vec<Namespace>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Network devices to move inside.
    pub net_devices: BTreeMap<String, serde_json::Value>,
    /// System call filter.
    pub seccomp: Option<serde_json::Value>,
    /// Propagation of the root.
    pub rootfs_propagation: String,
    /// Hidden.
    pub masked_paths: Vec<String>,
    /// Seen but not changed.
    pub readonly_paths: Vec<String>,
    /// Label of SELinux for mounts.
    pub mount_label: String,
    /// Cache and memory bandwidth of Intel's processors.
    pub intel_rdt: Option<serde_json::Value>,
    /// Execution domain.
    pub personality: Option<Personality>,
    /// Offsets of clocks.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Memory policy.
    pub memory_policy: Option<serde_json::Value>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// First inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// A namespace of its own, or another's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// The one to join; a new one where empty.
    pub path: String,
}

/// A device node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Inside.
    pub path: String,
    /// Major number.
    pub major: Option<i64>,
    /// Minor number.
    pub minor: Option<i64>,
    /// Mode.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Execution domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None is defined.
    pub flags: Vec<String>,
}

/// How far a clock is from the host's.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}
