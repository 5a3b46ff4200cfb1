//! What the user wants mounted: binds, volumes, block volumes, memory. And the files every container gets of its own.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use biga_sys::mount as attr;
use biga_sys::mount_attr::{self, Change};
use biga_wire::config::{Container, Mount, MountHow, MountSource, Propagation};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::Error;
use crate::beneath::{self, Kind};
use crate::error::Context;
use crate::{rootfs, view};

/// File systems of a container's block volumes, in the order of its mounts, not attached anywhere. They are made by the shim: the
/// container's own control group does not allow it loop devices.
pub fn blocks(container: &Container) -> Result<Vec<Option<OwnedFd>>, Error> {
    let of = |m: &Mount| match &m.source {
        MountSource::Block { path } => block(path).map(Some),
        _ => Ok(None),
    };
    container.mounts.iter().map(of).collect()
}

/// What stands behind a container's mounts, in their order and not attached anywhere; `None` for what is made inside (memory).
/// `blocks` are those of [`blocks`], `ids` the container's user namespace. Called while mounts still hang together with the
/// host's, so that those that shall keep that do.
pub fn sources(
    container: &Container,
    blocks: &mut [Option<OwnedFd>],
    ids: Option<BorrowedFd<'_>>,
) -> Result<Vec<Option<OwnedFd>>, Error> {
    let mut trees = Vec::with_capacity(container.mounts.len());
    for (i, m) in container.mounts.iter().enumerate() {
        let tree = match &m.source {
            MountSource::Bind { path, sub_path } => Some(bind(path, sub_path.as_deref(), &m.how)?),
            MountSource::Block { .. } => blocks.get_mut(i).and_then(Option::take),
            MountSource::Image { layers, sub_path } => Some(image(layers, sub_path.as_deref())?),
            MountSource::Tmpfs { .. } => None,
        };
        if let (Some(tree), Some(ids)) = (&tree, ids) {
            map_ids(tree, ids, &m.target)?;
        }
        trees.push(tree);
    }
    Ok(trees)
}

/// Shows files of a mount as owned by the container's users.
pub(crate) fn map_ids(tree: &OwnedFd, ids: BorrowedFd<'_>, what: &str) -> Result<(), Error> {
    let change = Change {
        ids: Some(ids),
        ..Change::default()
    };
    match mount_attr::change(tree, &change, true) {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Err(Error::NoIdMap {
            what: what.to_owned(),
            kind: file_system(tree),
        }),
        other => other.step(|| format!("map the ids of {what}")),
    }
}

