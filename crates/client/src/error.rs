//! What went wrong.

use std::fmt;

use serde::Deserialize;

/// A failed call. `message` is a sentence for people; programs look at `kind`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", Causes(&self.causes))]
pub struct Error {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// A sentence for people.
    pub message: String,
    /// With [`ErrorKind::Invalid`]: each field that is wrong.
    pub causes: Vec<Cause>,
    /// The object's name, where the server gave one.
    pub name: String,
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cause {
    /// Its path, as `spec.containers[0].env[2].name`.
    #[serde(default)]
    pub field: String,
    /// What is wrong with it.
    #[serde(default)]
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object or path.
    NotFound,
    /// An object of this name is there already.
    AlreadyExists,
    /// The object was changed meanwhile, or is in a state that does not allow the call.
    Conflict,
    /// The object breaks a rule of its kind; see [`Error::causes`].
    Invalid,
    /// The request cannot be understood.
    BadRequest,
    /// The client did not say who it is, or may not do this.
    Denied,
    /// The revision asked for was compacted away: list again.
    Expired,
    /// The daemon cannot do it now: try again.
    Unavailable,
    /// It took too long.
    Timeout,
    /// This node or isolation cannot do it.
    Unsupported,
    /// The daemon failed.
    Internal,
    /// The daemon cannot be reached, or the connection broke.
    Unreachable,
    /// What was answered is not what the protocol says.
    Protocol,
    /// The caller asked for something that makes no sense.
    Usage,
}

impl Error {
    /// An error without causes.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
            causes: Vec::new(),
            name: String::new(),
        }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Protocol, message)
    }

    /// Whether nothing of this name is there.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether the same call may succeed when it is made again.
    pub fn retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Unreachable
        )
    }

    /// Reads the answer to a request that failed: a Kubernetes `Status`, or any text.
    pub fn from_response(code: u16, body: &[u8]) -> Error {
        match serde_json::from_slice::<Status>(body) {
            Ok(s) if s.kind == "Status" => s.into_error(code),
            _ => {
                let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
                let text = text.trim();
                Error::new(
                    kind_of_code(code),
                    if text.is_empty() {
                        format!("the daemon answered {code} without saying why")
                    } else {
                        format!("the daemon answered {code}: {text}")
                    },
                )
            }
        }
    }

    /// Reads a `Status` that came where an object was expected (in a watch, or as the last line of a long call).
    pub fn from_status(value: &serde_json::Value) -> Error {
        match Status::deserialize(value) {
            Ok(s) => {
                let code = s.code.unwrap_or(500);
                s.into_error(code)
            }
            Err(_) => Error::protocol(format!("the daemon reported an error that cannot be read: {value}")),
        }
    }
}

struct Causes<'a>(&'a [Cause]);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0 {
            write!(f, "\n  {}: {}", c.field, c.message)?;
        }
        Ok(())
    }
}

/// `metav1.Status`.
#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    name: String,
    #[serde(default)]
    causes: Vec<Cause>,
}

impl Status {
    fn into_error(self, code: u16) -> Error {
        let kind = match self.reason.as_str() {
            "NotFound" => ErrorKind::NotFound,
            "AlreadyExists" => ErrorKind::AlreadyExists,
            "Conflict" => ErrorKind::Conflict,
            "Invalid" => ErrorKind::Invalid,
            "BadRequest" => ErrorKind::BadRequest,
            "Forbidden" | "Unauthorized" => ErrorKind::Denied,
            "Expired" | "Gone" => ErrorKind::Expired,
            "ServiceUnavailable" | "TooManyRequests" => ErrorKind::Unavailable,
            "Timeout" | "ServerTimeout" => ErrorKind::Timeout,
            "MethodNotAllowed" | "NotAcceptable" | "UnsupportedMediaType" => ErrorKind::Unsupported,
            "InternalError" => ErrorKind::Internal,
            _ => kind_of_code(self.code.unwrap_or(code)),
        };
        let details = self.details.unwrap_or_default();
        // Where the message already spells each cause out, the list would only repeat it.
        let causes = if details.causes.iter().all(|c| self.message.contains(&c.message)) && details.causes.len() < 2 {
            Vec::new()
        } else {
            details.causes
        };
        let message = if causes.is_empty() {
            self.message
        } else {
            // The server's message joins the causes into one long line; the list below it is easier to read.
            match self.message.split_once(" is invalid: ") {
                Some((what, _)) => format!("{what} is invalid:"),
                None => self.message,
            }
        };
        Error {
            kind,
            message,
            causes,
            name: details.name,
        }
    }
}

fn kind_of_code(code: u16) -> ErrorKind {
    match code {
        400 => ErrorKind::BadRequest,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        405 | 406 | 415 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::Timeout,
        409 => ErrorKind::Conflict,
        410 => ErrorKind::Expired,
        422 => ErrorKind::Invalid,
        429 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_an_error_with_its_causes() {
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422,
            "message": "Instance \"x\" is invalid: spec.image: is required; spec.ports[0].port: is 1 to 65535",
            "details": {"name": "x", "causes": [
                {"reason": "FieldValueInvalid", "field": "spec.image", "message": "is required"},
                {"reason": "FieldValueInvalid", "field": "spec.ports[0].port", "message": "is 1 to 65535"},
            ]},
        });
        let e = Error::from_response(422, body.to_string().as_bytes());
        assert_eq!(e.kind, ErrorKind::Invalid);
        assert_eq!(e.name, "x");
        insta::assert_snapshot!(e.to_string(), @r#"
        Instance "x" is invalid:
          spec.image: is required
          spec.ports[0].port: is 1 to 65535
        "#);
    }

    #[test]
    fn the_kind_comes_from_the_reason_then_from_the_code() {
        let status = |reason: &str, code: u16| {
            let v = serde_json::json!({"kind": "Status", "reason": reason, "message": "m", "code": code});
            Error::from_response(code, v.to_string().as_bytes()).kind
        };
        assert_eq!(status("AlreadyExists", 409), ErrorKind::AlreadyExists);
        assert_eq!(status("Conflict", 409), ErrorKind::Conflict);
        assert_eq!(status("", 409), ErrorKind::Conflict);
        assert_eq!(status("Expired", 410), ErrorKind::Expired);
        assert_eq!(status("SomethingNew", 404), ErrorKind::NotFound);
    }

    #[test]
    fn any_other_body_is_shown() {
        let e = Error::from_response(502, b"<html>bad gateway</html>");
        assert_eq!(e.kind, ErrorKind::Internal);
        assert_eq!(e.message, "the daemon answered 502: <html>bad gateway</html>");
        let e = Error::from_response(404, b"");
        assert_eq!(e.kind, ErrorKind::NotFound);
    }
}
