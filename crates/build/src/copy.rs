//! `COPY`, `ADD` and `WORKDIR`: files become a layer without a container.
//!
//! It is done by a thread of its own, in a mount namespace of its own, where the stage so far and the one copied from are
//! mounted read-only. Nothing of this is seen on the host, and it ends with the thread.

use std::collections::HashMap;
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use biga_container::view;
use biga_dockerfile::Owner;
use biga_dockerfile::config::clean;
use biga_dockerfile::ignore::Ignore;
use biga_image::files::compose::LayerTar;
use biga_image::files::{Compose, Disk, Node, Tarball, Tree, Unpack};
use biga_image::{ImageStore, KeptLayer, LayerMounts, LayerRecord};
use tokio::sync::oneshot;

use crate::Error;
use crate::pick::{Picked, Wanted, digest_of_all, join};

/// Where files come from.
pub enum From {
    /// The context.
    Context(Arc<Tarball>),
    /// The layers of an image or of another stage.
    Layers(Vec<LayerRecord>),
}

impl From {
    /// What has to be mounted for it.
    fn layers(&self) -> &[LayerRecord] {
        match self {
            From::Context(_) => &[],
            From::Layers(layers) => layers,
        }
    }
}

/// One source, in the order they were written.
pub enum Source {
    /// Looked for in the tree.
    Path(String),
    /// Here already: fetched, or written in the Dockerfile.
    Here(Picked),
}

/// What is copied, and how.
pub struct Task {
    /// The instruction's name.
    pub name: &'static str,
    /// Where from.
    pub from: From,
    /// What.
    pub sources: Vec<Source>,
    /// Where to, absolute; a slash at the end means a directory.
    pub dest: String,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<u32>,
    /// `--exclude`.
    pub excludes: Ignore,
    /// `--parents`.
    pub parents: bool,
    /// Whether archives are unpacked.
    pub unpack: bool,
    /// Whether everything keeps its owner.
    pub keep_owner: bool,
    /// The time of directories that are made.
    pub now: (i64, u32),
}

/// What is needed of the node.
pub struct Means {
    /// Where the layer goes.
    pub store: Arc<ImageStore>,
    /// Mounts layers.
    pub mounts: Arc<LayerMounts>,
    /// The stage so far.
    pub layers: Vec<LayerRecord>,
}

/// Layers mounted for one piece of work.
pub struct InUse {
    mounts: Arc<LayerMounts>,
    user: String,
}

