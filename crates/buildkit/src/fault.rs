//! Failures as gRPC tells them, with the lines of the Dockerfile that clients show.

use base64::Engine as _;
use prost::Message;
use serde_json::json;
use tonic::{Code, Status};

use crate::engine::{Fault, FaultKind};
use crate::proto::{Any, RpcStatus};

/// Kind of detail that shows lines of a file.
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// The Dockerfile that a failure points into.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// How it is called.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
}

/// As gRPC's status. Codes other than `Unknown` are written in front of the message by clients, which helps nobody.
pub fn status(fault: &Fault, file: Option<&Shown>) -> Status {
    let code = match fault.kind {
        FaultKind::Cancelled => Code::Cancelled,
        FaultKind::Unsupported => Code::Unimplemented,
        FaultKind::Invalid | FaultKind::NotFound | FaultKind::Failed => Code::Unknown,
    };
    let details = match (fault.line, file) {
        (Some(line), Some(file)) if !file.text.is_empty() => vec![source(line, file)],
        _ => Vec::new(),
    };
    let whole = RpcStatus {
        code: code as i32,
        message: fault.message.clone(),
        details,
    };
    Status::with_details(code, fault.message.clone(), whole.encode_to_vec().into())
}

fn source(line: usize, file: &Shown) -> Any {
    let text = base64::engine::general_purpose::STANDARD.encode(&file.text);
    let place = json!({"line": line});
    let value = json!({
        "info": {"filename": file.name, "data": text},
        "ranges": [{"start": place, "end": place}],
    });
    Any {
        type_url: SOURCE.into(),
        value: value.to_string().into_bytes(),
    }
}

/// What a client says that it failed with, passed on as it is.
pub fn passed_on(error: &RpcStatus) -> Status {
    Status::with_details(
        Code::from_i32(error.code),
        error.message.clone(),
        error.encode_to_vec().into(),
    )
}
