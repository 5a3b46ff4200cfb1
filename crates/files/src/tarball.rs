//! An archive as a tree: its bytes lie in one file, decompressed, and its entries are known by their paths. Nothing is unpacked, so
//! no link in it leads anywhere but within it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Write};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::tree::{Content, Node, NodeKind, Tree};
use super::unpack::{MAX_BYTES, MAX_ENTRIES, RATIO, components};
use super::{Error, MAX_NAMES, pack};
use crate::compression::decompress;
use crate::tarstream::{self, Entry, EntryKind, Input, Reader};

/// An archive.
#[derive(Debug, Clone)]
pub struct Tarball {
    nodes: BTreeMap<Vec<u8>, Node>,
}

impl Tarball {
    /// Reads an archive (plain, gzip, bzip2, xz or zstd) to its end. Its contents go into a nameless file in `dir`.
    pub fn read(source: impl BufRead, dir: &Path) -> Result<Tarball, Error> {
        let failed = |e| Error::at("write a file in", dir.as_os_str().as_encoded_bytes(), e);
        let file = Arc::new(tempfile::tempfile_in(dir).map_err(failed)?);
        let plain = decompress(source, RATIO).map_err(Error::Stream)?;
        let mut reader = Reader::new(Input::new(plain, MAX_BYTES));
        let mut out = BufWriter::with_capacity(256 << 10, &*file);
        let mut made = Tarball { nodes: BTreeMap::new() };
        let mut at = 0;
        let (mut count, mut budget) = (0, MAX_NAMES);
        while let Some(entry) = reader.next_entry()? {
            count += 1;
            let cost = entry.path.len() + entry.link.len() + 64;
            let left = budget.checked_sub(cost).filter(|_| count <= MAX_ENTRIES);
            budget = left.ok_or_else(|| Error::TooMuch("the archive has more entries than can be kept".into()))?;
            let start = at;
            if entry.kind == EntryKind::File {
                at += content(&mut reader, &entry, &mut out).map_err(|e| match e {
                    ContentError::Tar(e) => Error::Tar(e),
                    ContentError::Io(e) => failed(e),
                })?;
            }
            made.add(&entry, &file, start)?;
        }
        out.flush().map_err(failed)?;
        drop(out);
        Ok(made)
    }

