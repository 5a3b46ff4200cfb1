//! No forgotten files: a file that no `mod` names is never compiled, and its tests never run. One binary of
//! integration tests a crate, `tests/it/main.rs`, because each further one links everything again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Problem, source};

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let files: BTreeMap<PathBuf, String> = source::files(&root.join("crates"), &["rs"])?.into_iter().collect();
    Ok(files.keys().filter_map(|path| judge(path, &files)).collect())
}

fn judge(path: &Path, files: &BTreeMap<PathBuf, String>) -> Option<Problem> {
    let parts: Vec<_> = path.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        [_, "tests", file] => Some(Problem::error(format!(
            "crates/{}: move {file} into tests/it and name it in tests/it/main.rs",
            path.display()
        ))),
        [_, "src" | "tests", ..] if !named(path, files) => Some(Problem::error(format!(
            "crates/{}: no `mod` names it, so it is never compiled",
            path.display()
        ))),
        _ => None,
    }
}

/// Whether some file that may hold its `mod` does.
fn named(path: &Path, files: &BTreeMap<PathBuf, String>) -> bool {
    let (Some(dir), Some(stem)) = (
        path.parent(),
        path.file_stem().map(|s| s.to_string_lossy().into_owned()),
    ) else {
        return false;
    };
    if matches!(stem.as_str(), "main" | "lib") || dir.ends_with("bin") {
        return true;
    }
    // `a/mod.rs` is the module `a` of the directory above.
    let (dir, name) = match (stem.as_str(), dir.parent(), dir.file_name()) {
        ("mod", Some(above), Some(name)) => (above, name.to_string_lossy().into_owned()),
        _ => (dir, stem),
    };
    let parents = [
        dir.join("mod.rs"),
        dir.join("lib.rs"),
        dir.join("main.rs"),
        dir.with_extension("rs"),
    ];
    let declared = |text: &String| {
        source::without_comments(text).lines().any(|line| {
            let line = line.trim().trim_end_matches(" {");
            let line = line
                .split_once("mod ")
                .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
            line.is_some_and(|(_, rest)| rest.trim_end_matches(';') == name)
        })
    };
    parents.iter().filter_map(|p| files.get(p)).any(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(files: &[(&str, &str)]) -> Vec<String> {
        let files: BTreeMap<PathBuf, String> = files.iter().map(|(p, t)| (p.into(), (*t).to_owned())).collect();
        files.keys().filter_map(|p| judge(p, &files)).map(|p| p.text).collect()
    }

    #[test]
    fn named_files_are_whole() {
        let files = [
            ("net/src/lib.rs", "pub mod dns;\nmod bridge;\npub(crate) mod lease;\n"),
            ("net/src/dns/mod.rs", "mod wire;"),
            ("net/src/dns/wire.rs", ""),
            ("net/src/bridge.rs", "mod ports;"),
            ("net/src/bridge/ports.rs", ""),
            ("net/src/lease.rs", ""),
            ("net/src/bin/extra.rs", ""),
            ("net/build.rs", ""),
            ("net/tests/it/main.rs", "mod bridge;"),
            ("net/tests/it/bridge.rs", ""),
        ];
        assert_eq!(broken(&files), [] as [String; 0]);
    }

    #[test]
    fn forgotten_ones_are_not() {
        let files = [
            ("net/tests/it/main.rs", "// mod dns;\nmod dnsmasq;"),
            ("net/tests/it/dns.rs", ""),
        ];
        assert_eq!(broken(&files).len(), 1);
        assert_eq!(broken(&[("net/src/lib.rs", ""), ("net/src/dns.rs", "")]).len(), 1);
    }

    #[test]
    fn a_second_test_binary_is_refused() {
        assert!(broken(&[("net/tests/dns.rs", "")])[0].contains("tests/it"));
    }
}
