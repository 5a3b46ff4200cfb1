//! `-v`, `--tmpfs` and `--mount`.

use biga_model::{InstanceVolume, MountPropagation, TmpfsSource, VolumeMount};

use super::size::size;

/// Something to mount, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct MountArg {
    /// What.
    pub source: Source,
    /// Absolute path inside.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// A path below the volume's root.
    pub sub_path: Option<String>,
    /// What else was said: propagation and the like, as it stands in a spec.
    pub more: More,
}

/// What few say of a mount.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct More {
    /// How later mounts travel.
    pub propagation: MountPropagation,
    /// Leave out what is mounted below.
    pub non_recursive: bool,
    /// Read-only at the top only.
    pub read_only_non_recursive: bool,
    /// Do not fill an empty volume from the image.
    pub no_copy: bool,
}

/// Reads a word for propagation. With and without `r` for recursive it is the same here.
fn propagation(word: &str) -> Option<MountPropagation> {
    match word {
        "private" | "rprivate" => Some(MountPropagation::Private),
        "slave" | "rslave" => Some(MountPropagation::Slave),
        "shared" | "rshared" => Some(MountPropagation::Shared),
        _ => None,
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A `Volume` by name.
    Volume(String),
    /// A path of the host.
    Host(String),
    /// Memory.
    Tmpfs(TmpfsSource),
    /// The files of an image.
    Image(String),
}

/// Reads `name:/path[:ro]` or `/host:/path[:ro]`.
pub fn volume(s: &str) -> Result<MountArg, String> {
    let parts: Vec<&str> = s.split(':').collect();
    let (source, target, options) = match parts[..] {
        [_] => {
            return Err(format!(
                "{s:?} has no target: write NAME:/path for a volume, or /host:/path for a directory of the host"
            ));
        }
        [a, b] => (a, b, ""),
        [a, b, o] => (a, b, o),
        _ => return Err(format!("{s:?} has too many colons: write SOURCE:/path[:ro]")),
    };
    let (mut read_only, mut more) = (false, More::default());
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match (o, propagation(o)) {
            ("ro", _) => read_only = true,
            ("rw", _) => read_only = false,
            ("nocopy", _) => more.no_copy = true,
            // Without a security module labels mean nothing and change nothing.
            ("z" | "Z", _) => {}
            (_, Some(p)) => more.propagation = p,
            _ => {
                return Err(format!(
                    "{s:?}: {o:?} is no option of a volume: use ro, rw, nocopy, rslave or rshared"
                ));
            }
        }
    }
    Ok(MountArg {
        source: source_of(source)?,
        target: absolute(target)?,
        read_only,
        sub_path: None,
        more,
    })
}

fn source_of(s: &str) -> Result<Source, String> {
    if s.starts_with('/') {
        return Ok(Source::Host(s.to_string()));
    }
    if s.starts_with('.') || s.starts_with('~') || s.contains('/') {
        let path = std::path::absolute(s).map_err(|e| format!("{s:?}: {e}"))?;
        return Err(format!(
            "{s:?} is a relative path: write {}",
            path.components().collect::<std::path::PathBuf>().display()
        ));
    }
    if !biga_model::kind::is_resource_name(s) {
        return Err(format!("{s:?} is no name of a volume, and no absolute path"));
    }
    Ok(Source::Volume(s.to_string()))
}

fn absolute(target: &str) -> Result<String, String> {
    if target.starts_with('/') && target.len() > 1 {
        Ok(target.to_string())
    } else {
        Err(format!("{target:?} is no absolute path inside the instance"))
    }
}

/// Reads `/path[:size=64m,mode=1777]`.
pub fn tmpfs(s: &str) -> Result<MountArg, String> {
    let (target, options) = s.split_once(':').unwrap_or((s, ""));
    let mut spec = TmpfsSource::default();
    let mut read_only = false;
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match o.split_once('=').unwrap_or((o, "")) {
            ("size", v) => spec.size = Some(size(v)?),
            ("mode", v) => spec.mode = Some(v.to_string()),
            ("ro", "") => read_only = true,
            ("rw", "") => read_only = false,
            ("noexec" | "exec" | "nosuid" | "suid" | "nodev" | "dev" | "noatime" | "relatime", "") => {
                spec.options.push(o.into());
            }
            ("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "huge", v) if !v.is_empty() => {
                spec.options.push(o.into());
            }
            _ => {
                return Err(format!(
                    "{s:?}: {o:?} is no option of a tmpfs: use size=, mode=, uid=, gid=, ro, exec, noexec and the like"
                ));
            }
        }
    }
    Ok(MountArg {
        source: Source::Tmpfs(spec),
        target: absolute(target)?,
        read_only,
        sub_path: None,
        more: More::default(),
    })
}

