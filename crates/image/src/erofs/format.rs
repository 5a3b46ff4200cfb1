//! The structures on disk, little-endian throughout.

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
/// [`BLOCK`] where lengths in memory are meant.
pub(super) const BLOCK_LEN: usize = 4096;
/// Inode numbers count in units of this many bytes from the start of the metadata.
pub(super) const SLOT: u64 = 32;
/// Bytes of an inode.
pub(super) const INODE_LEN: usize = 64;
/// Bytes before the extended attributes of an inode that has any.
pub(super) const XATTR_HEADER: usize = 12;
/// Bytes of a directory entry without its name.
pub(super) const DIRENT: usize = 12;
/// Where the superblock lies in block 0.
pub(super) const SUPER_OFFSET: usize = 1024;

const MAGIC: u32 = 0xE0F5_E1E2;
/// Compatible features: a checksum; times are of modification.
const FEATURE_COMPAT: u32 = 0x1 | 0x2;

/// How the content of an inode is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// All in blocks.
    Plain = 0,
    /// Full blocks, and the rest behind the inode.
    Inline = 2,
}

/// One inode.
pub(super) struct Inode {
    pub layout: Layout,
    /// Type and permissions as in `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub mtime_nsec: u32,
    pub nlink: u32,
    pub size: u64,
    /// First block, or the device number.
    pub block_or_rdev: u32,
    /// A serial number, for file systems mounted where inode numbers have 32 bits.
    pub serial: u32,
    /// Bytes of the extended attributes with their header; a multiple of 4.
    pub xattr_len: usize,
}

impl Inode {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let format: u16 = 1 | (self.layout as u16) << 1;
        let xattr_count = match self.xattr_len {
            0 => 0,
            n => ((n - XATTR_HEADER) / 4 + 1) as u16,
        };
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&xattr_count.to_le_bytes());
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.block_or_rdev.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.uid.to_le_bytes());
        out.extend_from_slice(&self.gid.to_le_bytes());
        out.extend_from_slice(&self.mtime.to_le_bytes());
        out.extend_from_slice(&self.mtime_nsec.to_le_bytes());
        out.extend_from_slice(&self.nlink.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
    }
}

/// What the superblock says.
pub(super) struct Super {
    pub root_nid: u16,
    pub inodes: u64,
    pub blocks: u32,
    pub meta_block: u32,
    pub uuid: [u8; 16],
}

impl Super {
    /// The whole of block 0.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; BLOCK_LEN];
        let s = &mut b[SUPER_OFFSET..];
        s[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        s[8..12].copy_from_slice(&FEATURE_COMPAT.to_le_bytes());
        s[12] = BLOCK.trailing_zeros() as u8;
        s[14..16].copy_from_slice(&self.root_nid.to_le_bytes());
        s[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        s[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        s[40..44].copy_from_slice(&self.meta_block.to_le_bytes());
        s[48..64].copy_from_slice(&self.uuid);
        let sum = crc32c(s);
        s[4..8].copy_from_slice(&sum.to_le_bytes());
        b
    }
}

/// CRC-32C as the kernel keeps it here: started at all ones and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| {
            if c & 1 == 1 { c >> 1 ^ 0x82F6_3B78 } else { c >> 1 }
        })
    })
}

/// The namespaces of extended attributes that EROFS knows, and their numbers. The two of ACLs are whole names.
const PREFIXES: [(&[u8], u8, bool); 5] = [
    (b"user.", 1, false),
    (b"system.posix_acl_access", 2, true),
    (b"system.posix_acl_default", 3, true),
    (b"trusted.", 4, false),
    (b"security.", 6, false),
];

/// Appends one attribute. `Ok(false)` where the file system has no such namespace; `Err` where it does not fit.
pub(super) fn encode_xattr(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<bool, ()> {
    let Some((rest, index)) = PREFIXES.iter().find_map(|&(prefix, index, whole)| {
        let rest = name.strip_prefix(prefix)?;
        (rest.is_empty() == whole).then_some((rest, index))
    }) else {
        return Ok(false);
    };
    let name_len = u8::try_from(rest.len()).map_err(drop)?;
    let value_len = u16::try_from(value.len()).map_err(drop)?;
    out.push(name_len);
    out.push(index);
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    Ok(true)
}

/// Device numbers as the kernel's `new_encode_dev` packs them.
pub(super) fn encode_rdev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum() {
        // The usual CRC-32C of "123456789" is E3069283, inverted at the end.
        assert_eq!(crc32c(b"123456789"), !0xE306_9283);
    }

    #[test]
    fn attributes() {
        let mut out = Vec::new();
        assert_eq!(encode_xattr(b"user.a", b"xyz", &mut out), Ok(true));
        assert_eq!(out, [1, 1, 3, 0, b'a', b'x', b'y', b'z']);
        for unknown in [&b"user."[..], b"system.posix_acl_access2", b"system.nfs4_acl", b"x"] {
            assert_eq!(encode_xattr(unknown, b"", &mut out), Ok(false), "{unknown:?}");
        }
        assert_eq!(encode_xattr(b"user.big", &[0; 70000], &mut out), Err(()));
        out.clear();
        assert_eq!(encode_xattr(b"system.posix_acl_default", b"12", &mut out), Ok(true));
        assert_eq!(out, [0, 3, 2, 0, b'1', b'2', 0, 0]);
    }

    #[test]
    fn devices() {
        assert_eq!(encode_rdev(1, 3), 0x103);
        assert_eq!(encode_rdev(259, 0x12345), (0x45) | (259 << 8) | (0x12300 << 12));
    }
}
