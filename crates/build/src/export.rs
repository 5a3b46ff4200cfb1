//! What is in an image, for whoever wants only that.

use std::io::{BufWriter, Write};
use std::os::fd::AsFd;

use biga_image::ImageRecord;
use biga_image::files::{Crossing, Packer};
use bytes::Bytes;
use futures_util::Stream;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use crate::copy::{InUse, root, thread, viewed};
use crate::{Builder, Error};

/// Bytes between the tar's writer and its reader.
const PIPE: usize = 256 << 10;

impl Builder {
    /// The tar of an image's files, as a container sees them.
    pub async fn files_of(
        &self,
        image: &str,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, Error> {
        let record = self.here(image).await?;
        let mounts = self.engine.mounts.clone();
        let (writer, reader) = tokio::io::duplex(PIPE);
        let writer = SyncIoBridge::new(writer);
        let packing = thread(move || {
            viewed(&mounts, &[&record.layers], |used| {
                pack(used, &record, BufWriter::with_capacity(PIPE / 4, writer))
            })
        });
        let packing = tokio::spawn(packing);
        let outcome = futures_util::stream::once(async move {
            match packing.await {
                Ok(Ok(())) => Ok(Bytes::new()),
                Ok(Err(e)) => Err(std::io::Error::other(e.to_string())),
                Err(e) => Err(std::io::Error::other(e)),
            }
        });
        use futures_util::StreamExt;
        // A tar that was cut short ends in an error and not in silence.
        Ok(ReaderStream::new(reader).chain(outcome))
    }
}

fn pack(used: &InUse, record: &ImageRecord, out: impl Write) -> Result<(), Error> {
    let failed = |e: biga_image::files::Error| Error::Failed(format!("what is in the image cannot be read: {e}"));
    let root = root(&used.mount(&record.layers)?)?;
    let mut packer = Packer::new(out, Crossing::Stay);
    if let Some(root) = &root {
        packer.add_content(root.as_fd()).map_err(failed)?;
    }
    let mut out = packer.finish().map_err(failed)?;
    out.flush()
        .map_err(|e| Error::Failed(format!("what is in the image cannot be sent: {e}")))
}
