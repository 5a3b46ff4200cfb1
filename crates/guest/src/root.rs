//! The root file system: layers below, the writable disk above, volumes over it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use biga_wire::guest::{GuestMount, GuestSource, LAYERS_SERIAL, RW_SERIAL, Setup};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_remount};

use crate::{Context, Error, devices};

/// Where the new root is put together.
const NEW: &str = "/root";
/// Name of the directory where all layers are one tree.
const TOGETHER: &str = "all";

/// What is needed to leave the disks whole.
#[derive(Debug)]
pub struct Mounted {
    /// The writable disk's file system.
    rw: OwnedFd,
    /// Where the layers are mounted, out of the root's sight.
    layers: OwnedFd,
    /// How many there are.
    count: usize,
    /// A directory beside them; what they are together is mounted in it when somebody asks.
    lower: OwnedFd,
    /// Volumes, in the order they were mounted.
    volumes: Vec<PathBuf>,
}

/// The three file systems everything else is found by.
pub fn early() -> Result<(), Error> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        make_dir(target, 0o755)?;
        put(kind, target, kind, MountFlags::empty(), "")?;
    }
    Ok(())
}

fn make_dir(path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
    let path = path.as_ref();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .step(|| format!("make the directory {}", path.display()))
}

fn put(source: &str, target: &str, kind: &str, flags: MountFlags, data: &str) -> Result<(), Error> {
    let data = CString::new(data).map_err(|_| Error::Field {
        what: "mount option",
        value: data.to_owned(),
    })?;
    mount(source, target, kind, flags, data.as_c_str()).step(|| format!("mount {kind} {source} on {target}"))
}

/// Builds the root file system and moves into it.
pub fn build(setup: &Setup) -> Result<Mounted, Error> {
    let disk = devices::disk(LAYERS_SERIAL)?;
    let rw = format!("/dev/{}", devices::disk(RW_SERIAL)?);
    let mut lower = Vec::new();
    for (number, device) in devices::layers(&disk, &setup.layers)?.iter().enumerate() {
        let target = format!("/layers/{number}");
        make_dir(&target, 0o755)?;
        put(&device.to_string_lossy(), &target, "erofs", MountFlags::RDONLY, "")?;
        // The kernel wants the topmost first. Short names: all options together have to fit one page.
        lower.insert(0, number.to_string());
    }
    make_dir("/rw", 0o755)?;
    put(&rw, "/rw", "ext4", MountFlags::NOATIME, "")?;
    make_dir("/rw/upper", 0o755)?;
    make_dir("/rw/work", 0o755)?;
    make_dir(NEW, 0o755)?;
    rustix::process::chdir("/layers").step(|| "enter /layers".into())?;
    let options = format!("lowerdir={},upperdir=/rw/upper,workdir=/rw/work", lower.join(":"));
    put("overlay", NEW, "overlay", MountFlags::empty(), &options)?;
    make_dir(format!("/lower/{TOGETHER}"), 0o755)?;
    let mut mounted = Mounted {
        rw: open_dir("/rw")?,
        layers: open_dir("/layers")?,
        count: lower.len(),
        lower: open_dir("/lower")?,
        volumes: Vec::new(),
    };
    let devices = open_dir("/dev")?;
    switch()?;
    mounted.populate(setup, &devices)?;
    Ok(mounted)
}

fn open_dir(path: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).step(|| format!("open {path}"))
}

/// Makes [`NEW`] the root.
fn switch() -> Result<(), Error> {
    let what = || "switch to the new root".to_owned();
    rustix::process::chdir(NEW).step(what)?;
    rustix::mount::mount_move(".", "/").step(what)?;
    rustix::process::chroot(".").step(what)?;
    rustix::process::chdir("/").step(what)
}

impl Mounted {
    fn populate(&mut self, setup: &Setup, devices: &OwnedFd) -> Result<(), Error> {
        let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let kernel = match setup.privileged {
            true => safe,
            false => safe | MountFlags::RDONLY,
        };
        let list = [
            ("proc", "/proc", "proc", safe, String::new()),
            ("sysfs", "/sys", "sysfs", kernel, String::new()),
            ("cgroup2", "/sys/fs/cgroup", "cgroup2", kernel, String::new()),
            (
                "tmpfs",
                "/dev",
                "tmpfs",
                MountFlags::NOSUID,
                "mode=755,size=65536k".to_owned(),
            ),
        ];
        for (source, target, kind, flags, data) in list {
            if target != "/sys/fs/cgroup" {
                make_dir(target, 0o755)?;
            }
            put(source, target, kind, flags, &data)?;
        }
        populate_dev(setup)?;
        for (number, m) in setup.mounts.iter().enumerate() {
            self.volume(number, m, devices)?;
        }
        files(setup)?;
        if setup.process.cwd.starts_with('/') {
            make_dir(&setup.process.cwd, 0o755)?;
        }
        if setup.read_only_root {
            let flags = MountFlags::RDONLY | MountFlags::BIND;
            mount_remount("/", flags, c"").step(|| "make the root read-only".into())?;
        }
        Ok(())
    }

