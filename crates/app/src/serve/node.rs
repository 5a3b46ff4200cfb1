//! What both APIs ask of this node, done by its agent once for both. [`super::backend`] and [`super::docker`] put it into
//! their API's words.

use std::sync::Arc;

use biga_agent::engine::Engine;
use biga_agent::files::Files;
use biga_agent::images::Images;
use biga_agent::instance::Failure;
use biga_agent::logs::{Line as LogLine, Query};
use biga_agent::streams::{Error as StreamError, Streams};
use biga_build::Builder;
use biga_image::{
    ArchiveFormat, Auth, Error as ImageError, ImageConfig, ImageId, ImageRecord, LayerState, Platform,
    Progress as ImageProgress, PullOptions, PushOptions, Remote,
};
use biga_model::{Isolation, PullPolicy, Reference, Timestamp};
use biga_store::Store;
use biga_wire::http::{
    ImageDetail, ImageDisk, ImageLayer, ImageLine, ImageReferrer, ImageResult, Progress, PruneResult,
};
use biga_wire::shim::{self, ErrorCode};
use biga_wire::{Frame, FrameKind};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::net::UnixStream;
use tokio_util::io::{ReaderStream, StreamReader};

/// A request's body.
pub type Upload = BoxStream<'static, std::io::Result<Bytes>>;

/// The agent, as an API wants to see it. A cheap handle.
#[derive(Clone)]
pub struct Node {
    engine: Arc<Engine>,
    streams: Streams,
    files: Files,
    builder: Builder,
}

/// Why the node could not do it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// A sentence for people.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The request makes no sense.
    Invalid,
    /// A registry wants other credentials.
    Denied,
    /// What stands there is read-only.
    Forbidden,
    /// No such thing.
    NotFound,
    /// Its state does not allow it.
    Conflict,
    /// This instance cannot do it.
    Unsupported,
    /// It was tried and failed.
    Failed,
}

impl Node {
    /// Other OCI runtimes that are there now: name and path.
    pub fn runtimes(&self) -> Vec<(String, String)> {
        let all = self.engine.oci.installed().into_iter();
        all.map(|r| (r.name, r.path)).collect()
    }

    /// Devices that vendors describe on this node.
    pub fn cdi(&self) -> &biga_agent::cdi::Cdi {
        &self.engine.cdi
    }
}

impl Fault {
    fn new(kind: FaultKind, e: impl std::fmt::Display) -> Fault {
        let message = e.to_string();
        Fault { kind, message }
    }
}

pub(super) fn failed(e: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Failed, e)
}

fn bad(e: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Invalid, e)
}

fn not_found(f: Failure) -> Fault {
    Fault::new(FaultKind::NotFound, f)
}

/// What is wrong with an archive or a file that was sent here.
fn archive_fault(e: ImageError) -> Fault {
    match e {
        ImageError::Refused { .. } => Fault::new(FaultKind::Denied, e),
        e => bad(e),
    }
}

/// A registry's answer to a push or a pull.
fn registry(e: ImageError) -> Fault {
    let kind = match e {
        ImageError::Denied { .. } | ImageError::Refused { .. } => FaultKind::Denied,
        ImageError::NotFound { .. } => FaultKind::NotFound,
        _ => FaultKind::Failed,
    };
    Fault::new(kind, e)
}

impl From<StreamError> for Fault {
    fn from(e: StreamError) -> Fault {
        let kind = match &e {
            StreamError::NotFound(_) | StreamError::Missing(_) => FaultKind::NotFound,
            StreamError::State(_) => FaultKind::Conflict,
            StreamError::Refused { code, .. } => match code {
                ErrorCode::State => FaultKind::Conflict,
                ErrorCode::Unsupported => FaultKind::Unsupported,
                ErrorCode::Failed => FaultKind::Failed,
                ErrorCode::NotFound | ErrorCode::NotExecutable | ErrorCode::Invalid => FaultKind::Invalid,
            },
            StreamError::Failed(_) => FaultKind::Failed,
        };
        Fault::new(kind, e)
    }
}

/// Which part of a log, and how it is written.
pub struct LogQuery {
    /// Which of several containers; the main one where unset.
    pub container: Option<String>,
    /// Go on with what is written from now.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// Only what is not older than this.
    pub since: Option<Timestamp>,
    /// Only what is older than this.
    pub until: Option<Timestamp>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Begin each line with what was noted beside it, which is nothing, and a space.
    pub details: bool,
    /// As wire frames; else the bytes, both streams mixed.
    pub frames: bool,
}

