//! What the Docker API asks of the node: the streaming path. The program implements it over the agent.

use async_trait::async_trait;
use biga_wire::build::{Build, Event};
use biga_wire::cache::{CacheFilter, CacheRecord};
use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use biga_wire::files::{Change, Commit, PathStat, Put};
use biga_wire::http::{ImageResult, Progress, PruneResult};
use biga_wire::shim;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream in both directions, of any kind. `UnixStream` becomes one by `Box::new`.
pub type BoxedIo = Box<dyn Io>;

/// Bytes that arrive over time. An error ends the answer early.
pub type ByteStream = BoxStream<'static, Result<Bytes, Fault>>;

/// A request's body.
pub type Upload = BoxStream<'static, std::io::Result<Bytes>>;

/// Why the node could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure; becomes the status code.
    pub kind: FaultKind,
    /// A sentence for people; goes to the client.
    pub message: String,
}

impl Fault {
    /// A failure.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault {
            kind,
            message: message.into(),
        }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// 400: the request makes no sense.
    Invalid,
    /// 401: the registry wants other credentials.
    Unauthorized,
    /// 403: what stands there is read-only.
    Forbidden,
    /// 404: no such thing.
    NotFound,
    /// 409: its state does not allow it.
    Conflict,
    /// 501: this node cannot do it.
    Unsupported,
    /// 500: it was tried and failed.
    Failed,
}

/// Which part of an instance's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on with what is written from now, until the instance ends or the client leaves.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// Only what is not older than this.
    pub since: Option<biga_model::Timestamp>,
    /// Only what is older than this.
    pub until: Option<biga_model::Timestamp>,
    /// Begin each line with its time (RFC 3339, nanoseconds) and a space.
    pub timestamps: bool,
    /// Begin each line with what the log driver noted beside it, and a space.
    pub details: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Credentials for a registry, from the header `X-Registry-Auth`. Never printed.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A token that stands for both.
    #[serde(rename = "identitytoken", alias = "IdentityToken")]
    pub identity_token: String,
    /// A bearer token for the registry itself.
    #[serde(rename = "registrytoken", alias = "RegistryToken")]
    pub registry_token: String,
    /// The registry they are for.
    #[serde(rename = "serveraddress", alias = "ServerAddress")]
    pub server_address: String,
}

impl RegistryAuth {
    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        [
            &self.username,
            &self.password,
            &self.identity_token,
            &self.registry_token,
        ]
        .iter()
        .all(|s| s.is_empty())
    }
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryAuth({} at {})", self.username, self.server_address)
    }
}

/// What an import makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The image's name; one made of its id where unset.
    pub reference: Option<String>,
    /// Where the archive is (http or https); it is what was sent where unset.
    pub address: Option<String>,
    /// Instructions of a Dockerfile that make its config.
    pub changes: Vec<String>,
    /// A remark in its history.
    pub message: Option<String>,
    /// What it is for, as `linux/amd64`; this host where unset.
    pub platform: Option<String>,
}

/// An image as its registry describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Media type of its manifest or index.
    pub media_type: String,
    /// Digest of that.
    pub digest: String,
    /// Bytes of that.
    pub size: u64,
    /// What there is of it.
    pub platforms: Vec<Platform>,
}

/// What an image runs on, in the words of the OCI image specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    /// As `linux`.
    pub os: String,
    /// As `amd64`.
    pub architecture: String,
    /// As `v8`; may be empty.
    pub variant: String,
}

/// Where a long call reports how far it is. Reports are dropped where the client is slow.
#[derive(Debug, Clone)]
pub struct Reporter {
    lines: mpsc::Sender<Progress>,
}

impl Reporter {
    pub(crate) fn new(lines: mpsc::Sender<Progress>) -> Reporter {
        Reporter { lines }
    }

    /// Reports.
    pub fn progress(&self, progress: Progress) {
        let _ = self.lines.try_send(progress);
    }