    fn volume(&mut self, number: usize, m: &GuestMount, devices: &OwnedFd) -> Result<(), Error> {
        // Mounted aside first: what the image has at the target may have to be copied.
        let aside = format!("/dev/.volumes/{number}");
        make_dir(&aside, 0o700)?;
        let read_only = match m.read_only {
            true => MountFlags::RDONLY,
            false => MountFlags::empty(),
        };
        let mut from = aside.clone();
        match &m.source {
            GuestSource::Share { tag, sub_path } => {
                put(tag, &aside, "virtiofs", read_only, "")?;
                if let Some(sub_path) = sub_path {
                    from = format!("{aside}/{sub_path}");
                }
            }
            GuestSource::Disk { serial } => {
                // The initramfs's /dev lies outside the new root and is reached by its descriptor.
                let old_dev = format!("/proc/self/fd/{}", devices.as_raw_fd());
                let path = format!("{old_dev}/{}", disk_name(serial)?);
                put(&path, &aside, "ext4", read_only | MountFlags::NOATIME, "")?;
            }
            GuestSource::Tmpfs { size, mode } => {
                let mut data = format!("mode={mode:o}");
                if let Some(size) = size {
                    data.push_str(&format!(",size={size}"));
                }
                let flags = read_only | MountFlags::NOSUID | MountFlags::NODEV;
                put("tmpfs", &aside, "tmpfs", flags, &data)?;
            }
        }
        let is_dir = fs::metadata(&from)
            .step(|| format!("look at the volume of {}", m.target))?
            .is_dir();
        place(&m.target, is_dir)?;
        if m.copy_up && is_dir && !m.read_only && is_empty(Path::new(&from)) {
            copy_tree(Path::new(&m.target), Path::new(&from)).step(|| format!("fill the volume of {}", m.target))?;
        }
        mount_bind(&from, &m.target).step(|| format!("mount a volume on {}", m.target))?;
        // The place aside is not to be seen inside.
        rustix::mount::unmount(&aside, UnmountFlags::DETACH)
            .step(|| format!("put the volume of {} in place", m.target))?;
        if !matches!(m.source, GuestSource::Tmpfs { .. }) {
            self.volumes.push(PathBuf::from(&m.target));
        }
        Ok(())
    }

    /// The writable layer, and the image below it as one read-only tree.
    pub fn layers(&self) -> Result<(OwnedFd, OwnedFd), Error> {
        let open = |at: &OwnedFd, name: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(at, name, flags, Mode::empty()).step(|| format!("open {name}"))
        };
        let upper = open(&self.rw, "upper")?;
        if self.count == 1 {
            return Ok((upper, open(&self.layers, "0")?));
        }
        let lower = open(&self.lower, TOGETHER)?;
        let device = |fd: &OwnedFd| {
            rustix::fs::fstat(fd)
                .map(|s| s.st_dev)
                .step(|| "look at the image".into())
        };
        if device(&lower)? != device(&self.lower)? {
            return Ok((upper, lower));
        }
        // The topmost first, by short names: all options together have to fit one page.
        let names: Vec<String> = (0..self.count).rev().map(|n| n.to_string()).collect();
        let target = format!("/proc/self/fd/{}/{TOGETHER}", self.lower.as_raw_fd());
        rustix::process::fchdir(&self.layers).step(|| "enter the layers".into())?;
        let put = put(
            "overlay",
            &target,
            "overlay",
            MountFlags::RDONLY,
            &format!("lowerdir={}", names.join(":")),
        );
        rustix::process::chdir("/").step(|| "leave the layers".into())?;
        put?;
        Ok((upper, open(&self.lower, TOGETHER)?))
    }

    /// Leaves every disk whole. Nothing runs any more but this program.
    pub fn close(self) {
        for volume in self.volumes.iter().rev() {
            // One that does not go away is at least written below.
            let _ = rustix::mount::unmount(volume, UnmountFlags::empty());
        }
        rustix::fs::sync();
        let rw = format!("/proc/self/fd/{}", self.rw.as_raw_fd());
        let flags = MountFlags::RDONLY | MountFlags::NOATIME;
        if mount_remount(rw.as_str(), flags, c"").is_err() {
            let _ = rustix::fs::syncfs(&self.rw);
        }
    }
}

