//! What a bundle's configuration points to: the root, and everything else that is mounted, in a mount namespace of the shim's own.
//!
//! So nothing of it is seen on the host, and all of it is gone when the shim is, however that ends. The runtime is started by
//! the shim and sees what the shim sees.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use biga_sys::mount as attr;
use biga_sys::process::Namespaces;
use biga_wire::config::{Container, Mount, MountSource, ShimConfig};
use rustix::fs::{CWD, Mode};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};

use crate::Error;
use crate::beneath::{self, Kind};
use crate::cgroup::{self, Version};
use crate::error::Context;
use crate::{mounts, namespaces, rootfs};

/// What is mounted.
#[derive(Debug)]
pub(super) struct Place {
    /// The root file system, mounted where its writable layer is.
    pub root: PathBuf,
    /// Where the container's mounts can be bound from, in their order; `None` for what the runtime makes (memory).
    pub sources: Vec<Option<PathBuf>>,
    /// `/dev/shm` of those whose IPC is shared.
    pub shm: Option<PathBuf>,
    /// `/dev/mqueue` of those.
    pub mqueue: Option<PathBuf>,
    root_fd: OwnedFd,
    /// Mount points, in the order in which they were made.
    points: Vec<PathBuf>,
}

impl Place {
    /// Mounts all. `dir` is a directory for mount points. This process gets a mount namespace of its own, for good.
    pub fn make(config: &ShimConfig, container: &Container, dir: &Path) -> Result<Place, Error> {
        biga_sys::namespace::unshare(Namespaces::MOUNT).step(|| "make a mount namespace".into())?;
        let mut blocks = mounts::blocks(container)?;
        // While mounts still hang together with the host's, for those that shall keep that.
        let trees = mounts::sources(container, &mut blocks, None)?;
        let shared = namespaces::shared_memory(container)?;
        // What the host unmounts goes here too, and nothing travels the other way.
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).step(|| "part the shim's mounts from the host's".into())?;
        let hidden = hide_second_tree()?;
        rootfs::writable_layer(container, &config.state_dir)?;
        let root_fd = rootfs::overlay(container, &config.state_dir)?;
        let root = config.state_dir.join("upper");
        let mut place = Place {
            points: hidden.into_iter().chain([root.clone()]).collect(),
            root,
            sources: Vec::new(),
            shm: None,
            mqueue: None,
            root_fd,
        };
        match place.fill(container, dir, trees, shared) {
            Ok(()) => Ok(place),
            Err(e) => {
                // The first error is the telling one; the rest goes with the shim.
                let _ = place.undo();
                Err(e)
            }
        }
    }

    fn fill(
        &mut self,
        container: &Container,
        dir: &Path,
        trees: Vec<Option<OwnedFd>>,
        shared: Option<rootfs::SharedMemory>,
    ) -> Result<(), Error> {
        for (i, (mount, tree)) in container.mounts.iter().zip(trees).enumerate() {
            let source = match (tree, &mount.source) {
                (Some(tree), _) => Some(self.bring(mount, &tree, &dir.join(i.to_string()))?),
                (None, MountSource::Tmpfs { .. }) => None,
                (None, _) => {
                    let why = format!("nothing to mount at {}", mount.target);
                    return Err(Error::Field("the mount", why));
                }
            };
            self.sources.push(source);
        }
        if let Some((shm, mqueue)) = shared {
            self.shm = Some(self.put(&shm, &dir.join("shm"))?);
            self.mqueue = mqueue.map(|m| self.put(&m, &dir.join("mqueue"))).transpose()?;
        }
        Ok(())
    }

    /// Makes one mount of the container ready.
    fn bring(&mut self, mount: &Mount, tree: &OwnedFd, point: &Path) -> Result<PathBuf, Error> {
        let what = || format!("mount at {}", mount.target);
        if mount.copy_up && beneath::is_dir(tree.as_fd()).step(what)? {
            let inside = beneath::place(self.root_fd.as_fd(), &mount.target, Kind::Directory)
                .step(|| format!("make mount point {}", mount.target))?;
            mounts::copy_up(&inside, tree).step(|| format!("copy the image's {} into the volume", mount.target))?;
        }
        mounts::attributes(mount, tree).step(what)?;
        self.put(tree, point)
    }

    fn put(&mut self, tree: &OwnedFd, point: &Path) -> Result<PathBuf, Error> {
        let what = || format!("mount at {}", point.display());
        let made = match beneath::is_dir(tree.as_fd()).step(what)? {
            true => fs::create_dir(point),
            false => fs::File::create_new(point).map(drop),
        };
        match made {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).step(what),
            _ => {}
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", CWD, point, flags).step(what)?;
        self.points.push(point.to_owned());
        Ok(point.to_owned())
    }

    /// The root file system.
    pub fn root_fd(&self) -> &OwnedFd {
        &self.root_fd
    }

    /// Makes a directory of the root where it is missing, unless something will be mounted over it.
    pub fn make_directory(&self, container: &Container, path: &str) -> Result<(), Error> {
        let over = |m: &Mount| Path::new(path).starts_with(&m.target);
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        match beneath::locate(self.root_fd.as_fd(), path) {
            Err(e) if missing(&e) && !container.mounts.iter().any(over) => {
                beneath::place(self.root_fd.as_fd(), path, Kind::Directory)
                    .step(|| format!("make working directory {path}"))?;
                Ok(())
            }
            // What else is wrong with it, the runtime finds when it goes there.
            _ => Ok(()),
        }
    }

    /// Unmounts all, and removes the mount points that were made. Never what was mounted there.
    pub fn undo(&mut self) -> Result<(), Error> {
        while let Some(point) = self.points.last() {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            match rustix::mount::unmount(point, flags) {
                // It was unmounted on the host, and so here.
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(e) => return Err(e).step(|| format!("unmount {}", point.display())),
            }
            if *point != self.root && !point.starts_with(cgroup::ROOT) {
                // Empty, if nothing is mounted there any more; the instance's directory goes as a whole later.
                let _ = fs::remove_file(point).or_else(|_| fs::remove_dir(point));
            }
            self.points.pop();
        }
        Ok(())
    }
}

