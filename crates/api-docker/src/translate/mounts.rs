//! Binds, mounts, tmpfs and anonymous volumes → the volumes of an instance.

use std::collections::BTreeMap;

use biga_model::{InstanceVolume, LocalMount, Memory, MountPropagation, TmpfsSource, VolumeMount};

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
    /// Volumes that are made with it as somebody asked for them.
    pub made: Vec<MadeVolume>,
}

/// A volume that is made with a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MadeVolume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What is mounted as it.
    pub mount: Option<LocalMount>,
}

enum Source {
    Volume(String),
    Host(String),
    Tmpfs(TmpfsSource),
    Image(String),
}

struct Maker<'a> {
    made: Made,
    fresh: std::slice::Iter<'a, String>,
    /// Whether programs can be run from memory unless something else is said: only a container has that choice.
    programs: bool,
}

/// How something is mounted.
#[derive(Debug, Clone, Default, PartialEq)]
struct How {
    read_only: bool,
    sub_path: Option<String>,
    propagation: MountPropagation,
    non_recursive: bool,
    read_only_non_recursive: bool,
    no_copy: bool,
}

impl How {
    fn new(read_only: bool, sub_path: Option<String>) -> How {
        How {
            read_only,
            sub_path,
            ..How::default()
        }
    }
}

/// Reads all of them. Two on the same path are refused.
pub fn volumes(body: &CreateBody, around: &Around) -> Result<Made, Error> {
    let h = &body.host_config;
    let mut m = Maker {
        made: Made::default(),
        fresh: around.volume_names.iter(),
        programs: super::create::isolation(h)? != biga_model::Isolation::Container,
    };
    for text in &h.binds {
        if names_only_a_path(text) {
            m.anonymous(text, How::default())?;
            continue;
        }
        let (source, target, options) = split_bind(text)?;
        let how = bind_options(options)?;
        let kind = if source.starts_with('/') { "bind" } else { "volume" };
        let at = format!("invalid volume specification: '{text}': invalid mount config for type \"{kind}\": ");
        target_of(target).map_err(|e| Error::bad(at + &e.message))?;
        m.add(bind_source(source)?, target, how)?;
    }
    for mount in &h.mounts {
        m.mount(mount)?;
    }
    for (target, options) in &h.tmpfs {
        let (tmpfs, read_only) = tmpfs_options(options, m.programs)?;
        m.add(Source::Tmpfs(tmpfs), target, How::new(read_only, None))?;
    }
    m.borrow(&around.volumes_from);
    let own = around.image.get("Volumes").and_then(serde_json::Value::as_object);
    for target in body.volumes.keys().chain(own.into_iter().flat_map(|v| v.keys())) {
        // Old clients name here what they also bind.
        let taken = m.made.mounts.iter().any(|v| same_path(&v.mount_path, target));
        match target.contains(':') {
            true => {
                return Err(Error::bad(format!(
                    "invalid volume {target:?}: a path inside the container is expected"
                )));
            }
            false if taken => {}
            false => m.anonymous(target, How::default())?,
        }
    }
    Ok(m.made)
}

