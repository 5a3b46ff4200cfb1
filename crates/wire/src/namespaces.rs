//! What a container shares with the host or with others, and what its ids are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Namespaces of a container beside its network's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// System V IPC, message queues and `/dev/shm`.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
    /// Clocks that are ahead of or behind the host's; the host's where unset.
    pub time: Option<TimeOffsets>,
    /// Ids of a user namespace of its own; the host's where unset.
    pub user: Option<IdMap>,
}

/// Which namespace of a kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespace {
    /// A new one.
    #[default]
    Own,
    /// The host's.
    Host,
    /// Another's.
    Of(NamespaceFile),
}

/// A namespace by its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceFile {
    /// As `/proc/PID/ns/pid`, or where one is mounted.
    pub path: PathBuf,
    /// The number it must have (its inode, see namespaces(7)): the process may have ended, and its id be another's. Not looked at
    /// where unset.
    pub id: Option<u64>,
}

impl From<PathBuf> for NamespaceFile {
    fn from(path: PathBuf) -> NamespaceFile {
        NamespaceFile { path, id: None }
    }
}

impl Namespace {
    /// Whether it is made for this container.
    pub fn is_own(&self) -> bool {
        *self == Namespace::Own
    }
}

/// Seconds that a container's clocks are ahead of the host's; negative ones are behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeOffsets {
    /// Of `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// Of `CLOCK_BOOTTIME`, and so of `/proc/uptime`.
    pub boottime: i64,
}

/// A range of the host's user and group ids that a container's ids from 0 up stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMap {
    /// The host's id of the container's 0.
    pub base: u32,
    /// How many.
    pub size: u32,
}

impl IdMap {
    /// As the kernel reads it from `uid_map` and `gid_map`.
    pub fn line(&self) -> String {
        format!("0 {} {}\n", self.base, self.size)
    }
}

/// One entry of a container's list of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRule {
    /// `b`, `c`, or `a` for both.
    pub kind: char,
    /// Any where unset.
    pub major: Option<u32>,
    /// Any where unset.
    pub minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// How mounts made later travel between the host and a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways.
    Shared,
}

/// How something is mounted, beyond the usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountHow {
    /// Leave out what is mounted below the source.
    pub flat: bool,
    /// With `read_only`: what is mounted below the source stays as writable as it is there.
    pub read_only_flat: bool,
    /// How mounts made later travel.
    pub propagation: Propagation,
    /// Programs there do not gain rights by their mode.
    pub no_suid: bool,
    /// Device nodes there are no devices.
    pub no_dev: bool,
    /// Nothing there is executed.
    pub no_exec: bool,
}

/// A limit on a block device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IoLimit {
    /// Its node, as `/dev/sda`.
    pub device: PathBuf,
    /// Weight among others, 10 to 1000.
    pub weight: Option<u16>,
    /// Bytes a second that may be read.
    pub read_bps: Option<u64>,
    /// Bytes a second that may be written.
    pub write_bps: Option<u64>,
    /// Reads a second.
    pub read_iops: Option<u64>,
    /// Writes a second.
    pub write_iops: Option<u64>,
}