/// What an imported archive becomes.
pub enum Import {
    /// A tar of a root file system.
    Rootfs(Box<Rootfs>),
    /// A disk.
    Disk(biga_image::DiskFormat),
}

/// What an image of a root file system says beside its files.
#[derive(Default)]
pub struct Rootfs {
    /// Its config.
    pub config: ImageConfig,
    /// What it is for; this host where unset.
    pub platform: Option<Platform>,
    /// A remark in its history.
    pub comment: Option<String>,
    /// When it was made.
    pub created: Option<String>,
}

/// Who asks a registry.
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// A token that stands for both.
    pub identity_token: String,
    /// A token for the registry itself.
    pub registry_token: String,
}

impl From<Credentials> for Auth {
    fn from(c: Credentials) -> Auth {
        match c {
            c if !c.registry_token.is_empty() => Auth::Bearer(c.registry_token),
            c if !c.identity_token.is_empty() => Auth::Identity(c.identity_token),
            c => Auth::Basic {
                username: c.username,
                password: c.password,
            },
        }
    }
}

impl Node {
    /// Over an agent's parts.
    pub fn new(engine: Arc<Engine>, streams: Streams, files: Files, store: Arc<dyn Store>) -> Node {
        let instances = super::instances(&store);
        let builder = Builder::new(engine.clone(), streams.clone(), files.clone(), store, instances);
        Node {
            engine,
            streams,
            files,
            builder,
        }
    }

    /// Builds images.
    pub(super) fn builder(&self) -> &Builder {
        &self.builder
    }

