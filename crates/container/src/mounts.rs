//! What the user wants mounted: binds, volumes, block volumes, memory. And the files every container gets of its own.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use biga_sys::mount as attr;
use biga_wire::config::{Container, Mount, MountSource};
use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::beneath::{self, Kind};
use crate::error::Context;
use crate::rootfs;

/// File systems of a container's block volumes, in the order of its mounts, not attached anywhere. They are made by the shim: the
/// container's own control group does not allow it loop devices.
pub fn blocks(container: &Container) -> Result<Vec<Option<OwnedFd>>, Error> {
    let of = |m: &Mount| match &m.source {
        MountSource::Block { path } => block(path).map(Some),
        _ => Ok(None),
    };
    container.mounts.iter().map(of).collect()
}

/// Mounts all of a container, in order. `blocks` are those of [`blocks`].
pub fn all(root: BorrowedFd<'_>, container: &Container, blocks: &[Option<OwnedFd>]) -> Result<(), Error> {
    let block = |i: usize| blocks.get(i).and_then(Option::as_ref);
    container
        .mounts
        .iter()
        .enumerate()
        .try_for_each(|(i, m)| match block(i) {
            Some(tree) => one(root, m, tree),
            None => one(root, m, &source(&m.source)?),
        })
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
    if mount.read_only {
        attr::set_attributes(tree, attr::RDONLY, true).step(what)?;
    }
    rootfs::attach(tree, &place).step(what)
}

/// The mount, not yet attached.
fn source(source: &MountSource) -> Result<OwnedFd, Error> {
    match source {
        MountSource::Bind { path, sub_path } => bind(path, sub_path.as_deref()),
        MountSource::Block { path } => block(path),
        MountSource::Tmpfs { size, mode } => {
            let mode = format!("{:o}", mode & 0o7777);
            let size = size.map(|s| s.to_string());
            let mut options = vec![("mode", Some(mode.as_str()))];
            options.extend(size.as_deref().map(|s| ("size", Some(s))));
            rootfs::make("tmpfs", &options, attr::NOSUID | attr::NODEV)
        }
    }
}

fn bind(path: &Path, sub_path: Option<&str>) -> Result<OwnedFd, Error> {
    let what = || format!("open {} to mount it", path.display());
    let mut at = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    if let Some(sub) = sub_path.filter(|s| !s.trim_matches('/').is_empty()) {
        // What a volume holds is the container's doing: its links must not lead out of the volume.
        at = beneath::place(at.as_fd(), sub, Kind::Directory)
            .step(|| format!("open {sub} in volume {}", path.display()))?;
    }
    rootfs::clone_tree(&at, true).step(|| format!("bind {}", path.display()))
}

fn block(path: &Path) -> Result<OwnedFd, Error> {
    let what = || format!("mount the block volume {}", path.display());
    let file = File::options().read(true).write(true).open(path).step(what)?;
    let device = attr::loop_device(&file, false).step(|| format!("put a loop device over {}", path.display()))?;
    let name = device.path.to_string_lossy();
    rootfs::make("ext4", &[("source", Some(&name))], attr::NODEV)
}

fn copy_up(place: &OwnedFd, volume: &OwnedFd) -> std::io::Result<()> {
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

/// Writes the container's own files.
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
    }
    Ok(())
}

/// Mounts them, except where the user mounted something of his own.
pub fn own_files(root: BorrowedFd<'_>, container: &Container, run_dir: &Path) -> Result<(), Error> {
    for (name, target) in OWN_FILES {
        if container.mounts.iter().any(|m| m.target == target) {
            continue;
        }
        let tree = bind(&run_dir.join(name), None)?;
        if container.read_only_root {
            attr::set_attributes(&tree, attr::RDONLY, false).step(|| format!("mount {target}"))?;
        }
        rootfs::attach_at(root, &tree, target, Kind::File)?;
    }
    Ok(())
}
