//! The mounts of a configuration: made apart, and put onto places that the kernel found beneath the root. No path is looked up
//! twice, so that nobody can exchange it in between.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use biga_container::beneath::{self, Kind};
use biga_container::cgroup::{Group, Version};
use biga_container::rootfs;
use biga_sys::mount_attr::{self as attr, Change};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::error::{Error, Step};
use crate::ids;
use crate::options::Options;
use crate::spec::Mount;

/// Files of `/proc` that may be covered: what lxcfs and the like offer of their own.
const COVERED: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/fs/binfmt_misc",
];
const PROC_MAGIC: i64 = 0x9fa0;

/// A mount with its options read, and its source where that is the host's.
#[derive(Debug)]
pub struct Prepared<'a> {
    mount: &'a Mount,
    options: Options,
    /// Of a bind: what is bound, not attached anywhere.
    source: Option<OwnedFd>,
    /// Of SELinux, for what is made here.
    label: Option<&'a str>,
}

impl Prepared<'_> {
    /// Of a bind: where it goes, and what is bound.
    pub fn into_source(self) -> Option<(String, OwnedFd)> {
        Some((self.mount.destination.clone(), self.source?))
    }
}

/// What was mounted that later steps hold on to: a path could be made to lead elsewhere meanwhile, these cannot.
#[derive(Debug, Default)]
pub struct Kernel {
    /// At `/proc`.
    pub proc: Option<OwnedFd>,
    /// At `/sys`.
    pub sys: Option<OwnedFd>,
    /// Whether something of the host's is bound at `/dev`.
    pub foreign_dev: bool,
    /// Made read-only when all is in place.
    later: Vec<(String, OwnedFd, u64)>,
}

/// Reads options and opens sources, while the host's files can be seen. With `from_host` this process is still in the host's
/// mount namespace: what it opens must not spread back.
pub fn prepare<'a>(
    mounts: &'a [Mount],
    bundle: &Path,
    from_host: bool,
    label: Option<&'a str>,
) -> Result<Vec<Prepared<'a>>, Error> {
    mounts.iter().map(|m| one_source(m, bundle, from_host, label)).collect()
}

fn one_source<'a>(
    mount: &'a Mount,
    bundle: &Path,
    from_host: bool,
    label: Option<&'a str>,
) -> Result<Prepared<'a>, Error> {
    let options = Options::read(&mount.kind, &mount.options)?;
    let mut source = None;
    if let (Some(recursive), false) = (options.bind, options.remount) {
        let path = if mount.source.starts_with('/') {
            PathBuf::from(&mount.source)
        } else {
            bundle.join(&mount.source)
        };
        let what = || format!("bind {} at {}", path.display(), mount.destination);
        let at = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        let tree = rootfs::clone_tree(&at, recursive).step(what)?;
        if from_host {
            let slave = Change {
                propagation: Some(attr::Propagation::Slave),
                ..Change::default()
            };
            attr::change(&tree, &slave, true).step(what)?;
        }
        if let Some(all) = options.ids {
            let namespace = ids::namespace(&mount.uid_mappings, &mount.gid_mappings)?;
            let change = Change {
                ids: Some(namespace.as_fd()),
                ..Change::default()
            };
            attr::change(&tree, &change, all).step(|| format!("show other owners in {}", path.display()))?;
        }
        source = Some(tree);
    }
    Ok(Prepared {
        mount,
        options,
        source,
        label,
    })
}

/// Mounts all, in order.
pub fn all(root: BorrowedFd<'_>, mounts: Vec<Prepared<'_>>, group: &Group, own_group: bool) -> Result<Kernel, Error> {
    let mut kernel = Kernel::default();
    let root_path = path_of(root)?;
    for mount in mounts {
        let destination = mount.mount.destination.clone();
        if let Err(e) = one(root, &root_path, mount, group, own_group, &mut kernel) {
            return Err(match e {
                Error::Container(biga_container::Error::Step { what, source }) => {
                    Error::Container(biga_container::Error::Step {
                        what: format!("{what} (mount at {destination})"),
                        source,
                    })
                }
                other => other,
            });
        }
    }
    for (path, mount, attributes) in kernel.later.drain(..) {
        let change = Change {
            set: attributes,
            ..Change::default()
        };
        attr::change(&mount, &change, false).step(|| format!("make {path} read-only"))?;
    }
    Ok(kernel)
}

