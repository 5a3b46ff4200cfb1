//! The tree in memory: names, inodes and what refers to what.
//!
//! Paths are only ever names of tree nodes; symbolic links are never followed, so there is no outside to escape to.

use std::collections::BTreeMap;

use super::format::{encode_rdev, encode_xattr};
use super::{Attributes, Error, show, split_last};

/// Longest path taken, in bytes: what one system call can name.
const MAX_PATH: usize = 4096;
/// Longest component, in bytes.
const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes (the kernel's `PATH_MAX` has a NUL too).
const MAX_TARGET: usize = 4095;
/// Bytes of extended attributes of one inode: the kernel's count has 16 bits, in words.
const MAX_XATTRS: usize = 0xfff0 * 4;
/// Roughly what a node costs in memory beside its names.
const NODE_COST: usize = 160;

/// Number of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub(super) u32);

/// Inodes without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Character device: major and minor number.
    Char(u32, u32),
    /// Block device: major and minor number.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

#[derive(Debug)]
pub(super) struct Node {
    pub body: Body,
    /// Permission bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub mtime_nsec: u32,
    /// Encoded, without the header.
    pub xattrs: Box<[u8]>,
}

#[derive(Debug)]
pub(super) enum Body {
    Dir(Dir),
    /// Index of its content in the writer.
    File(u32),
    Symlink(Box<[u8]>),
    Special(Special),
}

#[derive(Debug, Default)]
pub(super) struct Dir {
    pub children: BTreeMap<Box<[u8]>, NodeId>,
    /// Hides what lower layers have in it.
    pub opaque: bool,
}

/// Bounds of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub entries: usize,
    pub memory: usize,
}

/// The tree being built.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    bounds: Bounds,
    memory: usize,
    /// `(directory, name)` of every whiteout; they become nodes at the end, as an entry of the same layer wins.
    whiteouts: Vec<(NodeId, Box<[u8]>)>,
    /// The directory used last, by the text before the last slash: tars come sorted by directory.
    recent: Option<(Vec<u8>, NodeId)>,
}

pub(super) const ROOT: NodeId = NodeId(0);

impl Tree {
    pub(super) fn new(bounds: Bounds) -> Tree {
        let root = Node {
            mode: 0o755,
            ..Node::implied_dir()
        };
        Tree {
            nodes: vec![root],
            bounds,
            memory: 0,
            whiteouts: Vec::new(),
            recent: None,
        }
    }

    /// A directory; where there is one already, its attributes are replaced and its entries stay.
    pub fn add_dir(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), Error> {
        let node = self.node(path, Body::Dir(Dir::default()), attributes)?;
        let Some((parent, name)) = self.locate(path)? else {
            let Body::Dir(old) = std::mem::replace(&mut self.nodes[0], node).body else {
                return Err(Error::RootNotDirectory);
            };
            self.nodes[0].body = Body::Dir(old);
            return Ok(());
        };
        if let Some(&id) = self.dir(parent)?.children.get(name)
            && let Body::Dir(old) = &mut self.nodes[id.0 as usize].body
        {
            let old = std::mem::take(old);
            self.nodes[id.0 as usize] = Node {
                body: Body::Dir(old),
                ..node
            };
            return Ok(());
        }
        self.put(parent, name, node)
    }

    /// A regular file, whose content is the writer's `content`-th.
    pub fn add_file(&mut self, path: &[u8], content: u32, attributes: &Attributes) -> Result<(), Error> {
        self.add(path, Body::File(content), attributes)
    }

