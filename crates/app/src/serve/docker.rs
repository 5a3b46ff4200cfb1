//! The Docker Engine API of this node: its streams, its name, its socket.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use biga_agent::node::first_status;
use biga_api_docker::backend::{
    Backend, BoxedIo, Building, ByteStream, Devices, Distribution, Import, LogQuery, Platform, RegistryAuth, Reporter,
    Upload,
};
use biga_api_docker::{DockerApi, Fault, FaultKind, NodeInfo};
use biga_image::ArchiveFormat;
use biga_model::NodeStatus;
use biga_server::{Options, Server, UnixOptions};
use biga_store::Store;
use biga_wire::build::Build;
use biga_wire::cache::{CacheFilter, CacheRecord};
use biga_wire::checkpoint::{Checkpoint, CheckpointWanted};
use biga_wire::files::{Change, Commit, PathStat, Put};
use biga_wire::http::{ImageResult, PruneResult};
use biga_wire::shim;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::node::{self, Credentials, Node, Rootfs};
use super::usage;

/// Groups that may use the socket; the first that exists.
const GROUPS: [&str; 2] = ["docker", "biga"];

/// The node, as the Docker API wants to see it.
struct Docker(Node);

impl From<node::Fault> for Fault {
    fn from(f: node::Fault) -> Fault {
        let kind = match f.kind {
            node::FaultKind::Invalid => FaultKind::Invalid,
            node::FaultKind::Denied => FaultKind::Unauthorized,
            node::FaultKind::Forbidden => FaultKind::Forbidden,
            node::FaultKind::NotFound => FaultKind::NotFound,
            node::FaultKind::Conflict => FaultKind::Conflict,
            node::FaultKind::Unsupported => FaultKind::Unsupported,
            node::FaultKind::Failed => FaultKind::Failed,
        };
        Fault::new(kind, f.message)
    }
}

impl From<RegistryAuth> for Credentials {
    fn from(a: RegistryAuth) -> Credentials {
        Credentials {
            username: a.username,
            password: a.password,
            identity_token: a.identity_token,
            registry_token: a.registry_token,
        }
    }
}

/// Binds the socket, so that clients can connect from now on. What a killed daemon left there is replaced. `passed` are sockets
/// that the service manager listens on; where one of them is at `path`, or no path is named, nothing else is made.
pub async fn bind(path: Option<&Path>, passed: Vec<OwnedFd>) -> anyhow::Result<Server> {
    // Docker's clients shut down their half of a connection at the end of their input, and still read ours.
    let bare = Options {
        half_close: true,
        ..Options::default()
    };
    let server = Server::bind(&bare).await?.with_passed(passed)?;
    let Some(path) = path.filter(|p| !server.paths().iter().any(|s| s == p)) else {
        return Ok(server);
    };
    let mut unix = UnixOptions::new(path);
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    unix.group = group(&groups).map(String::from);
    let server = server.with_unix(&unix);
    server.context("cannot serve the Docker API (--docker-socket none does without)")
}

/// The group that gets the socket, out of the text of `/etc/group`.
fn group(file: &str) -> Option<&'static str> {
    let is_there = |name: &&str| file.lines().any(|l| l.split(':').next() == Some(*name));
    GROUPS.into_iter().find(is_there)
}

/// The routes of the Docker API.
pub fn router(store: Arc<dyn Store>, node: Node, name: &str, state: &Path) -> axum::Router {
    let info = NodeInfo {
        name: name.into(),
        // Of the place where the objects are kept, so that it stays over restarts.
        id: format!("{name}:{}", state.display()),
        state_dir: state.display().to_string(),
        ..info_of(first_status())
    };
    let instances = super::instances(&store);
    biga_api_docker::router(DockerApi::new(store, Arc::new(Docker(node)), info, instances))
}

fn info_of(s: NodeStatus) -> NodeInfo {
    NodeInfo {
        version: s.version,
        kernel: s.kernel,
        os: s.os,
        cpus: s.cpus,
        memory: s.memory,
        cgroup_version: if s.cgroup.contains('2') { 2 } else { 1 },
        // Whether one can be started now is said when one is: by then a guest kernel may have come.
        microvms: true,
        realtime: Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists(),
        ..NodeInfo::default()
    }
}