    /// The way round the store.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Files of instances.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn images(&self) -> &Images {
        &self.engine.images
    }

    /// The image that a name or an id means.
    async fn find(&self, reference: &str) -> Result<ImageRecord, Fault> {
        // Either format will do here; the wrong guess is told apart from a missing image by its reason.
        let find = |isolation| self.images().resolve(reference, PullPolicy::Never, isolation);
        match find(Isolation::Container).await {
            Err(f) if f.reason == "WrongImageFormat" => find(Isolation::Vm).await.map_err(not_found),
            other => other.map_err(not_found),
        }
    }

    /// A stream to an instance's shim; the reply to `first` was not read.
    pub async fn open(&self, namespace: &str, name: &str, first: &shim::Request) -> Result<UnixStream, Fault> {
        Ok(self.streams.open(namespace, name, first).await?)
    }

    /// An instance's log.
    pub async fn logs(
        &self,
        namespace: &str,
        name: &str,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let form = Form {
            frames: query.frames,
            timestamps: query.timestamps,
            details: query.details,
        };
        let wanted = Query {
            follow: query.follow,
            tail: query.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            since: query.since.map(nanoseconds),
            until: query.until.map(nanoseconds),
            no_stdout: !query.stdout,
            no_stderr: !query.stderr,
        };
        let container = query.container.as_deref();
        let lines = self.streams.logs(namespace, name, container, wanted).await?;
        let lines = futures_util::stream::unfold(lines, |mut rx| async move { rx.recv().await.map(|l| (l, rx)) });
        let mut fresh = [true; 2];
        let bytes = lines.map(move |batch| match batch {
            Ok(batch) => Ok(render(&batch, form, &mut fresh)),
            Err(e) => Err(e.into()),
        });
        Ok(bytes.boxed())
    }

    /// Samples of what an instance, or one of its containers, uses.
    pub async fn stats(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, Fault>>, Fault> {
        let samples = self.streams.stats(namespace, name, container, stream).await?;
        let samples = futures_util::stream::unfold(samples, |mut rx| async move { rx.recv().await.map(|s| (s, rx)) });
        Ok(samples.map(|s| s.map_err(Fault::from)).boxed())
    }

    /// Sends a signal to an instance's main process, or that of one of its containers.
    pub async fn signal(&self, namespace: &str, name: &str, container: Option<&str>, signal: i32) -> Result<(), Fault> {
        Ok(self.streams.signal(namespace, name, container, signal).await?)
    }

    /// Ids of an instance's processes, as this host sees them.
    pub async fn pids(&self, namespace: &str, name: &str) -> Result<Vec<u32>, Fault> {
        Ok(self.streams.pids(namespace, name).await?)
    }

    /// The whole OCI config of an image.
    pub async fn image_config(&self, reference: &str) -> Result<serde_json::Value, Fault> {
        let record = self.find(reference).await?;
        let bytes = self.images().files().raw_config(&record.image_id).map_err(failed)?;
        serde_json::from_slice(&bytes).map_err(|e| failed(format!("the config of {reference} cannot be read: {e}")))
    }

    /// Loads all images of an archive, of an index those of this platform.
    pub async fn load(&self, archive: Upload, platform: Option<&str>) -> Result<ImageResult, Fault> {
        let platform = platform.map(str::parse::<Platform>).transpose().map_err(bad)?;
        let images = self.images().clone();
        // In a task of its own: a load that is half done is finished, whether or not the client stays.
        let work = tokio::spawn(async move {
            let loaded = images
                .files()
                .load(StreamReader::new(archive), platform)
                .await
                .map_err(archive_fault)?;
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
            images.keep_budget(None).await;
            Ok(result)
        });
        work.await.map_err(failed)?
    }

    /// Writes images into one archive, each under the name it was asked by.
    pub async fn save(
        &self,
        references: &[String],
        format: ArchiveFormat,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let mut wanted: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        for text in references {
            let record = self.find(text).await?;
            let name = match text.parse::<ImageId>() {
                Ok(_) => None,
                Err(_) => text.parse::<Reference>().ok(),
            };
            match wanted.iter_mut().find(|(id, _)| *id == record.image_id) {
                Some((_, names)) => names.extend(name),
                None => wanted.push((record.image_id, name.into_iter().collect())),
            }
        }
        Ok(self.archive(wanted, format))
    }

    /// One image, with names that it may not have here.
    pub async fn save_as(
        &self,
        image: &str,
        names: &[String],
        format: ArchiveFormat,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let record = self.find(image).await?;
        let names: Result<Vec<Reference>, String> = names.iter().map(|n| n.parse()).collect();
        let names = names.map_err(|message| Fault {
            kind: FaultKind::Invalid,
            message,
        })?;
        Ok(self.archive(vec![(record.image_id, names)], format))
    }

    fn archive(
        &self,
        wanted: Vec<(ImageId, Vec<Reference>)>,
        format: ArchiveFormat,
    ) -> BoxStream<'static, Result<Bytes, Fault>> {
        let (writer, reader) = tokio::io::duplex(256 << 10);
        let files = self.images().files().clone();
        let saving = tokio::spawn(async move { files.save(&wanted, writer, format).await });
        // The archive's bytes, then the outcome: an archive that was cut short ends in an error and not in silence.
        let outcome = futures_util::stream::once(saving).filter_map(|r| async move {
            match r {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(Err(failed(e))),
                Err(e) => Some(Err(failed(e))),
            }
        });
        let bytes = ReaderStream::with_capacity(reader, 128 << 10).map(|b| b.map_err(failed));
        bytes.chain(outcome).boxed()
    }

    /// Makes an image of a root file system or a disk. Without a name it is called `imported:` and the beginning of its id,
    /// because an image needs a name to be kept.
    pub async fn import(&self, reference: Option<&str>, what: Import, content: Upload) -> Result<ImageResult, Fault> {
        let named_by = reference.map(parse).transpose()?;
        let images = self.images().clone();
        let work = tokio::spawn(async move {
            let content = StreamReader::new(content);
            let files = images.files();
            let record = match what {
                Import::Rootfs(rootfs) => {
                    let Rootfs {
                        config,
                        platform,
                        comment,
                        created,
                    } = *rootfs;
                    let comment = comment.as_deref().unwrap_or("imported");
                    files
                        .import_rootfs_as(content, config, platform, comment, created)
                        .await
                }
                Import::Disk(format) => files.import_disk(content, format).await,
            };
            let record = record.map_err(archive_fault)?;
            let reference = match named_by {
                Some(r) => r,
                None => {
                    let id = record.image_id.to_string();
                    let id = id.trim_start_matches("sha256:");
                    parse(&format!("imported:{}", id.get(..12).unwrap_or(id)))?
                }
            };
            images.name(&reference, &record).await.map_err(failed)?;
            images.keep_budget(Some(&record.image_id)).await;
            Ok(one(named(&reference, &record)))
        });
        work.await.map_err(failed)?
    }

    /// The bytes at an address.
    pub async fn fetch(&self, address: &str) -> Result<Upload, Fault> {
        let bytes = self.images().files().fetch(address).await.map_err(registry)?;
        Ok(bytes.boxed())
    }

    /// Sends an image to a registry under the name `target`.
    pub async fn push(
        &self,
        reference: &str,
        target: &str,
        referrers: bool,
        auth: Option<Credentials>,
        report: impl Fn(Progress) + Send + Sync,
    ) -> Result<ImageResult, Fault> {
        let record = self.find(reference).await?;
        let target = parse(target)?;
        let options = PushOptions {
            auth: auth.map(Auth::from).unwrap_or_default(),
            insecure: false,
            referrers,
        };
        let progress = move |p| report(progress_line(p, "uploading"));
        let files = self.images().files();
        let pushed = files
            .push(&record.image_id, &target, &options, progress)
            .await
            .map_err(registry)?;
        let digest = &pushed.manifest_digest;
        let noted = self.images().note_digest(&target, &record.image_id, digest).await;
        noted.map_err(failed)?;
        Ok(one(ImageLine {
            digest: pushed.manifest_digest,
            manifest_size: pushed.manifest_size,
            ..named(&target, &record)
        }))
    }

    /// Gets an image from its registry, with these credentials, which are not kept, or with those of this host.
    pub async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        referrers: bool,
        auth: Option<Credentials>,
        report: impl Fn(Progress) + Send + Sync,
    ) -> Result<ImageResult, Fault> {
        let reference = parse(reference)?;
        let options = PullOptions {
            platform: platform.map(str::parse::<Platform>).transpose().map_err(bad)?,
            auth: auth.map(Auth::from).unwrap_or_default(),
            insecure: false,
            referrers,
        };
        let progress = move |p| report(progress_line(p, "downloading"));
        let record = self
            .images()
            .files()
            .pull(&reference, &options, progress)
            .await
            .map_err(registry)?;
        self.images().name(&reference, &record).await.map_err(failed)?;
        self.images().keep_budget(Some(&record.image_id)).await;
        Ok(one(named(&reference, &record)))
    }

    /// All that is known of an image.
    pub async fn detail(&self, reference: &str) -> Result<ImageDetail, Fault> {
        let record = self.find(reference).await?;
        let files = self.images().files();
        let document = |bytes: Vec<u8>| match bytes.is_empty() {
            true => Ok(serde_json::Value::Null),
            false => serde_json::from_slice(&bytes).map_err(failed),
        };
        let config = document(files.raw_config(&record.image_id).map_err(failed)?)?;
        let manifest = document(files.manifest(&record.image_id).map_err(failed)?)?;
        let layers = record.layers.iter().map(|l| ImageLayer {
            diff_id: l.diff_id.clone(),
            digest: l.digest.clone(),
            media_type: l.media_type.clone(),
            blob_size: l.blob_size,
            size: l.size,
        });
        let mut signed_by: Vec<String> = record.verified.iter().map(|v| v.key.clone()).collect();
        signed_by.dedup();
        Ok(ImageDetail {
            layers: layers.collect(),
            disk: record.disk.as_ref().map(|d| ImageDisk {
                format: d.format.as_str().into(),
                virtual_size: d.virtual_size,
            }),
            referrers: record.referrers.iter().map(referrer).collect(),
            signed_by,
            config,
            manifest,
            image_id: record.image_id.to_string(),
            digest: record.manifest_digest,
            index_digest: record.index_digest,
            sources: record.sources,
        })
    }

    /// What refers to an image in its registry.
    pub async fn referrers(&self, reference: &str, auth: Option<Credentials>) -> Result<Vec<ImageReferrer>, Fault> {
        let record = self.find(reference).await?;
        let options = PullOptions {
            auth: auth.map(Auth::from).unwrap_or_default(),
            ..PullOptions::default()
        };
        let name = parse(reference)?;
        let files = self.images().files();
        let found = files
            .remote_referrers(&record.image_id, &name, &options)
            .await
            .map_err(registry)?;
        Ok(found.iter().map(referrer).collect())
    }

    /// What a registry says of an image.
    pub async fn remote(&self, reference: &str, auth: Option<Credentials>) -> Result<Remote, Fault> {
        let options = PullOptions {
            auth: auth.map(Auth::from).unwrap_or_default(),
            ..PullOptions::default()
        };
        let files = self.images().files();
        files.remote(&parse(reference)?, &options).await.map_err(registry)
    }

    /// Asks a registry which tags a repository has.
    pub async fn tags(&self, reference: &str, auth: Option<Credentials>) -> Result<Vec<String>, Fault> {
        let options = PullOptions {
            auth: auth.map(Auth::from).unwrap_or_default(),
            ..PullOptions::default()
        };
        let files = self.images().files();
        files.tags(&parse(reference)?, &options).await.map_err(registry)
    }

    /// Asks a registry whether it lets somebody in.
    pub async fn login(&self, server: &str, auth: Credentials) -> Result<(), Fault> {
        let files = self.images().files();
        files
            .check_login(&host_of(server), &auth.into())
            .await
            .map_err(registry)
    }

    /// Gives an image another name.
    pub async fn tag(&self, reference: &str, target: &str) -> Result<ImageResult, Fault> {
        let record = self.find(reference).await?;
        let target = parse(target)?;
        self.images().name(&target, &record).await.map_err(failed)?;
        Ok(one(named(&target, &record)))
    }

    /// Removes what nothing refers to.
    pub async fn prune(&self) -> Result<PruneResult, Fault> {
        let report = self.images().prune().await.map_err(failed)?;
        let removed = vec![format!("{} images, {} files", report.images, report.files)];
        Ok(PruneResult {
            removed,
            freed_bytes: report.bytes,
        })
    }
}

