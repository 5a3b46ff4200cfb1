//! Whether a stored entry is selected, without parsing more of it than the selection looks at.
//!
//! Labels and names stand in the metadata, which is parsed alone: it comes first in the stored form. What a kind can
//! select by beside that (a phase, a node) is worked out once for each revision of an object and remembered.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use biga_model::Kind;
use biga_store::{Entry, Revision, typed};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::selection::Selection;

/// So many objects are remembered before all are forgotten.
const REMEMBERED: usize = 8192;

/// The part of the metadata that can be selected by.
#[derive(Debug, Default, Deserialize)]
struct Meta<'a> {
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    #[serde(default, borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What selections asked of one object before.
#[derive(Debug)]
struct Known {
    revision: Revision,
    values: Vec<(String, Option<String>)>,
}

/// Selects among the entries of one kind.
pub(crate) struct Picker<K: Kind> {
    head: Arc<str>,
    known: Mutex<HashMap<String, Known>>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Picker<K> {
    /// `head` is what every stored value begins with.
    pub fn new(head: Arc<str>) -> Picker<K> {
        Picker {
            head,
            known: Mutex::default(),
            kind: PhantomData,
        }
    }

    /// Whether `entry` is selected. One that cannot be read is not.
    pub fn selects(&self, selection: &Selection, entry: &Entry) -> bool {
        if selection.is_all() {
            return true;
        }
        self.try_selects(selection, entry)
            .inspect_err(|e| tracing::error!(error = %e, "left out of a selection"))
            .unwrap_or(false)
    }

    fn try_selects(&self, selection: &Selection, entry: &Entry) -> Result<bool, typed::Error> {
        let Some(meta) = self.meta(entry) else {
            // Written in another order by another version.
            return Ok(selection.matches(&typed::decode::<K>(entry)?));
        };
        if !selection.labels().matches(&meta.labels) {
            return Ok(false);
        }
        for term in selection.fields().terms() {
            let equal = match term.field.as_str() {
                "metadata.name" => meta.name == term.value,
                "metadata.namespace" => meta.namespace.as_deref().unwrap_or_default() == term.value,
                field => self.value(entry, field)?.as_deref() == Some(term.value.as_str()),
            };
            if equal != term.equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn meta<'a>(&self, entry: &'a Entry) -> Option<Meta<'a>> {
        // The head's last byte opens the metadata.
        let from = self.head.len().checked_sub(1)?;
        entry.value.strip_prefix(self.head.as_bytes())?;
        // What comes after the metadata is never looked at.
        Meta::deserialize(&mut serde_json::Deserializer::from_slice(&entry.value[from..])).ok()
    }

    fn value(&self, entry: &Entry, field: &str) -> Result<Option<String>, typed::Error> {
        if let Some(known) = self.known.lock().get(&entry.key)
            && known.revision == entry.revision
            && let Some((_, value)) = known.values.iter().find(|(f, _)| f == field)
        {
            return Ok(value.clone());
        }
        let value = K::selectable(&typed::decode::<K>(entry)?, field);
        let mut all = self.known.lock();
        if all.len() >= REMEMBERED && !all.contains_key(&entry.key) {
            all.clear();
        }
        let known = all.entry(entry.key.clone()).or_insert_with(|| Known {
            revision: entry.revision,
            values: Vec::new(),
        });
        if known.revision != entry.revision {
            // A watch may look back at an older state: that one is not worth remembering.
            if known.revision > entry.revision {
                return Ok(value);
            }
            known.revision = entry.revision;
            known.values.clear();
        }
        known.values.push((field.into(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use biga_model::{Instance, InstanceSpec, Object, Phase};

    fn entry(object: &Object<Instance>, revision: Revision) -> Entry {
        Entry {
            key: typed::key_of(object),
            value: typed::encode(object).unwrap(),
            revision,
            created: 1,
        }
    }

    fn object(phase: Phase) -> Object<Instance> {
        let mut o = Object::<Instance>::new("web-\u{e9}\"1", InstanceSpec::default());
        o.metadata.namespace = Some("lab".into());
        o.metadata.labels.insert("app".into(), "web".into());
        let mut status = o.status_or_default();
        status.phase = phase;
        o.status = Some(status);
        o
    }

    #[test]
    fn a_picker_agrees_with_parsing_everything() {
        let picker = Picker::<Instance>::new(typed::head::<Instance>().into());
        let queries = [
            "",
            "labelSelector=app%3Dweb",
            "labelSelector=app%3Ddb",
            "labelSelector=!app",
            "fieldSelector=metadata.name%3Dweb-%C3%A9%221",
            "fieldSelector=metadata.name!%3Dweb-%C3%A9%221",
            "fieldSelector=metadata.namespace%3Dlab",
            "fieldSelector=metadata.namespace%3Dother",
            "fieldSelector=status.phase%3DRunning",
            "fieldSelector=status.phase!%3DRunning,spec.nodeName%3D",
            "labelSelector=app&fieldSelector=status.phase%3DRunning",
        ];
        // Each twice, and over a change of the object: what is remembered must not outlive it.
        for (revision, phase) in [
            (3, Phase::Pending),
            (4, Phase::Running),
            (5, Phase::Exited),
            (4, Phase::Running),
        ] {
            let o = object(phase);
            let e = entry(&o, revision);
            for q in queries.iter().chain(&queries) {
                let selection = Selection::parse::<Instance>(&Query::parse(q).unwrap()).unwrap();
                assert_eq!(
                    picker.selects(&selection, &e),
                    selection.matches(&o),
                    "{q} at {phase:?}"
                );
            }
        }
    }

    #[test]
    fn other_orders_and_damage_are_seen() {
        let picker = Picker::<Instance>::new(typed::head::<Instance>().into());
        let selection = Selection::parse::<Instance>(&Query::parse("labelSelector=app").unwrap()).unwrap();
        let o = object(Phase::Running);
        let mut e = entry(&o, 2);
        let mut v: serde_json::Value = serde_json::from_slice(&e.value).unwrap();
        let kind = v.as_object_mut().unwrap().shift_remove("kind").unwrap();
        v["kind"] = kind;
        e.value = serde_json::to_vec(&v).unwrap().into();
        assert!(picker.selects(&selection, &e));
        e.value = "{}".into();
        assert!(!picker.selects(&selection, &e));
    }
}
