//! `Instance`: the one thing that runs, whatever isolates it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::log::LogSpec;
use super::runtime::{MountPropagation, NamespaceSpec, Resources, Share};
use super::security::SecuritySpec;
use crate::kind::{Column, FieldError, Kind};
use crate::object::{Condition, Object, Timestamp};
use crate::{ContainerRestart, ContainerStatus, HealthCheck, HealthStatus, Memory, Phase, PullPolicy};

/// Marker of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance;

/// The finalizer under which the node's agent stops and cleans up before an instance goes.
pub const AGENT_FINALIZER: &str = "biga.dev/agent";

impl Kind for Instance {
    const KIND: &'static str = "Instance";
    const PLURAL: &'static str = "instances";
    const SINGULAR: &'static str = "instance";
    const SHORT_NAMES: &'static [&'static str] = &["inst"];
    const NAMESPACED: bool = true;
    const FINALIZERS: &'static [&'static str] = &[AGENT_FINALIZER];
    const RENAMABLE: bool = true;
    const SUBRESOURCES: &'static [&'static str] = &["attach", "console", "exec", "log", "rename", "stats", "status"];
    type Spec = InstanceSpec;
    type Status = InstanceStatus;

    fn set_defaults(object: &mut Object<Self>) {
        super::instance_validate::set_defaults(object);
    }
    fn follow_rename(spec: &mut InstanceSpec, from: &str, to: &str) {
        let shares = &mut spec.namespaces;
        for share in [&mut shares.pid, &mut shares.ipc, &mut shares.uts] {
            if *share == Share::Instance(from.into()) {
                *share = Share::Instance(to.into());
            }
        }
        if shares.network.as_deref() == Some(from) {
            shares.network = Some(to.into());
        }
        for link in spec.networks.iter_mut().flat_map(|n| &mut n.links) {
            if link.instance == from {
                link.instance = to.into();
            }
        }
    }
    fn validate(object: &Object<Self>, old: Option<&Object<Self>>) -> Vec<FieldError> {
        super::instance_validate::validate(object, old)
    }
    fn columns() -> &'static [Column] {
        super::instance_table::COLUMNS
    }
    fn cells(object: &Object<Self>, now: Timestamp) -> Vec<Value> {
        super::instance_table::cells(object, now)
    }
    fn selectable(object: &Object<Self>, field: &str) -> Option<String> {
        match field {
            "spec.nodeName" => Some(object.spec.node_name.clone().unwrap_or_default()),
            "spec.isolation" => Some(object.spec.isolation.to_string()),
            "status.phase" => Some(object.status_or_default().phase.to_string()),
            _ => None,
        }
    }
}

/// What stands between an instance and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces and cgroups; the host's kernel is shared.
    #[default]
    Container,
    /// The same OCI image under a kernel of its own.
    Microvm,
    /// A machine: firmware, disks, any operating system.
    Vm,
}

impl Isolation {
    /// All three.
    pub const ALL: [Isolation; 3] = [Isolation::Container, Isolation::Microvm, Isolation::Vm];

    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Container => "container",
            Isolation::Microvm => "microvm",
            Isolation::Vm => "vm",
        }
    }

    /// Whether it has a kernel of its own, under an emulator.
    pub fn is_virtual(self) -> bool {
        self != Isolation::Container
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Isolation {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Isolation::ALL
            .into_iter()
            .find(|i| i.as_str() == s)
            .ok_or_else(|| format!("{s:?} is no isolation: it is one of container, microvm, vm"))
    }
}

