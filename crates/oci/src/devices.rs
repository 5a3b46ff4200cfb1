//! Device nodes inside, and which devices can be used.

use std::os::fd::{BorrowedFd, OwnedFd};

use biga_container::beneath::{self, Kind};
use biga_container::devices::{LINKS, USUAL, always};
use biga_container::rootfs;
use biga_sys::device_filter::Rule;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use crate::error::{Error, Step};
use crate::spec::linux::Device;
use crate::spec::resources::DeviceRule;

/// A node to be made.
#[derive(Debug)]
pub struct Node {
    path: String,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
    /// The host's, to be bound where no node can be made.
    tree: Option<OwnedFd>,
}

/// All nodes of a container. With `bind` they are the host's, opened here: a user namespace cannot make any.
pub fn nodes(devices: &[Device], bind: bool) -> Result<Vec<Node>, Error> {
    let usual = USUAL.iter().map(|(name, major, minor)| Node {
        path: format!("/dev/{name}"),
        kind: FileType::CharacterDevice,
        number: makedev(*major, *minor),
        mode: 0o666,
        owner: (0, 0),
        tree: None,
    });
    let mut all: Vec<Node> = usual.collect();
    for device in devices {
        let node = node(device)?;
        // What the configuration says of one of the usual replaces it.
        all.retain(|n| n.path != node.path);
        all.push(node);
    }
    if bind {
        for node in &mut all {
            let what = || format!("bind the host's {}", node.path);
            let at = rustix::fs::openat(CWD, &node.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(what)?;
            node.tree = Some(rootfs::clone_tree(&at, false).step(what)?);
        }
    }
    Ok(all)
}

fn node(device: &Device) -> Result<Node, Error> {
    let field = || format!("linux.devices ({})", device.path);
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(Error::invalid(field(), format!("there is no type {other:?}"))),
    };
    if !device.path.starts_with('/') {
        return Err(Error::invalid(field(), "its path is not absolute"));
    }
    let number = |n: Option<i64>, name: &str| match n.map(u32::try_from) {
        Some(Ok(n)) => Ok(n),
        None if kind == FileType::Fifo => Ok(0),
        _ => Err(Error::invalid(field(), format!("it needs a {name} number"))),
    };
    let number = makedev(number(device.major, "major")?, number(device.minor, "minor")?);
    Ok(Node {
        path: device.path.clone(),
        kind,
        number,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        tree: None,
    })
}

/// Makes nodes and links. The file mode mask must be 0.
pub fn make(root: BorrowedFd<'_>, nodes: &[Node]) -> Result<(), Error> {
    let dev = beneath::place(root, "/dev", Kind::Directory).step(|| "find /dev".into())?;
    nodes.iter().try_for_each(|n| one(root, &dev, n))?;
    for (name, target) in LINKS {
        let what = || format!("link /dev/{name}");
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) => {}
            // The terminals of the image, or of the host, are not those of the container.
            Err(Errno::EXIST) if name == "ptmx" => replace_ptmx(&dev).step(what)?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e).step(what),
        }
    }
    Ok(())
}

fn replace_ptmx(dev: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty())?;
    rustix::fs::symlinkat("pts/ptmx", dev, "ptmx")
}

fn one(root: BorrowedFd<'_>, dev: &OwnedFd, node: &Node) -> Result<(), Error> {
    let what = || format!("make device node {}", node.path);
    if let Some(tree) = &node.tree {
        return Ok(rootfs::attach_at(root, tree, &node.path, Kind::File)?);
    }
    let (parent, name) = node
        .path
        .trim_end_matches('/')
        .rsplit_once('/')
        .ok_or_else(|| Error::invalid("linux.devices", node.path.clone()))?;
    let found;
    let parent = if parent == "/dev" {
        dev
    } else {
        found = beneath::place(root, if parent.is_empty() { "/" } else { parent }, Kind::Directory).step(what)?;
        &found
    };
    match rustix::fs::mknodat(parent, name, node.kind, Mode::from_raw_mode(node.mode), node.number) {
        Ok(()) => {}
        // An image may hold nodes of its own: the same is as good.
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).step(what)?;
            let same_number = node.kind == FileType::Fifo || there.st_rdev == node.number;
            if FileType::from_raw_mode(there.st_mode) != node.kind || !same_number {
                return Err(Errno::EXIST).step(what);
            }
        }
        Err(e) => return Err(e).step(what),
    }
    if node.owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).step(what)?;
    }
    Ok(())
}

/// What a control group is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Access {
    /// All can be used.
    All,
    /// Only these.
    Only(Vec<Rule>),
    /// All but these.
    Except(Vec<Rule>),
}

