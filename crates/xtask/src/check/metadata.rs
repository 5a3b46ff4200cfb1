//! `cargo metadata`, as far as the rules read it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The answer.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// Of the workspace and, unless asked without, of everything it depends on.
    pub packages: Vec<Package>,
}

/// One package.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub license: Option<String>,
    #[serde(default)]
    pub dependencies: Vec<Dependency>,
}

/// What a package asks for.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `dev`, `build`, or neither.
    pub kind: Option<String>,
    /// Set for packages of the workspace.
    pub path: Option<String>,
}

/// The one target that is built.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Asks cargo. `dependencies` also resolves what the workspace depends on.
pub fn load(root: &Path, dependencies: bool) -> Result<Metadata> {
    let mut args = vec!["--format-version=1"];
    match dependencies {
        true => args.extend(["--filter-platform", TARGET]),
        false => args.push("--no-deps"),
    };
    serde_json::from_str(&cargo(root, "metadata", &args)?).context("cargo metadata answers in an unknown form")
}

/// Runs a cargo command and returns what it prints.
pub fn cargo(root: &Path, command: &str, args: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .current_dir(root)
        .arg(command)
        .args(args)
        .output()
        .with_context(|| format!("cannot run cargo {command}"))?;
    if !output.status.success() {
        bail!("cargo {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("cargo {command} does not answer in UTF-8"))
}
