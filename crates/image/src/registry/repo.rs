//! One repository of one registry.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use biga_model::Reference;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::{self, Challenge};
use super::client::{Body, Client, Request, host_of, show, unreachable};
use super::{Auth, docker_config};
use crate::Error;
use crate::store::oci;

/// Largest manifest or index.
pub(super) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest answer of a token service, and largest error body looked at.
const MAX_SMALL: u64 = 1 << 20;

/// A registry answers an upload when it has checked and stored it, which may take a while after the last byte.
const STALLS_OF_AN_UPLOAD: u32 = 10;

/// A repository, with who asks it.
pub(crate) struct Repo<'c> {
    pub(super) client: &'c Client,
    base: Url,
    /// For messages and records: `host[:port]`.
    pub(crate) registry: String,
    pub(crate) name: String,
    auth: Auth,
    scope: String,
    insecure: bool,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest as it came.
pub(crate) struct Fetched {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: String,
}

/// What is to be uploaded.
pub(crate) struct Upload<'f> {
    pub digest: &'f str,
    pub file: &'f Path,
    pub size: u64,
}

impl<'c> Repo<'c> {
    /// The places to ask for a reference: its mirrors, then its registry.
    pub(crate) async fn sources(
        client: &'c Client,
        reference: &Reference,
        auth: &Auth,
        insecure: bool,
    ) -> Result<Vec<Repo<'c>>, Error> {
        let mut all = Vec::new();
        for mirror in client.mirrors(&reference.registry) {
            let text = format!("{}/", mirror.trim_end_matches('/'));
            let Ok(base) = text.parse::<Url>() else {
                tracing::warn!("the mirror {mirror:?} is no address: it is left out");
                continue;
            };
            // Credentials given by hand are for the registry, not for whoever mirrors it.
            let auth = match auth {
                Auth::DockerConfig(path) => docker_config::lookup(path, &host_of(&base)).await?,
                _ => Auth::Anonymous,
            };
            let insecure = base.scheme() == "http";
            all.push(Repo::at(client, base, &reference.repository, auth, insecure, "pull"));
        }
        all.push(Repo::origin(client, reference, auth, insecure, "pull").await?);
        Ok(all)
    }

    /// The registry itself, for `pull` or `pull,push`.
    pub(crate) async fn origin(
        client: &'c Client,
        reference: &Reference,
        auth: &Auth,
        insecure: bool,
        actions: &str,
    ) -> Result<Repo<'c>, Error> {
        let auth = match auth {
            Auth::DockerConfig(path) => docker_config::lookup(path, &reference.registry).await?,
            other => other.clone(),
        };
        let base = client.base(&reference.registry, insecure).await?;
        let mut repo = Repo::at(client, base, &reference.repository, auth, insecure, actions);
        repo.registry.clone_from(&reference.registry);
        Ok(repo)
    }

    fn at(client: &'c Client, base: Url, name: &str, auth: Auth, insecure: bool, actions: &str) -> Repo<'c> {
        let authorization = match &auth {
            Auth::Bearer(token) => sensitive(&format!("Bearer {token}")),
            _ => None,
        };
        Repo {
            client,
            registry: host_of(&base),
            base,
            name: name.to_owned(),
            auth,
            scope: format!("repository:{name}:{actions}"),
            insecure,
            authorization: Mutex::new(authorization),
        }
    }

    /// A registry as a whole, to ask whether it knows somebody.
    pub(crate) async fn door(
        client: &'c Client,
        registry: &str,
        auth: &Auth,
        insecure: bool,
    ) -> Result<Repo<'c>, Error> {
        let base = client.base(registry, insecure).await?;
        let mut repo = Repo::at(client, base, "", auth.clone(), insecure, "");
        repo.registry = registry.to_owned();
        repo.scope.clear();
        Ok(repo)
    }

    /// Whether the registry lets this user in.
    pub(crate) async fn knock(&self) -> Result<(), Error> {
        let url = self.base.join("v2/").map_err(|e| Error::Invalid {
            what: "v2/".into(),
            why: e.to_string(),
        })?;
        let response = self.call(Method::GET, url, &[], Body::None).await?;
        self.checked(response, "access to", &self.registry).await.map(drop)
    }

    /// Also asks for the right to read another repository, so that its blobs can be mounted.
    pub(crate) fn also_pull(&mut self, other: &str) {
        if other != self.name {
            self.scope.push_str(&format!(" repository:{other}:pull"));
        }
    }

    /// A manifest or index, by tag or digest; its digest is checked against `expected` by the caller's choice.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Fetched, Error> {
        let accept = HeaderValue::from_static(oci::ACCEPT);
        let url = self.url(&format!("manifests/{reference}"))?;
        let response = self.call(Method::GET, url, &[(ACCEPT, accept)], Body::None).await?;
        let response = self.checked(response, "the manifest", reference).await?;
        let media_type = header(&response, CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = self.body(response, MAX_MANIFEST, "the manifest").await?;
        let digest = crate::digest::of(&bytes);
        if crate::digest::is_digest(reference) && digest != reference {
            return Err(mismatch(
                &format!("the digest of {}/{}", self.registry, self.name),
                reference,
                &digest,
            ));
        }
        Ok(Fetched {
            bytes,
            media_type,
            digest,
        })
    }

    /// A small blob, checked.
    pub(crate) async fn small_blob(&self, digest: &str, size: u64, max: u64) -> Result<Bytes, Error> {
        if size > max {
            return Err(Error::Invalid {
                what: format!("the blob {digest}"),
                why: format!("it is larger than {max} bytes"),
            });
        }
        let mut attempt = 1;
        loop {
            let got = async {
                let response = self.open_blob(digest, 0).await?;
                self.body(response, max, "the blob").await
            };
            match got.await {
                Ok(bytes) => {
                    let actual = crate::digest::of(&bytes);
                    return match actual == digest {
                        true => Ok(bytes),
                        false => Err(mismatch("the digest of a blob", digest, &actual)),
                    };
                }
                Err(e) if e.retryable() && attempt < self.client.attempts => {
                    tokio::time::sleep(self.client.pause(attempt)).await;
                    attempt += 1;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// A blob's content from this byte on; the answer says whether it begins there (206) or at the start (200).
    pub(super) async fn open_blob(&self, digest: &str, from: u64) -> Result<Response, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let range = HeaderValue::from_str(&format!("bytes={from}-")).ok();
        let headers: Vec<_> = range.filter(|_| from > 0).map(|r| (RANGE, r)).into_iter().collect();
        let response = self.call(Method::GET, url, &headers, Body::None).await?;
        self.checked(response, "the blob", digest).await
    }

    /// Whether the repository has a blob of this size.
    pub(crate) async fn has_blob(&self, digest: &str, size: u64) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.call(Method::HEAD, url, &[], Body::None).await?;
        let len = header(&response, "content-length").and_then(|l| l.parse::<u64>().ok());
        match response.status() {
            StatusCode::OK => Ok(len.is_none_or(|l| l == size)),
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.checked(response, "the blob", digest).await.map(|_| false),
        }
    }

    /// Tries to have the registry take a blob from another of its repositories.
    pub(crate) async fn mount_blob(&self, digest: &str, from: &str) -> Result<bool, Error> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", digest)
            .append_pair("from", from);
        let response = self.call(Method::POST, url, &[], Body::None).await?;
        // 202 began an upload instead; it is left to expire.
        Ok(response.status() == StatusCode::CREATED)
    }

    /// Sends a file as a blob. `progress` is told the bytes sent from time to time.
    pub(crate) async fn upload(
        &self,
        upload: &Upload<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let body = Body::File {
            path: upload.file.to_path_buf(),
            len: upload.size,
            sent: sent.clone(),
        };
        let sending = self.upload_body(upload.digest, body);
        tokio::pin!(sending);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let (mut before, mut since) = (0, tokio::time::Instant::now());
        loop {
            tokio::select! {
                done = &mut sending => return done,
                _ = tick.tick() => {
                    let now = sent.load(Ordering::Relaxed);
                    progress(now);
                    if now != before {
                        (before, since) = (now, tokio::time::Instant::now());
                    } else if since.elapsed() > self.client.stall * STALLS_OF_AN_UPLOAD {
                        let url = show(&self.base);
                        return Err(Error::Unreachable { url, why: format!("the upload stands still at byte {now}") });
                    }
                }
            }
        }
    }

    /// Sends bytes as a blob.
    pub(crate) async fn upload_bytes(&self, digest: &str, bytes: Bytes) -> Result<(), Error> {
        self.upload_body(digest, Body::Bytes(bytes)).await
    }

    async fn upload_body(&self, digest: &str, body: Body) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            match self.upload_once(digest, body.clone()).await {
                // A broken upload leaves the session in doubt: the next try begins a new one.
                Err(e) if e.retryable() && attempt < self.client.attempts => {
                    tokio::time::sleep(self.client.pause(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn upload_once(&self, digest: &str, body: Body) -> Result<(), Error> {
        let url = self.url("blobs/uploads/")?;
        let response = self.call(Method::POST, url.clone(), &[], Body::None).await?;
        let response = self.checked(response, "an upload to", &self.name).await?;
        let location =
            header(&response, LOCATION.as_str()).ok_or_else(|| self.odd("the answer to an upload has no Location"))?;
        let mut target = url
            .join(&location)
            .map_err(|_| self.odd("the Location of an upload is no address"))?;
        target.query_pairs_mut().append_pair("digest", digest);
        let kind = HeaderValue::from_static("application/octet-stream");
        let sent = self.deliver(Request {
            method: Method::PUT,
            url: target,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
            body,
            // A session that broke may have kept a part, or be gone.
            once: true,
        });
        self.checked(sent.await?, "the blob", digest).await.map(|_| ())
    }

    /// Names a manifest. Tells whether the registry put it on its list of those that refer to another.
    pub(crate) async fn put_manifest(&self, reference: &str, media_type: &str, bytes: Bytes) -> Result<bool, Error> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let kind = HeaderValue::from_str(media_type).map_err(|_| self.odd("the manifest's media type"))?;
        let response = self
            .call(Method::PUT, url, &[(CONTENT_TYPE, kind)], Body::Bytes(bytes))
            .await?;
        let response = self.checked(response, "the manifest", reference).await?;
        Ok(response.headers().contains_key("oci-subject"))
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        let path = format!("v2/{}/{path}", self.name);
        self.base.join(&path).map_err(|e| Error::Invalid {
            what: path,
            why: e.to_string(),
        })
    }

    /// Sends with the login at hand; where it is refused, logs in as demanded and sends again.
    pub(super) async fn call(
        &self,
        method: Method,
        url: Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Body,
    ) -> Result<Response, Error> {
        self.deliver(Request {
            method,
            url,
            headers: headers.iter().cloned().collect::<HeaderMap>(),
            body,
            once: false,
        })
        .await
    }

    async fn deliver(&self, mut request: Request) -> Result<Response, Error> {
        let same_host = host_of(&request.url) == host_of(&self.base);
        let known = self.authorization.lock().clone();
        if let Some(value) = known.filter(|_| same_host) {
            request.headers.insert(AUTHORIZATION, value);
        }
        let response = self.client.send(&request, self.insecure).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !same_host {
            return Ok(response);
        }
        let demands: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect();
        let Some(challenge) = demands.iter().find_map(|d| auth::challenge(d)) else {
            return Ok(response);
        };
        let Some(value) = self.log_in(challenge).await? else {
            return Ok(response);
        };
        *self.authorization.lock() = Some(value.clone());
        request.headers.insert(AUTHORIZATION, value);
        self.client.send(&request, self.insecure).await
    }

    async fn log_in(&self, challenge: Challenge) -> Result<Option<HeaderValue>, Error> {
        let (realm, service, scope) = match (challenge, &self.auth) {
            (Challenge::Basic, Auth::Basic { username, password }) => {
                return Ok(sensitive(&auth::basic(username, password)));
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let realm: Url = realm.parse().map_err(|_| self.odd("its token service is no address"))?;
        // What the registry says is needed, and what this call will need beside it.
        let scope = match scope {
            Some(s) if !self.scope.contains(&s) => format!("{} {s}", self.scope),
            _ => self.scope.clone(),
        };
        let ask = auth::token_request(realm, service.as_deref(), &scope, &self.auth);
        let mut headers = HeaderMap::new();
        if let Some(value) = ask.authorization.as_deref().and_then(sensitive) {
            headers.insert(AUTHORIZATION, value);
        }
        let (method, body) = match ask.form {
            Some(form) => {
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
                (Method::POST, Body::Bytes(form.into()))
            }
            None => (Method::GET, Body::None),
        };
        let request = Request {
            method,
            url: ask.url,
            headers,
            body,
            once: false,
        };
        let response = self.client.send(&request, self.insecure).await?;
        let response = self.checked(response, "a token for", &self.name).await?;
        let body = self.body(response, MAX_SMALL, "the token").await?;
        let token = auth::token(&body).ok_or_else(|| self.odd("its token service gave no token"))?;
        Ok(sensitive(&format!("Bearer {token}")))
    }

    /// Makes an error of an answer that is one.
    pub(super) async fn checked(&self, response: Response, what: &str, name: &str) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let request = show(response.url());
        let body = self.body(response, MAX_SMALL, "the error").await.unwrap_or_default();
        let why =
            oci::error_text(&body).unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
        let registry = self.registry.clone();
        let what = format!("{what} {name}");
        Err(match status {
            StatusCode::NOT_FOUND => Error::NotFound {
                what: format!("{}/{} ({what})", self.registry, self.name),
                registry,
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied {
                what: format!("{}/{}", self.registry, self.name)
                    .trim_end_matches('/')
                    .to_owned(),
                registry,
                why,
            },
            _ => Error::Registry {
                registry,
                status: status.as_u16(),
                request,
                why,
            },
        })
    }

    pub(super) async fn body(&self, mut response: Response, max: u64, what: &str) -> Result<Bytes, Error> {
        let url = response.url().clone();
        let mut all = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|e| unreachable(&url, e))? {
            if all.len() as u64 + piece.len() as u64 > max {
                return Err(Error::Invalid {
                    what: what.into(),
                    why: format!("it is larger than {max} bytes"),
                });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    pub(super) fn odd(&self, why: &str) -> Error {
        Error::Invalid {
            what: format!("the answer of {}", self.registry),
            why: why.to_owned(),
        }
    }
}

pub(super) fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

pub(crate) fn mismatch(what: &str, expected: &str, actual: &str) -> Error {
    Error::Mismatch {
        what: what.to_owned(),
        expected: expected.to_owned(),
        actual: actual.to_owned(),
    }
}

/// A header that is kept out of logs.
fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