/// What kind of file system a mount is of, for people.
fn file_system(tree: &OwnedFd) -> String {
    let magic = rustix::fs::fstatfs(tree).map_or(0, |s| s.f_type);
    let known = [
        (0x794c_7630, "overlay"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
        (0x0102_1994, "tmpfs"),
        (0xef53, "ext4"),
        (0xe0f5_e1e2, "erofs"),
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
    ];
    let name = known.iter().find(|(m, _)| *m == magic);
    name.map_or_else(|| format!("{magic:#x}"), |(_, n)| (*n).to_owned())
}

/// Mounts all of a container, in order. `sources` are those of [`sources`].
pub fn all(root: BorrowedFd<'_>, container: &Container, sources: &[Option<OwnedFd>]) -> Result<(), Error> {
    let label = container.mount_label.as_deref();
    for (i, m) in container.mounts.iter().enumerate() {
        match (sources.get(i).and_then(Option::as_ref), &m.source) {
            (Some(tree), _) => one(root, m, tree)?,
            (None, MountSource::Tmpfs { size, mode, options }) => one(root, m, &memory(*size, *mode, options, label)?)?,
            (None, _) => return Err(Error::Field("the mount", format!("nothing to mount at {}", m.target))),
        }
    }
    Ok(())
}

fn one(root: BorrowedFd<'_>, mount: &Mount, tree: &OwnedFd) -> Result<(), Error> {
    if !mount.target.starts_with('/') || mount.target.trim_matches('/').is_empty() {
        return Err(Error::Field("the mount's target", mount.target.clone()));
    }
    let what = || format!("mount at {}", mount.target);
    let kind = if beneath::is_dir(tree.as_fd()).step(what)? {
        Kind::Directory
    } else {
        Kind::File
    };
    let place = beneath::place(root, &mount.target, kind).step(|| format!("make mount point {}", mount.target))?;
    if mount.copy_up && kind == Kind::Directory {
        copy_up(&place, tree).step(|| format!("copy the image's {} into the volume", mount.target))?;
    }
    attributes(mount, tree).step(what)?;
    rootfs::attach(tree, &place).step(what)
}

/// What may be done there.
pub(crate) fn attributes(mount: &Mount, tree: &OwnedFd) -> std::io::Result<()> {
    let h = &mount.how;
    let wanted = [
        (h.no_suid, attr::NOSUID),
        (h.no_dev, attr::NODEV),
        (h.no_exec, attr::NOEXEC),
    ];
    let all = wanted.iter().filter(|(on, _)| *on).fold(0, |all, (_, a)| all | a);
    if all != 0 {
        attr::set_attributes(tree, all, !h.flat)?;
    }
    match mount.read_only {
        true => attr::set_attributes(tree, attr::RDONLY, !h.read_only_flat),
        false => Ok(()),
    }
}

/// A file system in memory; options as mount(8) writes them.
pub(crate) fn memory(size: Option<u64>, mode: u32, options: &[String], label: Option<&str>) -> Result<OwnedFd, Error> {
    let mode = format!("{:o}", mode & 0o7777);
    let size = size.map(|s| s.to_string());
    let mut set = vec![("mode", Some(mode.as_str()))];
    set.extend(size.as_deref().map(|s| ("size", Some(s))));
    set.extend(label.map(|l| ("context", Some(l))));
    let mut attributes = attr::NOSUID | attr::NODEV;
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("ro", "") => attributes |= attr::RDONLY,
            ("rw", "") => attributes &= !attr::RDONLY,
            ("nosuid", "") => attributes |= attr::NOSUID,
            ("suid", "") => attributes &= !attr::NOSUID,
            ("nodev", "") => attributes |= attr::NODEV,
            ("dev", "") => attributes &= !attr::NODEV,
            ("noexec", "") => attributes |= attr::NOEXEC,
            ("exec", "") => attributes &= !attr::NOEXEC,
            ("noatime", "") => attributes |= mount_attr::NOATIME,
            ("relatime" | "atime" | "async" | "defaults", "") => {}
            ("size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "huge", v) if !v.is_empty() => {
                set.retain(|(k, _)| *k != name);
                set.push((name, Some(value)));
            }
            _ => return Err(Error::Field("the option of a tmpfs", option.clone())),
        }
    }
    rootfs::make("tmpfs", &set, attributes)
}

fn bind(path: &Path, sub_path: Option<&str>, how: &MountHow) -> Result<OwnedFd, Error> {
    let what = || format!("open {} to mount it", path.display());
    let mut at = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    if let Some(sub) = sub_path.filter(|s| !s.trim_matches('/').is_empty()) {
        // What a volume holds is the container's doing: its links must not lead out of the volume.
        at = beneath::place(at.as_fd(), sub, Kind::Directory)
            .step(|| format!("open {sub} in volume {}", path.display()))?;
    }
    let new = propagation(&at, path, how.propagation)?;
    let tree = rootfs::clone_tree(&at, !how.flat).step(|| format!("bind {}", path.display()))?;
    let change = Change {
        propagation: new,
        ..Change::default()
    };
    mount_attr::change(&tree, &change, true).step(|| format!("set the propagation of {}", path.display()))?;
    Ok(tree)
}

