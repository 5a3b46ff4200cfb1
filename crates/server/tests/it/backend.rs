//! A node that only remembers.

use async_trait::async_trait;
use biga_api_kube::{ApiError, ErrorKind};
use biga_server::backend::{
    ArchiveFormat, Backend, BoxedIo, ByteStream, ImportFormat, LogQuery, RegistryAuth, Reporter, Upload,
};
use biga_wire::http::{ImageLine, ImageResult, Progress, PruneResult};
use biga_wire::shim::{Exit, Reply, Request, Stats};
use biga_wire::{Decoder, Frame, FrameKind};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub struct FakeBackend;

/// A shim that answers, echoes what it is sent, and says `Exit` once its input ended.
async fn echo(mut io: tokio::io::DuplexStream, reply: Reply) {
    let mut out = Vec::new();
    Frame::json(FrameKind::Reply, &reply).encode(&mut out);
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 4096];
    loop {
        if !out.is_empty() {
            io.write_all(&out).await.unwrap();
            out.clear();
        }
        let n = io.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        decoder.push(&buffer[..n]);
        while let Some(f) = decoder.next_frame().unwrap() {
            Frame::new(FrameKind::Stdout, f.payload).encode(&mut out);
        }
    }
    Frame::json(
        FrameKind::Exit,
        &Exit {
            code: 7,
            ..Exit::default()
        },
    )
    .encode(&mut out);
    io.write_all(&out).await.unwrap();
    io.shutdown().await.unwrap();
}

#[async_trait]
impl Backend for FakeBackend {
    async fn open(&self, _ns: &str, name: &str, first: Request) -> Result<BoxedIo, ApiError> {
        if name == "stopped" {
            return Err(ApiError::new(ErrorKind::Conflict, "instance stopped is not running"));
        }
        let reply = match first {
            Request::Exec { exec } => Reply::Exec {
                pid: exec.args.len() as u32,
            },
            _ => Reply::Ok,
        };
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(echo(theirs, reply));
        Ok(Box::new(ours))
    }

    async fn logs(&self, _ns: &str, _name: &str, query: LogQuery) -> Result<ByteStream, ApiError> {
        let first = stream::iter([Ok(Bytes::from(format!("tail {:?}\n", query.tail)))]);
        Ok(match query.follow {
            true => first.chain(stream::pending()).boxed(),
            false => first.boxed(),
        })
    }

    async fn stats(
        &self,
        _ns: &str,
        _name: &str,
        _container: Option<&str>,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Stats, ApiError>>, ApiError> {
        let n = if stream { 3 } else { 1 };
        Ok(stream::iter((0..n).map(|i| {
            Ok(Stats {
                cpu_ns: i,
                ..Stats::default()
            })
        }))
        .boxed())
    }

    async fn signal(&self, _ns: &str, _name: &str, _container: Option<&str>, signal: i32) -> Result<(), ApiError> {
        match signal {
            9 => Ok(()),
            _ => Err(ApiError::new(ErrorKind::Conflict, "it is not running")),
        }
    }

    async fn image_load(&self, mut archive: Upload, report: Reporter) -> Result<ImageResult, ApiError> {
        let mut done = 0;
        while let Some(piece) = archive.next().await {
            done += piece.map_err(|e| ApiError::bad_request(e.to_string()))?.len() as u64;
        }
        report.progress(Progress {
            action: "loading".into(),
            done,
            ..Progress::default()
        });
        if done == 0 {
            return Err(ApiError::bad_request("the archive is empty"));
        }
        Ok(one(&format!("loaded:{done}")))
    }

    async fn image_save(&self, references: &[String], format: ArchiveFormat) -> Result<ByteStream, ApiError> {
        let reference = references.join(" ");
        let reference = reference.as_str();
        if reference == "missing" {
            return Err(ApiError::not_found("images", reference));
        }
        Ok(stream::iter([Ok(Bytes::from(format!("{reference} {format:?}")))]).boxed())
    }

    async fn image_import(
        &self,
        reference: &str,
        format: ImportFormat,
        config: Option<serde_json::Value>,
        _content: Upload,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        Ok(one(&format!("{reference} {format:?} {}", config.unwrap_or_default())))
    }

    async fn image_push(
        &self,
        reference: &str,
        target: &str,
        _referrers: bool,
        auth: Option<RegistryAuth>,
        _report: Reporter,
    ) -> Result<ImageResult, ApiError> {
        Ok(one(&format!(
            "{reference} {target} {}",
            auth.unwrap_or_default().username
        )))
    }

    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, ApiError> {
        Ok(one(&format!("{reference} {target}")))
    }

    async fn prune(&self, _report: Reporter) -> Result<PruneResult, ApiError> {
        Ok(PruneResult {
            freed_bytes: 5,
            ..PruneResult::default()
        })
    }
}

fn one(reference: &str) -> ImageResult {
    ImageResult {
        images: vec![ImageLine {
            reference: reference.into(),
            ..ImageLine::default()
        }],
    }
}
