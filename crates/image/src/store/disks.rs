//! Disk images: imported, taken out of a pulled layer, and put into one.
//!
//! In registries they travel in the containerDisk layout: an image of one layer that holds one file in `/disk`.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use biga_model::ImageFormat;
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::ImageStore;
use super::files::{Name, Pins, blocking};
use super::import::BUFFER;
use crate::erofs::OnlyFile;
use crate::layer::decompress;
use crate::tarstream::write::{Header, padding};
use crate::{DiskFormat, DiskRecord, Error, ImageConfig, ImageId, ImageRecord, Platform, Referrer, Verified, disk};

/// Zeros are left out in units of this size.
const PIECE: usize = 64 << 10;
/// The user that KubeVirt's machines run as.
const QEMU_ID: u32 = 107;

/// Where a pulled disk came from.
pub(super) struct FromLayer {
    pub resolved: Vec<u8>,
    pub digest: String,
    pub index_digest: String,
    pub origin: String,
    pub referrers: Vec<Referrer>,
    pub verified: Vec<Verified>,
}

pub(super) async fn import_disk(
    store: &Arc<ImageStore>,
    source: impl AsyncRead + Send + Unpin + 'static,
    format: DiskFormat,
) -> Result<ImageRecord, Error> {
    store.options.policy.allows_archives()?;
    let store = store.clone();
    let source = SyncIoBridge::new(source);
    blocking(move || {
        let buffered = BufReader::with_capacity(BUFFER, source);
        let plain = decompress(buffered, store.options.limits.ratio).map_err(Error::Stream)?;
        let mut pins = store.pins();
        let record = store.keep_disk(plain, Some(format), &mut pins)?;
        store.write_record(record)
    })
    .await
}

/// Makes a disk image of the one file in a layer.
pub(super) async fn from_layer(
    store: &Arc<ImageStore>,
    diff_id: String,
    only: OnlyFile,
    config: bytes::Bytes,
    source: FromLayer,
) -> Result<ImageRecord, Error> {
    let store = store.clone();
    blocking(move || {
        let path = store.layer_file(&diff_id);
        let mut file = File::open(&path).map_err(Error::io("open", &path))?;
        file.seek(SeekFrom::Start(only.start))
            .map_err(Error::io("read", &path))?;
        let mut pins = store.pins();
        let record = store.keep_disk(file.take(only.size), None, &mut pins)?;
        store.write_blob(&source.resolved, &mut pins)?;
        store.write_blob(&config, &mut pins)?;
        store.write_record(ImageRecord {
            manifest_digest: source.digest,
            index_digest: source.index_digest,
            sources: vec![source.origin],
            referrers: source.referrers,
            verified: source.verified,
            built: None,
            ..record
        })
    })
    .await
}

impl ImageStore {
    /// Stores a disk; its format is checked, or found out where none is named.
    fn keep_disk(&self, source: impl Read, format: Option<DiskFormat>, pins: &mut Pins) -> Result<ImageRecord, Error> {
        let temp = self.temp()?;
        let digest = copy_sparse(source, temp.as_file(), self.options.limits.image_bytes)?;
        let (format, virtual_size) = match format {
            Some(format) => (format, disk::check(temp.as_file(), format)?),
            None => disk::detect(temp.as_file())?,
        };
        let image_id: ImageId = digest.parse()?;
        pins.add(Name::Disk(image_id.hex().to_owned()));
        pins.add(Name::Image(image_id.hex().to_owned()));
        let file = self.disk_path(image_id.hex(), format);
        let size = temp.as_file().metadata().map_err(Error::io("read", temp.path()))?.len();
        self.place(temp, &file)?;
        Ok(ImageRecord {
            image_id,
            manifest_digest: String::new(),
            index_digest: String::new(),
            format: ImageFormat::Disk,
            platform: Platform::host().to_string(),
            size,
            layers: Vec::new(),
            config: ImageConfig::default(),
            disk: Some(DiskRecord {
                file,
                format,
                virtual_size,
            }),
            created: None,
            history: Vec::new(),
            sources: Vec::new(),
            referrers: Vec::new(),
            verified: Vec::new(),
            built: None,
        })
    }
}

/// Copies all but long runs of zeros; returns the digest of the whole.
fn copy_sparse(mut from: impl Read, to: &File, limit: u64) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0u64;
    loop {
        let mut filled = 0;
        while filled < piece.len() {
            match from.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Stream(e)),
            }
        }
        let bytes = &piece[..filled];
        hasher.update(bytes);
        if bytes.iter().any(|&b| b != 0) {
            to.write_all_at(bytes, at).map_err(Error::Stream)?;
        }
        at += filled as u64;
        if at > limit {
            return Err(disk::Error::TooBig(limit).into());
        }
        if filled < piece.len() {
            to.set_len(at).map_err(Error::Stream)?;
            return Ok(crate::digest::finish(hasher));
        }
    }
}

/// The tar of a disk's layer.
pub(super) struct DiskTar {
    pub size: u64,
    pub reader: Box<dyn Read + Send>,
}

/// Builds it from the disk file.
pub(super) fn layer_tar(disk: &DiskRecord) -> Result<DiskTar, Error> {
    let file = File::open(&disk.file).map_err(Error::io("open", &disk.file))?;
    let size = file.metadata().map_err(Error::io("read", &disk.file))?.len();
    let name = match disk.format {
        DiskFormat::Raw => "disk/disk.img",
        DiskFormat::Qcow2 => "disk/disk.qcow2",
    };
    let mut head = Vec::new();
    head.extend(
        Header {
            name: "disk/",
            directory: true,
            mode: 0o555,
            id: QEMU_ID,
            size: 0,
        }
        .encode(),
    );
    head.extend(
        Header {
            name,
            directory: false,
            mode: 0o440,
            id: QEMU_ID,
            size,
        }
        .encode(),
    );
    let tail = vec![0; padding(size) + 1024];
    let total = head.len() as u64 + size + tail.len() as u64;
    let reader = Cursor::new(head).chain(file.take(size)).chain(Cursor::new(tail));
    Ok(DiskTar {
        size: total,
        reader: Box::new(reader),
    })
}