/// Reads `type=volume|bind|tmpfs|image,source=…,target=…[,readonly]`.
pub fn mount(s: &str) -> Result<MountArg, String> {
    let (mut type_, mut source, mut target, mut read_only, mut sub_path) = ("volume", None, None, false, None);
    let (mut spec, mut more) = (TmpfsSource::default(), More::default());
    for pair in s.split(',') {
        let (k, v) = pair.split_once('=').unwrap_or((pair, "true"));
        match k {
            "type" => type_ = v,
            "source" | "src" => source = Some(v),
            "target" | "dst" | "destination" => target = Some(v),
            "readonly" | "ro" => {
                read_only = match v {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(format!("{pair:?}: write readonly, or readonly=false")),
                }
            }
            "volume-subpath" | "image-subpath" => sub_path = Some(v.to_string()),
            "tmpfs-size" => spec.size = Some(size(v)?),
            "tmpfs-mode" => spec.mode = Some(v.to_string()),
            "bind-propagation" => {
                more.propagation = propagation(v)
                    .ok_or_else(|| format!("{pair:?}: {v:?} is no propagation: use rprivate, rslave or rshared"))?;
            }
            "bind-nonrecursive" => more.non_recursive = v != "false" && v != "0",
            "bind-recursive" => match v {
                "enabled" | "readonly" | "true" => {}
                "writable" => more.read_only_non_recursive = true,
                "disabled" | "false" => more.non_recursive = true,
                _ => return Err(format!("{pair:?}: write enabled, disabled, writable or readonly")),
            },
            "volume-nocopy" => more.no_copy = v != "false" && v != "0",
            "consistency" => {}
            _ => {
                return Err(format!(
                    "{k:?} is no key of --mount: use type, source, target, readonly, volume-subpath, volume-nocopy, \
                     image-subpath, bind-propagation, bind-recursive, tmpfs-size, tmpfs-mode"
                ));
            }
        }
    }
    let target = absolute(target.ok_or_else(|| format!("{s:?} has no target="))?)?;
    let need = |what: &str| source.ok_or_else(|| format!("{s:?} has no source= ({what})"));
    let source = match type_ {
        "volume" => match source_of(need("the volume's name")?)? {
            Source::Host(p) => return Err(format!("{p:?} is a path: use type=bind")),
            other => other,
        },
        "bind" => match source_of(need("a path of the host")?)? {
            Source::Volume(n) => return Err(format!("{n:?} is no absolute path: use type=volume for a volume")),
            other => other,
        },
        "tmpfs" => Source::Tmpfs(spec),
        "image" => Source::Image(need("the image's name")?.to_owned()),
        _ => {
            return Err(format!(
                "{type_:?} is no type of mount: use volume, bind, tmpfs or image"
            ));
        }
    };
    // Said of a mount that can be written, it changes nothing.
    more.read_only_non_recursive &= read_only;
    Ok(MountArg {
        source,
        target,
        read_only,
        sub_path,
        more,
    })
}

