//! This node's own object: what the host has, kept true while the agent lives.

use std::path::PathBuf;
use std::sync::Arc;

use biga_model::{Ability, Condition, Node, NodeSpec, NodeStatus, Object, Timestamp};
use biga_store::Store;
use biga_store::typed::{Error as StoreError, Objects, SpecWriter, StatusWriter};

use crate::probe;

/// What is known at once, without any trial.
pub fn first_status() -> NodeStatus {
    let mut s = NodeStatus {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory: total_memory(),
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        os: os_name(),
        cgroup: probe::cgroup_version(&probe::Host::default()).into(),
        ..NodeStatus::default()
    };
    Condition::set(&mut s.conditions, "Ready", true, "AgentRuns", "", Timestamp::now());
    s
}

/// Adds what trying things brought to light.
pub fn with_abilities(mut s: NodeStatus, found: Vec<Ability>) -> NodeStatus {
    s.isolations = probe::isolations(&found).into_iter().map(|i| i.to_string()).collect();
    s.accelerator = probe::accelerator(&found).into();
    s.abilities = found;
    s
}

/// Runs all trials of the host; takes up to some seconds because of KVM.
pub fn abilities(state: PathBuf, kvm: impl Fn() -> probe::Kvm + Sync) -> Vec<Ability> {
    let guest_kernel = state.join("kernel").join("vmlinux");
    probe::probe(&probe::Options {
        host: probe::Host::default(),
        state,
        guest_kernel,
        kvm: &kvm,
    })
}

/// Writes the node's object.
pub struct Writer {
    name: String,
    objects: Objects<Node>,
    specs: SpecWriter<Node>,
    statuses: StatusWriter<Node>,
}

impl Writer {
    /// For the node `name`.
    pub fn new(name: String, store: Arc<dyn Store>) -> Writer {
        Writer {
            name,
            objects: Objects::new(store.clone()),
            specs: SpecWriter::new(store.clone()),
            statuses: StatusWriter::new(store),
        }
    }

    /// Makes the object where it is missing and sets its status. What an earlier start tried stays until this start's trials are done.
    pub async fn write(&self, status: &NodeStatus) -> Result<(), StoreError> {
        let object = match self.objects.find("", &self.name).await? {
            Some(o) => o,
            None => match self.specs.create(Object::new(&self.name, NodeSpec::default())).await {
                Err(StoreError::AlreadyExists { .. }) => self.objects.get("", &self.name).await?,
                made => made?,
            },
        };
        let set = |s: &mut NodeStatus| {
            let old = std::mem::replace(s, status.clone());
            if status.abilities.is_empty() {
                (s.abilities, s.isolations, s.accelerator) = (old.abilities, old.isolations, old.accelerator);
            }
            if s.isolations.is_empty() {
                // Containers need nothing that a trial has to find first.
                s.isolations = vec!["container".into()];
            }
            // The same condition as before keeps its time.
            if let (Some(new), Some(was)) = (s.conditions.first_mut(), old.conditions.first())
                && new.status == was.status
            {
                new.last_transition_time = was.last_transition_time;
            }
        };
        self.statuses
            .modify_status("", &self.name, &object.metadata.uid, set)
            .await
            .map(drop)
    }
}

fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

fn os_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.unwrap_or("Linux").trim_matches('"').to_string()
}
