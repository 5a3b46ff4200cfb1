//! Directory blocks: entries first, then the names, both in the order of the names' bytes.

use super::format::{BLOCK_LEN, DIRENT};

/// One entry before its inode has a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'t> {
    pub name: &'t [u8],
    pub node: u32,
}

/// How many entries go into each block, and the bytes used in the last one. Depends on the names only.
pub(super) fn split<'t>(names: impl Iterator<Item = &'t [u8]>) -> (Vec<u32>, usize) {
    let (mut blocks, mut count, mut used) = (Vec::new(), 0, 0);
    for name in names {
        let need = DIRENT + name.len();
        if used + need > BLOCK_LEN {
            blocks.push(count);
            (count, used) = (0, 0);
        }
        count += 1;
        used += need;
    }
    blocks.push(count);
    (blocks, used)
}

/// Appends one block's entries and names, not padded. `entry` tells an entry's inode number and type.
pub(super) fn encode(names: &[Name<'_>], entry: impl Fn(u32) -> (u64, u8), out: &mut Vec<u8>) {
    let mut name_at = names.len() * DIRENT;
    for n in names {
        let (nid, kind) = entry(n.node);
        out.extend_from_slice(&nid.to_le_bytes());
        out.extend_from_slice(&(name_at as u16).to_le_bytes());
        out.extend_from_slice(&[kind, 0]);
        name_at += n.name.len();
    }
    for n in names {
        out.extend_from_slice(n.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_filled_and_not_overfilled() {
        let names: Vec<String> = (0..1000).map(|i| format!("{i:0100}")).collect();
        let (blocks, used) = split(names.iter().map(|n| n.as_bytes()));
        assert_eq!(blocks.iter().sum::<u32>(), 1000);
        assert!(blocks.iter().all(|&n| n as usize * 112 <= BLOCK_LEN));
        assert_eq!(used, *blocks.last().unwrap() as usize * 112);
        let exact = "x".repeat(BLOCK_LEN - DIRENT);
        assert_eq!(split([exact.as_bytes()].into_iter()), (vec![1], BLOCK_LEN));
    }
}
