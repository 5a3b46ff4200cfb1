//! The store of images on disk.
//!
//! ```text
//! <root>/images/<hex>.json        one ImageRecord each: these are the roots
//! <root>/blobs/sha256/<hex>       manifests and configs as they came
//! <root>/layers/<hex>.erofs       a layer by its diff id, ready to mount
//! <root>/layers/<hex>.split       what the tar had beside file contents (see split)
//! <root>/layers/<hex>.json        sizes, for checking; written last, so it marks a layer as whole
//! <root>/disks/<hex>.raw|qcow2    disk images
//! <root>/used/<hex>               empty; its time tells when the image was last used
//! <root>/tmp/                     work in progress; emptied at start
//! ```
//!
//! Everything appears by rename when it is whole and on the disk, and a record is written after all it
//! names. So after a crash at any point the store holds whole things only, and what no record reaches is
//! taken by [`ImageStore::gc`]. While a pull or load runs it *pins* the names it will need, so that a
//! collection at the same time leaves them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use biga_model::Reference;
use parking_lot::Mutex;

use crate::layer::Limits;
use crate::policy::Policy;
use crate::registry::{Auth, Client, Repo};
use crate::{Error, ImageConfig, ImageId, ImageRecord, Platform};

mod assemble;
mod budget;
mod commit;
mod disks;
mod draft;
mod exact;
mod files;
mod gc;
mod import;
mod kept;
mod layers;
mod load;
pub(crate) mod oci;
mod pull;
mod push;
mod referrers;
mod remote;
mod save;
mod steps;

pub use commit::Commit;
pub use draft::{Draft, KeptLayer, StepCache};
pub use gc::GcReport;
pub use kept::{HeldImage, KeptBuild};
pub use load::Loaded;
pub use push::Pushed;
pub use remote::Remote;
pub use save::ArchiveFormat;
pub use steps::Steps;

/// How the store and its registry client behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bounds on what layers may hold.
    pub limits: Limits,
    /// Layers fetched at once in one pull.
    pub parallel_layers: usize,
    /// Images recorded less than this ago are not collected, so that a pull's caller has time to make use of it.
    pub gc_grace: Duration,
    /// Docker's directory of CAs and client certificates: `<dir>/HOST[:PORT]/*.crt, *.cert + *.key`.
    pub certs_dir: PathBuf,
    /// Registries (`host[:port]`) that may be spoken to in plain HTTP.
    pub insecure_registries: Vec<String>,
    /// For a registry, base URLs to ask before it, as `https://mirror.example.org`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Tries of a request, or of a blob without progress, before it fails.
    pub attempts: u32,
    /// Pause before the second try; doubles with each.
    pub backoff: Duration,
    /// A connection that brings nothing for so long counts as broken.
    pub stall_timeout: Duration,
    /// A file in the form of Docker's, with credentials for whoever asks without any of his own.
    pub credentials: Option<PathBuf>,
    /// Which images may come in and run.
    pub policy: Policy,
    /// Bytes of disk that images may take, above which those used least recently go ([`ImageStore::over_budget`]).
    pub disk_budget: Option<u64>,
    /// Layers are mounted through loop devices also where the kernel could mount them from their files.
    pub loop_devices: bool,
    /// For tests.
    pub steps: Steps,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            parallel_layers: 3,
            gc_grace: Duration::from_secs(600),
            certs_dir: "/etc/docker/certs.d".into(),
            insecure_registries: Vec::new(),
            mirrors: BTreeMap::new(),
            attempts: 5,
            backoff: Duration::from_millis(250),
            stall_timeout: Duration::from_secs(60),
            credentials: None,
            policy: Policy::accept_all(),
            disk_budget: None,
            loop_devices: false,
            steps: Steps::default(),
        }
    }
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Which image of an index; this host's platform where unset.
    pub platform: Option<Platform>,
    /// Who asks.
    pub auth: Auth,
    /// Plain HTTP is allowed for this pull.
    pub insecure: bool,
    /// Also fetch what refers to the image: signatures, bills of materials.
    pub referrers: bool,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Who asks.
    pub auth: Auth,
    /// Plain HTTP is allowed for this push.
    pub insecure: bool,
    /// Also send what refers to the image, as far as it was fetched with it. The image must then arrive under the manifest it
    /// came with: blobs that the registry lacks are fetched from where they came.
    pub referrers: bool,
}

/// What happens while an image moves. Sent often, from several threads; keep the receiver quick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The image is known: its layers (digest and bytes of each blob), lowest first.
    Resolved {
        /// Digest of its manifest.
        manifest_digest: String,
        /// Blob digest and size.
        layers: Vec<(String, u64)>,
    },
    /// A layer's blob went on.
    Layer {
        /// Blob digest.
        digest: String,
        /// What is done with it.
        state: LayerState,
        /// Bytes moved.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// For its turn, or for another pull of it.
    Waiting,
    /// Nothing is to be done: it is there already.
    Exists,
    /// Bytes are moving.
    Transferring,
    /// It is there.
    Done,
}

pub(crate) type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// The images on this node. One per root directory; all methods may be called at once from anywhere.
pub struct ImageStore {
    root: PathBuf,
    options: Options,
    client: Client,
    /// Names that work in progress relies on, counted; and the lock under which files come and go.
    pins: files::PinTable,
    /// One lock for each diff id being fetched, so that two pulls share the work.
    fetching: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    _lock: std::fs::File,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the store below `root`, making it where it is missing, and clears what a crash left.
    pub fn open(root: &Path, options: Options) -> Result<Arc<ImageStore>, Error> {
        let lock = files::prepare(root)?;
        let client = Client::new(&options)?;
        let store = ImageStore {
            root: root.to_path_buf(),
            options,
            client,
            pins: Arc::default(),
            fetching: Arc::default(),
            _lock: lock,
        };
        Ok(Arc::new(store))
    }

