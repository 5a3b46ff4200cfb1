//! What a call takes beside the object.

use std::fmt::Write;

use serde_json::Value;

/// Which objects a list or a watch covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListParams {
    /// As `app=web,tier!=db`.
    pub label_selector: Option<String>,
    /// As `metadata.name=x`.
    pub field_selector: Option<String>,
    /// At most so many in one answer; the rest follows with `continue_token`.
    pub limit: Option<u32>,
    /// From the answer before.
    pub continue_token: Option<String>,
}

impl ListParams {
    /// Only the object of this name.
    pub fn named(name: &str) -> ListParams {
        ListParams {
            field_selector: Some(format!("metadata.name={name}")),
            ..ListParams::default()
        }
    }

    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut q = Vec::new();
        let mut add = |k, v: &Option<String>| {
            if let Some(v) = v {
                q.push((k, v.clone()));
            }
        };
        add("labelSelector", &self.label_selector);
        add("fieldSelector", &self.field_selector);
        add("limit", &self.limit.map(|n| n.to_string()));
        add("continue", &self.continue_token);
        q
    }
}

/// How an object is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteParams {
    /// Seconds the object gets to end by itself; 0 is at once, its own where unset.
    pub grace_period_seconds: Option<u32>,
    /// Delete only this very object.
    pub preconditions: Preconditions,
}

/// What must hold for a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The uid it must have.
    pub uid: Option<String>,
    /// The revision it must have.
    pub resource_version: Option<String>,
}

impl DeleteParams {
    /// Without grace.
    pub fn now() -> DeleteParams {
        DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        }
    }

    pub(crate) fn body(&self) -> Value {
        let mut o = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(s) = self.grace_period_seconds {
            o["gracePeriodSeconds"] = s.into();
        }
        let p = &self.preconditions;
        if let Some(uid) = &p.uid {
            o["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(rv) = &p.resource_version {
            o["preconditions"]["resourceVersion"] = rv.as_str().into();
        }
        o
    }
}

/// A change to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 7396: what is given replaces, `null` removes.
    Merge(Value),
    /// RFC 6902: a list of operations.
    Json(Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Json(_) => "application/json-patch+json",
        }
    }

    pub(crate) fn value(&self) -> &Value {
        match self {
            Patch::Merge(v) | Patch::Json(v) => v,
        }
    }
}

/// `?a=1&b=x%20y`, or nothing where there are no pairs.
pub fn encode_query<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let mut out = String::new();
    for (i, (k, v)) in pairs.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(&encode_segment(k.as_ref()));
        out.push('=');
        out.push_str(&encode_segment(v.as_ref()));
    }
    out
}

/// Percent-encodes all but the unreserved characters of RFC 3986, so that the text is one path segment or one value.
pub fn encode_segment(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for b in s.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(b as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_type_stays_one_segment() {
        assert_eq!(encode_segment("a/../b?c&d"), "a%2F..%2Fb%3Fc%26d");
        assert_eq!(encode_segment("ümlaut"), "%C3%BCmlaut");
        let q = encode_query(&[("labelSelector", "a=b,c!=d"), ("limit", "5")]);
        assert_eq!(q, "?labelSelector=a%3Db%2Cc%21%3Dd&limit=5");
        assert_eq!(encode_query::<&str, &str>(&[]), "");
    }

    #[test]
    fn delete_options_hold_only_what_was_said() {
        assert_eq!(
            DeleteParams::default().body(),
            serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"})
        );
        let p = DeleteParams {
            preconditions: Preconditions {
                uid: Some("u".into()),
                resource_version: None,
            },
            ..DeleteParams::now()
        };
        assert_eq!(p.body()["gracePeriodSeconds"], 0);
        assert_eq!(p.body()["preconditions"], serde_json::json!({"uid": "u"}));
    }
}
