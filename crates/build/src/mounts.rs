//! `RUN --mount`: what is laid out on the node for a step, and what goes when the step ends.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use biga_agent::prepare::BUILDS;
use biga_dockerfile::config::clean;
use biga_dockerfile::{Mount, MountKind};
use biga_model::Isolation;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::caches::{Held, New};
use crate::copy::{self, Means, Shown, Task};
use crate::{Builder, Client, Error, Prepared};

/// Where agents of SSH are found, unless a mount says otherwise.
const AGENT: &str = "/run/buildkit/ssh_agent";

/// A mount, with the files that it shows where it shows any.
pub struct Wanted {
    /// What the Dockerfile says.
    pub mount: Mount,
    /// Of a mount from the context, a stage or an image.
    pub files: Option<(Arc<Task>, Shown)>,
}

/// Where something of the node appears in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute path inside.
    pub target: String,
    /// A path of the node, or memory of so many bytes.
    pub from: From,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A path of the node.
    Node(PathBuf),
    /// Memory.
    Memory(Option<u64>),
}

/// All that is mounted for one step; undone when this goes.
#[derive(Default)]
pub struct Ready {
    /// Where it appears.
    pub places: Vec<Place>,
    /// Variables that go with it.
    pub env: Vec<(String, String)>,
    /// A file with secrets that are variables, below [`BUILDS`].
    pub env_file: Option<String>,
    secrets: Vec<String>,
    dirs: Vec<tempfile::TempDir>,
    held: BTreeMap<String, Held>,
    agents: JoinSet<()>,
}

impl Ready {
    /// The places, without a slash in front: what is made there for the mount alone is no part of the image.
    pub fn made(&self) -> Vec<Vec<u8>> {
        let path = |p: &Place| p.target.trim_matches('/').as_bytes().to_vec();
        self.places.iter().map(path).collect()
    }
}

fn failed(what: &str, e: impl std::fmt::Display) -> Error {
    Error::Failed(format!("RUN --mount: {what}: {e}"))
}

impl Builder {
    /// A directory of its own that nobody else sees.
    fn own_dir(&self, above: &Path) -> Result<tempfile::TempDir, Error> {
        std::fs::create_dir_all(above).map_err(|e| failed("a directory cannot be made", e))?;
        let made = tempfile::Builder::new().prefix("mount-").tempdir_in(above);
        made.map_err(|e| failed("a directory cannot be made", e))
    }
}

impl Prepared {
    /// Lays out what a step mounts.
    pub(crate) async fn mount(
        &self,
        wanted: Vec<Wanted>,
        workdir: &str,
        means: impl Fn() -> Means,
    ) -> Result<Ready, Error> {
        let mut ready = Ready::default();
        self.hold(&mut ready, &wanted).await?;
        for one in wanted {
            let target = match one.mount.target.as_str() {
                "" => String::new(),
                path if path.starts_with('/') => clean(path),
                path => clean(&format!("{workdir}/{path}")),
            };
            if target == "/" {
                return Err(Error::Invalid("RUN --mount: the root cannot be a target".into()));
            }
            match one.mount.kind {
                MountKind::Bind => self.bind(&mut ready, one, target, means()).await?,
                MountKind::Cache => self.cache(&mut ready, one, target, means()).await?,
                MountKind::Tmpfs => ready.places.push(Place {
                    target,
                    from: From::Memory(one.mount.size),
                    read_only: false,
                }),
                MountKind::Secret => self.secret(&mut ready, &one.mount, target).await?,
                MountKind::Ssh => self.agent(&mut ready, &one.mount, target).await?,
            }
        }
        self.write_variables(&mut ready)?;
        Ok(ready)
    }

    async fn bind(&self, ready: &mut Ready, one: Wanted, target: String, means: Means) -> Result<(), Error> {
        let Some((task, shown)) = one.files else {
            return Err(failed(&target, "there is nothing to mount"));
        };
        // On the disk of the state: it may be large.
        let dir = self.builder.own_dir(&self.builder.store().root().join("tmp"))?;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(|e| failed(&target, e))?;
        copy::lay_out(task, means, dir.path().to_owned()).await?;
        let path = match &shown.file {
            Some(name) => dir.path().join(std::ffi::OsStr::from_bytes(name)),
            None => dir.path().to_owned(),
        };
        ready.dirs.push(dir);
        ready.places.push(Place {
            target,
            from: From::Node(path),
            read_only: one.mount.read_only,
        });
        Ok(())
    }

    /// Takes all caches of a step, always in the same order, so that no two steps wait for each other.
    async fn hold(&self, ready: &mut Ready, wanted: &[Wanted]) -> Result<(), Error> {
        let caches = wanted.iter().map(|w| &w.mount).filter(|m| m.kind == MountKind::Cache);
        let by_id: BTreeMap<&String, &Mount> = caches.map(|m| (&m.id, m)).collect();
        for (id, m) in by_id {
            let new = New {
                mode: m.mode.unwrap_or(0o755),
                uid: m.uid,
                gid: m.gid,
            };
            let held = self.builder.caches.hold(id, m.sharing, new).await?;
            ready.held.insert(id.clone(), held);
        }
        Ok(())
    }

