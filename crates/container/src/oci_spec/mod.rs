//! `config.json` of a bundle, as the OCI runtime specification 1.2 has it: read by `biga oci`, and written for other runtimes
//! ([`crate::external`]). Unknown properties are ignored, as it demands.

pub mod linux;
pub mod resources;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use linux::Linux;

/// The document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification.
    pub oci_version: String,
    /// What runs.
    pub process: Option<Process>,
    /// Its root file system.
    pub root: Option<Root>,
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: String,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Programs to run at points of its life.
    pub hooks: Hooks,
    /// Free for users and engines.
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    pub linux: Linux,
    /// Another platform's.
    pub windows: Option<serde_json::Value>,
    /// Another platform's.
    pub solaris: Option<serde_json::Value>,
    /// Another platform's.
    pub vm: Option<serde_json::Value>,
    /// Another platform's.
    pub zos: Option<serde_json::Value>,
}

/// A process, of the container or of an exec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Give it a terminal.
    pub terminal: bool,
    /// The terminal's first size.
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    pub user: User,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Capabilities; none where unset.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// No program can raise its rights.
    pub no_new_privileges: bool,
    /// Profile of AppArmor.
    pub apparmor_profile: String,
    /// Badness score.
    pub oom_score_adj: Option<i32>,
    /// Label of SELinux.
    pub selinux_label: String,
    /// Class and level of disk access.
    pub io_priority: Option<IoPriority>,
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Processors of an exec.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
    /// Windows' form of `args`.
    pub command_line: String,
}

/// Rows and columns.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Who a process runs as.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode mask.
    pub umask: Option<u32>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Windows' form.
    pub username: String,
}

/// Names of capabilities, by set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Can ever be gained.
    pub bounding: Vec<String>,
    /// Are in force.
    pub effective: Vec<String>,
    /// Survive an exec of a program that wants them.
    pub inheritable: Vec<String>,
    /// Can be made effective.
    pub permitted: Vec<String>,
    /// Survive an exec of any program.
    pub ambient: Vec<String>,
}

/// A resource limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rlimit {
    /// As `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What applies.
    pub soft: u64,
    /// How far it can be raised.
    pub hard: u64,
}

/// Class and level of disk access.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// As `IOPRIO_CLASS_BE`.
    pub class: String,
    /// 0 to 7.
    pub priority: u32,
}

/// Scheduling policy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// As `SCHED_BATCH`.
    pub policy: String,
    /// For the fair policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// As `SCHED_FLAG_RESET_ON_FORK`.
    pub flags: Vec<String>,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Lists of processors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// While it enters the container.
    pub initial: String,
    /// When its program runs.
    #[serde(rename = "final")]
    pub last: String,
}

/// The root file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or from the bundle.
    pub path: String,
    /// Nothing in it can be changed.
    pub readonly: bool,
}

/// Something mounted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Path inside.
    pub destination: String,
    /// File system.
    #[serde(rename = "type")]
    pub kind: String,
    /// Device, or a path of the host for binds.
    pub source: String,
    /// As `mount -o` takes them.
    pub options: Vec<String>,
    /// Show owners so.
    pub uid_mappings: Vec<linux::IdMapping>,
    /// Show groups so.
    pub gid_mappings: Vec<linux::IdMapping>,
}

/// Programs to run at points of a container's life.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Old name of the next.
    pub prestart: Vec<Hook>,
    /// On the host, when the namespaces are made.
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered.
    pub create_container: Vec<Hook>,
    /// Inside, before its program runs.
    pub start_container: Vec<Hook>,
    /// On the host, after its program runs.
    pub poststart: Vec<Hook>,
    /// On the host, after it was deleted.
    pub poststop: Vec<Hook>,
}

/// A program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// With its name first.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds it may take.
    pub timeout: Option<i64>,
}

/// A document without what says nothing: no nulls, and no empty texts, lists and objects. Runtimes differ in what they take for unset.
pub fn bare(document: &impl Serialize) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(document).map(|v| strip(v).unwrap_or_default())
}

fn strip(value: serde_json::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Null => None,
        Value::String(s) => (!s.is_empty()).then_some(Value::String(s)),
        // An item stays whatever it is: a list of arguments may hold an empty one.
        Value::Array(all) => (!all.is_empty()).then(|| all.into_iter().map(keep).collect()),
        Value::Object(all) => {
            let some = all.into_iter().filter_map(|(k, v)| Some((k, strip(v)?)));
            Some(some.collect::<serde_json::Map<_, _>>())
                .filter(|o| !o.is_empty())
                .map(Value::Object)
        }
        other => Some(other),
    }
}

fn keep(item: serde_json::Value) -> serde_json::Value {
    match item {
        object @ serde_json::Value::Object(_) => strip(object).unwrap_or_default(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_says_nothing_is_left_out() {
        let spec = Spec {
            oci_version: "1.0.2".into(),
            process: Some(Process {
                args: vec!["echo".into(), String::new()],
                cwd: "/".into(),
                ..Process::default()
            }),
            linux: Linux {
                namespaces: vec![linux::Namespace {
                    kind: "pid".into(),
                    ..Default::default()
                }],
                ..Linux::default()
            },
            ..Spec::default()
        };
        let process = json!({"args": ["echo", ""], "cwd": "/", "noNewPrivileges": false, "terminal": false, "user": {"uid": 0, "gid": 0}});
        let expected = json!({"ociVersion": "1.0.2", "process": process, "linux": {"namespaces": [{"type": "pid"}]}});
        assert_eq!(bare(&spec).unwrap(), expected);
    }
}
