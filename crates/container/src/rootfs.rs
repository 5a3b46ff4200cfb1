//! The root file system: an overlay over the image's layers, and the kernel's own file systems in it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use biga_sys::mount as attr;
use biga_wire::config::Container;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::Error;
use crate::beneath::{self, Kind};
use crate::error::Context;

/// Files of the kernel that say or do too much, hidden behind an empty one.
const MASKED_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/interrupts",
];
/// Directories likewise.
const MASKED_DIRS: [&str; 5] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Seen but not changed.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes a file system, not yet mounted anywhere. An option without a value is a flag.
pub fn make(kind: &str, options: &[(&str, Option<&str>)], attributes: u64) -> Result<OwnedFd, Error> {
    let what = || format!("make a {kind} file system");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).step(what)?;
    // Shown as the device in /proc/mounts.
    let named = options.iter().any(|(key, _)| *key == "source");
    let name = (!named).then_some(("source", Some(kind)));
    for (key, value) in options.iter().copied().chain(name) {
        match value {
            Some(v) => fsconfig_set_string(&context, key, v),
            None => fsconfig_set_flag(&context, key),
        }
        .step(|| format!("set option {key} of a {kind} file system"))?;
    }
    fsconfig_create(&context).step(what)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(what)
}

/// Puts a mount onto a place found before.
pub fn attach(mount: &OwnedFd, place: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// Puts a mount onto a path inside, made if it is missing.
pub fn attach_at(root: BorrowedFd<'_>, mount: &OwnedFd, path: &str, kind: Kind) -> Result<(), Error> {
    let place = beneath::place(root, path, kind).step(|| format!("make mount point {path} in the image"))?;
    attach(mount, &place).step(|| format!("mount at {path} in the container"))
}

/// A copy of what a descriptor stands for, to be mounted elsewhere.
pub fn clone_tree(of: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, "", flags)
}

/// Mounts the overlay of a container onto its own `upper` directory (in this mount namespace nobody else looks there) and gives its root.
pub fn overlay(container: &Container, state_dir: &Path) -> Result<OwnedFd, Error> {
    let (upper, work) = (state_dir.join("upper"), state_dir.join("work"));
    let mut layers = Vec::with_capacity(container.layers.len());
    for layer in container.layers.iter().rev() {
        let mount = layer.mount.as_deref();
        layers.push(mount.ok_or_else(|| Error::Field("a layer", format!("{} is not mounted", layer.file.display())))?);
    }
    if layers.is_empty() {
        return Err(Error::Field("the image", "it has no layers".into()));
    }
    make_upper(&upper, &work, layers[0])?;
    match overlay_by_parts(&layers, &upper, &work) {
        Ok(root) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&root, "", CWD, &upper, flags).step(|| "mount the overlay".into())?;
            Ok(root)
        }
        // Kernels before 6.8 take all layers in one option only.
        Err(Errno::INVAL) => overlay_in_one(&layers, &upper, &work),
        Err(e) => Err(e).step(|| {
            format!(
                "mount the overlay of {} layers over {}",
                layers.len(),
                state_dir.display()
            )
        }),
    }
}

/// Makes the writable directories. The upper one's owner and mode become those of `/`, so they are taken from the image.
fn make_upper(upper: &Path, work: &Path, top: &Path) -> Result<(), Error> {
    let what = || format!("make directory {}", upper.display());
    match rustix::fs::mkdir(upper, Mode::from_raw_mode(0o700)) {
        Ok(()) => {
            let image = rustix::fs::stat(top).step(|| format!("read layer {}", top.display()))?;
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(image.st_uid),
                rustix::fs::Gid::from_raw(image.st_gid),
            );
            rustix::fs::chown(upper, Some(uid), Some(gid)).step(what)?;
            rustix::fs::chmod(upper, Mode::from_raw_mode(image.st_mode & 0o7777)).step(what)?;
        }
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e).step(what),
    }
    match rustix::fs::mkdir(work, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).step(|| format!("make directory {}", work.display())),
    }
}

fn overlay_by_parts(layers: &[&Path], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        fsconfig_set_string(&context, "lowerdir+", *layer)?;
    }
    fsconfig_set_string(&context, "source", "overlay")?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The old call has one page for all options: short names for the layers make room for all that overlay can take.
fn overlay_in_one(layers: &[&Path], upper: &Path, work: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |p: &Path| rustix::fs::open(p, flags, Mode::empty()).step(|| format!("open layer {}", p.display()));
    let held: Vec<OwnedFd> = layers.iter().map(|l| open(l)).collect::<Result<_, _>>()?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (upper_fd, work_fd) = (open(upper)?, open(work)?);
    let lower: Vec<String> = held.iter().map(name).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        name(&upper_fd),
        name(&work_fd)
    );
    let options = std::ffi::CString::new(options).step(|| "name the layers".into())?;
    rustix::mount::mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str())
        .step(|| format!("mount the overlay of {} layers", layers.len()))?;
    open(upper)
}

