//! How much room files take on this node's disks.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories deeper than this are not looked into: no program makes them, but somebody may.
const DEEPEST: usize = 256;

/// Bytes of blocks that are in use below `path`, itself included. What cannot be read counts as nothing, a file of
/// several names counts once, and other file systems mounted inside do not count.
pub fn of(path: &Path) -> u64 {
    let Ok(top) = path.symlink_metadata() else { return 0 };
    let mut seen = HashSet::new();
    let mut total = top.blocks() * 512;
    let mut todo: Vec<(PathBuf, usize)> = vec![(path.to_path_buf(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            // Of the entry itself: links are not followed.
            let Ok(m) = entry.metadata() else { continue };
            if m.dev() != top.dev() || (m.nlink() > 1 && !m.is_dir() && !seen.insert(m.ino())) {
                continue;
            }
            total += m.blocks() * 512;
            if m.is_dir() && depth < DEEPEST {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let empty = of(dir.path());
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), vec![7u8; 100_000]).unwrap();
        let one = of(dir.path());
        assert!(one >= empty + 100_000, "{one}");
        std::fs::hard_link(dir.path().join("sub/file"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        assert!(of(dir.path()) < one + 50_000);
        std::fs::File::create(dir.path().join("sparse"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert!(of(dir.path()) < one + 100_000);
        assert_eq!(of(&dir.path().join("nonesuch")), 0);
    }
}
