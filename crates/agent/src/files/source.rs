//! Where the root of an instance comes from.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use biga_container::view;
use biga_image::files::{Ids, Owner};
use biga_image::{ImageRecord, LayerMounts};
use biga_model::{Instance, Object, Phase, Power};
use biga_wire::config::{Container, IdMap};
use rustix::fs::{Mode, OFlags};
use tokio::sync::OwnedSemaphorePermit;

use super::pipe::Patience;
use super::runs::Hold;
use super::{Error, Files};
use crate::prepare::{self, FilesOf};

/// How long an instance may be on its way between running and not running.
const SETTLING: Duration = Duration::from_secs(60);

/// One instance whose files can be reached.
pub(super) struct Source {
    pub object: Object<Instance>,
    pub record: ImageRecord,
    pub root: Root,
    hold: Arc<Hold>,
    /// Of a run whose users have other ids on this host.
    ids: Option<IdMap>,
    layers: InUse,
    state_dir: PathBuf,
    handle: tokio::runtime::Handle,
    /// To use a thread. Asked for before anything of the instance is held: who waits for one must keep nobody from starting it.
    _permit: Option<OwnedSemaphorePermit>,
}

pub(super) enum Root {
    /// The root as its main process has it.
    Running(OwnedFd),
    /// To be mounted.
    Stopped {
        container: Box<Container>,
        run_dir: PathBuf,
    },
}

/// A root that is open.
pub(super) enum Opened<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl Opened<'_> {
    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        match self {
            Opened::Borrowed(fd) => *fd,
            Opened::Owned(fd) => fd.as_fd(),
        }
    }
}

/// Mounted layers that stay while this lives.
pub(super) struct InUse {
    mounts: Arc<LayerMounts>,
    user: String,
    paths: Vec<PathBuf>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(e) = self.mounts.release(&self.user) {
            tracing::warn!("layers stay mounted: {e}");
        }
    }
}

impl Source {
    /// The root, with or without what is mounted over it. On the thread that does the work.
    pub(super) fn root(&self, volumes: bool) -> Result<Opened<'_>, Error> {
        match &self.root {
            Root::Running(fd) => {
                if let Some(ids) = &self.ids {
                    view::become_mapped_root(ids)?;
                }
                Ok(Opened::Borrowed(fd.as_fd()))
            }
            Root::Stopped { container, run_dir, .. } => {
                view::private()?;
                Ok(Opened::Owned(view::root(container, run_dir, &self.state_dir, volumes)?))
            }
        }
    }

    /// Refuses to write what no program would ever see.
    pub(super) fn keeps(&self) -> Result<(), Error> {
        match self.root {
            Root::Stopped { .. } if self.object.spec.is_pod() => Err(Error::State(format!(
                "instance {} does not run, and its containers begin with fresh files at each start: start it and copy then, or \
                 use a volume",
                self.object.name()
            ))),
            _ => Ok(()),
        }
    }

    /// What this thread mounted goes, so that a run that waited finds the overlay gone. The layers are released with the rest, by a
    /// thread whose mounts everybody sees.
    pub(super) fn leave(&self) {
        if matches!(self.root, Root::Stopped { .. }) {
            view::leave(&self.state_dir);
        }
    }

    /// How the ids of the root's users are on this host.
    pub(super) fn ids(&self) -> Ids {
        self.ids.map_or_else(Ids::default, |m| Ids::mapped(m.base, m.size))
    }

    /// The image as one read-only tree. On the thread that does the work.
    pub(super) fn lower(&self) -> Result<OwnedFd, Error> {
        view::private()?;
        Ok(view::lower(&self.layers.paths)?)
    }

    /// The writable layer on this host; it is not there before the first run.
    pub(super) fn upper(&self) -> PathBuf {
        self.state_dir.join("upper")
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.handle.clone(), self.hold.clone())
    }

    /// The user and group it runs as, looked up in its own files.
    pub(super) fn user(&self, root: BorrowedFd<'_>) -> Result<Owner, Error> {
        let spec = self.object.spec.containers.first();
        let wished = spec.and_then(|c| c.user.as_deref()).unwrap_or_default();
        let user = if wished.is_empty() {
            &self.record.config.user
        } else {
            wished
        };
        if user.is_empty() {
            return Ok(Owner::Fixed(0, 0));
        }
        let id = view::user(root, user).map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(Owner::Fixed(id.0, id.1))
    }
}

