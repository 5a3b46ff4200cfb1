//! The file system of a container that does not run, for one thread that reads or changes it.
//!
//! Everything is mounted in a mount namespace that is the thread's own and goes with it. So it takes a thread of its own
//! ([`private`] comes first) that ends with the work; nothing is seen on the host, and a crash leaves nothing.
//! The caller sees to it that the container is not started meanwhile: two overlays must not share their upper directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use biga_sys::process::Namespaces;
use biga_wire::config::{Container, IdMap};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::beneath::Kind;
use crate::error::Context;
use crate::{Error, beneath, mounts, rootfs, user, userns};

/// Gives this thread a mount namespace of its own.
pub fn private() -> Result<(), Error> {
    biga_sys::namespace::unshare(Namespaces::MOUNT).step(|| "make a mount namespace".into())?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).step(|| "make mounts private".into())
}

/// Mounts the root file system, and with `volumes` all that the container has mounted over it but the kernel's own file
/// systems; gives the root. After [`private`].
pub fn root(container: &Container, run_dir: &Path, state_dir: &Path, volumes: bool) -> Result<OwnedFd, Error> {
    rootfs::writable_layer(container, state_dir)?;
    let root = rootfs::overlay(container, state_dir)?;
    if volumes {
        mounts::write_own_files(container, run_dir)?;
        for (target, tree) in mounts::own_files(container, run_dir)? {
            rootfs::attach_at(root.as_fd(), &tree, target, Kind::File)?;
        }
        let sources = mounts::sources(container, &mut mounts::blocks(container)?, None)?;
        mounts::all(root.as_fd(), container, &sources)?;
    }
    if container.read_only_root {
        let what = || "make the root read-only".into();
        biga_sys::mount::set_attributes(&root, biga_sys::mount::RDONLY, false).step(what)?;
    }
    Ok(root)
}

/// Unmounts what [`root`] mounted, without waiting for the end of the thread.
pub fn leave(state_dir: &Path) {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    // Where nothing was mounted there is nothing to undo, and all of it goes with the thread.
    let _ = rustix::mount::unmount(state_dir.join("upper"), flags);
}

/// Makes this thread who is root in a running container with ids of its own, with all rights on the host still: its file
/// systems know nobody else.
pub fn become_mapped_root(ids: &IdMap) -> Result<(), Error> {
    userns::become_mapped_root(ids)
}

/// The layers of an image (mounted, lowest first) as one read-only tree. After [`private`].
pub fn lower(layers: &[impl AsRef<Path>]) -> Result<OwnedFd, Error> {
    let what = || format!("mount an overlay of {} layers", layers.len());
    let open = |p: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(p, flags, Mode::empty()).step(|| format!("open {}", p.display()))
    };
    match layers {
        [] => Err(Error::Field("the image", "it has no layers".into())),
        [only] => open(only.as_ref()),
        [first, ..] => match by_parts(layers) {
            Ok(root) => Ok(root),
            // Kernels before 6.8 take all layers in one option only. In this namespace nobody else looks at the mount point.
            Err(Errno::INVAL) => {
                in_one(layers, first.as_ref())?;
                open(first.as_ref())
            }
            Err(e) => Err(e).step(what),
        },
    }
}

/// The same of several layers, mounted over the lowest.
pub(crate) fn lower_in_place(layers: &[impl AsRef<Path>]) -> Result<(), Error> {
    let what = || format!("mount an overlay of {} layers", layers.len());
    let Some(first) = layers.first().map(AsRef::as_ref) else {
        return Err(Error::Field("the image", "it has no layers".into()));
    };
    match by_parts(layers) {
        Ok(root) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&root, "", CWD, first, flags).step(what)
        }
        Err(Errno::INVAL) => in_one(layers, first),
        Err(e) => Err(e).step(what),
    }
}

/// As kernels before 6.8 want it.
fn in_one(layers: &[impl AsRef<Path>], at: &Path) -> Result<(), Error> {
    let what = || format!("mount an overlay of {} layers", layers.len());
    let all: Vec<String> = layers.iter().rev().map(|l| l.as_ref().display().to_string()).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", all.join(":"))).step(what)?;
    rustix::mount::mount("overlay", at, "overlay", MountFlags::RDONLY, options.as_c_str()).step(what)
}

/// User and group by name or number, as `user[:group]`, looked up in a container's own files.
pub fn user(root: BorrowedFd<'_>, name: &str) -> Result<(u32, u32), Error> {
    let read = |path| beneath::read(root, path).step(|| format!("read the container's {path}"));
    let identity = user::resolve(name, &[], &read("/etc/passwd")?, &read("/etc/group")?)?;
    Ok((identity.uid, identity.gid))
}

fn by_parts(layers: &[impl AsRef<Path>]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers.iter().rev() {
        fsconfig_set_string(&context, "lowerdir+", layer.as_ref())?;
    }
    fsconfig_set_string(&context, "source", "overlay")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}
