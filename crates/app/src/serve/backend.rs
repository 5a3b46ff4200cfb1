//! The streaming path of the API, carried out by this node's agent.

use std::sync::Arc;

use async_trait::async_trait;
use biga_agent::instance::Failure;
use biga_agent::logs::{Line as LogLine, Query};
use biga_agent::streams::{Error as StreamError, Streams};
use biga_agent::{engine::Engine, images::Images};
use biga_api_kube::{ApiError, ErrorKind};
use biga_image::{Auth, DiskFormat, ImageConfig, ImageRecord, LayerState, Progress as ImageProgress, PushOptions};
use biga_model::{Isolation, PullPolicy, Reference};
use biga_server::backend::{
    ArchiveFormat, Backend, BoxedIo, ByteStream, ImportFormat, LogFormat, LogQuery, RegistryAuth, Reporter, Upload,
};
use biga_wire::http::{ImageLine, ImageResult, Progress, PruneResult};
use biga_wire::shim::{self, ErrorCode};
use biga_wire::{Frame, FrameKind};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio_util::io::{ReaderStream, StreamReader};

/// The agent, as the server wants to see it.
pub struct Node {
    engine: Arc<Engine>,
    streams: Streams,
}

impl Node {
    /// Over an agent's parts.
    pub fn new(engine: Arc<Engine>, streams: Streams) -> Node {
        Node { engine, streams }
    }

    fn images(&self) -> &Images {
        &self.engine.images
    }

    async fn find(&self, reference: &str) -> Result<ImageRecord, ApiError> {
        // Either format will do here; the wrong guess is told apart from a missing image by its reason.
        let find = |isolation| self.images().resolve(reference, PullPolicy::Never, isolation);
        match find(Isolation::Container).await {
            Err(f) if f.reason == "WrongImageFormat" => find(Isolation::Vm).await.map_err(not_found),
            other => other.map_err(not_found),
        }
    }
}

fn not_found(f: Failure) -> ApiError {
    ApiError::new(ErrorKind::NotFound, f.message)
}

fn failed(e: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::Internal, e.to_string())
}

fn bad(e: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, e.to_string())
}

fn stream_error(e: StreamError) -> ApiError {
    let kind = match &e {
        StreamError::NotFound(_) => ErrorKind::NotFound,
        StreamError::State(_) => ErrorKind::Conflict,
        StreamError::Refused { code, .. } => match code {
            ErrorCode::State => ErrorKind::Conflict,
            ErrorCode::Unsupported => ErrorKind::Unsupported,
            ErrorCode::Failed => ErrorKind::Internal,
            ErrorCode::NotFound | ErrorCode::NotExecutable | ErrorCode::Invalid => ErrorKind::BadRequest,
        },
        StreamError::Failed(_) => ErrorKind::Internal,
    };
    ApiError::new(kind, e.to_string())
}

/// One name for one image.
fn named(reference: &Reference, record: &ImageRecord) -> ImageLine {
    ImageLine {
        reference: reference.familiar(),
        image_id: record.image_id.to_string(),
        digest: record.manifest_digest.clone(),
    }
}

fn parse(reference: &str) -> Result<Reference, ApiError> {
    reference.parse().map_err(bad)
}

#[async_trait]
impl Backend for Node {
    async fn open(&self, namespace: &str, name: &str, first: shim::Request) -> Result<BoxedIo, ApiError> {
        let io = self.streams.open(namespace, name, &first).await.map_err(stream_error)?;
        Ok(Box::new(io))
    }

