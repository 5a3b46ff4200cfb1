//! Capabilities by name.

use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::Error;
use crate::error::Context;

/// Names in the order of their bits, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps(u64);

impl Caps {
    /// No capability.
    pub const NONE: Caps = Caps(0);

    /// Every capability this crate knows.
    pub const ALL: Caps = Caps((1 << NAMES.len()) - 1);

    /// From names, with or without `CAP_`, in any case. `ALL` means all.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Caps, Error> {
        let mut set = Caps::default();
        for name in names {
            let upper = name.to_ascii_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if short == "ALL" {
                set.0 |= Caps::ALL.0;
                continue;
            }
            let bit = NAMES.iter().position(|n| *n == short);
            set.0 |= 1 << bit.ok_or_else(|| Error::Capability(name.to_owned()))?;
        }
        Ok(set)
    }

    /// Whether the capability of this name (upper case, without `CAP_`) is in the set.
    pub fn has(self, name: &str) -> bool {
        NAMES
            .iter()
            .position(|n| *n == name)
            .is_some_and(|bit| self.0 >> bit & 1 == 1)
    }

    /// What both have.
    pub fn and(self, other: Caps) -> Caps {
        Caps(self.0 & other.0)
    }

    /// What either has.
    pub fn or(self, other: Caps) -> Caps {
        Caps(self.0 | other.0)
    }

    /// Names of all in the set, with `CAP_`.
    pub fn names(self) -> Vec<String> {
        let with = |(bit, name): (usize, &&str)| (self.0 >> bit & 1 == 1).then(|| format!("CAP_{name}"));
        NAMES.iter().enumerate().filter_map(with).collect()
    }

    /// As the kernel's bits.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// What this process may use at most: a host (a container around us, or an old kernel) may lack some, and what is not there
/// cannot be given.
pub fn available() -> Result<Caps, Error> {
    let sets = rustix::thread::capabilities(None).step(|| "read own capabilities".into())?;
    Ok(Caps(sets.permitted.bits()))
}

/// Takes all but `keep` out of the bounding set, so that no program of the container can ever gain them.
pub fn bound(keep: Caps) -> Result<(), Error> {
    for bit in 0..64u32 {
        if keep.0 >> bit & 1 == 1 {
            continue;
        }
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel's last capability was passed.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e).step(|| "drop capabilities from the bounding set".into()),
        }
    }
    Ok(())
}

/// Makes `set` permitted and effective, and nothing inheritable.
pub fn apply(set: Caps) -> Result<(), Error> {
    let bits = CapabilitySet::from_bits_retain(set.0);
    let sets = CapabilitySets {
        effective: bits,
        permitted: bits,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).step(|| "set capabilities".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(Caps::parse(["CHOWN"]).unwrap().bits(), 1);
        assert_eq!(Caps::parse(["cap_sys_admin"]).unwrap().bits(), 1 << 21);
        assert_eq!(Caps::parse(["CHECKPOINT_RESTORE"]).unwrap().bits(), 1 << 40);
        assert_eq!(Caps::parse(["ALL"]).unwrap(), Caps::ALL);
        assert!(Caps::parse(["NET_RAW", "KILL"]).unwrap().has("NET_RAW"));
        assert!(matches!(Caps::parse(["FLY"]), Err(Error::Capability(n)) if n == "FLY"));
    }
}
