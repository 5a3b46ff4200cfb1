//! Two states of an object → what happened, in Docker's words.

use std::collections::{BTreeMap, HashMap};

use biga_model::{Health, Image, Instance, Network, Object, Phase, Timestamp, Volume, VolumeMount};
use serde_json::{Value, json};

use super::ids::{docker_id, docker_network};
use super::labels;

/// The annotation with the beginning of a run that a client killed by a signal.
pub const KILLED_RUN: &str = "docker.biga.dev/killed-run";

/// One message of `GET /events`.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `container`, `image`, `network`, `volume` or `builder`.
    pub kind: &'static str,
    /// As `start`, `die`, `destroy`; execs have `exec_start: sh -c …`.
    pub action: String,
    /// Docker's id, or the name of a volume or image. In what the state of an instance tells of a network it is that network's
    /// name as it is stored; the id is looked up for it.
    pub id: String,
    /// Name, image, labels and what belongs to the action.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

impl Message {
    /// About a container, now.
    pub fn container(o: &Object<Instance>, action: impl Into<String>, more: &[(&str, String)]) -> Message {
        let mut attributes = labels::read(&o.metadata);
        // As it was typed, where it was.
        let typed = super::create::sent(&o.metadata).image;
        let image = if typed.is_empty() {
            super::familiar(o.spec.main_image())
        } else {
            typed
        };
        attributes.insert("image".into(), image);
        attributes.insert("name".into(), o.name().into());
        attributes.extend(more.iter().map(|(k, v)| ((*k).to_string(), v.clone())));
        Message {
            kind: "container",
            action: action.into(),
            id: docker_id(o.uid()),
            attributes,
            time: Timestamp::now(),
        }
    }

    /// About an image, now.
    pub fn image(action: &str, id: &str, name: &str) -> Message {
        Message::new("image", action, id.into(), &[("name", name.into())])
    }

    /// About a prune, and how many bytes are free now.
    pub fn prune(kind: &'static str, reclaimed: u64) -> Message {
        Message::new(kind, "prune", String::new(), &[("reclaimed", reclaimed.to_string())])
    }

    fn new(kind: &'static str, action: &str, id: String, attributes: &[(&str, String)]) -> Message {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect();
        Message {
            kind,
            action: action.into(),
            id,
            attributes,
            time: Timestamp::now(),
        }
    }

    /// As it stands in the answer.
    pub fn to_json(&self) -> Value {
        let mut doc = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.time.as_second(),
            "timeNano": self.time.as_nanosecond() as i64,
        });
        // What clients older than API 1.22 read.
        if matches!(self.kind, "container" | "image") {
            doc["status"] = self.action.clone().into();
            doc["id"] = self.id.clone().into();
        }
        if let ("container", Some(image)) = (self.kind, self.attributes.get("image")) {
            doc["from"] = image.clone().into();
        }
        doc
    }
}

/// Objects of a kind, by uid.
pub type All<K> = HashMap<String, Object<K>>;

/// What happened to an instance.
pub fn instance(old: Option<&Object<Instance>>, new: Option<&Object<Instance>>, _: &All<Instance>) -> Vec<Message> {
    let Some(now) = new else {
        return old.map(|o| Message::container(o, "destroy", &[])).into_iter().collect();
    };
    let mut out = Vec::new();
    let before = match old {
        Some(o) => o.status_or_default(),
        None => {
            out.push(Message::container(now, "create", &[]));
            Default::default()
        }
    };
    if let Some(old) = old.filter(|o| o.name() != now.name()) {
        out.push(Message::container(
            now,
            "rename",
            &[("oldName", format!("/{}", old.name()))],
        ));
    }
    let s = now.status_or_default();
    let ran = |p: Phase| matches!(p, Phase::Running | Phase::Paused | Phase::Stopping);
    // A run may begin and end between two looks: it has a beginning of its own.
    let another = s.started_at.is_some() && (s.started_at != before.started_at || before.phase == Phase::Starting);
    let started = (ran(s.phase) && !ran(before.phase)) || (s.phase == Phase::Exited && another && !ran(before.phase));
    if started {
        out.extend(networks(now, "connect"));
        out.extend(mounts(now));
        out.push(Message::container(now, "start", &[]));
    }
    match (before.phase, s.phase) {
        (Phase::Running, Phase::Paused) => out.push(Message::container(now, "pause", &[])),
        (Phase::Paused, Phase::Running) => out.push(Message::container(now, "unpause", &[])),
        _ => {}
    }
    if !started && ran(before.phase) && ran(s.phase) {
        out.extend(moves(now, &before.networks, &s.networks, "connect"));
        out.extend(moves(now, &s.networks, &before.networks, "disconnect"));
    }
    if let Some(h) = &s.health
        && s.phase.is_live()
        && before.health.as_ref().map(|b| b.status).unwrap_or_default() != h.status
        && h.status != Health::Starting
    {
        out.push(Message::container(
            now,
            format!("health_status: {}", h.status.as_str()),
            &[],
        ));
    }
    let ended = s.phase == Phase::Exited && (ran(before.phase) || started);
    if ended {
        out.extend(death(now));
    }
    out
}

