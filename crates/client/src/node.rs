//! Calls to a node: images in and out, logs, stats, signals.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use biga_model::Instance;
use biga_wire::build::{Build, Event};
use biga_wire::http::{ImageDetail, ImageReferrer, ImageResult, Line, Progress, PruneResult};
use biga_wire::shim::Stats;
use biga_wire::{Decoder, Frame};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Method;
use serde::de::DeserializeOwned;

use crate::http::{JsonLines, request, request_stream};
use crate::params::encode_query;
use crate::{ByteStream, Client, Error, ErrorKind, Resource};

/// Which lines of an instance's log are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogParams {
    /// Which of several containers; the main one where unset.
    pub container: Option<String>,
    /// Go on with what is written from now.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u64>,
    /// Only lines not older than this RFC 3339 time.
    pub since: Option<String>,
    /// Only lines older than this RFC 3339 time.
    pub until: Option<String>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only lines of standard output.
    pub stdout_only: bool,
    /// Only lines of standard error.
    pub stderr_only: bool,
}

/// Output as frames of `Stdout` and `Stderr`.
#[derive(Debug)]
pub struct LogFrames {
    bytes: ByteStream,
    decoder: Decoder,
}

impl LogFrames {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            let frame = self.decoder.next_frame();
            if let Some(f) = frame.map_err(|e| Error::protocol(format!("the log cannot be read: {e}")))? {
                return Ok(Some(f));
            }
            match self.bytes.next().await {
                None => return Ok(None),
                Some(b) => self.decoder.push(&b?),
            }
        }
    }
}

/// Form of a saved archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// As `docker save` writes.
    Docker,
    /// An OCI image layout.
    Oci,
}

/// What an imported file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// A tar of a root file system.
    Rootfs,
    /// A raw disk.
    Raw,
    /// A qcow2 disk.
    Qcow2,
}

impl ImportFormat {
    /// As it stands in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            ImportFormat::Rootfs => "rootfs",
            ImportFormat::Raw => "raw",
            ImportFormat::Qcow2 => "qcow2",
        }
    }
}

pub(crate) fn instance_path(namespace: &str, name: &str, verb: &str) -> String {
    format!(
        "{}/{verb}",
        Resource::of::<Instance>().path(Some(namespace), Some(name))
    )
}

/// A request with credentials for a registry.
fn with_auth(
    mut r: http::Request<crate::http::Body>,
    auth: Option<&str>,
) -> Result<http::Request<crate::http::Body>, Error> {
    if let Some(auth) = auth {
        let value = http::HeaderValue::from_str(auth);
        let mut value = value.map_err(|_| Error::protocol("the credentials have odd characters in them"))?;
        value.set_sensitive(true);
        r.headers_mut().insert("x-registry-auth", value);
    }
    Ok(r)
}

fn node_path(verb: &str, query: &[(&str, &str)]) -> String {
    format!(
        "/apis/{}/nodes/self/{verb}{}",
        biga_model::API_VERSION,
        encode_query(query)
    )
}