    fn add(&mut self, entry: &Entry, file: &Arc<File>, at: u64) -> Result<(), Error> {
        let path = components(&entry.path)?;
        let a = &entry.attributes;
        let mut node = Node {
            mode: u32::from(a.mode) & 0o7777,
            uid: a.uid,
            gid: a.gid,
            mtime: (a.mtime, a.mtime_nsec),
            xattrs: a
                .xattrs
                .iter()
                .filter(|(k, _)| pack::is_kept(k))
                .map(|(k, v)| (k.to_vec(), v.to_vec()))
                .collect(),
            ..Node::dir(0, (0, 0))
        };
        node.kind = match entry.kind {
            EntryKind::Remark => return Ok(()),
            EntryKind::Dir => NodeKind::Dir,
            EntryKind::File => {
                node.size = entry.size;
                node.content = Content::Stretch(file.clone(), at);
                NodeKind::File
            }
            EntryKind::Symlink => {
                node.link.clone_from(&entry.link);
                NodeKind::Symlink
            }
            EntryKind::Link => {
                let target = components(&entry.link)?;
                let other = self.nodes.get(&target).filter(|n| !n.is_dir()).cloned();
                node =
                    other.ok_or_else(|| Error::NotFound(format!("{} (a hard link's target)", crate::show(&target))))?;
                node.kind
            }
            EntryKind::Char(a, b) => NodeKind::Char(a, b),
            EntryKind::Block(a, b) => NodeKind::Block(a, b),
            EntryKind::Fifo => NodeKind::Fifo,
        };
        if path.is_empty() {
            return Ok(());
        }
        // Directories that are only implied.
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        for end in ends.collect::<Vec<_>>() {
            let above = &path[..end];
            if !self.nodes.get(above).is_some_and(Node::is_dir) {
                self.remove(above);
                self.nodes.insert(above.to_vec(), Node::dir(0o755, node.mtime));
            }
        }
        if !node.is_dir() {
            self.remove(&path);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Takes away a path with all beneath it: a later entry comes in its place.
    pub fn remove(&mut self, path: &[u8]) {
        if self.nodes.remove(path).is_none_or(|n| !n.is_dir()) {
            return;
        }
        let below = [path, b"/"].concat();
        let gone: Vec<Vec<u8>> = self.beneath(&below).map(|(k, _)| k.clone()).collect();
        for k in gone {
            self.nodes.remove(&k);
        }
    }

    /// A directory in it, as if it were all there is. Links out of it lead nowhere.
    pub fn below(&self, dir: &[u8]) -> Tarball {
        let prefix = [dir, b"/"].concat();
        let inside = self.beneath(&prefix);
        Tarball {
            nodes: inside.map(|(k, v)| (k[prefix.len()..].to_vec(), v.clone())).collect(),
        }
    }

    /// Leaves only the entries of which this is true, and the directories above them.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) {
        let mut above: std::collections::BTreeSet<Vec<u8>> = Default::default();
        let mut kept = BTreeMap::new();
        // What is in a directory comes after it, and so before it from the end.
        while let Some((path, node)) = self.nodes.pop_last() {
            if !above.contains(&path) && !wanted(&path) {
                continue;
            }
            let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
            above.extend(ends.map(|i| path[..i].to_vec()));
            kept.insert(path, node);
        }
        self.nodes = kept;
    }

    /// All entries whose paths begin with this, in order.
    pub fn beneath(&self, prefix: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Node)> {
        let from = Bound::Included(prefix.to_vec());
        let owned = prefix.to_vec();
        self.nodes
            .range((from, Bound::Unbounded))
            .take_while(move |(k, _)| k.starts_with(&owned))
    }

    /// Whether a file is an archive that [`Tarball::read`] takes: by the first block behind its compression.
    pub fn is_archive(node: &Node) -> std::io::Result<bool> {
        let source = std::io::BufReader::with_capacity(64 << 10, node.open()?);
        let Ok(plain) = decompress(source, RATIO) else {
            return Ok(false);
        };
        let mut block = Vec::with_capacity(512);
        // What is compressed and broken is a file as any other.
        let read = plain.take(512).read_to_end(&mut block);
        if read.is_err() || block.len() < 512 {
            return Ok(false);
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) })
            .sum();
        let field = String::from_utf8_lossy(&block[148..156]);
        let field = field.trim_matches(|c: char| c == '\0' || c == ' ');
        Ok(u64::from_str_radix(field, 8) == Ok(sum) && block.iter().any(|b| *b != 0))
    }

    /// A tree of one file.
    pub fn of_file(name: &[u8], node: Node) -> Tarball {
        Tarball {
            nodes: [(name.to_vec(), node)].into(),
        }
    }
}

impl Tree for Tarball {
    fn look(&self, path: &[u8]) -> Result<Option<Node>, Error> {
        Ok(match path {
            b"" => Some(Node::dir(0o755, (0, 0))),
            path => self.nodes.get(path).cloned(),
        })
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let prefix = match dir {
            b"" => Vec::new(),
            dir => [dir, b"/"].concat(),
        };
        let own = self.beneath(&prefix).filter_map(|(k, _)| {
            let rest = &k[prefix.len()..];
            (!rest.contains(&b'/')).then(|| rest.to_vec())
        });
        Ok(own.collect())
    }
}

enum ContentError {
    Tar(tarstream::Error),
    Io(std::io::Error),
}

