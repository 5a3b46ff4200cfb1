//! Which kernel modules a microvm needs, found in a modules directory together with what they stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bzimage::by_program;

/// Without these no microvm runs.
const NEEDED: &[&str] = &[
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "erofs",
    "overlay",
    "ext4",
];
/// Used where the kernel has them.
const WELCOME: &[&str] = &["virtiofs", "virtio_rng"];

/// A module in the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// With underscores.
    pub name: String,
    /// Modules it stands on directly.
    pub depends: Vec<String>,
}

impl Module {
    /// Its file name.
    pub fn file(&self) -> String {
        format!("{}.ko", self.name)
    }
}

/// Why the modules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Not there.
    #[error("the kernel in {dir} has no module {name}, which microvms need; use Debian's cloud kernel")]
    Missing {
        /// The modules directory.
        dir: PathBuf,
        /// Which.
        name: String,
    },
    /// Packed.
    #[error("cannot unpack the module {path}")]
    Packed {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: super::bzimage::Error,
    },
}

/// The modules of `dir` (`…/lib/modules/RELEASE`) that microvms need, unpacked; what is built in is left out.
pub fn collect(dir: &Path) -> Result<Vec<(Module, Vec<u8>)>, Error> {
    let mut files = BTreeMap::new();
    walk(&dir.join("kernel"), &mut files, 0)?;
    let builtin = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let builtin: BTreeSet<String> = builtin.lines().filter_map(|l| name_of(Path::new(l))).collect();

    let mut done = BTreeSet::new();
    let mut out = Vec::new();
    let mut todo: Vec<(String, bool)> = Vec::new();
    todo.extend(WELCOME.iter().map(|n| (n.to_string(), false)));
    todo.extend(NEEDED.iter().map(|n| (n.to_string(), true)));
    while let Some((name, needed)) = todo.pop() {
        if builtin.contains(&name) || done.contains(&name) {
            continue;
        }
        let Some(path) = files.get(&name) else {
            match needed {
                true => {
                    return Err(Error::Missing {
                        dir: dir.to_owned(),
                        name,
                    });
                }
                false => continue,
            }
        };
        let bytes = read(path)?;
        let depends = depends(&bytes);
        todo.extend(depends.iter().map(|d| (d.clone(), true)));
        done.insert(name.clone());
        let depends = depends.into_iter().filter(|d| !builtin.contains(d)).collect();
        out.push((Module { name, depends }, bytes));
    }
    Ok(out)
}

/// What the init reads: a line for each module, its name and the names it stands on.
pub fn order(modules: &[Module]) -> String {
    modules
        .iter()
        .map(|m| format!("{} {}", m.name, m.depends.join(" ")).trim_end().to_owned() + "\n")
        .collect()
}

fn walk(dir: &Path, files: &mut BTreeMap<String, PathBuf>, depth: u32) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A tree of modules is shallow; links are not followed.
        match entry.file_type().map_err(failed)? {
            t if t.is_dir() && depth < 16 => walk(&path, files, depth + 1)?,
            t if t.is_file() => {
                if let Some(name) = name_of(&path) {
                    files.insert(name, path);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `virtio_blk` of `…/virtio-blk.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, ending) = file.split_once(".ko")?;
    matches!(ending, "" | ".xz" | ".gz" | ".zst").then(|| name.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return Ok(bytes),
    };
    by_program(program, &bytes).map_err(|source| Error::Packed {
        path: path.to_owned(),
        source,
    })
}

/// The module's `depends=` line.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else {
        return Vec::new();
    };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|n| !n.is_empty())
        .map(|n| n.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    const ALL: &[(&str, &str)] = &[
        ("modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/lib/crc32.ko\n"),
        ("kernel/drivers/virtio-mmio.ko", "x\0depends=virtio,virtio-ring\0y"),
        ("kernel/drivers/virtio.ko", "\0depends=\0"),
        ("kernel/drivers/virtio_ring.ko", "\0depends=virtio\0"),
        ("kernel/virtio_console.ko", "\0depends=\0"),
        ("kernel/virtio_blk.ko", "\0depends=\0"),
        ("kernel/virtio_net.ko", "\0depends=\0"),
        ("kernel/erofs.ko", "\0depends=crc32\0"),
        ("kernel/overlay.ko", "\0depends=\0"),
        ("kernel/other.ko", "\0depends=\0"),
    ];

    #[test]
    fn needed_modules_come_with_what_they_stand_on() {
        let dir = tree(ALL);
        let found: Vec<Module> = collect(dir.path()).unwrap().into_iter().map(|(m, _)| m).collect();
        let names: BTreeSet<_> = found.iter().map(|m| m.name.as_str()).collect();
        let expected = [
            "virtio",
            "virtio_ring",
            "virtio_mmio",
            "virtio_console",
            "virtio_blk",
            "virtio_net",
            "erofs",
            "overlay",
        ];
        assert_eq!(names, BTreeSet::from(expected));
        let text = order(&found);
        assert!(text.contains("virtio_mmio virtio virtio_ring\n"), "{text}");
        // Built in: not waited for.
        assert!(text.contains("erofs\n"), "{text}");
    }

    #[test]
    fn a_missing_module_is_named() {
        let dir = tree(&ALL[..5]);
        let error = collect(dir.path()).unwrap_err();
        assert!(error.to_string().contains("no module "), "{error}");
    }
}
