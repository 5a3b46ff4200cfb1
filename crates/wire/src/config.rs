//! What a shim is told to run: resolved, absolute, with nothing left to look up.
//!
//! The agent writes it as `shim.json` into the instance's run directory and starts the shim with
//! that path as its one argument.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::Restore;
pub use crate::namespaces::{
    DeviceRule, IdMap, IoLimit, MountHow, Namespace, NamespaceFile, Namespaces, Propagation, TimeOffsets,
};

/// Files and directories of the kernel that say or do too much: a container does not see them unless it says so.
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it sees but cannot change.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimConfig {
    /// Identity on disk and in the kernel.
    pub uid: String,
    /// For people, in messages and process titles.
    pub name: String,
    /// Its directory under the run root: socket `shim.sock`, `exit.json`, `shim.pid`. Exists.
    pub run_dir: PathBuf,
    /// Its directory under the state root: `upper`, `work`, `rw.img`, `disk.qcow2`. Exists.
    pub state_dir: PathBuf,
    /// Where its output is kept.
    pub log: Log,
    /// Start the entrypoint at once, without waiting for [`crate::shim::Request::Start`].
    pub start: bool,
    /// Hold output until the first client attached, at most so many milliseconds; 0 does not hold.
    pub wait_attach_ms: u64,
    /// Path of its control group below each hierarchy's root, as `biga/9f0c…`.
    pub cgroup: String,
    /// Limits.
    pub limits: Limits,
    /// What runs.
    pub workload: Workload,
}

/// Where output is kept: lines `<RFC 3339 UTC with nanoseconds> <stdout|stderr> <F|P> <text>`, where `P`
/// marks a line that the next one continues (the format of the Kubernetes CRI).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The current file; older ones are `PATH.1`, `PATH.2`, …. No log where unset.
    pub path: Option<PathBuf>,
    /// Start a new file at this size in bytes.
    pub max_size: u64,
    /// Keep so many files.
    pub max_files: u32,
    /// Who else gets each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<Sink>,
}

/// Who gets the lines of a log beside its file. One that is not there holds nothing up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sink {
    /// The journal, in its own protocol.
    Journal {
        /// Its datagram socket.
        socket: PathBuf,
        /// Fields of every entry, beside the text, its priority and its time.
        fields: BTreeMap<String, String>,
    },
    /// Syslog.
    Syslog {
        /// Where.
        to: SyslogTo,
        /// Number of the facility, 0 to 23 (RFC 5424, 6.2.1).
        facility: u8,
        /// Form of a message.
        format: SyslogFormat,
        /// Name of the program.
        tag: String,
        /// This host, as messages over the network name it.
        hostname: String,
    },
}

/// Where syslog listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SyslogTo {
    /// Where syslog(3) looks on this host.
    Local,
    /// A socket of this host, of datagrams or a stream.
    Unix(PathBuf),
    /// Datagrams.
    Udp(std::net::SocketAddr),
    /// A connection.
    Tcp(std::net::SocketAddr),
}

/// Form of a syslog message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyslogFormat {
    /// As programs of this host write to its own syslog: without the host's name.
    #[default]
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424 with whole seconds.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Workload {
    /// A process in namespaces.
    Container(Box<Container>),
    /// An OCI image under a kernel of its own.
    Microvm(Box<Microvm>),
    /// A machine.
    Machine(Box<Machine>),
    /// Several containers that share the instance's network, host name and IPC.
    Pod(Box<Pod>),
}

/// Several containers that share an instance's namespaces. Limits of the whole are the instance's ([`ShimConfig::limits`]); each
/// container has a group of its own below the instance's.
///
/// The shim makes what is shared and starts no container: whoever holds the instance tells it to start and stop each
/// ([`crate::shim::Request::Of`]), in the order and as often as it wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The containers; their `netns`, `host_network`, `domainname` and `sysctls` are not looked at. `hostname`, `hosts` and
    /// `resolv_conf` of each become its files.
    pub containers: Vec<PodContainer>,
    /// Name of the container that requests mean which name none.
    pub main: String,
    /// One namespace of process ids for all, whose process 1 is an init of ours.
    pub share_pids: bool,
    /// A network namespace to join; a new, empty one where unset and not `host_network`.
    pub netns: Option<NamespaceFile>,
    /// Stay in the host's network namespace.
    pub host_network: bool,
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// Bytes of `/dev/shm`, which all see.
    pub shm_size: u64,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// File systems in memory that several can mount ([`PodContainer::shared`]), by name; one path segment each.
    pub tmpfs: BTreeMap<String, SharedTmpfs>,
}

/// One container of a [`Pod`]. Its directories are `containers/NAME` below the instance's; they exist.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainer {
    /// Unique in the instance; one path segment.
    pub name: String,
    /// Where its output is kept.
    pub log: Log,
    /// Limits of its own.
    pub limits: Limits,
    /// Which of the container's mounts, by their place, are file systems of [`Pod::tmpfs`], by their name there.
    pub shared: BTreeMap<usize, String>,
    /// The container.
    pub container: Container,
}

