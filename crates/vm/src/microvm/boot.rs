//! What a microvm boots from: the layers disk, the writable layer, volumes; and what its init is told.
//!
//! A machine has few slots for devices and an image may have 127 layers, so all layers are one disk: each EROFS file is an
//! extent of a VMDK description (a few lines of text), which QEMU reads as one disk. Inside, each layer becomes a partition by
//! a single call to the kernel. No byte is copied and the files stay shared between all instances.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use biga_wire::config::{Microvm, Mount, MountSource};
use biga_wire::guest::{GuestMount, GuestNic, GuestSource, LAYERS_SERIAL, LayerRange, RW_SERIAL, Setup};
use biga_wire::workload::{Fault, Host};

use super::share::{self, ShareDaemon};
use crate::qemu::args::{Disk, MMIO_SLOTS, Share};

/// Smallest writable layer, bytes.
const MIN_RW: u64 = 16 << 20;
const SECTOR: u64 = 512;

/// What was made for a microvm.
#[derive(Debug)]
pub struct Boot {
    run_dir: PathBuf,
    /// For QEMU.
    pub disks: Vec<Disk>,
    ranges: Vec<LayerRange>,
    mounts: Vec<GuestMount>,
    shares: Vec<ShareDaemon>,
}

fn fault(what: &str, path: &Path, e: impl std::fmt::Display) -> Fault {
    Fault::failed(format!("cannot {what} {}: {e}", path.display()))
}

impl Boot {
    /// Makes the description of the layers disk and, at the first time, the writable layer.
    pub fn prepare(config: &Microvm, run_dir: &Path, state_dir: &Path) -> Result<Boot, Fault> {
        check(config)?;
        let (layers, ranges) = layers_disk(config, run_dir)?;
        let rw = state_dir.join("rw.img");
        writable_layer(&rw, config.rw_size.max(MIN_RW))?;
        let mut boot = Boot {
            run_dir: run_dir.to_owned(),
            disks: vec![layers, disk(RW_SERIAL, rw, "raw", false)],
            ranges,
            mounts: Vec::new(),
            shares: Vec::new(),
        };
        boot.plan_mounts(&config.mounts);
        Ok(boot)
    }

    fn plan_mounts(&mut self, mounts: &[Mount]) {
        let mut shares = 0;
        for (i, mount) in mounts.iter().enumerate() {
            let source = match &mount.source {
                MountSource::Bind { path, .. } => {
                    shares += 1;
                    GuestSource::Share {
                        tag: tag(shares - 1),
                        sub_path: (!path.is_dir()).then(|| share::FILE.to_owned()),
                    }
                }
                MountSource::Block { path } => {
                    let serial = format!("vol{i}");
                    self.disks.push(disk(&serial, path.clone(), "raw", mount.read_only));
                    GuestSource::Disk { serial }
                }
                MountSource::Tmpfs { size, mode, .. } => GuestSource::Tmpfs {
                    size: *size,
                    mode: *mode,
                },
                // Refused before.
                MountSource::Image { .. } => continue,
            };
            self.mounts.push(GuestMount {
                source,
                target: mount.target.clone(),
                read_only: mount.read_only,
                copy_up: mount.copy_up,
            });
        }
    }

    /// Starts a daemon for each shared directory.
    pub fn start_shares(&mut self, config: &Microvm, host: &mut dyn Host) -> Result<Vec<Share>, Fault> {
        self.stop_shares();
        let mut out = Vec::new();
        for mount in &config.mounts {
            let MountSource::Bind { path, sub_path } = &mount.source else {
                continue;
            };
            let Some(program) = &config.hypervisor.virtiofsd else {
                return Err(Fault::unsupported(format!(
                    "{} cannot be shared into a microvm: no virtiofs daemon on this host; install the package virtiofsd, or qemu-system-common of Debian 12",
                    path.display()
                )));
            };
            let number = out.len();
            let daemon = ShareDaemon::start(
                program,
                &self.run_dir,
                number,
                path,
                sub_path.as_deref(),
                mount.read_only,
            )?;
            // A host without the controllers still runs it.
            let _ = host.cgroup_add(daemon.pid());
            out.push(Share {
                tag: tag(number),
                socket: daemon.socket().to_owned(),
            });
            self.shares.push(daemon);
        }
        Ok(out)
    }

    /// Ends the daemons.
    pub fn stop_shares(&mut self) {
        self.shares.clear();
    }

    /// Ids of the daemons.
    pub fn share_pids(&self) -> Vec<u32> {
        self.shares.iter().map(ShareDaemon::pid).collect()
    }

