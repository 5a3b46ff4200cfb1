//! Access control lists as GNU tar and star write them, as text, turned into what the kernel keeps.
//!
//! `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`; star puts names where GNU tar has numbers, and the number
//! behind the permissions. A list that names somebody without a number is left out: who that is, only the image knows.

/// The tags of `include/uapi/linux/posix_acl.h`.
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;
/// Entries that one list may have: more do not fit into an attribute.
const MAX_ENTRIES: usize = 4096;

/// The value of the extended attribute; `None` where the text is no list, or says no more than the mode does.
pub(super) fn encode(text: &[u8], is_default: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries = Vec::new();
    let lines = text.split([',', '\n']).map(|l| l.split('#').next().unwrap_or(l).trim());
    for line in lines.filter(|l| !l.is_empty()) {
        entries.push(entry(line)?);
        if entries.len() > MAX_ENTRIES {
            return None;
        }
    }
    entries.sort_unstable_by_key(|&(tag, id, _)| (tag, id));
    let count = |tag: u16| entries.iter().filter(|e| e.0 == tag).count();
    let named = count(USER) + count(GROUP) > 0;
    let once = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&t| count(t) == 1) && count(MASK) <= 1;
    let unique = entries.windows(2).all(|w| (w[0].0, w[0].1) != (w[1].0, w[1].1));
    if !once || !unique || (named && count(MASK) == 0) || (!is_default && entries.len() == 3) {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, id, perm) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(out)
}

/// Tag, id and permissions of one line.
fn entry(line: &str) -> Option<(u16, u32, u16)> {
    let parts: Vec<&str> = line.split(':').collect();
    let (&[kind, who, perm], number) = (parts.first_chunk::<3>()?, parts.get(3));
    let id = match (who, number) {
        ("", None) => NO_ID,
        ("", Some(_)) => return None,
        (_, Some(number)) => number.parse().ok().filter(|n| *n != NO_ID)?,
        (number, None) => number.parse().ok().filter(|n| *n != NO_ID)?,
    };
    let tag = match (kind, id == NO_ID) {
        ("user" | "u", true) => USER_OBJ,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => GROUP_OBJ,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", true) => MASK,
        ("other" | "o", true) => OTHER,
        _ => return None,
    };
    Some((tag, id, permissions(perm)?))
}

/// `rwx` with dashes for what is not given.
fn permissions(text: &str) -> Option<u16> {
    let bytes: &[u8; 3] = text.as_bytes().try_into().ok()?;
    bytes
        .iter()
        .zip([(b'r', 4), (b'w', 2), (b'x', 1)])
        .try_fold(0, |all, (&b, (letter, bit))| match b {
            b'-' => Some(all),
            b if b == letter => Some(all | bit),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let full = encode(
            b"other::---,user::rw-,user:5:r-x,group::r--,user:3:-w-,mask::rwx",
            false,
        )
        .unwrap();
        assert_eq!(full.len(), 4 + 6 * 8);
        let tags: Vec<u16> = full[4..].chunks(8).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        assert_eq!(tags, [USER_OBJ, USER, USER, GROUP_OBJ, MASK, OTHER]);
        assert_eq!(full[12..20], [2, 0, 2, 0, 3, 0, 0, 0]);
        assert_eq!(
            encode(b"u::rwx\ng::r-x # remark\no::r-x\n", true).unwrap().len(),
            4 + 3 * 8
        );
        // No more than the mode says.
        assert_eq!(encode(b"user::rwx,group::r-x,other::r-x", false), None);
        for bad in [
            &b"user::rwx"[..],
            b"user::rwx,user::rwx,group::r-x,other::r-x,mask::rwx",
            b"user::rwx,user:1:r--,group::r-x,other::r-x",
            b"user::rwx,user:1:r--,user:1:r--,group::r-x,other::r-x,mask::rwx",
            b"user::rwx,user:4294967295:r--,group::r-x,other::r-x,mask::rwx",
            b"user::rwx:1,group::r-x,other::r-x,mask::rwx",
            b"user::xwr,group::r-x,other::r-x",
            b"other:1:r--",
            b"\xff",
        ] {
            assert_eq!(encode(bad, true), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
