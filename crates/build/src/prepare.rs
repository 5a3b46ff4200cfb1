//! What a build begins with: a request that can be honoured, the context, the Dockerfile.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use biga_dockerfile::ignore::Ignore;
use biga_dockerfile::{Dockerfile, MAX_SIZE};
use biga_image::files::{Node, Tarball, Tree, tree};
use biga_image::{Auth, Platform};
use biga_wire::build::Build;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::{Builder, Client, Error, Prepared};

const DOCKERFILE: &str = "Dockerfile";
/// What is read of an archive at once.
const BUFFER: usize = 256 << 10;

impl Builder {
    /// Reads the context to its end and the Dockerfile in it.
    pub async fn prepare<S>(&self, request: Build, auths: HashMap<String, Auth>, context: S) -> Result<Prepared, Error>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let parts = Parts {
            dockerfile: None,
            context: context.boxed(),
            named: Vec::new(),
            client: None,
        };
        self.prepare_with(request, auths, parts).await
    }

    /// The same with a Dockerfile that is no part of the context, and with somebody who can be asked.
    pub async fn prepare_with(
        &self,
        request: Build,
        auths: HashMap<String, Auth>,
        parts: Parts,
    ) -> Result<Prepared, Error> {
        check(&request)?;
        let Parts {
            dockerfile,
            context,
            named,
            client,
        } = parts;
        let dir = self.store().root().join("tmp");
        let mut name = match request.dockerfile.as_str() {
            "" => DOCKERFILE.to_owned(),
            name => name.to_owned(),
        };
        let mut context = if request.remote.is_empty() {
            read_tar(context, &dir).await?
        } else {
            self.fetch_context(&request.remote, &mut name).await?
        };
        let (file, ignored) = blocking(move || {
            let read = match dockerfile {
                Some(bytes) => return Ok(((parse(bytes, &name)?, context), false)),
                None => read_dockerfile(&context, &name)?,
            };
            let ignored = leave_out(&mut context, &name)?;
            Ok(((read, context), ignored))
        })
        .await?;
        if ignored {
            tracing::debug!("the Dockerfile is no part of the context");
        }
        let (file, context) = file;
        let dir = self.store().root().join("tmp");
        let mut contexts = HashMap::new();
        for (name, tar) in named {
            contexts.insert(name, Arc::new(read_tar(tar, &dir).await?));
        }
        Ok(Prepared {
            builder: self.clone(),
            request,
            auths,
            file,
            context: Arc::new(context),
            client,
            named: contexts,
        })
    }

    /// A context that is an address: an archive, or the Dockerfile alone.
    async fn fetch_context(&self, address: &str, name: &mut String) -> Result<Tarball, Error> {
        let is_web = address.starts_with("http://") || address.starts_with("https://");
        let path = address.split(['?', '#']).next().unwrap_or_default();
        if !is_web || path.ends_with(".git") {
            return Err(Error::Unsupported(format!(
                "{address}: building from a repository is not supported by Biga yet: clone it and build the directory"
            )));
        }
        let fetched = self.store().fetch_file(address).await;
        let fetched = fetched.map_err(|e| Error::Invalid(format!("failed to get the context: {}", Error::from(e))))?;
        let dir = self.store().root().join("tmp");
        let node = Node::of_file(fetched.file, 0o644, (0, 0)).map_err(|e| Error::Failed(e.to_string()))?;
        let alone = name.clone();
        let (tarball, is_file) = blocking(move || {
            let failed = |e: io::Error| Error::Failed(format!("the context cannot be read: {e}"));
            if Tarball::is_archive(&node).map_err(failed)? {
                let source = BufReader::with_capacity(BUFFER, node.open().map_err(failed)?);
                return Ok((Tarball::read(source, &dir).map_err(bad_context)?, false));
            }
            Ok((Tarball::of_file(DOCKERFILE.as_bytes(), node), alone != DOCKERFILE))
        })
        .await?;
        if is_file {
            *name = DOCKERFILE.to_owned();
        }
        Ok(tarball)
    }
}

