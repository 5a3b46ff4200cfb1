//! The language of Dockerfiles, without any input or output: text in, instructions out.
//!
//! ```text
//! text ── lines ──► logical lines ── instruction ──► Step … ── stages ──► global ARGs and stages
//!         comments, continuations,    flags, JSON                         which of them a target needs
//!         directives, heredocs
//! ```
//!
//! - [`parse`]: a whole file
//! - [`expand`]: variables and quotes of one word
//! - [`config`]: what instructions make of the `config` object of an image
//! - [`ignore`][]: `.dockerignore`
//! - [`glob`]: patterns of paths
//!
//! It follows the [reference](https://docs.docker.com/reference/dockerfile/). Nothing in here panics, whatever the text; what
//! is wrong is told with its line, as Docker does.

pub mod config;
pub mod expand;
pub mod glob;
pub mod ignore;

mod duration;
mod flags;
mod instruction;
mod lines;
mod mount;
mod stages;
mod words;

pub use duration::show as show_duration;
pub use instruction::{Command, Health, Instruction, Owner, Run, Transfer};
pub use lines::Heredoc;
pub use mount::{Mount, MountKind, Sharing};
pub use stages::{Dockerfile, Stage, parse};

/// Largest Dockerfile, in bytes.
pub const MAX_SIZE: usize = 4 << 20;

/// One instruction, where it stands and how it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its first line, counted from 1.
    pub line: usize,
    /// As it was written, on one line.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// Why a Dockerfile makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// At a line, counted from 1.
    #[error("dockerfile parse error on line {line}: {why}")]
    At {
        /// The line.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// With the whole.
    #[error("{0}")]
    Whole(String),
}

impl Error {
    fn at(line: usize, why: impl Into<String>) -> Error {
        Error::At { line, why: why.into() }
    }
}
