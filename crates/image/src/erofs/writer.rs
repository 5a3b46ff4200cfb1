//! The writer: contents while they come, then everything else.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Attributes;
use super::Error;
use super::dirs;
use super::format::{BLOCK, BLOCK_LEN, INODE_LEN, Inode, Layout, SLOT, Super, XATTR_HEADER};
use super::layout::{self, Place, Plan};
use super::out::Out;
use super::tree::{Body, Bounds, NodeId, ROOT, Tree, encoded_xattr_len};
use crate::layer::Limits;

/// Files below this size are gathered, and what does not fill a block goes behind their inode.
const SMALL: u64 = 16 << 10;
/// At most so many bytes wait in memory to go behind their inodes; later files use blocks alone.
const TAILS: usize = 96 << 20;
/// Block numbers have 32 bits.
const MAX_IMAGE: u64 = (u32::MAX as u64 - 1) * BLOCK;

/// Where a file's content lies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredFile {
    /// Byte in the image of its first block.
    pub start: u64,
    /// Bytes of content.
    pub size: u64,
    /// The last bytes, if they lie behind the inode.
    pub tail: Box<[u8]>,
    /// Byte in the image of `tail`; 0 when it was not written, because the file was replaced by a later entry.
    pub tail_at: u64,
}

/// What a finished image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Bytes of the file.
    pub size: u64,
    /// Its inodes.
    pub inodes: u64,
    /// Set where the image has exactly one file, in the directory `disk`: the layout of a disk image.
    pub only_file: Option<OnlyFile>,
}

/// The one file of a disk image: a range of bytes of the image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OnlyFile {
    /// First byte in the image.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// Writes one image.
#[derive(Debug)]
pub struct Writer {
    /// Names and inodes.
    pub tree: Tree,
    out: Out,
    stored: Vec<StoredFile>,
    tails: usize,
    max_image: u64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    start: u64,
    size: u64,
    /// Content so far, if it may end behind the inode.
    small: Option<Vec<u8>>,
}

impl Writer {
    /// Writes to an empty file.
    pub fn new(file: File, limits: &Limits) -> Writer {
        Writer {
            tree: Tree::new(Bounds {
                entries: limits.entries,
                memory: limits.memory,
            }),
            out: Out::new(file, BLOCK),
            stored: Vec::new(),
            tails: 0,
            max_image: limits.image_bytes.min(MAX_IMAGE),
            current: None,
        }
    }

    /// Starts a file of this size with these attributes. Its content follows in order: [`Writer::data`], [`Writer::hole`].
    pub fn begin_file(&mut self, size: u64, attributes: &Attributes) -> Result<(), Error> {
        if self.out.pos().saturating_add(size) > self.max_image {
            return Err(Error::TooBig(self.max_image));
        }
        let tail = (size % BLOCK) as usize;
        let behind = INODE_LEN + encoded_xattr_len(attributes) + tail;
        let small = size < SMALL && tail > 0 && behind <= BLOCK_LEN && self.tails + tail <= TAILS;
        self.current = Some(Current {
            start: self.out.pos(),
            size,
            small: small.then(|| Vec::with_capacity(size as usize)),
        });
        Ok(())
    }

