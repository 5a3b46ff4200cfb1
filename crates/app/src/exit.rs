//! What the exit code of `biga` says. This is the one place where the codes are defined.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; the message says why |
//! | 2 | the command line makes no sense |
//! | 3 | there is no such object, or no such kind |
//! | 4 | the object exists already, was changed meanwhile, or is in the wrong state |
//! | 5 | the object breaks a rule of its kind; the message lists the fields |
//! | 6 | the daemon cannot be reached |
//! | 7 | it took too long |
//! | 8 | not allowed |
//! | 125 | `run`, `start -a`: Biga could not make or start the instance |
//! | 126 | `run`, `start -a`, `exec`: the program cannot be executed |
//! | 127 | `run`, `start -a`, `exec`: there is no such program |
//! | any | `run`, `start -a`, `attach`, `exec`: the exit code of the process; 128+n after signal n |

use biga_client::ErrorKind;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// Done.
    pub const OK: Code = Code(0);
    /// Failed.
    pub const FAILED: Code = Code(1);
    /// Makes no sense.
    pub const USAGE: Code = Code(2);
    /// Not there.
    pub const NOT_FOUND: Code = Code(3);
    /// In the way, or in the wrong state.
    pub const CONFLICT: Code = Code(4);
    /// Breaks a rule.
    pub const INVALID: Code = Code(5);
    /// No daemon.
    pub const UNREACHABLE: Code = Code(6);
    /// Too slow.
    pub const TIMEOUT: Code = Code(7);
    /// Not allowed.
    pub const DENIED: Code = Code(8);
    /// `run` failed before the process ran.
    pub const RUN_FAILED: Code = Code(125);
    /// The program cannot be executed.
    pub const NOT_EXECUTABLE: Code = Code(126);
    /// There is no such program.
    pub const NO_PROGRAM: Code = Code(127);

    /// The code of a process: what the kernel gives is 0 to 255 already.
    pub fn of_process(code: i32) -> Code {
        Code(u8::try_from(code).unwrap_or(Code::RUN_FAILED.0))
    }

    /// The code of an error, by its kind.
    pub fn of_error(e: &anyhow::Error) -> Code {
        for cause in e.chain() {
            if let Some(f) = cause.downcast_ref::<Fail>() {
                return f.code;
            }
            if let Some(e) = cause.downcast_ref::<biga_client::Error>() {
                return Code::of_kind(e.kind);
            }
            if let Some(e) = cause.downcast_ref::<biga_client::StreamError>() {
                return match e {
                    biga_client::StreamError::Api(e) => Code::of_kind(e.kind),
                    biga_client::StreamError::Refused { code, .. } => Code::of_refusal(*code),
                };
            }
        }
        Code::FAILED
    }

    fn of_kind(kind: ErrorKind) -> Code {
        match kind {
            ErrorKind::NotFound => Code::NOT_FOUND,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => Code::CONFLICT,
            ErrorKind::Invalid | ErrorKind::BadRequest => Code::INVALID,
            ErrorKind::Denied => Code::DENIED,
            ErrorKind::Unreachable => Code::UNREACHABLE,
            ErrorKind::Timeout | ErrorKind::Unavailable => Code::TIMEOUT,
            ErrorKind::Usage => Code::USAGE,
            ErrorKind::Expired | ErrorKind::Unsupported | ErrorKind::Internal | ErrorKind::Protocol => Code::FAILED,
        }
    }

    fn of_refusal(code: biga_wire::shim::ErrorCode) -> Code {
        use biga_wire::shim::ErrorCode;
        match code {
            ErrorCode::NotFound => Code::NO_PROGRAM,
            ErrorCode::NotExecutable => Code::NOT_EXECUTABLE,
            ErrorCode::State => Code::CONFLICT,
            ErrorCode::Invalid => Code::INVALID,
            ErrorCode::Unsupported | ErrorCode::Failed => Code::FAILED,
        }
    }
}

/// A failure that chose its code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fail {
    /// The exit code.
    pub code: Code,
    /// A sentence for people; nothing is printed where it is empty.
    pub message: String,
}

/// A failure with a code and a sentence.
pub fn fail(code: Code, message: impl Into<String>) -> anyhow::Error {
    Fail {
        code,
        message: message.into(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_code_is_found_below_any_context() {
        let e: anyhow::Error = biga_client::Error::new(ErrorKind::NotFound, "gone").into();
        let e = Err::<(), _>(e).context("looking").unwrap_err();
        assert_eq!(Code::of_error(&e), Code::NOT_FOUND);
        assert_eq!(Code::of_error(&fail(Code(125), "x")), Code::RUN_FAILED);
        assert_eq!(Code::of_error(&anyhow::anyhow!("x")), Code::FAILED);
        let refused: anyhow::Error = biga_client::StreamError::Refused {
            code: biga_wire::shim::ErrorCode::NotFound,
            message: "no".into(),
        }
        .into();
        assert_eq!(Code::of_error(&refused), Code::NO_PROGRAM);
    }
}