/// Writes a file's bytes, holes too; gives how many.
fn content(reader: &mut Reader<impl Read>, entry: &Entry, out: &mut impl Write) -> Result<u64, ContentError> {
    let whole = [(0, entry.size)];
    let mut at = 0;
    for &(offset, len) in entry.segments.as_deref().unwrap_or(&whole) {
        zeros(out, offset - at).map_err(ContentError::Io)?;
        let mut left = len;
        while left > 0 {
            let piece = reader.data(left).map_err(ContentError::Tar)?;
            if piece.is_empty() {
                return Err(ContentError::Tar(tarstream::Error::Truncated));
            }
            left -= piece.len() as u64;
            out.write_all(piece).map_err(ContentError::Io)?;
        }
        at = offset + len;
    }
    zeros(out, entry.size - at).map_err(ContentError::Io)?;
    Ok(entry.size)
}

fn zeros(out: &mut impl Write, len: u64) -> std::io::Result<()> {
    let mut left = len;
    let block = [0u8; 4096];
    while left > 0 {
        let n = left.min(block.len() as u64);
        out.write_all(&block[..n as usize])?;
        left -= n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ::tar::EntryType::{self, Directory, Link, Regular, Symlink};

    use super::super::tree::real_path;
    use super::*;

    fn tarball(entries: &[(&str, EntryType, &str)]) -> Result<Tarball, Error> {
        let mut b = ::tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut h = ::tar::Header::new_gnu();
            h.set_entry_type(*kind);
            h.set_mode(0o640);
            h.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            let data = match kind {
                Regular => text.as_bytes(),
                Directory => b"",
                _ => {
                    h.set_link_name_literal(text).unwrap();
                    b""
                }
            };
            h.set_size(data.len() as u64);
            h.set_cksum();
            b.append(&h, data).unwrap();
        }
        let bytes = b.into_inner().unwrap();
        Tarball::read(&bytes[..], &std::env::temp_dir())
    }

    #[test]
    fn a_tree_of_an_archive() {
        let t = tarball(&[
            ("./a/b.txt", Regular, "hello"),
            ("./a", Directory, ""),
            ("hard", Link, "a/b.txt"),
            ("a.txt", Regular, "x"),
            ("gone", Directory, ""),
            ("gone/x", Regular, "1"),
            ("gone", Regular, "2"),
        ])
        .unwrap();
        let names: Vec<Vec<u8>> = t.list(b"").unwrap();
        assert_eq!(names, [&b"a"[..], b"a.txt", b"gone", b"hard"]);
        assert_eq!(t.list(b"a").unwrap(), [b"b.txt"]);
        for (path, want) in [("hard", "hello"), ("a/b.txt", "hello"), ("gone", "2")] {
            let mut text = String::new();
            t.look(path.as_bytes())
                .unwrap()
                .unwrap()
                .open()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, want, "{path}");
        }
        assert_eq!(t.look(b"a").unwrap().unwrap().mode, 0o640);
        assert!(t.look(b"gone/x").unwrap().is_none());
    }

    #[test]
    fn links_stay_in_the_archive() {
        let t = tarball(&[
            ("etc/passwd", Regular, "inside"),
            ("abs", Symlink, "/etc"),
            ("up", Symlink, "../../../etc/passwd"),
            ("loop", Symlink, "loop"),
            ("file", Regular, ""),
        ])
        .unwrap();
        let real = |p: &str| real_path(&t, p.as_bytes(), true).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(real("abs/passwd").unwrap(), "etc/passwd");
        assert_eq!(real("up").unwrap(), "etc/passwd");
        assert_eq!(real("/../..//abs/./new").unwrap(), "etc/new");
        assert_eq!(real_path(&t, b"up", false).unwrap(), b"up");
        assert!(matches!(real("loop"), Err(Error::TooMuch(_))));
        assert!(matches!(real("file/x"), Err(Error::NotADirectory(_))));
    }

    #[test]
    fn hostile_names_are_refused() {
        for (name, kind, text) in [
            ("../x", Regular, ""),
            ("a/../../x", Regular, ""),
            ("l", Link, "../x"),
            ("l", Link, "nowhere"),
        ] {
            assert!(tarball(&[(name, kind, text)]).is_err(), "{name}");
        }
        assert!(Tarball::read(&[7u8; 2000][..], &std::env::temp_dir()).is_err());
    }
}
