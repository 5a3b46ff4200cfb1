//! Finding things by what users type: a name, an id, the beginning of an id.

use std::collections::HashMap;
use std::sync::Arc;

use biga_model::{Image, Instance, Network, Object, Reference, Volume};
use parking_lot::Mutex;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::seen::Known;
use crate::state::DockerApi;
use crate::translate::ids::{docker_id, network_name, short};

/// Image configs by image id. A config never changes under its id, so entries are only ever dropped for room.
#[derive(Default)]
pub(crate) struct ConfigCache(Mutex<HashMap<String, Arc<Value>>>);

/// Configs kept in memory.
const CONFIGS: usize = 512;

impl DockerApi {
    /// The container that `word` names: a name, a full id, or the unique beginning of one.
    pub(crate) async fn container(&self, word: &str) -> Result<Object<Instance>> {
        Ok((*self.known_container(word).await?.object).clone())
    }

    /// As [`DockerApi::container`], to look at only.
    pub(crate) async fn known_container(&self, word: &str) -> Result<Arc<Known>> {
        let missing = || Error::not_found(format!("No such container: {word}"));
        let word = word.strip_prefix('/').unwrap_or(word);
        if word.is_empty() || word.contains('/') {
            return Err(missing());
        }
        let by_name = self.known_by_name(word).await?;
        if !is_hex(word) {
            return by_name.ok_or_else(missing);
        }
        let all = self.known().await?;
        if let Some(full) = all.iter().find(|k| k.id == word) {
            return Ok(full.clone());
        }
        if let Some(o) = by_name {
            return Ok(o);
        }
        let mut prefixed = all.iter().filter(|k| k.id.starts_with(word));
        match (prefixed.next(), prefixed.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => Err(missing()),
            _ => Err(Error::bad(format!("Multiple IDs found with provided prefix: {word}"))),
        }
    }

    /// Images that are on the node.
    pub(crate) async fn ready_images(&self) -> Result<Vec<Object<Image>>> {
        let all = self.images().list(None).await?.items;
        let ready = |o: &Object<Image>| !o.status_or_default().image_id.is_empty() && !o.is_deleting();
        Ok(all.into_iter().filter(ready).collect())
    }

    /// All names of the image that `word` means, and whether `word` was a name (and not an id).
    pub(crate) async fn image(&self, word: &str) -> Result<FoundImage> {
        let missing = || Error::not_found(format!("No such image: {}", crate::translate::familiar(word)));
        let all = self.ready_images().await?;
        if let Some(found) = by_reference(word, &all) {
            return Ok(FoundImage::new(found, Some(word.to_string()), all));
        }
        let hex = word.strip_prefix("sha256:").unwrap_or(word);
        if !is_hex(hex) || hex.len() > 64 {
            return Err(missing());
        }
        let mut ids: Vec<String> = all
            .iter()
            .map(|o| o.status_or_default().image_id)
            .filter(|id| id.trim_start_matches("sha256:").starts_with(hex))
            .collect();
        ids.sort();
        ids.dedup();
        match &ids[..] {
            [id] => Ok(FoundImage::new(id.clone(), None, all)),
            [] => Err(missing()),
            _ => Err(Error::bad(format!("Multiple IDs found with provided prefix: {word}"))),
        }
    }

    /// The id of an instance's image: also when it was made just now and the agent has not said yet.
    pub(crate) async fn image_of(&self, o: &Object<Instance>) -> String {
        let said = o.status.as_ref().map_or_else(String::new, |s| s.image_id.clone());
        let word = o.spec.main_image();
        if said.is_empty() && word.starts_with("sha256:") {
            return word.to_string();
        }
        let (true, Ok(reference)) = (said.is_empty(), word.parse::<Reference>()) else {
            return said;
        };
        let found = self.images().find("", &reference.object_name()).await;
        found.ok().flatten().map_or(said, |i| i.status_or_default().image_id)
    }

