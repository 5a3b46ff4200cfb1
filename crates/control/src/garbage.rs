//! Owners and dependents (`metadata.ownerReferences`).
//!
//! - An object all of whose owners are gone is deleted.
//! - An owner deleted in the foreground waits for its dependents, which are deleted first.
//! - An owner deleted with orphaning lets its dependents go free first.

use std::collections::BTreeSet;

use biga_model::{ObjectMeta, OwnerReference};
use biga_store::typed::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};

use crate::action::{Action, Id, Resource};

/// What the collector looks at of any object.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Which object.
    pub id: Id,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
}

impl Seen {
    /// What the collector looks at of an object with this metadata.
    pub fn new(resource: Resource, m: &ObjectMeta) -> Seen {
        Seen {
            id: Id {
                resource,
                namespace: m.namespace.clone().unwrap_or_default(),
                name: m.name.clone(),
                uid: m.uid.clone(),
            },
            owners: m.owner_references.clone(),
            finalizers: m.finalizers.clone(),
            deleting: m.deletion_timestamp.is_some(),
        }
    }

    fn holds(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == finalizer)
    }
}

/// Whether an object can be the collector's business: it has owners, or may have dependents that must go first.
pub fn concerns(s: &Seen) -> bool {
    !s.owners.is_empty() || s.holds(ORPHAN_FINALIZER) || s.holds(FOREGROUND_FINALIZER)
}

/// What to do. `all` must be every object that can be an owner, as of one revision: who is not in it is gone.
pub fn plan(all: &[&Seen]) -> Vec<Action> {
    let alive: BTreeSet<&str> = all.iter().map(|s| s.id.uid.as_str()).collect();
    let mut actions = Vec::new();
    for s in all {
        let known = |o: &OwnerReference| alive.contains(o.uid.as_str()) || !is_ours(o);
        if !s.deleting && !s.owners.is_empty() && !s.owners.iter().any(known) {
            actions.push(Action::Delete { id: s.id.clone() });
        }
        let dependents = || all.iter().filter(|d| d.owners.iter().any(|o| o.uid == s.id.uid));
        if s.holds(ORPHAN_FINALIZER) {
            let mut free = true;
            for d in dependents() {
                free = false;
                actions.push(Action::RemoveOwner {
                    id: d.id.clone(),
                    owner: s.id.uid.clone(),
                });
            }
            if free {
                actions.push(remove(s, ORPHAN_FINALIZER));
            }
        }
        if s.holds(FOREGROUND_FINALIZER) {
            let mut gone = true;
            for d in dependents() {
                gone = false;
                if !d.deleting {
                    actions.push(Action::Delete { id: d.id.clone() });
                }
            }
            if gone {
                actions.push(remove(s, FOREGROUND_FINALIZER));
            }
        }
    }
    actions
}

/// An owner of a kind that is not served here cannot be looked for, so it counts as there.
fn is_ours(o: &OwnerReference) -> bool {
    o.api_version == biga_model::API_VERSION && Resource::ALL.iter().any(|r| r.kind() == o.kind)
}

fn remove(s: &Seen, finalizer: &'static str) -> Action {
    Action::RemoveFinalizer {
        id: s.id.clone(),
        finalizer,
    }
}
