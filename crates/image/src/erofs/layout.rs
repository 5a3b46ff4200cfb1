//! Gives every inode its place, before anything of the metadata is written.

use std::collections::VecDeque;

use super::Error;
use super::dirs;
use super::format::{BLOCK, BLOCK_LEN, INODE_LEN, SLOT, XATTR_HEADER};
use super::tree::{Body, NodeId, ROOT, Tree};
use super::writer::StoredFile;

/// Where one node goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub node: u32,
    /// Of a directory: the node of `..`.
    pub parent: u32,
    /// Bytes from the start of the metadata.
    pub at: u64,
    /// Bytes of content.
    pub size: u64,
    /// Bytes of content behind the inode.
    pub inline: usize,
    /// First of its blocks, counted from the end of the inodes (directories, symbolic links).
    pub block: u64,
}

/// The whole plan.
#[derive(Debug)]
pub(super) struct Plan {
    /// Reachable nodes in the order of their inodes.
    pub places: Vec<Place>,
    /// By node: its number in the file system; 0 for what is not reachable.
    pub nids: Vec<u64>,
    /// By node: names that lead to it.
    pub links: Vec<u32>,
    /// Bytes of all inodes, in whole blocks.
    pub inode_bytes: u64,
    /// Blocks of directories and link targets behind them.
    pub blocks: u64,
}

/// Plans breadth first, names in order: what lies together in a directory lies together on disk.
pub(super) fn plan(tree: &Tree, stored: &[StoredFile]) -> Result<Plan, Error> {
    let count = tree.nodes.len();
    let mut plan = Plan {
        places: Vec::with_capacity(count),
        nids: vec![0; count],
        links: vec![0; count],
        inode_bytes: 0,
        blocks: 0,
    };
    // Number 0 is no inode number that programs accept, so the first inode goes behind the first slots.
    let mut end = INODE_LEN as u64;
    let mut queue = VecDeque::from([(ROOT, ROOT)]);
    plan.links[0] = 1;
    while let Some((id, parent)) = queue.pop_front() {
        let node = &tree.nodes[id.0 as usize];
        let mut place = Place {
            node: id.0,
            parent: parent.0,
            at: 0,
            size: 0,
            inline: 0,
            block: 0,
        };
        let mut tail = 0;
        match &node.body {
            Body::Dir(dir) => {
                let mut subdirs = 0;
                for &child in dir.children.values() {
                    let is_dir = matches!(tree.nodes[child.0 as usize].body, Body::Dir(_));
                    subdirs += u32::from(is_dir);
                    plan.links[child.0 as usize] += 1;
                    if plan.links[child.0 as usize] == 1 {
                        queue.push_back((child, id));
                    }
                }
                plan.links[id.0 as usize] = 2 + subdirs;
                let (blocks, used) = dirs::split(names(tree, id, parent)?.iter().map(|n| n.name));
                place.size = (blocks.len() as u64 - 1) * BLOCK + used as u64;
                tail = used;
            }
            Body::Symlink(target) => {
                place.size = target.len() as u64;
                tail = target.len();
            }
            Body::File(content) => {
                let file = stored
                    .get(*content as usize)
                    .ok_or(Error::NotADirectory(String::new()))?;
                place.size = file.size;
                place.inline = file.tail.len();
            }
            Body::Special(_) => {}
        }
        let header = INODE_LEN + xattr_len(&node.xattrs);
        if tail > 0 && header + tail <= BLOCK_LEN {
            place.inline = tail;
        }
        place.at = fit(end, header + place.inline);
        end = place.at + (header + place.inline) as u64;
        if matches!(node.body, Body::Dir(_) | Body::Symlink(_)) {
            place.block = plan.blocks;
            plan.blocks += (place.size - place.inline as u64).div_ceil(BLOCK);
        }
        plan.nids[id.0 as usize] = place.at / SLOT;
        plan.places.push(place);
    }
    plan.inode_bytes = end.next_multiple_of(BLOCK);
    Ok(plan)
}

/// The first place from `end` on where this much does not cross a block's end; what is larger than a block has only its
/// inode proper in one block.
fn fit(end: u64, len: usize) -> u64 {
    let at = end.next_multiple_of(SLOT);
    let must_not_cross = if len <= BLOCK_LEN { len } else { INODE_LEN };
    if at % BLOCK + must_not_cross as u64 > BLOCK {
        at.next_multiple_of(BLOCK)
    } else {
        at
    }
}

/// Bytes of extended attributes on disk.
pub(super) fn xattr_len(encoded: &[u8]) -> usize {
    if encoded.is_empty() {
        0
    } else {
        XATTR_HEADER + encoded.len()
    }
}

/// A directory's entries in order, with `.` and `..`.
pub(super) fn names(tree: &Tree, id: NodeId, parent: NodeId) -> Result<Vec<dirs::Name<'_>>, Error> {
    let children = &tree.dir(id)?.children;
    let mut all = Vec::with_capacity(children.len() + 2);
    let mut dots = [(&b"."[..], id), (b"..", parent)].into_iter().peekable();
    for (name, child) in children {
        while let Some(&(dot, node)) = dots.peek()
            && dot < &name[..]
        {
            all.push(dirs::Name {
                name: dot,
                node: node.0,
            });
            dots.next();
        }
        all.push(dirs::Name { name, node: child.0 });
    }
    all.extend(dots.map(|(name, node)| dirs::Name { name, node: node.0 }));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_small_crosses_a_block() {
        assert_eq!(fit(64, 64), 64);
        assert_eq!(fit(4000, 64), 4000);
        assert_eq!(fit(4064, 64), 4096);
        assert_eq!(fit(100, 4096), 4096);
        assert_eq!(fit(64, 9000), 64);
        assert_eq!(fit(4064, 9000), 4096);
    }
}
