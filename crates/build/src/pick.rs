//! Which files `COPY` and `ADD` mean: paths and patterns, looked up in a tree that nothing leads out of.

use biga_dockerfile::glob::Pattern;
use biga_dockerfile::ignore::Ignore;
use biga_image::files::{Node, Tree, tree};
use sha2::{Digest, Sha256};

use crate::Error;

/// Most files of one step.
const MAX_FILES: usize = 2 << 20;
/// Directories within each other.
const MAX_DEPTH: usize = 256;

/// One source that is there.
#[derive(Debug, Clone)]
pub struct Picked {
    /// How it is called at its destination.
    pub name: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Of a directory: all beneath it, by paths below it, each directory before what is in it.
    pub beneath: Vec<(Vec<u8>, Node)>,
}

/// What to look for, and what to leave out.
pub struct Wanted<'a> {
    /// The instruction, for messages.
    pub name: &'a str,
    /// `--exclude`.
    pub excludes: Ignore,
    /// `--parents`.
    pub parents: bool,
    /// Whether a path may begin with `..`: in another stage it means its root, in a context it is an attempt.
    pub from_root: bool,
}

impl Wanted<'_> {
    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::Invalid(format!("{} failed: {why}", self.name))
    }

    /// All that one word means.
    pub fn pick(&self, tree: &dyn Tree, word: &str) -> Result<Vec<Picked>, Error> {
        let cleaned = self.clean(word)?;
        let tree_error = |e| self.failed(e);
        let is_pattern = word.contains(['*', '?', '[']);
        let paths = match is_pattern {
            false => vec![cleaned.clone().into_bytes()],
            true => self.fitting(tree, &cleaned)?,
        };
        let mut all = Vec::new();
        for path in paths {
            let real = tree::real_path(tree, &path, true).map_err(tree_error)?;
            let shown = String::from_utf8_lossy(&path);
            let node =
                tree.look(&real).map_err(tree_error)?.ok_or_else(|| {
                    match self.from_root {
                true => self.failed(format!("stat {shown}: file does not exist")),
                false => self.failed(format!(
                    "file not found in build context or excluded by .dockerignore: stat {shown}: file does not exist"
                )),
            }
                })?;
            let name = self.name_of(word, &path);
            let mut beneath = Vec::new();
            if node.is_dir() {
                self.walk(tree, &real, b"", &mut beneath, MAX_DEPTH)?;
            } else if self.excludes.excludes(&shown) {
                continue;
            }
            all.push(Picked { name, node, beneath });
        }
        match all.is_empty() {
            true if self.excludes.is_empty() => Err(self.failed("no source files were specified")),
            _ => Ok(all),
        }
    }

    /// The last component; with `--parents` the path, or what stands behind `/./` in it.
    fn name_of(&self, word: &str, path: &[u8]) -> Vec<u8> {
        if !self.parents {
            return path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
        }
        match word.split_once("/./") {
            Some((before, _)) => {
                let skip = before.split('/').filter(|p| !p.is_empty() && *p != ".").count();
                let rest: Vec<&[u8]> = path.split(|b| *b == b'/').skip(skip).collect();
                rest.join(&b'/')
            }
            None => path.to_vec(),
        }
    }

    /// Without `.` and `..`, relative to the root.
    fn clean(&self, word: &str) -> Result<String, Error> {
        let mut parts: Vec<&str> = Vec::new();
        for part in word.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_none() && !self.from_root && !word.starts_with('/') => {
                    return Err(self.failed(format!("forbidden path outside the build context: {word} ()")));
                }
                ".." => {}
                part => parts.push(part),
            }
        }
        Ok(parts.join("/"))
    }

    /// Paths that fit a pattern, component by component.
    fn fitting(&self, tree: &dyn Tree, pattern: &str) -> Result<Vec<Vec<u8>>, Error> {
        let mut found: Vec<Vec<u8>> = vec![Vec::new()];
        for part in pattern.split('/') {
            let fits =
                Pattern::of_path(part).ok_or_else(|| self.failed(format!("syntax error in pattern {pattern}")))?;
            let mut next = Vec::new();
            for dir in &found {
                let is_dir = tree.look(dir).map_err(|e| self.failed(e))?.is_some_and(|n| n.is_dir());
                if !is_dir {
                    continue;
                }
                for name in tree.list(dir).map_err(|e| self.failed(e))? {
                    if fits.matches(&String::from_utf8_lossy(&name)) {
                        next.push(join(dir, &name));
                    }
                }
                if next.len() > MAX_FILES {
                    return Err(self.failed(format!("{pattern} fits more than {MAX_FILES} files")));
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn walk(
        &self,
        tree: &dyn Tree,
        dir: &[u8],
        rel: &[u8],
        all: &mut Vec<(Vec<u8>, Node)>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth == 0 || all.len() > MAX_FILES {
            return Err(self.failed("there are more files, or directories nested deeper, than can be copied"));
        }
        for name in tree.list(dir).map_err(|e| self.failed(e))? {
            let (at, below) = (join(dir, &name), join(rel, &name));
            let Some(node) = tree.look(&at).map_err(|e| self.failed(e))? else {
                continue;
            };
            let shown = String::from_utf8_lossy(&below);
            let is_dir = node.is_dir();
            if self.excludes.excludes(&shown) {
                if is_dir && !self.excludes.excludes_all_in(&shown) {
                    self.walk(tree, &at, &below, all, depth - 1)?;
                }
                continue;
            }
            all.push((below.clone(), node));
            if is_dir {
                self.walk(tree, &at, &below, all, depth - 1)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        b"" => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// The digest of one source as Docker writes it: `file:…` or `dir:…`. Times do not count, nor do owners where they are not
/// kept.
pub fn digest(picked: &Picked) -> std::io::Result<String> {
    let kind = if picked.node.is_dir() { "dir" } else { "file" };
    let mut hasher = Sha256::new();
    if !picked.node.is_dir() {
        node(&mut hasher, &picked.name, &picked.node)?;
    }
    for (path, n) in &picked.beneath {
        node(&mut hasher, path, n)?;
    }
    Ok(format!("{kind}:{}", hex(&hasher.finalize())))
}

/// The digest of several.
pub fn digest_of_all(all: &[Picked]) -> std::io::Result<String> {
    let each = all.iter().map(digest).collect::<Result<Vec<_>, _>>()?;
    Ok(match &each[..] {
        [one] => one.clone(),
        several => format!("multi:{}", hex(&Sha256::digest(several.join(",").as_bytes()))),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn node(hasher: &mut Sha256, path: &[u8], n: &Node) -> std::io::Result<()> {
    let mut field = |bytes: &[u8]| {
        // With its length, so that no two lists of fields look the same.
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(path);
    field(format!("{:?} {:o} {}", n.kind, n.mode, n.size).as_bytes());
    field(&n.link);
    for (k, v) in &n.xattrs {
        field(k);
        field(v);
    }
    let mut content = n.open()?;
    let mut piece = vec![0; 128 << 10];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(()),
            n => hasher.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use biga_image::files::Disk;

    use super::*;

    fn wanted(excludes: &str) -> Wanted<'static> {
        Wanted {
            name: "COPY",
            excludes: Ignore::parse(excludes).unwrap(),
            parents: false,
            from_root: false,
        }
    }

    fn tree() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("a.txt", "1"),
            ("b.txt", "2"),
            ("sub/c.txt", "3"),
            ("sub/deep/d.md", "4"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("evil")).unwrap();
        std::os::unix::fs::symlink("sub/c.txt", dir.path().join("link")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        (dir, Disk(std::sync::Arc::new(root.into())))
    }

    fn names(p: &[Picked]) -> Vec<String> {
        p.iter()
            .map(|p| String::from_utf8_lossy(&p.name).into_owned())
            .collect()
    }

    #[test]
    fn words_and_patterns() {
        let (_dir, t) = tree();
        let w = wanted("");
        let get = |word| w.pick(&t, word).map(|p| names(&p)).map_err(|e| e.to_string());
        assert_eq!(get("a.txt").unwrap(), ["a.txt"]);
        assert_eq!(get("./sub/../b.txt").unwrap(), ["b.txt"]);
        assert_eq!(get("*.txt").unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(get("s*/*").unwrap(), ["c.txt", "deep"]);
        assert_eq!(get("/").unwrap(), [""]);
        // A link is followed, within the context only.
        assert_eq!(get("link").unwrap(), ["link"]);
        assert!(get("evil/passwd").unwrap_err().contains("file does not exist"));
        assert!(
            get("../x")
                .unwrap_err()
                .contains("forbidden path outside the build context: ../x")
        );
        assert!(get("a/../../x").unwrap_err().contains("forbidden path"));
        assert!(get("*.none").unwrap_err().contains("no source files were specified"));
        assert!(
            get("none")
                .unwrap_err()
                .contains("excluded by .dockerignore: stat none")
        );
        let whole = w.pick(&t, ".").unwrap();
        let beneath: Vec<_> = whole[0]
            .beneath
            .iter()
            .map(|(p, _)| String::from_utf8_lossy(p))
            .collect();
        assert_eq!(
            beneath,
            [
                "a.txt",
                "b.txt",
                "evil",
                "link",
                "sub",
                "sub/c.txt",
                "sub/deep",
                "sub/deep/d.md"
            ]
        );
    }

    #[test]
    fn excludes_and_parents() {
        let (_dir, t) = tree();
        let whole = wanted("*.txt\nsub/deep").pick(&t, ".").unwrap();
        let beneath: Vec<_> = whole[0]
            .beneath
            .iter()
            .map(|(p, _)| String::from_utf8_lossy(p))
            .collect();
        assert_eq!(beneath, ["evil", "link", "sub", "sub/c.txt"]);
        let w = Wanted {
            parents: true,
            ..wanted("")
        };
        assert_eq!(names(&w.pick(&t, "sub/deep/d.md").unwrap()), ["sub/deep/d.md"]);
        assert_eq!(names(&w.pick(&t, "./sub/./deep/d.md").unwrap()), ["deep/d.md"]);
    }

    #[test]
    fn digests_follow_content_and_not_time() {
        let (dir, t) = tree();
        let w = wanted("");
        let get = |word| digest_of_all(&w.pick(&t, word).unwrap()).unwrap();
        let (file, whole, several) = (get("a.txt"), get("."), get("*.txt"));
        assert!(file.starts_with("file:") && whole.starts_with("dir:") && several.starts_with("multi:"));
        std::fs::write(dir.path().join("a.txt"), "1").unwrap();
        assert_eq!((&get("a.txt"), &get(".")), (&file, &whole));
        std::fs::write(dir.path().join("a.txt"), "x").unwrap();
        assert!(get("a.txt") != file && get(".") != whole && get("*.txt") != several);
    }
}
