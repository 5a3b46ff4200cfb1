//! Hides and protects paths, and sets kernel parameters. What is in `/proc` and `/sys` is found from the mounts themselves, not by
//! paths that a container could bend.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use biga_container::beneath;
use biga_container::rootfs;
use biga_sys::mount_attr::{self as attr, Change};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, makedev};

use crate::error::{Error, Step};
use crate::mounts::Kernel;

const READ_ONLY: Change<'static> = Change {
    set: attr::RDONLY,
    clear: 0,
    propagation: None,
    ids: None,
};

/// Finds a path inside; `None` if it is not there.
fn find(root: BorrowedFd<'_>, kernel: &Kernel, path: &str) -> Result<Option<OwnedFd>, Error> {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .filter(|rest| !rest.trim_matches('/').is_empty())
    };
    let found = if let (Some(proc), Some(rest)) = (&kernel.proc, below("/proc/")) {
        beneath_mount(proc, rest)
    } else if let (Some(sys), Some(rest)) = (&kernel.sys, below("/sys/")) {
        beneath_mount(sys, rest)
    } else {
        beneath::locate(root, path)
    };
    match found {
        Ok(fd) => Ok(Some(fd)),
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).step(|| format!("find {path}")),
    }
}

fn beneath_mount(mount: &OwnedFd, path: &str) -> std::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let path = path.trim_matches('/');
    loop {
        match rustix::fs::openat2(mount, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// Hides paths: a file behind the null device, a directory behind an empty one.
pub fn mask(root: BorrowedFd<'_>, kernel: &Kernel, paths: &[String]) -> Result<(), Error> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(place) = find(root, kernel, path)? else {
            continue;
        };
        let what = || format!("mask {path}");
        if beneath::is_dir(place.as_fd()).step(what)? {
            // The second and all others are copies of the first: older kernels copy only what is mounted somewhere.
            let cover = match &empty {
                Some(first) => rootfs::clone_tree(first, false).step(what)?,
                None => rootfs::make("tmpfs", &[("size", Some("0")), ("mode", Some("755"))], attr::RDONLY)?,
            };
            rootfs::attach(&cover, &place).step(what)?;
            empty = empty.or(Some(cover));
        } else {
            let device = match null.take() {
                Some(found) => found,
                None => null_device(root)?,
            };
            let cover = rootfs::clone_tree(&device, false).step(what)?;
            attr::change(&cover, &READ_ONLY, false).step(what)?;
            rootfs::attach(&cover, &place).step(what)?;
            null = Some(device);
        }
    }
    Ok(())
}

/// The container's own null device, if it is one: a link in its place would offer what it leads to for writing.
fn null_device(root: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let what = || "mask files by /dev/null".to_owned();
    let null = beneath::locate(root, "/dev/null").step(what)?;
    let stat = rustix::fs::statat(&null, "", AtFlags::EMPTY_PATH).step(what)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != makedev(1, 3) {
        return Err(Error::State(
            "cannot mask files: the container's /dev/null is not the null device".into(),
        ));
    }
    Ok(null)
}

/// Makes paths read-only.
pub fn protect(root: BorrowedFd<'_>, kernel: &Kernel, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let Some(place) = find(root, kernel, path)? else {
            continue;
        };
        let what = || format!("make {path} read-only");
        let cover = rootfs::clone_tree(&place, true).step(what)?;
        attr::change(&cover, &READ_ONLY, true).step(what)?;
        rootfs::attach(&cover, &place).step(what)?;
    }
    Ok(())
}

/// Sets kernel parameters, by a `/proc` that nobody else has seen.
pub fn sysctls(all: &BTreeMap<String, String>) -> Result<(), Error> {
    if all.is_empty() {
        return Ok(());
    }
    let proc = rootfs::make("proc", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    for (name, value) in all {
        let what = || format!("set kernel parameter {name} to {value:?}");
        let path = format!("sys/{}", name.replace('.', "/"));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&proc, &path, flags, Mode::empty(), resolve).step(what)?;
        rustix::io::write(file, value.as_bytes()).step(what)?;
    }
    Ok(())
}
