//! `Event`: something that happened to an object, for people. Kept for an hour.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kind::{Column, FieldError, Kind, age, column, wide};
use crate::object::{Object, Timestamp};

/// Marker of the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Event;

impl Kind for Event {
    const KIND: &'static str = "Event";
    const PLURAL: &'static str = "events";
    const SINGULAR: &'static str = "event";
    const SHORT_NAMES: &'static [&'static str] = &["ev"];
    const NAMESPACED: bool = true;
    type Spec = EventSpec;
    type Status = EventStatus;

    fn validate(o: &Object<Self>, _old: Option<&Object<Self>>) -> Vec<FieldError> {
        if o.spec.reason.is_empty() {
            return vec![FieldError::new("spec.reason", "is required: one word, as in Started")];
        }
        Vec::new()
    }

    fn columns() -> &'static [Column] {
        &[
            const { column("Seen", "How long ago it last happened.") },
            const { column("Type", "Normal or Warning.") },
            const { column("Reason", "One word.") },
            const { column("Object", "What it happened to.") },
            const { column("Message", "A sentence.") },
            const { wide("Count", "How often.") },
        ]
    }

    fn cells(o: &Object<Self>, now: Timestamp) -> Vec<Value> {
        let s = &o.spec;
        vec![
            json!(age(s.time.or(o.metadata.creation_timestamp), now)),
            json!(format!("{:?}", s.type_)),
            json!(s.reason),
            json!(format!("{}/{}", s.regarding.kind.to_lowercase(), s.regarding.name)),
            json!(s.message),
            json!(s.count.max(1).to_string()),
        ]
    }

    fn selectable(o: &Object<Self>, field: &str) -> Option<String> {
        match field {
            "spec.regarding.kind" => Some(o.spec.regarding.kind.clone()),
            "spec.regarding.name" => Some(o.spec.regarding.name.clone()),
            "spec.regarding.uid" => Some(o.spec.regarding.uid.clone()),
            "spec.type" => Some(format!("{:?}", o.spec.type_)),
            "spec.reason" => Some(o.spec.reason.clone()),
            _ => None,
        }
    }
}

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EventType {
    /// As expected.
    #[default]
    Normal,
    /// Somebody may have to look.
    Warning,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventSpec {
    /// How serious it is.
    #[serde(default, rename = "type")]
    pub type_: EventType,
    /// One word, as `Started`, `Exited`, `OOMKilled`, `PullFailed`.
    pub reason: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
    /// What it happened to.
    #[serde(default)]
    pub regarding: ObjectRef,
    /// When it last happened, to the microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// How often it happened.
    #[serde(default)]
    pub count: u32,
}

/// Events have no status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventStatus {}

/// Which object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty for cluster-wide kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}