/// What a build is made of.
pub struct Parts {
    /// The Dockerfile's text; that of the context where there is none.
    pub dockerfile: Option<Vec<u8>>,
    /// The context's tar.
    pub context: BoxStream<'static, io::Result<Bytes>>,
    /// Tars of further contexts, by the names that `--from` gives them.
    pub named: Vec<(String, BoxStream<'static, io::Result<Bytes>>)>,
    /// Who can be asked.
    pub client: Option<Arc<dyn Client>>,
}

async fn read_tar(tar: BoxStream<'static, io::Result<Bytes>>, dir: &Path) -> Result<Tarball, Error> {
    let source = StreamReader::new(tar);
    let source = BufReader::with_capacity(BUFFER, SyncIoBridge::new(source));
    let dir = dir.to_owned();
    blocking(move || Tarball::read(source, &dir).map_err(bad_context)).await
}

fn bad_context(e: biga_image::files::Error) -> Error {
    Error::Invalid(format!("the build context cannot be read: {e}"))
}

/// What can be said before anything is read.
fn check(request: &Build) -> Result<(), Error> {
    if !request.platform.is_empty() {
        let wanted: Platform = request.platform.parse().map_err(Error::Invalid)?;
        let host = Platform::host();
        if (&wanted.os, &wanted.architecture) != (&host.os, &host.architecture) {
            return Err(Error::Unsupported(format!(
                "images are built for the node's own platform {host}, not for {wanted}"
            )));
        }
    }
    for tag in &request.tags {
        let name: biga_model::Reference = tag
            .parse()
            .map_err(|e| Error::Invalid(format!("invalid reference format: {tag:?}: {e}")))?;
        if name.digest.is_some() {
            return Err(Error::Invalid(format!(
                "{tag:?} has a digest: an image that is built gets a name and a tag"
            )));
        }
    }
    Ok(())
}

fn read_dockerfile(context: &Tarball, name: &str) -> Result<Dockerfile, Error> {
    let missing = || Error::Invalid(format!("Cannot locate specified Dockerfile: {name}"));
    let tree_error = |e: biga_image::files::Error| Error::Invalid(format!("Dockerfile {name}: {e}"));
    let path = tree::real_path(context, name.as_bytes(), true).map_err(tree_error)?;
    let node = context.look(&path).map_err(tree_error)?.ok_or_else(missing)?;
    if node.is_dir() {
        return Err(missing());
    }
    let mut bytes = Vec::new();
    let open = node.open().map_err(|e| Error::Failed(e.to_string()))?;
    let read = open.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::Failed(format!("the Dockerfile cannot be read: {e}")))?;
    parse(bytes, name)
}

fn parse(bytes: Vec<u8>, name: &str) -> Result<Dockerfile, Error> {
    if bytes.is_empty() {
        return Err(Error::Invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Error::Invalid(format!("the Dockerfile ({name}) is no UTF-8 text")))?;
    biga_dockerfile::parse(&text).map_err(|e| Error::Invalid(e.to_string()))
}

/// Clients send the Dockerfile and `.dockerignore` also where the latter leaves them out: then they are no part of the context.
fn leave_out(context: &mut Tarball, name: &str) -> Result<bool, Error> {
    let Ok(Some(node)) = context.look(b".dockerignore") else {
        return Ok(false);
    };
    let mut text = String::new();
    let Ok(open) = node.open() else { return Ok(false) };
    if open.take(MAX_SIZE as u64).read_to_string(&mut text).is_err() {
        return Ok(false);
    }
    let ignore = Ignore::parse(&text).map_err(Error::Invalid)?;
    let mut any = false;
    for path in [".dockerignore", name] {
        if ignore.excludes(path) {
            context.remove(path.as_bytes());
            any = true;
        }
    }
    Ok(any)
}

/// Runs what blocks where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::Failed(format!("the work on files crashed: {e}")))?
}
