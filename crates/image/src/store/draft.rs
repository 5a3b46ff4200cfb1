//! Images in the making: a config in memory, and layers that are in the store already.
//!
//! A draft becomes an image only when something needs it to be one. Until then its layers are pinned, and go with the next
//! collection when it is dropped.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ImageStore;
use super::files::{Name, Pins, blocking};
use super::import::BUFFER;
use super::layers::LayerMeta;
use super::oci::{self, Config};
use crate::{Built, Error, History, ImageId, ImageRecord, LayerRecord, Platform};

/// The tar of a layer without entries, as everybody writes it: two empty blocks.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// A layer of the store that stays while this lives.
#[derive(Clone)]
pub struct KeptLayer {
    diff_id: String,
    meta: LayerMeta,
    _pins: Arc<Pins>,
}

impl KeptLayer {
    /// `sha256:…` of its tar.
    pub fn diff_id(&self) -> &str {
        &self.diff_id
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.diff_id == EMPTY
    }
}

/// An image in the making.
#[derive(Clone)]
pub struct Draft {
    /// The whole config document.
    document: Map<String, Value>,
    layers: Vec<KeptLayer>,
    keys: Vec<String>,
    /// The image it began with.
    _base: Arc<Pins>,
}

impl Draft {
    /// The `config` object.
    pub fn config(&self) -> Map<String, Value> {
        match self.document.get("config") {
            Some(Value::Object(config)) => config.clone(),
            _ => Map::new(),
        }
    }

    /// Replaces the `config` object.
    pub fn set_config(&mut self, config: Map<String, Value>) {
        self.document.insert("config".into(), Value::Object(config));
    }

    /// Says by whom it is; nobody with an empty text.
    pub fn set_author(&mut self, author: &str) {
        match author {
            "" => drop(self.document.remove("author")),
            author => drop(self.document.insert("author".into(), author.into())),
        }
    }

    /// By whom it is.
    pub fn author(&self) -> &str {
        self.document.get("author").and_then(Value::as_str).unwrap_or_default()
    }

    /// One more entry of its history, with or without a layer. `key` is set for steps that later builds may use again.
    pub fn step(&mut self, mut step: History, layer: Option<KeptLayer>, key: Option<String>) {
        let layer = layer.filter(|l| !l.is_empty());
        step.empty_layer = layer.is_none();
        if let Some(created) = &step.created {
            self.document.insert("created".into(), created.as_str().into());
        }
        let step = serde_json::to_value(step).unwrap_or_default();
        match self.document.entry("history").or_insert(Value::Null) {
            Value::Array(all) => all.push(step),
            other => *other = json!([step]),
        }
        self.layers.extend(layer);
        // What Docker once wrote of the container the base was made of.
        for old in ["container", "container_config"] {
            self.document.remove(old);
        }
        match key {
            Some(key) => self.keys.push(key),
            // What came before cannot be told by the last entries any more.
            None => self.keys.clear(),
        }
        let ids: Vec<&str> = self.layers.iter().map(KeptLayer::diff_id).collect();
        self.document
            .insert("rootfs".into(), json!({"type": "layers", "diff_ids": ids}));
    }

    /// The entries of its history.
    pub fn history(&self) -> Vec<History> {
        let all = self.document.get("history").cloned().unwrap_or_default();
        serde_json::from_value(all).unwrap_or_default()
    }

    /// How many of its steps can be used again.
    pub fn own_steps(&self) -> usize {
        self.keys.len()
    }

    /// The id it has as an image.
    pub fn id(&self) -> Result<ImageId, Error> {
        crate::digest::of(&oci::json(&self.document)?).parse()
    }

    /// Its layers' diff ids, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(KeptLayer::diff_id)
    }
}

/// Steps of earlier builds by what they were made of. Read once for a build.
#[derive(Debug, Default)]
pub struct StepCache(HashMap<String, (History, Option<String>)>);

impl ImageStore {
    /// A draft without any files.
    pub fn draft_of_nothing(&self, platform: &Platform) -> Draft {
        let mut document = Map::new();
        document.insert("architecture".into(), platform.architecture.as_str().into());
        document.insert("os".into(), platform.os.as_str().into());
        if let Some(variant) = &platform.variant {
            document.insert("variant".into(), variant.as_str().into());
        }
        document.insert("config".into(), json!({}));
        document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        document.insert("history".into(), json!([]));
        Draft {
            document,
            layers: Vec::new(),
            keys: Vec::new(),
            _base: Arc::new(self.pins()),
        }
    }

    /// A draft that begins as an image is.
    pub fn draft(&self, base: &ImageId) -> Result<Draft, Error> {
        let mut pins = self.pins();
        pins.add(Name::Image(base.hex().to_owned()));
        let record = self.get(base)?;
        let invalid = |why: String| Error::Invalid {
            what: "the config of the image".into(),
            why,
        };
        let document: Map<String, Value> =
            serde_json::from_slice(&self.raw_config(base)?).map_err(|e| invalid(e.to_string()))?;
        if !document
            .get("rootfs")
            .is_some_and(|r| r.get("diff_ids").is_some_and(Value::is_array))
        {
            return Err(invalid("it names no layers".into()));
        }
        let mut layers = Vec::with_capacity(record.layers.len() + 1);
        for l in &record.layers {
            let damaged = || Error::Damaged {
                path: l.file.clone(),
                why: "it is not there or not whole".into(),
            };
            layers.push(self.kept_layer(&l.diff_id)?.ok_or_else(damaged)?);
        }
        Ok(Draft {
            document,
            layers,
            keys: Vec::new(),
            _base: Arc::new(pins),
        })
    }