/// What an import says of the image beside its files.
fn rootfs(wanted: &Import) -> Result<Rootfs, String> {
    let mut config = serde_json::Map::new();
    for instruction in &wanted.changes {
        biga_dockerfile::config::apply_text(&mut config, instruction).map_err(|e| e.to_string())?;
    }
    Ok(Rootfs {
        config: serde_json::from_value(config.into()).map_err(|e| e.to_string())?,
        platform: wanted.platform.as_deref().map(str::parse).transpose()?,
        comment: wanted.message.clone(),
        created: Some(biga_model::Timestamp::now().to_string()),
    })
}

#[async_trait]
impl Backend for Docker {
    async fn open(&self, namespace: &str, name: &str, first: shim::Request) -> Result<BoxedIo, Fault> {
        Ok(Box::new(self.0.open(namespace, name, &first).await?))
    }

    async fn logs(&self, namespace: &str, name: &str, query: LogQuery) -> Result<ByteStream, Fault> {
        let query = node::LogQuery {
            container: None,
            follow: query.follow,
            tail: query.tail,
            since: query.since,
            until: query.until,
            stdout: query.stdout,
            stderr: query.stderr,
            timestamps: query.timestamps,
            details: query.details,
            frames: true,
        };
        let bytes = self.0.logs(namespace, name, query).await?;
        Ok(bytes.map(|b| b.map_err(Fault::from)).boxed())
    }

    async fn stats(
        &self,
        namespace: &str,
        name: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<shim::Stats, Fault>>, Fault> {
        let samples = self.0.stats(namespace, name, None, stream).await?;
        Ok(samples.map(|s| s.map_err(Fault::from)).boxed())
    }

    async fn signal(&self, namespace: &str, name: &str, signal: i32) -> Result<(), Fault> {
        Ok(self.0.signal(namespace, name, None, signal).await?)
    }

    async fn pids(&self, namespace: &str, name: &str) -> Result<Vec<u32>, Fault> {
        Ok(self.0.pids(namespace, name).await?)
    }

    fn runtimes(&self) -> Vec<(String, String)> {
        self.0.runtimes()
    }

    fn devices(&self) -> Devices {
        let cdi = self.0.cdi();
        let found = cdi.found();
        Devices {
            dirs: cdi.dirs().iter().map(|d| d.display().to_string()).collect(),
            devices: found.devices,
            warnings: found.warnings,
        }
    }

    async fn image_config(&self, reference: &str) -> Result<serde_json::Value, Fault> {
        Ok(self.0.image_config(reference).await?)
    }

    async fn image_load(
        &self,
        archive: Upload,
        platform: Option<&str>,
        _report: Reporter,
    ) -> Result<ImageResult, Fault> {
        Ok(self.0.load(archive, platform).await?)
    }

    async fn image_save(&self, references: &[String]) -> Result<ByteStream, Fault> {
        let bytes = self.0.save(references, ArchiveFormat::Docker).await?;
        Ok(bytes.map(|b| b.map_err(Fault::from)).boxed())
    }

    async fn image_import(&self, wanted: Import, mut content: Upload, _report: Reporter) -> Result<ImageResult, Fault> {
        let rootfs = match rootfs(&wanted) {
            Ok(r) => r,
            Err(e) => {
                // A client that is cut off while it sends does not see the answer.
                while let Some(Ok(_)) = content.next().await {}
                return Err(Fault::new(FaultKind::Invalid, e));
            }
        };
        let what = node::Import::Rootfs(Box::new(rootfs));
        let content = match &wanted.address {
            Some(address) => self.0.fetch(address).await?,
            None => content,
        };
        Ok(self.0.import(wanted.reference.as_deref(), what, content).await?)
    }

    async fn image_push(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        report: Reporter,
    ) -> Result<ImageResult, Fault> {
        let auth = auth.map(Credentials::from);
        let push = self
            .0
            .push(reference, reference, false, auth, move |p| report.progress(p));
        Ok(push.await?)
    }

    async fn image_tag(&self, reference: &str, target: &str) -> Result<ImageResult, Fault> {
        Ok(self.0.tag(reference, target).await?)
    }

    async fn prune(&self, _report: Reporter) -> Result<PruneResult, Fault> {
        Ok(self.0.prune().await?)
    }

    async fn usage(&self, paths: Vec<String>) -> Vec<u64> {
        let n = paths.len();
        let measure = move || paths.iter().map(|p| usage::of(Path::new(p))).collect();
        tokio::task::spawn_blocking(measure)
            .await
            .unwrap_or_else(|_| vec![0; n])
    }

    async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: RegistryAuth,
        report: Reporter,
    ) -> Result<ImageResult, Fault> {
        let pull = self.0.pull(reference, platform, false, Some(auth.into()), move |p| {
            report.progress(p)
        });
        Ok(pull.await?)
    }

