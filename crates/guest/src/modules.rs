//! Loads kernel modules of the initramfs, each after those it stands on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::{Context, Error};

/// The modules at hand.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    depends: BTreeMap<String, Vec<String>>,
    loaded: BTreeSet<String>,
}

impl Modules {
    /// Reads `order` in a directory of modules: a line for each, its name and the names it stands on.
    pub fn open(dir: &Path) -> Result<Modules, Error> {
        let path = dir.join("order");
        let text = fs::read_to_string(&path).step(|| format!("read {}", path.display()))?;
        Ok(Modules {
            dir: dir.to_owned(),
            depends: parse(&text),
            loaded: BTreeSet::new(),
        })
    }

    /// Loads a module with what it stands on. One that is not at hand is built into the kernel, or missing: what needs it will
    /// say so.
    pub fn load(&mut self, name: &str) -> Result<(), Error> {
        for name in self.missing(name) {
            let path = self.dir.join(format!("{name}.ko"));
            let file = File::open(&path).step(|| format!("open {}", path.display()))?;
            const NONE: &CStr = c"";
            match rustix::system::finit_module(&file, NONE, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).step(|| format!("load the kernel module {name}")),
            }
            self.loaded.insert(name);
        }
        Ok(())
    }

    /// Names to load for `name`, in order.
    fn missing(&self, name: &str) -> Vec<String> {
        let mut out = Vec::new();
        self.visit(name, &mut out, 0);
        out
    }

    fn visit(&self, name: &str, out: &mut Vec<String>, depth: u32) {
        let Some(depends) = self.depends.get(name) else { return };
        if depth > 32 || self.loaded.contains(name) || out.iter().any(|n| n == name) {
            return;
        }
        for d in depends {
            self.visit(d, out, depth + 1);
        }
        out.push(name.to_owned());
    }

    /// Gives the memory of the files back; nothing can be loaded any more.
    pub fn discard(self) {
        // The file system of the initramfs is memory. What cannot be removed only costs some.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn parse(text: &str) -> BTreeMap<String, Vec<String>> {
    let line = |l: &str| {
        let mut words = l.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.collect()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_stands_on_comes_first_and_once() {
        let modules = Modules {
            dir: PathBuf::new(),
            depends: parse("c a b\nb a\na\nloop1 loop2\nloop2 loop1\n"),
            loaded: BTreeSet::new(),
        };
        assert_eq!(modules.missing("c"), ["a", "b", "c"]);
        assert!(modules.missing("builtin").is_empty());
        assert!(modules.missing("loop1").len() <= 66, "a circle ends");
    }
}