/// Lets go of what the host has mounted for other instances below `run_root`: where mounts do not travel from the host, it would
/// stay in use as long as this shim lives. `own` are directories whose mounts stay.
pub(super) fn let_go_of_others(run_root: &Path, own: &[&Path]) {
    let Ok(text) = fs::read_to_string("/proc/self/mountinfo") else {
        return;
    };
    for point in points(&text)
        .filter(|p| below(p, run_root))
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        if !own.iter().any(|dir| point.starts_with(dir)) {
            // Gone already is fine, and the rest ends with the shim.
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

fn below(path: &Path, dir: &Path) -> bool {
    path.starts_with(dir) && path != dir
}

/// Whether something is mounted below a directory.
pub(super) fn mounted_below(dir: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    points(&text).any(|p| p.starts_with(dir))
}

/// Mount points; those with blanks in them are none of ours.
fn points(mountinfo: &str) -> impl Iterator<Item = &Path> {
    mountinfo.lines().filter_map(|l| l.split(' ').nth(4)).map(Path::new)
}

/// On a host whose controllers are on version 1, a version 2 tree beside them that has some, too, makes runtimes refuse the host.
/// They are shown the host without: memory lies there in its place, since some write there all the same. Gives its mount point.
fn hide_second_tree() -> Result<Option<PathBuf>, Error> {
    let second = Path::new(cgroup::ROOT).join("unified");
    let what = || format!("hide {} from the runtime", second.display());
    let controllers = fs::read_to_string(second.join("cgroup.controllers")).unwrap_or_default();
    if cgroup::version() == Version::V2 || controllers.trim().is_empty() {
        return Ok(None);
    }
    let empty = rootfs::make(
        "tmpfs",
        &[("mode", Some("755")), ("size", Some("1m"))],
        attr::NOSUID | attr::NOEXEC,
    )?;
    rustix::mount::unmount(&second, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).step(what)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&empty, "", CWD, &second, flags).step(what)?;
    Ok(Some(second))
}

/// New files are as open as they are made, until this is dropped: the shim's own mask keeps everybody out.
#[derive(Debug)]
pub(super) struct NoMask(Mode);

impl NoMask {
    pub fn new() -> NoMask {
        NoMask(rustix::process::umask(Mode::empty()))
    }
}

impl Drop for NoMask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let text = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n30 22 0:5 / /run/biga/layers/a rw - erofs x rw\n";
        let all: Vec<&Path> = points(text).collect();
        assert_eq!(all, [Path::new("/"), Path::new("/run/biga/layers/a")]);
        assert!(below(all[1], Path::new("/run/biga")) && !below(Path::new("/run/bigal"), Path::new("/run/biga")));
    }
}
