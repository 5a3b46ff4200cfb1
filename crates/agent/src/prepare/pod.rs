//! An instance of several containers on its way to a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use biga_image::ImageRecord;
use biga_model::{ContainerSpec, InstanceVolume, NetworkMode};
use biga_wire::config::{Container, Mount, MountSource, Pod, PodContainer, SharedTmpfs, Workload};

use super::{Run, SHM_SIZE};
use crate::engine::private_dir;
use crate::instance::Failure;
use crate::translate;

impl Run<'_> {
    /// `records` are the images of the containers in their order.
    pub(super) async fn pod(&self, records: &[ImageRecord]) -> Result<Workload, Failure> {
        let s = &self.object.spec;
        self.make_container_dirs()?;
        let (_, netns) = self.namespaces().await?;
        let mut pod = Pod {
            main: self.spec()?.name.clone(),
            share_pids: s.share_process_namespace,
            netns,
            host_network: s.network_mode == NetworkMode::Host,
            hostname: self.hostname.clone(),
            domainname: s.domainname.clone(),
            shm_size: s.shm_size.map_or(SHM_SIZE, |m| m.bytes()),
            sysctls: s.sysctls.clone(),
            ..Pod::default()
        };
        for (spec, record) in s.all_containers().zip(records) {
            let container = self.part(spec, record).await?;
            let shared = shared_tmpfs(spec, &s.volumes, &container.mounts, &mut pod.tmpfs);
            let mut limits = translate::limits(&spec.resources);
            limits.oom_score_adj = limits.oom_score_adj.or(s.resources.oom_score_adj);
            pod.containers.push(PodContainer {
                name: spec.name.clone(),
                log: self.log(self.engine.layout.container_log(self.uid(), &spec.name)),
                limits,
                shared,
                container,
            });
        }
        no_block_volume_twice(&pod.containers)?;
        Ok(Workload::Pod(Box::new(pod)))
    }

    async fn part(&self, spec: &ContainerSpec, record: &ImageRecord) -> Result<Container, Failure> {
        let part = Run {
            engine: self.engine,
            object: self.object,
            record,
            connections: self.connections.clone(),
            hostname: self.hostname.clone(),
            runtime: None,
            part: Some(spec),
            sink: None,
            layer_user: self.layer_user.clone(),
            volume_images: self.volume_images.clone(),
        };
        let made = part.container().await.map_err(|f| Failure {
            message: format!("container {}: {}", spec.name, f.message),
            ..f
        })?;
        match made {
            Workload::Container(c) => Ok(Container {
                sysctls: BTreeMap::new(),
                ..*c
            }),
            _ => Err(Failure::new("Unsupported", "only containers can share an instance")),
        }
    }

    /// Directories of the containers there are, and of no others. What an earlier run noted of their ends goes.
    fn make_container_dirs(&self) -> Result<(), Failure> {
        let layout = &self.engine.layout;
        let names: BTreeSet<&str> = self.object.spec.all_containers().map(|c| c.name.as_str()).collect();
        let (run, state) = (layout.run_dir(self.uid()), layout.state_dir(self.uid()));
        clear(&PodContainer::dir(&run, ""), |_| false)?;
        clear(&PodContainer::dir(&state, ""), |name| names.contains(name))?;
        for name in names {
            private_dir(&PodContainer::dir(&run, name))?;
            private_dir(&PodContainer::dir(&state, name))?;
        }
        Ok(())
    }

    /// A directory that goes with the instance. Any user of a container may write there, as in Kubernetes.
    pub(super) fn empty_dir(&self, name: &str) -> Result<MountSource, Failure> {
        let parent = self.engine.layout.state_dir(self.uid()).join("empty");
        private_dir(&parent)?;
        let path = parent.join(name);
        if !path.exists() {
            fs::create_dir(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o777)))
                .map_err(|e| Failure::new("VolumeFailed", format!("cannot make {}: {e}", path.display())))?;
        }
        Ok(MountSource::Bind { path, sub_path: None })
    }
}

