//! `Node`: a host that runs an agent, and what it can do.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Memory;
use crate::kind::{Column, FieldError, Kind, column, wide};
use crate::object::{Condition, Object, Timestamp};

/// Marker of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Node;

impl Kind for Node {
    const KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";
    const SINGULAR: &'static str = "node";
    const SHORT_NAMES: &'static [&'static str] = &["no"];
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [&'static str] = &["status"];
    type Spec = NodeSpec;
    type Status = NodeStatus;

    fn validate(_o: &Object<Self>, _old: Option<&Object<Self>>) -> Vec<FieldError> {
        Vec::new()
    }

    fn columns() -> &'static [Column] {
        &[
            const {
                column(
                    "Status",
                    "Whether its agent answers, and whether it takes new instances.",
                )
            },
            const { column("CPUs", "Processors.") },
            const { column("Memory", "Memory in all.") },
            const { column("Isolations", "What it can run.") },
            const { column("Version", "Of Biga.") },
            const { wide("Kernel", "Kernel release.") },
            const { wide("OS", "Distribution.") },
            const { wide("Cgroup", "Version of the cgroup hierarchy.") },
            const { wide("Accelerator", "What runs the processors of machines.") },
        ]
    }

    fn cells(o: &Object<Self>, _now: Timestamp) -> Vec<Value> {
        let s = o.status_or_default();
        let ready = s.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let cordon = if o.spec.unschedulable { ", cordoned" } else { "" };
        vec![
            json!(format!("{}{cordon}", if ready { "Ready" } else { "NotReady" })),
            json!(s.cpus.to_string()),
            json!(Memory(s.memory).human()),
            json!(s.isolations.join(",")),
            json!(s.version),
            json!(s.kernel),
            json!(s.os),
            json!(s.cgroup),
            json!(s.accelerator),
        ]
    }
}

/// What is wanted of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Place no new instances here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
}

/// What is seen of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeStatus {
    /// Processors.
    #[serde(default)]
    pub cpus: u32,
    /// Bytes of memory.
    #[serde(default)]
    pub memory: u64,
    /// Version of Biga.
    #[serde(default)]
    pub version: String,
    /// Kernel release.
    #[serde(default)]
    pub kernel: String,
    /// Distribution.
    #[serde(default)]
    pub os: String,
    /// `v1`, `v2` or `hybrid`.
    #[serde(default)]
    pub cgroup: String,
    /// `kvm`, `tcg` or empty where there is no QEMU.
    #[serde(default)]
    pub accelerator: String,
    /// Isolations it can run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolations: Vec<String>,
    /// Other OCI runtimes that its instances can name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<NodeRuntime>,
    /// What `biga doctor` found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abilities: Vec<Ability>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// An OCI runtime that a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRuntime {
    /// What instances call it.
    pub name: String,
    /// Where it is.
    pub path: String,
}

/// One thing the host offers or lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ability {
    /// As `kvm`, `cgroup`, `erofs`, `nft`.
    pub name: String,
    /// Whether it is there.
    pub state: AbilityState,
    /// What was found, as `version 7.2.22`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What its lack costs the user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cost: String,
    /// What the user can do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// Whether the host has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbilityState {
    /// There, and works.
    #[default]
    Ok,
    /// There in part, or slower than it should be.
    Degraded,
    /// Not there.
    Missing,
}
