//! An image made of another and one more layer: what a container changed, with a config of its own.

use std::io::{BufReader, Read};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ImageStore;
use super::files::{Name, blocking};
use super::import::BUFFER;
use super::oci::{self, Config};
use crate::{Error, History, ImageId, ImageRecord};

/// What a new image says of itself.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Its `config` object.
    pub config: Map<String, Value>,
    /// By whom.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// By which command.
    pub created_by: String,
    /// When (RFC 3339).
    pub created: String,
}

impl ImageStore {
    /// Makes an image of `base` and the tar of one more layer.
    pub async fn commit(
        self: &Arc<Self>,
        base: &ImageId,
        layer: impl Read + Send + 'static,
        commit: Commit,
    ) -> Result<ImageRecord, Error> {
        let (store, base) = (self.clone(), base.clone());
        blocking(move || store.commit_blocking(&base, layer, commit)).await
    }

    fn commit_blocking(&self, base: &ImageId, layer: impl Read, commit: Commit) -> Result<ImageRecord, Error> {
        let mut pins = self.pins();
        pins.add(Name::Image(base.hex().to_owned()));
        let record = self.get(base)?;
        let raw = self.raw_config(base)?;
        let mut metas = Vec::with_capacity(record.layers.len() + 1);
        for l in &record.layers {
            pins.add(Name::Layer(crate::digest::hex_of(&l.diff_id).to_owned()));
            let damaged = || Error::Damaged {
                path: l.file.clone(),
                why: "it is not there or not whole".into(),
            };
            metas.push(self.layer(&l.diff_id)?.ok_or_else(damaged)?);
        }
        let fresh = self.convert(BufReader::with_capacity(BUFFER, layer), "of the changes")?;
        let bytes = config(&raw, &fresh.diff_id, commit)?;
        let config: Config = oci::config(&bytes, metas.len() + 1, "the new image")?;
        metas.push(self.keep_layer(fresh, &mut pins)?);
        self.assemble(&bytes, &config, &metas, &mut pins)
    }
}

/// The base's config with what is new. What we do not know of it stays.
fn config(base: &[u8], diff_id: &str, commit: Commit) -> Result<Vec<u8>, Error> {
    let invalid = |why: String| Error::Invalid {
        what: "the config of the image".into(),
        why,
    };
    let mut config: Map<String, Value> = serde_json::from_slice(base).map_err(|e| invalid(e.to_string()))?;
    let text = |t: &String| (!t.is_empty()).then(|| t.clone());
    let step = History {
        created: text(&commit.created),
        created_by: text(&commit.created_by),
        author: text(&commit.author),
        comment: text(&commit.comment),
        empty_layer: false,
    };
    let step = serde_json::to_value(step).map_err(|e| invalid(e.to_string()))?;
    match config.entry("history").or_insert(Value::Null) {
        Value::Array(all) => all.push(step),
        other => *other = json!([step]),
    }
    let ids = config.get_mut("rootfs").and_then(|r| r.get_mut("diff_ids"));
    let Some(Value::Array(ids)) = ids else {
        return Err(invalid("it names no layers".into()));
    };
    ids.push(diff_id.into());
    config.insert("config".into(), Value::Object(commit.config));
    config.insert("created".into(), commit.created.into());
    config.remove("author");
    if !commit.author.is_empty() {
        config.insert("author".into(), commit.author.into());
    }
    // What Docker once wrote of the container the base was made of.
    for old in ["container", "container_config"] {
        config.remove(old);
    }
    oci::json(&config)
}