/// Removes what is in a directory, but for what is to be kept.
fn clear(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if keep(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        fs::remove_dir_all(&path)
            .map_err(|e| Failure::new("StateFailed", format!("cannot remove {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Which of a container's mounts are volumes in memory, which all containers see; these are noted in `all`.
fn shared_tmpfs(
    spec: &ContainerSpec,
    volumes: &[InstanceVolume],
    mounts: &[Mount],
    all: &mut BTreeMap<String, SharedTmpfs>,
) -> BTreeMap<usize, String> {
    let mut shared = BTreeMap::new();
    for (place, mount) in mounts.iter().enumerate() {
        let MountSource::Tmpfs { size, mode, options } = &mount.source else {
            continue;
        };
        let of = |v: &&InstanceVolume| {
            v.tmpfs.is_some()
                && spec
                    .volume_mounts
                    .iter()
                    .any(|m| m.name == v.name && m.mount_path == mount.target)
        };
        if let Some(volume) = volumes.iter().find(of) {
            let memory = SharedTmpfs {
                size: *size,
                mode: *mode,
                options: options.clone(),
            };
            all.insert(volume.name.clone(), memory);
            shared.insert(place, volume.name.clone());
        }
    }
    shared
}

/// Two mounts of one file system that do not know of each other would destroy it.
fn no_block_volume_twice(containers: &[PodContainer]) -> Result<(), Failure> {
    let mut seen: BTreeMap<&PathBuf, &str> = BTreeMap::new();
    for c in containers {
        for mount in &c.container.mounts {
            let MountSource::Block { path } = &mount.source else {
                continue;
            };
            if let Some(other) = seen.insert(path, &c.name) {
                let message = format!(
                    "containers {other} and {} both mount block volume {}: use a volume of mode directory, which can be shared",
                    c.name,
                    path.display()
                );
                return Err(Failure::new("VolumeFailed", message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: MountSource, target: &str) -> Mount {
        Mount {
            source,
            target: target.into(),
            read_only: false,
            copy_up: false,
            how: Default::default(),
        }
    }

    #[test]
    fn volumes_in_memory_are_found_by_where_they_are_mounted() {
        let spec: ContainerSpec = serde_json::from_value(serde_json::json!({
            "volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "m", "mountPath": "/m"}],
        }))
        .unwrap();
        let volumes: Vec<InstanceVolume> =
            serde_json::from_value(serde_json::json!([{"name": "a", "emptyDir": {}}, {"name": "m", "tmpfs": {}}]))
                .unwrap();
        let tmpfs = || MountSource::Tmpfs {
            size: Some(5),
            mode: 0o700,
            options: Vec::new(),
        };
        let bind = MountSource::Bind {
            path: "/x".into(),
            sub_path: None,
        };
        let mounts = [mount(bind, "/a"), mount(tmpfs(), "/own"), mount(tmpfs(), "/m")];
        let mut all = BTreeMap::new();
        let shared = shared_tmpfs(&spec, &volumes, &mounts, &mut all);
        assert_eq!(shared, BTreeMap::from([(2, "m".to_string())]));
        assert_eq!((all["m"].size, all["m"].mode), (Some(5), 0o700));
    }

    #[test]
    fn a_block_volume_is_one_containers() {
        let with = |name: &str, path: &str| PodContainer {
            name: name.into(),
            container: Container {
                mounts: vec![mount(MountSource::Block { path: path.into() }, "/d")],
                ..Container::default()
            },
            ..PodContainer::default()
        };
        assert!(no_block_volume_twice(&[with("a", "/1"), with("b", "/2")]).is_ok());
        let refused = no_block_volume_twice(&[with("a", "/1"), with("b", "/1")]).unwrap_err();
        assert!(refused.message.contains("a and b"), "{}", refused.message);
    }
}
