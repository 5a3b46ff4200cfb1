//! Names in the kernel and hardware addresses, all computed from uids, so that they can be found again after a crash.
//!
//! | what | name |
//! |---|---|
//! | bridge | `<prefix>-<hash of network>` |
//! | host end of a veth pair | `<prefix>v<hash of instance><index>` |
//! | tap of a machine | `<prefix>t<hash of instance><index>` |
//!
//! An interface name has at most 15 bytes; the hash takes what the prefix leaves.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Longest interface name.
const NAME_MAX: usize = 15;
/// Digits of our base 32, without letters that look alike.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Most ends of one instance: one digit counts them.
pub const MAX_ENDPOINTS: usize = DIGITS.len();

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of an instance on a network: locally administered (`02:…`) and always the same.
    pub fn derive(instance_uid: &str, network_uid: &str) -> Mac {
        let h = hash(&[instance_uid, network_uid]).to_be_bytes();
        Mac([0x02, h[0], h[1], h[2], h[3], h[4]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(s: &str) -> Result<Mac, Error> {
        let bad = || Error::Mac(s.to_owned());
        let mut out = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut out {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && !p.starts_with('+'))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        // The lowest bit marks a group of stations; all zeros is nobody.
        if parts.next().is_some() || out[0] & 1 == 1 || out == [0; 6] {
            return Err(bad());
        }
        Ok(Mac(out))
    }
}

/// Makes names with one prefix.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Checks the prefix: 1 to 8 lower-case letters and digits, first a letter.
    pub fn new(prefix: &str) -> Result<Names, Error> {
        let ok = (1..=8).contains(&prefix.len())
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !ok {
            return Err(Error::Prefix(prefix.to_owned()));
        }
        Ok(Names {
            prefix: prefix.to_owned(),
        })
    }

    /// The nft table.
    pub fn table(&self) -> &str {
        &self.prefix
    }

    /// What every bridge's name begins with.
    pub fn bridge_prefix(&self) -> String {
        format!("{}-", self.prefix)
    }

    /// A network's bridge.
    pub fn bridge(&self, network_uid: &str) -> String {
        self.name('-', network_uid, 0)
    }

    /// The host end of an instance's n-th veth pair.
    pub fn veth(&self, instance_uid: &str, index: usize) -> String {
        self.indexed('v', instance_uid, index)
    }

    /// A machine's n-th tap.
    pub fn tap(&self, instance_uid: &str, index: usize) -> String {
        self.indexed('t', instance_uid, index)
    }

    /// What all veths and taps of an instance begin with, without the index.
    pub fn stems(&self, instance_uid: &str) -> [String; 2] {
        ['v', 't'].map(|kind| self.name(kind, instance_uid, 1))
    }

    /// Whether an interface's name has the form of our veths and taps; gives it without the index.
    pub fn stem_of<'a>(&self, interface: &'a str) -> Option<&'a str> {
        let rest = interface.strip_prefix(&self.prefix)?;
        let digits = rest.strip_prefix(['v', 't'])?;
        let ours = interface.len() == NAME_MAX && digits.bytes().all(|d| DIGITS.contains(&d));
        ours.then(|| &interface[..NAME_MAX - 1])
    }

    fn indexed(&self, kind: char, uid: &str, index: usize) -> String {
        let mut name = self.name(kind, uid, 1);
        name.push(char::from(DIGITS[index % DIGITS.len()]));
        name
    }

    fn name(&self, kind: char, uid: &str, reserve: usize) -> String {
        let mut name = format!("{}{kind}", self.prefix);
        let mut h = hash(&[uid]);
        while name.len() < NAME_MAX - reserve {
            name.push(char::from(DIGITS[(h & 31) as usize]));
            h >>= 5;
        }
        name
    }
}

/// Refuses uids that would make bad file names.
pub fn check_uid(uid: &str) -> Result<(), Error> {
    let ok = (1..=64).contains(&uid.len())
        && !uid.starts_with('.')
        && uid
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    if ok { Ok(()) } else { Err(Error::Uid(uid.to_owned())) }
}

/// FNV-1a over the parts, with a final mix so that all bits are good. Uids are made by us: nobody chooses collisions.
fn hash(parts: &[&str]) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            h = (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_are_found_again() {
        for prefix in ["b", "biga", "abcdefgh"] {
            let names = Names::new(prefix).unwrap();
            let uid = "5f0c5b0e-6f4c-4a57-9c57-0d3b2d6a3a10";
            assert_eq!(names.bridge(uid).len(), NAME_MAX);
            for (stem, name) in names.stems(uid).iter().zip([names.veth(uid, 31), names.tap(uid, 0)]) {
                assert_eq!(name.len(), NAME_MAX);
                assert_eq!(names.stem_of(&name), Some(stem.as_str()));
            }
            assert_eq!(names.stem_of(&names.bridge(uid)), None);
            assert_ne!(names.veth(uid, 0), names.veth(uid, 1));
        }
        assert_eq!(Names::new("biga").unwrap().stem_of("bigavirt0"), None);
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for bad in ["", "Biga", "1a", "a-b", "abcdefghi", "a;b"] {
            assert!(Names::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn macs_read_and_write() {
        let mac = Mac::derive("a", "b");
        assert_eq!(mac.0[0], 2);
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        assert_ne!(mac, Mac::derive("b", "a"));
        assert_ne!(Mac::derive("ab", "c"), Mac::derive("a", "bc"));
        for bad in [
            "",
            "02:00",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "02:00:00:00:00:0g",
            "02:00:00:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn uids_are_file_names() {
        assert!(check_uid("a-1_b.c").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_uid(bad).is_err(), "{bad}");
        }
    }
}
