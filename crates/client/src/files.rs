//! Files of instances.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use biga_wire::files::{Change, Commit, PathStat, Put, STAT_HEADER};
use biga_wire::http::ImageResult;
use bytes::Bytes;
use futures_util::Stream;
use http::Method;

use crate::http::{request, request_json, request_stream};
use crate::node::instance_path;
use crate::params::encode_query;
use crate::{ByteStream, Client, Error};

impl Client {
    /// What stands at a path in an instance.
    pub async fn files_stat(&self, namespace: &str, name: &str, path: &str) -> Result<PathStat, Error> {
        let query = encode_query(&[("path", path), ("stat", "true")]);
        let path = format!("{}{query}", instance_path(namespace, name, "files"));
        self.json(request(Method::GET, &path)?).await
    }

    /// What stands at a path in an instance, and the tar of it and all beneath it. Its names begin with the path's last
    /// component.
    pub async fn files_read(&self, namespace: &str, name: &str, path: &str) -> Result<(PathStat, ByteStream), Error> {
        let query = encode_query(&[("path", path)]);
        let path = format!("{}{query}", instance_path(namespace, name, "files"));
        let (headers, bytes) = self.bytes_with_headers(request(Method::GET, &path)?).await?;
        let stat = headers.get(STAT_HEADER).and_then(|v| {
            let json = STANDARD.decode(v.as_bytes()).ok()?;
            serde_json::from_slice(&json).ok()
        });
        let stat = stat.ok_or_else(|| Error::protocol("the daemon does not say what stands at the path"))?;
        Ok((stat, bytes))
    }

    /// Unpacks a tar (plain, gzip, bzip2, xz or zstd) into a directory of an instance.
    pub async fn files_write<S>(&self, namespace: &str, name: &str, path: &str, put: Put, tar: S) -> Result<(), Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    {
        let word = |b| if b { "true" } else { "false" };
        let query = encode_query(&[
            ("path", path),
            ("keepKinds", word(put.keep_kinds)),
            ("toUser", word(put.to_user)),
        ]);
        let path = format!("{}{query}", instance_path(namespace, name, "files"));
        self.call(request_stream(Method::PUT, &path, tar)?).await.map(drop)
    }

    /// What an instance changed of its image, ordered by path.
    pub async fn changes(&self, namespace: &str, name: &str) -> Result<Vec<Change>, Error> {
        self.json(request(Method::GET, &instance_path(namespace, name, "changes"))?)
            .await
    }

    /// A tar of an instance's root file system, without what is mounted over it.
    pub async fn export(&self, namespace: &str, name: &str) -> Result<ByteStream, Error> {
        self.bytes(request(Method::GET, &instance_path(namespace, name, "export"))?)
            .await
    }

    /// Makes an image of an instance.
    pub async fn commit(&self, namespace: &str, name: &str, commit: &Commit) -> Result<ImageResult, Error> {
        let body = serde_json::to_value(commit).map_err(|e| Error::protocol(e.to_string()))?;
        let path = instance_path(namespace, name, "commit");
        let r = request_json(Method::POST, &path, "application/json", &body)?;
        self.long_call(r, |_| {}).await
    }
}
