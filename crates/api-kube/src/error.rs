//! The one API error, and its form as a Kubernetes `Status`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use biga_model::{FieldError, GROUP};
use biga_store::typed;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// Kinds of failure, each with one status code and one `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400: the request makes no sense.
    BadRequest,
    /// 401: nobody was named.
    Unauthorized,
    /// 403: known, and not allowed.
    Forbidden,
    /// 404: no such object or route.
    NotFound,
    /// 405: the route does not take this method.
    MethodNotAllowed,
    /// 406: no offered representation is acceptable.
    NotAcceptable,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: somebody else changed it, or its state does not allow it.
    Conflict,
    /// 410: the revision was compacted away.
    Expired,
    /// 413: the body is too large.
    TooLarge,
    /// 415: this kind of body or patch is not taken.
    UnsupportedMediaType,
    /// 422: fields are wrong; `causes` names them.
    Invalid,
    /// 429: try again later.
    TooManyRequests,
    /// 500: the server's fault.
    Internal,
    /// 501: this server or host cannot do it.
    Unsupported,
    /// 503: not now.
    Unavailable,
    /// 504: waited too long.
    Timeout,
}

impl ErrorKind {
    /// The HTTP status code.
    pub fn code(self) -> StatusCode {
        use ErrorKind::*;
        match self {
            BadRequest => StatusCode::BAD_REQUEST,
            Unauthorized => StatusCode::UNAUTHORIZED,
            Forbidden => StatusCode::FORBIDDEN,
            NotFound => StatusCode::NOT_FOUND,
            MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            AlreadyExists | Conflict => StatusCode::CONFLICT,
            Expired => StatusCode::GONE,
            TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Unsupported => StatusCode::NOT_IMPLEMENTED,
            Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// `reason` as the Kubernetes API spells it.
    pub fn reason(self) -> &'static str {
        use ErrorKind::*;
        match self {
            BadRequest => "BadRequest",
            Unauthorized => "Unauthorized",
            Forbidden => "Forbidden",
            NotFound => "NotFound",
            MethodNotAllowed => "MethodNotAllowed",
            NotAcceptable => "NotAcceptable",
            AlreadyExists => "AlreadyExists",
            Conflict => "Conflict",
            Expired => "Expired",
            TooLarge => "RequestEntityTooLarge",
            UnsupportedMediaType => "UnsupportedMediaType",
            Invalid => "Invalid",
            TooManyRequests => "TooManyRequests",
            Internal => "InternalError",
            Unsupported => "NotImplemented",
            Unavailable => "ServiceUnavailable",
            Timeout => "Timeout",
        }
    }
}

/// One wrong field, or another detail of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// As `FieldValueInvalid`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The field's path, empty where it is about none.
    pub field: String,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// A sentence for people; goes to the client.
    pub message: String,
    /// Plural of the kind it is about.
    pub resource: &'static str,
    /// Name of the object it is about.
    pub name: String,
    /// Each wrong field.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// A failure without details.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: message.into(),
            resource: "",
            name: String::new(),
            causes: Vec::new(),
            retry_after: None,
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::BadRequest, message)
    }

    /// 500. The message goes to the client; the cause belongs in the log.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Internal, message)
    }

    /// 404 for an object.
    pub fn not_found(resource: &'static str, name: &str) -> ApiError {
        let message = format!("{} {name:?} not found", qualified(resource));
        ApiError::new(ErrorKind::NotFound, message).about(resource, name)
    }

    /// 404 for a path.
    pub fn no_route() -> ApiError {
        ApiError::new(ErrorKind::NotFound, "the server could not find the requested resource")
    }

    /// 405.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(
            ErrorKind::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// 422 with all that is wrong.
    pub fn invalid(kind: &'static str, resource: &'static str, name: &str, fields: &[FieldError]) -> ApiError {
        let causes: Vec<Cause> = fields
            .iter()
            .map(|f| Cause {
                reason: "FieldValueInvalid",
                message: f.reason.clone(),
                field: f.path.clone(),
            })
            .collect();
        let all: Vec<String> = fields.iter().map(FieldError::to_string).collect();
        let all = match &all[..] {
            [one] => one.clone(),
            _ => format!("[{}]", all.join(", ")),
        };
        let message = format!("{kind}.{GROUP} {name:?} is invalid: {all}");
        ApiError {
            causes,
            ..ApiError::new(ErrorKind::Invalid, message).about(resource, name)
        }
    }

    /// The same, about an object.
    pub fn about(mut self, resource: &'static str, name: &str) -> ApiError {
        self.resource = resource;
        self.name = name.into();
        self
    }

    /// The same, with the time after which to try again.
    pub fn retry_after(mut self, seconds: u32) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// The Kubernetes `Status`.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.kind.reason(),
            "code": self.kind.code().as_u16(),
        });
        let mut details = serde_json::Map::new();
        if !self.name.is_empty() {
            details.insert("name".into(), json!(self.name));
        }
        if !self.resource.is_empty() {
            details.insert("group".into(), json!(GROUP));
            details.insert("kind".into(), json!(self.resource));
        }
        if !self.causes.is_empty() {
            let one = |c: &Cause| json!({"reason": c.reason, "message": c.message, "field": c.field});
            details.insert("causes".into(), self.causes.iter().map(one).collect());
        }
        if let Some(s) = self.retry_after {
            details.insert("retryAfterSeconds".into(), json!(s));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// `instances.biga.dev`.
pub(crate) fn qualified(resource: &str) -> String {
    format!("{resource}.{GROUP}")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.status().to_string()));
        *response.status_mut() = self.kind.code();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(s) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(s));
        }
        response
    }
}

impl From<biga_store::Error> for ApiError {
    fn from(e: biga_store::Error) -> ApiError {
        use biga_store::Error::*;
        let kind = match &e {
            Conflict { .. } => ErrorKind::Conflict,
            TooOld { .. } => {
                let message = format!("too old resource version: {e}");
                return ApiError::new(ErrorKind::Expired, message);
            }
            Lagged => ErrorKind::Expired,
            NoLease(_) | Invalid(_) => ErrorKind::BadRequest,
            Closed => ErrorKind::Unavailable,
            Io { .. } => {
                tracing::error!(error = %e, "the store failed");
                ErrorKind::Internal
            }
        };
        ApiError::new(kind, e.to_string())
    }
}

impl From<typed::Error> for ApiError {
    fn from(e: typed::Error) -> ApiError {
        use typed::Error::*;
        match e {
            NotFound { plural, name } => ApiError::not_found(plural, &name),
            AlreadyExists { plural, name } => ApiError::new(
                ErrorKind::AlreadyExists,
                format!("{} {name:?} already exists", qualified(plural)),
            )
            .about(plural, &name),
            Conflict { plural, name, why } => ApiError::new(
                ErrorKind::Conflict,
                format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(plural)),
            )
            .about(plural, &name),
            e @ Unversioned { .. } => ApiError::bad_request(e.to_string()),
            e @ Damaged { .. } => {
                tracing::error!(error = %e, "the store holds a damaged object");
                ApiError::internal(e.to_string())
            }
            Store(e) => e.into(),
        }
    }
}
