//! A layer's blob exactly as it once came, though the store keeps only what was in it: packed again where that gives the
//! same bytes, else fetched from a registry that is known to have had it.

use std::io::Write;
use std::sync::Arc;

use biga_model::Reference;
use tempfile::NamedTempFile;

use super::ImageStore;
use super::files::blocking;
use super::oci::Descriptor;
use super::save::Source;
use crate::registry::{Auth, Piece, Repo, fetch};
use crate::{Error, ImageRecord};

/// Pieces between connection and disk.
const PIECES: usize = 16;

/// The blob, in a file that goes when it is dropped.
pub(super) async fn blob(
    store: &Arc<ImageStore>,
    record: &ImageRecord,
    blob: &Descriptor,
) -> Result<NamedTempFile, Error> {
    if let Some(file) = made(store, record, blob).await? {
        return Ok(file);
    }
    let mut why = "its layers are not kept as they came, and no registry is known to have them".to_owned();
    for source in &record.sources {
        match fetched(store, source, blob).await {
            Ok(file) => return Ok(file),
            Err(e) => {
                why = format!(
                    "{source}, from where it came, does not give its layer {}: {e}",
                    blob.digest
                )
            }
        }
    }
    Err(Error::NotExact {
        what: record.image_id.to_string(),
        why,
    })
}

/// The layer as a plain tar, or as we compress it.
async fn made(
    store: &Arc<ImageStore>,
    record: &ImageRecord,
    blob: &Descriptor,
) -> Result<Option<NamedTempFile>, Error> {
    let Some(layer) = record.layers.iter().find(|l| l.digest == blob.digest) else {
        return Ok(None);
    };
    let (owner, diff_id, wanted) = (store.clone(), layer.diff_id.clone(), blob.digest.clone());
    blocking(move || {
        let source = Source::Layer(diff_id.clone());
        if diff_id == wanted {
            let mut file = owner.temp()?;
            std::io::copy(&mut owner.open_source(&source)?, &mut file).map_err(Error::Stream)?;
            return Ok(Some(file));
        }
        let (file, digest, _) = owner.compress(&source)?;
        Ok((digest == wanted).then_some(file))
    })
    .await
}

/// The blob from the repository it came from.
async fn fetched(store: &Arc<ImageStore>, source: &str, blob: &Descriptor) -> Result<NamedTempFile, Error> {
    let reference: Reference = source.parse().map_err(|why| Error::Invalid {
        what: source.to_owned(),
        why,
    })?;
    let auth = store.auth_or_own(&Auth::Anonymous);
    let repos = Repo::sources(&store.client, &reference, &auth, false).await?;
    let (to, mut from) = tokio::sync::mpsc::channel(PIECES);
    let owner = store.clone();
    let writing = blocking(move || {
        let mut file = owner.temp()?;
        loop {
            match from.blocking_recv() {
                Some(Piece::Data(bytes)) => file.write_all(&bytes).map_err(Error::io("write", file.path()))?,
                Some(Piece::End) => return Ok(file),
                None => return Err(Error::Cancelled),
            }
        }
    });
    let (fetched, written) = tokio::join!(fetch(&repos, &blob.digest, blob.size, to, &|_| {}), writing);
    match (fetched, written) {
        // A full disk ends the fetch: that is the cause.
        (Err(Error::Cancelled), Err(e)) => Err(e),
        (Err(e), _) => Err(e),
        (Ok(()), written) => written,
    }
}
