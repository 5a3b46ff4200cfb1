//! The streaming path of the native API, carried out by this node.

use std::collections::BTreeMap;

use async_trait::async_trait;
use biga_api_kube::{ApiError, ErrorKind};
use biga_image::{DiskFormat, ImageConfig};
use biga_server::backend::{
    ArchiveFormat, Backend, BoxedIo, ByteStream, ImportFormat, LogFormat, LogQuery, RegistryAuth, Reporter, Upload,
};
use biga_wire::build::Build;
use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use biga_wire::files::{Change, Commit, PathStat, Put};
use biga_wire::http::{ImageDetail, ImageLine, ImageReferrer, ImageResult, PruneResult};
use biga_wire::shim;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::node::{self, Credentials, Fault, FaultKind, Import, Node, Rootfs};

/// The node, as the server wants to see it.
pub struct Native(pub Node);

impl From<Fault> for ApiError {
    fn from(f: Fault) -> ApiError {
        let kind = match f.kind {
            FaultKind::Invalid => ErrorKind::BadRequest,
            FaultKind::Forbidden => ErrorKind::Forbidden,
            FaultKind::NotFound => ErrorKind::NotFound,
            FaultKind::Conflict => ErrorKind::Conflict,
            FaultKind::Unsupported => ErrorKind::Unsupported,
            // Not 401: the client is known well enough to us, it is the registry that wants to know more.
            FaultKind::Denied | FaultKind::Failed => ErrorKind::Internal,
        };
        ApiError::new(kind, f.message)
    }
}

fn credentials(a: RegistryAuth) -> Credentials {
    Credentials {
        username: a.username,
        password: a.password,
        identity_token: a.identity_token,
        registry_token: a.registry_token,
    }
}

#[async_trait]
impl Backend for Native {
    async fn open(&self, namespace: &str, name: &str, first: shim::Request) -> Result<BoxedIo, ApiError> {
        Ok(Box::new(self.0.open(namespace, name, &first).await?))
    }

    async fn logs(&self, namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, ApiError> {
        let query = node::LogQuery {
            container: query.container,
            follow: query.follow,
            tail: query.tail,
            since: query.since,
            until: query.until,
            stdout: query.stdout,
            stderr: query.stderr,
            timestamps: query.timestamps,
            details: false,
            frames: query.format == LogFormat::Frames,
        };
        let bytes = self.0.logs(namespace, name, query).await?;
        Ok(bytes.map(|b| b.map_err(ApiError::from)).boxed())
    }

    async fn stats(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, ApiError>>, ApiError> {
        let samples = self.0.stats(namespace, name, container, stream).await?;
        Ok(samples.map(|s| s.map_err(ApiError::from)).boxed())
    }

    async fn signal(&self, namespace: &str, name: &str, container: Option<&str>, signal: i32) -> Result<(), ApiError> {
        Ok(self.0.signal(namespace, name, container, signal).await?)
    }

    async fn image_load(&self, archive: Upload, _report: Reporter) -> Result<ImageResult, ApiError> {
        Ok(self.0.load(archive, None).await?)
    }

    async fn image_save(&self, references: &[String], format: ArchiveFormat) -> Result<ByteStream, ApiError> {
        let format = match format {
            ArchiveFormat::Docker => biga_image::ArchiveFormat::Docker,
            ArchiveFormat::Oci => biga_image::ArchiveFormat::Oci,
        };
        let bytes = self.0.save(references, format).await?;
        Ok(bytes.map(|b| b.map_err(ApiError::from)).boxed())
    }

    async fn image_import(
        &self,
        reference: &str,
        format: ImportFormat,
        config: Option<serde_json::Value>,
        content: Upload,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let what = match format {
            ImportFormat::Raw => Import::Disk(DiskFormat::Raw),
            ImportFormat::Qcow2 => Import::Disk(DiskFormat::Qcow2),
            ImportFormat::Rootfs => Import::Rootfs(Box::new(Rootfs {
                config: match config {
                    Some(c) => serde_json::from_value::<ImageConfig>(c)
                        .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("the config is none: {e}")))?,
                    None => ImageConfig::default(),
                },
                ..Rootfs::default()
            })),
        };
        Ok(self.0.import(Some(reference), what, content).await?)
    }