impl Maker<'_> {
    /// Mounts of other containers, but for those paths that have a mount already.
    fn borrow(&mut self, from: &[(InstanceVolume, VolumeMount)]) {
        for (volume, mount) in from {
            let taken = |m: &VolumeMount| same_path(&m.mount_path, &mount.mount_path);
            if self.made.mounts.iter().any(taken) {
                continue;
            }
            let name = format!("v{}", self.made.volumes.len());
            self.made.volumes.push(InstanceVolume {
                name: name.clone(),
                ..volume.clone()
            });
            self.made.mounts.push(VolumeMount { name, ..mount.clone() });
        }
    }

    fn add(&mut self, source: Source, target: &str, how: How) -> Result<(), Error> {
        target_of(target)?;
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
            Source::Image(i) => volume.image = Some(i),
        }
        self.made.volumes.push(volume);
        self.made.mounts.push(VolumeMount {
            name,
            mount_path: target.into(),
            read_only: how.read_only,
            sub_path: how.sub_path,
            read_only_non_recursive: how.read_only && how.read_only_non_recursive,
            non_recursive: how.non_recursive,
            propagation: how.propagation,
            no_copy: how.no_copy,
        });
        Ok(())
    }

    fn anonymous(&mut self, target: &str, how: How) -> Result<(), Error> {
        let name = self
            .fresh
            .next()
            .cloned()
            .ok_or_else(|| Error::bad("too many volumes without a name"))?;
        self.made.anonymous.push(name.clone());
        self.add(Source::Volume(name), target, how)
    }

    fn mount(&mut self, m: &Mount) -> Result<(), Error> {
        if KINDS.contains(&m.kind.as_str()) {
            let at = format!("invalid mount config for type \"{}\": ", m.kind);
            target_of(&m.target).map_err(|e| Error::bad(at + &e.message))?;
        }
        if let Some((k, _)) = m.rest.iter().find(|(_, v)| !is_zero(v)) {
            return Err(Error::missing(format!("mount option {k}")));
        }
        match m.kind.as_str() {
            "bind" => {
                let how = bind_how(m)?;
                self.add(Source::Host(m.source.clone()), &m.target, how)
            }
            "volume" => {
                let o = &m.volume_options;
                let mount = known_driver(&o.driver_config.name, &o.driver_config.options)?;
                let how = How {
                    no_copy: o.no_copy,
                    ..How::new(m.read_only, (!o.subpath.is_empty()).then(|| o.subpath.clone()))
                };
                let source = match m.source.as_str() {
                    "" => {
                        self.anonymous(&m.target, how)?;
                        self.made.anonymous.last().cloned().unwrap_or_default()
                    }
                    name => {
                        self.add(bind_source(name)?, &m.target, how)?;
                        name.to_string()
                    }
                };
                if !o.labels.is_empty() || mount.is_some() {
                    self.made.made.push(MadeVolume {
                        name: source,
                        labels: o.labels.clone(),
                        mount,
                    });
                }
                Ok(())
            }
            "tmpfs" => {
                if !m.source.is_empty() {
                    return Err(Error::bad(
                        "invalid mount config for type \"tmpfs\": source must not be specified",
                    ));
                }
                // `[["noexec"], ["uid", "33"]]`.
                let words: Vec<String> = m.tmpfs_options.options.iter().map(|o| o.join("=")).collect();
                let (mut t, read_only) = tmpfs_options(&words.join(","), self.programs)?;
                t.size = super::hostconfig::bytes("SizeBytes", m.tmpfs_options.size_bytes)?.or(t.size);
                if m.tmpfs_options.mode != 0 {
                    t.mode = Some(format!("{:o}", m.tmpfs_options.mode));
                }
                self.add(Source::Tmpfs(t), &m.target, How::new(m.read_only || read_only, None))
            }
            "image" => {
                if m.source.is_empty() {
                    return Err(Error::bad(
                        "invalid mount config for type \"image\": field Source must not be empty",
                    ));
                }
                let sub = &m.image_options.subpath;
                if sub.starts_with('/') || sub.split('/').any(|s| s == "..") {
                    return Err(Error::bad(format!(
                        "invalid mount config for type \"image\": invalid subpath {sub:?}: it stays below the image's root"
                    )));
                }
                let how = How::new(true, (!sub.is_empty()).then(|| sub.clone()));
                self.add(Source::Image(m.source.clone()), &m.target, how)
            }
            "cluster" | "npipe" => Err(Error::missing(format!("mounts of type {:?}", m.kind))),
            other => Err(Error::bad(format!(
                "invalid mount config for type {other:?}: mount type unknown"
            ))),
        }
    }
}

/// Types of mounts that are made here.
const KINDS: [&str; 4] = ["bind", "volume", "tmpfs", "image"];