fn referrer(r: &biga_image::Referrer) -> ImageReferrer {
    ImageReferrer {
        digest: r.digest.clone(),
        artifact_type: r.artifact_type.clone(),
        subject: r.subject.clone(),
        tag: r.tag.clone(),
        size: r.size,
    }
}

/// The registry of an address as users and Docker's clients write it.
fn host_of(server: &str) -> String {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => biga_model::reference::DEFAULT_REGISTRY.into(),
        host => host.into(),
    }
}

/// One name for one image.
fn named(reference: &Reference, record: &ImageRecord) -> ImageLine {
    ImageLine {
        reference: reference.familiar(),
        image_id: record.image_id.to_string(),
        digest: record.manifest_digest.clone(),
        ..ImageLine::default()
    }
}

fn one(line: ImageLine) -> ImageResult {
    ImageResult { images: vec![line] }
}

fn parse(reference: &str) -> Result<Reference, Fault> {
    reference.parse().map_err(|e: String| bad(e))
}

/// As the log writes times: RFC 3339 in UTC with nine digits, so that text compares as time does.
fn nanoseconds(t: Timestamp) -> String {
    format!("{t:.9}")
}

/// How log entries are written.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    frames: bool,
    timestamps: bool,
    details: bool,
}

/// Log entries as the client wants them. `fresh` remembers for each stream whether the next entry begins a line.
fn render(lines: &[LogLine], form: Form, fresh: &mut [bool; 2]) -> Bytes {
    let mut out = Vec::new();
    for l in lines {
        let begins = std::mem::replace(&mut fresh[usize::from(l.stderr)], l.whole);
        let mut text = Vec::with_capacity(l.text.len() + 40);
        if form.timestamps && begins {
            text.extend_from_slice(l.time.as_bytes());
            text.push(b' ');
        }
        if form.details && begins {
            text.push(b' ');
        }
        text.extend_from_slice(&l.text);
        if l.whole {
            text.push(b'\n');
        }
        if !form.frames {
            out.extend_from_slice(&text);
            continue;
        }
        let kind = if l.stderr { FrameKind::Stderr } else { FrameKind::Stdout };
        text.chunks(biga_wire::MAX_DATA)
            .for_each(|c| Frame::new(kind, c).encode(&mut out));
    }
    out.into()
}

