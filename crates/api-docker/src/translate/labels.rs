//! Docker's labels on Biga's objects.
//!
//! A Docker label may be any text; a label of an object may not. Those that fit are labels of the object, so that they
//! can be selected by; if any does not fit, all are kept in one annotation beside.

use std::collections::BTreeMap;

use biga_model::ObjectMeta;

/// The annotation that holds labels no object label can hold.
pub const LABELS: &str = "docker.biga.dev/labels";

/// Writes Docker's labels onto an object.
pub fn write(labels: &BTreeMap<String, String>, meta: &mut ObjectMeta) {
    let fit = |k: &str, v: &str| is_key(k) && is_value(v);
    if labels.iter().any(|(k, v)| !fit(k, v)) {
        let json = serde_json::to_string(labels).unwrap_or_default();
        meta.annotations.insert(LABELS.into(), json);
    }
    let fitting = labels.iter().filter(|(k, v)| fit(k, v));
    meta.labels.extend(fitting.map(|(k, v)| (k.clone(), v.clone())));
}

/// All labels of an object, as Docker shows them.
pub fn read(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let kept = meta
        .annotations
        .get(LABELS)
        .and_then(|json| serde_json::from_str(json).ok());
    let mut all: BTreeMap<String, String> = kept.unwrap_or_default();
    all.extend(meta.labels.clone());
    all
}

fn is_word(s: &str, max: usize) -> bool {
    let b = s.as_bytes();
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    b.len() <= max
        && edge(b.first())
        && edge(b.last())
        && b.iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn is_key(k: &str) -> bool {
    match k.split_once('/') {
        None => is_word(k, 63),
        Some((domain, name)) => {
            is_word(domain, 253) && !domain.contains('_') && domain == domain.to_ascii_lowercase() && is_word(name, 63)
        }
    }
}

fn is_value(v: &str) -> bool {
    v.is_empty() || is_word(v, 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_label_comes_back() {
        let labels: BTreeMap<String, String> = [
            ("plain", "value"),
            ("com.docker.compose.project", "web"),
            ("com.docker.compose.project.working_dir", "/srv/my project"),
            ("a/b/c", ""),
            ("", "x"),
        ]
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .into();
        let mut meta = ObjectMeta::default();
        write(&labels, &mut meta);
        assert_eq!(read(&meta), labels);
        assert_eq!(meta.labels.len(), 2, "{:?}", meta.labels);
        let mut meta = ObjectMeta::default();
        write(&[("a".to_string(), "b".to_string())].into(), &mut meta);
        assert!(meta.annotations.is_empty());
    }
}
