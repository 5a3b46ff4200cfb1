//! Binds, mounts, tmpfs and anonymous volumes → the volumes of an instance.

use std::collections::BTreeMap;

use biga_model::{InstanceVolume, Memory, TmpfsSource, VolumeMount};

use super::create::{Around, size};
use crate::error::Error;
use crate::types::container::{CreateBody, Mount};
use crate::types::is_zero;

/// What becomes of all mounts.
#[derive(Debug, Default)]
pub struct Made {
    /// The instance's volumes.
    pub volumes: Vec<InstanceVolume>,
    /// Where they appear.
    pub mounts: Vec<VolumeMount>,
    /// Names of volumes that were given none.
    pub anonymous: Vec<String>,
    /// Labels of volumes made with it.
    pub labels: Vec<(String, BTreeMap<String, String>)>,
}

enum Source {
    Volume(String),
    Host(String),
    Tmpfs(TmpfsSource),
}

struct Maker<'a> {
    made: Made,
    fresh: std::slice::Iter<'a, String>,
}

/// Reads all of them. Two on the same path are refused.
pub fn volumes(body: &CreateBody, around: &Around, warnings: &mut Vec<String>) -> Result<Made, Error> {
    let h = &body.host_config;
    let mut m = Maker {
        made: Made::default(),
        fresh: around.volume_names.iter(),
    };
    for text in &h.binds {
        let (source, target, options) = split_bind(text)?;
        let read_only = bind_options(text, options, warnings)?;
        m.add(bind_source(source)?, target, read_only, None)?;
    }
    for mount in &h.mounts {
        m.mount(mount, warnings)?;
    }
    for (target, options) in &h.tmpfs {
        let (tmpfs, read_only) = tmpfs_options(options, warnings)?;
        m.add(Source::Tmpfs(tmpfs), target, read_only, None)?;
    }
    for target in body.volumes.keys() {
        // Old clients name here what they also bind.
        let taken = m.made.mounts.iter().any(|v| same_path(&v.mount_path, target));
        match target.contains(':') {
            true => {
                return Err(Error::bad(format!(
                    "invalid volume {target:?}: a path inside the container is expected"
                )));
            }
            false if taken => {}
            false => m.anonymous(target, false, None)?,
        }
    }
    Ok(m.made)
}

