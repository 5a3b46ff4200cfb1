//! The node loop: takes what is wanted from the store, makes it so on this host, and writes down what it sees.
//!
//! ```text
//!            store ──objects──► manager ──► one task an instance ──steps──► engine ──► image, volume, network
//!              ▲                                  │                           │
//!              └────────────status────────────────┘                      runtime ──► shim ──► process or QEMU
//! ```
//!
//! - [`instance`]: plan, task and manager of instances
//! - [`prepare`]: the one place where isolations part; [`translate`]: what needs no more than other words
//! - [`engine`]: everything on the node, put together
//! - [`images`], [`volumes`], [`networks`]: what instances stand on, each following its own kind
//! - `follow`: how the objects of a kind are followed
//! - [`idmaps`]: user ids of instances that have their own
//! - [`oci_runtimes`]: other runtimes that containers can name
//! - [`hypervisor`]: QEMU, guest kernel, disks and seeds of machines
//! - [`streams`], [`logs`]: the way round the store
//! - [`files`]: files of instances, in and out, and images made of them
//! - [`checkpoints`]: running containers saved, and going on from there
//! - [`node`], [`probe`]: what this host offers
//! - `links`, `log_sink`: what links are told by, and who else gets the lines of a log
//! - [`events`]: telling people

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use biga_image::{ImageStore, LayerMounts};
use biga_model::{Instance, Isolation, Object};
use biga_net::Net;
use biga_store::Store;
use biga_store::typed::Objects;
use tokio::task::JoinSet;

pub mod cdi;
pub mod checkpoints;
pub mod engine;
pub mod events;
pub mod files;
mod follow;
pub mod hypervisor;
pub mod idmaps;
pub mod images;
pub mod instance;
mod links;
mod local_mounts;
mod log_sink;
pub mod logs;
pub mod networks;
pub mod node;
pub mod oci_runtimes;
mod places;
pub mod prepare;
pub mod probe;
mod rewire;
mod sharing;
pub mod streams;
pub mod translate;
pub mod volumes;

use engine::{Engine, Layout};
use events::Recorder;
use files::Files;
use images::Images;
use instance::Host;
use instance::manager::Manager;
use networks::Networks;
use oci_runtimes::OciRuntimes;
use streams::Streams;
use volumes::Volumes;

