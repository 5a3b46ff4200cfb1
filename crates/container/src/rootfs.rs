//! The root file system: an overlay over the image's layers, and the kernel's own file systems in it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use biga_sys::mount as attr;
use biga_wire::config::{Container, MASKED_PATHS, READ_ONLY_PATHS};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::Error;
use crate::beneath::{self, Kind};
use crate::error::Context;

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

/// Where the layers are mounted, highest first.
fn layers(container: &Container) -> Result<Vec<&Path>, Error> {
    let mut layers = Vec::with_capacity(container.layers.len());
    for layer in container.layers.iter().rev() {
        let mount = layer.mount.as_deref();
        layers.push(mount.ok_or_else(|| Error::Field("a layer", format!("{} is not mounted", layer.file.display())))?);
    }
    if layers.is_empty() {
        return Err(Error::Field("the image", "it has no layers".into()));
    }
    Ok(layers)
}

/// Makes the directories of the writable layer.
pub fn writable_layer(container: &Container, state_dir: &Path) -> Result<(), Error> {
    make_upper(&state_dir.join("upper"), &state_dir.join("work"), layers(container)?[0])
}

/// Mounts the overlay of a container onto its own `upper` directory (in this mount namespace nobody else looks there) and gives its root.
/// The directories are those of [`writable_layer`].
pub fn overlay(container: &Container, state_dir: &Path) -> Result<OwnedFd, Error> {
    let (upper, work) = (state_dir.join("upper"), state_dir.join("work"));
    let layers = layers(container)?;
    let label = container.mount_label.as_deref();
    match overlay_by_parts(&layers, &upper, &work, label) {
        Ok(root) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&root, "", CWD, &upper, flags).step(|| "mount the overlay".into())?;
            Ok(root)
        }
        // Kernels before 6.8 take all layers in one option only.
        Err(Errno::INVAL) => overlay_in_one(&layers, &upper, &work, label),
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

fn overlay_by_parts(layers: &[&Path], upper: &Path, work: &Path, label: Option<&str>) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers {
        fsconfig_set_string(&context, "lowerdir+", *layer)?;
    }
    fsconfig_set_string(&context, "source", "overlay")?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    if let Some(label) = label {
        fsconfig_set_string(&context, "context", label)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// The old call has one page for all options: short names for the layers make room for all that overlay can take.
fn overlay_in_one(layers: &[&Path], upper: &Path, work: &Path, label: Option<&str>) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |p: &Path| rustix::fs::open(p, flags, Mode::empty()).step(|| format!("open layer {}", p.display()));
    let held: Vec<OwnedFd> = layers.iter().map(|l| open(l)).collect::<Result<_, _>>()?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (upper_fd, work_fd) = (open(upper)?, open(work)?);
    let lower: Vec<String> = held.iter().map(name).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{}",
        lower.join(":"),
        name(&upper_fd),
        name(&work_fd),
        label.map(|l| format!(",context=\"{l}\"")).unwrap_or_default()
    );
    let options = std::ffi::CString::new(options).step(|| "name the layers".into())?;
    rustix::mount::mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str())
        .step(|| format!("mount the overlay of {} layers", layers.len()))?;
    open(upper)
}

/// Makes the file system of `/dev`, with the directories that others are mounted on.
pub fn device_directory(label: Option<&str>, shm: bool) -> Result<OwnedFd, Error> {
    let mut options = vec![("mode", Some("755")), ("size", Some("65536k"))];
    options.extend(label.map(|l| ("context", Some(l))));
    let dev = make("tmpfs", &options, attr::NOSUID)?;
    let all = [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)];
    for (name, mode) in all.into_iter().filter(|(name, _)| shm || *name != "shm") {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(mode)).step(|| format!("make /dev/{name}"))?;
    }
    Ok(dev)
}

/// Shared memory and message queues of those whose IPC a container shares.
pub type SharedMemory = (OwnedFd, Option<OwnedFd>);