    /// A symbolic link; the target is text and nothing more.
    pub fn add_symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<(), Error> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(Error::BadSymlink(show(path)));
        }
        self.charge(target.len())?;
        self.add(path, Body::Symlink(target.into()), attributes)
    }

    /// A device or named pipe.
    pub fn add_special(&mut self, path: &[u8], special: Special, attributes: &Attributes) -> Result<(), Error> {
        self.add(path, Body::Special(special), attributes)
    }

    /// Another name for something of this tree that is no directory.
    pub fn add_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        let missing = || Error::LinkTarget {
            path: show(path),
            target: show(target),
        };
        let id = self.find(target)?.ok_or_else(missing)?;
        if matches!(self.nodes[id.0 as usize].body, Body::Dir(_)) {
            return Err(Error::LinkToDirectory {
                path: show(path),
                target: show(target),
            });
        }
        let (parent, name) = self.locate(path)?.ok_or(Error::RootNotDirectory)?;
        if self.dir(parent)?.children.get(name) == Some(&id) {
            return Ok(());
        }
        self.charge(name.len() + 48)?;
        self.entry(parent, name, id)
    }

    /// What lower layers have at this path is hidden, unless this layer has something there.
    pub fn add_whiteout(&mut self, dir: &[u8], name: &[u8]) -> Result<(), Error> {
        if name.is_empty() || name.len() > MAX_NAME || matches!(name, b"." | b"..") || name.contains(&0) {
            return Err(Error::BadName(show(name)));
        }
        let dir = self.directory(dir)?;
        self.charge(name.len() + NODE_COST)?;
        if self.whiteouts.len() >= self.bounds.entries {
            return Err(Error::TooManyEntries(self.bounds.entries));
        }
        self.whiteouts.push((dir, name.into()));
        Ok(())
    }

    /// All that lower layers have in this directory is hidden.
    pub fn set_opaque(&mut self, dir: &[u8]) -> Result<(), Error> {
        let dir = self.directory(dir)?;
        self.dir_mut(dir)?.opaque = true;
        Ok(())
    }

    /// Gives whiteouts and opaque directories the form that overlayfs knows. A directory that replaces one of a lower layer
    /// becomes opaque.
    pub(super) fn settle_whiteouts(&mut self) -> Result<(), Error> {
        for (parent, name) in std::mem::take(&mut self.whiteouts) {
            match self.dir(parent)?.children.get(&name).copied() {
                None => self.put(parent, &name, Node::whiteout())?,
                Some(id) => {
                    if let Body::Dir(dir) = &mut self.nodes[id.0 as usize].body {
                        dir.opaque = true;
                    }
                }
            }
        }
        for node in &mut self.nodes {
            if matches!(&node.body, Body::Dir(dir) if dir.opaque) {
                let mut xattrs = std::mem::take(&mut node.xattrs).into_vec();
                encode_xattr(b"trusted.overlay.opaque", b"y", &mut xattrs)
                    .map_err(|()| Error::Xattrs("an opaque directory".into()))?;
                node.xattrs = xattrs.into();
            }
        }
        Ok(())
    }

    /// Counts memory that belongs to the tree's owner.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.bounds.memory {
            return Err(Error::TooMuchMemory(self.bounds.memory));
        }
        Ok(())
    }

    pub(super) fn dir(&self, id: NodeId) -> Result<&Dir, Error> {
        match &self.nodes[id.0 as usize].body {
            Body::Dir(d) => Ok(d),
            _ => Err(Error::NotADirectory(String::new())),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> Result<&mut Dir, Error> {
        match &mut self.nodes[id.0 as usize].body {
            Body::Dir(d) => Ok(d),
            _ => Err(Error::NotADirectory(String::new())),
        }
    }

    fn add(&mut self, path: &[u8], body: Body, attributes: &Attributes) -> Result<(), Error> {
        let node = self.node(path, body, attributes)?;
        let (parent, name) = self.locate(path)?.ok_or(Error::RootNotDirectory)?;
        self.put(parent, name, node)
    }

    fn node(&mut self, path: &[u8], body: Body, a: &Attributes) -> Result<Node, Error> {
        let xattrs = encode_xattrs(&a.xattrs).map_err(|()| Error::Xattrs(show(path)))?;
        self.charge(xattrs.len())?;
        Ok(Node {
            body,
            mode: a.mode & 0o7777,
            uid: a.uid,
            gid: a.gid,
            mtime: a.mtime,
            mtime_nsec: a.mtime_nsec,
            xattrs,
        })
    }

    /// Puts a new node under a name, in place of whatever was there.
    fn put(&mut self, parent: NodeId, name: &[u8], node: Node) -> Result<(), Error> {
        let id = self.push(name.len(), node)?;
        self.entry(parent, name, id)
    }

    fn push(&mut self, name_len: usize, node: Node) -> Result<NodeId, Error> {
        if self.nodes.len() >= self.bounds.entries {
            return Err(Error::TooManyEntries(self.bounds.entries));
        }
        self.charge(name_len + NODE_COST)?;
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::TooManyEntries(self.bounds.entries))?);
        self.nodes.push(node);
        Ok(id)
    }

    fn entry(&mut self, parent: NodeId, name: &[u8], id: NodeId) -> Result<(), Error> {
        let replaced = self.dir_mut(parent)?.children.insert(name.into(), id);
        if let Some(old) = replaced
            && matches!(self.nodes[old.0 as usize].body, Body::Dir(_))
        {
            self.recent = None;
        }
        Ok(())
    }

    /// The directory of a path (made where it is missing) and its last component; `None` for the root itself.
    fn locate<'p>(&mut self, path: &'p [u8]) -> Result<Option<(NodeId, &'p [u8])>, Error> {
        check_path(path)?;
        let (dir, name) = split_last(path);
        match name {
            None => Ok(None),
            Some(name) => Ok(Some((self.directory(dir)?, name))),
        }
    }

    /// The directory at this path, made where it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<NodeId, Error> {
        if let Some((recent, id)) = &self.recent
            && recent == path
        {
            return Ok(*id);
        }
        check_path(path)?;
        let mut at = ROOT;
        for name in components(path) {
            at = match self.dir(at)?.children.get(name) {
                Some(&id) => match self.nodes[id.0 as usize].body {
                    Body::Dir(_) => id,
                    _ => return Err(Error::NotADirectory(show(path))),
                },
                None => {
                    let id = self.push(name.len(), Node::implied_dir())?;
                    self.entry(at, name, id)?;
                    id
                }
            };
        }
        self.recent = Some((path.to_vec(), at));
        Ok(at)
    }

    /// What is at this path.
    fn find(&self, path: &[u8]) -> Result<Option<NodeId>, Error> {
        check_path(path)?;
        let mut at = ROOT;
        for name in components(path) {
            let Body::Dir(dir) = &self.nodes[at.0 as usize].body else {
                return Ok(None);
            };
            match dir.children.get(name) {
                Some(&id) => at = id,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }
}

impl Node {
    fn implied_dir() -> Node {
        Node {
            body: Body::Dir(Dir::default()),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nsec: 0,
            xattrs: Box::default(),
        }
    }

    /// What overlayfs takes as "not here": a character device 0:0.
    fn whiteout() -> Node {
        Node {
            body: Body::Special(Special::Char(0, 0)),
            mode: 0,
            ..Node::implied_dir()
        }
    }

    /// Type bits of `st_mode`.
    pub(super) fn type_bits(&self) -> u16 {
        match &self.body {
            Body::Dir(_) => 0o040_000,
            Body::File(_) => 0o100_000,
            Body::Symlink(_) => 0o120_000,
            Body::Special(Special::Char(..)) => 0o020_000,
            Body::Special(Special::Block(..)) => 0o060_000,
            Body::Special(Special::Fifo) => 0o010_000,
        }
    }

    /// Type in a directory entry.
    pub(super) fn dirent_type(&self) -> u8 {
        match &self.body {
            Body::File(_) => 1,
            Body::Dir(_) => 2,
            Body::Special(Special::Char(..)) => 3,
            Body::Special(Special::Block(..)) => 4,
            Body::Special(Special::Fifo) => 5,
            Body::Symlink(_) => 7,
        }
    }

    pub(super) fn rdev(&self) -> u32 {
        match self.body {
            Body::Special(Special::Char(major, minor) | Special::Block(major, minor)) => encode_rdev(major, minor),
            _ => 0,
        }
    }
}

/// Bytes that these attributes take on disk; 0 where they cannot be written (adding them to the tree then says so).
pub(super) fn encoded_xattr_len(attributes: &Attributes) -> usize {
    encode_xattrs(&attributes.xattrs).map_or(0, |e| super::layout::xattr_len(&e))
}

fn encode_xattrs(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Box<[u8]>, ()> {
    if xattrs.is_empty() {
        return Ok(Box::default());
    }
    // The last one of a name counts; sorted, so that the order in the tar does not matter.
    let unique: BTreeMap<&[u8], &[u8]> = xattrs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())).collect();
    let mut out = Vec::new();
    for (name, value) in unique {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        encode_xattr(name, value, &mut out)?;
        if out.len() > MAX_XATTRS {
            return Err(());
        }
    }
    Ok(out.into())
}

