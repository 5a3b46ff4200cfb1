//! Volumes as Docker shows them.

use biga_model::{Object, Volume, VolumeMode};
use serde_json::{Value, json};

use super::{labels, time};

/// The annotation of a volume that was given no name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The document of a volume.
pub fn inspect(o: &Object<Volume>) -> Value {
    let s = o.status_or_default();
    let options = match o.spec.mode {
        VolumeMode::Directory => match &o.spec.mount {
            Some(m) => {
                let all = [("type", &m.fs_type), ("device", &m.device), ("o", &m.options)];
                let given = all.into_iter().filter(|(_, v)| !v.is_empty());
                Value::Object(given.map(|(k, v)| (k.to_string(), v.clone().into())).collect())
            }
            None => Value::Null,
        },
        VolumeMode::Block => json!({"type": "block", "size": o.spec.size.map_or(0, |m| m.bytes()).to_string()}),
    };
    json!({
        "CreatedAt": time(o.metadata.creation_timestamp).replace(".000000000", ""),
        "Driver": "local",
        "Labels": Some(labels::read(&o.metadata)).filter(|l| !l.is_empty()),
        "Mountpoint": s.path,
        "Name": o.name(),
        "Options": options,
        "Scope": "local",
    })
}
