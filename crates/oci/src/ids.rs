//! User namespaces: writing their maps, and making some only to be asked how they map.

use std::fs;
use std::os::fd::OwnedFd;

use biga_sys::process::{self, Fork, Namespaces, exit_now};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Step};
use crate::spec::linux::IdMapping;

/// Lines of a map, as the kernel wants them.
fn lines(map: &[IdMapping]) -> String {
    let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
    map.iter().map(line).collect()
}

/// The host's id of an id inside; the same one where nothing is mapped, none where it has no place in the map.
pub fn outside(map: &[IdMapping], inside: u32) -> Option<u32> {
    if map.is_empty() {
        return Some(inside);
    }
    let of = |m: &IdMapping| {
        inside
            .checked_sub(m.container_id)
            .filter(|n| *n < m.size)?
            .checked_add(m.host_id)
    };
    map.iter().find_map(of)
}

/// Writes the maps of the user namespace of a process.
pub fn write(pid: u32, users: &[IdMapping], groups: &[IdMapping]) -> Result<(), Error> {
    for (name, map) in [("uid_map", users), ("gid_map", groups)] {
        let path = format!("/proc/{pid}/{name}");
        // The kernel wants all in one write.
        fs::write(&path, lines(map)).step(|| format!("map ids by {path}"))?;
    }
    Ok(())
}

/// A user namespace with these maps, in which no process is.
pub fn namespace(users: &[IdMapping], groups: &[IdMapping]) -> Result<OwnedFd, Error> {
    if users.is_empty() || groups.is_empty() {
        return Err(Error::invalid(
            "mounts.uidMappings",
            "a mount with mapped owners needs uidMappings and gidMappings",
        ));
    }
    let what = || "make a user namespace for a mount".into();
    let (wait, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(what)?;
    match process::fork(Namespaces::USER, None).step(what)? {
        Fork::Child => {
            drop(hold);
            // Until the parent has what it wants, and lets go.
            let _ = rustix::io::read(&wait, &mut [0u8]);
            exit_now(0)
        }
        Fork::Parent(child) => {
            drop(wait);
            let made = write(child.pid, users, groups).and_then(|()| {
                let path = format!("/proc/{}/ns/user", child.pid);
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)
            });
            drop(hold);
            child.wait(true).step(what)?;
            made
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_lines() {
        let map = [
            IdMapping {
                container_id: 0,
                host_id: 100_000,
                size: 10,
            },
            IdMapping {
                container_id: 10,
                host_id: 5,
                size: 1,
            },
        ];
        assert_eq!(lines(&map), "0 100000 10\n10 5 1\n");
        assert_eq!(outside(&map, 9), Some(100_009));
        assert_eq!(outside(&map, 10), Some(5));
        assert_eq!((outside(&map, 11), outside(&[], 11)), (None, Some(11)));
    }
}