fn check_path(path: &[u8]) -> Result<(), Error> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(Error::BadName(show(path)));
    }
    for name in components(path) {
        if name == b".." {
            return Err(Error::Escape(show(path)));
        }
        if name.len() > MAX_NAME {
            return Err(Error::BadName(show(path)));
        }
    }
    Ok(())
}

/// Components that name something: leading, doubled and trailing slashes and `.` do not.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        Tree::new(Bounds {
            entries: 100,
            memory: 1 << 20,
        })
    }

    fn a() -> Attributes {
        Attributes {
            mode: 0o644,
            ..Attributes::default()
        }
    }

    #[test]
    fn paths_are_split() {
        let none: Option<&[u8]> = None;
        assert_eq!(split_last(b"a/b/"), (&b"a"[..], Some(&b"b"[..])));
        assert_eq!(split_last(b"./"), (&b""[..], none));
        assert_eq!(split_last(b"/"), (&b""[..], none));
        assert_eq!(split_last(b"/x/."), (&b""[..], Some(&b"x"[..])));
        assert_eq!(split_last(b"x"), (&b""[..], Some(&b"x"[..])));
    }

    #[test]
    fn escapes_are_refused() {
        let mut t = tree();
        for bad in [&b"../x"[..], b"a/../../x", b"/..", b"a/.."] {
            assert!(matches!(t.add_file(bad, 0, &a()), Err(Error::Escape(_))), "{bad:?}");
        }
        assert!(matches!(t.add_file(b"a\0b", 0, &a()), Err(Error::BadName(_))));
        assert!(matches!(t.add_file(&[b'x'; 256], 0, &a()), Err(Error::BadName(_))));
        assert!(matches!(t.add_file(b"./", 0, &a()), Err(Error::RootNotDirectory)));
        assert_eq!(t.nodes.len(), 1);
    }

    #[test]
    fn links_are_never_followed() {
        let mut t = tree();
        t.add_symlink(b"etc", b"/etc", &a()).unwrap();
        assert!(matches!(
            t.add_file(b"etc/passwd", 0, &a()),
            Err(Error::NotADirectory(_))
        ));
        assert!(matches!(t.add_link(b"x", b"etc/passwd"), Err(Error::LinkTarget { .. })));
        t.add_dir(b"d", &a()).unwrap();
        assert!(matches!(t.add_link(b"x", b"d"), Err(Error::LinkToDirectory { .. })));
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let mut t = tree();
        t.add_file(b"d/x", 1, &a()).unwrap();
        t.add_dir(b"d", &Attributes { mode: 0o700, ..a() }).unwrap();
        let d = t.find(b"d").unwrap().unwrap();
        assert_eq!(t.nodes[d.0 as usize].mode, 0o700);
        assert!(t.find(b"d/x").unwrap().is_some());
        t.add_file(b"d", 2, &a()).unwrap();
        assert!(t.find(b"d/x").unwrap().is_none());
        assert!(matches!(t.add_file(b"d/y", 3, &a()), Err(Error::NotADirectory(_))));
    }

    #[test]
    fn whiteouts_give_way_to_entries() {
        let mut t = tree();
        t.add_whiteout(b"", b"gone").unwrap();
        t.add_whiteout(b"", b"file").unwrap();
        t.add_whiteout(b"", b"dir").unwrap();
        t.add_file(b"file", 0, &a()).unwrap();
        t.add_file(b"dir/x", 0, &a()).unwrap();
        t.settle_whiteouts().unwrap();
        let body = |t: &Tree, p: &[u8]| {
            let id = t.find(p).unwrap().unwrap();
            format!("{:?}", t.nodes[id.0 as usize].body)
        };
        assert!(body(&t, b"gone").contains("Char(0, 0)"));
        assert!(body(&t, b"file").contains("File"));
        assert!(body(&t, b"dir").contains("opaque: true"));
    }

    #[test]
    fn bounds_hold() {
        let mut t = tree();
        let deep = "a/".repeat(200);
        assert!(matches!(
            t.add_file(deep.as_bytes(), 0, &a()),
            Err(Error::TooManyEntries(100))
        ));
        let big = Attributes {
            xattrs: vec![(b"user.x".to_vec(), vec![0; 70000])],
            ..a()
        };
        assert!(matches!(tree().add_file(b"x", 0, &big), Err(Error::Xattrs(_))));
    }

    #[test]
    fn overlay_attributes_of_a_layer_are_dropped() {
        let x = [
            (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
            (b"user.a".to_vec(), vec![1]),
        ];
        assert_eq!(encode_xattrs(&x).unwrap().len(), 8);
    }
}
