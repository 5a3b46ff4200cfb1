//! Files from plain addresses: what `ADD` fetches in a build, and contexts that are an address.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use futures_util::StreamExt;
use reqwest::Url;
use reqwest::header::{LAST_MODIFIED, LOCATION};
use sha2::{Digest, Sha256};

use super::client::{Client, chain};
use crate::{Error, ImageStore};

/// Redirects followed.
const MAX_REDIRECTS: usize = 10;
/// Largest file, in bytes.
const MAX_BYTES: u64 = 64 << 30;

/// A file that was fetched. It has no name on this disk.
#[derive(Debug)]
pub struct Fetched {
    /// Its content, from the beginning.
    pub file: File,
    /// `sha256:…`
    pub digest: String,
    /// The last component of its address; empty where there is none.
    pub name: String,
    /// When the server says it was changed, as it says it.
    pub last_modified: Option<String>,
}

impl ImageStore {
    /// Fetches a file by `http` or `https`.
    pub async fn fetch_file(&self, address: &str) -> Result<Fetched, Error> {
        let file =
            tempfile::tempfile_in(self.root().join("tmp")).map_err(Error::io("create a file in", self.root()))?;
        fetch(self.client(), address, file).await
    }
}

async fn fetch(client: &Client, address: &str, mut file: File) -> Result<Fetched, Error> {
    let failed = |why: String| Error::Unreachable {
        url: address.to_owned(),
        why,
    };
    let mut url: Url = address.parse().map_err(|e| failed(format!("it is no address: {e}")))?;
    let name = url
        .path_segments()
        .and_then(|mut s| s.next_back())
        .unwrap_or_default()
        .to_owned();
    for _ in 0..MAX_REDIRECTS {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(failed(format!("{} is neither http nor https", url.scheme())));
        }
        let host = match (url.host_str(), url.port()) {
            (Some(h), Some(p)) => format!("{h}:{p}"),
            (Some(h), None) => h.to_owned(),
            (None, _) => return Err(failed("it names no host".into())),
        };
        let answer = client.connection(&host, false)?.get(url.clone()).send().await;
        let answer = answer.map_err(|e| failed(chain(&e)))?;
        let status = answer.status();
        if status.is_redirection() {
            let to = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let to = to.and_then(|t| url.join(t).ok());
            url = to.ok_or_else(|| failed(format!("it answers {status} and does not say where to go")))?;
            continue;
        }
        if !status.is_success() {
            return Err(failed(format!("it answers {status}")));
        }
        let modified = answer
            .headers()
            .get(LAST_MODIFIED)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut body = answer.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| failed(chain(&e)))?;
            size += piece.len() as u64;
            if size > MAX_BYTES {
                return Err(failed(format!("it is larger than {MAX_BYTES} bytes")));
            }
            hasher.update(&piece);
            file.write_all(&piece).map_err(|e| failed(e.to_string()))?;
        }
        file.seek(SeekFrom::Start(0)).map_err(|e| failed(e.to_string()))?;
        return Ok(Fetched {
            file,
            digest: crate::digest::finish(hasher),
            name,
            last_modified: modified,
        });
    }
    Err(failed(format!("it redirects more than {MAX_REDIRECTS} times")))
}
