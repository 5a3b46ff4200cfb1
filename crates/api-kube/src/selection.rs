//! Which objects a request is about: label and field selectors over one kind.

use biga_model::{Kind, Object};

use crate::error::ApiError;
use crate::query::Query;
use crate::selector::{FieldSelector, LabelSelector};

/// Label and field selectors, checked against what the kind can select by.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    pub fn parse<K: Kind>(query: &Query) -> Result<Selection, ApiError> {
        let bad = |e: crate::selector::Error| ApiError::bad_request(e.to_string());
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default()).map_err(bad)?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).map_err(bad)?;
        let blank = Object::<K>::new("", K::Spec::default());
        for t in fields.terms() {
            if field(&blank, &t.field).is_none() {
                return Err(ApiError::bad_request(format!("field label not supported: {}", t.field)));
            }
        }
        Ok(Selection { labels, fields })
    }

    /// Takes out a comparison with one name, for reading only what stands under it. What is left must still match.
    pub fn take_name(&mut self) -> Option<String> {
        self.fields.take("metadata.name")
    }

    /// What it asks of labels.
    pub fn labels(&self) -> &LabelSelector {
        &self.labels
    }

    /// What it asks of fields.
    pub fn fields(&self) -> &FieldSelector {
        &self.fields
    }

    /// Whether it selects everything.
    pub fn is_all(&self) -> bool {
        self.labels.is_all() && self.fields.is_all()
    }

    /// Whether `object` is selected.
    pub fn matches<K: Kind>(&self, object: &Object<K>) -> bool {
        self.labels.matches(&object.metadata.labels)
            && self
                .fields
                .terms()
                .iter()
                .all(|t| (field(object, &t.field).as_deref() == Some(t.value.as_str())) == t.equal)
    }
}

fn field<K: Kind>(object: &Object<K>, path: &str) -> Option<String> {
    match path {
        "metadata.name" => Some(object.metadata.name.clone()),
        "metadata.namespace" => Some(object.metadata.namespace.clone().unwrap_or_default()),
        other => K::selectable(object, other),
    }
}
