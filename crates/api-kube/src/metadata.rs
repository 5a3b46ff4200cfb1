//! Rules for metadata, the same for all kinds.

use biga_model::kind::is_resource_name;
use biga_model::{FieldError, Kind, Object};

use crate::selector::{check_key, check_value};

/// All annotations together have at most so many bytes.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// All that is wrong with the metadata of `object`.
pub fn check<K: Kind>(object: &Object<K>) -> Vec<FieldError> {
    let m = &object.metadata;
    let mut e = Vec::new();
    let mut add = |path: String, why: String| e.push(FieldError::new(path, why));
    if m.name.is_empty() {
        add("metadata.name".into(), "is required: name or generateName".into());
    } else if !K::valid_name(&m.name) {
        let why = format!(
            "{:?} is no name: a letter or digit, then letters, digits, _, . and -, at most 253",
            m.name
        );
        add("metadata.name".into(), why);
    }
    if let Some(ns) = &m.namespace
        && !is_namespace(ns)
    {
        add("metadata.namespace".into(), format!("{ns:?} is no name of a namespace"));
    }
    for (k, v) in &m.labels {
        if let Err(why) = check_key(k) {
            add("metadata.labels".into(), why);
        } else if let Err(why) = check_value(v) {
            add(format!("metadata.labels[{k}]"), why);
        }
    }
    for k in m.annotations.keys() {
        if let Err(why) = check_key(k) {
            add("metadata.annotations".into(), why);
        }
    }
    if m.annotations.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_ANNOTATIONS {
        add(
            "metadata.annotations".into(),
            format!("have more than {MAX_ANNOTATIONS} bytes together"),
        );
    }
    for (i, f) in m.finalizers.iter().enumerate() {
        if let Err(why) = check_key(f) {
            add(format!("metadata.finalizers[{i}]"), why);
        }
    }
    for (i, o) in m.owner_references.iter().enumerate() {
        for (field, value) in [
            ("apiVersion", &o.api_version),
            ("kind", &o.kind),
            ("name", &o.name),
            ("uid", &o.uid),
        ] {
            if value.is_empty() {
                add(format!("metadata.ownerReferences[{i}].{field}"), "is required".into());
            }
        }
    }
    e
}

/// Whether `name` may name a namespace: a path segment of at most 63 bytes.
pub fn is_namespace(name: &str) -> bool {
    name.len() <= 63 && is_resource_name(name)
}