impl Files {
    /// Finds an instance's files: waits for one that starts or ends at this moment.
    pub(super) async fn source(&self, namespace: &str, name: &str) -> Result<Source, Error> {
        let permit = self.permit().await?;
        let deadline = Instant::now() + SETTLING;
        loop {
            let object = self.kept(namespace, name).await?;
            match prepare::files_of(object.spec.isolation) {
                FilesOf::Outside => {}
                FilesOf::Inside => {
                    let message = format!("instance {name} became another isolation at this moment: try again");
                    return Err(Error::State(message));
                }
                FilesOf::Nobody(why) => return Err(Error::Unsupported(format!("instance {name} {why}"))),
            }
            if let Some(source) = self.try_source(object).await? {
                return Ok(Source {
                    _permit: Some(permit),
                    ..source
                });
            }
            if Instant::now() > deadline {
                let message = format!("instance {name} neither runs nor rests: try again when it does");
                return Err(Error::State(message));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An instance that is not about to go.
    pub(super) async fn kept(&self, namespace: &str, name: &str) -> Result<Object<Instance>, Error> {
        let object = self.object(namespace, name).await?;
        match object.is_deleting() {
            true => Err(Error::State(format!("instance {name} is being removed"))),
            false => Ok(object),
        }
    }

    async fn try_source(&self, object: Object<Instance>) -> Result<Option<Source>, Error> {
        let (engine, uid) = (&self.engine, object.uid().to_owned());
        let status = object.status_or_default();
        if status.image_id.is_empty() {
            return match (status.phase, object.spec.power) {
                (Phase::Failed, _) => Err(Error::State(status.message)),
                _ => Ok(None),
            };
        }
        let record = engine.image_of(&status)?;
        let hold = Arc::new(engine.runs.hold(&uid).await);
        // Its removal waits for this hold; one that was there before the hold did not.
        let (namespace, name) = (object.metadata.namespace.as_deref().unwrap_or_default(), object.name());
        if self.kept(namespace, name).await?.uid() != uid {
            return Ok(None);
        }
        if !hold.is_running() {
            let layers = self.layers(&record)?;
            let container = prepare::at_rest(engine, &object, &record, &layers.user).await?;
            let container = Box::new(Container {
                layers: container.layers.into_iter().zip(&layers.paths).map(mounted).collect(),
                ..container
            });
            let root = Root::Stopped {
                container,
                run_dir: prepare::of_main(engine.layout.run_dir(&uid), &object),
            };
            return Ok(Some(self.found(object, record, root, hold, layers)));
        }
        let Some(root) = self.running_root(&object).await? else {
            return Ok(None);
        };
        let layers = self.layers(&record)?;
        Ok(Some(self.found(object, record, Root::Running(root), hold, layers)))
    }

    fn found(
        &self,
        object: Object<Instance>,
        record: ImageRecord,
        root: Root,
        hold: Arc<Hold>,
        layers: InUse,
    ) -> Source {
        Source {
            state_dir: prepare::of_main(self.engine.layout.state_dir(object.uid()), &object),
            ids: match &root {
                // On disk, and so in a mount of our own, all ids are the instance's.
                Root::Stopped { .. } => None,
                Root::Running(_) => self.engine.ids_of(object.uid()),
            },
            handle: tokio::runtime::Handle::current(),
            _permit: None,
            object,
            record,
            root,
            hold,
            layers,
        }
    }

    /// Layers mounted for this piece of work, under a user of its own.
    fn layers(&self, record: &ImageRecord) -> Result<InUse, Error> {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut used = InUse {
            mounts: self.engine.mounts.clone(),
            user: format!("files {number}"),
            paths: Vec::new(),
        };
        let mounted = used.mounts.mount_all(&record.layers, &used.user);
        used.paths = mounted.map_err(|e| Error::Failed(e.to_string()))?;
        Ok(used)
    }

    /// The root of a running container. Between learning its process id and opening its root the container may end and the
    /// id go to another process: so its shim is asked once more, which has not reaped a process that it says it runs.
    async fn running_root(&self, object: &Object<Instance>) -> Result<Option<OwnedFd>, Error> {
        let Some(pid) = self.engine.first_process(object).await? else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) else {
            return Ok(None);
        };
        let again = self.engine.first_process(object).await?;
        Ok((again == Some(pid)).then_some(root))
    }
}

fn mounted((layer, at): (biga_wire::config::Layer, &PathBuf)) -> biga_wire::config::Layer {
    biga_wire::config::Layer {
        mount: Some(at.clone()),
        ..layer
    }
}

/// Whether it runs by the user's wish and is not frozen by him.
pub(super) fn may_be_frozen(object: &Object<Instance>) -> bool {
    object.status_or_default().phase == Phase::Running && object.spec.power != Power::Paused
}
