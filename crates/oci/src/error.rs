//! Why a command failed. The words that engines look for in a runtime's answers are those of `runc`.

use std::io;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From making or confining a process.
    #[error(transparent)]
    Container(#[from] biga_container::Error),
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// A property that makes no sense.
    #[error("config.json: {field} is not valid: {why}")]
    Invalid {
        /// Its path in the document.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// A property that cannot be honoured here.
    #[error("config.json: {field} cannot be honoured: {why}")]
    Unsupported {
        /// Its path in the document.
        field: String,
        /// Why not.
        why: String,
    },
    /// The document cannot be read as one.
    #[error("{path} is not valid: {source}")]
    Json {
        /// Which file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// No such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("container with given ID already exists: {0:?}")]
    Exists(String),
    /// Not in this state.
    #[error("{0}")]
    State(String),
    /// Said by the container's first process.
    #[error("{0}")]
    Child(String),
    /// The child went away without a word.
    #[error("the container's first process was killed while it was being set up ({0}): is its memory limit too small?")]
    Died(String),
}

impl Error {
    /// A property that makes no sense.
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Invalid {
            field: field.into(),
            why: why.into(),
        }
    }

    /// A property that cannot be honoured.
    pub fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Unsupported {
            field: field.into(),
            why: why.into(),
        }
    }
}

/// Names the step that failed.
pub(crate) trait Step<T> {
    /// `what` follows "cannot".
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        biga_container::Context::step(self, what).map_err(Error::Container)
    }
}