    async fn files_stat(&self, namespace: &str, name: &str, path: &str) -> Result<PathStat, Fault> {
        Ok(self.0.files_stat(namespace, name, path).await?)
    }

    async fn files_read(&self, namespace: &str, name: &str, path: &str) -> Result<(PathStat, ByteStream), Fault> {
        let (stat, bytes) = self.0.files_read(namespace, name, path).await?;
        Ok((stat, bytes.map(|b| b.map_err(Fault::from)).boxed()))
    }

    async fn files_write(&self, namespace: &str, name: &str, path: &str, put: Put, tar: Upload) -> Result<(), Fault> {
        Ok(self.0.files_write(namespace, name, path, put, tar).await?)
    }

    async fn changes(&self, namespace: &str, name: &str) -> Result<Vec<Change>, Fault> {
        Ok(self.0.changes(namespace, name).await?)
    }

    async fn export(&self, namespace: &str, name: &str) -> Result<ByteStream, Fault> {
        let bytes = self.0.export(namespace, name).await?;
        Ok(bytes.map(|b| b.map_err(Fault::from)).boxed())
    }

    async fn checkpoint(&self, namespace: &str, name: &str, wanted: CheckpointWanted) -> Result<(), Fault> {
        Ok(self.0.checkpoint(namespace, name, wanted).await?)
    }

    async fn checkpoints(&self, namespace: &str, name: &str) -> Result<Vec<Checkpoint>, Fault> {
        Ok(self.0.checkpoints(namespace, name).await?)
    }

    async fn checkpoint_remove(&self, namespace: &str, name: &str, checkpoint: &str) -> Result<(), Fault> {
        Ok(self.0.checkpoint_remove(namespace, name, checkpoint).await?)
    }

    async fn commit(&self, namespace: &str, name: &str, commit: Commit) -> Result<ImageResult, Fault> {
        Ok(self.0.commit(namespace, name, commit).await?)
    }

    async fn build_prepare(
        &self,
        build: Build,
        auths: BTreeMap<String, RegistryAuth>,
        context: Upload,
    ) -> Result<Box<dyn Building>, Fault> {
        let auths = auths.into_iter().map(|(k, a)| (k, a.into()));
        Ok(Box::new(self.0.build_prepare(build, auths, context).await?))
    }

    fn builder(&self) -> Option<Arc<dyn biga_buildkit::Engine>> {
        Some(Arc::new(super::buildkit::Kit(self.0.clone())))
    }

    async fn build_cache(&self) -> Result<Vec<CacheRecord>, Fault> {
        Ok(self.0.build_cache().await?)
    }

    async fn build_prune(&self, filter: CacheFilter) -> Result<PruneResult, Fault> {
        Ok(self.0.build_prune(&filter).await?)
    }

    async fn login(&self, auth: RegistryAuth) -> Result<String, Fault> {
        let server = auth.server_address.clone();
        self.0.login(&server, auth.into()).await?;
        // Registries that would give a token in the password's place are asked with the password each time.
        Ok(String::new())
    }

    async fn distribution(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Distribution, Fault> {
        let found = self.0.remote(reference, auth.map(Credentials::from)).await?;
        let platform = |p: biga_image::Platform| Platform {
            os: p.os,
            architecture: p.architecture,
            variant: p.variant.unwrap_or_default(),
        };
        Ok(Distribution {
            media_type: found.media_type,
            digest: found.digest,
            size: found.size,
            platforms: found.platforms.into_iter().map(platform).collect(),
        })
    }

    async fn tags(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Vec<String>, Fault> {
        Ok(self.0.tags(reference, auth.map(Credentials::from)).await?)
    }

    async fn layer_sizes(&self, reference: &str) -> Result<Vec<u64>, Fault> {
        let detail = self.0.detail(reference).await?;
        Ok(detail.layers.iter().map(|l| l.size).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_own_group_comes_first() {
        assert_eq!(group("root:x:0:\nbiga:x:7:\ndocker:x:9:ann\n"), Some("docker"));
        assert_eq!(group("root:x:0:\nbiga:x:7:\n"), Some("biga"));
        assert_eq!(group("root:x:0:\ndockers:x:7:docker\n"), None);
    }
}
