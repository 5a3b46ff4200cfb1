//! Names of the Container Device Interface
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>): `vendor.com/class=device`.

use std::fmt;
use std::str::FromStr;

/// A device's whole name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CdiName {
    /// `vendor.com/class`.
    pub kind: String,
    /// Which of that kind.
    pub device: String,
}

impl fmt::Display for CdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

impl FromStr for CdiName {
    type Err = String;
    fn from_str(s: &str) -> Result<CdiName, String> {
        match s.split_once('=') {
            Some((kind, device)) if is_kind(kind) && is_device(device) => Ok(CdiName {
                kind: kind.into(),
                device: device.into(),
            }),
            _ => Err(format!(
                "{s:?} is no device of the Container Device Interface: write it as in vendor.com/class=device"
            )),
        }
    }
}

/// Whether it is `vendor.com/class`.
pub fn is_kind(s: &str) -> bool {
    let begins = |w: &str| w.starts_with(|c: char| c.is_ascii_alphabetic());
    match s.split_once('/') {
        Some((vendor, class)) => {
            begins(vendor) && begins(class) && is_word(vendor, "_-.") && is_word(class, "_-.") && s.len() <= 317
        }
        None => false,
    }
}

/// Whether it is a device's name within its kind.
pub fn is_device(s: &str) -> bool {
    is_word(s, "_-.:")
}

/// Letters and digits, and some others within.
fn is_word(s: &str, within: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    s.starts_with(plain) && s.ends_with(plain) && s.chars().all(|c| plain(c) || within.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts() {
        let n: CdiName = "vendor.com/gpu-x=GPU:1_a".parse().unwrap();
        assert_eq!((n.kind.as_str(), n.device.as_str()), ("vendor.com/gpu-x", "GPU:1_a"));
        assert_eq!(n.to_string(), "vendor.com/gpu-x=GPU:1_a");
        for bad in [
            "",
            "/dev/null",
            "vendor.com/gpu",
            "vendor.com=0",
            "/gpu=0",
            "1v/gpu=0",
            "v/1g=0",
            "v/g/h=0",
            "v/g=",
            "v/g=-a",
            "v/g=a b",
            "v-/g=0",
            "v/g=a=b",
        ] {
            assert!(bad.parse::<CdiName>().is_err(), "{bad:?}");
        }
    }
}