fn one(
    root: BorrowedFd<'_>,
    root_path: &Path,
    prepared: Prepared<'_>,
    group: &Group,
    own_group: bool,
    kernel: &mut Kernel,
) -> Result<(), Error> {
    let Prepared {
        mount,
        options,
        source,
        label,
    } = prepared;
    // Old engines leave the first slash out.
    let destination = format!("/{}", mount.destination.trim_matches('/'));
    if destination == "/" {
        return Err(Error::invalid("mounts.destination", "it is the root itself"));
    }
    if options.remount {
        let place = beneath::locate(root, &destination).step(|| format!("find {destination}"))?;
        return settle(&place, &options);
    }
    let is_bind = source.is_some();
    let kind = match &source {
        Some(tree) if !beneath::is_dir(tree.as_fd()).step(|| format!("look at {}", mount.source))? => Kind::File,
        _ => Kind::Directory,
    };
    let mut place = beneath::place(root, &destination, kind).step(|| format!("make mount point {destination}"))?;
    if matches!(mount.kind.as_str(), "proc" | "sysfs") && !is_bind {
        place = ordinary(root, &destination, &mount.kind)?;
    } else {
        keep_proc(root_path, &place, source.as_ref())?;
    }
    let mut later = 0;
    let tree = match source {
        Some(tree) => tree,
        None if mount.kind == "cgroup" || mount.kind == "cgroup2" => {
            let tree = control_groups(&mount.kind, &options, group, own_group)?;
            rootfs::attach(&tree, &place).step(|| format!("mount control groups at {destination}"))?;
            fill_control_groups(&tree, &options, group, own_group)?;
            return settle(&tree, &options);
        }
        None => {
            // Places for mounts below it may be needed first.
            later = options.set & attr::RDONLY;
            file_system(mount, &options, label)?
        }
    };
    if options.copy_up {
        let copied = biga_container::copy::tree(place.as_fd(), tree.as_fd());
        copied.step(|| format!("copy what is at {destination} into the new mount"))?;
    }
    rootfs::attach(&tree, &place).step(|| format!("mount {} at {destination}", mount.kind))?;
    if is_bind {
        settle(&tree, &options)?;
        kernel.foreign_dev |= destination == "/dev";
    } else {
        // It was made with its attributes.
        recursively(&tree, &options)?;
    }
    match (destination.as_str(), mount.kind.as_str()) {
        ("/proc", "proc") => kernel.proc = Some(copy(&tree)?),
        ("/sys", "sysfs") => kernel.sys = Some(copy(&tree)?),
        _ => {}
    }
    if later != 0 {
        kernel.later.push((destination, tree, later));
    }
    Ok(())
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Error> {
    fd.try_clone().step(|| "keep a mount open".into())
}

/// A file system of its own, not attached.
fn file_system(mount: &Mount, options: &Options, label: Option<&str>) -> Result<OwnedFd, Error> {
    let mut list: Vec<(&str, Option<&str>)> = Vec::new();
    let source = if mount.source.is_empty() {
        mount.kind.as_str()
    } else {
        mount.source.as_str()
    };
    list.push(("source", Some(source)));
    // A file system on a device that cannot be written must be told; those of the kernel have no such state, or share it.
    const OF_THE_KERNEL: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "ramfs", "overlay"];
    if options.set & attr::RDONLY != 0 && !OF_THE_KERNEL.contains(&mount.kind.as_str()) {
        list.push(("ro", None));
    }
    for option in &options.data {
        list.push(match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        });
    }
    // The policy labels the files of these, each its own way.
    if !["proc", "sysfs", "mqueue"].contains(&mount.kind.as_str()) {
        list.extend(label.map(|l| ("context", Some(l))));
    }
    if mount.kind.is_empty() {
        return Err(Error::invalid(
            "mounts.type",
            format!("{} has none, and is no bind", mount.destination),
        ));
    }
    // All attributes but "read-only" at once; that one comes when all is in place.
    Ok(rootfs::make(&mount.kind, &list, options.set & !attr::RDONLY)?)
}

/// Attributes and propagation of what was mounted from the host.
fn settle(tree: &OwnedFd, options: &Options) -> Result<(), Error> {
    let what = || "set the options of a mount".into();
    if options.set != 0 || options.clear != 0 {
        let change = Change {
            set: options.set,
            clear: options.clear,
            ..Change::default()
        };
        attr::change(tree, &change, false).step(what)?;
    }
    recursively(tree, options)
}

fn recursively(tree: &OwnedFd, options: &Options) -> Result<(), Error> {
    let what = || "set the options of a mount".into();
    if options.set_all != 0 || options.clear_all != 0 {
        let change = Change {
            set: options.set_all,
            clear: options.clear_all,
            ..Change::default()
        };
        attr::change(tree, &change, true).step(what)?;
    }
    for (propagation, all) in &options.propagation {
        let change = Change {
            propagation: Some(*propagation),
            ..Change::default()
        };
        attr::change(tree, &change, *all).step(what)?;
    }
    Ok(())
}

