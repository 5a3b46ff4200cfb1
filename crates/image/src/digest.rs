//! SHA-256 digests in the OCI spelling.

use sha2::{Digest, Sha256};

/// Whether it is `sha256:` and 64 lower-case hexadecimal digits. Only such text becomes part of a path.
pub(crate) fn is_digest(s: &str) -> bool {
    s.strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// The digits of a checked digest.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Digest of a whole document.
pub(crate) fn of(bytes: &[u8]) -> String {
    finish(Sha256::new_with_prefix(bytes))
}

/// The digest a hasher has come to.
pub(crate) fn finish(hasher: Sha256) -> String {
    spell(&hasher.finalize().into())
}

/// `sha256:` and the digits of these bytes.
pub(crate) fn spell(bytes: &[u8; 32]) -> String {
    let mut s = String::with_capacity(71);
    s.push_str("sha256:");
    for b in bytes {
        for digit in [b >> 4, b & 15] {
            s.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling() {
        let d = of(b"");
        assert_eq!(
            d,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(is_digest(&d));
        assert!(!is_digest(&d.to_uppercase()));
        assert!(!is_digest(
            "sha256:../../../../../../../../../../../../../../../../../../etc/passwd"
        ));
    }
}
