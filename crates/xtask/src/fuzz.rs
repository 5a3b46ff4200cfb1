//! The fuzzers: tests of `biga-image` that go on for as long as they are told. They change specimens at random and need no
//! special compiler; `fuzz/` has the same targets for `cargo fuzz`, which watches what the input reaches.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub fn run(root: &Path, seconds: u64, seed: Option<u64>, target: Option<&str>) -> Result<()> {
    let filter = format!("fuzz::{}", target.unwrap_or_default());
    let mut c = Command::new("cargo");
    c.args(["test", "-p", "biga-image", "--test", "it", "--", &filter, "--nocapture"])
        .current_dir(root)
        .env("BIGA_FUZZ_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        c.env("BIGA_FUZZ_SEED", seed.to_string());
    }
    let status = c.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "a target failed: the input and the seed are named above"
    );
    Ok(())
}
