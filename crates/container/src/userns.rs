//! User namespaces: a container whose root is nobody on the host.
//!
//! ```text
//!  shim ─► holder: a process in the new user (and network) namespace, until somebody else is in it
//!    └──► outside: root of the host, in a mount namespace of its own. Opens what is mounted, maps its ids, makes the
//!           │       overlay and the devices
//!           └──► inside (a child of the shim): root of the user namespace, in namespaces that this owns. Mounts the rest
//! ```
//!
//! Files of layers, of the writable layer and of volumes stay owned on disk as their images and users say: mounts with
//! mapped ids (`MOUNT_ATTR_IDMAP`) show them as the container's.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use biga_sys::namespace;
use biga_sys::process::{self, Fork, Namespaces as Flags};
use biga_wire::config::{Container, IdMap};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::thread::{CapabilitiesSecureBits, Gid, LinkNameSpaceType, Uid};

use crate::Error;
use crate::error::Context;
use crate::{mounts, namespaces, rootfs};

/// A user namespace, and a network namespace that belongs to it.
#[derive(Debug)]
pub struct Owner {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace.
    pub network: OwnedFd,
    /// Its ids.
    pub ids: IdMap,
}

/// The namespaces of a container with ids of its own: made anew, or those of the network namespace that was made for it.
pub fn owner(container: &Container) -> Result<Option<Owner>, Error> {
    let Some(ids) = container.namespaces.user else {
        return Ok(None);
    };
    let Some(file) = &container.netns else {
        return make(&ids).map(Some);
    };
    let network = namespaces::open(file)?;
    let what = || format!("find who owns network namespace {}", file.path.display());
    let user = namespace::user_namespace_of(&network).step(what)?;
    Ok(Some(Owner { user, network, ids }))
}

/// Makes a user namespace with these ids, and a network namespace in it.
fn make(ids: &IdMap) -> Result<Owner, Error> {
    let what = || {
        "make a user namespace: does the host allow them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)?"
            .into()
    };
    let holder = match process::fork(Flags::USER.and(Flags::NET), None).step(what)? {
        Fork::Child => {
            // It must not outlive who made it.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            loop {
                // Until it is killed.
                let _ = rustix::event::poll(&mut [], None);
            }
        }
        Fork::Parent(child) => child,
    };
    let made = hold(holder.pid, ids);
    // Its end cannot fail: it is killed, and reaped here.
    let _ = holder.signal(9);
    let _ = holder.wait(true);
    made
}

fn hold(pid: u32, ids: &IdMap) -> Result<Owner, Error> {
    write_maps(pid, ids)?;
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(|| format!("open {path}"))
    };
    Ok(Owner {
        user: open("user")?,
        network: open("net")?,
        ids: *ids,
    })
}

/// Gives the user namespace of a process its ids.
pub fn write_maps(pid: u32, ids: &IdMap) -> Result<(), Error> {
    for file in ["gid_map", "uid_map"] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, ids.line())
            .step(|| format!("map ids {} to {} in {path}", ids.base, ids.base + ids.size - 1))?;
    }
    Ok(())
}

/// The argument by which the shim's program is told to do what [`hold_for_parent`] does.
pub const HOLD: &str = "--hold-namespaces";

/// For a process that holds namespaces for others: makes a user and a network namespace, says so, and waits for the end of its
/// input.
pub fn hold_for_parent() -> Result<(), Error> {
    use std::io::{Read, Write};
    let what = || "make a user namespace".into();
    namespace::unshare(Flags::USER.and(Flags::NET)).step(what)?;
    let mut out = std::io::stdout();
    out.write_all(b"ready\n").and_then(|()| out.flush()).step(what)?;
    // Whatever ends the input ends the wait.
    let _ = std::io::stdin().read(&mut [0]);
    Ok(())
}

/// Shows layers and the state directory with mapped ids, at the places where they are (in this mount namespace, where nobody
/// else looks).
pub fn map_layers(container: &Container, state_dir: &Path, user: BorrowedFd<'_>) -> Result<(), Error> {
    let mut done: Vec<&Path> = Vec::new();
    let layers = container.layers.iter().filter_map(|l| l.mount.as_deref());
    for path in layers.chain([state_dir]) {
        if done.contains(&path) {
            continue;
        }
        let what = || format!("open {}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(path, flags, Mode::empty()).step(what)?;
        let tree = rootfs::clone_tree(&place, false).step(what)?;
        mounts::map_ids(&tree, user, &path.display().to_string())?;
        move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .step(|| format!("mount {} with mapped ids", path.display()))?;
        done.push(path);
    }
    Ok(())
}

/// Becomes who is root in the user namespace, with all rights on the host still: the overlay works with the rights of who
/// mounts it, and that must be somebody whom the mapped mounts know.
pub fn become_mapped_root(ids: &IdMap) -> Result<(), Error> {
    let what = || format!("become user {} of the host", ids.base);
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).step(what)?;
    let (uid, gid) = (Uid::from_raw(ids.base), Gid::from_raw(ids.base));
    rustix::thread::set_thread_groups(&[]).step(what)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(what)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(what)
}

/// Enters the user namespace and its network for good.
pub fn enter(owner: &Owner) -> Result<(), Error> {
    let what = || "enter the user namespace".into();
    rustix::thread::move_into_link_name_space(owner.user.as_fd(), Some(LinkNameSpaceType::User)).step(what)?;
    rustix::thread::move_into_link_name_space(owner.network.as_fd(), Some(LinkNameSpaceType::Network))
        .step(|| "enter the network namespace of the user namespace".into())
}

/// In an exec that has just joined: becomes root of the namespace.
pub fn become_root_inside() -> Result<(), Error> {
    let what = || "become root of the user namespace".into();
    rustix::thread::set_thread_groups(&[]).step(what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).step(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).step(what)
}

/// Gives standard streams to the container's root, whose they are to be.
pub fn own_streams(streams: &[OwnedFd; 3], ids: &IdMap) {
    let (uid, gid) = (rustix::fs::Uid::from_raw(ids.base), rustix::fs::Gid::from_raw(ids.base));
    for fd in streams {
        // /dev/null stays the host's; a stream that cannot change hands only cannot be reopened.
        let null = rustix::fs::makedev(1, 3);
        if rustix::fs::fstat(fd).is_ok_and(|s| s.st_rdev != null) {
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }
}
