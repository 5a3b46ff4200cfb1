//! Everything on one node under the agent: images, volumes, networks, runtimes; and how they come together in a run.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use biga_image::{ImageRecord, LayerMounts};
use biga_model::{Instance, InstanceStatus, Isolation, Object, PullPolicy, parse_signal};
use biga_runtime::{Runtime, shim_client};
use biga_wire::config::{IdMap, PodContainer, ShimConfig, Workload};
use biga_wire::shim::Exit;

use crate::cdi::Cdi;
use crate::events::Recorder;
use crate::files::runs::Runs;
use crate::hypervisor::Hypervisors;
use crate::idmaps::IdMaps;
use crate::images::Images;
use crate::instance::health::{self, Check};
use crate::instance::{Failure, Host};
use crate::networks::Networks;
use crate::oci_runtimes::OciRuntimes;
use crate::volumes::Volumes;

/// Where things are and what they are called on this node.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What outlives a reboot, as `/var/lib/biga`.
    pub state: PathBuf,
    /// What does not, as `/run/biga`.
    pub run: PathBuf,
    /// Begins every name in the kernel: bridges, control groups, nft tables.
    pub prefix: String,
}

impl Layout {
    /// An instance's directory that outlives a reboot.
    pub fn state_dir(&self, uid: &str) -> PathBuf {
        self.state.join("instances").join(uid)
    }

    /// Directories of the shims of all instances.
    pub fn run_instances(&self) -> PathBuf {
        self.run.join("instances")
    }

    /// An instance's directory with its shim's socket.
    pub fn run_dir(&self, uid: &str) -> PathBuf {
        self.run_instances().join(uid)
    }

    /// The current log file of one of an instance's several containers.
    pub fn container_log(&self, uid: &str, container: &str) -> PathBuf {
        PodContainer::dir(&self.state_dir(uid), container).join("log")
    }

    /// An instance's current log file.
    pub fn log(&self, uid: &str) -> PathBuf {
        self.state_dir(uid).join("log")
    }

    /// The guest kernel of microvms.
    pub fn kernel(&self) -> PathBuf {
        self.state.join("kernel")
    }
}

/// The engine.
pub struct Engine {
    /// Where things are.
    pub layout: Layout,
    /// Images.
    pub images: Images,
    /// Layers mounted for containers.
    pub mounts: Arc<LayerMounts>,
    /// Networks.
    pub networks: Networks,
    /// Volumes.
    pub volumes: Volumes,
    /// QEMU and what belongs to it.
    pub hypervisors: Hypervisors,
    /// Tells people.
    pub events: Recorder,
    /// User ids of instances that have their own.
    pub idmaps: IdMaps,
    /// Other OCI runtimes that containers can name.
    pub oci: OciRuntimes,
    /// Devices that vendors describe on this node.
    pub cdi: Cdi,
    /// Keeps runs and work on the files of what does not run apart.
    pub runs: Runs,
    runtimes: HashMap<Isolation, Arc<dyn Runtime>>,
}

impl Engine {
    /// Puts the parts together; `shim` is an open file with the shim's program.
    pub fn new(
        layout: Layout,
        images: Images,
        mounts: Arc<LayerMounts>,
        networks: Networks,
        volumes: Volumes,
        events: Recorder,
        shim: Arc<OwnedFd>,
    ) -> Engine {
        let runtime = |i: Isolation| -> Arc<dyn Runtime> {
            Arc::new(shim_client::ShimRuntime::new(i, layout.run_instances(), shim.clone()))
        };
        let runtimes = Isolation::ALL.into_iter().map(|i| (i, runtime(i))).collect();
        let hypervisors = Hypervisors::new(layout.state.clone());
        let idmaps = IdMaps::new(layout.state.join("instances"), shim);
        Engine {
            layout,
            images,
            mounts,
            networks,
            volumes,
            hypervisors,
            events,
            idmaps,
            oci: OciRuntimes::default(),
            cdi: Cdi::default(),
            runs: Runs::default(),
            runtimes,
        }
    }

    /// The same, with other OCI runtimes than those that are installed.
    pub fn with_runtimes(self, oci: OciRuntimes) -> Engine {
        Engine { oci, ..self }
    }

    /// The same, with other directories for documents of devices.
    pub fn with_devices(self, cdi: Cdi) -> Engine {
        Engine { cdi, ..self }
    }

