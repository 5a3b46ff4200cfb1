//! Images made of the tar of a root file system.

use std::io::BufReader;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::ImageStore;
use super::files::blocking;
use super::oci::{self, Config, RootFs};
use crate::{Error, History, ImageConfig, ImageRecord, Platform};

/// Bytes read at once.
pub(super) const BUFFER: usize = 128 << 10;

pub(super) async fn import_rootfs(
    store: &Arc<ImageStore>,
    tar: impl AsyncRead + Send + Unpin + 'static,
    config: ImageConfig,
    platform: Platform,
    comment: String,
    created: Option<String>,
) -> Result<ImageRecord, Error> {
    store.options.policy.allows_archives()?;
    let store = store.clone();
    let tar = SyncIoBridge::new(tar);
    blocking(move || {
        let mut pins = store.pins();
        let fresh = store.convert(BufReader::with_capacity(BUFFER, tar), "to be imported")?;
        let config = Config {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            created: created.clone(),
            config: Some(config),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: vec![fresh.diff_id.clone()],
            },
            history: Some(vec![History {
                comment: Some(comment),
                created,
                ..History::default()
            }]),
        };
        let meta = store.keep_layer(fresh, &mut pins)?;
        store.assemble(&oci::json(&config)?, &config, &[meta], &mut pins)
    })
    .await
}