/// Mounts the kernel's file systems, and `/dev` as [`device_directory`] made it. `proc` is that of others' process ids.
pub fn kernel_file_systems(
    root: BorrowedFd<'_>,
    container: &Container,
    dev: &OwnedFd,
    shared: Option<SharedMemory>,
    proc: Option<OwnedFd>,
) -> Result<(), Error> {
    let secure = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let proc = proc.map_or_else(|| make("proc", &[], secure), Ok)?;
    attach_at(root, &proc, "/proc", Kind::Directory)?;

    attach_at(root, dev, "/dev", Kind::Directory)?;
    let at_dev = |mount: OwnedFd, name: &str| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", dev, name, flags).step(|| format!("mount at /dev/{name}"))
    };
    let pts = [
        ("newinstance", None),
        ("ptmxmode", Some("0666")),
        ("mode", Some("0620")),
        ("gid", Some("5")),
    ];
    at_dev(make("devpts", &pts, attr::NOSUID | attr::NOEXEC)?, "pts")?;
    let (shm, mqueue) = match shared {
        Some((shm, mqueue)) => (Some(shm), mqueue),
        None if container.no_shm => (None, None),
        None => (Some(shared_memory(container, secure)?), None),
    };
    shm.map_or(Ok(()), |shm| at_dev(shm, "shm"))?;
    at_dev(mqueue.map_or_else(|| make("mqueue", &[], secure), Ok)?, "mqueue")?;

    let read_only = if container.privileged { 0 } else { attr::RDONLY };
    attach_at(root, &make("sysfs", &[], secure | read_only)?, "/sys", Kind::Directory)?;
    let groups = if container.system { 0 } else { read_only };
    if crate::cgroup::version() == crate::cgroup::Version::V2 {
        let place = "/sys/fs/cgroup";
        attach_at(root, &make("cgroup2", &[], secure | groups)?, place, Kind::Directory)
    } else {
        old_control_groups(root, secure | read_only, container.system)
    }
}

/// Bytes of `/dev/shm`.
pub(crate) fn shm_size(container: &Container) -> u64 {
    match container.shm_size {
        0 => 64 << 20,
        n => n,
    }
}

fn shared_memory(container: &Container, secure: u64) -> Result<OwnedFd, Error> {
    let size = shm_size(container).to_string();
    let mut options = vec![("mode", Some("1777")), ("size", Some(size.as_str()))];
    options.extend(container.mount_label.as_deref().map(|l| ("context", Some(l))));
    make("tmpfs", &options, secure)
}

/// Version 1: the controllers that programs read to size themselves; and for an init system the tree without a controller, in
/// which it keeps its services.
fn old_control_groups(root: BorrowedFd<'_>, attributes: u64, system: bool) -> Result<(), Error> {
    let place = beneath::place(root, "/sys/fs/cgroup", Kind::Directory).step(|| "find /sys/fs/cgroup".into())?;
    let base = make(
        "tmpfs",
        &[("mode", Some("755")), ("size", Some("4k"))],
        attributes & !attr::RDONLY,
    )?;
    attach(&base, &place).step(|| "mount /sys/fs/cgroup".into())?;
    let put = |mount: OwnedFd, name: &str| {
        let what = || format!("mount control groups of {name}");
        rustix::fs::mkdirat(&base, name, Mode::from_raw_mode(0o755)).step(what)?;
        move_mount(&mount, "", &base, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)
    };
    for controller in ["memory", "cpu", "pids"] {
        // Refused where the host mounts several controllers as one tree or lacks it: a program then sees no figures.
        if let Ok(mount) = make("cgroup", &[(controller, None)], attributes) {
            put(mount, controller)?;
        }
    }
    if system {
        let options = [("none", None), ("name", Some("systemd")), ("xattr", None)];
        put(make("cgroup", &options, attributes & !attr::RDONLY)?, "systemd")?;
    }
    Ok(())
}

/// What stands at a path; `None` where nothing does. Whatever else keeps it from being found must not leave it unprotected.
fn find(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match beneath::locate(root, path) {
        Ok(place) => Ok(Some(place)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The usual paths; none of a privileged container.
fn usual(container: &Container, paths: &[&str]) -> Vec<String> {
    match container.privileged {
        true => Vec::new(),
        false => paths.iter().map(|p| (*p).to_owned()).collect(),
    }
}

/// Paths that a container does not see: those that it names, or the usual ones.
pub(crate) fn masked_paths(container: &Container) -> Vec<String> {
    let usual = || usual(container, &MASKED_PATHS);
    container.masked_paths.clone().unwrap_or_else(usual)
}

/// Paths that it cannot change, likewise.
pub(crate) fn read_only_paths(container: &Container) -> Vec<String> {
    container
        .read_only_paths
        .clone()
        .unwrap_or_else(|| usual(container, &READ_ONLY_PATHS))
}

/// Hides and protects what the kernel shows to root.
pub fn mask(root: BorrowedFd<'_>, dev: &OwnedFd, container: &Container) -> Result<(), Error> {
    let masked = masked_paths(container);
    let null = beneath::locate(dev.as_fd(), "null").step(|| "find /dev/null".into())?;
    for path in &masked {
        let what = || format!("mask {path}");
        let Some(place) = find(root, path).step(what)? else {
            continue;
        };
        let cover = match beneath::is_dir(place.as_fd()).step(what)? {
            true => make("tmpfs", &[("size", Some("0")), ("mode", Some("555"))], attr::RDONLY)?,
            false => clone_tree(&null, false).step(what)?,
        };
        attach(&cover, &place).step(what)?;
    }
    for path in read_only_paths(container) {
        let protect = || format!("make {path} read-only");
        let Some(place) = find(root, &path).step(protect)? else {
            continue;
        };
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