/// A path that something can be mounted on.
fn target_of(target: &str) -> Result<(), Error> {
    if !target.starts_with('/') {
        return Err(Error::bad(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    match target.trim_end_matches('/') {
        "" => Err(Error::bad("invalid specification: destination can't be '/'")),
        _ => Ok(()),
    }
}

fn bind_how(m: &Mount) -> Result<How, Error> {
    if !m.source.starts_with('/') {
        return Err(Error::bad(format!(
            "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
            m.source
        )));
    }
    let mut how = How::new(m.read_only, None);
    for (k, v) in m.bind_options.iter().filter(|(_, v)| !is_zero(v)) {
        match (k.as_str(), v.as_str()) {
            ("Propagation", Some(word)) => {
                how.propagation = propagation(word)
                    .ok_or_else(|| Error::bad(format!("invalid mount config: invalid propagation: {word}")))?;
            }
            ("NonRecursive", _) => how.non_recursive = true,
            ("ReadOnlyNonRecursive", _) => how.read_only_non_recursive = true,
            // What is read-only always is so with all that is mounted below.
            ("ReadOnlyForceRecursive" | "CreateMountpoint", _) => {}
            _ => return Err(Error::missing(format!("bind option {k} {v}"))),
        }
    }
    Ok(how)
}

fn propagation(word: &str) -> Option<MountPropagation> {
    match word {
        "private" | "rprivate" => Some(MountPropagation::Private),
        "slave" | "rslave" => Some(MountPropagation::Slave),
        "shared" | "rshared" => Some(MountPropagation::Shared),
        _ => None,
    }
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

/// Reads the options of the local driver, and refuses drivers that do not exist here.
pub fn driver(name: &str, options: &BTreeMap<String, String>) -> Result<Option<LocalMount>, Error> {
    if !matches!(name, "" | "local") {
        return Err(Error::not_found(format!(
            "error looking up volume plugin {name}: plugin \"{name}\" not found"
        )));
    }
    if options.is_empty() {
        return Ok(None);
    }
    let mut m = LocalMount::default();
    for (k, v) in options {
        match k.as_str() {
            "type" => m.fs_type.clone_from(v),
            "device" => m.device.clone_from(v),
            "o" => m.options.clone_from(v),
            "size" => return Err(Error::missing("option \"size\" of a local volume (a quota)")),
            _ => return Err(Error::bad(format!("invalid option: {k:?}"))),
        }
    }
    for (k, v) in [("type", &m.fs_type), ("device", &m.device)] {
        if v.is_empty() {
            return Err(Error::bad(format!("missing required option: {k:?}")));
        }
    }
    Ok(Some(m))
}

/// The same for a container, whose clients take any 404 for an image that is missing.
pub fn known_driver(name: &str, options: &BTreeMap<String, String>) -> Result<Option<LocalMount>, Error> {
    driver(name, options).map_err(|e| match e.status {
        http::StatusCode::NOT_FOUND => Error::bad(e.message),
        _ => e,
    })
}

/// How many volumes without a name a container may need, of those its own image asks for and all others.
pub fn anonymous_at_most(body: &CreateBody, of_image: usize) -> usize {
    let binds = body.host_config.binds.iter().filter(|b| names_only_a_path(b)).count();
    body.volumes.len() + body.host_config.mounts.len() + binds + of_image
}

/// Whether a bind is a path in the container alone, which is a volume without a name.
fn names_only_a_path(bind: &str) -> bool {
    !bind.is_empty() && !bind.contains(':')
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
            "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(Source::Volume(source.into()))
}

fn bind_options(options: &str) -> Result<How, Error> {
    let mut how = How::default();
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match (o, propagation(o)) {
            ("ro", _) => how.read_only = true,
            ("nocopy", _) => how.no_copy = true,
            ("rw" | "z" | "Z" | "cached" | "delegated" | "consistent", _) => {}
            (_, Some(p)) => how.propagation = p,
            _ => return Err(Error::bad(format!("invalid mode: {o}"))),
        }
    }
    Ok(how)
}

/// The options of a tmpfs, as mount(8) has them, and whether it is read-only. As Docker's no programs can be run from it unless
/// asked for; `programs` says otherwise.
fn tmpfs_options(options: &str, programs: bool) -> Result<(TmpfsSource, bool), Error> {
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
            None if o == "rw" => read_only = false,
            // Of the usual ones a microvm's memory has what it has.
            None if programs && matches!(o, "noexec" | "exec" | "nosuid" | "nodev") => {}
            None if matches!(
                o,
                "noexec" | "exec" | "nosuid" | "suid" | "nodev" | "dev" | "noatime" | "relatime"
            ) =>
            {
                t.options.push(o.into());
            }
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", v)) if !v.is_empty() => t.options.push(o.into()),
            _ => return Err(bad()),
        }
    }
    if !programs && !t.options.iter().any(|o| o == "exec" || o == "noexec") {
        t.options.push("noexec".into());
    }
    Ok((t, read_only))
}
