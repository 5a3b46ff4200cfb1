//! QEMU and what belongs to it on this node: version, KVM, guest kernel, disks and seeds of machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use biga_image::ImageRecord;
use biga_model::{Cpus, Firmware, Instance, MachineSpec, Object};
use biga_vm::{disk, kvm, seed, setup};
use biga_wire::config::{Hypervisor, Nic};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::instance::Failure;
use crate::probe;

/// Where distributions put QEMU.
const QEMU: [&str; 2] = ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64"];
/// Where distributions put the virtiofs daemon.
const VIRTIOFSD: [&str; 3] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/lib/virtiofsd",
];
/// UEFI firmware code, and the template of a machine's own variables.
const OVMF: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Finds QEMU once and remembers it. A cheap handle.
#[derive(Clone)]
pub struct Hypervisors {
    state: PathBuf,
    found: Arc<OnceCell<Found>>,
    kvm: Arc<Mutex<Option<probe::Kvm>>>,
}

#[derive(Debug, Clone)]
struct Found {
    qemu: PathBuf,
    version: (u32, u32),
    virtiofsd: Option<PathBuf>,
}

fn first_existing(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|p| p.exists())
}

impl Hypervisors {
    /// `state` is the state root.
    pub fn new(state: PathBuf) -> Hypervisors {
        Hypervisors {
            state,
            found: Arc::default(),
            kvm: Arc::default(),
        }
    }

    /// Whether KVM really runs a guest here: tried once for a boot and a version of QEMU.
    pub fn try_kvm(&self) -> probe::Kvm {
        let mut known = self.kvm.lock();
        if let Some(k) = &*known {
            return k.clone();
        }
        let Some(qemu) = first_existing(&QEMU) else {
            return probe::Kvm::Absent("there is no QEMU to try it with".into());
        };
        let key = format!("{}\n{}\n", boot_id(), stamp(&qemu));
        let cache = self.state.join("kvm-trial");
        let remembered = std::fs::read_to_string(&cache)
            .ok()
            .and_then(|t| t.strip_prefix(&key).map(str::to_string));
        let tried = match remembered {
            Some(words) => from_words(&words),
            None => {
                let tried = match kvm::probe_kvm(&qemu) {
                    _ if !Path::new("/dev/kvm").exists() => probe::Kvm::Absent("there is no /dev/kvm".into()),
                    Ok(()) => probe::Kvm::Runs,
                    Err(why) => probe::Kvm::Broken(why.to_string()),
                };
                let _ = std::fs::write(&cache, format!("{key}{}", to_words(&tried)));
                tried
            }
        };
        *known = Some(tried.clone());
        tried
    }

    /// What an earlier trial brought, without a new one.
    pub fn known_kvm(&self) -> probe::Kvm {
        // A trial that goes on holds the lock.
        let known = self.kvm.try_lock().and_then(|k| k.clone());
        known.unwrap_or_else(|| probe::Kvm::Broken("it was not tried yet".into()))
    }

    async fn found(&self) -> Result<&Found, Failure> {
        self.found.get_or_try_init(find).await
    }

    /// QEMU for a machine of this size.
    pub async fn get(&self, cpus: Option<Cpus>, memory: u64) -> Result<Hypervisor, Failure> {
        let found = self.found().await?.clone();
        let this = self.clone();
        let kvm = tokio::task::spawn_blocking(move || this.try_kvm())
            .await
            .is_ok_and(|k| k == probe::Kvm::Runs);
        Ok(Hypervisor {
            qemu: found.qemu,
            version: found.version,
            kvm,
            virtiofsd: found.virtiofsd,
            cpus: cpus.map_or(1, Cpus::whole),
            memory,
        })
    }

    /// The guest kernel and initramfs that `biga setup` made.
    pub fn kernel(&self, dir: &Path) -> Result<(PathBuf, PathBuf), Failure> {
        let (kernel, initrd) = (dir.join("vmlinux"), dir.join("initrd.img"));
        if kernel.exists() && initrd.exists() {
            return Ok((kernel, initrd));
        }
        let message = "there is no kernel for microvms yet: `biga setup` fetches one";
        Err(Failure::new("NoGuestKernel", message))
    }

    /// After an update of Biga: packs the new init into the initramfs of the kernel that is there.
    pub async fn refresh_initrd(&self, dir: PathBuf, guest: &'static [u8]) {
        if !dir.join("meta.json").exists() {
            return;
        }
        // The source is not asked as long as the kernel itself is whole.
        let pack = move || setup::prepare_kernel(&dir, &setup::Source::Download, guest).map(drop);
        let packed = tokio::task::spawn_blocking(pack).await;
        match packed {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("the guest kernel's initramfs was not brought up to date: {e}"),
            Err(e) => tracing::error!("packing the initramfs crashed: {e}"),
        }
    }

