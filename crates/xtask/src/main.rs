//! Development tasks. `cargo xtask check` holds the repository to its own rules.
//!
//! Each rule is a file under [`check`]; each says where the rule stands and what to do when it is broken. `cargo xtask fuzz`
//! runs the fuzzers that need no special compiler.

mod check;
mod fuzz;

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
    /// Feed everything that reads foreign bytes with mutilated input.
    Fuzz {
        /// How long for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Makes the tries of an earlier run again; it is printed with each failure.
        #[arg(long)]
        seed: Option<u64>,
        /// Only the tests whose name holds this word, as layers or manifests.
        target: Option<String>,
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
        Task::Fuzz { seconds, seed, target } => fuzz::run(root, seconds, seed, target.as_deref()),
    }
}
