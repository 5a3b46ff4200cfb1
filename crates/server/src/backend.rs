//! What the server asks of the node: the streaming path. The program implements it over the agent.

use async_trait::async_trait;
use biga_api_kube::{ApiError, ErrorKind};
use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use biga_wire::files::{Change, Commit, PathStat, Put};
use biga_wire::http::{ImageDetail, ImageReferrer, ImageResult, Line, Progress, PruneResult};
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
pub type ByteStream = BoxStream<'static, Result<Bytes, ApiError>>;

/// A request's body.
pub type Upload = BoxStream<'static, std::io::Result<Bytes>>;

/// Which part of an instance's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Which of several containers; the main one where unset.
    pub container: Option<String>,
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
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// How it is written.
    pub format: LogFormat,
}

/// How a log is written to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// The bytes, both streams mixed.
    #[default]
    Text,
    /// Wire frames of `Stdout` and `Stderr`.
    Frames,
}

/// Credentials for a registry, from the header `X-Registry-Auth`. Never printed.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A token that stands for both.
    #[serde(rename = "identitytoken", alias = "identityToken")]
    pub identity_token: String,
    /// A bearer token for the registry itself.
    #[serde(rename = "registrytoken", alias = "registryToken")]
    pub registry_token: String,
    /// The registry they are for.
    #[serde(rename = "serveraddress", alias = "serverAddress")]
    pub server_address: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryAuth({} at {})", self.username, self.server_address)
    }
}

/// Form of a saved archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// As `docker save` writes.
    #[default]
    Docker,
    /// An OCI image layout.
    Oci,
}

/// What an imported file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImportFormat {
    /// A tar of a root file system.
    #[default]
    Rootfs,
    /// A raw disk.
    Raw,
    /// A qcow2 disk.
    Qcow2,
}

/// Where a long call reports how far it is. Reports are dropped where the client is slow.
#[derive(Debug, Clone)]
pub struct Reporter {
    lines: mpsc::Sender<Line>,
}

impl Reporter {
    pub(crate) fn new(lines: mpsc::Sender<Line>) -> Reporter {
        Reporter { lines }
    }

    /// Tells what happens in a build; waits for a slow client. `false` where there is none any more.
    pub async fn build(&self, event: biga_wire::build::Event) -> bool {
        let line = Line {
            build: Some(event),
            ..Line::default()
        };
        self.lines.send(line).await.is_ok()
    }

    /// Reports.
    pub fn progress(&self, progress: Progress) {
        let _ = self.lines.try_send(Line {
            progress: Some(progress),
            ..Line::default()
        });
    }

    /// Whether the client is gone, so that nobody wants the result.
    pub fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }
}