    /// A layer that is here, pinned.
    pub fn kept_layer(&self, diff_id: &str) -> Result<Option<KeptLayer>, Error> {
        let mut pins = self.pins();
        pins.add(Name::Layer(crate::digest::hex_of(diff_id).to_owned()));
        let meta = self.layer(diff_id)?;
        Ok(meta.map(|meta| KeptLayer {
            diff_id: diff_id.to_owned(),
            meta,
            _pins: Arc::new(pins),
        }))
    }

    /// Keeps the layer that a tar (plain, gzip, bzip2, xz or zstd) is. Blocks.
    pub fn write_layer(&self, tar: impl Read) -> Result<KeptLayer, Error> {
        let mut pins = self.pins();
        let fresh = self.convert(BufReader::with_capacity(BUFFER, tar), "of the changes")?;
        let diff_id = fresh.diff_id.clone();
        let meta = match diff_id.as_str() {
            // It goes into no image.
            EMPTY => LayerMeta {
                tar_size: fresh.converted.tar_size,
                image_size: fresh.converted.image_size,
                split_size: 0,
                inodes: fresh.converted.inodes,
                only_file: None,
            },
            _ => self.keep_layer(fresh, &mut pins)?,
        };
        Ok(KeptLayer {
            diff_id,
            meta,
            _pins: Arc::new(pins),
        })
    }

    /// A draft's layers, ready to be mounted.
    pub fn draft_layers(&self, draft: &Draft) -> Vec<LayerRecord> {
        let record = |l: &KeptLayer| LayerRecord {
            diff_id: l.diff_id.clone(),
            digest: l.diff_id.clone(),
            media_type: oci::OCI_LAYER.into(),
            blob_size: l.meta.tar_size,
            file: self.layer_file(&l.diff_id),
            size: l.meta.image_size,
        };
        draft.layers.iter().map(record).collect()
    }

    /// Makes an image of a draft. `with` are images that stay as long as it does.
    pub async fn keep_draft(self: &Arc<Self>, draft: &Draft, built: Built) -> Result<ImageRecord, Error> {
        let (store, draft) = (self.clone(), draft.clone());
        blocking(move || store.keep_draft_blocking(&draft, built)).await
    }

    pub(super) fn keep_draft_blocking(&self, draft: &Draft, built: Built) -> Result<ImageRecord, Error> {
        let mut pins = self.pins();
        let id = draft.id()?;
        pins.add(Name::Image(id.hex().to_owned()));
        let built = Built {
            keys: draft.keys.clone(),
            ..built
        };
        let says = built != Built::default();
        // An image that is the same as one that came from elsewhere keeps that one's manifest.
        if let Ok(Some(mut record)) = self.read_record(&id) {
            if !says || record.built.as_ref() == Some(&built) {
                return Ok(record);
            }
            record.built = Some(built);
            return self.write_record(record);
        }
        let bytes = oci::json(&draft.document)?;
        let config: Config = oci::config(&bytes, draft.layers.len(), "the new image")?;
        let metas: Vec<LayerMeta> = draft.layers.iter().map(|l| l.meta.clone()).collect();
        let mut record = self.assemble(&bytes, &config, &metas, &mut pins)?;
        if says {
            record.built = Some(built);
            record = self.write_record(record)?;
        }
        Ok(record)
    }

    /// What earlier builds left.
    pub fn step_cache(&self) -> Result<StepCache, Error> {
        let mut all = HashMap::new();
        for record in self.read_records()? {
            let Some(built) = &record.built else { continue };
            let Some(first) = record.history.len().checked_sub(built.keys.len()) else {
                continue;
            };
            // From the end, because what a base says of itself may not add up.
            let mut layers = record.layers.iter().rev();
            for (step, key) in record.history[first..].iter().zip(&built.keys).rev() {
                let layer = match step.empty_layer {
                    true => None,
                    false => match layers.next() {
                        Some(l) => Some(l.diff_id.clone()),
                        None => break,
                    },
                };
                // Of two that did the same, the later one: it is what somebody wanted to have done again.
                let later = |(old, _): &(History, Option<String>)| old.created >= step.created;
                if !all.get(key).is_some_and(later) {
                    all.insert(key.clone(), (step.clone(), layer));
                }
            }
        }
        Ok(StepCache(all))
    }

    /// A step of an earlier build, with its layer where it has one that is still here.
    pub fn cached_step(&self, cache: &StepCache, key: &str) -> Option<(History, Option<KeptLayer>)> {
        let (step, layer) = cache.0.get(key)?;
        match layer {
            None => Some((step.clone(), None)),
            Some(id) => Some((step.clone(), Some(self.kept_layer(id).ok()??))),
        }
    }
}
