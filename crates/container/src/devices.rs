//! Device nodes: which a container has and may use.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use biga_sys::device_filter::Rule;
use biga_wire::config::{Container, Device};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};

use crate::Error;
use crate::beneath;
use crate::error::Context;

/// Name, major, minor of the nodes every container has.
pub const USUAL: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Name and target of the links every container has.
pub const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

const fn rule(block: bool, major: Option<u32>, minor: Option<u32>, access: bool) -> Rule {
    Rule {
        block,
        major,
        minor,
        read: access,
        write: access,
        mknod: true,
    }
}

/// What every container may do: make nodes of anything, and use the usual ones, its terminals and its console.
pub fn always() -> Vec<Rule> {
    let mut rules = vec![rule(false, None, None, false), rule(true, None, None, false)];
    rules.extend(
        USUAL
            .iter()
            .map(|(_, major, minor)| rule(false, Some(*major), Some(*minor), true)),
    );
    rules.extend([(5, Some(2)), (136, None), (5, Some(1))].map(|(major, minor)| rule(false, Some(major), minor, true)));
    rules
}

/// Access rules for a container; `None` allows all (privileged).
pub fn rules(container: &Container) -> Result<Option<Vec<Rule>>, Error> {
    if container.privileged {
        return Ok(None);
    }
    let mut rules = always();
    for device in &container.devices {
        let (block, number) = look_up(device)?;
        let has = |c| device.permissions.contains(c);
        rules.push(Rule {
            block,
            major: Some(rustix::fs::major(number)),
            minor: Some(rustix::fs::minor(number)),
            read: has('r'),
            write: has('w'),
            mknod: has('m'),
        });
    }
    for wish in &container.device_rules {
        let has = |c| wish.access.contains(c);
        let kinds: &[bool] = match wish.kind {
            'b' => &[true],
            'c' | 'u' => &[false],
            'a' => &[true, false],
            other => {
                return Err(Error::Field(
                    "the device rule",
                    format!("{other:?} is neither a, b nor c"),
                ));
            }
        };
        rules.extend(kinds.iter().map(|block| Rule {
            block: *block,
            major: wish.major,
            minor: wish.minor,
            read: has('r'),
            write: has('w'),
            mknod: has('m'),
        }));
    }
    Ok(Some(rules))
}

/// Whether a device of the host is a block device, and its number.
fn look_up(device: &Device) -> Result<(bool, u64), Error> {
    if let Some(n) = device.number {
        return Ok((n.block, makedev(n.major, n.minor)));
    }
    let meta = std::fs::metadata(&device.host_path).step(|| format!("find device {}", device.host_path.display()))?;
    let kind = meta.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(Error::Field(
            "the device",
            format!("{} is not a device node", device.host_path.display()),
        ));
    }
    Ok((kind.is_block_device(), meta.rdev()))
}

/// Devices as they are made inside: looked up while the host's files can still be seen.
#[derive(Debug, Default)]
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// Looks the wanted devices up; all the host has for a privileged container.
    pub fn find(container: &Container) -> Result<Nodes, Error> {
        let mut nodes = Nodes::default();
        let base = container.namespaces.user.map_or(0, |ids| ids.base);
        if container.privileged {
            nodes.add_host_devices()?;
        }
        for device in &container.devices {
            let (block, number) = look_up(device)?;
            let kind = if block {
                FileType::BlockDevice
            } else {
                FileType::CharacterDevice
            };
            nodes.0.push(Node {
                path: device.path.clone(),
                kind,
                number,
                mode: device.mode.unwrap_or(0o666),
                uid: base + device.uid.unwrap_or(0),
                gid: base + device.gid.unwrap_or(0),
                given: device.uid.is_some() || device.gid.is_some(),
            });
        }
        Ok(nodes)
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Node] {
        &self.0
    }

    fn add_host_devices(&mut self) -> Result<(), Error> {
        let skip = ["pts", "shm", "mqueue", "console", "ptmx", "fd", "hugepages"];
        let mut dirs = vec![std::path::PathBuf::from("/dev")];
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                let (Ok(meta), Some(text)) = (entry.metadata(), path.to_str()) else {
                    continue;
                };
                let name = text.strip_prefix("/dev/").unwrap_or(text);
                if skip.contains(&name) || USUAL.iter().any(|(n, ..)| *n == name) {
                    continue;
                }
                let kind = meta.file_type();
                if kind.is_dir() {
                    dirs.push(path);
                } else if kind.is_block_device() || kind.is_char_device() {
                    let kind = if kind.is_block_device() {
                        FileType::BlockDevice
                    } else {
                        FileType::CharacterDevice
                    };
                    self.0.push(Node {
                        path: text.to_owned(),
                        kind,
                        number: meta.rdev(),
                        mode: meta.mode() & 0o777,
                        uid: 0,
                        gid: 0,
                        given: false,
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes the usual nodes and links in the container's `/dev`, and those of these that lie there. The file mode mask must be
    /// 0.
    pub fn make_usual(&self, dev: &OwnedFd) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(0o666);
        for (name, major, minor) in USUAL {
            rustix::fs::mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
                .step(|| format!("make device node {name}"))?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, dev, name).step(|| format!("link /dev/{name}"))?;
        }
        for node in &self.0 {
            if let Some(below) = node.path.strip_prefix("/dev/") {
                make_node(dev.as_fd(), below, node)?;
            }
        }
        Ok(())
    }

    /// Makes those that lie elsewhere. In a user namespace nobody may: there all must be below `/dev`.
    pub fn make(&self, root: BorrowedFd<'_>, in_user_namespace: bool) -> Result<(), Error> {
        for node in self.0.iter().filter(|n| !n.path.starts_with("/dev/")) {
            if in_user_namespace {
                let why = format!("{} is not below /dev, as it must be in a user namespace", node.path);
                return Err(Error::Field("the device's path", why));
            }
            make_node(root, &node.path, node)?;
        }
        Ok(())
    }
}

/// A node as it is made.
#[derive(Debug)]
pub(crate) struct Node {
    pub path: String,
    pub kind: FileType,
    pub number: u64,
    pub mode: u32,
    /// As the host counts.
    pub uid: u32,
    /// As the host counts.
    pub gid: u32,
    /// Whether somebody asked for this owner.
    given: bool,
}

fn make_node(root: BorrowedFd<'_>, path: &str, node: &Node) -> Result<(), Error> {
    let what = || format!("make device node {}", node.path);
    let path = path.trim_end_matches('/');
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    if last.is_empty() {
        return Err(Error::Field("the device's path", node.path.clone()));
    }
    let parent = beneath::place(
        root,
        if parent.is_empty() { "/" } else { parent },
        beneath::Kind::Directory,
    )
    .step(what)?;
    let mode = Mode::from_raw_mode(node.mode);
    match rustix::fs::mknodat(parent.as_fd(), last, node.kind, mode, node.number) {
        Ok(()) if node.given => {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent.as_fd(), last, Some(uid), Some(gid), flags).step(what)
        }
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(e).step(what),
    }
}
