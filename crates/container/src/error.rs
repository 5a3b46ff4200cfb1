//! Why a container could not be made or run.

use std::io;

use biga_wire::shim::ErrorCode;
use biga_wire::workload::Fault;

/// Why a container could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of making it failed.
    #[error("cannot {what}: {source}")]
    Step {
        /// What was attempted, to what.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program is not in the image.
    #[error("program {0:?} was not found in the image: check the command and its PATH")]
    NotFound(String),
    /// The program cannot be executed.
    #[error("program {program:?} cannot be executed: {source}")]
    NotExecutable {
        /// As given.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The user is not in the image.
    #[error("user {0:?} is not in the image's /etc/passwd: use a number or add it to the image")]
    User(String),
    /// The group is not in the image.
    #[error("group {0:?} is not in the image's /etc/group: use a number or add it to the image")]
    Group(String),
    /// A capability that does not exist.
    #[error("capability {0:?} does not exist")]
    Capability(String),
    /// A limit that does not exist.
    #[error("resource limit {0:?} does not exist")]
    Rlimit(String),
    /// A kernel parameter that is not a namespace's own.
    #[error("kernel parameter {0:?} belongs to the host, not to the container: set it on the host")]
    Sysctl(String),
    /// A field of the configuration that makes no sense.
    #[error("{0} is not valid: {1}")]
    Field(&'static str, String),
    /// A file system cannot show other owners.
    #[error(
        "the ids of {what} cannot be mapped: its file system ({kind}) does not support that on this kernel; run the instance without a user namespace of its own (--userns host), or put it on another file system"
    )]
    NoIdMap {
        /// What was to be mounted.
        what: String,
        /// Its file system.
        kind: String,
    },
    /// Another runtime could not, or did not answer.
    #[error("runtime {runtime} could not {verb}: {said}")]
    Runtime {
        /// Its name.
        runtime: String,
        /// What it was told, for people.
        verb: &'static str,
        /// Its own words.
        said: String,
        /// For programs.
        code: ErrorCode,
    },
    /// What only our own runtime does.
    #[error("{what} is not done with runtime {runtime}: leave the runtime out, which means Biga's own")]
    OnlyOwn {
        /// What was asked for.
        what: &'static str,
        /// The runtime's name.
        runtime: String,
    },
    /// A hook failed.
    #[error("hook {path} of {stage} failed: {why}")]
    Hook {
        /// Program.
        path: String,
        /// Which list.
        stage: &'static str,
        /// How.
        why: String,
    },
    /// Not in this state.
    #[error("{0}")]
    State(&'static str),
    /// It cannot be checkpointed.
    #[error("a container with {0} cannot be checkpointed")]
    NoCheckpoint(&'static str),
    /// A checkpoint does not fit what is to go on from it.
    #[error("checkpoint {0} cannot be restored: {1}")]
    Checkpoint(std::path::PathBuf, String),
    /// CRIU is missing or failed.
    #[error(transparent)]
    Criu(#[from] crate::criu::Error),
    /// Reported by the child.
    #[error("{message}")]
    Child {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
    /// The child ended before it said anything.
    #[error(
        "the container's first process was killed while it was being set up (code {0}): is its memory limit too small?"
    )]
    Died(i32),
}

impl Error {
    /// What a program can do about it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::NotFound(_) => ErrorCode::NotFound,
            Error::NotExecutable { .. } => ErrorCode::NotExecutable,
            Error::User(_)
            | Error::Group(_)
            | Error::Capability(_)
            | Error::Rlimit(_)
            | Error::Sysctl(_)
            | Error::Field(..) => ErrorCode::Invalid,
            Error::NoIdMap { .. }
            | Error::OnlyOwn { .. }
            | Error::NoCheckpoint(_)
            | Error::Criu(crate::criu::Error::Missing) => ErrorCode::Unsupported,
            Error::State(_) => ErrorCode::State,
            Error::Checkpoint(..) => ErrorCode::Invalid,
            Error::Criu(_) => ErrorCode::Failed,
            Error::Child { code, .. } | Error::Runtime { code, .. } => *code,
            Error::Step { .. } | Error::Hook { .. } | Error::Died(_) => ErrorCode::Failed,
        }
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::new(e.code(), e.to_string())
    }
}

/// Names the step that failed.
pub trait Context<T> {
    /// `what` follows "cannot".
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Step {
            what: what(),
            source: e.into(),
        })
    }
}
