//! The trait that every kind implements; the resource machinery is generic over it.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::object::{Object, Timestamp};

/// A kind of resource. The implementing type is only a marker; the data is `Object<Self>`.
pub trait Kind: Sized + Debug + Clone + PartialEq + Send + Sync + 'static {
    /// For example `Instance`.
    const KIND: &'static str;
    /// For example `instances`: the path segment.
    const PLURAL: &'static str;
    /// For example `instance`.
    const SINGULAR: &'static str;
    /// Short names kubectl accepts, for example `["inst"]`.
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// Whether objects live in a namespace.
    const NAMESPACED: bool;
    /// Finalizers the server adds at creation, so that the owner of the real thing cleans up before the object goes.
    const FINALIZERS: &'static [&'static str] = &[];
    /// Whether an object can get another name while it exists. What refers to it by name is then changed with it, by
    /// [`Kind::follow_rename`].
    const RENAMABLE: bool = false;
    /// Streams served below an object (`exec`, `log`, …), for discovery.
    const SUBRESOURCES: &'static [&'static str] = &[];

    /// What is wanted.
    type Spec: Serialize + DeserializeOwned + Default + Debug + Clone + PartialEq + Send + Sync;
    /// What is seen.
    type Status: Serialize + DeserializeOwned + Default + Debug + Clone + PartialEq + Send + Sync;

    /// Fills in what the user left out. Called before [`Kind::validate`] on every write.
    fn set_defaults(_object: &mut Object<Self>) {}

    /// All that is wrong with `object`; `old` is what stands in the store, for fields that must not change.
    fn validate(object: &Object<Self>, old: Option<&Object<Self>>) -> Vec<FieldError>;

    /// Has `spec` say `to` wherever it names the object `from` of the same kind and namespace.
    fn follow_rename(_spec: &mut Self::Spec, _from: &str, _to: &str) {}

    /// Whether `name` may name an object of this kind. The default is [`is_resource_name`].
    fn valid_name(name: &str) -> bool {
        is_resource_name(name)
    }

    /// The columns of a table of these objects, without `Name` (always first) and `Age` (always last of the narrow ones).
    fn columns() -> &'static [Column];

    /// The cells for [`Kind::columns`], in the same order.
    fn cells(object: &Object<Self>, now: Timestamp) -> Vec<Value>;

    /// The value of a field for a field selector beyond `metadata.name` and `metadata.namespace`,
    /// for example `spec.nodeName`; `None` where the kind does not select by that field.
    fn selectable(_object: &Object<Self>, _field: &str) -> Option<String> {
        None
    }
}

/// A column of a printed table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// The heading, for example `Status`.
    pub name: &'static str,
    /// How clients format the cell.
    pub type_: ColumnType,
    /// Shown only with `-o wide`.
    pub wide: bool,
    /// One sentence for `kubectl explain`-like use.
    pub description: &'static str,
}

/// JSON type of the cells of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A timestamp that the client prints as an age.
    Date,
}

/// A narrow text column.
pub const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        type_: ColumnType::String,
        wide: false,
        description,
    }
}

/// A text column shown only with `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        type_: ColumnType::String,
        wide: true,
        description,
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldError {
    /// For example `spec.containers[0].env[2].name`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl FieldError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        FieldError {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// Docker's rule for names, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 253 bytes; safe as one path segment.
pub fn is_resource_name(name: &str) -> bool {
    let b = name.as_bytes();
    !b.is_empty()
        && b.len() <= 253
        && b[0].is_ascii_alphanumeric()
        && b.iter()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

/// `3s`, `5m`, `2h`, `4d` since `then`: how tables show an age.
pub fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return "<unknown>".into() };
    let s = (now.as_second() - then.as_second()).max(0);
    match s {
        0..=119 => format!("{s}s"),
        120..=7199 => format!("{}m", s / 60),
        7200..=172_799 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}
