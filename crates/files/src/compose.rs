//! The layer of an image made of files that are copied into it, without a container: its tar is written as it is read.
//!
//! Paths are resolved in the tree that the layer will lie on, as programs in the image would resolve them: a link to a directory is
//! followed there and leads nowhere else. Directories that are there already are repeated with what they are, because what
//! a layer says of a directory replaces what lower ones say.

use std::collections::HashMap;
use std::io::{self, Read};

use super::tar::{self, Head, Kind};
use super::tree::{Node, NodeKind, Tree, real_path};
use super::{Error, MAX_NAMES};

/// A layer in the making.
pub struct Compose<'a> {
    below: Option<&'a dyn Tree>,
    entries: Vec<(Vec<u8>, Node)>,
    index: HashMap<Vec<u8>, usize>,
    budget: usize,
}

impl Tree for Compose<'_> {
    fn look(&self, path: &[u8]) -> Result<Option<Node>, Error> {
        if path.is_empty() {
            return Ok(Some(Node::dir(0o755, (0, 0))));
        }
        if let Some(i) = self.index.get(path) {
            return Ok(Some(self.entries[*i].1.clone()));
        }
        self.below.map_or(Ok(None), |b| b.look(path))
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.below.map_or(Ok(Vec::new()), |b| b.list(dir))
    }
}

impl<'a> Compose<'a> {
    /// On top of this tree, or of nothing.
    pub fn new(below: Option<&'a dyn Tree>) -> Compose<'a> {
        Compose {
            below,
            entries: Vec::new(),
            index: HashMap::new(),
            budget: MAX_NAMES,
        }
    }

    /// Where a path leads in the image; the last component is followed too.
    pub fn real(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        real_path(self, path, true)
    }

    /// Whether a directory stands at a real path.
    pub fn is_dir(&self, path: &[u8]) -> Result<bool, Error> {
        Ok(self.look(path)?.is_some_and(|n| n.is_dir()))
    }

    /// Sees to it that a directory stands at a real path. Those that are made are as `new` is.
    pub fn directory(&mut self, path: &[u8], new: &Node) -> Result<(), Error> {
        let ends: Vec<usize> = path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(i, _)| i)
            .collect();
        for end in ends.into_iter().chain([path.len()]) {
            let at = &path[..end];
            if at.is_empty() || self.index.get(at).is_some_and(|i| self.entries[*i].1.is_dir()) {
                continue;
            }
            match self.look(at)? {
                Some(node) if node.is_dir() => self.insert(at.to_vec(), node)?,
                Some(_) => return Err(Error::NotADirectory(crate::show(at))),
                None => self.insert(at.to_vec(), new.clone())?,
            }
        }
        Ok(())
    }

    /// Puts something at a path whose directory is real. What stands there is replaced, but for two directories, which become
    /// one. A directory that comes where a link to one stands goes where that leads: gives where it stands in the end.
    pub fn put(&mut self, path: &[u8], node: Node, new: &Node) -> Result<Vec<u8>, Error> {
        let (dir, name) = crate::split_last(path);
        let Some(name) = name else {
            return Ok(Vec::new());
        };
        if name.starts_with(b".wh.") {
            return Err(Error::InTheWay(format!(
                "{}: names that begin with .wh. mean removed files in layers",
                crate::show(path)
            )));
        }
        self.directory(dir, new)?;
        let mut at = path.to_vec();
        if node.is_dir() && self.look(&at)?.is_some_and(|n| n.kind == NodeKind::Symlink) {
            let leads = self.real(&at)?;
            if self.is_dir(&leads)? {
                // It stays what it is: it was not meant.
                self.directory(&leads, new)?;
                return Ok(leads);
            }
        }
        if !node.is_dir() && self.index.get(&at).is_some_and(|i| self.entries[*i].1.is_dir()) {
            self.forget(&at);
        }
        self.insert(std::mem::take(&mut at), node)?;
        Ok(path.to_vec())
    }

    fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), Error> {
        if let Some(i) = self.index.get(&path) {
            self.entries[*i].1 = node;
            return Ok(());
        }
        let cost = 2 * path.len() + node.link.len() + 160;
        self.budget = self
            .budget
            .checked_sub(cost)
            .ok_or_else(|| Error::TooMuch("more files are copied than can be kept in memory".into()))?;
        self.index.insert(path.clone(), self.entries.len());
        self.entries.push((path, node));
        Ok(())
    }

    /// What this layer itself has beneath a path goes: a file takes its place.
    fn forget(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.entries.retain(|(p, _)| !p.starts_with(&below));
        self.index = self
            .entries
            .iter()
            .enumerate()
            .map(|(i, (p, _))| (p.clone(), i))
            .collect();
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The layer's tar.
    pub fn into_tar(self) -> LayerTar {
        LayerTar {
            entries: self.entries.into_iter(),
            piece: io::Cursor::new(Vec::new()),
            content: None,
            ended: false,
        }
    }
}