/// The kernel's file systems are mounted only where no link leads: who reads `/proc` must read that one.
fn ordinary(root: BorrowedFd<'_>, destination: &str, kind: &str) -> Result<OwnedFd, Error> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let relative = destination.trim_start_matches('/');
    match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(place) => Ok(place),
        Err(e) => Err(Error::invalid(
            "mounts.destination",
            format!("{kind} must be mounted on an ordinary directory, and {destination} is none ({e})"),
        )),
    }
}

/// Refuses to cover `/proc`, or what is in it, by something that is not of the kernel: later steps, and programs, trust it.
fn keep_proc(root: &Path, place: &OwnedFd, source: Option<&OwnedFd>) -> Result<(), Error> {
    let path = path_of(place.as_fd())?;
    let Ok(inside) = path.strip_prefix(root) else {
        return Err(Error::invalid(
            "mounts.destination",
            format!("{} is outside the root", path.display()),
        ));
    };
    let inside = Path::new("/").join(inside);
    let is_proc = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type == PROC_MAGIC);
    if inside == Path::new("/proc") {
        return match source {
            Some(tree) if is_proc(tree) => Ok(()),
            _ => Err(Error::invalid(
                "mounts.destination",
                "/proc can be covered by a file system of type proc only",
            )),
        };
    }
    let covered = COVERED.iter().any(|c| inside == Path::new(c));
    if inside.starts_with("/proc") && !covered {
        return Err(Error::invalid(
            "mounts.destination",
            format!("{} is inside /proc", inside.display()),
        ));
    }
    Ok(())
}

/// Where a descriptor is, as this process sees it. The host's `/proc` answers.
fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf, Error> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).step(|| "ask where a directory is".into())
}

/// What is mounted for control groups: the tree of version 2, or a place for those of version 1.
fn control_groups(kind: &str, options: &Options, group: &Group, own_group: bool) -> Result<OwnedFd, Error> {
    let attributes = options.set & !attr::RDONLY;
    match (group.version(), own_group) {
        (Version::V2, true) => Ok(rootfs::make("cgroup2", &[("source", Some("cgroup"))], attributes)?),
        (Version::V2, false) => bind_group(group, ""),
        (Version::V1, _) if kind == "cgroup2" => Err(Error::unsupported(
            "mounts.type",
            "this host's control groups are of version 1",
        )),
        (Version::V1, _) => {
            let list = [("source", Some("tmpfs")), ("mode", Some("755"))];
            Ok(rootfs::make("tmpfs", &list, attributes)?)
        }
    }
}

fn bind_group(group: &Group, controller: &str) -> Result<OwnedFd, Error> {
    let path = group.directory_of(controller);
    let what = || format!("bind control group {}", path.display());
    let at = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    rootfs::clone_tree(&at, false).step(what)
}

/// Version 1: a directory a controller.
fn fill_control_groups(tree: &OwnedFd, options: &Options, group: &Group, own_group: bool) -> Result<(), Error> {
    use rustix::mount::{MoveMountFlags, move_mount};
    if group.version() == Version::V2 {
        return Ok(());
    }
    for controller in group.controllers() {
        let what = || format!("mount control groups of {controller}");
        let mount = if own_group {
            // Several controllers in one tree carry each other's names.
            match rootfs::make("cgroup", &[(controller, None), ("source", Some("cgroup"))], 0) {
                Ok(m) => m,
                Err(_) => bind_group(group, controller)?,
            }
        } else {
            bind_group(group, controller)?
        };
        let change = Change {
            set: options.set,
            ..Change::default()
        };
        attr::change(&mount, &change, false).step(what)?;
        rustix::fs::mkdirat(tree, *controller, Mode::from_raw_mode(0o755)).step(what)?;
        move_mount(&mount, "", tree, *controller, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(what)?;
    }
    Ok(())
}

/// Makes the root: a copy of the mount of its directory, put over it in this namespace, and gives its descriptor.
pub fn root(path: &Path, made: Option<OwnedFd>) -> Result<OwnedFd, Error> {
    let what = || format!("bind the root file system {}", path.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, path, flags, Mode::empty()).step(what)?;
    let tree = match made {
        Some(tree) => tree,
        None => rootfs::clone_tree(&place, true).step(what)?,
    };
    let private = Change {
        propagation: Some(attr::Propagation::Private),
        ..Change::default()
    };
    attr::change(&tree, &private, true).step(what)?;
    rootfs::attach(&tree, &place).step(what)?;
    Ok(tree)
}