/// Looked up in the new root, where /sys is mounted and /dev is not the kernel's.
fn disk_name(serial: &str) -> Result<String, Error> {
    let entries = fs::read_dir("/sys/block").step(|| "list disks".into())?;
    let mut names = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    let fits = |name: &String| {
        let text = fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
        text.trim() == serial
    };
    names.find(fits).ok_or_else(|| Error::Device(format!("disk {serial}")))
}

/// Makes the target of a mount if it is missing.
fn place(target: &str, is_dir: bool) -> Result<(), Error> {
    let path = Path::new(target);
    if path.exists() {
        return Ok(());
    }
    if is_dir {
        return make_dir(path, 0o755);
    }
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o755)?;
    }
    // A link of the image that leads nowhere.
    let _ = fs::remove_file(path);
    File::create(path).map(drop).step(|| format!("make {target}"))
}

const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn populate_dev(setup: &Setup) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in NODES {
        let path = format!("/dev/{name}");
        let device = rustix::fs::makedev(*major, *minor);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, device).step(|| format!("make {path}"))?;
        rustix::fs::chmodat(CWD, &path, mode, rustix::fs::AtFlags::empty()).step(|| format!("make {path}"))?;
    }
    for (name, target) in LINKS {
        symlink(target, format!("/dev/{name}")).step(|| format!("make /dev/{name}"))?;
    }
    for (dir, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777), (".volumes", 0o700)] {
        make_dir(format!("/dev/{dir}"), mode)?;
    }
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let no_exec = MountFlags::NOSUID | MountFlags::NOEXEC;
    put(
        "devpts",
        "/dev/pts",
        "devpts",
        no_exec,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    let shm = match setup.shm_size {
        0 => "mode=1777,size=65536k".to_owned(),
        size => format!("mode=1777,size={size}"),
    };
    put("shm", "/dev/shm", "tmpfs", safe, &shm)?;
    put("mqueue", "/dev/mqueue", "mqueue", safe, "")
}

/// Host name and the files that go with it. They lie in memory, over those of the image, so that an address that changes
/// leaves nothing behind.
fn files(setup: &Setup) -> Result<(), Error> {
    rustix::system::sethostname(setup.hostname.as_bytes()).step(|| "set the host name".into())?;
    if let Some(domain) = &setup.domainname {
        rustix::system::setdomainname(domain.as_bytes()).step(|| "set the domain name".into())?;
    }
    let hostname = format!("{}\n", setup.hostname);
    let list = [
        ("hostname", &hostname),
        ("hosts", &setup.hosts),
        ("resolv.conf", &setup.resolv_conf),
    ];
    let dir = "/dev/.volumes/etc";
    make_dir(dir, 0o755)?;
    put(
        "tmpfs",
        dir,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=755,size=1m",
    )?;
    for (name, content) in list {
        let target = format!("/etc/{name}");
        // A volume mounted there by the user stays.
        if setup.mounts.iter().any(|m| m.target == target) {
            continue;
        }
        let source = format!("{dir}/{name}");
        fs::write(&source, content).step(|| format!("write {target}"))?;
        place(&target, false)?;
        mount_bind(&source, &target).step(|| format!("put {target} in place"))?;
    }
    rustix::mount::unmount(dir, UnmountFlags::DETACH).step(|| "put the files in place".into())?;
    let _ = fs::remove_dir_all("/dev/.volumes");
    Ok(())
}

/// Sets kernel parameters.
pub fn sysctls(setup: &Setup) -> Result<(), Error> {
    for (name, value) in &setup.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        if name.contains("..") {
            return Err(Error::Field {
                what: "kernel parameter",
                value: name.clone(),
            });
        }
        fs::write(&path, value).step(|| format!("set the kernel parameter {name}"))?;
    }
    Ok(())
}

/// After all kernel parameters are set.
pub fn seal(setup: &Setup) -> Result<(), Error> {
    if setup.privileged {
        return Ok(());
    }
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_bind("/proc/sys", "/proc/sys").step(|| "seal /proc/sys".into())?;
    mount_remount("/proc/sys", flags, c"").step(|| "seal /proc/sys".into())?;
    rustix::mount::mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .step(|| "share mounts".into())
}

fn is_empty(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    // A fresh file system has this one directory.
    entries.flatten().all(|e| e.file_name() == "lost+found")
}

/// Copies a directory's content with owners, modes and links.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    own(from, to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
            let meta = fs::symlink_metadata(&source)?;
            std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()))?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
            own(&source, &target)?;
        }
    }
    Ok(())
}

fn own(from: &Path, to: &Path) -> io::Result<()> {
    let meta = fs::metadata(from)?;
    std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        assert!(is_empty(&to));
        fs::write(from.join("sub/file"), "x").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::metadata(to.join("sub/file")).unwrap().mode() & 0o7777, 0o4751);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(!is_empty(&to));
    }
}