    async fn logs(&self, namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, ApiError> {
        let (format, timestamps) = (query.format, query.timestamps);
        let wanted = Query {
            follow: query.follow,
            tail: query.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            since: query.since.map(nanoseconds),
            until: query.until.map(nanoseconds),
            no_stdout: !query.stdout,
            no_stderr: !query.stderr,
        };
        let lines = self.streams.logs(namespace, name, wanted).await.map_err(stream_error)?;
        let lines = futures_util::stream::unfold(lines, |mut rx| async move { rx.recv().await.map(|l| (l, rx)) });
        let mut fresh = [true; 2];
        let bytes = lines.map(move |batch| match batch {
            Ok(batch) => Ok(render(&batch, format, timestamps, &mut fresh)),
            Err(e) => Err(stream_error(e)),
        });
        Ok(bytes.boxed())
    }

    async fn stats(
        &self,
        namespace: &str,
        name: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, ApiError>>, ApiError> {
        let samples = self
            .streams
            .stats(namespace, name, stream)
            .await
            .map_err(stream_error)?;
        let samples = futures_util::stream::unfold(samples, |mut rx| async move { rx.recv().await.map(|s| (s, rx)) });
        Ok(samples.map(|s| s.map_err(stream_error)).boxed())
    }

    async fn signal(&self, namespace: &str, name: &str, signal: i32) -> Result<(), ApiError> {
        self.streams.signal(namespace, name, signal).await.map_err(stream_error)
    }

    async fn image_load(&self, archive: Upload, _report: Reporter) -> Result<ImageResult, ApiError> {
        let images = self.images().clone();
        // In a task of its own: a load that is half done is finished, whether or not the client stays.
        let work = tokio::spawn(async move {
            let loaded = images
                .files()
                .load(StreamReader::new(archive), None)
                .await
                .map_err(bad)?;
            let mut result = ImageResult::default();
            for l in loaded {
                for r in &l.references {
                    images.name(r, &l.record).await.map_err(failed)?;
                    result.images.push(named(r, &l.record));
                }
                if l.references.is_empty() {
                    let image_id = l.record.image_id.to_string();
                    result.images.push(ImageLine {
                        image_id,
                        ..ImageLine::default()
                    });
                }
            }
            Ok(result)
        });
        work.await.map_err(failed)?
    }

    async fn image_save(&self, reference: &str, format: ArchiveFormat) -> Result<ByteStream, ApiError> {
        let record = self.find(reference).await?;
        let names = reference.parse::<Reference>().into_iter().collect();
        let format = match format {
            ArchiveFormat::Docker => biga_image::ArchiveFormat::Docker,
            ArchiveFormat::Oci => biga_image::ArchiveFormat::Oci,
        };
        let (writer, reader) = tokio::io::duplex(256 << 10);
        let files = self.images().files().clone();
        let saving = tokio::spawn(async move { files.save(&[(record.image_id, names)], writer, format).await });
        // The archive's bytes, then the outcome: an archive that was cut short ends in an error and not in silence.
        let outcome = futures_util::stream::once(saving).filter_map(|r| async move {
            match r {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(Err(failed(e))),
                Err(e) => Some(Err(failed(e))),
            }
        });
        let bytes = ReaderStream::with_capacity(reader, 128 << 10).map(|b| b.map_err(failed));
        Ok(bytes.chain(outcome).boxed())
    }

    async fn image_import(
        &self,
        reference: &str,
        format: ImportFormat,
        config: Option<serde_json::Value>,
        content: Upload,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let reference = parse(reference)?;
        let config: ImageConfig = match config {
            Some(c) => serde_json::from_value(c).map_err(|e| bad(format!("the config is none: {e}")))?,
            None => ImageConfig::default(),
        };
        let images = self.images().clone();
        let work = tokio::spawn(async move {
            let content = StreamReader::new(content);
            let files = images.files();
            let record = match format {
                ImportFormat::Rootfs => files.import_rootfs(content, config, None).await,
                ImportFormat::Raw => files.import_disk(content, DiskFormat::Raw).await,
                ImportFormat::Qcow2 => files.import_disk(content, DiskFormat::Qcow2).await,
            };
            let record = record.map_err(bad)?;
            images.name(&reference, &record).await.map_err(failed)?;
            Ok(ImageResult {
                images: vec![named(&reference, &record)],
            })
        });
        work.await.map_err(failed)?
    }

    async fn image_push(
        &self,
        reference: &str,
        target: &str,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        let record = self.find(reference).await?;
        let target = parse(target)?;
        let options = PushOptions {
            auth: auth.map(credentials).unwrap_or_default(),
            insecure: false,
        };
        let progress = move |p: ImageProgress| report.progress(progress_line(p));
        let pushed = self
            .images()
            .files()
            .push(&record.image_id, &target, &options, progress)
            .await
            .map_err(failed)?;
        let line = ImageLine {
            digest: pushed.manifest_digest,
            ..named(&target, &record)
        };
        Ok(ImageResult { images: vec![line] })
    }

    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, ApiError> {
        let record = self.find(reference).await?;
        let target = parse(target)?;
        self.images().name(&target, &record).await.map_err(failed)?;
        Ok(ImageResult {
            images: vec![named(&target, &record)],
        })
    }

    async fn prune(&self, _report: Reporter) -> Result<PruneResult, ApiError> {
        let report = self.images().prune().await.map_err(failed)?;
        let removed = vec![format!("{} images, {} files", report.images, report.files)];
        Ok(PruneResult {
            removed,
            freed_bytes: report.bytes,
        })
    }
}

/// As the log writes times: RFC 3339 in UTC with nine digits, so that text compares as time does.
fn nanoseconds(t: biga_model::Timestamp) -> String {
    format!("{t:.9}")
}

/// Log entries as the client wants them. `fresh` remembers for each stream whether the next entry begins a line.
fn render(lines: &[LogLine], format: LogFormat, timestamps: bool, fresh: &mut [bool; 2]) -> Bytes {
    let mut out = Vec::new();
    for l in lines {
        let begins = std::mem::replace(&mut fresh[usize::from(l.stderr)], l.whole);
        let mut text = Vec::with_capacity(l.text.len() + 40);
        if timestamps && begins {
            text.extend_from_slice(l.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&l.text);
        if l.whole {
            text.push(b'\n');
        }
        match format {
            LogFormat::Text => out.extend_from_slice(&text),
            LogFormat::Frames => {
                let kind = if l.stderr { FrameKind::Stderr } else { FrameKind::Stdout };
                text.chunks(biga_wire::MAX_DATA)
                    .for_each(|c| Frame::new(kind, c).encode(&mut out));
            }
        }
    }
    out.into()
}

fn credentials(a: RegistryAuth) -> Auth {
    if !a.registry_token.is_empty() {
        return Auth::Bearer(a.registry_token);
    }
    if !a.identity_token.is_empty() {
        return Auth::Identity(a.identity_token);
    }
    Auth::Basic {
        username: a.username,
        password: a.password,
    }
}

fn progress_line(p: ImageProgress) -> Progress {
    match p {
        ImageProgress::Resolved { layers, .. } => {
            let total = layers.iter().map(|l| l.1).sum();
            Progress {
                part: String::new(),
                action: "preparing".into(),
                done: 0,
                total,
            }
        }
        ImageProgress::Layer {
            digest,
            state,
            done,
            total,
        } => {
            let action = match state {
                LayerState::Waiting => "waiting",
                LayerState::Exists => "exists",
                LayerState::Transferring => "uploading",
                LayerState::Done => "done",
            };
            Progress {
                part: digest,
                action: action.into(),
                done,
                total,
            }
        }
    }
}