impl InUse {
    /// Begins with none.
    pub fn new(mounts: &Arc<LayerMounts>) -> InUse {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        InUse {
            mounts: mounts.clone(),
            user: format!("build {}", COUNT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Mounts them, and gives where.
    pub fn mount(&self, layers: &[LayerRecord]) -> Result<Vec<PathBuf>, Error> {
        self.mounts
            .mount_all(layers, &self.user)
            .map_err(|e| Error::Failed(e.to_string()))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(e) = self.mounts.release(&self.user) {
            tracing::warn!("layers stay mounted: {e}");
        }
    }
}

/// The layers as one read-only tree; `None` where there are none.
pub fn root(layers: &[PathBuf]) -> Result<Option<Arc<OwnedFd>>, Error> {
    if layers.is_empty() {
        return Ok(None);
    }
    let root = view::lower(layers).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(Some(Arc::new(root)))
}

/// Runs work in a mount namespace of its own, on a second thread. The layers that it needs are mounted and released by this one: a
/// mount that was made in there would be seen by nobody else who was told that the layer is mounted.
pub fn viewed<T: Send>(
    mounts: &Arc<LayerMounts>,
    layers: &[&[LayerRecord]],
    work: impl FnOnce(&InUse) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let used = InUse::new(mounts);
    for some in layers {
        used.mount(some)?;
    }
    let inside = || {
        view::private().map_err(|e| Error::Failed(e.to_string()))?;
        work(&used)
    };
    std::thread::scope(|scope| {
        let made = std::thread::Builder::new()
            .name("build-view".into())
            .spawn_scoped(scope, inside);
        let thread = made.map_err(|e| Error::Failed(format!("cannot start a thread: {e}")))?;
        let crashed = |_| Error::Failed("the work on files crashed".into());
        thread.join().map_err(crashed)?
    })
}

/// Runs work on a thread of its own.
pub async fn thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let (tx, rx) = oneshot::channel();
    let made = std::thread::Builder::new().name("build".into()).spawn(move || {
        // Nobody waits any more where the build was cancelled.
        let _ = tx.send(work());
    });
    made.map_err(|e| Error::Failed(format!("cannot start a thread: {e}")))?;
    rx.await
        .map_err(|_| Error::Failed("the work on files crashed".into()))?
}

/// Finds what is meant and asks `known` with its digest; where that gives nothing the layer is made.
pub async fn copy<H: Send + 'static>(
    task: Task,
    means: Means,
    known: impl FnOnce(&str) -> Option<H> + Send + 'static,
) -> Result<(String, Result<H, KeptLayer>), Error> {
    thread(move || {
        viewed(&means.mounts, &[task.from.layers(), &means.layers], |used| {
            let picked = task.pick(used)?;
            let digest = digest_of_all(&picked).map_err(|e| task.failed(e))?;
            if let Some(hit) = known(&digest) {
                return Ok((digest, Ok(hit)));
            }
            let below = root(&used.mount(&means.layers)?)?;
            let layer = task.layer(picked, below, &means.store)?;
            Ok((digest, Err(layer)))
        })
    })
    .await
}

/// What a mount shows: its files' digest, and where they are laid out once somebody needs them.
pub struct Shown {
    /// Of all files, with names and modes.
    pub digest: String,
    /// Whether it is one file, and how that is called.
    pub file: Option<Vec<u8>>,
}

/// Looks for what is meant by a mount.
pub async fn look(task: Arc<Task>, mounts: Arc<LayerMounts>) -> Result<Shown, Error> {
    thread(move || {
        viewed(&mounts, &[task.from.layers()], |used| {
            let picked = task.pick(used)?;
            let digest = digest_of_all(&picked).map_err(|e| task.failed(e))?;
            let file = picked.first().filter(|p| !p.node.is_dir()).map(|p| p.name.clone());
            Ok(Shown { digest, file })
        })
    })
    .await
}

/// Lays out in a directory what a mount shows, with its owners.
pub async fn lay_out(task: Arc<Task>, means: Means, dir: PathBuf) -> Result<(), Error> {
    thread(move || {
        viewed(&means.mounts, &[task.from.layers()], |used| {
            let picked = task.pick(used)?;
            let tar = task.compose(picked, None, &means.store)?;
            let failed = |e: std::io::Error| task.failed(format!("{}: {e}", dir.display()));
            let root = OwnedFd::from(std::fs::File::open(&dir).map_err(failed)?);
            let options = Unpack {
                owner: biga_image::files::Owner::Archive,
                keep_kinds: false,
                rename: None,
                ids: biga_image::files::Ids(None),
            };
            let tar = BufReader::with_capacity(128 << 10, tar);
            biga_image::files::unpack::unpack(root.as_fd(), "/", tar, options).map_err(|e| task.failed(e))
        })
    })
    .await
}

/// The layer that a missing directory is; one without anything where it is there.
pub async fn directory(path: String, means: Means, now: (i64, u32)) -> Result<KeptLayer, Error> {
    thread(move || {
        viewed(&means.mounts, &[&means.layers], |used| {
            let below = root(&used.mount(&means.layers)?)?.map(Disk);
            let mut compose = Compose::new(below.as_ref().map(|d| d as &dyn Tree));
            let failed = |e: biga_image::files::Error| Error::Invalid(format!("WORKDIR {path}: {e}"));
            let real = compose.real(path.as_bytes()).map_err(failed)?;
            if !real.is_empty() && !compose.is_dir(&real).map_err(failed)? {
                compose.directory(&real, &Node::dir(0o755, now)).map_err(failed)?;
            }
            Ok(means.store.write_layer(compose.into_tar())?)
        })
    })
    .await
}

impl Task {
    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::Invalid(format!("{} failed: {why}", self.name))
    }