/// The node behind the streaming path.
///
/// A call's future is dropped when its client goes; what must not stop half-way belongs in a task of its own.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Opens a stream into an instance: waits (a while) for it to have a shim, connects, and sends `first`, one of
    /// `Exec`, `Attach`, `Console`, or one of these about a container. The shim's reply is not read: it goes to the client.
    async fn open(&self, namespace: &str, name: &str, first: shim::Request) -> Result<BoxedIo, ApiError>;

    /// An instance's log.
    async fn logs(&self, namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, ApiError>;

    /// Samples of what an instance, or one of its containers, uses: one, or with `stream` one a second until it ends or the client
    /// leaves.
    async fn stats(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, ApiError>>, ApiError>;

    /// Sends a signal to an instance's main process, or that of one of its containers.
    async fn signal(&self, namespace: &str, name: &str, container: Option<&str>, signal: i32) -> Result<(), ApiError>;

    /// Loads all images of an archive (`docker save` or OCI layout, plain, gzip, bzip2, xz or zstd).
    async fn image_load(&self, archive: Upload, report: Reporter) -> Result<ImageResult, ApiError>;

    /// Writes images into one archive.
    async fn image_save(&self, references: &[String], format: ArchiveFormat) -> Result<ByteStream, ApiError>;

    /// Makes an image of a root file system (`config` is the `config` object of the OCI image config, as JSON) or of a disk.
    async fn image_import(
        &self,
        reference: &str,
        format: ImportFormat,
        config: Option<serde_json::Value>,
        content: Upload,
        report: Reporter,
    ) -> Result<ImageResult, ApiError>;

    /// Gets an image from its registry, with `referrers` also what refers to it.
    async fn image_pull(
        &self,
        _reference: &str,
        _platform: Option<&str>,
        _referrers: bool,
        _auth: Option<RegistryAuth>,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        Err(unsupported("pull"))
    }

    /// All that is known of an image.
    async fn image_detail(&self, _reference: &str) -> Result<ImageDetail, ApiError> {
        Err(unsupported("show the details of an image"))
    }

    /// What refers to an image in its registry.
    async fn image_referrers(
        &self,
        _reference: &str,
        _auth: Option<RegistryAuth>,
    ) -> Result<Vec<ImageReferrer>, ApiError> {
        Err(unsupported("list referrers"))
    }

    /// Asks a registry whether it lets somebody in.
    async fn registry_login(&self, _auth: RegistryAuth) -> Result<(), ApiError> {
        Err(unsupported("log in"))
    }

    /// Sends an image to a registry under the name `target`, with `referrers` also what refers to it.
    async fn image_push(
        &self,
        reference: &str,
        target: &str,
        referrers: bool,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, ApiError>;

    /// Gives an image another name.
    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, ApiError>;

    /// Builds an image. `auths` are credentials by registry. Dropping the call ends the build.
    async fn build(
        &self,
        _build: biga_wire::build::Build,
        _auths: std::collections::BTreeMap<String, RegistryAuth>,
        _context: Upload,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        Err(ApiError::new(ErrorKind::Unsupported, "this node cannot build images"))
    }

    /// Removes what nothing refers to.
    async fn prune(&self, report: Reporter) -> Result<PruneResult, ApiError>;

    /// What stands at a path in an instance.
    async fn files_stat(&self, _namespace: &str, name: &str, _path: &str) -> Result<PathStat, ApiError> {
        Err(no_files(name))
    }

    /// What stands at a path in an instance, and the tar of it.
    async fn files_read(&self, _namespace: &str, name: &str, _path: &str) -> Result<(PathStat, ByteStream), ApiError> {
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
    ) -> Result<(), ApiError> {
        Err(no_files(name))
    }

    /// What an instance changed of its image, ordered by path.
    async fn changes(&self, _namespace: &str, name: &str) -> Result<Vec<Change>, ApiError> {
        Err(no_files(name))
    }

    /// A tar of an instance's root file system.
    async fn export(&self, _namespace: &str, name: &str) -> Result<ByteStream, ApiError> {
        Err(no_files(name))
    }

    /// Saves the processes of an instance under a name.
    async fn checkpoint(&self, _namespace: &str, name: &str, _wanted: CheckpointWanted) -> Result<(), ApiError> {
        Err(no_checkpoints(name))
    }

    /// Checkpoints of an instance, oldest first.
    async fn checkpoints(&self, _namespace: &str, name: &str) -> Result<Vec<Checkpoint>, ApiError> {
        Err(no_checkpoints(name))
    }

    /// Removes a checkpoint of an instance.
    async fn checkpoint_remove(&self, _namespace: &str, name: &str, _checkpoint: &str) -> Result<(), ApiError> {
        Err(no_checkpoints(name))
    }

    /// Makes an image of an instance.
    async fn commit(&self, _namespace: &str, name: &str, _commit: Commit) -> Result<ImageResult, ApiError> {
        Err(no_files(name))
    }
}

/// A backend without files.
fn no_files(name: &str) -> ApiError {
    let message = format!("this node cannot reach the files of instance {name}");
    ApiError::new(biga_api_kube::ErrorKind::Unsupported, message)
}

fn no_checkpoints(name: &str) -> ApiError {
    unsupported(&format!("make checkpoints of instance {name}"))
}

fn unsupported(what: &str) -> ApiError {
    ApiError::new(ErrorKind::Unsupported, format!("this node cannot {what}"))
}