impl Maker<'_> {
    fn add(&mut self, source: Source, target: &str, read_only: bool, sub_path: Option<String>) -> Result<(), Error> {
        if !target.starts_with('/') || target.trim_end_matches('/').is_empty() {
            return Err(Error::bad(format!(
                "invalid mount config: invalid mount path: '{target}' mount path must be absolute"
            )));
        }
        if self.made.mounts.iter().any(|m| same_path(&m.mount_path, target)) {
            return Err(Error::bad(format!("Duplicate mount point: {target}")));
        }
        let name = format!("v{}", self.made.volumes.len());
        let mut volume = InstanceVolume {
            name: name.clone(),
            ..InstanceVolume::default()
        };
        match source {
            Source::Volume(v) => volume.volume = Some(v),
            Source::Host(p) => volume.host_path = Some(p),
            Source::Tmpfs(t) => volume.tmpfs = Some(t),
        }
        self.made.volumes.push(volume);
        self.made.mounts.push(VolumeMount {
            name,
            mount_path: target.into(),
            read_only,
            sub_path,
        });
        Ok(())
    }

    fn anonymous(&mut self, target: &str, read_only: bool, sub_path: Option<String>) -> Result<(), Error> {
        let name = self
            .fresh
            .next()
            .cloned()
            .ok_or_else(|| Error::bad("too many volumes without a name"))?;
        self.made.anonymous.push(name.clone());
        self.add(Source::Volume(name), target, read_only, sub_path)
    }

    fn mount(&mut self, m: &Mount, warnings: &mut Vec<String>) -> Result<(), Error> {
        if let Some((k, _)) = m.rest.iter().find(|(_, v)| !is_zero(v)) {
            return Err(Error::missing(format!("mount option {k}")));
        }
        match m.kind.as_str() {
            "bind" => {
                self.check_bind(m)?;
                self.add(Source::Host(m.source.clone()), &m.target, m.read_only, None)
            }
            "volume" => {
                let o = &m.volume_options;
                driver(&o.driver_config.name, &o.driver_config.options)?;
                if o.no_copy {
                    warnings.push(format!(
                        "volume-nocopy of {} was left out: an empty volume is filled from the image",
                        m.target
                    ));
                }
                let sub = (!o.subpath.is_empty()).then(|| o.subpath.clone());
                if m.source.is_empty() {
                    return self.anonymous(&m.target, m.read_only, sub);
                }
                if !o.labels.is_empty() {
                    self.made.labels.push((m.source.clone(), o.labels.clone()));
                }
                self.add(Source::Volume(m.source.clone()), &m.target, m.read_only, sub)
            }
            "tmpfs" => {
                if !m.source.is_empty() {
                    return Err(Error::bad(
                        "invalid mount config for type \"tmpfs\": source must not be specified",
                    ));
                }
                if !m.tmpfs_options.options.is_empty() {
                    return Err(Error::missing("mount options of a tmpfs"));
                }
                let t = TmpfsSource {
                    size: super::hostconfig::bytes("SizeBytes", m.tmpfs_options.size_bytes)?,
                    mode: (m.tmpfs_options.mode != 0).then(|| format!("{:o}", m.tmpfs_options.mode)),
                };
                self.add(Source::Tmpfs(t), &m.target, m.read_only, None)
            }
            "image" | "cluster" | "npipe" => Err(Error::missing(format!("mounts of type {:?}", m.kind))),
            other => Err(Error::bad(format!("mount type unknown: {other:?}"))),
        }
    }

    fn check_bind(&self, m: &Mount) -> Result<(), Error> {
        if !m.source.starts_with('/') {
            return Err(Error::bad(format!(
                "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
                m.source
            )));
        }
        for (k, v) in m.bind_options.iter().filter(|(_, v)| !is_zero(v)) {
            match (k.as_str(), v.as_str()) {
                ("Propagation", Some("rprivate" | "private")) | ("CreateMountpoint", _) => {}
                _ => return Err(Error::missing(format!("bind option {k} {v}"))),
            }
        }
        Ok(())
    }
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// Refuses volume drivers that do not exist here.
pub fn driver(name: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
    if !matches!(name, "" | "local") {
        return Err(Error::not_found(format!(
            "error looking up volume plugin {name}: plugin \"{name}\" not found"
        )));
    }
    match options.keys().next() {
        Some(k) => Err(Error::missing(format!("option {k:?} of a local volume"))),
        None => Ok(()),
    }
}

/// `source:target`, `source:target:options`.
fn split_bind(text: &str) -> Result<(&str, &str, &str), Error> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [source, target] if !source.is_empty() => Ok((source, target, "")),
        [source, target, options] if !source.is_empty() => Ok((source, target, options)),
        _ => Err(Error::bad(format!("invalid volume specification: '{text}'"))),
    }
}

fn bind_source(source: &str) -> Result<Source, Error> {
    if source.starts_with('/') {
        return Ok(Source::Host(source.into()));
    }
    if !biga_model::kind::is_resource_name(source) {
        return Err(Error::bad(format!(
            "\"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(Source::Volume(source.into()))
}

/// Whether it is read-only.
fn bind_options(text: &str, options: &str, warnings: &mut Vec<String>) -> Result<bool, Error> {
    let mut read_only = false;
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match o {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => warnings.push(format!(
                "nocopy of {text} was left out: an empty volume is filled from the image"
            )),
            "shared" | "rshared" | "slave" | "rslave" => return Err(Error::missing(format!("mount propagation {o}"))),
            _ => return Err(Error::bad(format!("invalid mode: {o}"))),
        }
    }
    Ok(read_only)
}

fn tmpfs_options(options: &str, warnings: &mut Vec<String>) -> Result<(TmpfsSource, bool), Error> {
    let mut t = TmpfsSource::default();
    let mut read_only = false;
    for o in options.split(',').filter(|o| !o.is_empty()) {
        let bad = || Error::bad(format!("invalid tmpfs option [{o:?}]"));
        match o.split_once('=') {
            Some(("size", v)) => t.size = Some(size(v).filter(|m| *m > Memory(0)).ok_or_else(bad)?),
            Some(("mode", v)) => {
                u32::from_str_radix(v, 8).map_err(|_| bad())?;
                t.mode = Some(v.into());
            }
            None if o == "ro" => read_only = true,
            None if matches!(o, "rw" | "noexec" | "nosuid" | "nodev") => {}
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) | None => {
                warnings.push(format!("tmpfs option {o} was left out"));
            }
            Some(_) => return Err(bad()),
        }
    }
    Ok((t, read_only))
}