fn death(o: &Object<Instance>) -> Vec<Message> {
    let s = o.status_or_default();
    let mut out = Vec::new();
    if s.oom_killed {
        out.push(Message::container(o, "oom", &[]));
    }
    let code = s.exit_code.unwrap_or(0).to_string();
    let ran = match (s.started_at, s.finished_at) {
        (Some(a), Some(b)) => (b.as_second() - a.as_second()).max(0),
        _ => 0,
    };
    out.push(Message::container(
        o,
        "die",
        &[("exitCode", code), ("execDuration", ran.to_string())],
    ));
    out.extend(networks(o, "disconnect"));
    out.extend(unmounts(o));
    let run = s.started_at.map(|t| t.to_string());
    let killed = run.is_some() && o.metadata.annotations.get(KILLED_RUN) == run.as_ref();
    // A restart is a stop and a start.
    if s.stopped_by_user && !killed || o.spec.restart_request > s.observed_restart {
        out.push(Message::container(o, "stop", &[]));
    }
    out
}

/// Ends that are in `new` and not in `old`.
fn moves(
    o: &Object<Instance>,
    old: &[biga_model::NetworkEndpoint],
    new: &[biga_model::NetworkEndpoint],
    action: &'static str,
) -> Vec<Message> {
    let fresh = |e: &&biga_model::NetworkEndpoint| !old.iter().any(|o| o.network == e.network);
    ends(o, new.iter().filter(fresh).cloned().collect(), action)
}

fn networks(o: &Object<Instance>, action: &'static str) -> Vec<Message> {
    ends(o, o.status_or_default().networks, action)
}

fn ends(o: &Object<Instance>, ends: Vec<biga_model::NetworkEndpoint>, action: &'static str) -> Vec<Message> {
    let id = docker_id(o.uid());
    let message = |e: biga_model::NetworkEndpoint| {
        let attributes = [
            ("container", id.clone()),
            ("name", docker_network(&e.network).to_string()),
            ("type", "bridge".into()),
        ];
        Message::new("network", action, e.network, &attributes)
    };
    ends.into_iter().map(message).collect()
}

/// Volumes with a name that the main container of an instance mounts, and where.
fn named_volumes(o: &Object<Instance>) -> impl Iterator<Item = (&str, &VolumeMount)> {
    let of = |m: &VolumeMount| o.spec.volumes.iter().find(|v| v.name == m.name)?.volume.as_deref();
    let mounts = o.spec.containers.first().map_or(&[][..], |c| &c.volume_mounts);
    mounts.iter().filter_map(move |m| Some((of(m)?, m)))
}

fn mounts(o: &Object<Instance>) -> Vec<Message> {
    let message = |(volume, m): (&str, &VolumeMount)| {
        let attributes = [
            ("container", docker_id(o.uid())),
            ("destination", m.mount_path.clone()),
            ("driver", "local".into()),
            ("propagation", String::new()),
            ("read/write", (!m.read_only).to_string()),
        ];
        Message::new("volume", "mount", volume.into(), &attributes)
    };
    named_volumes(o).map(message).collect()
}

fn unmounts(o: &Object<Instance>) -> Vec<Message> {
    let message = |(volume, _): (&str, &VolumeMount)| {
        let attributes = [("container", docker_id(o.uid())), ("driver", "local".into())];
        Message::new("volume", "unmount", volume.into(), &attributes)
    };
    named_volumes(o).map(message).collect()
}

