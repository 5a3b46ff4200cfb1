//! The documents that are read. Only the fields that mean something here; what else a client sends is kept in `rest`
//! where it must not be dropped in silence, and ignored elsewhere.

use serde::de::DeserializeOwned;
use serde_json::Value;

pub mod container;
pub mod exec;
pub mod network;

/// Reads a document as Go does: `null` means the same as a field that is not there.
pub fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, serde_json::Error> {
    drop_nulls(&mut value);
    serde_json::from_value(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            for (key, value) in map {
                // Here the keys alone say something: a network to join, a port to publish.
                match value {
                    Value::Object(inner) if matches!(key.as_str(), "EndpointsConfig" | "PortBindings") => {
                        inner.values_mut().for_each(drop_nulls);
                    }
                    other => drop_nulls(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Whether a value is what Go would leave a field at: nothing was asked for.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.values().all(is_zero),
    }
}
