//! The one error of the routes, and its form as Docker's `{"message": …}`.

use axum::response::{IntoResponse, Response};
use biga_model::FieldError;
use biga_store::typed;
use http::{HeaderValue, StatusCode, header};

use crate::backend::{Fault, FaultKind};

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The status code of Docker's reference.
    pub status: StatusCode,
    /// A sentence for people.
    pub message: String,
}

/// What handlers return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Error {
        Error {
            status,
            message: message.into(),
        }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Error {
        Error::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(StatusCode::NOT_FOUND, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(StatusCode::CONFLICT, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 501: what is missing, as in "health checks".
    pub fn missing(what: impl std::fmt::Display) -> Error {
        Error::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("{what}: not supported by Biga yet"),
        )
    }

    /// 400 with all that is wrong with an object.
    pub fn invalid(fields: &[FieldError]) -> Error {
        let all: Vec<String> = fields.iter().map(FieldError::to_string).collect();
        Error::bad(all.join("; "))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "message": self.message }).to_string() + "\n";
        let mut r = (self.status, body).into_response();
        r.headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        r
    }
}

impl From<typed::Error> for Error {
    fn from(e: typed::Error) -> Error {
        let status = match &e {
            typed::Error::NotFound { .. } => StatusCode::NOT_FOUND,
            typed::Error::AlreadyExists { .. } | typed::Error::Conflict { .. } => StatusCode::CONFLICT,
            typed::Error::Store(biga_store::Error::Closed) => StatusCode::SERVICE_UNAVAILABLE,
            typed::Error::Unversioned { .. } | typed::Error::Damaged { .. } | typed::Error::Store(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Error::new(status, e.to_string())
    }
}

impl From<biga_store::Error> for Error {
    fn from(e: biga_store::Error) -> Error {
        typed::Error::Store(e).into()
    }
}

impl From<Fault> for Error {
    fn from(f: Fault) -> Error {
        let status = match f.kind {
            FaultKind::Invalid => StatusCode::BAD_REQUEST,
            FaultKind::Unauthorized => StatusCode::UNAUTHORIZED,
            FaultKind::Forbidden => StatusCode::FORBIDDEN,
            FaultKind::NotFound => StatusCode::NOT_FOUND,
            FaultKind::Conflict => StatusCode::CONFLICT,
            FaultKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            FaultKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Error::new(status, f.message)
    }
}
