//! Other OCI runtimes of this node: which there are, and which one an instance means.
//!
//! A runtime is a program that is run as root. So not any program will do: only those that are known to be runtimes and lie where
//! the system's programs are, and those that the daemon was given.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use biga_model::NodeRuntime;
use biga_wire::config::OciRuntime;

use crate::instance::Failure;

/// Programs that are known to have the command line of an OCI runtime.
const KNOWN: [&str; 8] = [
    "runc",
    "crun",
    "youki",
    "runsc",
    "krun",
    "kata-runtime",
    "crun-wasm",
    "biga-oci",
];
/// Where they are looked for, in this order.
const PLACES: [&str; 8] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/libexec",
    "/usr/lib/cri-o-runc/sbin",
];
/// Names that mean Biga's own ways to run something.
const RESERVED: [&str; 3] = ["biga", "microvm", "biga-microvm"];

/// The runtimes of this node.
#[derive(Debug, Clone, Default)]
pub struct OciRuntimes {
    given: BTreeMap<String, PathBuf>,
}

impl OciRuntimes {
    /// With those that the daemon was given. Each must be a program.
    pub fn new(given: BTreeMap<String, PathBuf>) -> Result<OciRuntimes, Failure> {
        let bad = |message: String| Failure::new("BadRuntime", message);
        for (name, path) in &given {
            if !biga_model::kind::is_resource_name(name) || RESERVED.contains(&name.as_str()) {
                return Err(bad(format!("runtime {name:?}: choose another name")));
            }
            if !path.is_absolute() {
                return Err(bad(format!("runtime {name}: {} is no absolute path", path.display())));
            }
            if !is_program(path) {
                return Err(bad(format!("runtime {name}: {} is no program", path.display())));
            }
        }
        Ok(OciRuntimes { given })
    }

    /// All there are now, by name.
    pub fn installed(&self) -> Vec<NodeRuntime> {
        let mut all: BTreeMap<String, PathBuf> = KNOWN
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), find(name)?)))
            .collect();
        all.extend(self.given.clone());
        let one = |(name, path): (String, PathBuf)| NodeRuntime {
            name,
            path: path.display().to_string(),
        };
        all.into_iter().map(one).collect()
    }

    /// The runtime of this name, or at this path.
    pub fn get(&self, wanted: &str) -> Result<OciRuntime, Failure> {
        let path = match wanted.starts_with('/') {
            true => self.at(Path::new(wanted)),
            false => self.given.get(wanted).cloned().or_else(|| known(wanted).and_then(find)),
        };
        match path.filter(|p| is_program(p)) {
            Some(path) => Ok(OciRuntime {
                name: wanted.to_owned(),
                path,
                patience_ms: None,
            }),
            None => Err(self.unknown(wanted)),
        }
    }

    /// A path that is allowed: one that was given, or that of a known program where such programs lie.
    fn at(&self, path: &Path) -> Option<PathBuf> {
        let usual = || {
            let name = path.file_name()?.to_str()?;
            let place = path.parent()?.to_str()?;
            (known(name).is_some() && PLACES.contains(&place)).then_some(())
        };
        let given = self.given.values().any(|p| p == path);
        (given || usual().is_some()).then(|| path.to_owned())
    }

    fn unknown(&self, wanted: &str) -> Failure {
        let names: Vec<String> = self.installed().into_iter().map(|r| r.name).collect();
        let there = match names.is_empty() {
            true => "none is installed".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        Failure::new(
            "RuntimeNotFound",
            format!(
                "this node knows no runtime {wanted}: {there}. Leave it out for Biga's own, install it, or start the daemon \
                 with --runtime NAME=PATH"
            ),
        )
    }
}

fn known(name: &str) -> Option<&'static str> {
    KNOWN.into_iter().find(|k| *k == name)
}

fn find(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|p| Path::new(p).join(name)).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, path: &str) -> Result<OciRuntimes, Failure> {
        OciRuntimes::new(BTreeMap::from([(name.to_owned(), PathBuf::from(path))]))
    }

    #[test]
    fn what_is_given_must_be_a_program_with_a_name_of_its_own() {
        for (name, path, why) in [
            ("biga", "/bin/sh", "another name"),
            ("a/b", "/bin/sh", "another name"),
            ("mine", "sh", "absolute"),
            ("mine", "/etc/passwd", "no program"),
            ("mine", "/nonexistent", "no program"),
        ] {
            let e = with(name, path).unwrap_err().message;
            assert!(e.contains(why), "{name} {path}: {e}");
        }
    }

    #[test]
    fn only_runtimes_are_run() {
        let all = with("mine", "/bin/sh").unwrap();
        assert_eq!(all.get("mine").unwrap().path, Path::new("/bin/sh"));
        assert_eq!(all.get("/bin/sh").unwrap().path, Path::new("/bin/sh"));
        for other in [
            "sh",
            "/bin/cat",
            "/usr/bin/cat",
            "/tmp/runc",
            "nonesuch",
            "../bin/cat",
            "/usr/bin/../bin/crun",
        ] {
            let e = all.get(other).unwrap_err();
            assert_eq!(e.reason, "RuntimeNotFound", "{other}");
            assert!(e.message.contains("mine") && e.message.contains(other), "{}", e.message);
        }
        assert!(all.installed().iter().any(|r| r.name == "mine" && r.path == "/bin/sh"));
    }

    #[test]
    fn installed_ones_are_found() {
        // It is installed where the tests are run.
        let all = OciRuntimes::default();
        let runc = all.get("runc").unwrap();
        assert!(runc.path.ends_with("runc") && all.get(runc.path.to_str().unwrap()).is_ok());
        assert!(all.installed().iter().any(|r| r.name == "runc"));
    }
}
