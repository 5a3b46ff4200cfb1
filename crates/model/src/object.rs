//! Metadata and the generic object, in the Kubernetes form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// A moment in time, written as RFC 3339 in UTC with whole seconds where it comes from the API.
pub type Timestamp = jiff::Timestamp;

/// A resource: what is wanted (`spec`) and what is seen (`status`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(bound(
    serialize = "K::Spec: Serialize, K::Status: Serialize",
    deserialize = "K::Spec: serde::de::DeserializeOwned, K::Status: serde::de::DeserializeOwned"
))]
pub struct Object<K: Kind> {
    /// Always [`crate::API_VERSION`] for Biga's own kinds.
    pub api_version: String,
    /// [`Kind::KIND`].
    pub kind: String,
    /// Name, labels, revision.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted. Written by users and controllers.
    #[serde(default)]
    pub spec: K::Spec,
    /// What is seen. Written only by the node's agent (or the controller that owns the kind).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<K::Status>,
}

impl<K: Kind> Object<K> {
    /// A new object of this kind with a name and a spec, not yet stored.
    pub fn new(name: impl Into<String>, spec: K::Spec) -> Self {
        Object {
            api_version: crate::API_VERSION.into(),
            kind: K::KIND.into(),
            metadata: ObjectMeta {
                name: name.into(),
                namespace: K::NAMESPACED.then(|| crate::DEFAULT_NAMESPACE.to_string()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The object's uid: empty until it was stored.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// The status, or the kind's default where none was written yet.
    pub fn status_or_default(&self) -> K::Status {
        self.status.clone().unwrap_or_default()
    }

    /// Whether deletion was asked for and finalizers are still at work.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// `ObjectMeta` of the Kubernetes API, the fields Biga uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectMeta {
    /// Unique within kind and namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where set and `name` is empty, the server makes a name of this and five random letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Set for namespaced kinds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Given by the server at creation; what everything on disk and in the kernel is keyed by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The store revision of the last write, as a decimal string. Opaque to clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of `spec`, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// When the server created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// When deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Seconds of grace the deletion gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// For selection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Objects whose deletion deletes this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who must do something before a deletion is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// Accepted and ignored: what kubectl sends back after server-side apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_fields: Option<serde_json::Value>,
    /// Accepted and ignored: old clients send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_link: Option<String>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A pointer from a dependent to its owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerReference {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether this owner manages the dependent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether a foreground deletion of the owner waits for the dependent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// One condition of a status, as `kubectl wait --for=condition=…` reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// For example `Ready`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

impl Condition {
    /// Sets the condition `type_` in `list`, keeping the transition time where the status stays.
    pub fn set(list: &mut Vec<Condition>, type_: &str, status: bool, reason: &str, message: &str, now: Timestamp) {
        let status = if status { "True" } else { "False" };
        let at = |old: Option<&Condition>| match old {
            Some(c) if c.status == status => c.last_transition_time.or(Some(now)),
            _ => Some(now),
        };
        let pos = list.iter().position(|c| c.type_ == type_);
        let new = Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: at(pos.map(|i| &list[i])),
        };
        match pos {
            Some(i) => list[i] = new,
            None => list.push(new),
        }
    }
}