/// How far a pull or a push is; `moving` says what a layer's bytes are doing.
fn progress_line(p: ImageProgress, moving: &str) -> Progress {
    match p {
        ImageProgress::Resolved { layers, .. } => Progress {
            part: String::new(),
            action: "preparing".into(),
            done: 0,
            total: layers.iter().map(|l| l.1).sum(),
        },
        ImageProgress::Layer {
            digest,
            state,
            done,
            total,
        } => {
            let action = match state {
                LayerState::Waiting => "waiting",
                LayerState::Exists => "exists",
                LayerState::Transferring => moving,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stderr: bool, text: &[u8], whole: bool) -> LogLine {
        LogLine {
            time: "T".into(),
            stderr,
            text: text.into(),
            whole,
        }
    }

    #[test]
    fn a_time_begins_a_line_and_not_a_piece_of_one() {
        let pieces = [
            line(false, b"a", false),
            line(true, b"e", true),
            line(false, b"b", true),
        ];
        let mut fresh = [true; 2];
        let times = Form {
            timestamps: true,
            ..Form::default()
        };
        assert_eq!(render(&pieces, times, &mut fresh), "T aT e\nb\n");
        assert_eq!(fresh, [true; 2]);
    }

    #[test]
    fn frames_keep_the_streams_apart() {
        let bytes = render(
            &[line(false, b"out", true), line(true, b"err", true)],
            Form {
                frames: true,
                ..Form::default()
            },
            &mut [true; 2],
        );
        let mut decoder = biga_wire::Decoder::new();
        decoder.push(&bytes);
        for (kind, text) in [(FrameKind::Stdout, "out\n"), (FrameKind::Stderr, "err\n")] {
            let f = decoder.next_frame().unwrap().unwrap();
            assert_eq!((f.kind, &f.payload[..]), (kind, text.as_bytes()));
        }
        assert!(decoder.next_frame().unwrap().is_none());
    }
}
