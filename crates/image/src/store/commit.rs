//! An image made of another and one more layer: what a container changed, with a config of its own.

use std::io::Read;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::ImageStore;
use super::files::blocking;
use crate::{Built, Error, History, ImageId, ImageRecord};

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
        let mut draft = self.draft(base)?;
        let layer = self.write_layer(layer)?;
        let text = |t: &String| (!t.is_empty()).then(|| t.clone());
        let step = History {
            created: text(&commit.created),
            created_by: text(&commit.created_by),
            author: text(&commit.author),
            comment: text(&commit.comment),
            empty_layer: false,
        };
        draft.step(step, Some(layer), None);
        draft.set_config(commit.config);
        draft.set_author(&commit.author);
        self.keep_draft_blocking(&draft, Built::default())
    }
}