/// Carries the ordered list of a configuration out: later rules change what earlier ones said.
pub fn access(list: &[DeviceRule]) -> Result<Access, Error> {
    let field = "linux.resources.devices";
    let mut all = list.is_empty();
    let mut exceptions: Vec<Rule> = Vec::new();
    for rule in list {
        if let Some(bad) = rule.access.chars().find(|c| !"rwm".contains(*c)) {
            return Err(Error::invalid(field, format!("there is no access {bad:?}")));
        }
        let number = |n: Option<i64>| match n {
            None | Some(-1) => Ok(None),
            Some(n) => match u32::try_from(n) {
                Ok(n) => Ok(Some(n)),
                Err(_) => Err(Error::invalid(field, format!("{n} is no device number"))),
            },
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let everything = rule.access.is_empty() || ["r", "w", "m"].iter().all(|a| rule.access.contains(a));
        if matches!(rule.kind.as_str(), "" | "a") {
            if major.is_some() || minor.is_some() || !everything {
                return Err(Error::unsupported(
                    field,
                    "a rule for all types can have no numbers and no part of the access",
                ));
            }
            all = rule.allow;
            exceptions.clear();
            continue;
        }
        let block = match rule.kind.as_str() {
            "b" => true,
            "c" | "u" => false,
            other => return Err(Error::invalid(field, format!("there is no type {other:?}"))),
        };
        let has = |c| everything || rule.access.contains(c);
        let (read, write, mknod) = (has('r'), has('w'), has('m'));
        if rule.allow == all {
            cut(&mut exceptions, (block, major, minor), (read, write, mknod), field)?;
        } else {
            exceptions.push(Rule {
                block,
                major,
                minor,
                read,
                write,
                mknod,
            });
        }
    }
    if all {
        return Ok(if exceptions.is_empty() {
            Access::All
        } else {
            Access::Except(exceptions)
        });
    }
    exceptions.extend(always());
    Ok(Access::Only(exceptions))
}

/// Takes back what earlier rules said. A part of a range cannot be taken out of it.
fn cut(
    rules: &mut Vec<Rule>,
    of: (bool, Option<u32>, Option<u32>),
    access: (bool, bool, bool),
    field: &str,
) -> Result<(), Error> {
    let covers = |outer: Option<u32>, inner: Option<u32>| outer.is_none() || outer == inner;
    for rule in rules.iter_mut().filter(|r| r.block == of.0) {
        if covers(of.1, rule.major) && covers(of.2, rule.minor) {
            rule.read &= !access.0;
            rule.write &= !access.1;
            rule.mknod &= !access.2;
        } else if covers(rule.major, of.1) && covers(rule.minor, of.2) {
            return Err(Error::unsupported(
                field,
                "a rule takes one device out of a range that an earlier rule names",
            ));
        }
    }
    rules.retain(|r| r.read || r.write || r.mknod);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: kind.into(),
            major,
            minor,
            access: access.into(),
        }
    }

    fn only(list: &[DeviceRule]) -> Vec<Rule> {
        match access(list).unwrap() {
            Access::Only(mut rules) => {
                rules.truncate(rules.len() - always().len());
                rules
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_list_is_ordered() {
        let none = rule(false, "a", None, None, "rwm");
        let fuse = rule(true, "c", Some(10), Some(229), "rw");
        assert_eq!(only(std::slice::from_ref(&none)), []);
        assert_eq!(only(&[none.clone(), fuse.clone()]).len(), 1);
        assert_eq!(
            only(&[fuse.clone(), none.clone()]),
            [],
            "a later rule for all forgets earlier ones"
        );
        let back = rule(false, "c", Some(10), Some(229), "w");
        let left = only(&[none.clone(), fuse.clone(), back]);
        assert!(left[0].read && !left[0].write);
        let all = rule(true, "", None, None, "");
        assert_eq!(access(std::slice::from_ref(&all)).unwrap(), Access::All);
        assert_eq!(access(&[]).unwrap(), Access::All);
        let no_fuse = rule(false, "c", Some(10), Some(229), "rwm");
        assert!(matches!(access(&[all, no_fuse]).unwrap(), Access::Except(r) if r.len() == 1));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let none = rule(false, "a", None, None, "rwm");
        let range = rule(true, "c", Some(136), None, "rw");
        let one = rule(false, "c", Some(136), Some(3), "rw");
        assert!(matches!(access(&[none, range, one]), Err(Error::Unsupported { .. })));
        assert!(access(&[rule(true, "x", None, None, "r")]).is_err());
        assert!(access(&[rule(true, "c", None, None, "rwx")]).is_err());
        assert!(access(&[rule(true, "c", Some(-7), None, "r")]).is_err());
    }

    #[test]
    fn nodes_replace_the_usual() {
        let device = Device {
            kind: "c".into(),
            path: "/dev/null".into(),
            major: Some(1),
            minor: Some(3),
            file_mode: Some(0o600),
            ..Device::default()
        };
        let all = nodes(&[device], false).unwrap();
        assert_eq!(all.iter().filter(|n| n.path == "/dev/null").count(), 1);
        assert_eq!(all.last().unwrap().mode, 0o600);
        assert!(nodes(&[Device::default()], false).is_err());
    }
}