/// Mounts the kernel's file systems and gives the directory of `/dev`.
pub fn kernel_file_systems(root: BorrowedFd<'_>, container: &Container) -> Result<OwnedFd, Error> {
    let secure = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let proc = make("proc", &[], secure)?;
    attach_at(root, &proc, "/proc", Kind::Directory)?;

    let dev = make(
        "tmpfs",
        &[("mode", Some("755")), ("size", Some("65536k"))],
        attr::NOSUID,
    )?;
    attach_at(root, &dev, "/dev", Kind::Directory)?;
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(mode)).step(|| format!("make /dev/{name}"))?;
    }
    let at_dev = |mount: OwnedFd, name: &str| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", &dev, name, flags).step(|| format!("mount at /dev/{name}"))
    };
    let pts = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")),
    ];
    at_dev(make("devpts", &pts, attr::NOSUID | attr::NOEXEC)?, "pts")?;
    let size = if container.shm_size == 0 {
        64 << 20
    } else {
        container.shm_size
    }
    .to_string();
    at_dev(
        make("tmpfs", &[("mode", Some("1777")), ("size", Some(&size))], secure)?,
        "shm",
    )?;
    at_dev(make("mqueue", &[], secure)?, "mqueue")?;

    let read_only = if container.privileged { 0 } else { attr::RDONLY };
    attach_at(root, &make("sysfs", &[], secure | read_only)?, "/sys", Kind::Directory)?;
    if crate::cgroup::version() == crate::cgroup::Version::V2 {
        attach_at(
            root,
            &make("cgroup2", &[], secure | read_only)?,
            "/sys/fs/cgroup",
            Kind::Directory,
        )?;
    } else {
        old_control_groups(root, secure | read_only)?;
    }
    Ok(dev)
}

/// Version 1: the controllers that programs read to size themselves.
fn old_control_groups(root: BorrowedFd<'_>, attributes: u64) -> Result<(), Error> {
    let place = beneath::place(root, "/sys/fs/cgroup", Kind::Directory).step(|| "find /sys/fs/cgroup".into())?;
    let base = make(
        "tmpfs",
        &[("mode", Some("755")), ("size", Some("4k"))],
        attributes & !attr::RDONLY,
    )?;
    attach(&base, &place).step(|| "mount /sys/fs/cgroup".into())?;
    for controller in ["memory", "cpu", "pids"] {
        // Refused where the host mounts several controllers as one tree or lacks it: a program then sees no figures.
        let Ok(mount) = make("cgroup", &[(controller, None)], attributes) else {
            continue;
        };
        let what = || format!("mount control groups of {controller}");
        rustix::fs::mkdirat(&base, controller, Mode::from_raw_mode(0o755)).step(what)?;
        move_mount(&mount, "", &base, controller, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)?;
    }
    Ok(())
}

/// Hides and protects what the kernel shows to root.
pub fn mask(root: BorrowedFd<'_>, dev: &OwnedFd) -> Result<(), Error> {
    let null = beneath::locate(dev.as_fd(), "null").step(|| "find /dev/null".into())?;
    for path in MASKED_FILES {
        let Ok(place) = beneath::locate(root, path) else {
            continue;
        };
        let cover = clone_tree(&null, false).step(|| format!("mask {path}"))?;
        attach(&cover, &place).step(|| format!("mask {path}"))?;
    }
    for path in MASKED_DIRS {
        let Ok(place) = beneath::locate(root, path) else {
            continue;
        };
        let cover = make("tmpfs", &[("size", Some("0")), ("mode", Some("555"))], attr::RDONLY)?;
        attach(&cover, &place).step(|| format!("mask {path}"))?;
    }
    for path in READ_ONLY {
        let Ok(place) = beneath::locate(root, path) else {
            continue;
        };
        let protect = || format!("make {path} read-only");
        let cover = clone_tree(&place, true).step(protect)?;
        attr::set_attributes(&cover, attr::RDONLY, true).step(protect)?;
        attach(&cover, &place).step(protect)?;
    }
    Ok(())
}

/// Makes the mounted root the root of this process and of its mount namespace, and lets go of the host's.
pub fn enter(root: &OwnedFd) -> Result<(), Error> {
    rustix::process::fchdir(root).step(|| "enter the root file system".into())?;
    rustix::process::pivot_root(".", ".").step(|| "change to the root file system".into())?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).step(|| "leave the host's file system".into())?;
    rustix::process::chdir("/").step(|| "enter the root directory".into())
}
