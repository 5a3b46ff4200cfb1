//! Limits, as both `config.json` and `update` give them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Limits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Which devices can be used, in order.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Processes.
    pub pids: Option<Pids>,
    /// Disks.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Large pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Marks of packets.
    pub network: Option<Network>,
    /// Remote memory access, by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of version 2, by name.
    pub unified: BTreeMap<String, String>,
}

/// Which devices can be used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Or not.
    pub allow: bool,
    /// `c`, `b`, or `a` and empty for all.
    #[serde(rename = "type")]
    pub kind: String,
    /// All where unset or -1.
    pub major: Option<i64>,
    /// All where unset or -1.
    pub minor: Option<i64>,
    /// Any of `rwm`.
    pub access: String,
}

/// Memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Bytes; -1 for no limit.
    pub limit: Option<i64>,
    /// Bytes, soft.
    pub reservation: Option<i64>,
    /// Bytes of memory and swap together.
    pub swap: Option<i64>,
    /// Bytes of the kernel's own; no kernel of today has it.
    pub kernel: Option<i64>,
    /// Bytes of TCP's buffers.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    /// Wait instead of killing.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Count what is below.
    pub use_hierarchy: Option<bool>,
    /// Refuse a limit below what is used.
    pub check_before_update: Option<bool>,
}

/// Processors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Relative weight.
    pub shares: Option<u64>,
    /// Microseconds a period; -1 for no limit.
    pub quota: Option<i64>,
    /// Microseconds that can be saved up.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// Microseconds of real-time work a period.
    pub realtime_runtime: Option<i64>,
    /// Microseconds.
    pub realtime_period: Option<u64>,
    /// As `0-3,7`.
    pub cpus: String,
    /// As `0-1`.
    pub mems: String,
    /// Run only when nothing else does.
    pub idle: Option<i64>,
}

/// Processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// At most; 0 or less for no limit.
    pub limit: Option<i64>,
}

/// Disks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Against groups below.
    pub leaf_weight: Option<u16>,
    /// By device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes a second.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Operations a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// Weight of one device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// Against groups below.
    pub leaf_weight: Option<u16>,
}

/// Limit of one device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// A second.
    pub rate: u64,
}

/// Large pages.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// As `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Marks of packets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Class.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// By interface.
    pub priorities: Vec<Priority>,
}

/// Priority of an interface.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Priority {
    /// Interface.
    pub name: String,
    /// Higher goes first.
    pub priority: u32,
}

/// Remote memory access.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// At most.
    pub hca_handles: Option<u32>,
    /// At most.
    pub hca_objects: Option<u32>,
}
