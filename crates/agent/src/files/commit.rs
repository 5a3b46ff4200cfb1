//! An image made of an instance: its changes as one more layer, its wishes as the config.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;

use biga_container::cgroup::hold;
use biga_dockerfile::config as change;
use biga_image::ImageRecord;
use biga_image::files::{Crossing, Packer, changes};
use biga_model::{ContainerSpec, Instance, Object, Reference, Timestamp};
use biga_wire::config::Microvm;
use biga_wire::files::FileWork;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::guest::Guest;
use super::pipe::Piped;
use super::source::{Root, Source, may_be_frozen};
use super::{Error, Files};
use crate::instance::merge;

/// How an image is made of an instance.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Its name; one made of its id where unset.
    pub reference: Option<Reference>,
    /// By whom.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// Instructions of a Dockerfile that change the config.
    pub changes: Vec<String>,
    /// Labels that the image gets beside its base's.
    pub labels: BTreeMap<String, String>,
    /// Freeze the instance meanwhile, so that its files agree with each other.
    pub pause: bool,
}

/// Where its changes are read.
enum Changed {
    Guest(Box<Guest>),
    Source(Box<Source>),
}

impl Files {
    /// Makes an image of an instance. Gives its name and itself.
    pub async fn commit(&self, namespace: &str, name: &str, commit: Commit) -> Result<(Reference, ImageRecord), Error> {
        let from = match self.guest(namespace, name).await? {
            Some(guest) => Changed::Guest(Box::new(guest)),
            None => Changed::Source(Box::new(self.source(namespace, name).await?)),
        };
        let (object, image) = match &from {
            Changed::Guest(guest) => (guest.object.clone(), guest.image()?),
            Changed::Source(source) => (source.object.clone(), source.record.clone()),
        };
        let base = image.image_id.clone();
        let files = self.engine.images.files().clone();
        let raw = files.raw_config(&base).map_err(|e| Error::Failed(e.to_string()))?;
        let raw: Value = serde_json::from_slice(&raw).map_err(|e| Error::Failed(format!("the image's config: {e}")))?;
        let mut config = config(raw.get("config"), &object);
        for (k, v) in &commit.labels {
            label(&mut config, k, v);
        }
        for instruction in &commit.changes {
            change::apply_text(&mut config, instruction).map_err(|e| Error::Invalid(e.to_string()))?;
        }
        let what = biga_image::Commit {
            config,
            author: commit.author.clone(),
            comment: commit.comment.clone(),
            created_by: command_line(&object, &image),
            created: Timestamp::now().to_string(),
        };
        let layer = match from {
            // Its init reads them, and could not if it were frozen.
            Changed::Guest(guest) => Piped {
                from: guest.tar(FileWork::Layer { without: Vec::new() }).await?,
                piece: Bytes::new(),
            },
            Changed::Source(source) => {
                let held = self.hold(&source, commit.pause).await?;
                self.layer_of(*source, held, Vec::new()).await?
            }
        };
        let made = files.commit(&base, layer, what).await;
        let record = made.map_err(|e| Error::Failed(format!("cannot make an image of {name}: {}", causes(&e))))?;
        let images = &self.engine.images;
        let reference = match commit.reference {
            Some(r) => {
                images.name(&r, &record).await?;
                r
            }
            None => {
                let made_up = unnamed(&record)?;
                images.keep_nameless(&made_up, &record).await?;
                made_up
            }
        };
        Ok((reference, record))
    }

    /// What an instance that ended changed of its image, as the tar of a layer. To be read where blocking is allowed.
    /// Places at `mounted`, without a slash in front, that were made only to mount something on them, are no part of it.
    ///
    /// Of a microvm it is what it left at its end: it must have been made with the annotation
    /// [`KEEP_CHANGES`](crate::prepare::KEEP_CHANGES).
    pub async fn layer(
        &self,
        namespace: &str,
        name: &str,
        mounted: Vec<Vec<u8>>,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let Some(guest) = self.guest(namespace, name).await? else {
            let source = self.source(namespace, name).await?;
            return Ok(Box::new(self.layer_of(source, None, mounted).await?));
        };
        let path = self.engine.layout.state_dir(guest.object.uid()).join(Microvm::CHANGES);
        match std::fs::File::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) => Err(Error::State(match guest.object.status_or_default().message {
                why if why.is_empty() => format!("microvm {name} left nothing of what it changed: {e}"),
                why => why,
            })),
        }
    }

    async fn layer_of(&self, source: Source, held: Option<hold::Held>, mounted: Vec<Vec<u8>>) -> Result<Piped, Error> {
        let from = self
            .stream(source, move |source, out| {
                // Goes on when the layer is written.
                let _held = held;
                let lower = source.lower()?;
                let Some(upper) = changes::directory(&source.upper())? else {
                    return Ok(Packer::new(out, Crossing::Stay).finish().map(drop)?);
                };
                let list = changes::list_without(upper.as_fd(), Some(lower.as_fd()), &mounted)?;
                Ok(changes::write_layer(upper.as_fd(), &list, out).map(drop)?)
            })
            .await?;
        Ok(Piped {
            from,
            piece: Bytes::new(),
        })
    }

    /// Freezes it where that is wanted and not done already.
    async fn hold(&self, source: &Source, pause: bool) -> Result<Option<hold::Held>, Error> {
        if !pause || !matches!(source.root, Root::Running(_)) || !may_be_frozen(&source.object) {
            return Ok(None);
        }
        let path = self.engine.group_of(source.object.uid());
        let held = tokio::task::spawn_blocking(move || hold::hold(&path)).await;
        Ok(Some(held.map_err(|e| Error::Failed(e.to_string()))??))
    }
}