    /// What the init is told.
    pub fn setup(&self, config: &Microvm) -> Setup {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Setup {
            clock_ns: now.as_nanos() as u64,
            layers: self.ranges.clone(),
            mounts: self.mounts.clone(),
            nics: config
                .nics
                .iter()
                .map(|n| GuestNic {
                    mac: n.mac.clone(),
                    interface: n.interface.clone(),
                    address: n.address.clone(),
                    gateway: n.gateway.clone(),
                    mtu: n.mtu,
                })
                .collect(),
            process: config.process.clone(),
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            hosts: config.hosts.clone(),
            resolv_conf: config.resolv_conf.clone(),
            shm_size: config.shm_size,
            capabilities: config.capabilities.clone(),
            privileged: config.privileged,
            read_only_root: config.read_only_root,
            no_new_privileges: config.no_new_privileges,
            sysctls: config.sysctls.clone(),
        }
    }

    /// Takes away what is only for a running microvm; the writable layer stays.
    pub fn remove(&mut self) -> Result<(), Fault> {
        self.stop_shares();
        for name in ["layers.vmdk", "qemu.log"] {
            let path = self.run_dir.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fault("remove", &path, e)),
                _ => {}
            }
        }
        share::remove_dir(&self.run_dir)
    }
}

fn tag(number: usize) -> String {
    format!("share{number}")
}

fn disk(name: &str, file: PathBuf, format: &'static str, read_only: bool) -> Disk {
    Disk {
        name: name.to_owned(),
        file,
        format,
        read_only,
    }
}

/// Whether the machine has slots for all devices.
fn check(config: &Microvm) -> Result<(), Fault> {
    let mounts = config.mounts.iter();
    let volumes = mounts
        .filter(|m| !matches!(m.source, MountSource::Tmpfs { .. }))
        .count();
    if config
        .mounts
        .iter()
        .any(|m| matches!(m.source, MountSource::Image { .. }))
    {
        return Err(Fault::unsupported(
            "the files of an image cannot be mounted in a microvm",
        ));
    }
    // Channel, randomness, layers, writable layer.
    let used = 4 + volumes + config.nics.len();
    if used > MMIO_SLOTS {
        return Err(Fault::unsupported(format!(
            "a microvm has room for {} volumes and network cards together, and {} are wanted; use fewer, or isolation container",
            MMIO_SLOTS - 4,
            used - 4
        )));
    }
    match config.layers.len() {
        0 => Err(Fault::failed("the image has no layers")),
        1..=127 => Ok(()),
        n => Err(Fault::unsupported(format!(
            "the image has {n} layers; a microvm takes 127"
        ))),
    }
}

/// The disk of all layers, and where each lies on it.
fn layers_disk(config: &Microvm, run_dir: &Path) -> Result<(Disk, Vec<LayerRange>), Fault> {
    let mut ranges = Vec::new();
    let mut extents = String::new();
    let mut at = 0;
    for layer in &config.layers {
        let path = &layer.file;
        let len = fs::metadata(path).map_err(|e| fault("read the layer", path, e))?.len();
        if len == 0 || len % SECTOR != 0 {
            return Err(Fault::failed(format!(
                "the layer {} is damaged: its size, {len}, is no multiple of {SECTOR}",
                path.display()
            )));
        }
        let text = path
            .to_str()
            .filter(|t| t.len() < 500 && !t.contains(['"', '\n', '\r']));
        let text =
            text.ok_or_else(|| Fault::failed(format!("the path {} of a layer cannot be used", path.display())))?;
        ranges.push(LayerRange { start: at, len });
        extents.push_str(&format!("RW {} FLAT \"{text}\" 0\n", len / SECTOR));
        at += len;
    }
    if let [layer] = &config.layers[..] {
        return Ok((disk(LAYERS_SERIAL, layer.file.clone(), "raw", true), ranges));
    }
    let path = run_dir.join("layers.vmdk");
    // No empty lines: QEMU reads the extent after one twice.
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n{extents}"
    );
    fs::write(&path, text).map_err(|e| fault("write", &path, e))?;
    Ok((disk(LAYERS_SERIAL, path, "vmdk", true), ranges))
}

/// Makes the sparse writable layer, once.
fn writable_layer(path: &Path, size: u64) -> Result<(), Fault> {
    if path.exists() {
        return Ok(());
    }
    // A half-made one must never be taken for whole.
    let temp = path.with_extension("new");
    make_ext4(&temp, size).and_then(|()| fs::rename(&temp, path).map_err(|e| fault("put in place", path, e)))
}

/// A sparse file with an empty ext4 file system.
pub fn make_ext4(path: &Path, size: u64) -> Result<(), Fault> {
    let file = File::create(path).map_err(|e| fault("make", path, e))?;
    file.set_len(size).map_err(|e| fault("size", path, e))?;
    let out = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-E"])
        .arg("lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0")
        .arg(path)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output();
    match out {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(fault("format", path, String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(fault("format", path, format!("{e}; install the package e2fsprogs"))),
    }
}
