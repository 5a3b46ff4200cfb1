//! Ends of instances: network namespaces and veth pairs for containers, taps for machines.
//!
//! The path of a container is hot: no program is run, and each side's messages go to the kernel in one batch. A
//! short-lived thread enters the new namespace, so that no other thread ever leaves the host's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::ids::{self, Names};
use crate::netlink::route::{LOOPBACK, Veth};
use crate::netlink::{Batch, Socket};
use crate::{Endpoint, Error, way_out};

/// The kernel needs well below a millisecond to tell a bridge of a port; on a busy host some more. What is late after
/// this long works all the same, with a slow first packet.
const CARRIER_WITHIN: Duration = Duration::from_millis(500);
const CARRIER_PAUSE: Duration = Duration::from_micros(300);
/// Of addresses that are only known on a link (RFC 3927).
const LINK_LOCAL_PREFIX: u8 = 16;
/// Of the file system that holds namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// What a container may expect beside the kernel's defaults: low ports and ping without privileges, as under Docker,
/// and no IPv6 chatter on links that have no IPv6.
const SYSCTLS: [(&str, &str); 3] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    ("net.ipv6.conf.default.addr_gen_mode", "1"),
];

/// An endpoint with what its network says.
pub struct End<'a> {
    /// As the caller gave it.
    pub endpoint: &'a Endpoint,
    /// Number of the bridge.
    pub bridge: u32,
    /// The node's own address on the network, whether or not it leads out.
    pub router: Ipv4Addr,
    /// Whether it reaches no other end on the network.
    pub isolated: bool,
}

/// Where an instance's namespace is held.
pub fn netns_path(run_dir: &Path, uid: &str) -> PathBuf {
    run_dir.join("netns").join(uid)
}

/// Makes the namespace, or takes the one of `made`, and its interfaces. What is made before a failure is left: the caller detaches.
pub fn make_container(
    home: &mut Socket,
    names: &Names,
    path: &Path,
    uid: &str,
    ends: &[End<'_>],
    sysctls: &BTreeMap<String, String>,
    made: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    let sysctls = sysctl_files(sysctls)?;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|e| Error::io("make the directory", dir, e))?;
    }
    fs::write(path, "").map_err(|e| Error::io("make the file", path, e))?;
    std::thread::scope(|scope| {
        let work = || inside_new_namespace(home, names, path, uid, ends, &sysctls, made);
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .map_err(|e| Error::io("start a thread for", path, e))?;
        thread.join().unwrap_or(Err(Error::Task("network namespace")))
    })
}

fn inside_new_namespace(
    home: &mut Socket,
    names: &Names,
    path: &Path,
    uid: &str,
    ends: &[End<'_>],
    sysctls: &[(PathBuf, String)],
    made: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    match made {
        Some(fd) => {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(fd, Some(kind))
        }
        // Deprecated because other flags unshare file descriptors between threads; this one does not.
        #[allow(deprecated)]
        None => rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET),
    }
    .map_err(|e| Error::io("make a network namespace for", path, e))?;
    let own = "/proc/thread-self/ns/net";
    let netns = fs::File::open(own).map_err(|e| Error::io("open", own, e))?;
    rustix::mount::mount_bind(own, path).map_err(|e| Error::io("hold a network namespace at", path, e))?;
    write_sysctls(sysctls)?;
    add_ends(home, names, path, uid, ends, &netns)
}

