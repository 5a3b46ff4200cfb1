//! What a build begins with: a request that can be honoured, the context, the Dockerfile.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use biga_dockerfile::ignore::Ignore;
use biga_dockerfile::{Dockerfile, MAX_SIZE};
use biga_image::files::{Node, Tarball, Tree, tree};
use biga_image::{Auth, Platform};
use biga_model::Isolation;
use biga_wire::build::Build;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::git::{self, Repository};
use crate::given;
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
        let (given, context) = given::take(&request, context.boxed()).await?;
        let parts = Parts {
            dockerfile: None,
            context,
            named: Vec::new(),
            client: given.map(|g| Arc::new(g) as Arc<dyn Client>),
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
        let isolation = check(&request)?;
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
            self.fetch_context(&request, &mut name).await?
        };
        // Of all else the client has left out already what it says.
        let as_it_was = git::is_repository(&request.remote);
        let (file, context) = blocking(move || {
            if as_it_was {
                leave_out_all(&mut context, &name)?;
            }
            let read = match dockerfile {
                Some(bytes) => parse(bytes, &name)?,
                None => {
                    let read = read_dockerfile(&context, &name)?;
                    leave_out(&mut context, &name)?;
                    read
                }
            };
            Ok((read, context))
        })
        .await?;
        let dir = self.store().root().join("tmp");
        let mut contexts = HashMap::new();
        for (name, tar) in named {
            contexts.insert(name, Arc::new(read_tar(tar, &dir).await?));
        }
        for (name, address) in &request.remotes {
            contexts.insert(name.clone(), Arc::new(self.fetch_tree(address, false).await?));
        }
        Ok(Prepared {
            builder: self.clone(),
            request,
            isolation,
            auths,
            file,
            context: Arc::new(context),
            client,
            named: contexts,
        })
    }

    /// A context that is an address: a repository, an archive, or the Dockerfile alone.
    async fn fetch_context(&self, request: &Build, name: &mut String) -> Result<Tarball, Error> {
        let address = &request.remote;
        if git::is_repository(address) {
            return self.fetch_tree(address, request.keep_git_dir).await;
        }
        let (node, archive) = self.fetch_archive(address).await?;
        Ok(match archive {
            Some(tarball) => tarball,
            None => {
                *name = DOCKERFILE.to_owned();
                Tarball::of_file(DOCKERFILE.as_bytes(), node)
            }
        })
    }

    /// Files at an address: a repository or an archive.
    async fn fetch_tree(&self, address: &str, keep_git_dir: bool) -> Result<Tarball, Error> {
        if git::is_repository(address) {
            let repository = Repository::parse(address)?;
            return self.clone_repository(&repository, keep_git_dir).await;
        }
        let (_, archive) = self.fetch_archive(address).await?;
        archive.ok_or_else(|| Error::Invalid(format!("{address} is no archive")))
    }

    /// A file from an address, and what is in it where it is an archive.
    async fn fetch_archive(&self, address: &str) -> Result<(Node, Option<Tarball>), Error> {
        let fetched = self.store().fetch_file(address).await;
        let fetched = fetched.map_err(|e| Error::Invalid(format!("failed to get the context: {}", Error::from(e))))?;
        let dir = self.store().root().join("tmp");
        let node = Node::of_file(fetched.file, 0o644, (0, 0)).map_err(|e| Error::Failed(e.to_string()))?;
        blocking(move || {
            let failed = |e: io::Error| Error::Failed(format!("the context cannot be read: {e}"));
            if !Tarball::is_archive(&node).map_err(failed)? {
                return Ok((node, None));
            }
            let source = BufReader::with_capacity(BUFFER, node.open().map_err(failed)?);
            let tarball = Tarball::read(source, &dir).map_err(bad_context)?;
            Ok((node, Some(tarball)))
        })
        .await
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

/// What can be said before anything is read; what steps run in.
fn check(request: &Build) -> Result<Isolation, Error> {
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
    isolation(&request.isolation)
}

/// Steps are processes of an image; a machine has none.
fn isolation(word: &str) -> Result<Isolation, Error> {
    let found = match word {
        "" => Some(Isolation::default()),
        word => word.parse().ok().filter(|i| *i != Isolation::Vm),
    };
    found.ok_or_else(|| {
        Error::Invalid(format!(
            "steps of a build run with isolation container or microvm, not {word:?}"
        ))
    })
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

/// The rules of a `.dockerignore`, where there are any that can be read.
fn rules(context: &Tarball, name: &str) -> Result<Option<Ignore>, Error> {
    let Ok(Some(node)) = context.look(name.as_bytes()) else {
        return Ok(None);
    };
    let mut text = String::new();
    let Ok(open) = node.open() else { return Ok(None) };
    if open.take(MAX_SIZE as u64).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    Ignore::parse(&text).map(Some).map_err(Error::Invalid)
}

/// Clients send the Dockerfile and `.dockerignore` also where the latter leaves them out: then they are no part of the context.
fn leave_out(context: &mut Tarball, name: &str) -> Result<(), Error> {
    if let Some(ignore) = rules(context, ".dockerignore")? {
        for path in [".dockerignore", name] {
            if ignore.excludes(path) {
                context.remove(path.as_bytes());
            }
        }
    }
    Ok(())
}

/// What a client would leave out, of a context that no client packed. The Dockerfile stays for now.
fn leave_out_all(context: &mut Tarball, name: &str) -> Result<(), Error> {
    let ignore = match rules(context, &format!("{name}.dockerignore"))? {
        Some(own) => Some(own),
        None => rules(context, ".dockerignore")?,
    };
    if let Some(ignore) = ignore {
        let needed = |path: &str| path == name || path == ".dockerignore";
        context.retain(|path| {
            let path = String::from_utf8_lossy(path);
            needed(&path) || !ignore.excludes(&path)
        });
    }
    Ok(())
}

/// Runs what blocks where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::Failed(format!("the work on files crashed: {e}")))?
}
