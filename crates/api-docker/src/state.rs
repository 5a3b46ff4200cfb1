//! What every handler holds.

use std::sync::Arc;

use biga_model::{DEFAULT_NAMESPACE, Image, Instance, Kind, Network, Volume};
use biga_store::{Objects, SpecWriter, Store};

use crate::attaches::Attaches;
use crate::backend::Backend;
use crate::error::Result;
use crate::events::Hub;
use crate::execs::Execs;
use crate::lookup::ConfigCache;
use crate::seen::{Known, Seen, Surroundings};

/// What `version` and `info` say of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// Identity of this daemon, stable over restarts.
    pub id: String,
    /// Biga's version.
    pub version: String,
    /// Commit it was built of; empty where unknown.
    pub commit: String,
    /// Kernel release.
    pub kernel: String,
    /// Distribution, for people.
    pub os: String,
    /// Version of the distribution.
    pub os_version: String,
    /// Processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// 1 or 2: version of the cgroup hierarchy that holds the controllers.
    pub cgroup_version: u8,
    /// Where state is kept.
    pub state_dir: String,
    /// Whether microvms can run here.
    pub microvms: bool,
    /// Whether its kernel shares realtime of processors among control groups.
    pub realtime: bool,
}

fn about(node: &NodeInfo) -> biga_buildkit::About {
    biga_buildkit::About {
        version: node.version.clone(),
        revision: node.commit.clone(),
        id: node.id.clone(),
        os: "linux".into(),
        architecture: docker_arch().into(),
    }
}

/// Docker's word for this processor.
pub(crate) fn docker_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The Docker API of one node. Cheap to clone.
#[derive(Clone)]
pub struct DockerApi {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Arc<dyn Store>,
    pub backend: Arc<dyn Backend>,
    pub node: NodeInfo,
    pub namespace: String,
    pub execs: Execs,
    pub attaches: Attaches,
    pub events: Hub,
    pub configs: ConfigCache,
    pub seen: Seen,
    pub new_instances: SpecWriter<Instance>,
    /// BuildKit's interface, where the node has a builder for it.
    pub buildkit: Option<biga_buildkit::BuildKit>,
    /// Builds that run, by the ids that clients gave them.
    pub builds: parking_lot::Mutex<std::collections::HashMap<String, tokio_util::sync::CancellationToken>>,
}

impl DockerApi {
    /// The API over a store and a node; `new_instances` makes instances. Must be called within a tokio runtime: it begins to collect
    /// events.
    pub fn new(
        store: Arc<dyn Store>,
        backend: Arc<dyn Backend>,
        node: NodeInfo,
        new_instances: SpecWriter<Instance>,
    ) -> DockerApi {
        let about = about(&node);
        let events = Hub::start(store.clone(), DEFAULT_NAMESPACE.to_string());
        let buildkit = backend.builder().map(|b| biga_buildkit::BuildKit::new(b, about));
        let inner = Inner {
            store,
            backend,
            node,
            namespace: DEFAULT_NAMESPACE.to_string(),
            execs: Execs::default(),
            attaches: Attaches::default(),
            events,
            configs: ConfigCache::default(),
            seen: Seen::default(),
            new_instances,
            buildkit,
            builds: parking_lot::Mutex::default(),
        };
        DockerApi { inner: Arc::new(inner) }
    }

    pub(crate) fn objects<K: Kind>(&self) -> Objects<K> {
        Objects::new(self.inner.store.clone())
    }

    pub(crate) fn specs<K: Kind>(&self) -> SpecWriter<K> {
        SpecWriter::new(self.inner.store.clone())
    }

    pub(crate) fn instances(&self) -> Objects<Instance> {
        self.objects()
    }

    /// All instances, as they were parsed last.
    pub(crate) async fn known(&self) -> Result<Vec<Arc<Known>>> {
        self.inner.seen.instances(&*self.inner.store, self.ns()).await
    }

    /// The instance of this name, as it was parsed last.
    pub(crate) async fn known_by_name(&self, name: &str) -> Result<Option<Arc<Known>>> {
        self.inner.seen.instance(&*self.inner.store, self.ns(), name).await
    }

    /// What documents of containers need beside them.
    pub(crate) async fn around(&self) -> Result<Arc<Surroundings>> {
        self.inner.seen.around(&self.inner.store, self.ns()).await
    }

    pub(crate) fn images(&self) -> Objects<Image> {
        self.objects()
    }

    pub(crate) fn networks(&self) -> Objects<Network> {
        self.objects()
    }

    pub(crate) fn volumes(&self) -> Objects<Volume> {
        self.objects()
    }

    pub(crate) fn ns(&self) -> &str {
        &self.inner.namespace
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.inner.backend
    }
}
