//! Instances of several containers: the pod shape. What is seen of each container, and how they are counted.

use serde::{Deserialize, Serialize};

use super::instance::{ContainerSpec, InstanceSpec, InstanceStatus};
use crate::object::Timestamp;
use crate::{Object, Phase};

/// What is seen of one container of an instance that has several. The form is that of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// The image it was made of, as the spec names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// What that meant: `sha256:…` of its config.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_id: String,
    /// What it does now.
    #[serde(default)]
    pub state: ContainerState,
    /// How its run before this one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_termination: Option<Terminated>,
    /// Whether it does what it is there for: it runs, or as an init container it has succeeded.
    #[serde(default)]
    pub ready: bool,
    /// How often it was started again.
    #[serde(default)]
    pub restart_count: u32,
    /// Its entrypoint's process id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// What a container does: one of the three.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// It is not its turn, or it waits to be started again.
    Waiting(Waiting),
    /// It runs.
    Running(Running),
    /// It ended.
    Terminated(Terminated),
}

impl Default for ContainerState {
    fn default() -> Self {
        ContainerState::Waiting(Waiting::default())
    }
}

impl ContainerState {
    /// `Running`, `Waiting: CrashLoopBackOff`, `Terminated: Error (3)`.
    pub fn text(&self) -> String {
        match self {
            ContainerState::Running(_) => "Running".into(),
            ContainerState::Waiting(w) if w.reason.is_empty() => "Waiting".into(),
            ContainerState::Waiting(w) => format!("Waiting: {}", w.reason),
            ContainerState::Terminated(t) => format!("Terminated: {} ({})", t.reason, t.exit_code),
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self, ContainerState::Running(_))
    }
}

/// Why a container does not run yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Waiting {
    /// One word, as `PodInitializing` or `CrashLoopBackOff`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Since when a container runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Running {
    /// When its entrypoint was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Terminated {
    /// 0 to 255; 128+n after signal n.
    pub exit_code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, or `StartError` where it never ran.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When its entrypoint was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// When an init container is started again. There is one value: left out, the instance's policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerRestart {
    /// Whenever it ends, as long as the instance runs: a sidecar, which is started in its turn and not waited for.
    Always,
}

impl ContainerSpec {
    /// Whether it is a sidecar; only init containers can be.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(ContainerRestart::Always)
    }
}

impl InstanceSpec {
    /// Whether it has the pod shape: several containers, or init containers.
    pub fn is_pod(&self) -> bool {
        self.containers.len() > 1 || !self.init_containers.is_empty()
    }

    /// Init containers and then the others.
    pub fn all_containers(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.all_containers().find(|c| c.name == name)
    }

    /// The image of a container: its own, or the instance's.
    pub fn image_of<'a>(&'a self, container: &'a ContainerSpec) -> &'a str {
        if container.image.is_empty() {
            &self.image
        } else {
            &container.image
        }
    }

    /// The image of what the instance is there for: of its first container that is none of init, or its disk.
    pub fn main_image(&self) -> &str {
        self.containers.first().map_or(&self.image, |c| self.image_of(c))
    }
}

impl Object<crate::Instance> {
    /// How many of its containers are ready, and how many there are: sidecars count, other init containers do not.
    pub fn ready(&self) -> (usize, usize) {
        let status = self.status.as_ref();
        if !self.spec.is_pod() {
            let running = status.is_some_and(|s| s.phase == Phase::Running);
            return (usize::from(running), 1);
        }
        let counts = |name: &str| {
            self.spec.containers.iter().any(|c| c.name == name)
                || self
                    .spec
                    .init_containers
                    .iter()
                    .any(|c| c.name == name && c.is_sidecar())
        };
        let ready = status.map_or(0, |s| {
            let all = s.init_container_statuses.iter().chain(&s.container_statuses);
            all.filter(|c| c.ready && counts(&c.name)).count()
        });
        (ready, self.spec.all_containers().filter(|c| counts(&c.name)).count())
    }
}

impl InstanceStatus {
    /// Ids of the images it was made of, and of those that are mounted in it.
    pub fn image_ids(&self) -> impl Iterator<Item = &str> {
        let all = self.init_container_statuses.iter().chain(&self.container_statuses);
        let ids = std::iter::once(&self.image_id).chain(all.map(|c| &c.image_id));
        let ids = ids.chain(&self.volume_image_ids);
        ids.filter(|id| !id.is_empty()).map(String::as_str)
    }

    /// What is seen of a container of an instance that has several.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        let all = self.init_container_statuses.iter().chain(&self.container_statuses);
        all.into_iter().find(|c| c.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instance;

    #[test]
    fn the_form_is_kubernetes() {
        let status: ContainerStatus = serde_json::from_value(serde_json::json!({
            "name": "web", "image": "nginx", "imageId": "sha256:0", "ready": true, "restartCount": 2,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            "lastTermination": {"exitCode": 137, "signal": 9, "reason": "OOMKilled"},
        }))
        .unwrap();
        assert!(status.state.is_running());
        let back = serde_json::to_value(&status).unwrap();
        assert_eq!(back["state"]["running"]["startedAt"], "2026-01-01T00:00:00Z");
        assert_eq!(
            serde_json::to_value(ContainerStatus::default()).unwrap()["state"],
            serde_json::json!({"waiting": {}})
        );
    }

    #[test]
    fn sidecars_count_and_init_containers_do_not() {
        let mut o: Object<Instance> = Object::new(
            "x",
            serde_json::from_value(serde_json::json!({
                "image": "b",
                "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}, {"name": "b", "image": "other"}],
            }))
            .unwrap(),
        );
        assert_eq!(o.ready(), (0, 3));
        let status = |name: &str| ContainerStatus {
            name: name.into(),
            ready: true,
            ..ContainerStatus::default()
        };
        o.status = Some(InstanceStatus {
            init_container_statuses: vec![status("init"), status("side")],
            container_statuses: vec![status("b")],
            ..InstanceStatus::default()
        });
        assert_eq!(o.ready(), (2, 3));
        assert_eq!(o.spec.image_of(&o.spec.containers[1]), "other");
        assert_eq!(o.spec.main_image(), "b");
    }
}