    /// Which images may come in and run.
    pub fn policy(&self) -> &Policy {
        &self.options.policy
    }

    /// Asks a registry (`host[:port]`) whether it lets somebody in.
    pub async fn check_login(&self, registry: &str, auth: &Auth) -> Result<(), Error> {
        Repo::door(&self.client, registry, auth, false).await?.knock().await
    }

    /// Who asks where nobody was named.
    fn auth_or_own(&self, auth: &Auth) -> Auth {
        match (auth, &self.options.credentials) {
            (Auth::Anonymous, Some(path)) => Auth::DockerConfig(path.clone()),
            (auth, _) => auth.clone(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The directory it lives in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// One image.
    pub fn get(&self, id: &ImageId) -> Result<ImageRecord, Error> {
        self.read_record(id)?.ok_or_else(|| Error::NoImage(id.to_string()))
    }

    /// All images, ordered by id.
    pub fn list(&self) -> Result<Vec<ImageRecord>, Error> {
        self.read_records()
    }

    /// Removes an image and what no other image shares with it. Removing what is not there is an error.
    /// Whoever still has its layers mounted or its disk open keeps them until they are done.
    pub async fn remove(self: &Arc<Self>, id: &ImageId) -> Result<GcReport, Error> {
        let (store, id) = (self.clone(), id.clone());
        files::blocking(move || store.remove_blocking(&id)).await
    }

    /// Removes every image that is not in `in_use` (and not younger than [`Options::gc_grace`]), then every
    /// blob, layer and disk that no remaining image reaches.
    pub async fn gc(self: &Arc<Self>, in_use: &HashSet<ImageId>) -> Result<GcReport, Error> {
        let (store, in_use) = (self.clone(), in_use.clone());
        files::blocking(move || store.gc_blocking(Some(&in_use))).await
    }

    /// The image's manifest, or with an imported disk nothing.
    pub fn manifest(&self, id: &ImageId) -> Result<Vec<u8>, Error> {
        let record = self.get(id)?;
        if record.manifest_digest.is_empty() {
            return Ok(Vec::new());
        }
        self.read_blob(&record.manifest_digest)
    }

    /// The image's config as it came (`docker inspect` shows more of it than [`ImageConfig`] has).
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, Error> {
        let record = self.get(id)?;
        match oci::config_digest(&self.manifest(&record.image_id)?) {
            Some(digest) => self.read_blob(&digest),
            None => Ok(b"{}".to_vec()),
        }
    }

    /// Gets an image from its registry. Layers that are here are not fetched again.
    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PullOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<ImageRecord, Error> {
        pull::pull(self, reference, options, &progress).await
    }

    /// Sends an image to a registry under this name.
    pub async fn push(
        self: &Arc<Self>,
        id: &ImageId,
        reference: &Reference,
        options: &PushOptions,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Pushed, Error> {
        push::push(self, id, reference, options, &progress).await
    }

    /// Reads an archive as `docker save` writes it, or a tar of an OCI layout; plain, gzip, bzip2, xz or zstd. With a platform
    /// only what is for it, which must be something.
    pub async fn load(
        self: &Arc<Self>,
        reader: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        platform: Option<Platform>,
    ) -> Result<Vec<Loaded>, Error> {
        load::load(self, reader, platform).await
    }

    /// Writes images as one archive, each under its names.
    pub async fn save(
        self: &Arc<Self>,
        images: &[(ImageId, Vec<Reference>)],
        writer: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
        format: ArchiveFormat,
    ) -> Result<(), Error> {
        save::save(self, images, writer, format).await
    }

    /// Makes an image of one layer from the tar of a root file system; plain, gzip, bzip2, xz or zstd.
    pub async fn import_rootfs(
        self: &Arc<Self>,
        tar: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        config: ImageConfig,
        platform: Option<Platform>,
    ) -> Result<ImageRecord, Error> {
        self.import_rootfs_as(tar, config, platform, "imported", None).await
    }

    /// The same, with a remark for its history and when it was made: without that, the same archive gives the same image.
    pub async fn import_rootfs_as(
        self: &Arc<Self>,
        tar: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        config: ImageConfig,
        platform: Option<Platform>,
        comment: &str,
        created: Option<String>,
    ) -> Result<ImageRecord, Error> {
        let platform = platform.unwrap_or_else(Platform::host);
        import::import_rootfs(self, tar, config, platform, comment.to_owned(), created).await
    }

    /// The bytes at an address (http or https) that somebody gave by hand.
    pub async fn fetch(
        &self,
        address: &str,
    ) -> Result<impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin + use<>, Error> {
        let response = self.client.fetch(address).await?;
        Ok(Box::pin(futures_util::TryStreamExt::map_err(
            response.bytes_stream(),
            std::io::Error::other,
        )))
    }

    /// Makes an image of a disk; plain, gzip, bzip2, xz or zstd. The format must be named.
    pub async fn import_disk(
        self: &Arc<Self>,
        disk: impl tokio::io::AsyncRead + Send + Unpin + 'static,
        format: crate::DiskFormat,
    ) -> Result<ImageRecord, Error> {
        disks::import_disk(self, disk, format).await
    }
}