    /// The OCI config of an image; an empty object where the node does not have it any more.
    pub(crate) async fn image_config(&self, image_id: &str) -> Arc<Value> {
        if image_id.is_empty() {
            return Arc::new(Value::Null);
        }
        if let Some(found) = self.inner.configs.0.lock().get(image_id) {
            return found.clone();
        }
        match self.backend().image_config(image_id).await {
            Ok(config) => {
                let config = Arc::new(config);
                let mut cache = self.inner.configs.0.lock();
                if cache.len() >= CONFIGS {
                    cache.clear();
                }
                cache.insert(image_id.to_string(), config.clone());
                config
            }
            Err(e) => {
                tracing::debug!(image_id, "the image config cannot be read: {e}");
                Arc::new(Value::Null)
            }
        }
    }

    /// The network that `word` names by Docker name, id or beginning of an id.
    pub(crate) async fn network(&self, word: &str) -> Result<Object<Network>> {
        let missing = || Error::not_found(format!("network {word} not found"));
        let all = self.networks().list(None).await?.items;
        let model_name = network_name(word);
        if let Some(o) = all.iter().find(|o| o.name() == model_name) {
            return Ok(o.clone());
        }
        if !is_hex(word) {
            return Err(missing());
        }
        let mut found: Vec<_> = all
            .into_iter()
            .filter(|o| docker_id(o.uid()).starts_with(word))
            .collect();
        match found.len() {
            0 => Err(missing()),
            1 => found.pop().ok_or_else(missing),
            n => Err(Error::bad(format!(
                "network {word} is ambiguous ({n} matches found based on ID prefix)"
            ))),
        }
    }

    /// The volume of this name.
    pub(crate) async fn volume(&self, name: &str) -> Result<Object<Volume>> {
        let found = match name.contains('/') {
            true => None,
            false => self.volumes().find(self.ns(), name).await?,
        };
        found.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }
}

/// An image that was found.
#[derive(Debug, Clone)]
pub(crate) struct FoundImage {
    /// `sha256:…`
    pub id: String,
    /// What was typed, where it was a name.
    pub by_name: Option<String>,
    /// Every object that names it.
    pub objects: Vec<Object<Image>>,
}

impl FoundImage {
    fn new(id: String, by_name: Option<String>, all: Vec<Object<Image>>) -> FoundImage {
        let objects = all
            .into_iter()
            .filter(|o| o.status_or_default().image_id == id)
            .collect();
        FoundImage { id, by_name, objects }
    }

    /// Refuses a platform that the image is not for: here each name stands for one image.
    pub fn serves(&self, platform: Option<&str>) -> Result<()> {
        let Some(wanted) = platform else { return Ok(()) };
        let objects = self.objects.iter();
        let have = objects.map(|o| o.status_or_default().platform).find(|p| !p.is_empty());
        let have = have.unwrap_or_default();
        let fits = have.is_empty() || have == wanted || have.strip_prefix(wanted).is_some_and(|r| r.starts_with('/'));
        if fits {
            return Ok(());
        }
        let name = self.by_name.as_deref().unwrap_or(&self.id);
        Err(Error::not_found(format!(
            "image with reference {name} was found but does not provide the specified platform ({wanted}): it is {have}"
        )))
    }

    /// The object under the name that was typed.
    pub fn named(&self) -> Option<&Object<Image>> {
        let word: Reference = self.by_name.as_deref()?.parse().ok()?;
        self.objects
            .iter()
            .find(|o| o.spec.reference.parse::<Reference>().is_ok_and(|r| r == word))
    }

    /// A reference by which the node finds it.
    pub fn reference(&self) -> String {
        self.named()
            .or_else(|| self.objects.first())
            .map_or_else(|| self.id.clone(), |o| o.spec.reference.clone())
    }
}

/// The id of the image under a reference, or under a digest of its repository.
fn by_reference(word: &str, all: &[Object<Image>]) -> Option<String> {
    let wanted: Reference = word.parse().ok()?;
    let matches = |o: &&Object<Image>| {
        let Ok(r) = o.spec.reference.parse::<Reference>() else {
            return false;
        };
        let by_digest = wanted
            .digest
            .as_deref()
            .is_some_and(|d| d == o.status_or_default().digest);
        r == wanted || (by_digest && r.registry == wanted.registry && r.repository == wanted.repository)
    };
    all.iter().find(matches).map(|o| o.status_or_default().image_id)
}

pub(crate) fn is_hex(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A word for messages: ids are cut short.
pub(crate) fn brief(o: &Object<Instance>) -> String {
    short(&docker_id(o.uid()))
}