    /// The machine's own disk: a clone that holds only what differs from the image.
    pub async fn clone_disk(
        &self,
        record: &ImageRecord,
        machine: &MachineSpec,
        dir: &Path,
    ) -> Result<PathBuf, Failure> {
        let base = record
            .disk
            .clone()
            .ok_or_else(|| Failure::new("WrongImageFormat", "the image holds no disk"))?;
        let file = dir.join("disk.qcow2");
        let size = machine.disk_size.map(|s| s.bytes());
        let made = file.clone();
        let format = match base.format {
            biga_image::DiskFormat::Raw => disk::Format::Raw,
            biga_image::DiskFormat::Qcow2 => disk::Format::Qcow2,
        };
        let work = move || {
            let info = disk::Info {
                format,
                size: base.virtual_size,
            };
            if !made.exists() {
                return disk::clone(&base.file, info, &made, size);
            }
            match (size, own_size(&made)) {
                (Some(wanted), Some(has)) if wanted > has => disk::grow(&made, disk::Format::Qcow2, wanted),
                _ => Ok(()),
            }
        };
        blocking(work, "DiskFailed").await?;
        Ok(file)
    }

    /// The machine's cloud-init seed.
    pub async fn seed(
        &self,
        object: &Object<Instance>,
        hostname: &str,
        nics: &[Nic],
        dir: &Path,
    ) -> Result<PathBuf, Failure> {
        let cloud = object
            .spec
            .machine
            .clone()
            .unwrap_or_default()
            .cloud_init
            .unwrap_or_default();
        let file = dir.join("seed.img");
        let seed = seed::Seed {
            instance_id: object.uid().to_string(),
            hostname: hostname.to_string(),
            user_data: cloud.user_data.unwrap_or_default(),
            ssh_keys: cloud.ssh_authorized_keys,
            nics: nics.to_vec(),
        };
        let made = file.clone();
        blocking(move || seed::write(&made, &seed), "SeedFailed").await?;
        Ok(file)
    }

    /// UEFI code and this machine's variables; nothing with BIOS.
    pub fn firmware(&self, machine: &MachineSpec, dir: &Path) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
        if machine.firmware == Firmware::Bios {
            return Ok(None);
        }
        let pair = OVMF
            .iter()
            .find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists());
        let (code, template) = pair.ok_or_else(|| {
            Failure::new(
                "NoFirmware",
                "there is no UEFI firmware on this host: install the package ovmf",
            )
        })?;
        let vars = dir.join("uefi-vars.fd");
        if !vars.exists() {
            std::fs::copy(template, &vars)
                .map_err(|e| Failure::new("NoFirmware", format!("cannot copy {template}: {e}")))?;
        }
        Ok(Some((PathBuf::from(code), vars)))
    }
}

/// Bytes a guest sees of a clone that we made ourselves (qcow2 header, offset 24).
fn own_size(clone: &Path) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let mut size = [0u8; 8];
    std::fs::File::open(clone).ok()?.read_exact_at(&mut size, 24).ok()?;
    Some(u64::from_be_bytes(size))
}

async fn blocking<E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
    reason: &'static str,
) -> Result<(), Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Failure::new(reason, e.to_string())),
        Err(e) => Err(Failure::new(reason, format!("it crashed: {e}"))),
    }
}

async fn find() -> Result<Found, Failure> {
    let missing = || {
        Failure::new(
            "NoQemu",
            "there is no QEMU on this host: install the package qemu-system-x86",
        )
    };
    let qemu = first_existing(&QEMU).ok_or_else(missing)?;
    let out = tokio::process::Command::new(&qemu).arg("--version").output().await;
    let out = out.map_err(|e| Failure::new("NoQemu", format!("cannot run {}: {e}", qemu.display())))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let version = parse_version(&text).ok_or_else(|| {
        Failure::new(
            "NoQemu",
            format!("cannot tell the version of QEMU from {:?}", text.trim()),
        )
    })?;
    Ok(Found {
        qemu,
        version,
        virtiofsd: first_existing(&VIRTIOFSD),
    })
}

/// Major and minor of `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split("version ").nth(1)?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_string()
}

/// Changes when the program is replaced.
fn stamp(program: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(program).map_or(String::new(), |m| format!("{} {} {}", m.ino(), m.size(), m.mtime()))
}

fn to_words(k: &probe::Kvm) -> String {
    match k {
        probe::Kvm::Runs => "runs".into(),
        probe::Kvm::Broken(why) => format!("broken {why}"),
        probe::Kvm::Absent(why) => format!("absent {why}"),
    }
}

fn from_words(text: &str) -> probe::Kvm {
    match text.split_once(' ') {
        Some(("broken", why)) => probe::Kvm::Broken(why.into()),
        Some(("absent", why)) => probe::Kvm::Absent(why.into()),
        _ => probe::Kvm::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"),
            Some((7, 2))
        );
        assert_eq!(parse_version("QEMU emulator version 10.0.2\nCopyright"), Some((10, 0)));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn trials_are_remembered_as_they_were() {
        for k in [
            probe::Kvm::Runs,
            probe::Kvm::Broken("a b".into()),
            probe::Kvm::Absent("c".into()),
        ] {
            assert_eq!(from_words(&to_words(&k)), k);
        }
    }
}