    /// The images of an instance: of its containers in their order, init containers first, or of its disk. Their ids are noted
    /// in the status.
    async fn images(
        &self,
        object: &Object<Instance>,
        status: &mut InstanceStatus,
    ) -> Result<Vec<ImageRecord>, Failure> {
        let s = &object.spec;
        let mut wanted: Vec<(&str, PullPolicy)> = s
            .all_containers()
            .map(|c| (s.image_of(c), c.image_pull_policy.unwrap_or(s.image_pull_policy)))
            .collect();
        if wanted.is_empty() {
            wanted.push((&s.image, s.image_pull_policy));
        }
        let mut records: Vec<ImageRecord> = Vec::new();
        for (i, (image, policy)) in wanted.iter().enumerate() {
            // The same for two containers is asked for once.
            let known = wanted[..i].iter().position(|w| w == &(*image, *policy));
            records.push(match known {
                Some(at) => records[at].clone(),
                None => self.images.resolve(image, *policy, s.isolation).await?,
            });
        }
        let main = records.get(s.init_containers.len()).map(|r| r.image_id.to_string());
        status.image_id = main.unwrap_or_default();
        let ids: Vec<String> = records.iter().map(|r| r.image_id.to_string()).collect();
        crate::instance::pod::note_images(s, &ids, status);
        status.volume_image_ids.clear();
        for image in s.volumes.iter().filter_map(|v| v.image.as_deref()) {
            let record = self.images.resolve(image, s.image_pull_policy, s.isolation).await?;
            status.volume_image_ids.push(record.image_id.to_string());
        }
        Ok(records)
    }

    /// The image that an instance was last run from.
    pub fn image_of(&self, status: &InstanceStatus) -> Result<ImageRecord, Failure> {
        let missing = |e: biga_image::Error| Failure::new("ImageNotPresent", e.to_string());
        self.images
            .files()
            .get(&status.image_id.parse().map_err(missing)?)
            .map_err(missing)
    }

    /// The ids on this host of an instance's users, where its run was given ids of its own.
    pub(crate) fn ids_of(&self, uid: &str) -> Option<IdMap> {
        match shim_client::read_config(&self.layout.run_dir(uid))?.workload {
            Workload::Container(c) => c.namespaces.user,
            _ => None,
        }
    }

    /// The control group that an instance's run was given.
    pub(crate) fn group_of(&self, uid: &str) -> String {
        let config = shim_client::read_config(&self.layout.run_dir(uid));
        config.map_or_else(|| format!("{}/{uid}", self.layout.prefix), |c| c.cgroup)
    }

    /// Below which control groups that of an instance can be: the daemon's own, and the one that its last run was given.
    fn group_prefixes(&self, uid: &str) -> Vec<String> {
        let mut all = vec![self.layout.prefix.clone()];
        let last = shim_client::read_config(&self.layout.run_dir(uid)).map(|c| c.cgroup);
        if let Some((prefix, _)) = last.as_deref().and_then(|c| c.rsplit_once('/'))
            && prefix != self.layout.prefix
        {
            all.push(prefix.to_owned());
        }
        all
    }

    /// The images that an instance was last run from, those that are here.
    pub fn images_of(&self, status: &InstanceStatus) -> Vec<ImageRecord> {
        let files = self.images.files();
        let get = |id: &str| files.get(&id.parse().ok()?).ok();
        status.image_ids().filter_map(get).collect()
    }

    pub(crate) fn make_dirs(&self, uid: &str) -> Result<(), Failure> {
        for dir in [self.layout.state_dir(uid), self.layout.run_dir(uid)] {
            private_dir(&dir)?;
        }
        Ok(())
    }
}

/// Makes a directory that only root may look into.
pub fn private_dir(dir: &Path) -> Result<(), Failure> {
    make_dir(dir, 0o700)
}

/// Makes a directory that others may pass through to what they know is there (the sockets), and not list.
pub fn passage_dir(dir: &Path) -> Result<(), Failure> {
    make_dir(dir, 0o711)
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|e| Failure::new("StateFailed", format!("cannot make {}: {e}", dir.display())))
}