    async fn cache(&self, ready: &mut Ready, one: Wanted, target: String, means: Means) -> Result<(), Error> {
        let held = ready.held.get_mut(&one.mount.id);
        let held = held.ok_or_else(|| failed(&target, "its cache is not held"))?;
        if let Some((task, _)) = one.files
            && std::mem::take(&mut held.new)
        {
            copy::lay_out(task, means, held.path.clone()).await?;
        }
        let from = From::Node(held.path.clone());
        ready.places.push(Place {
            target,
            from,
            read_only: one.mount.read_only,
        });
        Ok(())
    }

    async fn secret(&self, ready: &mut Ready, m: &Mount, target: String) -> Result<(), Error> {
        let secret = match &self.client {
            Some(client) => client.secret(&m.id).await?,
            None => None,
        };
        let Some(secret) = secret else {
            return match m.required {
                true => Err(Error::Invalid(format!("secret {}: not found", m.id))),
                false => Ok(()),
            };
        };
        if let Some(name) = &m.env {
            ready.secrets.push(variable(m, name, &secret)?);
            if target.is_empty() {
                return Ok(());
            }
        }
        // Outlives no reboot, and is gone with the step.
        let dir = self.builder.own_dir(&self.builder.engine.layout.run.join(BUILDS))?;
        let path = dir.path().join("secret");
        let wrong = |e| failed("a secret cannot be given", e);
        std::fs::write(&path, secret).map_err(wrong)?;
        std::os::unix::fs::chown(&path, Some(m.uid), Some(m.gid)).map_err(wrong)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(m.mode.unwrap_or(0o400))).map_err(wrong)?;
        ready.dirs.push(dir);
        ready.places.push(Place {
            target,
            from: From::Node(path),
            read_only: true,
        });
        Ok(())
    }

    /// Secrets stand in no object, and so in no store: the step's names only the file.
    fn write_variables(&self, ready: &mut Ready) -> Result<(), Error> {
        if ready.secrets.is_empty() {
            return Ok(());
        }
        let dir = self.builder.own_dir(&self.builder.engine.layout.run.join(BUILDS))?;
        let path = dir.path().join("env");
        let mut text = ready.secrets.join("\0");
        text.push('\0');
        std::fs::write(&path, text).map_err(|e| failed("a secret cannot be given", e))?;
        let name = dir.path().file_name().map(|n| n.to_string_lossy().into_owned());
        ready.env_file = name.map(|n| format!("{n}/env"));
        ready.dirs.push(dir);
        Ok(())
    }

    async fn agent(&self, ready: &mut Ready, m: &Mount, target: String) -> Result<(), Error> {
        let client = match &self.client {
            Some(client) if client.has_agent(&m.id).await? => client.clone(),
            _ if m.required => return Err(Error::Invalid(format!("ssh agent {}: not found", m.id))),
            _ => return Ok(()),
        };
        if self.isolation != Isolation::Container {
            return Err(Error::Unsupported(format!(
                "ssh agent {}: a socket of this host does not work under another kernel: a step with --mount=type=ssh runs as a \
                 container, without --isolation microvm",
                m.id
            )));
        }
        let dir = self.builder.own_dir(&self.builder.engine.layout.run.join(BUILDS))?;
        let path = dir.path().join("agent");
        let wrong = |e| failed("an agent of SSH cannot be given", e);
        let listener = UnixListener::bind(&path).map_err(wrong)?;
        std::os::unix::fs::chown(&path, Some(m.uid), Some(m.gid)).map_err(wrong)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(m.mode.unwrap_or(0o600))).map_err(wrong)?;
        let target = match target.is_empty() {
            true => format!("{AGENT}.{}", ready.agents.len()),
            false => target,
        };
        if ready.agents.is_empty() {
            ready.env.push(("SSH_AUTH_SOCK".into(), target.clone()));
        }
        ready.agents.spawn(forward(listener, client, m.id.clone()));
        ready.dirs.push(dir);
        ready.places.push(Place {
            target,
            from: From::Node(path),
            read_only: false,
        });
        Ok(())
    }
}

/// A secret as a variable.
fn variable(m: &Mount, name: &str, secret: &[u8]) -> Result<String, Error> {
    let wrong = |why: &str| Error::Invalid(format!("secret {}: {why}", m.id));
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(wrong(&format!("{name:?} is no name of a variable")));
    }
    match std::str::from_utf8(secret) {
        Ok(value) if !value.contains('\0') => Ok(format!("{name}={value}")),
        _ => Err(wrong("it is no text, and so no variable: mount it as a file")),
    }
}

/// Passes connections on to the client's agent until the step ends.
async fn forward(listener: UnixListener, client: Arc<dyn Client>, id: String) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((io, _)) = accepted else { return };
                let (client, id) = (client.clone(), id.clone());
                open.spawn(async move {
                    if let Err(e) = client.forward_agent(&id, io).await {
                        tracing::debug!("a step lost the agent of SSH: {e}");
                    }
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}