    async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        referrers: bool,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let progress = move |p| report.progress(p);
        let auth = auth.map(credentials);
        Ok(self.0.pull(reference, platform, referrers, auth, progress).await?)
    }

    async fn image_push(
        &self,
        reference: &str,
        target: &str,
        referrers: bool,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let progress = move |p| report.progress(p);
        let auth = auth.map(credentials);
        Ok(self.0.push(reference, target, referrers, auth, progress).await?)
    }

    async fn image_detail(&self, reference: &str) -> Result<ImageDetail, ApiError> {
        Ok(self.0.detail(reference).await?)
    }

    async fn image_referrers(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<Vec<ImageReferrer>, ApiError> {
        Ok(self.0.referrers(reference, auth.map(credentials)).await?)
    }

    async fn registry_login(&self, auth: RegistryAuth) -> Result<(), ApiError> {
        let server = auth.server_address.clone();
        Ok(self.0.login(&server, credentials(auth)).await?)
    }

    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, ApiError> {
        Ok(self.0.tag(reference, target).await?)
    }

    async fn build(
        &self,
        build: Build,
        auths: BTreeMap<String, RegistryAuth>,
        context: Upload,
        report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let auths = auths.into_iter().map(|(k, a)| (k, credentials(a)));
        let tags = build.tags.clone();
        let ready = self.0.build_prepare(build, auths, context).await?;
        let (tx, mut rx) = tokio::sync::mpsc::channel(64);
        let telling = async {
            while let Some(event) = rx.recv().await {
                if !report.build(event).await {
                    return;
                }
            }
        };
        let (done, ()) = tokio::join!(ready.run(tx), telling);
        let record = done.map_err(Fault::from)?;
        let line = |reference: String| ImageLine {
            reference,
            image_id: record.image_id.to_string(),
            digest: record.manifest_digest.clone(),
            ..ImageLine::default()
        };
        let images = match tags.is_empty() {
            true => vec![line(String::new())],
            false => tags.into_iter().map(line).collect(),
        };
        Ok(ImageResult { images })
    }

    async fn prune(&self, _report: Reporter) -> Result<PruneResult, ApiError> {
        Ok(self.0.prune().await?)
    }

    async fn files_stat(&self, namespace: &str, name: &str, path: &str) -> Result<PathStat, ApiError> {
        Ok(self.0.files_stat(namespace, name, path).await?)
    }

    async fn files_read(&self, namespace: &str, name: &str, path: &str) -> Result<(PathStat, ByteStream), ApiError> {
        let (stat, bytes) = self.0.files_read(namespace, name, path).await?;
        Ok((stat, bytes.map(|b| b.map_err(ApiError::from)).boxed()))
    }

    async fn files_write(
        &self,
        namespace: &str,
        name: &str,
        path: &str,
        put: Put,
        tar: Upload,
    ) -> Result<(), ApiError> {
        Ok(self.0.files_write(namespace, name, path, put, tar).await?)
    }

    async fn changes(&self, namespace: &str, name: &str) -> Result<Vec<Change>, ApiError> {
        Ok(self.0.changes(namespace, name).await?)
    }

    async fn export(&self, namespace: &str, name: &str) -> Result<ByteStream, ApiError> {
        let bytes = self.0.export(namespace, name).await?;
        Ok(bytes.map(|b| b.map_err(ApiError::from)).boxed())
    }

    async fn checkpoint(&self, namespace: &str, name: &str, wanted: CheckpointWanted) -> Result<(), ApiError> {
        Ok(self.0.checkpoint(namespace, name, wanted).await?)
    }

    async fn checkpoints(&self, namespace: &str, name: &str) -> Result<Vec<Checkpoint>, ApiError> {
        Ok(self.0.checkpoints(namespace, name).await?)
    }

    async fn checkpoint_remove(&self, namespace: &str, name: &str, checkpoint: &str) -> Result<(), ApiError> {
        Ok(self.0.checkpoint_remove(namespace, name, checkpoint).await?)
    }

    async fn commit(&self, namespace: &str, name: &str, commit: Commit) -> Result<ImageResult, ApiError> {
        Ok(self.0.commit(namespace, name, commit).await?)
    }
}