/// What an agent is started with.
pub struct Options {
    /// Name of this node.
    pub node: String,
    /// Where things are.
    pub layout: Layout,
    /// The shim's program, an open file.
    pub shim: Arc<OwnedFd>,
    /// The guest's init program.
    pub guest: &'static [u8],
    /// How images are fetched.
    pub images: biga_image::Options,
    /// More OCI runtimes that instances can name, and where they are.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Where vendors describe their devices.
    pub cdi: cdi::Cdi,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory of its own.
    #[error("{0}")]
    State(#[from] instance::Failure),
    /// The image store.
    #[error("cannot open the images: {0}")]
    Images(#[from] biga_image::Error),
    /// The layer mounts.
    #[error("cannot mount layers: {0}")]
    Mounts(#[source] biga_image::mounts::Error),
    /// The network side.
    #[error("cannot set up networks: {0}")]
    Net(#[from] biga_net::Error),
    /// The store.
    #[error("cannot read the store: {0}")]
    Store(#[from] biga_store::typed::Error),
}

/// A running agent. Dropping it stops its tasks and nothing else: instances live on.
pub struct Agent {
    engine: Arc<Engine>,
    streams: Streams,
    files: Files,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Opens everything and answers at once. Behind that it takes over what runs, sweeps what nobody owns, and follows
    /// the store from then on.
    pub async fn start(options: Options, store: Arc<dyn Store>) -> Result<Agent, Error> {
        let layout = options.layout;
        engine::passage_dir(&layout.run)?;
        // Layers hold set-user-id programs of other systems: nobody may run them from here.
        let layers = layout.run.join("layers");
        for dir in [
            &layout.state,
            &layers,
            &layout.run_instances(),
            &layout.state.join("instances"),
        ] {
            engine::private_dir(dir)?;
        }
        let node = node::Writer::new(options.node.clone(), store.clone());
        let runtimes = OciRuntimes::new(options.runtimes)?;
        let status = biga_model::NodeStatus {
            runtimes: runtimes.installed(),
            ..node::first_status()
        };
        node.write(&status).await?;

        let mut tasks = JoinSet::new();
        let (events, recording) = Recorder::new(store.clone());
        tasks.spawn(recording);
        let by_loop = options.images.loop_devices;
        let files = ImageStore::open(&layout.state.join("images"), options.images)?;
        let images = Images::new(files, store.clone(), events.clone());
        let mounts = LayerMounts::with(&layout.run, by_loop).map_err(Error::Mounts)?;
        let net = Net::new(biga_net::Config::new(&layout.prefix, &layout.run))?;
        let networks = Networks::new(net, store.clone(), events.clone());
        let volumes = Volumes::new(layout.state.join("volumes"), store.clone(), events.clone());
        let engine = Engine::new(layout, images, mounts, networks, volumes, events, options.shim);
        let engine = Arc::new(engine.with_runtimes(runtimes).with_devices(options.cdi));
        // The API need not wait for this; instances do.
        let (working, at, guest) = (engine.clone(), store.clone(), options.guest);
        tasks.spawn(async move {
            if let Err(e) = take_over(&working, &at).await {
                tracing::error!("not all of what runs could be taken over: {e}");
            }
            tokio::join!(
                working.images.clone().run(),
                working.volumes.clone().run(),
                working.networks.clone().run(),
                Manager::new(options.node, working.clone(), at).run(),
                look_around(working.clone(), node, status, guest),
            );
        });
        let streams = Streams::new(engine.clone(), store.clone());
        let files = Files::new(engine.clone(), store);
        Ok(Agent {
            engine,
            streams,
            files,
            _tasks: tasks,
        })
    }

    /// The streaming path.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Files of instances.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

/// What runs gets back what it needs; what nobody owns goes.
async fn take_over(engine: &Arc<Engine>, store: &Arc<dyn Store>) -> Result<(), Error> {
    engine.networks.start().await?;
    let instances: Vec<Object<Instance>> = Objects::new(store.clone()).list(None).await?.items;
    let uids: HashSet<String> = instances.iter().map(|o| o.metadata.uid.clone()).collect();
    for o in instances.iter().filter(|o| o.status_or_default().phase.is_live()) {
        if let Err(f) = prepare::readopt(engine, o).await {
            tracing::warn!(instance = %o.metadata.name, "not all of it could be taken over: {f}");
        }
    }
    for dir in [engine.layout.run_instances(), engine.layout.state.join("instances")] {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !uids.contains(&uid) {
                tracing::info!(uid, "nobody owns this instance any more: it is removed");
                let runtime = engine.runtime(biga_model::Isolation::Container);
                if let Err(e) = runtime.delete(&uid).await {
                    tracing::warn!(uid, "its shim stays: {e}");
                }
                engine.remove(&uid).await;
            }
        }
    }
    let live: Vec<&str> = uids.iter().map(String::as_str).collect();
    if let Err(e) = biga_container::sweep(&engine.layout.prefix, &live) {
        tracing::warn!("leftovers of control groups stay: {e}");
    }
    if let Err(e) = engine.networks.net().sweep(&uids).await {
        tracing::warn!("leftovers of networks stay: {e}");
    }
    if let Err(e) = engine.mounts.sweep() {
        tracing::warn!("leftovers of layers stay mounted: {e}");
    }
    Ok(())
}

/// Looks at the host: at once without the trial of KVM, which takes seconds, then with it; and again whenever
/// `biga setup` has put a guest kernel in place.
async fn look_around(engine: Arc<Engine>, writer: node::Writer, status: biga_model::NodeStatus, guest: &'static [u8]) {
    let kernel = engine.layout.kernel();
    let mut changes = match engine::private_dir(&kernel).map(|()| logs::Watcher::new(&kernel.join("meta.json"))) {
        Ok(Ok(w)) => Some(w),
        _ => None,
    };
    engine.hypervisors.refresh_initrd(kernel, guest).await;
    look(&engine, &writer, &status, false).await;
    loop {
        look(&engine, &writer, &status, true).await;
        let Some(w) = &mut changes else { return };
        if w.changed().await.is_err() {
            return;
        }
    }
}

/// One look; the trial of KVM is made only once for a boot, whoever asks.
async fn look(engine: &Arc<Engine>, writer: &node::Writer, status: &biga_model::NodeStatus, with_kvm: bool) {
    let (state, hypervisors) = (engine.layout.state.clone(), engine.hypervisors.clone());
    let trial = tokio::task::spawn_blocking(move || {
        node::abilities(state, || match with_kvm {
            true => hypervisors.try_kvm(),
            false => hypervisors.known_kvm(),
        })
    });
    match trial.await {
        Ok(found) => {
            // What every user expects of a host; the others are told by `biga doctor`.
            for lacking in probe::lacking(&found, Isolation::Container).filter(|_| with_kvm) {
                tracing::warn!("this host runs no containers: {}: {}", lacking.name, lacking.detail);
            }
            if let Err(e) = writer.write(&node::with_abilities(status.clone(), found)).await {
                tracing::warn!("the node's abilities were not written: {e}");
            }
        }
        Err(e) => tracing::error!("the trials of this host crashed: {e}"),
    }
}