impl PodContainer {
    /// Its directory below the instance's run or state directory.
    pub fn dir(instance: &Path, name: &str) -> PathBuf {
        instance.join("containers").join(name)
    }
}

/// A file system in memory that all containers of a pod can mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedTmpfs {
    /// Bytes at most.
    pub size: Option<u64>,
    /// Mode of the root.
    pub mode: u32,
    /// More options, as those of [`MountSource::Tmpfs`].
    #[serde(default)]
    pub options: Vec<String>,
}

/// Limits; `None` means none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Relative weight in cgroup v1's scale (1024 is usual).
    pub cpu_shares: Option<u64>,
    /// As `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<u64>,
    /// Bytes, soft.
    pub memory_reservation: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Added to the badness score.
    pub oom_score_adj: Option<i32>,
    /// Microseconds of processor time a period, instead of `cpu_millis`; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    pub cpu_period: Option<u64>,
    /// Microseconds of unused time that may be saved up.
    pub cpu_burst: Option<u64>,
    /// Microseconds of realtime a period; only on version 1.
    pub cpu_realtime_runtime: Option<u64>,
    /// Microseconds of that period.
    pub cpu_realtime_period: Option<u64>,
    /// Memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// 0 to 100; only on version 1.
    pub memory_swappiness: Option<u64>,
    /// Let processes wait instead of killing one when memory runs out; only on version 1.
    pub oom_kill_disable: Option<bool>,
    /// Weight among others for block devices, 10 to 1000.
    pub io_weight: Option<u16>,
    /// Limits on single block devices.
    pub io_devices: Vec<IoLimit>,
    /// Bytes of huge pages, by their size as the kernel names it (`2MB`).
    pub hugetlb: BTreeMap<String, u64>,
    /// Files of the version 2 group and what is written to them, as they are.
    pub unified: BTreeMap<String, String>,
}

/// The main process, with the image's wishes already merged in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Program and arguments; the program is looked up in the environment's PATH inside.
    pub args: Vec<String>,
    /// `NAME=value`, complete.
    pub env: Vec<String>,
    /// Working directory inside; made if it does not exist.
    pub cwd: String,
    /// `user[:group]` by name or number, resolved against the image's own `/etc/passwd` and `/etc/group`.
    pub user: String,
    /// More groups, by name or number.
    pub additional_groups: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep its standard input open.
    pub stdin: bool,
    /// Close standard input after the first client left.
    pub stdin_once: bool,
    /// Resource limits by the lower-case name: soft and hard, -1 is unlimited.
    pub rlimits: BTreeMap<String, (i64, i64)>,
    /// Octal mask.
    pub umask: Option<u32>,
    /// Run a small init as PID 1.
    pub init: bool,
}

/// An image layer: one EROFS file, and where the agent mounted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The EROFS file.
    pub file: PathBuf,
    /// Its mount point on the host, for containers.
    pub mount: Option<PathBuf>,
}

/// A process in namespaces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The main process.
    pub process: Process,
    /// Lowest first; each has `mount` set. `upper` and `work` are in the state directory.
    pub layers: Vec<Layer>,
    /// In order, over the root file system.
    pub mounts: Vec<Mount>,
    /// A network namespace to join; a new, empty one where unset and not `host_network`.
    pub netns: Option<NamespaceFile>,
    /// Stay in the host's network namespace.
    pub host_network: bool,
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Names of capabilities without `CAP_`, already merged from the defaults and the wishes.
    pub capabilities: Vec<String>,
    /// All the host has: devices, writable `/sys` and `/proc`, every capability.
    pub privileged: bool,
    /// Mount the root read-only.
    pub read_only_root: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Whether the default system call filter applies.
    pub seccomp: bool,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Device nodes beyond the usual ones.
    pub devices: Vec<Device>,
    /// Devices it may use (and nodes it may make) beyond those of `devices`.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// A system call filter of its own in the OCI form, which applies with `seccomp` instead of the default one.
    #[serde(default)]
    pub seccomp_profile: Option<serde_json::Value>,
    /// What it shares, and its user ids.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Paths hidden from it; the usual ones where unset.
    #[serde(default)]
    pub masked_paths: Option<Vec<String>>,
    /// Paths it cannot write; the usual ones where unset.
    #[serde(default)]
    pub read_only_paths: Option<Vec<String>>,
    /// AppArmor profile.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// SELinux label of its processes.
    #[serde(default)]
    pub selinux: Option<String>,
    /// SELinux label of its mounts.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// It runs an init system (systemd and the like), which gets control groups and a console to manage.
    #[serde(default)]
    pub system: bool,
    /// Another OCI runtime that makes the container; ours where unset.
    #[serde(default)]
    pub runtime: Option<OciRuntime>,
    /// Programs of the host to run while it is made, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// For another runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Without `/dev/shm`.
    #[serde(default)]
    pub no_shm: bool,
    /// A checkpoint of it: its processes go on from there, and the main process is not executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// A program with the command line of an OCI runtime, as `runc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciRuntime {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Milliseconds that one call of it may take; a minute (20 seconds where nothing is started) where unset.
    #[serde(default)]
    pub patience_ms: Option<u64>,
}

