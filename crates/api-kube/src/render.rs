//! From stored entries to what clients read.
//!
//! A stored value is the JSON of an object without its `resourceVersion`, and begins with a head that is the same
//! for all objects of its kind. So a plain answer is made by copying bytes: head, `resourceVersion`, rest.

use biga_model::{Column, ColumnType, Kind, Object, Timestamp, kind::age};
use biga_store::{Entry, typed};
use serde_json::{Value, json};

use crate::accept::Representation;
use crate::error::ApiError;

/// What of the object goes with a table's row (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter.
    pub fn parse(value: Option<&str>) -> Result<IncludeObject, ApiError> {
        match value {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "includeObject is None, Metadata or Object, not {other:?}"
            ))),
        }
    }
}

/// How objects are written for one request.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The representation.
    pub representation: Representation,
    /// What goes with a row.
    pub include: IncludeObject,
    /// For ages.
    pub now: Timestamp,
}

/// Appends an object with its `resourceVersion`, by copying.
pub fn splice<K: Kind>(out: &mut Vec<u8>, head: &str, entry: &Entry) -> Result<(), ApiError> {
    match entry.value.strip_prefix(head.as_bytes()) {
        Some(rest) => {
            out.reserve(entry.value.len() + 48);
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(entry.revision.to_string().as_bytes());
            // Metadata is never empty: every stored object has a name.
            out.extend_from_slice(b"\",");
            out.extend_from_slice(rest);
            Ok(())
        }
        None => whole(out, &typed::decode::<K>(entry)?),
    }
}

/// Appends a typed object.
pub fn whole<K: Kind>(out: &mut Vec<u8>, object: &Object<K>) -> Result<(), ApiError> {
    serde_json::to_writer(out, object).map_err(|e| ApiError::internal(format!("the object cannot be written: {e}")))
}

fn partial<K: Kind>(object: &Object<K>, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": object.metadata})
}

impl Style {
    /// One object as the client wants it. For tables `columns` says whether the heading goes along.
    pub fn one<K: Kind>(&self, object: &Object<K>, columns: bool) -> Result<Vec<u8>, ApiError> {
        let mut out = Vec::new();
        match self.representation {
            Representation::Json => whole(&mut out, object)?,
            Representation::Partial(v) => out = partial(object, v).to_string().into_bytes(),
            Representation::Table(v) => {
                let meta = json!({"resourceVersion": object.metadata.resource_version});
                out = self
                    .table(v, &meta, std::slice::from_ref(object), columns)
                    .to_string()
                    .into_bytes();
            }
        }
        Ok(out)
    }

    /// A list of objects that are no plain JSON list.
    pub fn list<K: Kind>(&self, meta: &Value, objects: &[Object<K>]) -> Result<Vec<u8>, ApiError> {
        match self.representation {
            Representation::Json => {
                let mut out = list_head::<K>(meta).into_bytes();
                for (i, o) in objects.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    whole(&mut out, o)?;
                }
                out.extend_from_slice(b"]}");
                Ok(out)
            }
            Representation::Table(v) => Ok(self.table(v, meta, objects, true).to_string().into_bytes()),
            Representation::Partial(v) => {
                let items: Vec<Value> = objects.iter().map(|o| partial(o, v)).collect();
                let list =
                    json!({"kind": "PartialObjectMetadataList", "apiVersion": v, "metadata": meta, "items": items});
                Ok(list.to_string().into_bytes())
            }
        }
    }

    fn table<K: Kind>(&self, version: &str, meta: &Value, objects: &[Object<K>], columns: bool) -> Value {
        let rows: Vec<Value> = objects
            .iter()
            .map(|o| {
                let mut row = json!({"cells": cells(o, self.now)});
                match self.include {
                    IncludeObject::None => {}
                    IncludeObject::Metadata => row["object"] = partial(o, version),
                    IncludeObject::Object => row["object"] = json!(o),
                }
                row
            })
            .collect();
        let heading = if columns { column_definitions::<K>() } else { Vec::new() };
        json!({"kind": "Table", "apiVersion": version, "metadata": meta, "columnDefinitions": heading, "rows": rows})
    }
}

/// A JSON list up to its first item.
pub fn list_head<K: Kind>(meta: &Value) -> String {
    format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}List\",\"metadata\":{meta},\"items\":[",
        biga_model::API_VERSION,
        K::KIND
    )
}

fn definition(name: &str, type_: &str, format: &str, description: &str, wide: bool) -> Value {
    json!({"name": name, "type": type_, "format": format, "description": description, "priority": u8::from(wide)})
}

/// `Name`, the narrow columns, `Age`, the wide columns.
pub fn column_definitions<K: Kind>() -> Vec<Value> {
    let column = |c: &Column| {
        let (type_, format) = match c.type_ {
            ColumnType::String => ("string", ""),
            ColumnType::Integer => ("integer", "int64"),
            ColumnType::Date => ("string", ""),
        };
        definition(c.name, type_, format, c.description, c.wide)
    };
    let (wide, narrow): (Vec<&Column>, Vec<&Column>) = K::columns().iter().partition(|c| c.wide);
    let mut all = vec![definition("Name", "string", "name", "Name of the object.", false)];
    all.extend(narrow.into_iter().map(column));
    all.push(definition("Age", "string", "", "Time since it was made.", false));
    all.extend(wide.into_iter().map(column));
    all
}

/// Cells in the order of [`column_definitions`].
fn cells<K: Kind>(object: &Object<K>, now: Timestamp) -> Vec<Value> {
    let columns = K::columns();
    let values = K::cells(object, now);
    let of = |wide: bool| {
        columns
            .iter()
            .zip(&values)
            .filter(move |(c, _)| c.wide == wide)
            .map(|(c, v)| cell(c, v, now))
    };
    let mut all = vec![json!(object.metadata.name)];
    all.extend(of(false));
    all.push(json!(age(object.metadata.creation_timestamp, now)));
    all.extend(of(true));
    all
}

/// Dates become ages: the server formats them, as it does for its own `Age`.
fn cell(column: &Column, value: &Value, now: Timestamp) -> Value {
    match (column.type_, value.as_str().map(str::parse::<Timestamp>)) {
        (ColumnType::Date, Some(Ok(then))) => json!(age(Some(then), now)),
        _ => value.clone(),
    }
}