    /// The file's next bytes.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.current {
            Some(Current { small: Some(small), .. }) => small.extend_from_slice(bytes),
            _ => self.out.write(bytes)?,
        }
        Ok(())
    }

    /// The file's next bytes are so many zeros.
    pub fn hole(&mut self, len: u64) -> Result<(), Error> {
        match &mut self.current {
            Some(Current { small: Some(small), .. }) => small.resize(small.len() + len as usize, 0),
            _ => self.out.skip(len)?,
        }
        Ok(())
    }

    /// Ends the file; returns the number to give to [`Tree::add_file`].
    pub fn end_file(&mut self) -> Result<u32, Error> {
        let Some(current) = self.current.take() else {
            return Err(Error::TooBig(0));
        };
        let mut file = StoredFile {
            start: current.start,
            size: current.size,
            ..StoredFile::default()
        };
        if let Some(small) = current.small {
            let full = small.len() - small.len() % BLOCK_LEN;
            self.out.write(&small[..full])?;
            self.tails += small.len() - full;
            self.tree.charge(small.len() - full)?;
            file.tail = small[full..].into();
        }
        self.out.align(BLOCK)?;
        let number = u32::try_from(self.stored.len()).map_err(|_| Error::TooManyEntries(u32::MAX as usize))?;
        self.tree.charge(std::mem::size_of::<StoredFile>())?;
        self.stored.push(file);
        Ok(number)
    }

    /// Writes the tree and the superblock. `uuid` is the file system's identity: choose it by the content, so that the same
    /// content gives the same bytes.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<(File, Vec<StoredFile>, ImageSummary), Error> {
        self.tree.settle_whiteouts()?;
        let plan = layout::plan(&self.tree, &self.stored)?;
        let meta = self.out.pos();
        let end = meta + plan.inode_bytes + plan.blocks * BLOCK;
        if end > MAX_IMAGE {
            return Err(Error::TooBig(MAX_IMAGE));
        }
        self.write_inodes(&plan, meta)?;
        self.write_blocks(&plan)?;
        let only_file = self.only_file();
        let file = self.out.finish()?;
        let superblock = Super {
            root_nid: (plan.places[0].at / SLOT) as u16,
            inodes: plan.places.len() as u64,
            blocks: (end / BLOCK) as u32,
            meta_block: (meta / BLOCK) as u32,
            uuid,
        };
        file.write_all_at(&superblock.encode(), 0)?;
        let summary = ImageSummary {
            size: end,
            inodes: plan.places.len() as u64,
            only_file,
        };
        Ok((file, self.stored, summary))
    }

    fn write_inodes(&mut self, plan: &Plan, meta: u64) -> Result<(), Error> {
        let mut buffer = Vec::new();
        for (serial, place) in plan.places.iter().enumerate() {
            self.out.skip(meta + place.at - self.out.pos())?;
            buffer.clear();
            self.inode(plan, meta, place, serial as u32 + 1).encode(&mut buffer);
            let node = &self.tree.nodes[place.node as usize];
            if !node.xattrs.is_empty() {
                buffer.extend_from_slice(&[0; XATTR_HEADER]);
                buffer.extend_from_slice(&node.xattrs);
            }
            if place.inline > 0 {
                match &node.body {
                    Body::File(content) => {
                        let file = &mut self.stored[*content as usize];
                        file.tail_at = meta + place.at + buffer.len() as u64;
                        buffer.extend_from_slice(&file.tail);
                    }
                    Body::Symlink(target) => buffer.extend_from_slice(target),
                    Body::Dir(_) => self.last_dir_block(plan, place, &mut buffer)?,
                    Body::Special(_) => {}
                }
            }
            self.out.write(&buffer)?;
        }
        self.out.skip(meta + plan.inode_bytes - self.out.pos())?;
        Ok(())
    }

    fn inode(&self, plan: &Plan, meta: u64, place: &Place, serial: u32) -> Inode {
        let node = &self.tree.nodes[place.node as usize];
        let block = match &node.body {
            Body::File(content) => self.stored[*content as usize].start / BLOCK,
            Body::Dir(_) | Body::Symlink(_) => (meta + plan.inode_bytes) / BLOCK + place.block,
            Body::Special(_) => u64::from(node.rdev()),
        };
        Inode {
            layout: if place.inline > 0 {
                Layout::Inline
            } else {
                Layout::Plain
            },
            mode: node.type_bits() | node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            mtime_nsec: node.mtime_nsec,
            nlink: plan.links[place.node as usize],
            size: place.size,
            block_or_rdev: block as u32,
            serial,
            xattr_len: layout::xattr_len(&node.xattrs),
        }
    }

    fn last_dir_block(&self, plan: &Plan, place: &Place, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let names = layout::names(&self.tree, NodeId(place.node), NodeId(place.parent))?;
        let (blocks, _) = dirs::split(names.iter().map(|n| n.name));
        let last = blocks.last().copied().unwrap_or(0) as usize;
        dirs::encode(
            &names[names.len() - last..],
            |node| entry(&self.tree, plan, node),
            buffer,
        );
        Ok(())
    }

    fn write_blocks(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut buffer = Vec::with_capacity(BLOCK_LEN);
        for place in &plan.places {
            if place.size == place.inline as u64 {
                continue;
            }
            match &self.tree.nodes[place.node as usize].body {
                Body::Symlink(target) => self.out.write(target)?,
                Body::Dir(_) => {
                    let names = layout::names(&self.tree, NodeId(place.node), NodeId(place.parent))?;
                    let (blocks, _) = dirs::split(names.iter().map(|n| n.name));
                    let mut rest = &names[..];
                    for (i, &count) in blocks.iter().enumerate() {
                        if place.inline > 0 && i + 1 == blocks.len() {
                            break;
                        }
                        let (now, later) = rest.split_at(count as usize);
                        rest = later;
                        buffer.clear();
                        dirs::encode(now, |node| entry(&self.tree, plan, node), &mut buffer);
                        self.out.write(&buffer)?;
                        self.out.align(BLOCK)?;
                    }
                }
                _ => continue,
            }
            self.out.align(BLOCK)?;
        }
        Ok(())
    }

    /// `/disk/<one file>` and nothing else.
    fn only_file(&self) -> Option<OnlyFile> {
        let only = |id: NodeId| {
            let children = &self.tree.dir(id).ok()?.children;
            (children.len() == 1).then(|| children.iter().next()).flatten()
        };
        let (name, &disk) = only(ROOT)?;
        let (_, file) = (&name[..] == b"disk").then(|| only(disk)).flatten()?;
        let Body::File(content) = self.tree.nodes[file.0 as usize].body else {
            return None;
        };
        let stored = &self.stored[content as usize];
        (stored.tail.is_empty() && stored.size > 0).then_some(OnlyFile {
            start: stored.start,
            size: stored.size,
        })
    }
}

fn entry(tree: &Tree, plan: &Plan, node: u32) -> (u64, u8) {
    (plan.nids[node as usize], tree.nodes[node as usize].dirent_type())
}