/// With what stands behind it: the reason is often a level or two down.
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut at = e.source();
    while let Some(e) = at {
        text = format!("{text}: {e}");
        at = e.source();
    }
    text
}

/// An image needs a name to be kept.
fn unnamed(record: &ImageRecord) -> Result<Reference, Error> {
    let id: String = record.image_id.hex().chars().take(12).collect();
    format!("committed:{id}").parse().map_err(Error::Failed)
}

fn command_line(object: &Object<Instance>, image: &ImageRecord) -> String {
    let spec = object.spec.containers.first();
    let process = spec.and_then(|s| merge::process(&image.config, s, "").ok());
    process.map(|p| p.args.join(" ")).unwrap_or_default()
}

/// The image's config with what the instance's spec says otherwise.
fn config(base: Option<&Value>, object: &Object<Instance>) -> Map<String, Value> {
    let mut config = match base {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    };
    if let Some(spec) = object.spec.containers.first() {
        wishes(&mut config, spec);
    }
    if let Some(signal) = &object.spec.stop.signal {
        config.insert("StopSignal".into(), signal.as_str().into());
    }
    if !object.spec.ports.is_empty() {
        let mut ports = match config.remove("ExposedPorts") {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        for p in &object.spec.ports {
            ports.insert(format!("{}/{}", p.port, p.protocol.as_str()), json!({}));
        }
        config.insert("ExposedPorts".into(), Value::Object(ports));
    }
    config
}

fn wishes(config: &mut Map<String, Value>, spec: &ContainerSpec) {
    match (&spec.command, &spec.args) {
        (Some(command), args) => {
            config.insert("Entrypoint".into(), json!(command));
            config.insert("Cmd".into(), json!(args));
        }
        (None, Some(args)) => {
            config.insert("Cmd".into(), json!(args));
        }
        (None, None) => {}
    }
    for v in &spec.env {
        change::env(config, &v.name, &v.value);
    }
    for (key, value) in [("User", &spec.user), ("WorkingDir", &spec.working_dir)] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            config.insert(key.into(), value.into());
        }
    }
}

fn label(config: &mut Map<String, Value>, key: &str, value: &str) {
    match config.entry("Labels").or_insert(Value::Null) {
        Value::Object(map) => {
            map.insert(key.into(), value.into());
        }
        other => *other = json!({ key: value }),
    }
}

#[cfg(test)]
mod tests {
    use biga_model::{EnvVar, InstanceSpec};

    use super::*;

    #[test]
    fn the_instances_wishes_go_over_the_images() {
        let spec = InstanceSpec {
            containers: vec![ContainerSpec {
                args: Some(vec!["serve".into()]),
                env: vec![
                    EnvVar {
                        name: "A".into(),
                        value: "new".into(),
                    },
                    EnvVar {
                        name: "B".into(),
                        value: "more".into(),
                    },
                ],
                user: Some("app".into()),
                ..ContainerSpec::default()
            }],
            ..InstanceSpec::default()
        };
        let base = json!({"Entrypoint": ["/init"], "Cmd": ["x"], "Env": ["A=old", "C=c"], "OnBuild": ["RUN y"]});
        let mut c = config(Some(&base), &Object::new("i", spec));
        label(&mut c, "k", "v");
        let want = json!({
            "Entrypoint": ["/init"], "Cmd": ["serve"], "Env": ["A=new", "C=c", "B=more"], "OnBuild": ["RUN y"],
            "User": "app", "Labels": {"k": "v"},
        });
        assert_eq!(Value::Object(c), want);
        assert!(config(Some(&Value::Null), &Object::new("i", InstanceSpec::default())).is_empty());
    }
}
