//! Bodies of `POST /containers/create` and `/containers/{id}/update`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

fn is_unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One word or a list of words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// A list.
    List(Vec<String>),
    /// One word, which stands for a list of one.
    One(String),
}

impl Words {
    /// As a list.
    pub fn list(&self) -> Vec<String> {
        match self {
            Words::List(l) => l.clone(),
            Words::One(w) => vec![w.clone()],
        }
    }
}

/// The body of a create call: Docker's `Config` with the host's and the networks' parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct CreateBody {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub exposed_ports: BTreeMap<String, Value>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Words>,
    pub healthcheck: Option<Healthcheck>,
    pub args_escaped: bool,
    pub image: String,
    pub volumes: BTreeMap<String, Value>,
    pub working_dir: String,
    pub entrypoint: Option<Words>,
    pub network_disabled: bool,
    pub mac_address: String,
    pub on_build: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: String,
    pub stop_timeout: Option<i64>,
    pub shell: Vec<String>,
    pub host_config: HostConfig,
    pub networking_config: NetworkingConfig,
    /// What else was sent.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A health check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`.
    pub test: Vec<String>,
    /// Nanoseconds between probes; 0 is unset, as in all that follow.
    pub interval: i64,
    /// Nanoseconds a probe may take.
    pub timeout: i64,
    /// Nanoseconds in which failures do not count.
    pub start_period: i64,
    /// Nanoseconds between probes of that time.
    pub start_interval: i64,
    /// Failures in a row that count.
    pub retries: i64,
    /// What else was sent.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Docker's `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct HostConfig {
    pub binds: Vec<String>,
    pub log_config: LogConfig,
    pub network_mode: String,
    pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub annotations: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub cgroupns_mode: String,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub group_add: Vec<String>,
    pub ipc_mode: String,
    pub links: Vec<String>,
    pub volumes_from: Vec<String>,
    pub oom_score_adj: i32,
    pub privileged: bool,
    pub publish_all_ports: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Vec<String>,
    pub tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    pub pid_mode: String,
    pub shm_size: i64,
    pub sysctls: BTreeMap<String, String>,
    pub runtime: String,
    pub isolation: String,
    pub mounts: Vec<Mount>,
    pub init: Option<bool>,
    pub devices: Vec<Device>,
    pub device_requests: Vec<DeviceRequest>,
    pub storage_opt: BTreeMap<String, String>,
    pub ulimits: Vec<Ulimit>,
    pub device_cgroup_rules: Vec<String>,
    pub cgroup_parent: String,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    #[serde(flatten)]
    pub resources: Resources,
    /// What else was sent.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The part of `HostConfig` that `update` can change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct Resources {
    pub cpu_shares: i64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub pids_limit: Option<i64>,
    pub cpuset_mems: String,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<WeightDevice>,
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
}

/// A weight for a block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

/// A rate for a block device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

/// The body of an update call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateBody {
    /// Limits; zero leaves one as it is.
    #[serde(flatten)]
    pub resources: Resources,
    /// The new restart policy, where its name is given.
    pub restart_policy: RestartPolicy,
    /// What else was sent.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The body of a call that makes a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointBody {
    /// Its name.
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    /// Where to keep it, if not with the container.
    pub checkpoint_dir: String,
    /// Stop the container.
    pub exit: bool,
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub driver: String,
    pub config: BTreeMap<String, String>,
}

/// The host's side of a published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// When to start again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct RestartPolicy {
    pub name: String,
    pub maximum_retry_count: i64,
}

/// An entry of `HostConfig.Mounts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct Mount {
    #[serde(rename = "Type", skip_serializing_if = "is_unset")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub source: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub target: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_unset")]
    pub consistency: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub bind_options: Map<String, Value>,
    #[serde(skip_serializing_if = "is_unset")]
    pub volume_options: VolumeOptions,
    #[serde(skip_serializing_if = "is_unset")]
    pub tmpfs_options: TmpfsOptions,
    #[serde(skip_serializing_if = "is_unset")]
    pub image_options: ImageOptions,
    /// What else was sent.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Options of a mounted volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct VolumeOptions {
    #[serde(skip_serializing_if = "is_unset")]
    pub no_copy: bool,
    #[serde(skip_serializing_if = "is_unset")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_unset")]
    pub driver_config: DriverConfig,
    #[serde(skip_serializing_if = "is_unset")]
    pub subpath: String,
}

/// A volume driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct DriverConfig {
    #[serde(skip_serializing_if = "is_unset")]
    pub name: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub options: BTreeMap<String, String>,
}

/// Options of a mounted tmpfs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_unset")]
    pub size_bytes: i64,
    #[serde(skip_serializing_if = "is_unset")]
    pub mode: u32,
    #[serde(skip_serializing_if = "is_unset")]
    pub options: Vec<Vec<String>>,
}

/// Options of a mounted image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct ImageOptions {
    #[serde(skip_serializing_if = "is_unset")]
    pub subpath: String,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct Device {
    pub path_on_host: String,
    pub path_in_container: String,
    pub cgroup_permissions: String,
}

/// Devices that a driver finds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct DeviceRequest {
    pub driver: String,
    pub count: i64,
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Vec<String>,
    pub capabilities: Vec<Vec<String>>,
    pub options: BTreeMap<String, String>,
}

/// A limit of `setrlimit(2)`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Docker's `NetworkingConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// Settings by name or id of the network.
    pub endpoints_config: BTreeMap<String, Option<Endpoint>>,
}

/// How a container joins one network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: EndpointIpam,
    pub links: Vec<String>,
    pub mac_address: String,
    pub aliases: Vec<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub gw_priority: i64,
}

/// Fixed addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of Docker's reference")]
pub struct EndpointIpam {
    #[serde(rename = "IPv4Address")]
    pub ipv4: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6: String,
    #[serde(rename = "LinkLocalIPs")]
    pub link_local: Vec<String>,
}
