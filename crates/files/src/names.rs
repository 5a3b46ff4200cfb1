//! Paths of trees, and what a file is beside its content.

/// What every inode has.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// The twelve permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970, may be negative.
    pub mtime: i64,
    /// And nanoseconds, less than 10⁹.
    pub mtime_nsec: u32,
    /// Extended attributes by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What comes before the last component, and that.
pub fn split_last(mut path: &[u8]) -> (&[u8], Option<&[u8]>) {
    loop {
        let (dir, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if !name.is_empty() && name != b"." {
            return (dir, Some(name));
        }
        if dir.is_empty() {
            return (dir, None);
        }
        path = dir;
    }
}

/// A path in a message.
pub fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