    fn pick(&self, used: &InUse) -> Result<Vec<Picked>, Error> {
        let mounted;
        let tree: &dyn Tree = match &self.from {
            From::Context(context) => &**context,
            From::Layers(layers) => {
                mounted = root(&used.mount(layers)?)?.map(Disk);
                mounted
                    .as_ref()
                    .ok_or_else(|| self.failed("what is copied from has no files"))?
            }
        };
        let wanted = Wanted {
            name: self.name,
            excludes: self.excludes.clone(),
            parents: self.parents,
            from_root: matches!(self.from, From::Layers(_)),
        };
        let mut all = Vec::new();
        for source in &self.sources {
            match source {
                Source::Path(word) => all.extend(wanted.pick(tree, word)?),
                Source::Here(picked) => all.push(picked.clone()),
            }
        }
        Ok(all)
    }

    fn layer(&self, picked: Vec<Picked>, below: Option<Arc<OwnedFd>>, store: &ImageStore) -> Result<KeptLayer, Error> {
        let tar = self.compose(picked, below, store)?;
        Ok(store.write_layer(tar)?)
    }

    fn compose(&self, picked: Vec<Picked>, below: Option<Arc<OwnedFd>>, store: &ImageStore) -> Result<LayerTar, Error> {
        let owner = self.owner(below.as_deref())?;
        let below = below.map(Disk);
        let mut layer = Layer {
            compose: Compose::new(below.as_ref().map(|d| d as &dyn Tree)),
            new: Node {
                uid: owner.unwrap_or_default().0,
                gid: owner.unwrap_or_default().1,
                ..Node::dir(0o755, self.now)
            },
            owner,
            task: self,
        };
        let wants_dir = self.dest.ends_with('/') || self.dest.ends_with("/.");
        if picked.len() > 1 && !wants_dir {
            return Err(Error::Invalid(format!(
                "When using {} with more than one source file, the destination must be a directory and end with a /",
                self.name
            )));
        }
        let dest = layer.compose.real(self.dest.as_bytes()).map_err(|e| self.failed(e))?;
        let into =
            wants_dir || self.parents || dest.is_empty() || layer.compose.is_dir(&dest).map_err(|e| self.failed(e))?;
        for one in picked {
            layer.add(one, &dest, into, store)?;
        }
        Ok(layer.compose.into_tar())
    }

    /// User and group of `--chown`, looked up in the stage's own files.
    fn owner(&self, root: Option<&OwnedFd>) -> Result<Option<(u32, u32)>, Error> {
        let Some(owner) = &self.owner else { return Ok(None) };
        let look = |what: &str| -> Result<(u32, u32), Error> {
            match (root, what.trim_start_matches("0:").parse::<u32>()) {
                (_, Ok(number)) => Ok((number, number)),
                (Some(root), Err(_)) => {
                    view::user(root.as_fd(), what).map_err(|e| self.failed(format!("--chown: {e}")))
                }
                (None, Err(_)) => Err(self.failed(format!(
                    "--chown: there is no user or group {what} in an image without files"
                ))),
            }
        };
        let (uid, own_group) = look(&owner.user)?;
        let gid = match &owner.group {
            Some(group) => look(&format!("0:{group}"))?.1,
            // The group of the same name, or the user's own.
            None => look(&format!("0:{}", owner.user)).map_or(own_group, |(_, gid)| gid),
        };
        Ok(Some((uid, gid)))
    }
}

/// A layer in the making.
struct Layer<'a> {
    compose: Compose<'a>,
    new: Node,
    owner: Option<(u32, u32)>,
    task: &'a Task,
}