/// The files of an image (its layers are mounted, lowest first), or what is at a path of it.
fn image(layers: &[PathBuf], sub_path: Option<&str>) -> Result<OwnedFd, Error> {
    let what = || "mount the files of an image".into();
    let [first, others @ ..] = layers else {
        return Err(Error::Field("the image", "it has no layers".into()));
    };
    if !others.is_empty() {
        // Only what is attached can be cloned, and of that a part. Nobody else looks there in this mount namespace, into which and
        // from which nothing travels below that directory.
        view::lower_in_place(layers)?;
    }
    let open = || {
        let root =
            rustix::fs::open(first, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
        let at = match sub_path.filter(|s| !s.trim_matches('/').is_empty()) {
            Some(sub) => beneath::locate(root.as_fd(), sub).step(|| format!("find {sub} in the image"))?,
            None => root,
        };
        rootfs::clone_tree(&at, false).step(what)
    };
    let tree = open();
    if !others.is_empty() {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(first, flags).step(what)?;
    }
    tree
}

/// The propagation to set; the mounts of the host are looked at only where it matters. `None` leaves it as it is.
fn propagation(at: &OwnedFd, path: &Path, wanted: Propagation) -> Result<Option<mount_attr::Propagation>, Error> {
    if wanted == Propagation::Private {
        return Ok(Some(mount_attr::Propagation::Private));
    }
    let found = propagation_of(at).unwrap_or_default();
    match wanted {
        Propagation::Slave if !found.shared && !found.slave => Err(not_shared(path, "slave")),
        Propagation::Shared if !found.shared => Err(not_shared(path, "shared")),
        Propagation::Shared => Ok(None),
        _ => Ok(Some(mount_attr::Propagation::Slave)),
    }
}

fn not_shared(path: &Path, wanted: &str) -> Error {
    Error::Field(
        "the mount's propagation",
        format!(
            "{} does not lie on a shared mount of the host, so it cannot be {wanted}: use `mount --make-rshared` on that first",
            path.display()
        ),
    )
}

/// What a mount is to others.
#[derive(Debug, Default, PartialEq)]
struct Found {
    shared: bool,
    slave: bool,
}

/// Looks the mount of a descriptor up.
fn propagation_of(fd: &OwnedFd) -> Option<Found> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let id = rustix::fs::statx(fd, "", flags, rustix::fs::StatxFlags::MNT_ID)
        .ok()?
        .stx_mnt_id;
    found(&fs::read_to_string("/proc/self/mountinfo").ok()?, id)
}

/// `ID PARENT MAJ:MIN ROOT POINT OPTIONS shared:N master:N … - TYPE …`.
fn found(mountinfo: &str, id: u64) -> Option<Found> {
    let line = mountinfo
        .lines()
        .find(|l| l.split(' ').next().and_then(|n| n.parse().ok()) == Some(id))?;
    let tags = || line.split(' ').skip(6).take_while(|w| *w != "-");
    Some(Found {
        shared: tags().any(|t| t.starts_with("shared:")),
        slave: tags().any(|t| t.starts_with("master:")),
    })
}

fn block(path: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("mount the block volume {}", path.display());
    let file = File::options().read(true).write(true).open(path).step(what)?;
    let device = attr::loop_device(&file, false).step(|| format!("put a loop device over {}", path.display()))?;
    let name = device.path.to_string_lossy();
    rootfs::make("ext4", &[("source", Some(&name))], attr::NODEV)
}

pub(crate) fn copy_up(place: &OwnedFd, volume: &OwnedFd) -> std::io::Result<()> {
    if beneath::is_empty(volume.as_fd())? {
        crate::copy::tree(place.as_fd(), volume.as_fd())?;
    }
    Ok(())
}

/// Files that the engine writes for a container and mounts over the image's: where they are on the host (in the run
/// directory), and where inside.
pub const OWN_FILES: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Writes the container's own files. They belong to the container's root.
pub fn write_own_files(container: &Container, run_dir: &Path) -> Result<(), Error> {
    let hostname = format!("{}\n", container.hostname);
    for ((name, _), content) in OWN_FILES
        .iter()
        .zip([&container.hosts, &hostname, &container.resolv_conf])
    {
        let path = run_dir.join(name);
        let what = || format!("write {}", path.display());
        fs::write(&path, content).step(what)?;
        // Every user of the container reads it, whatever the shim's own mask is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).step(what)?;
        let owner = container.namespaces.user.map_or(0, |ids| ids.base);
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).step(what)?;
    }
    Ok(())
}

/// The container's own files and where they go, except where the user mounts something of his own. Not attached anywhere.
pub fn own_files(container: &Container, run_dir: &Path) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
    let mut trees = Vec::with_capacity(OWN_FILES.len());
    for (name, target) in OWN_FILES {
        if container.mounts.iter().any(|m| m.target == target) {
            continue;
        }
        let tree = bind(&run_dir.join(name), None, &MountHow::default())?;
        if container.read_only_root {
            attr::set_attributes(&tree, attr::RDONLY, false).step(|| format!("mount {target}"))?;
        }
        trees.push((target, tree));
    }
    Ok(trees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_is_read_from_mountinfo() {
        let text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    30 22 0:5 / /mnt rw master:7 - tmpfs x rw\n31 22 0:6 / /srv rw - tmpfs shared:9 rw\n";
        let of = |id| found(text, id).map(|f| (f.shared, f.slave));
        assert_eq!(of(22), Some((true, false)));
        assert_eq!(of(30), Some((false, true)));
        assert_eq!(of(31), Some((false, false)));
        assert_eq!(of(9), None);
    }
}
