//! The table of instances: what `biga ps` and `kubectl get instances` print.

use serde_json::{Value, json};

use crate::kind::{Column, age, column, wide};
use crate::object::{Object, Timestamp};
use crate::{Instance, Phase};

pub(super) const COLUMNS: &[Column] = &[
    column("Isolation", "What stands between it and the host."),
    column("Image", "The image it was made of."),
    column("Status", "Where it is in its life, and for how long."),
    column("Address", "Its first address."),
    column("Ports", "Ports of the host that lead into it."),
    wide(
        "Ready",
        "How many of its containers do what they are there for, of how many.",
    ),
    wide("Command", "What it runs."),
    wide("PID", "Process id on the host."),
    wide("Restarts", "How often the restart policy started it again."),
    wide("Accelerator", "What runs a machine's processor."),
    wide("Node", "The node it is on."),
    wide("UID", "Its identity on disk and in the kernel."),
];

pub(super) fn cells(o: &Object<Instance>, now: Timestamp) -> Vec<Value> {
    let s = o.status_or_default();
    let address = s
        .networks
        .first()
        .map(|n| n.address.split('/').next().unwrap_or("").to_string())
        .unwrap_or_default();
    let ports = if s.ports.is_empty() { &o.spec.ports } else { &s.ports };
    let ports: Vec<String> = ports
        .iter()
        .map(|p| {
            let host = match (&p.host_ip, p.host_port) {
                (Some(ip), Some(port)) => format!("{ip}:{port}->"),
                (None, Some(port)) => format!("{port}->"),
                _ => String::new(),
            };
            format!("{host}{}/{}", p.port, p.protocol.as_str())
        })
        .collect();
    let command = o.spec.containers.first().map(|c| {
        let words: Vec<&str> = c
            .command
            .iter()
            .chain(c.args.iter())
            .flatten()
            .map(String::as_str)
            .collect();
        words.join(" ")
    });
    let (ready, all) = o.ready();
    vec![
        json!(o.spec.isolation.as_str()),
        json!(o.spec.main_image()),
        json!(status_text(o, now)),
        json!(address),
        json!(ports.join(", ")),
        json!(format!("{ready}/{all}")),
        json!(command.unwrap_or_default()),
        json!(s.pid.map(|p| p.to_string()).unwrap_or_default()),
        json!(s.restart_count.to_string()),
        json!(s.accelerator),
        json!(s.node),
        json!(o.uid()),
    ]
}

/// `Running (5m)`, `Running (5m, healthy)`, `Exited 137, OOM (2h ago)`, `Failed: ImageNotFound`.
pub fn status_text(o: &Object<Instance>, now: Timestamp) -> String {
    let s = o.status_or_default();
    if o.is_deleting() {
        return "Removing".into();
    }
    match s.phase {
        Phase::Running => {
            let health = s.health.as_ref().map_or("", |h| h.status.as_str());
            let comma = if health.is_empty() { "" } else { ", " };
            format!("Running ({}{comma}{health})", age(s.started_at, now))
        }
        Phase::Exited => {
            let oom = if s.oom_killed { ", OOM" } else { "" };
            format!(
                "Exited {}{oom} ({} ago)",
                s.exit_code.unwrap_or(0),
                age(s.finished_at, now)
            )
        }
        Phase::Starting if !o.spec.init_containers.is_empty() => {
            let done = s.init_container_statuses.iter().filter(|c| c.ready).count();
            format!("Starting (init {done}/{})", o.spec.init_containers.len())
        }
        Phase::Failed if !s.reason.is_empty() => format!("Failed: {}", s.reason),
        p => p.to_string(),
    }
}
