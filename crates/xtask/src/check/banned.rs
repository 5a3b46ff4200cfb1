//! Crates that must not come in, not even through another.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::{Problem, metadata};

const BANNED: [(&str, &str); 9] = [
    ("openssl", "TLS is rustls with aws-lc-rs"),
    ("openssl-sys", "TLS is rustls with aws-lc-rs"),
    ("native-tls", "TLS is rustls with aws-lc-rs"),
    (
        "ring",
        "a second crypto provider makes rustls panic at first use; turn off the default features that bring it",
    ),
    ("serde_yaml", "it is deprecated: use serde-saphyr"),
    ("rustables", "it is under the GPL"),
    ("tokio-nbd", "it is under the GPL"),
    ("spdy-mux", "it is under the GPL"),
    ("async-std", "the runtime is tokio"),
];

/// Looks at what is built: `Cargo.lock` and `cargo metadata` also name what only features bring that nobody asked for.
pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let flags = [
        "--workspace",
        "--prefix=none",
        "--format={p}",
        "--edges=normal,build,dev",
        "--target",
        metadata::TARGET,
    ];
    let tree = metadata::cargo(root, "tree", &flags)?;
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    Ok(found(names.into_iter()))
}

fn found<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Problem> {
    names
        .filter_map(|name| BANNED.iter().find(|(banned, _)| *banned == name))
        .map(|(name, why)| Problem::error(format!("{name}: {why} (`cargo tree -i {name}` tells who asks for it)")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_count() {
        let problems = found(["ring", "ringbuf", "rustls"].into_iter());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].text.starts_with("ring:"), "{problems:?}");
    }
}
