//! What the shim and the init inside a microvm say to each other over the virtio-serial port.
//!
//! - Stream 0 is control: one [`Request`] at a time, answered in order by a [`crate::shim::Reply`].
//! - Any other stream carries one process. The shim opens it with [`Request::Start`] (always
//!   [`MAIN_STREAM`]), [`Request::Exec`] or [`Request::Files`]; the guest answers on the same stream and then sends `Stdout`, `Stderr` and,
//!   as the last frame, `Exit` (or `Error`).
//! - Flow control: either side may send at most [`WINDOW`] bytes of data frames on a stream, and so many more as the
//!   other side has allowed by `Credit` frames. Control frames are not counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Process;
use crate::files::FileWork;
use crate::shim::ExecSpec;

/// Name of the virtio-serial port.
pub const PORT: &str = "dev.biga.guest";
/// Bytes each side may send on a new stream before it needs credit.
pub const WINDOW: u32 = 256 << 10;
/// Stream of the main process.
pub const MAIN_STREAM: u16 = 1;
/// Stream of the last work on files, after the main process: what it changed. No process has it: it would be that of the kernel console,
/// which is not on this port.
pub const CHANGES_STREAM: u16 = 2;
/// Serial of the disk that carries all layers, one after the other.
pub const LAYERS_SERIAL: &str = "layers";
/// Serial of the disk with the writable layer.
pub const RW_SERIAL: &str = "rw";

/// What the guest is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// Make the root file system, the network and all else; the first request.
    Setup {
        /// All of it.
        setup: Box<Setup>,
    },
    /// Start the main process. Answered by [`crate::shim::Reply::Exec`] when it was executed.
    Start,
    /// Start a further process.
    Exec {
        /// What to run.
        exec: Box<ExecSpec>,
    },
    /// Work on files, as a stream.
    Files {
        /// What.
        work: FileWork,
    },
    /// Ids of the processes inside.
    Pids,
    /// Kill what runs, write all to disk, unmount. Answered by `Ok`; then the machine may be switched off.
    Shutdown,
}

/// How a microvm is to look inside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Setup {
    /// The host's clock; nanoseconds since 1970.
    pub clock_ns: u64,
    /// Lowest first.
    pub layers: Vec<LayerRange>,
    /// Over the root, in order.
    pub mounts: Vec<GuestMount>,
    /// Network cards.
    pub nics: Vec<GuestNic>,
    /// The main process.
    pub process: Process,
    /// Host name.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Names of capabilities without `CAP_`.
    pub capabilities: Vec<String>,
    /// Every capability; writable `/proc` and `/sys`.
    pub privileged: bool,
    /// Mount the root read-only.
    pub read_only_root: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
}

/// Where a layer lies on the layers disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRange {
    /// First byte.
    pub start: u64,
    /// So many.
    pub len: u64,
}

/// Something mounted over the root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestMount {
    /// What.
    pub source: GuestSource,
    /// Absolute path, resolved beneath the root.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// Copy what the image has at `target` first, if the source is empty.
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GuestSource {
    /// A directory of the host by virtiofs.
    Share {
        /// Its tag.
        tag: String,
        /// A path beneath it; where it is a file, only this file is bound.
        sub_path: Option<String>,
    },
    /// A disk with an ext4 file system.
    Disk {
        /// Its serial.
        serial: String,
    },
    /// Memory.
    Tmpfs {
        /// Bytes at most.
        size: Option<u64>,
        /// Mode of its root.
        mode: u32,
    },
}

/// A network card inside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestNic {
    /// Hardware address by which it is found.
    pub mac: String,
    /// Its name, as `eth0`.
    pub interface: String,
    /// Address with prefix length.
    pub address: String,
    /// Default router; empty for none.
    pub gateway: String,
    /// Largest packet; 0 leaves it.
    pub mtu: u32,
}