/// What is wanted of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceSpec {
    /// What stands between it and the host.
    #[serde(default)]
    pub isolation: Isolation,
    /// The image: an OCI image for `container` and `microvm`, a disk image for `vm`. Containers may name images of their own.
    #[serde(default)]
    pub image: String,
    /// When to ask the registry.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Whether it should run.
    #[serde(default)]
    pub power: Power,
    /// Raise by one to restart; compared with `status.observedRestart`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart_request: u64,
    /// A checkpoint of it to go on from, by name, whenever the user starts it; what the restart policy starts begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<String>,
    /// The containers; exactly one for a Docker-like instance, none for a `vm`. Several share the instance's network, host
    /// name and IPC; that needs isolation `container`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerSpec>,
    /// Containers that run before those of `containers`, one after the other, each to its successful end. One with
    /// `restartPolicy: Always` is a sidecar: it is started in its turn and goes on until all others have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<ContainerSpec>,
    /// One namespace of process ids for all containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub share_process_namespace: bool,
    /// What a machine has beyond the common fields; only with `vm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineSpec>,
    /// Limits (containers) or size (machines).
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// How it is connected.
    #[serde(default)]
    pub network_mode: NetworkMode,
    /// The networks it joins with `networkMode: bridge`; none means the network `default`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// Ports of the host that lead into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// What can be mounted; containers name these in `volumeMounts`, machines get them as disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<InstanceVolume>,
    /// Host name inside; the instance's name where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Resolver settings beyond the network's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: DnsSpec,
    /// More lines for `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<HostAlias>,
    /// What to do when it ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart_policy: RestartPolicy,
    /// How it is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: StopSpec,
    /// Remove it when it ends (`--rm`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_remove: bool,
    /// Where its output goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogSpec,
    /// Kernel parameters of its namespaces, as `net.ipv4.ip_forward: "1"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm`; 64 MiB where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Memory>,
    /// What it shares with the host or with other instances.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespaces: NamespaceSpec,
    /// Control group below which its own is made, as `tenants/a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
    /// Another OCI runtime that makes the container instead of Biga's own: a name, as `runc` or one that the node's daemon was given, or
    /// the path of one. Which there are stands in the node's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The node it is placed on: written by the scheduler, or by the user to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

/// Desired power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Power {
    /// It should run.
    #[default]
    Running,
    /// It should exist and not run.
    Stopped,
    /// It should be frozen.
    Paused,
}

/// How an instance is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// To the networks of `spec.networks`.
    #[default]
    Bridge,
    /// Loopback only.
    None,
    /// The host's own network; containers only.
    Host,
}

/// One program of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerSpec {
    /// Unique in the instance; `main` where left out.
    #[serde(default)]
    pub name: String,
    /// Its image; the instance's where left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// When to ask the registry for it; as the instance says where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Only of an init container: makes it a sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<ContainerRestart>,
    /// Limits of its own below the instance's; only in an instance of several containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments (`CMD`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Added to the image's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Replaces the image's working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; replaces the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// More groups, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_groups: Vec<String>,
    /// Give it a terminal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Keep its standard input open.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// Close standard input after the first attached client left.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// Hold its output until the first client attached (at most ten seconds), so that `run` loses nothing. Not done where
    /// there are several containers: what they write stands in their logs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wait_attach: bool,
    /// Where the instance's volumes appear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: SecuritySpec,
    /// Resource limits of its processes (`setrlimit(2)`), by the lower-case name without `RLIMIT_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Device nodes of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceSpec>,
    /// Devices that the node knows by the Container Device Interface, as `vendor.com/gpu=0`; with them comes what they need:
    /// device nodes, mounts, variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cdi_devices: Vec<String>,
    /// Run a small init as PID 1 that reaps and forwards signals.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,
    /// Devices it may use and make nodes of beyond `devices`: `TYPE MAJOR:MINOR ACCESS`, as in `c 188:* rwm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_rules: Vec<String>,
    /// Its program is an init system (systemd and the like): it gets a console, control groups of its own, memory at `/run` and `/tmp`,
    /// and is stopped as such systems want it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub system: bool,
    /// What is run to see whether it does its work; the image's own check where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// File mode creation mask, as in `0022`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
}

/// A variable of the environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Without `=`.
    pub name: String,
    /// As it is, no expansion.
    #[serde(default)]
    pub value: String,
}

/// Soft and hard limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ulimit {
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// A device node given to a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSpec {
    /// On the host.
    pub host_path: String,
    /// Inside; the same where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Any of `r`, `w`, `m`; all where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
}

/// What a machine has beyond the common fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineSpec {
    /// How it boots.
    #[serde(default)]
    pub firmware: Firmware,
    /// Grow the root disk to this size; never shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<Memory>,
    /// First-boot settings for guests with cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
}

/// How a machine boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF.
    Uefi,
}

/// A NoCloud seed (<https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html>).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudInit {
    /// `user-data` as it is; starts with `#cloud-config` or `#!`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Public keys for the image's default user and root, where `userData` is unset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
}

/// A network that an instance joins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkAttachment {
    /// Name of the `Network`.
    pub network: String,
    /// A fixed address in its subnet, without prefix length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A fixed hardware address, as in `52:54:00:12:34:56`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// More names under which its DNS knows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Names that only this instance knows for others on its networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<NetworkLink>,
    /// More addresses, of 169.254.0.0/16, that whoever is on the same network reaches; containers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<String>,
    /// Of the networks that lead out, the one where this is highest is the way to all others; the first of several.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
}