/// What happened to a network.
pub fn network(old: Option<&Object<Network>>, new: Option<&Object<Network>>, _: &All<Network>) -> Vec<Message> {
    let about = |o: &Object<Network>, action| {
        let attributes = [
            ("name", docker_network(o.name()).to_string()),
            ("type", "bridge".into()),
        ];
        Message::new("network", action, docker_id(o.uid()), &attributes)
    };
    match (old, new) {
        (None, Some(n)) => vec![about(n, "create")],
        (Some(o), None) => vec![about(o, "destroy")],
        _ => Vec::new(),
    }
}

/// What happened to a volume.
pub fn volume(old: Option<&Object<Volume>>, new: Option<&Object<Volume>>, _: &All<Volume>) -> Vec<Message> {
    let about =
        |o: &Object<Volume>, action| Message::new("volume", action, o.name().into(), &[("driver", "local".into())]);
    match (old, new) {
        (None, Some(n)) => vec![about(n, "create")],
        (Some(o), None) => vec![about(o, "destroy")],
        _ => Vec::new(),
    }
}

/// What happened to a name of an image; `all` are the names that there are.
pub fn image(old: Option<&Object<Image>>, new: Option<&Object<Image>>, all: &All<Image>) -> Vec<Message> {
    let about =
        |o: &Object<Image>, action, id: String| Message::image(action, &id, &super::familiar(&o.spec.reference));
    match (old, new) {
        (Some(o), None) => {
            let id = o.status_or_default().image_id;
            if id.is_empty() {
                return Vec::new();
            }
            // With its last name an image goes.
            let last = all.values().all(|i| i.status_or_default().image_id != id);
            let gone = last.then(|| Message::image("delete", &id, &id));
            [about(o, "untag", id)].into_iter().chain(gone).collect()
        }
        (old, Some(n)) => {
            let (before, s) = (
                old.map(|o| o.status_or_default()).unwrap_or_default(),
                n.status_or_default(),
            );
            let name = super::familiar(&n.spec.reference);
            if s.image_id.is_empty() {
                return Vec::new();
            }
            if s.observed_pull > before.observed_pull && s.phase == biga_model::ImagePhase::Ready {
                return vec![about(n, "pull", name)];
            }
            if s.image_id != before.image_id {
                return vec![about(n, "tag", s.image_id)];
            }
            Vec::new()
        }
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use biga_model::InstanceStatus;

    use super::*;

    fn at(phase: Phase, change: impl FnOnce(&mut InstanceStatus)) -> Object<Instance> {
        let mut o = Object::<Instance>::new("web", Default::default());
        o.metadata.uid = "u".into();
        let mut s = InstanceStatus {
            phase,
            ..Default::default()
        };
        change(&mut s);
        o.status = Some(s);
        o
    }

    fn words(old: Option<&Object<Instance>>, new: Option<&Object<Instance>>) -> Vec<String> {
        let all = instance(old, new, &All::new());
        all.into_iter().map(|m| m.action).collect()
    }

    #[test]
    fn a_life_is_told_in_order() {
        let t = |n| Timestamp::from_second(n).ok();
        let created = at(Phase::Created, |_| ());
        let running = at(Phase::Running, |s| s.started_at = t(5));
        let paused = at(Phase::Paused, |s| s.started_at = t(5));
        let ended = at(Phase::Exited, |s| {
            (s.started_at, s.exit_code, s.stopped_by_user) = (t(5), Some(3), true)
        });
        assert_eq!(words(None, Some(&created)), ["create"]);
        assert_eq!(words(Some(&created), Some(&running)), ["start"]);
        assert_eq!(words(Some(&running), Some(&running)), Vec::<String>::new());
        let with = |health| {
            at(Phase::Running, |s| {
                s.started_at = t(5);
                s.health = Some(biga_model::HealthStatus {
                    status: health,
                    ..Default::default()
                });
            })
        };
        assert_eq!(
            words(Some(&running), Some(&with(Health::Starting))),
            Vec::<String>::new()
        );
        assert_eq!(
            words(Some(&with(Health::Starting)), Some(&with(Health::Healthy))),
            ["health_status: healthy"]
        );
        assert_eq!(
            words(Some(&with(Health::Healthy)), Some(&with(Health::Unhealthy))),
            ["health_status: unhealthy"]
        );
        assert_eq!(words(Some(&running), Some(&paused)), ["pause"]);
        assert_eq!(words(Some(&paused), Some(&running)), ["unpause"]);
        assert_eq!(words(Some(&running), Some(&ended)), ["die", "stop"]);
        assert_eq!(words(Some(&created), Some(&ended)), ["start", "die", "stop"]);
        let starting = at(Phase::Starting, |s| s.started_at = t(5));
        assert_eq!(words(Some(&starting), Some(&ended)), ["start", "die", "stop"]);
        let mut again = at(Phase::Exited, |s| s.started_at = t(5));
        assert_eq!(words(Some(&running), Some(&again)), ["die"]);
        again.spec.restart_request = 1;
        assert_eq!(words(Some(&running), Some(&again)), ["die", "stop"]);
        let mut killed = ended.clone();
        let run = t(5).unwrap().to_string();
        killed.metadata.annotations.insert(KILLED_RUN.into(), run);
        assert_eq!(words(Some(&running), Some(&killed)), ["die"]);
        killed.status.as_mut().unwrap().started_at = t(6);
        assert_eq!(
            words(Some(&running), Some(&killed)),
            ["die", "stop"],
            "of an earlier run"
        );
        let hog = at(Phase::Exited, |s| (s.started_at, s.oom_killed) = (t(5), true));
        assert_eq!(words(Some(&running), Some(&hog)), ["oom", "die"]);
        assert_eq!(words(Some(&ended), None), ["destroy"]);
        let die = &instance(Some(&running), Some(&ended), &All::new())[0];
        assert_eq!(die.attributes["exitCode"], "3");
        assert_eq!(die.to_json()["Actor"]["Attributes"]["name"], "web");
    }

    #[test]
    fn what_never_ran_does_not_die() {
        let failed = at(Phase::Failed, |s| s.exit_code = Some(127));
        assert_eq!(
            words(Some(&at(Phase::Preparing, |_| ())), Some(&failed)),
            Vec::<String>::new()
        );
    }
    #[test]
    fn named_volumes_are_mounted_and_unmounted() {
        let spec = serde_json::json!({
            "volumes": [{"name": "a", "volume": "data"}, {"name": "b", "hostPath": "/srv"}],
            "containers": [{"name": "main", "image": "busybox", "volumeMounts": [
                {"name": "b", "mountPath": "/b"}, {"name": "a", "mountPath": "/a", "readOnly": true}]}],
        });
        let spec: biga_model::InstanceSpec = serde_json::from_value(spec).unwrap();
        let with = |mut o: Object<Instance>| {
            o.spec = spec.clone();
            o
        };
        let (created, running) = (with(at(Phase::Created, |_| ())), with(at(Phase::Running, |_| ())));
        let ended = with(at(Phase::Exited, |_| ()));
        let started = instance(Some(&created), Some(&running), &All::new());
        assert_eq!(words(Some(&created), Some(&running)), ["mount", "start"]);
        let m = &started[0];
        assert_eq!(
            (m.kind, &*m.id, &*m.attributes["destination"]),
            ("volume", "data", "/a")
        );
        assert_eq!(m.attributes["read/write"], "false");
        assert_eq!(words(Some(&running), Some(&ended)), ["die", "unmount"]);
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let named = |name: &str| {
            let mut o = Object::<Image>::new(name, Default::default());
            o.metadata.uid = name.into();
            o.spec.reference = format!("docker.io/library/{name}:1");
            o.status = Some(biga_model::ImageStatus {
                image_id: "sha256:1".into(),
                ..Default::default()
            });
            o
        };
        let told = |all: &All<Image>| {
            let all = image(Some(&named("one")), None, all);
            all.into_iter()
                .map(|m| (m.action, m.attributes["name"].clone()))
                .collect::<Vec<_>>()
        };
        let untag = ("untag".to_string(), "one:1".to_string());
        let other = [("two".to_string(), named("two"))].into();
        assert_eq!(told(&other), std::slice::from_ref(&untag));
        assert_eq!(told(&All::new()), [untag, ("delete".into(), "sha256:1".into())]);
    }
}