impl Layer<'_> {
    fn add(&mut self, one: Picked, dest: &[u8], into: bool, store: &ImageStore) -> Result<(), Error> {
        let failed = |e: biga_image::files::Error| self.task.failed(e);
        if one.node.is_dir() {
            let at = match self.task.parents {
                true => join(dest, &one.name),
                false => dest.to_vec(),
            };
            return match self.task.keep_owner {
                true => self.kept_tree(&at, one.beneath),
                false => self.tree(&at, one.beneath, (0, 0)),
            };
        }
        if self.task.unpack && Tarball::is_archive(&one.node).map_err(|e| self.task.failed(e))? {
            let content = one.node.open().map_err(|e| self.task.failed(e))?;
            let tar = Tarball::read(BufReader::with_capacity(128 << 10, content), &store.root().join("tmp"));
            let tar = tar.map_err(|e| self.task.failed(format!("{}: {e}", String::from_utf8_lossy(&one.name))))?;
            let all: Vec<(Vec<u8>, Node)> = tar.beneath(b"").map(|(k, v)| (k.clone(), v.clone())).collect();
            return self.kept_tree(dest, all);
        }
        let at = match into {
            true => join(dest, &one.name),
            false => dest.to_vec(),
        };
        let owner = if self.task.keep_owner {
            (one.node.uid, one.node.gid)
        } else {
            (0, 0)
        };
        let node = self.owned(one.node, owner);
        self.compose.put(&at, node, &self.new).map(drop).map_err(failed)
    }

    /// Root owns it all, unless somebody else is named.
    fn tree(&mut self, dest: &[u8], all: Vec<(Vec<u8>, Node)>, owner: (u32, u32)) -> Result<(), Error> {
        let all = all.into_iter().map(|(p, n)| (p, self.owned(n, owner))).collect();
        self.put_all(dest, all)
    }

    /// As the archive says, unless somebody else is named.
    fn kept_tree(&mut self, dest: &[u8], all: Vec<(Vec<u8>, Node)>) -> Result<(), Error> {
        let own = |n: Node| {
            let theirs = (n.uid, n.gid);
            self.owned(n, theirs)
        };
        let all = all.into_iter().map(|(p, n)| (p, own(n))).collect();
        self.put_all(dest, all)
    }

    fn owned(&self, mut node: Node, otherwise: (u32, u32)) -> Node {
        (node.uid, node.gid) = self.owner.unwrap_or(otherwise);
        if let Some(mode) = self.task.mode
            && node.kind != biga_image::files::NodeKind::Symlink
        {
            node.mode = mode;
        }
        node
    }

    fn put_all(&mut self, dest: &[u8], all: Vec<(Vec<u8>, Node)>) -> Result<(), Error> {
        let task = self.task;
        let failed = |e: biga_image::files::Error| match e {
            biga_image::files::Error::NotADirectory(p) => task.failed(format!("cannot copy to non-directory: /{p}")),
            e => task.failed(e),
        };
        if !dest.is_empty() {
            self.compose.directory(dest, &self.new).map_err(failed)?;
        }
        // Where the directories came to stand: a link in the image may lead elsewhere in it.
        let mut stand: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        stand.insert(Vec::new(), dest.to_vec());
        for (path, node) in all {
            let cut = path.iter().rposition(|b| *b == b'/');
            let (dir, name) = cut.map_or((&b""[..], &path[..]), |i| (&path[..i], &path[i + 1..]));
            let dir = stand.get(dir).cloned().unwrap_or_else(|| join(dest, dir));
            let is_dir = node.is_dir();
            let at = self.compose.put(&join(&dir, name), node, &self.new).map_err(failed)?;
            if is_dir {
                stand.insert(path, at);
            }
        }
        Ok(())
    }
}

/// A destination as an absolute path that keeps what says that it is a directory.
pub fn destination(dest: &str, workdir: &str) -> String {
    let whole = match dest.starts_with('/') {
        true => dest.to_owned(),
        false => format!("{workdir}/{dest}"),
    };
    let is_dir = dest.ends_with('/') || dest == "." || dest.ends_with("/.") || dest.ends_with("..");
    match clean(&whole) {
        path if is_dir && path != "/" => path + "/",
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (dest, workdir, want) in [
            ("/a/b", "/w", "/a/b"),
            ("/a/b/", "/w", "/a/b/"),
            ("x", "/w", "/w/x"),
            (".", "/w", "/w/"),
            ("./", "", "/"),
            ("../y/.", "/w/z", "/w/y/"),
            ("/../../etc", "/", "/etc"),
        ] {
            assert_eq!(destination(dest, workdir), want, "{dest}");
        }
    }
}
