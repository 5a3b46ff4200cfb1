//! Public keys, in PEM. The arithmetic is that of the TLS stack.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};

use crate::Error;

/// A public key and what it can verify.
#[derive(Clone)]
pub(crate) struct Key {
    /// `sha256:…` of its SubjectPublicKeyInfo.
    pub fingerprint: String,
    path: PathBuf,
    /// Its bytes, as its kind has them.
    key: Vec<u8>,
    algorithms: Vec<&'static dyn SignatureVerificationAlgorithm>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.path.display())
    }
}

impl Key {
    /// Reads a file with one `PUBLIC KEY`.
    pub(crate) fn read(path: &Path) -> Result<Key, Error> {
        let bad = |why: String| Error::Settings {
            path: path.to_path_buf(),
            why,
        };
        let spki = SubjectPublicKeyInfoDer::from_pem_file(path)
            .map_err(|e| bad(format!("it holds no public key in PEM: {e}")))?;
        Key::from_spki(&spki, path).map_err(|why| bad(why.into()))
    }

    pub(crate) fn from_spki(spki: &[u8], path: &Path) -> Result<Key, &'static str> {
        let (algorithm, key) = parts(spki).ok_or("its public key is damaged")?;
        let all = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let algorithms: Vec<_> = all
            .all
            .iter()
            .copied()
            .filter(|a| a.public_key_alg_id().as_ref() == algorithm)
            .collect();
        if algorithms.is_empty() {
            return Err("its public key is of a kind that is not supported: use ECDSA (P-256, P-384), Ed25519 or RSA");
        }
        Ok(Key {
            fingerprint: crate::digest::of(spki),
            path: path.to_path_buf(),
            key: key.to_vec(),
            algorithms,
        })
    }

    /// Whether this key made the signature of these bytes.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let holds =
            |a: &&'static dyn SignatureVerificationAlgorithm| a.verify_signature(&self.key, message, signature).is_ok();
        self.algorithms.iter().any(holds)
    }
}

/// Algorithm and key of `SEQUENCE { SEQUENCE algorithm, BIT STRING key }`.
fn parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inner, rest) = element(spki, 0x30)?;
    let (algorithm, key) = element(inner, 0x30)?;
    let (bits, more) = element(key, 0x03)?;
    // No unused bits in the last byte.
    let key = bits.strip_prefix(&[0])?;
    (rest.is_empty() && more.is_empty()).then_some((algorithm, key))
}

/// The content of the DER element with this tag, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[actual, first], rest) = der.split_first_chunk::<2>()?;
    if actual != tag {
        return None;
    }
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (&[high, low], rest) = rest.split_first_chunk::<2>()?;
            (usize::from(high) << 8 | usize::from(low), rest)
        }
        _ => return None,
    };
    (len <= rest.len()).then(|| rest.split_at(len))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData, SigningKey};

    use super::*;

    #[test]
    fn signatures_hold_for_their_key_and_bytes_alone() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let other = KeyPair::generate_for(algorithm).unwrap();
            let key = Key::from_spki(&pair.subject_public_key_info(), Path::new("k")).unwrap();
            let mut signature = pair.sign(b"text").unwrap();
            assert!(key.verify(b"text", &signature));
            assert!(!key.verify(b"texT", &signature));
            assert!(!key.verify(b"text", &other.sign(b"text").unwrap()));
            assert!(!key.verify(b"text", b""));
            let last = signature.len() - 1;
            signature[last] ^= 1;
            assert!(!key.verify(b"text", &signature));
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        let spki = KeyPair::generate().unwrap().subject_public_key_info();
        assert!(Key::from_spki(&spki, Path::new("k")).is_ok());
        for end in 0..spki.len() {
            assert!(Key::from_spki(&spki[..end], Path::new("k")).is_err(), "{end}");
        }
        for bytes in [
            &b""[..],
            &[0x30, 0x84, 1, 1, 1, 1],
            &[0x30, 0x82],
            &[0x30, 0x81],
            &[0x30, 0x7f, 0],
        ] {
            assert!(parts(bytes).is_none(), "{bytes:?}");
        }
    }
}
