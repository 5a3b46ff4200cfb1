//! Places instances that name no node: on a ready node that takes new instances and offers the isolation.
//!
//! Among several that could take it, the one with the most memory left by what instances ask for gets it, then
//! the one with fewest instances, then the first by name. What is placed in a round counts for the rest of it.
//!
//! Where only one can take it nothing has to be weighed: [`AtBirth`] places it in the write that makes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use biga_model::{AGENT_FINALIZER, Instance, Node, Object};
use biga_store::typed::Complete;
use biga_store::{Objects, Store};

use crate::action::{Action, Id, Resource};

/// The condition by which an instance says whether it has a node.
pub const CONDITION: &str = "Scheduled";
/// Its reason where there is none.
pub const REASON: &str = "Unschedulable";

/// What is known of a node while a round is planned.
struct Load {
    memory_left: i128,
    instances: usize,
}

/// Whether an instance is the scheduler's business: it has no node.
pub fn concerns(i: &Object<Instance>) -> bool {
    i.spec.node_name.is_none()
}

/// The node that a new instance gets at once: the only one that can take it. Among several there is a choice, which needs all
/// that runs on them, and is left to [`plan`].
pub fn only<'a>(i: &Object<Instance>, nodes: &'a [Object<Node>]) -> Option<&'a str> {
    let mut able = nodes.iter().filter(|n| obstacle(n, i).is_none());
    match (able.next(), able.next()) {
        (Some(one), None) => Some(one.name()),
        _ => None,
    }
}

/// Places new instances in the write that makes them, where there is but one place for them.
pub struct AtBirth(Objects<Node>);

impl AtBirth {
    /// On the nodes in `store`.
    pub fn new(store: Arc<dyn Store>) -> AtBirth {
        AtBirth(Objects::new(store))
    }
}

#[async_trait]
impl Complete<Instance> for AtBirth {
    async fn complete(&self, new: &mut Object<Instance>) {
        if !concerns(new) {
            return;
        }
        // Where they cannot be read the driver says so.
        if let Ok(nodes) = self.0.list(None).await {
            new.spec.node_name = only(new, &nodes.items).map(str::to_owned);
        }
    }
}

/// What to do with the instances that have no node.
pub fn plan(instances: &[&Object<Instance>], nodes: &[&Object<Node>]) -> Vec<Action> {
    let mut loads: BTreeMap<&str, Load> = nodes
        .iter()
        .map(|n| {
            let memory_left = i128::from(n.status_or_default().memory);
            (
                n.name(),
                Load {
                    memory_left,
                    instances: 0,
                },
            )
        })
        .collect();
    for i in instances {
        if let Some(load) = i.spec.node_name.as_deref().and_then(|n| loads.get_mut(n)) {
            count(load, i);
        }
    }
    let mut actions = Vec::new();
    for i in instances {
        if !concerns(i) {
            continue;
        }
        if i.is_deleting() {
            // No agent ever saw it, so none will give up its finalizer.
            if i.metadata.finalizers.iter().any(|f| f == AGENT_FINALIZER) {
                actions.push(Action::RemoveFinalizer {
                    id: id(i),
                    finalizer: AGENT_FINALIZER,
                });
            }
            continue;
        }
        let candidates = nodes.iter().filter(|n| obstacle(n, i).is_none());
        let best = candidates.min_by_key(|n| {
            let load = &loads[n.name()];
            (std::cmp::Reverse(load.memory_left), load.instances, n.name())
        });
        match best {
            Some(node) => {
                if let Some(load) = loads.get_mut(node.name()) {
                    count(load, i);
                }
                actions.push(Action::Place {
                    id: id(i),
                    node: node.name().into(),
                });
            }
            None => {
                let message = explain(nodes, i);
                if !says(i, &message) {
                    actions.push(Action::Unschedulable { id: id(i), message });
                }
            }
        }
    }
    actions
}

fn id(i: &Object<Instance>) -> Id {
    Id {
        resource: Resource::Instance,
        namespace: i.metadata.namespace.clone().unwrap_or_default(),
        name: i.name().into(),
        uid: i.uid().into(),
    }
}

fn count(load: &mut Load, i: &Object<Instance>) {
    load.instances += 1;
    load.memory_left -= i128::from(i.spec.resources.memory.map_or(0, |m| m.bytes()));
}

/// Why a node cannot take an instance.
fn obstacle(node: &Object<Node>, i: &Object<Instance>) -> Option<String> {
    let s = node.status_or_default();
    if !s.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
        return Some("is not ready".into());
    }
    if node.spec.unschedulable || node.is_deleting() {
        return Some("takes no new instances".into());
    }
    let isolation = i.spec.isolation.as_str();
    if !s.isolations.iter().any(|have| have == isolation) {
        return Some(format!("does not offer isolation {isolation}"));
    }
    None
}

fn explain(nodes: &[&Object<Node>], i: &Object<Instance>) -> String {
    if nodes.is_empty() {
        return "there are no nodes".into();
    }
    // Equal obstacles are told once, so that the message stays short with many nodes.
    let mut by_obstacle: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for n in nodes {
        if let Some(why) = obstacle(n, i) {
            by_obstacle.entry(why).or_default().push(n.name());
        }
    }
    let each: Vec<String> = by_obstacle
        .into_iter()
        .map(|(why, names)| match &names[..] {
            [one] => format!("node {one} {why}"),
            many => format!("{} nodes: each {why}", many.len()),
        })
        .collect();
    each.join("; ")
}

/// Whether the instance says so already.
fn says(i: &Object<Instance>, message: &str) -> bool {
    i.status_or_default()
        .conditions
        .iter()
        .any(|c| c.type_ == CONDITION && c.status == "False" && c.message == message)
}
