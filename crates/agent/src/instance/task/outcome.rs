//! Ends that nobody told, and starts that failed, in the words of a status.

use biga_runtime::Error as RuntimeError;
use biga_wire::shim::{ErrorCode, Exit};

use crate::instance::Failure;

/// The end of a run whose shim was killed and could say nothing.
pub(super) fn lost() -> Exit {
    Exit {
        code: 137,
        signal: Some(9),
        error: Some("the process that held it was killed".into()),
        ..Exit::default()
    }
}

pub(super) fn launch_failure(e: &RuntimeError) -> Failure {
    match e {
        RuntimeError::Refused {
            code: ErrorCode::NotFound,
            message,
        } => Failure {
            reason: "ProgramNotFound",
            message: message.clone(),
            exit_code: 127,
        },
        RuntimeError::Refused {
            code: ErrorCode::NotExecutable,
            message,
        } => Failure {
            reason: "ProgramNotExecutable",
            message: message.clone(),
            exit_code: 126,
        },
        e => Failure::new("StartFailed", e.to_string()),
    }
}