    /// Whether the client is gone, so that nobody wants the result.
    pub fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildFault {
    /// A sentence for people.
    pub message: String,
    /// The exit code of the step's command, where that is what failed.
    pub code: Option<i32>,
}

/// A build that was found to make sense.
#[async_trait]
pub trait Building: Send {
    /// Builds and tells what happens. Dropping the call ends the build.
    async fn run(self: Box<Self>, events: mpsc::Sender<Event>) -> Result<(), BuildFault>;
}

/// Devices that vendors describe on the node.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    /// Directories with descriptions.
    pub dirs: Vec<String>,
    /// Their names.
    pub devices: Vec<String>,
    /// What is wrong with a description.
    pub warnings: Vec<String>,
}

/// The node behind the streaming path.
///
/// A call's future is dropped when its client goes; what must not stop half-way belongs in a task of its own.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Opens a stream into an instance: waits (a while) for it to have a shim, connects, and sends `first`, one of
    /// `Exec`, `Attach`, `Console`. The shim's reply is not read: it is the first frame of the stream.
    async fn open(&self, namespace: &str, name: &str, first: shim::Request) -> Result<BoxedIo, Fault>;

    /// An instance's log as wire frames of `Stdout` and `Stderr`; frames may be cut anywhere between two items.
    async fn logs(&self, namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, Fault>;

    /// Samples of what an instance uses: one, or with `stream` one a second until it ends or the client leaves.
    async fn stats(
        &self,
        namespace: &str,
        name: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, Fault>>, Fault>;

    /// Sends a signal to an instance's main process.
    async fn signal(&self, namespace: &str, name: &str, signal: i32) -> Result<(), Fault>;

    /// Ids of an instance's processes, as this host sees them.
    async fn pids(&self, namespace: &str, name: &str) -> Result<Vec<u32>, Fault>;

    /// OCI runtimes that containers can name beside Biga's own: name and path.
    fn runtimes(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Devices that vendors describe on the node (the Container Device Interface).
    fn devices(&self) -> Devices {
        Devices::default()
    }

    /// The OCI image config (the whole JSON document: `config`, `rootfs`, `history`, …) of an image, by reference or by
    /// `sha256:…` id. For a machine's disk image `{}`.
    async fn image_config(&self, reference: &str) -> Result<serde_json::Value, Fault>;

    /// Loads all images of an archive (`docker save` or OCI layout, plain, gzip, bzip2, xz or zstd), of an index those of a platform, as
    /// `linux/amd64`, or of this host.
    async fn image_load(&self, archive: Upload, platform: Option<&str>, report: Reporter)
    -> Result<ImageResult, Fault>;

    /// Writes images into one archive, as `docker save` does. Each is a reference or a `sha256:…` id.
    async fn image_save(&self, references: &[String]) -> Result<ByteStream, Fault>;

    /// Makes an image of a tar of a root file system.
    async fn image_import(&self, wanted: Import, content: Upload, report: Reporter) -> Result<ImageResult, Fault>;

    /// Sends an image to a registry under its own name.
    async fn image_push(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, Fault>;

    /// Gives an image another name.
    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, Fault>;

    /// Removes image content that nothing refers to.
    async fn prune(&self, report: Reporter) -> Result<PruneResult, Fault>;

    /// Pulls with credentials and makes the `Image` object. Pulls without credentials do not come here: they go through
    /// the `Image` object alone.
    async fn image_pull(
        &self,
        reference: &str,
        _platform: Option<&str>,
        _auth: RegistryAuth,
        _report: Reporter,
    ) -> Result<ImageResult, Fault> {
        let message = format!("pulling {reference} with credentials is not supported by this node yet");
        Err(Fault::new(FaultKind::Unsupported, message))
    }

    /// Asks a registry what stands under a reference, without fetching it.
    async fn distribution(&self, reference: &str, _auth: Option<RegistryAuth>) -> Result<Distribution, Fault> {
        let message = format!("this node cannot look up {reference} at its registry");
        Err(Fault::new(FaultKind::Unsupported, message))
    }

    /// Asks a registry which tags the repository of a reference has.
    async fn tags(&self, reference: &str, _auth: Option<RegistryAuth>) -> Result<Vec<String>, Fault> {
        let message = format!("this node cannot list the tags of {reference}");
        Err(Fault::new(FaultKind::Unsupported, message))
    }

    /// Bytes on disk below each of these paths of the node; 0 for what is not there.
    async fn usage(&self, paths: Vec<String>) -> Vec<u64> {
        vec![0; paths.len()]
    }

    /// Bytes on disk of an image's layers, lowest first; empty where they are not known.
    async fn layer_sizes(&self, _reference: &str) -> Result<Vec<u64>, Fault> {
        Ok(Vec::new())
    }

    /// Reads the context of a build to its end, and the Dockerfile in it. `auths` are credentials by registry.
    async fn build_prepare(
        &self,
        _build: Build,
        _auths: std::collections::BTreeMap<String, RegistryAuth>,
        _context: Upload,
    ) -> Result<Box<dyn Building>, Fault> {
        Err(Fault::new(FaultKind::Unsupported, "this node cannot build images"))
    }

    /// What earlier builds left for later ones, beside images.
    async fn build_cache(&self) -> Result<Vec<CacheRecord>, Fault> {
        Ok(Vec::new())
    }

    /// Forgets what earlier builds left for later ones; with `all` also what belongs to images that have names.
    async fn build_prune(&self, _filter: CacheFilter) -> Result<PruneResult, Fault> {
        Ok(PruneResult::default())
    }

    /// What builds images for clients of BuildKit.
    fn builder(&self) -> Option<std::sync::Arc<dyn biga_buildkit::Engine>> {
        None
    }

    /// Asks a registry whether it knows these credentials; answers an identity token, or an empty string.
    async fn login(&self, auth: RegistryAuth) -> Result<String, Fault> {
        let message = format!(
            "checking credentials at {:?} is not supported by this node yet",
            auth.server_address
        );
        Err(Fault::new(FaultKind::Unsupported, message))
    }

    /// What stands at a path in an instance.
    async fn files_stat(&self, _namespace: &str, name: &str, _path: &str) -> Result<PathStat, Fault> {
        Err(no_files(name))
    }

    /// What stands at a path in an instance, and the tar of it.
    async fn files_read(&self, _namespace: &str, name: &str, _path: &str) -> Result<(PathStat, ByteStream), Fault> {
        Err(no_files(name))
    }

    /// Unpacks a tar (plain, gzip, bzip2, xz or zstd) into a directory of an instance.
    async fn files_write(
        &self,
        _namespace: &str,
        name: &str,
        _path: &str,
        _put: Put,
        _tar: Upload,
    ) -> Result<(), Fault> {
        Err(no_files(name))
    }

    /// What an instance changed of its image, ordered by path.
    async fn changes(&self, _namespace: &str, name: &str) -> Result<Vec<Change>, Fault> {
        Err(no_files(name))
    }

    /// A tar of an instance's root file system.
    async fn export(&self, _namespace: &str, name: &str) -> Result<ByteStream, Fault> {
        Err(no_files(name))
    }

    /// Saves the processes of an instance under a name.
    async fn checkpoint(&self, _namespace: &str, name: &str, _wanted: CheckpointWanted) -> Result<(), Fault> {
        Err(no_checkpoints(name))
    }

    /// Checkpoints of an instance, oldest first.
    async fn checkpoints(&self, _namespace: &str, name: &str) -> Result<Vec<Checkpoint>, Fault> {
        Err(no_checkpoints(name))
    }

    /// Removes a checkpoint of an instance.
    async fn checkpoint_remove(&self, _namespace: &str, name: &str, _checkpoint: &str) -> Result<(), Fault> {
        Err(no_checkpoints(name))
    }

    /// Makes an image of an instance.
    async fn commit(&self, _namespace: &str, name: &str, _commit: Commit) -> Result<ImageResult, Fault> {
        Err(no_files(name))
    }
}

/// A backend without checkpoints.
fn no_checkpoints(name: &str) -> Fault {
    let message = format!("this node cannot make checkpoints of container {name}");
    Fault::new(FaultKind::Unsupported, message)
}

/// A backend without files.
fn no_files(name: &str) -> Fault {
    let message = format!("this node cannot reach the files of container {name}");
    Fault::new(FaultKind::Unsupported, message)
}