/// A layer's tar, made while it is read.
pub struct LayerTar {
    entries: std::vec::IntoIter<(Vec<u8>, Node)>,
    piece: io::Cursor<Vec<u8>>,
    content: Option<(Box<dyn Read + Send>, u64)>,
    ended: bool,
}

impl LayerTar {
    fn next(&mut self) -> io::Result<()> {
        let mut out = std::mem::take(self.piece.get_mut());
        out.clear();
        match self.entries.next() {
            Some((path, node)) => {
                let kind = match node.kind {
                    NodeKind::File => Kind::File,
                    NodeKind::Dir => Kind::Dir,
                    NodeKind::Symlink => Kind::Symlink,
                    NodeKind::Char(a, b) => Kind::Char(a, b),
                    NodeKind::Block(a, b) => Kind::Block(a, b),
                    NodeKind::Fifo => Kind::Fifo,
                };
                let head = Head {
                    name: &path,
                    kind,
                    mode: node.mode,
                    uid: node.uid,
                    gid: node.gid,
                    size: node.size,
                    mtime: node.mtime,
                    link: &node.link,
                    xattrs: &node.xattrs,
                };
                tar::head(&mut out, &head)?;
                if node.size > 0 {
                    self.content = Some((node.open()?, node.size));
                }
            }
            None => {
                tar::end(&mut out)?;
                self.ended = true;
            }
        }
        self.piece = io::Cursor::new(out);
        Ok(())
    }
}

impl Read for LayerTar {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.piece.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            if let Some((content, size)) = &mut self.content {
                let n = content.read(out)?;
                if n > 0 {
                    return Ok(n);
                }
                let mut padding = Vec::new();
                tar::pad(&mut padding, *size)?;
                self.content = None;
                self.piece = io::Cursor::new(padding);
                continue;
            }
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::super::tree::Disk;
    use super::*;

    /// Names, modes and contents of a layer.
    fn read(layer: Compose<'_>) -> BTreeMap<String, (u32, String)> {
        let mut bytes = Vec::new();
        layer.into_tar().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut all = BTreeMap::new();
        for e in ::tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut e = e.unwrap();
            let mut text = String::new();
            e.read_to_string(&mut text).unwrap();
            all.insert(
                e.path().unwrap().display().to_string(),
                (e.header().mode().unwrap(), text),
            );
        }
        all
    }

    #[test]
    fn links_of_the_image_are_followed_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("usr/lib")).unwrap();
        std::fs::set_permissions(at("usr/lib"), std::fs::Permissions::from_mode(0o711)).unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        symlink("/../../../../../../etc", at("out")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let below = Disk(Arc::new(root.into()));
        let mut c = Compose::new(Some(&below));
        let new = Node::dir(0o755, (7, 0));
        let dest = c.real(b"/lib/x").unwrap();
        c.put(&dest, Node::file(b"one", 0o600, (1, 0)), &new).unwrap();
        // A directory that is copied onto the link.
        let lib = c.put(b"lib", Node::dir(0o700, (1, 0)), &new).unwrap();
        assert_eq!(lib, b"usr/lib");
        let out = c.real(b"out/shadow").unwrap();
        c.put(&out, Node::file(b"two", 0o644, (1, 0)), &new).unwrap();
        assert!(c.is_dir(b"usr/lib").unwrap() && !c.is_dir(b"none").unwrap());
        assert!(c.put(b"x/.wh.y", Node::file(b"", 0, (0, 0)), &new).is_err());
        let all = read(c);
        let want = [
            ("etc/", (0o755, "")),
            ("etc/shadow", (0o644, "two")),
            ("usr/", (0o755, "")),
            ("usr/lib/", (0o711, "")),
            ("usr/lib/x", (0o600, "one")),
        ];
        let want: BTreeMap<String, (u32, String)> = want.map(|(k, (m, t))| (k.into(), (m, t.into()))).into();
        assert_eq!(all, want);
    }

    #[test]
    fn what_comes_later_replaces() {
        let mut c = Compose::new(None);
        let new = Node::dir(0o755, (0, 0));
        c.put(b"a/b/c", Node::file(&[b'x'; 1000], 0o644, (0, 0)), &new).unwrap();
        c.put(b"a/b", Node::file(b"file", 0o644, (0, 0)), &new).unwrap();
        assert!(matches!(
            c.put(b"a/b/d", Node::file(b"", 0, (0, 0)), &new),
            Err(Error::NotADirectory(_))
        ));
        let all = read(c);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a/", "a/b"]);
        assert_eq!(all["a/b"].1, "file");
        assert!(Compose::new(None).is_empty());
        assert_eq!(read(Compose::new(None)).len(), 0);
    }
}
