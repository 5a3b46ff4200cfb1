//! Layers in the store: made from blobs, found, and turned into tars again.

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::sync::mpsc::Receiver;

use super::ImageStore;
use super::files::{Name, Pins};
use crate::Error;
use crate::erofs::OnlyFile;
use crate::layer::{Converted, convert};
use crate::registry::Piece;
use crate::split::TarReader;

/// What stands in a layer's `.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerMeta {
    pub tar_size: u64,
    pub image_size: u64,
    pub split_size: u64,
    #[serde(default)]
    pub inodes: u64,
    #[serde(default)]
    pub only_file: Option<OnlyFile>,
}

/// A layer that is not in its place yet.
pub(super) struct Fresh {
    pub diff_id: String,
    pub converted: Converted,
    image: NamedTempFile,
    split: NamedTempFile,
}

impl ImageStore {
    /// A layer that is here and whole.
    pub(super) fn layer(&self, diff_id: &str) -> Result<Option<LayerMeta>, Error> {
        let hex = crate::digest::hex_of(diff_id);
        let path = self.layer_path(hex, "json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let Ok(meta) = serde_json::from_slice::<LayerMeta>(&bytes) else {
            return Ok(None);
        };
        let has =
            |extension: &str, size: u64| fs::metadata(self.layer_path(hex, extension)).is_ok_and(|m| m.len() == size);
        let whole = has("erofs", meta.image_size) && has("split", meta.split_size);
        Ok(whole.then_some(meta))
    }

    /// The EROFS file of a layer.
    pub(super) fn layer_file(&self, diff_id: &str) -> PathBuf {
        self.layer_path(crate::digest::hex_of(diff_id), "erofs")
    }

    /// Converts a blob. `name` is for messages.
    pub(super) fn convert(&self, blob: impl BufRead, name: &str) -> Result<Fresh, Error> {
        let (image, split) = (self.temp()?, self.temp()?);
        let file = |f: &NamedTempFile| f.reopen().map_err(Error::io("open", f.path()));
        let converted =
            convert(blob, file(&image)?, file(&split)?, &self.options.limits).map_err(|source| Error::Layer {
                layer: name.to_owned(),
                source,
            })?;
        let diff_id = crate::digest::spell(&converted.diff_id);
        Ok(Fresh {
            diff_id,
            converted,
            image,
            split,
        })
    }

    /// Puts a converted layer in its place, unless it is there.
    pub(super) fn keep_layer(&self, fresh: Fresh, pins: &mut Pins) -> Result<LayerMeta, Error> {
        let hex = crate::digest::hex_of(&fresh.diff_id);
        pins.add(Name::Layer(hex.to_owned()));
        if let Some(meta) = self.layer(&fresh.diff_id)? {
            return Ok(meta);
        }
        let split_size = fresh
            .split
            .as_file()
            .metadata()
            .map_err(Error::io("read", fresh.split.path()))?
            .len();
        let meta = LayerMeta {
            tar_size: fresh.converted.tar_size,
            image_size: fresh.converted.image_size,
            split_size,
            inodes: fresh.converted.inodes,
            only_file: fresh.converted.only_file,
        };
        self.place(fresh.image, &self.layer_path(hex, "erofs"))?;
        self.place(fresh.split, &self.layer_path(hex, "split"))?;
        self.write_whole(&super::oci::json(&meta)?, &self.layer_path(hex, "json"))?;
        Ok(meta)
    }

    /// The tar of a layer as it once came, byte for byte. Its digest is checked when it ends.
    pub(super) fn layer_tar(&self, diff_id: &str) -> Result<CheckedTar, Error> {
        let hex = crate::digest::hex_of(diff_id);
        let open = |extension: &str| {
            let path = self.layer_path(hex, extension);
            File::open(&path).map_err(Error::io("open", &path))
        };
        let tar = TarReader::new(open("split")?, open("erofs")?).map_err(|e| Error::Damaged {
            path: self.layer_path(hex, "split"),
            why: e.to_string(),
        })?;
        Ok(CheckedTar {
            tar,
            hasher: Sha256::new(),
            diff_id: diff_id.to_owned(),
        })
    }

    /// The lock under which one layer is fetched.
    pub(super) fn fetch_lock(&self, diff_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.fetching.lock();
        // Those that nobody waits for are of no more use.
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        all.entry(diff_id.to_owned()).or_default().clone()
    }
}

/// A tar that proves its digest by its end.
pub(super) struct CheckedTar {
    tar: TarReader,
    hasher: Sha256,
    diff_id: String,
}

impl Read for CheckedTar {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.tar.read(out)?;
        self.hasher.update(&out[..n]);
        if n == 0 && !out.is_empty() {
            let actual = crate::digest::finish(self.hasher.clone());
            if actual != self.diff_id {
                let why = format!("layer {} on this disk is damaged: pull the image again", self.diff_id);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        Ok(n)
    }
}

/// A fetch as a blocking reader. It ends well only when all came; when the other side is dropped, reading fails.
pub(super) struct Received {
    from: Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl Received {
    pub(super) fn new(from: Receiver<Piece>) -> Received {
        Received {
            from,
            piece: Bytes::new(),
            ended: false,
        }
    }
}

impl BufRead for Received {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            match self.from.blocking_recv() {
                Some(Piece::Data(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the blob was not fetched whole",
                    ));
                }
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, n: usize) {
        self.piece.advance(n);
    }
}

impl Read for Received {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(out.len());
        out[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}