/// A device node of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// On the host.
    pub host_path: PathBuf,
    /// Inside.
    pub path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
    /// What it is, where that is known without looking at `host_path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<DeviceNumber>,
    /// Mode of the node inside; readable and writable for all where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Its user inside; root where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group inside; root's where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// What a device is to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNumber {
    /// A block device; a character device otherwise.
    pub block: bool,
    /// Which driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// A program of the host that is run while a container is made, with its state on standard input, as the OCI runtime
/// specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When.
    pub stage: HookStage,
    /// Absolute.
    pub path: String,
    /// With its name first.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds it may take.
    pub timeout: Option<i64>,
}

/// When a hook is run. Those of the host's namespaces are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookStage {
    /// In the container's namespaces, before its root is entered: the program is the host's.
    CreateContainer,
    /// Inside, before its program runs: the hook's program is the container's.
    StartContainer,
}

/// Something mounted into a container, or shared into a microvm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// Absolute path inside, resolved beneath the root by the kernel.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Copy what the image has at `target` into the source before mounting, if the source is empty.
    pub copy_up: bool,
    /// What is seldom asked for.
    #[serde(default)]
    pub how: MountHow,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum MountSource {
    /// A directory or file of the host, resolved already.
    Bind {
        /// Where.
        path: PathBuf,
        /// A volume's directory is shared into microvms; so is any other bind.
        sub_path: Option<String>,
    },
    /// A raw image file with an ext4 file system on it (a block volume).
    Block {
        /// The file.
        path: PathBuf,
    },
    /// The files of an image.
    Image {
        /// Where its layers are mounted, lowest first.
        layers: Vec<PathBuf>,
        /// Only what is at this path of it.
        sub_path: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes at most.
        size: Option<u64>,
        /// Mode of the root.
        mode: u32,
        /// More options as mount(8) writes them: flags (`noexec`, `exec`, `suid`, `dev`, …), and what the file system takes.
        #[serde(default)]
        options: Vec<String>,
    },
}

/// What QEMU needs for either kind of machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hypervisor {
    /// The program, as `/usr/bin/qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// Its version: major, minor.
    pub version: (u32, u32),
    /// Whether KVM was seen running a guest; TCG otherwise.
    pub kvm: bool,
    /// The virtiofs daemon, where there is one.
    pub virtiofsd: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
}

/// A network card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// A persistent tap interface of the host, made and put on its bridge by the agent.
    pub tap: String,
    /// Hardware address.
    pub mac: String,
    /// Name inside a microvm, as `eth0`.
    pub interface: String,
    /// Address with prefix length, as `10.88.0.5/24`.
    pub address: String,
    /// Default router; empty for none.
    pub gateway: String,
    /// Largest packet.
    pub mtu: u32,
    /// Name servers, for machines' cloud-init.
    pub dns: Vec<String>,
}

/// An OCI image under a kernel of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Microvm {
    /// QEMU.
    pub hypervisor: Hypervisor,
    /// Guest kernel, an uncompressed ELF `vmlinux`.
    pub kernel: PathBuf,
    /// Initramfs: modules and our init.
    pub initrd: PathBuf,
    /// The main process.
    pub process: Process,
    /// Lowest first. Attached read-only.
    pub layers: Vec<Layer>,
    /// Bytes of the writable layer, a sparse file `rw.img` in the state directory; made at first start.
    pub rw_size: u64,
    /// Shared directories and block volumes.
    pub mounts: Vec<Mount>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// As for containers: the guest's init applies them inside.
    pub capabilities: Vec<String>,
    /// Every capability, inside the guest.
    pub privileged: bool,
    /// Mount the root read-only.
    pub read_only_root: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Kernel parameters of the guest.
    pub sysctls: BTreeMap<String, String>,
    /// Once the main process ended well, keep what was changed as the tar of a layer, [`Microvm::CHANGES`] in the state directory. Without
    /// what was made at these paths (without a slash in front) only to mount something on it.
    #[serde(default)]
    pub keep_changes: Option<Vec<String>>,
}

impl Microvm {
    /// Name of the file with what was changed.
    pub const CHANGES: &str = "changes.tar";
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// QEMU.
    pub hypervisor: Hypervisor,
    /// First disk: a qcow2 overlay in the state directory, made by the agent.
    pub disk: PathBuf,
    /// More disks, raw files of block volumes.
    pub disks: Vec<PathBuf>,
    /// NoCloud seed image, read-only.
    pub seed: Option<PathBuf>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// UEFI firmware code and this machine's copy of its variables; BIOS where unset.
    pub uefi: Option<(PathBuf, PathBuf)>,
}