/// A name that one instance has for another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkLink {
    /// The other's name or alias on the network.
    pub instance: String,
    /// What it is called by this one.
    pub alias: String,
    /// Ports of it, as `80/tcp`, that are told in the environment beside those of its image and those it publishes; only on
    /// the default network, where links are told there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// Port inside.
    pub port: u16,
    /// Port of the host; the node picks a free one from 32768 up where unset and reports it in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// Where set, `hostPort` is the first and this the last of a range, of which the node picks a free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port_end: Option<u16>,
    /// Address of the host; all where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Something mountable, under a name local to the instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceVolume {
    /// Local name.
    pub name: String,
    /// A `Volume` of the instance's namespace, by name; made if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// A directory or file of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// Memory. Containers of one instance that mount it see the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<TmpfsSource>,
    /// A directory of the node that is empty at first and goes with the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirSource>,
    /// The files of an image, read-only; it is pulled where it is missing, as the instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A directory that goes with the instance. There is nothing to choose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDirSource {}

/// A file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TmpfsSource {
    /// At most this large; half of memory where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Memory>,
    /// Mode of its root, as in `1777`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// More options of mount(8), as `noexec`, `uid=33`, `nr_inodes=1000`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Where a volume appears in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    /// Which of `spec.volumes`.
    pub name: String,
    /// Absolute path inside.
    pub mount_path: String,
    /// Mount read-only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// A path below the volume's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// With `readOnly`: what is mounted below the source stays as writable as it is on the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only_non_recursive: bool,
    /// Leave out what is mounted below the source.
    #[serde(default, skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    /// How mounts that are made later travel.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: MountPropagation,
    /// Leave a new, empty volume empty, where the image has files at this path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_copy: bool,
}

/// Resolver settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// Name servers instead of the network's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options, as `ndots:2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAlias {
    /// The address.
    pub ip: String,
    /// Its names.
    pub hostnames: Vec<String>,
}

/// What to do when an instance ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartPolicy {
    /// When.
    #[serde(default)]
    pub policy: RestartWhen,
    /// With `on-failure`: give up after so many restarts; 0 means never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub maximum_retry_count: u32,
}

/// When an ended instance is started again. Docker's four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartWhen {
    /// Never.
    #[default]
    No,
    /// Whenever it ends.
    Always,
    /// When it ends with a code other than 0.
    OnFailure,
    /// As `always`, but not after the user stopped it.
    UnlessStopped,
}

/// How an instance is stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopSpec {
    /// First signal, as `SIGTERM`; the image's, then SIGTERM where unset. Machines are asked by ACPI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Seconds until it is killed; 10 for containers and microvms, 60 for machines where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<u32>,
}

/// What is seen of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: Phase,
    /// The `metadata.generation` this status answers.
    #[serde(default)]
    pub observed_generation: i64,
    /// The `metadata.generation` whose networks it has, or could not get (condition `Networks`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub observed_networks: i64,
    /// The `spec.restartRequest` that was carried out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub observed_restart: u64,
    /// One word on why it is there, for `Failed` and `Exited`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The node that runs it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// What the image reference meant: `sha256:…` of its config or disk.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    /// What the images of `spec.volumes` meant, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_image_ids: Vec<String>,
    /// The entrypoint's (or QEMU's) process id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Exit code of the last run: 0 to 255; 128+n after signal n; 125 when Biga itself failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether the kernel killed it for memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oom_killed: bool,
    /// When the last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy started it again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart_count: u32,
    /// What its health check says of the last run; unset where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// Whether the user's `power` stopped it last (for `unless-stopped`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub stopped_by_user: bool,
    /// Its ends on networks. Kept while it exists, so the address stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkEndpoint>,
    /// Its published ports with the host's side filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// What runs a machine's processor: `kvm` or `tcg`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accelerator: String,
    /// What the guest agent of a machine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestInfo>,
    /// Of an instance of several containers: its init containers, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Of an instance of several containers: the others, in the spec's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// `Ready` and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One end on a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkEndpoint {
    /// Name of the `Network`.
    pub network: String,
    /// Interface inside, as `eth0`.
    pub interface: String,
    /// Address with prefix length, as `10.88.0.5/24`.
    pub address: String,
    /// The network's router.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Hardware address.
    pub mac: String,
    /// More names in DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Number of its host end, where it is another than that of its interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
}

/// What the guest agent of a machine says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestInfo {
    /// As in `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// The guest's kernel release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel: String,
    /// The guest's own host name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Addresses the guest reports, with prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}