impl MountArg {
    /// The two halves as they stand in a spec; `number` makes the name unique in the instance.
    pub fn into_spec(self, number: usize) -> (InstanceVolume, VolumeMount) {
        let name = match &self.source {
            Source::Volume(n) => n.clone(),
            Source::Host(_) => format!("host-{number}"),
            Source::Tmpfs(_) => format!("tmpfs-{number}"),
            Source::Image(_) => format!("image-{number}"),
        };
        let mut volume = InstanceVolume {
            name: name.clone(),
            ..InstanceVolume::default()
        };
        match self.source {
            Source::Volume(n) => volume.volume = Some(n),
            Source::Host(p) => volume.host_path = Some(p),
            Source::Tmpfs(t) => volume.tmpfs = Some(t),
            Source::Image(i) => volume.image = Some(i),
        }
        let mount = VolumeMount {
            name,
            mount_path: self.target,
            read_only: self.read_only,
            sub_path: self.sub_path,
            read_only_non_recursive: self.more.read_only_non_recursive,
            non_recursive: self.more.non_recursive,
            propagation: self.more.propagation,
            no_copy: self.more.no_copy,
        };
        (volume, mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(source: Source, target: &str, read_only: bool) -> MountArg {
        MountArg {
            source,
            target: target.into(),
            read_only,
            sub_path: None,
            more: More::default(),
        }
    }

    #[test]
    fn what_few_say_is_kept() {
        let m = |s: &str| mount(s).unwrap().more;
        assert_eq!(
            volume("/a:/b:rslave").unwrap().more.propagation,
            MountPropagation::Slave
        );
        assert!(volume("data:/b:nocopy").unwrap().more.no_copy);
        assert_eq!(
            m("type=bind,src=/a,dst=/b,bind-propagation=shared").propagation,
            MountPropagation::Shared
        );
        assert!(m("type=bind,src=/a,dst=/b,bind-recursive=disabled").non_recursive);
        assert!(m("type=bind,src=/a,dst=/b,ro,bind-recursive=writable").read_only_non_recursive);
        assert!(m("source=a,target=/b,volume-nocopy").no_copy);
        let t = tmpfs("/x:noexec,uid=33,ro").unwrap();
        let Source::Tmpfs(spec) = t.source else {
            panic!("memory")
        };
        assert_eq!(
            (spec.options, t.read_only),
            (vec!["noexec".into(), "uid=33".into()], true)
        );
        assert!(mount("type=bind,src=/a,dst=/b,bind-propagation=far").is_err());
        assert!(tmpfs("/x:colour=red").is_err());
    }

    #[test]
    fn volumes_and_host_paths_are_told_apart() {
        let named = Source::Volume("data".into());
        let host = Source::Host("/srv".into());
        assert_eq!(volume("data:/x"), Ok(arg(named.clone(), "/x", false)));
        assert_eq!(volume("data:/x:ro"), Ok(arg(named.clone(), "/x", true)));
        assert_eq!(volume("/srv:/x:ro,z"), Ok(arg(host.clone(), "/x", true)));
        assert_eq!(mount("type=bind,src=/srv,dst=/x,readonly"), Ok(arg(host, "/x", true)));
        assert_eq!(mount("source=data,target=/x,ro=false"), Ok(arg(named, "/x", false)));
    }

    #[test]
    fn tmpfs_takes_size_and_mode() {
        let spec = TmpfsSource {
            size: Some(biga_model::Memory::mib(64)),
            mode: Some("1777".into()),
            options: Vec::new(),
        };
        let expected = arg(Source::Tmpfs(spec), "/run", false);
        assert_eq!(tmpfs("/run:size=64m,mode=1777"), Ok(expected.clone()));
        assert_eq!(
            mount("type=tmpfs,target=/run,tmpfs-size=64m,tmpfs-mode=1777"),
            Ok(expected)
        );
    }

    #[test]
    fn errors_say_what_to_write() {
        for (bad, hint) in [
            (volume("/only"), "has no target"),
            (volume("a:b"), "no absolute path"),
            (volume("a:/"), "no absolute path"),
            (volume("a:/b:rx"), "is no option"),
            (volume("./a:/b"), "is a relative path: write /"),
            (volume("a:/b:ro:x"), "too many colons"),
            (mount("type=volume,source=a"), "has no target="),
            (mount("type=volume,target=/a"), "has no source="),
            (mount("type=bind,source=a,target=/a"), "use type=volume"),
            (mount("type=volume,source=/a,target=/a"), "use type=bind"),
            (mount("type=nfs,target=/a"), "is no type of mount"),
            (mount("type=image,target=/a"), "the image's name"),
            (mount("kind=bind"), "is no key"),
            (tmpfs("run"), "no absolute path"),
        ] {
            let e = bad.unwrap_err();
            assert!(e.contains(hint), "{e}");
        }
    }
}
