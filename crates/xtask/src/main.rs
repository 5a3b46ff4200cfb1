//! Development tasks: `cargo xtask check` holds the repository to its own rules.
//!
//! Each rule is a file under [`check`]; each says where the rule stands and what to do when it is broken.

mod check;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check layers, sizes, licences and the other rules of the repository.
    Check {
        /// Only these rules; all where none is named.
        rules: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("xtask does not lie in crates/xtask")?;
    match cli.task {
        Task::Check { rules } => check::run(root, &rules),
    }
}