#[async_trait]
impl Host for Engine {
    async fn fetch(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<(), Failure> {
        self.images(object, status).await?;
        for v in &object.spec.volumes {
            if let Some(name) = &v.volume {
                let ns = object.metadata.namespace.as_deref().unwrap_or_default();
                self.volumes.resolve(ns, name).await?;
            }
        }
        Ok(())
    }

    async fn prepare(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<ShimConfig, Failure> {
        let records = self.images(object, status).await?;
        status.accelerator = String::new();
        self.make_dirs(object.uid())?;
        for message in crate::translate::left_out(object) {
            self.events.record(object, true, "LeftOut", &message);
        }
        self.runs.begin(object.uid()).await;
        let result = crate::prepare::run(self, object, status, &records).await;
        if result.is_err() {
            self.after_run(object.uid()).await;
        }
        result
    }

    async fn after_run(&self, uid: &str) {
        // A shim that was killed could not do this itself.
        for prefix in self.group_prefixes(uid) {
            if let Err(e) = biga_container::cgroup::clear(&prefix, uid) {
                tracing::warn!(uid, "its control group stays: {e}");
            }
        }
        self.networks.disconnect(uid).await;
        if let Err(e) = self.mounts.release(uid) {
            tracing::warn!(uid, "layers stay mounted: {e}");
        }
        self.runs.end(uid);
    }

    async fn remove(&self, uid: &str) {
        self.runs.forget(uid).await;
        self.networks.release(uid).await;
        if let Err(e) = self.mounts.release(uid) {
            tracing::warn!(uid, "layers stay mounted: {e}");
        }
        for prefix in self.group_prefixes(uid).iter().skip(1) {
            biga_container::cgroup::prune(prefix);
        }
        self.idmaps.release(uid);
        for dir in [self.layout.run_dir(uid), self.layout.state_dir(uid)] {
            if let Err(e) = std::fs::remove_dir_all(&dir)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(uid, "{} stays: {e}", dir.display());
            }
        }
    }

    fn restore(&self, name: &str, config: &mut ShimConfig) -> Result<(), Failure> {
        crate::checkpoints::restore(&self.layout, name, config)
    }

    fn last_exit(&self, uid: &str) -> Option<Exit> {
        shim_client::read_exit(&self.layout.run_dir(uid))
    }

    fn last_exit_of(&self, uid: &str, container: &str) -> Option<Exit> {
        shim_client::read_exit(&PodContainer::dir(&self.layout.run_dir(uid), container))
    }

    async fn fresh_root(&self, uid: &str, container: &str) -> Result<(), Failure> {
        let dir = PodContainer::dir(&self.layout.state_dir(uid), container);
        let emptied = tokio::task::spawn_blocking(move || {
            for name in ["upper", "work"] {
                match std::fs::remove_dir_all(dir.join(name)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err((dir, e)),
                    _ => {}
                }
            }
            Ok(())
        });
        let failed = |why: String| Failure::new("StateFailed", why);
        match emptied.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((dir, e))) => Err(failed(format!("cannot empty {}: {e}", dir.display()))),
            Err(e) => Err(failed(format!("emptying its root crashed: {e}"))),
        }
    }

    fn stop_signal(&self, object: &Object<Instance>, status: &InstanceStatus) -> i32 {
        let wished = object.spec.stop.signal.clone();
        let image = || self.image_of(status).ok()?.config.stop_signal;
        let system = object.spec.containers.first().is_some_and(|c| c.system);
        let usual = if system { crate::translate::SYSTEM_STOP } else { 15 };
        wished
            .or_else(image)
            .and_then(|s| parse_signal(&s).ok())
            .unwrap_or(usual)
    }

    async fn follow_networks(&self, object: &Object<Instance>, status: &mut InstanceStatus) -> Result<(), Failure> {
        self.networks.follow_spec(object, status).await
    }

    fn health_check(&self, object: &Object<Instance>, status: &InstanceStatus) -> Option<Check> {
        let spec = object.spec.containers.first()?.health_check.as_ref();
        let config = self.image_of(status).ok().map(|r| r.config).unwrap_or_default();
        health::check(spec, config.healthcheck.as_ref(), &config.shell)
    }

    fn runtime(&self, isolation: Isolation) -> Arc<dyn Runtime> {
        self.runtimes[&isolation].clone()
    }

    fn event(&self, object: &Object<Instance>, warning: bool, reason: &str, message: &str) {
        self.events.record(object, warning, reason, message);
    }
}
