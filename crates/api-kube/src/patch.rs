//! Patch: JSON patch (RFC 6902) and JSON merge patch (RFC 7386).

use axum::response::Response;
use biga_model::{Kind, Object};
use http::StatusCode;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::decode::{self, Decoded, MAX_BODY};
use crate::error::{ApiError, ErrorKind};
use crate::resource::{Call, Resource};
use crate::write::{SWAP_TRIES, content_type, to_value, unsupported};

/// At most so many operations in a JSON patch, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;
/// No patch may nest deeper: the JSON parser's own bound.
const MAX_DEPTH: usize = 128;

/// A patch that was read.
enum Change {
    Json(Patch),
    Merge(Value),
}

impl Change {
    fn read(call: &Call) -> Result<Change, ApiError> {
        let media = content_type(call);
        match media.as_str() {
            "application/json-patch+json" => {
                let patch: Patch = serde_json::from_value(decode::json(&call.body)?)
                    .map_err(|e| ApiError::bad_request(format!("the body is no JSON patch: {e}")))?;
                if patch.0.len() > MAX_OPERATIONS {
                    return Err(ApiError::new(
                        ErrorKind::TooLarge,
                        format!(
                            "a JSON patch has at most {MAX_OPERATIONS} operations, this one has {}",
                            patch.0.len()
                        ),
                    ));
                }
                Ok(Change::Json(patch))
            }
            "application/merge-patch+json" => {
                let patch = decode::json(&call.body)?;
                if !patch.is_object() {
                    return Err(ApiError::bad_request("a merge patch is a JSON object"));
                }
                Ok(Change::Merge(patch))
            }
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => Err(ApiError::new(
                ErrorKind::UnsupportedMediaType,
                "server-side apply is not supported: use client-side apply (kubectl apply without --server-side)",
            )),
            other => Err(unsupported(
                other,
                "application/json-patch+json, application/merge-patch+json",
            )),
        }
    }

    /// Whether the patch says at which version it applies.
    fn names_version(&self) -> bool {
        match self {
            Change::Merge(v) => v.pointer("/metadata/resourceVersion").is_some(),
            Change::Json(p) => {
                p.0.iter()
                    .any(|op| op.path().to_string().starts_with("/metadata/resourceVersion"))
            }
        }
    }

    fn apply(&self, value: &mut Value) -> Result<(), ApiError> {
        match self {
            Change::Merge(patch) => {
                json_patch::merge(value, patch);
                bounded(value)
            }
            Change::Json(patch) => {
                for op in &patch.0 {
                    apply_one(value, op)?;
                }
                bounded(value)
            }
        }
    }
}

fn apply_one(value: &mut Value, op: &PatchOperation) -> Result<(), ApiError> {
    json_patch::patch(value, std::slice::from_ref(op)).map_err(|e| {
        let message = format!("the server rejected our request due to an error in our request: {e}");
        ApiError::new(ErrorKind::Invalid, message)
    })?;
    // Only copies make the document larger than document and patch together; each can double it.
    if matches!(op, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
        bounded(value)?;
    }
    Ok(())
}

/// Refuses a document that a patch blew up.
fn bounded(value: &Value) -> Result<(), ApiError> {
    match size(value, 0) {
        Some(n) if n <= MAX_BODY => Ok(()),
        _ => Err(ApiError::new(
            ErrorKind::TooLarge,
            "the patched object is too large or nested too deeply",
        )),
    }
}

/// Bytes of the value, roughly; `None` where it is nested too deeply.
fn size(value: &Value, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH {
        return None;
    }
    match value {
        Value::String(s) => Some(s.len() + 2),
        Value::Array(list) => list.iter().map(|v| size(v, depth + 1)).sum::<Option<usize>>(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| size(v, depth + 1).map(|n| n + k.len() + 4))
            .sum::<Option<usize>>(),
        _ => Some(8),
    }
}

impl<K: Kind> Resource<K> {
    pub async fn patch(&self, call: &Call) -> Result<Response, ApiError> {
        let change = Change::read(call)?;
        let named = change.names_version();
        let mut tries = 1;
        loop {
            let current = self.objects.get(call.ns(), call.name()).await?;
            let Decoded { object, warnings } = self.patched(call, &change, &current)?;
            match self.replace(call, &current, object).await {
                Err(e) if e.kind == ErrorKind::Conflict && !named && tries < SWAP_TRIES => tries += 1,
                other => return self.answer(call, StatusCode::OK, &other?, &warnings),
            }
        }
    }

    pub async fn patch_status(&self, call: &Call) -> Result<Response, ApiError> {
        let change = Change::read(call)?;
        let named = change.names_version();
        let mut tries = 1;
        loop {
            let current = self.objects.get(call.ns(), call.name()).await?;
            let Decoded { object, warnings } = self.patched(call, &change, &current)?;
            match self.replace_status(call, &current, object).await {
                Err(e) if e.kind == ErrorKind::Conflict && !named && tries < SWAP_TRIES => tries += 1,
                other => return self.answer(call, StatusCode::OK, &other?, &warnings),
            }
        }
    }

    fn patched(&self, call: &Call, change: &Change, current: &Object<K>) -> Result<Decoded<K>, ApiError> {
        let mut value = to_value(current)?;
        change.apply(&mut value)?;
        let mut decoded = decode::object::<K>(value, self.validation(call)?)?;
        self.place(call, &mut decoded.object)?;
        if decoded.object.metadata.name != current.metadata.name {
            return Err(ApiError::bad_request("a patch cannot change metadata.name"));
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_cannot_blow_up_memory_or_stack() {
        let copies = |from: &str, to: &str| json!({"op": "copy", "from": from, "path": to});
        let doubling: Vec<Value> = (0..64).map(|i| copies("", &format!("/k{i}"))).collect();
        let deeper: Vec<Value> = (0..200).map(|_| copies("/a", "/a/b")).collect();
        for ops in [doubling, deeper] {
            let change = Change::Json(serde_json::from_value(json!(ops)).unwrap());
            let mut doc = json!({"a": {"c": "x".repeat(1000)}});
            assert_eq!(change.apply(&mut doc).unwrap_err().kind, ErrorKind::TooLarge);
        }
    }
}
