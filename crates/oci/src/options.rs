//! Options of a mount, as `mount -o` takes them: attributes, propagation, and what is left for the file system.

use biga_sys::mount_attr::{self as attr, Propagation};

use crate::error::Error;

/// What the options of one mount say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Attributes to set on all below, too.
    pub set_all: u64,
    /// Attributes to clear on all below, too.
    pub clear_all: u64,
    /// Propagation, in order, and whether of all below.
    pub propagation: Vec<(Propagation, bool)>,
    /// A bind, and whether with all below.
    pub bind: Option<bool>,
    /// Changes what is mounted there.
    pub remount: bool,
    /// Copy what was there into it.
    pub copy_up: bool,
    /// Show owners as its mappings say, and whether in all below.
    pub ids: Option<bool>,
    /// For the file system: flags, or `key=value`.
    pub data: Vec<String>,
}

/// Name, attributes set, attributes cleared.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("noatime", attr::NOATIME, attr::ATIME),
    ("atime", 0, attr::ATIME),
    ("relatime", attr::RELATIME, attr::ATIME),
    ("norelatime", 0, attr::ATIME),
    ("strictatime", attr::STRICTATIME, attr::ATIME),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
    ("symfollow", 0, attr::NOSYMFOLLOW),
];

const PROPAGATIONS: [(&str, Propagation); 4] = [
    ("shared", Propagation::Shared),
    ("slave", Propagation::Slave),
    ("private", Propagation::Private),
    ("unbindable", Propagation::Unbindable),
];

/// Say what is the case anyway.
const IDLE: [&str; 7] = [
    "defaults",
    "async",
    "nomand",
    "nolazytime",
    "loud",
    "silent",
    "nostrictatime",
];
/// Flags of the file system itself: a bind cannot change them.
const OF_FILE_SYSTEM: [&str; 8] = [
    "sync",
    "dirsync",
    "mand",
    "lazytime",
    "acl",
    "noacl",
    "iversion",
    "noiversion",
];

/// Every option that is not the file system's own, for `features`.
pub fn names() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (name, ..) in ATTRIBUTES {
        all.extend([name.to_owned(), format!("r{name}")]);
    }
    for (name, _) in PROPAGATIONS {
        all.extend([name.to_owned(), format!("r{name}")]);
    }
    all.extend(IDLE.iter().chain(&OF_FILE_SYSTEM).map(|s| (*s).to_owned()));
    all.extend(["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"].map(str::to_owned));
    all.sort();
    all
}

/// The propagation of this name, and whether of all below.
pub fn propagation(name: &str) -> Option<(Propagation, bool)> {
    let of = |n: &str| PROPAGATIONS.iter().find(|(name, _)| *name == n).map(|(_, p)| *p);
    match of(name) {
        Some(p) => Some((p, false)),
        None => name.strip_prefix('r').and_then(of).map(|p| (p, true)),
    }
}

impl Options {
    /// Reads the options of a mount of this type.
    pub fn read(kind: &str, list: &[String]) -> Result<Options, Error> {
        let mut all = Options {
            bind: (kind == "bind").then_some(false),
            ..Options::default()
        };
        for option in list.iter().filter(|o| !o.is_empty()) {
            all.add(option);
        }
        if all.bind.is_some() {
            all.data.retain(|d| !OF_FILE_SYSTEM.contains(&d.as_str()));
            if let Some(unknown) = all.data.first() {
                return Err(Error::invalid(
                    "mounts.options",
                    format!("a bind knows no option {unknown:?}"),
                ));
            }
        }
        Ok(all)
    }

    fn add(&mut self, option: &str) {
        let attribute = |name: &str| ATTRIBUTES.iter().find(|(n, ..)| *n == name);
        if let Some((_, set, clear)) = attribute(option) {
            // The last word counts.
            self.set = self.set & !clear | set;
            self.clear = self.clear & !set | clear;
        } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
            self.set_all = self.set_all & !clear | set;
            self.clear_all = self.clear_all & !set | clear;
        } else if let Some(p) = propagation(option) {
            self.propagation.push(p);
        } else {
            match option {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "remount" => self.remount = true,
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.ids = Some(self.ids.unwrap_or(false)),
                "ridmap" => self.ids = Some(true),
                o if IDLE.contains(&o) => {}
                o => self.data.push(o.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, text: &str) -> Options {
        let list: Vec<String> = text.split(',').map(str::to_owned).collect();
        Options::read(kind, &list).unwrap()
    }

    #[test]
    fn attributes_and_data() {
        let o = read("tmpfs", "nosuid,strictatime,mode=755,size=65536k,ro,rw");
        assert_eq!(o.set, attr::NOSUID | attr::STRICTATIME);
        // The kernel wants all of it cleared before one of it is set.
        assert_eq!(o.clear, attr::ATIME | attr::RDONLY);
        assert_eq!(o.data, ["mode=755", "size=65536k"]);
        assert_eq!(o.bind, None);
    }

    #[test]
    fn binds() {
        let o = read("none", "rbind,rprivate,ro,rro,sync");
        assert_eq!((o.bind, o.set, o.set_all), (Some(true), attr::RDONLY, attr::RDONLY));
        assert_eq!(o.propagation, [(Propagation::Private, true)]);
        assert_eq!(read("bind", "").bind, Some(false));
        assert_eq!(read("bind", "rbind").bind, Some(true));
        assert!(Options::read("bind", &["size=3".into()]).is_err());
    }

    #[test]
    fn names_that_begin_alike() {
        let o = read("x", "relatime,rrelatime");
        assert_eq!((o.clear, o.clear_all), (attr::ATIME, attr::ATIME));
        assert_eq!(read("x", "rsuid").clear_all, attr::NOSUID);
        assert_eq!(propagation("rslave"), Some((Propagation::Slave, true)));
        assert_eq!(propagation("slave"), Some((Propagation::Slave, false)));
        assert_eq!(propagation("odd"), None);
    }
}