impl Client {
    /// An instance's log.
    pub async fn logs(&self, namespace: &str, name: &str, params: &LogParams) -> Result<LogFrames, Error> {
        let mut q = vec![("format", "frames".to_string())];
        let mut flag = |k, on: bool, v: &str| {
            if on {
                q.push((k, v.to_string()));
            }
        };
        flag("follow", params.follow, "true");
        flag("timestamps", params.timestamps, "true");
        flag("stderr", params.stdout_only, "false");
        flag("stdout", params.stderr_only, "false");
        let texts = [
            ("tail", params.tail.map(|n| n.to_string())),
            ("since", params.since.clone()),
            ("until", params.until.clone()),
            ("container", params.container.clone()),
        ];
        q.extend(texts.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))));
        let path = format!("{}{}", instance_path(namespace, name, "log"), encode_query(&q));
        Ok(LogFrames {
            bytes: self.bytes(request(Method::GET, &path)?).await?,
            decoder: Decoder::new(),
        })
    }

    /// Samples of what an instance uses: one, or one a second until the instance ends.
    pub async fn stats(&self, namespace: &str, name: &str, stream: bool) -> Result<JsonLines<Stats>, Error> {
        let query = encode_query(&[("stream", if stream { "true" } else { "false" })]);
        let path = format!("{}{query}", instance_path(namespace, name, "stats"));
        Ok(self.bytes(request(Method::GET, &path)?).await?.json_lines())
    }

    /// Sends a signal to an instance's main process, or that of one of its containers.
    pub async fn signal(&self, namespace: &str, name: &str, container: Option<&str>, signal: i32) -> Result<(), Error> {
        let mut query = vec![("signal", signal.to_string())];
        query.extend(container.map(|c| ("container", c.to_owned())));
        let query = encode_query(&query);
        let path = format!("{}{query}", instance_path(namespace, name, "signal"));
        self.call(request(Method::POST, &path)?).await.map(drop)
    }

    /// Loads the images of an archive (`docker save` or OCI layout, plain or compressed).
    pub async fn image_load<S>(&self, archive: S, progress: impl FnMut(&Progress)) -> Result<ImageResult, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        let r = request_stream(Method::POST, &node_path("image-load", &[]), archive)?;
        self.long_call(r, progress).await
    }

    /// Writes images into one archive.
    pub async fn image_save(&self, references: &[String], format: ArchiveFormat) -> Result<ByteStream, Error> {
        let format = match format {
            ArchiveFormat::Docker => "docker",
            ArchiveFormat::Oci => "oci",
        };
        let mut q = vec![("format", format)];
        q.extend(references.iter().map(|r| ("reference", r.as_str())));
        let path = node_path("image-save", &q);
        self.bytes(request(Method::GET, &path)?).await
    }

    /// Makes an image of a root file system or a disk. `config` is the base64 of an OCI image config's JSON.
    pub async fn image_import<S>(
        &self,
        reference: &str,
        format: ImportFormat,
        config: Option<&str>,
        content: S,
        progress: impl FnMut(&Progress),
    ) -> Result<ImageResult, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        let mut q = vec![("reference", reference), ("format", format.as_str())];
        q.extend(config.map(|c| ("config", c)));
        let r = request_stream(Method::POST, &node_path("image-import", &q), content)?;
        self.long_call(r, progress).await
    }

    /// Gets an image from its registry. `auth` is the value of `X-Registry-Auth`.
    pub async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        referrers: bool,
        auth: Option<&str>,
        progress: impl FnMut(&Progress),
    ) -> Result<ImageResult, Error> {
        let mut q = vec![("reference", reference)];
        q.extend(platform.map(|p| ("platform", p)));
        q.extend(referrers.then_some(("referrers", "true")));
        let r = with_auth(request(Method::POST, &node_path("image-pull", &q))?, auth)?;
        self.long_call(r, progress).await
    }

    /// Sends an image to its registry, or to that of `target`. `auth` is the value of `X-Registry-Auth`.
    pub async fn image_push(
        &self,
        reference: &str,
        target: &str,
        referrers: bool,
        auth: Option<&str>,
        progress: impl FnMut(&Progress),
    ) -> Result<ImageResult, Error> {
        let mut q = vec![("reference", reference), ("as", target)];
        q.extend(referrers.then_some(("referrers", "true")));
        let r = with_auth(request(Method::POST, &node_path("image-push", &q))?, auth)?;
        self.long_call(r, progress).await
    }

    /// Builds an image of the tar of a context. `auths` is the value of `X-Registry-Config`.
    pub async fn build<S>(
        &self,
        build: &Build,
        auths: Option<&str>,
        context: S,
        mut event: impl FnMut(Event),
    ) -> Result<ImageResult, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        let options =
            serde_json::to_vec(build).map_err(|e| Error::protocol(format!("the options cannot be written: {e}")))?;
        let options = URL_SAFE_NO_PAD.encode(options);
        let mut r = request_stream(Method::POST, &node_path("build", &[("options", &options)]), context)?;
        if let Some(auths) = auths {
            let value = http::HeaderValue::from_str(auths);
            let mut value = value.map_err(|_| Error::protocol("the credentials have odd characters in them"))?;
            value.set_sensitive(true);
            r.headers_mut().insert("x-registry-config", value);
        }
        self.long_lines(r, |line| {
            if let Some(e) = line.build.take() {
                event(e);
            }
        })
        .await
    }

    /// All that the node knows of an image.
    pub async fn image_detail(&self, reference: &str) -> Result<ImageDetail, Error> {
        let path = node_path("image-detail", &[("reference", reference)]);
        self.json(request(Method::GET, &path)?).await
    }

    /// What refers to an image in its registry. `auth` is the value of `X-Registry-Auth`.
    pub async fn image_referrers(&self, reference: &str, auth: Option<&str>) -> Result<Vec<ImageReferrer>, Error> {
        let path = node_path("image-referrers", &[("reference", reference)]);
        self.json(with_auth(request(Method::GET, &path)?, auth)?).await
    }

    /// Asks a registry, through the node, whether it lets somebody in. `auth` is the value of `X-Registry-Auth`.
    pub async fn registry_login(&self, auth: &str) -> Result<(), Error> {
        let r = request(Method::POST, &node_path("registry-login", &[]))?;
        self.call(with_auth(r, Some(auth))?).await.map(drop)
    }

    /// Gives an image another name.
    pub async fn image_tag(&self, reference: &str, target: &str) -> Result<(), Error> {
        let path = node_path("image-tag", &[("reference", reference), ("as", target)]);
        self.call(request(Method::POST, &path)?).await.map(drop)
    }

    /// Removes what no object refers to from the node's image store.
    pub async fn prune(&self, progress: impl FnMut(&Progress)) -> Result<PruneResult, Error> {
        self.long_call(request(Method::POST, &node_path("prune", &[]))?, progress)
            .await
    }

    /// Follows the JSON lines of a long call to its end.
    pub(crate) async fn long_call<T: DeserializeOwned>(
        &self,
        r: http::Request<crate::http::Body>,
        mut progress: impl FnMut(&Progress),
    ) -> Result<T, Error> {
        self.long_lines(r, |line| {
            if let Some(p) = &line.progress {
                progress(p);
            }
        })
        .await
    }

    async fn long_lines<T: DeserializeOwned>(
        &self,
        r: http::Request<crate::http::Body>,
        mut each: impl FnMut(&mut Line),
    ) -> Result<T, Error> {
        let what = r.uri().path().rsplit('/').next().unwrap_or_default().to_string();
        let mut lines: JsonLines<Line> = self.bytes(r).await?.json_lines();
        while let Some(mut line) = lines.next().await? {
            each(&mut line);
            if let Some(status) = &line.error {
                return Err(Error::from_status(status));
            }
            if let Some(result) = line.result {
                return serde_json::from_value(result)
                    .map_err(|e| Error::protocol(format!("the result of {what} cannot be read: {e}")));
            }
        }
        Err(Error::new(
            ErrorKind::Unreachable,
            format!("the daemon ended {what} without a result"),
        ))
    }
}
