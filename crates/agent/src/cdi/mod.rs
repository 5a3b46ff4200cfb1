//! The Container Device Interface: devices that vendors describe in documents on this node, with all that a container needs to use
//! them (device nodes, libraries to mount, variables, hooks).
//!
//! The documents are read anew for each container that names such a device: there are few, and a vendor's tool may change them at
//! any time.

mod apply;
mod document;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use biga_model::CdiName;

pub use self::document::{Document, Edits};
use crate::instance::Failure;

/// Where documents are looked for if nothing else is said. What is in the later one counts.
pub const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// A document is not larger than this.
const MAX: u64 = 4 << 20;

/// The devices that are described on this node.
#[derive(Debug, Clone)]
pub struct Cdi {
    dirs: Vec<PathBuf>,
}

impl Default for Cdi {
    fn default() -> Cdi {
        Cdi {
            dirs: DIRS.map(PathBuf::from).to_vec(),
        }
    }
}

/// All devices there are, and what is wrong with their documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Whole names, in order.
    pub devices: Vec<String>,
    /// For people.
    pub warnings: Vec<String>,
}

/// What was read.
#[derive(Debug, Default)]
struct Read {
    documents: Vec<Document>,
    /// Which document describes a device; none where several of a directory do.
    devices: BTreeMap<CdiName, Option<(usize, usize)>>,
    warnings: Vec<String>,
}

impl Cdi {
    /// With these directories instead of the usual ones. None is no device at all.
    pub fn new(dirs: Vec<PathBuf>) -> Cdi {
        Cdi { dirs }
    }

    /// Where documents are looked for.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// All devices there are now.
    pub fn found(&self) -> Found {
        let read = self.read();
        let known = read.devices.iter().filter(|(_, at)| at.is_some());
        Found {
            devices: known.map(|(name, _)| name.to_string()).collect(),
            warnings: read.warnings,
        }
    }

    /// What is to be done for these devices, in their order: what is common to a document's devices comes once, before its first.
    fn edits(&self, names: &[String]) -> Result<Vec<Edits>, Failure> {
        let read = self.read();
        let (mut all, mut seen, mut missing) = (Vec::new(), BTreeSet::new(), Vec::new());
        for name in names {
            let at = name.parse().ok().and_then(|n: CdiName| read.devices.get(&n).copied());
            let Some((document, device)) = at.flatten() else {
                missing.push(name.as_str());
                continue;
            };
            let d = &read.documents[document];
            if seen.insert(document) {
                all.push(d.container_edits.clone());
            }
            all.push(d.devices[device].container_edits.clone());
        }
        match missing.is_empty() {
            true => Ok(all),
            false => Err(self.unresolvable(&missing, &read)),
        }
    }

    fn unresolvable(&self, names: &[&str], read: &Read) -> Failure {
        let dirs: Vec<String> = self.dirs.iter().map(|d| d.display().to_string()).collect();
        let known: Vec<String> = read.devices.keys().map(ToString::to_string).collect();
        let there = match known.is_empty() {
            true => "none is described there".to_owned(),
            false => format!("described are {}", known.join(", ")),
        };
        let mut message = format!(
            "CDI device injection failed: unresolvable CDI devices {}: this node looks for them in {}, and {there}",
            names.join(", "),
            dirs.join(" and ")
        );
        for w in &read.warnings {
            message.push_str("; ");
            message.push_str(w);
        }
        Failure::new("DeviceNotFound", message)
    }

    fn read(&self) -> Read {
        let mut read = Read::default();
        for dir in &self.dirs {
            let mut own: BTreeMap<CdiName, Option<(usize, usize)>> = BTreeMap::new();
            for path in files(dir) {
                let document = match load(&path) {
                    Ok(d) => d,
                    Err(why) => {
                        read.warnings.push(format!("CDI document {}: {why}", path.display()));
                        continue;
                    }
                };
                let number = read.documents.len();
                for (i, d) in document.devices.iter().enumerate() {
                    let name = CdiName {
                        kind: document.kind.clone(),
                        device: d.name.clone(),
                    };
                    match own.entry(name) {
                        Entry::Occupied(mut known) => {
                            let name = known.key();
                            let twice = format!("CDI device {name} is described twice in {}", dir.display());
                            read.warnings.push(twice);
                            known.insert(None);
                        }
                        Entry::Vacant(free) => {
                            free.insert(Some((number, i)));
                        }
                    }
                }
                read.documents.push(document);
            }
            read.devices.extend(own);
        }
        read
    }
}

/// The documents of a directory; there may be no such directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let is_document = |p: &PathBuf| matches!(p.extension().and_then(|e| e.to_str()), Some("json" | "yaml"));
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| is_document(p) && !p.is_dir())
        .collect();
    all.sort();
    all
}

fn load(path: &Path) -> Result<Document, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX {
        return Err(format!("it has {size} bytes, and {MAX} are enough for one"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    Document::parse(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, devices: &[&str], env: &str) -> String {
        let one = |d: &&str| serde_json::json!({"name": d, "containerEdits": {"env": [format!("D_{d}={env}")]}});
        let devices: Vec<_> = devices.iter().map(one).collect();
        let all = serde_json::json!({"env": [format!("ALL={env}")]});
        serde_json::json!({"cdiVersion": "0.6.0", "kind": kind, "devices": devices, "containerEdits": all}).to_string()
    }

    #[test]
    fn later_directories_count_and_conflicts_do_not() {
        let t = tempfile::tempdir().unwrap();
        let dirs = [t.path().join("a"), t.path().join("b"), t.path().join("absent")];
        for d in &dirs[..2] {
            std::fs::create_dir(d).unwrap();
        }
        let put = |dir: &Path, name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        put(&dirs[0], "1.json", &document("v.com/x", &["one", "two"], "first"));
        put(&dirs[1], "1.json", &document("v.com/x", &["one"], "second"));
        put(&dirs[1], "2.json", &document("v.com/y", &["c"], "y"));
        put(&dirs[1], "3.json", &document("v.com/y", &["c"], "z"));
        put(&dirs[1], "4.yaml", "kind: [");
        put(&dirs[1], "5.txt", "nothing of ours");
        let cdi = Cdi::new(dirs.to_vec());
        let found = cdi.found();
        assert_eq!(found.devices, ["v.com/x=one", "v.com/x=two"]);
        assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
        let names = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let env = |l: &[&str]| -> Vec<String> {
            let all = cdi.edits(&names(l)).unwrap();
            all.into_iter().flat_map(|e| e.env).collect()
        };
        assert_eq!(env(&["v.com/x=one"]), ["ALL=second", "D_one=second"]);
        assert_eq!(
            env(&["v.com/x=two", "v.com/x=one", "v.com/x=two"]),
            ["ALL=first", "D_two=first", "ALL=second", "D_one=second", "D_two=first"]
        );
        let e = cdi
            .edits(&names(&["v.com/x=one", "v.com/y=c", "v.com/z=0"]))
            .unwrap_err();
        assert!(
            e.message.contains("v.com/y=c, v.com/z=0") && e.message.contains("twice"),
            "{}",
            e.message
        );
    }
}