/// Makes the interfaces of `ends`. Runs on a thread inside the namespace, which is `netns`.
pub fn add_ends(
    home: &mut Socket,
    names: &Names,
    path: &Path,
    uid: &str,
    ends: &[End<'_>],
    netns: &fs::File,
) -> Result<(), Error> {
    match home.run(host_side(names, uid, ends, netns)) {
        // The last ones of this instance are still on their way out.
        Err(e) if errno(&e) == Some(Errno::EXIST) => {
            drop_links(home, &veths(names, uid, ends))?;
            home.run(host_side(names, uid, ends, netns))?;
        }
        other => other?,
    }
    let mut inner = Socket::open().map_err(|e| Error::io("open netlink in", path, e))?;
    let links = inner.links()?;
    let index = |name: &str| links.iter().find(|l| l.name == name).map_or(0, |l| l.index);
    let indices: Vec<u32> = ends.iter().map(|e| index(&e.endpoint.interface)).collect();
    inner.run(inner_side(ends, &indices))?;
    await_carrier(home, &veths(names, uid, ends))?;
    inner.run(announcements(ends, &indices))
}

/// The kernel tells a bridge a moment later that a port of it is up, and drops what comes before. An announcement lost
/// that way would be repeated after a second only, and hold up everything the instance sends until then.
fn await_carrier(home: &mut Socket, veths: &[String]) -> Result<(), Error> {
    let deadline = Instant::now() + CARRIER_WITHIN;
    for name in veths {
        while !home.carries(name)? && Instant::now() < deadline {
            std::thread::sleep(CARRIER_PAUSE);
        }
    }
    Ok(())
}

/// Names of the host's ends. Each has a number of its own, so that one can come or go alone.
pub fn veths(names: &Names, uid: &str, ends: &[End<'_>]) -> Vec<String> {
    ends.iter().map(|e| names.veth(uid, e.endpoint.slot.into())).collect()
}

fn host_side(names: &Names, uid: &str, ends: &[End<'_>], netns: &fs::File) -> Batch {
    let mut batch = Batch::new();
    for (name, end) in veths(names, uid, ends).into_iter().zip(ends) {
        batch.add_veth(&Veth {
            name: &name,
            peer: &end.endpoint.interface,
            mac: end.endpoint.mac,
            netns: netns.as_fd(),
            mtu: end.endpoint.mtu,
        });
        batch.quiet(&name);
        batch.optional();
        batch.join(&name, end.bridge, None, end.isolated);
    }
    batch
}

fn inner_side(ends: &[End<'_>], indices: &[u32]) -> Batch {
    let mut batch = Batch::new();
    batch.up(LOOPBACK);
    let each = || indices.iter().copied().zip(ends);
    for (index, end) in each() {
        batch.add_address(index, end.endpoint.address, end.endpoint.prefix);
        for address in &end.endpoint.link_local {
            batch.add_address(index, *address, LINK_LOCAL_PREFIX);
        }
        batch.up(index);
    }
    let way_out =
        way_out(ends.iter().map(|e| e.endpoint)).and_then(|at| Some((*indices.get(at)?, ends[at].endpoint.gateway?)));
    if let Some((index, gateway)) = way_out {
        batch.default_route(index, gateway);
    }
    batch
}

fn announcements(ends: &[End<'_>], indices: &[u32]) -> Batch {
    let mut batch = Batch::new();
    for (index, end) in indices.iter().copied().zip(ends) {
        batch.announce_to(index, end.router);
        batch.optional();
    }
    batch
}

/// Files and values: ours, then the caller's, whose word is the last.
fn sysctl_files(wanted: &BTreeMap<String, String>) -> Result<Vec<(PathBuf, String)>, Error> {
    let ours = SYSCTLS
        .iter()
        .map(|(k, v)| (*k, *v))
        .filter(|(k, _)| !wanted.contains_key(*k));
    let theirs = wanted.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    ours.chain(theirs)
        .map(|(name, value)| {
            let bad = !name.starts_with("net.") || name.split('.').any(|p| p.is_empty()) || name.contains(['/', '\0']);
            if bad {
                return Err(Error::Sysctl(name.to_owned()));
            }
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            Ok((path, value.to_owned()))
        })
        .collect()
}

fn write_sysctls(files: &[(PathBuf, String)]) -> Result<(), Error> {
    for (path, value) in files {
        match fs::write(path, value) {
            Ok(()) => {}
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.starts_with("/proc/sys/net/ipv6/conf/default") => {}
            Err(e) => return Err(Error::io("set the sysctl", path, e)),
        }
    }
    Ok(())
}

/// Whether a namespace is held at the path.
pub fn holds_netns(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC)
}

/// Puts host ends that exist back into their bridges, which may be new ones. Fails where one is missing.
pub fn rejoin(home: &mut Socket, interfaces: &[String], ends: &[End<'_>]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for (name, end) in interfaces.iter().zip(ends) {
        batch.join(name, end.bridge, None, end.isolated);
    }
    home.run(batch)
}

/// Makes the taps that are missing and puts all into their bridges.
pub fn make_machine(home: &mut Socket, names: &Names, uid: &str, ends: &[End<'_>]) -> Result<Vec<String>, Error> {
    let taps: Vec<String> = (0..ends.len()).map(|i| names.tap(uid, i)).collect();
    let present = home.links()?;
    let mut batch = Batch::new();
    for (tap, end) in taps.iter().zip(ends) {
        if !present.iter().any(|l| l.name == *tap) {
            make_tap(tap)?;
            batch.quiet(tap);
            batch.optional();
        }
        batch.join(tap, end.bridge, end.endpoint.mtu, end.isolated);
    }
    home.run(batch)?;
    Ok(taps)
}

/// Makes a tap that stays when nobody has it open.
fn make_tap(name: &str) -> Result<(), Error> {
    biga_sys::tun::open_tap(name)
        .and_then(|tap| biga_sys::tun::persist(&tap, true))
        .map_err(|e| Error::netlink(format!("make tap {name}"), e))
}

/// Lets go of a namespace. Where nothing runs in it, it ends.
pub fn drop_netns(path: &Path) -> Result<(), Error> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(e) => return Err(Error::io("unmount", path, e)),
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Removes links, those that exist.
pub fn drop_links<S: AsRef<str>>(home: &mut Socket, names: &[S]) -> Result<(), Error> {
    let mut batch = Batch::new();
    for name in names {
        batch.del_link(name.as_ref());
    }
    match home.run(batch) {
        Err(e) if errno(&e) == Some(Errno::NODEV) => Ok(()),
        other => other,
    }
}

fn errno(error: &Error) -> Option<Errno> {
    match error {
        Error::Netlink { source, .. } => source.raw_os_error().map(Errno::from_raw_os_error),
        _ => None,
    }
}

/// Refuses what could not be named.
pub fn check(uid: &str, endpoints: &[Endpoint]) -> Result<(), Error> {
    ids::check_uid(uid)?;
    if endpoints.len() > ids::MAX_ENDPOINTS {
        return Err(Error::TooManyEndpoints(uid.to_owned(), ids::MAX_ENDPOINTS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_sysctls_pass() {
        let one = |k: &str| sysctl_files(&BTreeMap::from([(k.to_owned(), "1".to_owned())]));
        let files = one("net.core.somaxconn").unwrap();
        assert!(files.contains(&(PathBuf::from("/proc/sys/net/core/somaxconn"), "1".to_owned())));
        assert_eq!(files.len(), SYSCTLS.len() + 1);
        assert_eq!(one("net.ipv4.ping_group_range").unwrap().len(), SYSCTLS.len());
        for bad in [
            "kernel.shmmax",
            "net",
            "net.",
            "net...kernel",
            "net.a/../../x",
            "net./x",
        ] {
            assert!(matches!(one(bad), Err(Error::Sysctl(_))), "{bad}");
        }
    }
}
