//! Which crate may depend on which: the drawing in `ARCHITECTURE.md`, as a table. Tests (dev-dependencies) are free.

use std::path::Path;

use anyhow::Result;

use super::Problem;
use super::metadata::{self, Package};

/// May depend on every crate of the workspace: the program, and the whole stack in one process for tests.
const SEES_ALL: [&str; 2] = ["biga", "biga-testkit"];

/// Every other crate, and the crates of the workspace it may depend on.
const LAYERS: [(&str, &[&str]); 22] = [
    // Words, forms and the lowest tools.
    ("biga-model", &[]),
    ("biga-wire", &[]),
    ("biga-sys", &[]),
    ("biga-payload", &["biga-sys"]),
    ("biga-dockerfile", &["biga-model"]),
    ("biga-xtask", &[]),
    // The API's side: never the engine.
    ("biga-store", &["biga-model"]),
    ("biga-control", &["biga-model", "biga-store"]),
    ("biga-api-kube", &["biga-model", "biga-store"]),
    ("biga-buildkit", &["biga-dockerfile", "biga-wire"]),
    (
        "biga-api-docker",
        &["biga-buildkit", "biga-model", "biga-store", "biga-wire"],
    ),
    ("biga-client", &["biga-model", "biga-wire"]),
    (
        "biga-server",
        &[
            "biga-api-docker",
            "biga-api-kube",
            "biga-client",
            "biga-model",
            "biga-store",
            "biga-wire",
        ],
    ),
    // The engine's side: never the API.
    ("biga-files", &[]),
    ("biga-image", &["biga-files", "biga-model", "biga-sys"]),
    ("biga-net", &["biga-model", "biga-sys"]),
    ("biga-runtime", &["biga-model", "biga-wire"]),
    ("biga-container", &["biga-runtime", "biga-sys", "biga-wire"]),
    ("biga-vm", &["biga-runtime", "biga-sys", "biga-wire"]),
    (
        "biga-agent",
        &[
            "biga-container",
            "biga-dockerfile",
            "biga-image",
            "biga-model",
            "biga-net",
            "biga-runtime",
            "biga-store",
            "biga-sys",
            "biga-vm",
            "biga-wire",
        ],
    ),
    (
        "biga-build",
        &[
            "biga-agent",
            "biga-container",
            "biga-dockerfile",
            "biga-image",
            "biga-model",
            "biga-store",
            "biga-wire",
        ],
    ),
    // Small static programs beside or inside an instance.
    ("biga-guest", &["biga-container", "biga-files", "biga-sys", "biga-wire"]),
];

/// The OCI runtime's command line: a program of its own, linked static like the shim.
const OCI: (&str, &[&str]) = ("biga-oci", &["biga-container", "biga-model", "biga-sys"]);

/// The shim holds every isolation, so it sees both of their crates; it stands apart because it is linked static.
const SHIM: (&str, &[&str]) = ("biga-shim", &["biga-container", "biga-sys", "biga-vm", "biga-wire"]);

pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    Ok(breaches(&metadata::load(root, false)?.packages))
}

fn breaches(packages: &[Package]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in packages.iter().filter(|p| !SEES_ALL.contains(&p.name.as_str())) {
        let name = package.name.as_str();
        let Some((_, allowed)) = LAYERS.iter().chain([&SHIM, &OCI]).find(|(layer, _)| *layer == name) else {
            problems.push(Problem::error(format!(
                "{name} has no layer: add it to crates/xtask/src/check/layers.rs and to ARCHITECTURE.md"
            )));
            continue;
        };
        let own = package
            .dependencies
            .iter()
            .filter(|d| d.path.is_some() && d.kind.as_deref() != Some("dev"));
        for dependency in own.filter(|d| !allowed.contains(&d.name.as_str())) {
            problems.push(Problem::error(format!(
                "{name} must not depend on {}: its layer sees {}",
                dependency.name,
                if allowed.is_empty() {
                    "no other crate".to_owned()
                } else {
                    allowed.join(", ")
                },
            )));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Dependency;
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).into(),
            kind: kind.map(str::to_owned),
            path: Some("/".into()),
        };
        Package {
            name: name.into(),
            version: "0.1.0".into(),
            license: None,
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn the_server_never_sees_the_engine() {
        for forbidden in ["biga-control", "biga-agent", "biga-runtime"] {
            let found = breaches(&[package("biga-server", &[(forbidden, None)])]);
            assert_eq!(found.len(), 1, "{forbidden}");
            assert!(found[0].text.contains(forbidden), "{found:?}");
        }
        assert_eq!(
            breaches(&[package(
                "biga-server",
                &[("biga-store", None), ("biga-agent", Some("dev"))]
            )]),
            []
        );
    }

    #[test]
    fn build_dependencies_count() {
        assert_eq!(
            breaches(&[package("biga-model", &[("biga-wire", Some("build"))])]).len(),
            1
        );
    }

    #[test]
    fn a_new_crate_needs_a_layer() {
        assert!(breaches(&[package("biga-new", &[])])[0].text.contains("no layer"));
    }

    #[test]
    fn the_program_sees_everything() {
        assert_eq!(
            breaches(&[package("biga", &[("biga-agent", None), ("biga-server", None)])]),
            []
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each row may name only rows above it, or the two that join late.
        for (row, (name, allowed)) in LAYERS.iter().enumerate() {
            for dependency in *allowed {
                let above = LAYERS[..row].iter().any(|(n, _)| n == dependency);
                assert!(above, "{name} names {dependency}, which does not stand above it");
            }
        }
    }
}
