//! From bytes to typed objects: strict, with the path of what is wrong.

use biga_model::{API_VERSION, FieldError, Kind, Object};
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use crate::error::{ApiError, ErrorKind};

/// Largest body of a request in bytes, as in Kubernetes.
pub const MAX_BODY: usize = 3 << 20;
/// More unknown fields than this are not listed.
const MAX_UNKNOWN: usize = 64;

/// What becomes of fields the kind does not have (`?fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Dropped.
    Ignore,
    /// Dropped, with a `Warning` header.
    Warn,
    /// Refused.
    #[default]
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter.
    pub fn parse(value: Option<&str>) -> Result<FieldValidation, ApiError> {
        match value {
            None | Some("Strict") => Ok(FieldValidation::Strict),
            Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(ApiError::bad_request(format!(
                "fieldValidation is Ignore, Warn or Strict, not {other:?}"
            ))),
        }
    }
}

/// Reads JSON. The parser bounds nesting.
pub fn json(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Err(ApiError::bad_request("the request has no body"));
    }
    serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("the body is no valid JSON: {e}")))
}

/// An object, and what was dropped from it.
#[derive(Debug)]
pub struct Decoded<K: Kind> {
    /// The object.
    pub object: Object<K>,
    /// For `Warning` headers.
    pub warnings: Vec<String>,
}

/// Makes an object of JSON. `apiVersion` and `kind` may be left out; nulls count as left out.
pub fn object<K: Kind>(mut value: Value, mode: FieldValidation) -> Result<Decoded<K>, ApiError> {
    let Value::Object(map) = &mut value else {
        return Err(ApiError::bad_request("the body is no JSON object"));
    };
    check_type::<K>(map)?;
    strip_nulls(&mut value);
    let mut unknown: Vec<String> = Vec::new();
    let object = loop {
        match serde_path_to_error::deserialize::<_, Object<K>>(&value) {
            Ok(o) => break o,
            Err(e) => {
                let why = e.inner().to_string();
                if !why.starts_with("unknown field") || unknown.len() >= MAX_UNKNOWN || !remove(&mut value, e.path()) {
                    return Err(wrong::<K>(&value, e.path(), &why));
                }
                unknown.push(format!("unknown field {:?}", render(e.path())));
            }
        }
    };
    match mode {
        FieldValidation::Strict if !unknown.is_empty() => Err(ApiError::bad_request(format!(
            "{} in version \"v1\" cannot be handled as a {}: strict decoding error: {}",
            K::KIND,
            K::KIND,
            unknown.join(", ")
        ))),
        FieldValidation::Ignore => Ok(Decoded {
            object,
            warnings: Vec::new(),
        }),
        _ => Ok(Decoded {
            object,
            warnings: unknown,
        }),
    }
}

fn check_type<K: Kind>(map: &mut Map<String, Value>) -> Result<(), ApiError> {
    for (field, want) in [("apiVersion", API_VERSION), ("kind", K::KIND)] {
        match map.get(field) {
            None | Some(Value::Null) => {
                map.insert(field.into(), want.into());
            }
            Some(v) if v.as_str() == Some("") => {
                map.insert(field.into(), want.into());
            }
            Some(v) if v.as_str() == Some(want) => {}
            Some(v) => {
                return Err(ApiError::bad_request(format!(
                    "the {field} in the body ({v}) does not match what the path says ({want:?})"
                )));
            }
        }
    }
    Ok(())
}

/// Nulls in maps count as left out. Nesting is bounded by the parser.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// `spec.containers[0].env`.
fn render(path: &Path) -> String {
    let mut out = String::new();
    for s in path.iter() {
        match s {
            Segment::Seq { index } => out.push_str(&format!("[{index}]")),
            Segment::Map { key } => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    out
}

/// Removes what `path` points at; whether something was there.
fn remove(value: &mut Value, path: &Path) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((Segment::Map { key: last }, parents)) = segments.split_last() else {
        return false;
    };
    let mut at = value;
    for s in parents {
        let next = match s {
            Segment::Map { key } => at.get_mut(key),
            Segment::Seq { index } => at.get_mut(index),
            Segment::Enum { .. } | Segment::Unknown => Some(at),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    at.as_object_mut().is_some_and(|m| m.shift_remove(last).is_some())
}

/// A value of the wrong type or outside its set: 422 with its path.
fn wrong<K: Kind>(value: &Value, path: &Path, why: &str) -> ApiError {
    let mut field = render(path);
    let mut reason = why.to_string();
    if let Some(name) = why.strip_prefix("missing field `").and_then(|r| r.strip_suffix('`')) {
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(name);
        reason = "is required".into();
    }
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    let mut e = ApiError::invalid(K::KIND, K::PLURAL, name, &[FieldError::new(field, reason)]);
    e.kind = ErrorKind::Invalid;
    e
}

/// Reads options a client may send in a body; an empty body is all defaults.
pub fn options<T: for<'a> Deserialize<'a> + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("the options cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use biga_model::Instance;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let v = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"image": "b", "foo": 1,
            "containers": [{"env": [{"name": "X", "vaule": "y"}]}]}, "status": {}});
        let e = object::<Instance>(v.clone(), FieldValidation::Strict).unwrap_err();
        assert_eq!(e.kind, ErrorKind::BadRequest);
        assert!(e.message.contains("strict decoding error"), "{e}");
        assert!(e.message.contains(r#"unknown field "spec.foo""#), "{e}");
        assert!(
            e.message.contains(r#"unknown field "spec.containers[0].env[0].vaule""#),
            "{e}"
        );
        let warned = object::<Instance>(v.clone(), FieldValidation::Warn).unwrap();
        assert_eq!(warned.warnings.len(), 2);
        assert_eq!(warned.object.spec.containers[0].env[0].name, "X");
        assert!(
            object::<Instance>(v, FieldValidation::Ignore)
                .unwrap()
                .warnings
                .is_empty()
        );
    }

    #[test]
    fn wrong_values_are_invalid_with_path() {
        for (spec, field) in [
            (json!({"power": "Maybe"}), "spec.power"),
            (json!({"resources": {"memory": "lots"}}), "spec.resources.memory"),
            (json!({"containers": [{"tty": "yes"}]}), "spec.containers[0].tty"),
            (json!({"volumes": [{"volume": "v"}]}), "spec.volumes[0].name"),
        ] {
            let e = object::<Instance>(json!({"spec": spec}), FieldValidation::Strict).unwrap_err();
            assert_eq!(e.kind, ErrorKind::Invalid, "{e}");
            assert_eq!(e.causes[0].field, field, "{e}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for v in [
            json!([]),
            json!("x"),
            json!({"kind": "Volume"}),
            json!({"apiVersion": "v1"}),
            json!({"kind": 5}),
        ] {
            assert!(object::<Instance>(v, FieldValidation::Ignore).is_err());
        }
        let deep = "[".repeat(100_000);
        assert_eq!(json(deep.as_bytes()).unwrap_err().kind, ErrorKind::BadRequest);
    }
}
