//! What the attributes of the frontend for Dockerfiles mean.

use std::collections::{BTreeMap, HashMap};

use biga_wire::build::Build;

use crate::engine::Fault;
use crate::proto::control::{CacheEntry, Exporter};

/// The argument that says what steps run in.
const ISOLATION: &str = "BIGA_ISOLATION";

/// The argument that keeps `.git` of a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What is asked of a frontend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// How to build.
    pub build: Build,
    /// The context's address, where it is not a directory of the client.
    pub remote: Option<String>,
    /// The client's name of the directory with the Dockerfile, also with a context from elsewhere.
    pub dockerfile_dir: Option<String>,
    /// The client's name of the context's directory.
    pub context_dir: String,
    /// Further contexts: their names, and the client's names of their directories.
    pub named: Vec<(String, String)>,
    /// For people: what is asked for and not done.
    pub warnings: Vec<String>,
}

/// Reads them.
pub fn request(attrs: &HashMap<String, String>, imports: &[CacheEntry]) -> Result<Request, Fault> {
    let mut r = Request {
        context_dir: "context".into(),
        ..Request::default()
    };
    r.build.force_remove = true;
    r.build.parallel = true;
    let sorted: BTreeMap<&String, &String> = attrs.iter().collect();
    for (key, value) in sorted {
        match key.split_once(':') {
            Some((kind, name)) => r.named(kind, name, value)?,
            None => r.plain(key, value)?,
        }
    }
    for entry in imports {
        r.cache(entry);
    }
    Ok(r)
}

impl Request {
    fn named(&mut self, kind: &str, name: &str, value: &str) -> Result<(), Fault> {
        match kind {
            // Clients have no option for it, and BuildKit takes what is its own in the same way.
            "build-arg" if name == ISOLATION => self.build.isolation = value.into(),
            "build-arg" if name == KEEP_GIT_DIR => self.build.keep_git_dir = truth(value),
            // Of BuildKit's own; nothing of them is seen in the image.
            "build-arg" if name.starts_with("BUILDKIT_") => {}
            "build-arg" => drop(self.build.build_args.insert(name.into(), value.into())),
            "label" => drop(self.build.labels.insert(name.into(), value.into())),
            "context" => self.context(name, value)?,
            "attest" => return Err(Fault::unsupported(format!("an attestation (--attest type={name})"))),
            _ => self.unknown(&format!("{kind}:{name}")),
        }
        Ok(())
    }

    fn plain(&mut self, key: &str, value: &str) -> Result<(), Fault> {
        let b = &mut self.build;
        match key {
            "filename" => b.dockerfile = value.into(),
            "target" => b.target = value.into(),
            "no-cache" if value.is_empty() => b.no_cache = true,
            "no-cache" => b.no_cache_stages = list(value).collect(),
            "image-resolve-mode" => b.pull = value == "pull",
            "platform" if value.contains(',') => {
                return Err(Fault::unsupported(format!("building for several platforms ({value})")));
            }
            "platform" => b.platform = value.into(),
            "multi-platform" if truth(value) => return Err(Fault::unsupported("an index of several platforms")),
            "multi-platform" => {}
            "add-hosts" => b.extra_hosts.extend(list(value)),
            "force-network-mode" => b.network = value.into(),
            "cgroup-parent" if !value.is_empty() => b.cgroup_parent = Some(value.into()),
            "shm-size" => b.shm_size = Some(number(key, value)?),
            "ulimit" => b.ulimits = ulimits(value)?,
            "context" => self.remote = Some(value.into()),
            "contextkey" => self.context_dir = value.into(),
            "dockerfilekey" => self.dockerfile_dir = Some(value.into()),
            "requestid" => {
                return Err(Fault::unsupported(format!(
                    "asking about a Dockerfile without building it ({value})"
                )));
            }
            "cache-from" | "cache-imports" | "cgroup-parent" | "frontend.caps" => {}
            "source" | "cmdline" => return Err(Fault::unsupported("a frontend that is an image")),
            _ => self.unknown(key),
        }
        Ok(())
    }

    /// `--build-context`
    fn context(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        if let Some(dir) = value.strip_prefix("local:") {
            self.named.push((name.into(), dir.into()));
        } else if let Some(image) = value.strip_prefix("docker-image://") {
            self.build.contexts.insert(name.into(), image.into());
        } else if ["http://", "https://", "git://"].iter().any(|p| value.starts_with(p)) {
            self.build.remotes.insert(name.into(), value.into());
        } else {
            return Err(Fault::unsupported(format!(
                "a named context that is {value} (--build-context {name}=…)"
            )));
        }
        Ok(())
    }

    fn unknown(&mut self, key: &str) {
        self.warnings
            .push(format!("the option {key} is not known to Biga and has no effect"));
    }

    fn cache(&mut self, entry: &CacheEntry) {
        let what = entry.attrs.get("ref").or(entry.attrs.get("src"));
        self.warnings.push(format!(
            "cache is not imported from {} {}: Biga uses what the images of this node were built of",
            entry.kind,
            what.map_or("", |w| w)
        ));
    }
}

/// What becomes of the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// It is an image of this node.
    Image,
    /// The client gets its files.
    Files,
    /// The client gets a tar of its files.
    Tar,
    /// The client gets an archive as `docker save` makes it.
    Docker,
    /// The client gets an OCI layout as an archive.
    Oci,
}

/// The exporter, and the names that it gives.
pub fn export(exporters: &[Exporter]) -> Result<Option<(Export, Vec<String>)>, Fault> {
    let exporter = match exporters {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(Fault::unsupported("more than one output (--output)")),
    };
    let set = |name: &str| exporter.attrs.get(name).is_some_and(|v| truth(v));
    let names: Vec<String> = exporter
        .attrs
        .get("name")
        .map(|n| list(n).collect())
        .unwrap_or_default();
    let export = match exporter.kind.as_str() {
        "" => return Ok(None),
        "moby" | "image" => Export::Image,
        "local" => Export::Files,
        "tar" => Export::Tar,
        "docker" => Export::Docker,
        "oci" => Export::Oci,
        other => return Err(Fault::unsupported(format!("the output type={other}"))),
    };
    if matches!(export, Export::Docker | Export::Oci) && exporter.attrs.get("tar").is_some_and(|v| !truth(v)) {
        return Err(Fault::unsupported(
            "an output that is a directory of an OCI layout (tar=false)",
        ));
    }
    if set("push-by-digest") {
        return Err(Fault::unsupported("pushing by digest"));
    }
    Ok(Some((export, names)))
}

/// Whether cache can be exported like this.
pub fn cache_exports(entries: &[CacheEntry]) -> Result<(), Fault> {
    match entries.iter().find(|e| e.kind != "inline") {
        // Images keep what they were built of by themselves.
        None => Ok(()),
        Some(e) => Err(Fault::unsupported(format!(
            "exporting cache (--cache-to type={})",
            e.kind
        ))),
    }
}

/// As Go reads it.
fn truth(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn list(value: &str) -> impl Iterator<Item = String> {
    value
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
}

fn number(key: &str, value: &str) -> Result<u64, Fault> {
    value
        .parse()
        .map_err(|_| Fault::invalid(format!("{key} is no number: {value:?}")))
}

/// `nofile=1024:2048,…`
fn ulimits(value: &str) -> Result<BTreeMap<String, (i64, i64)>, Fault> {
    let one = |part: String| {
        let (name, limits) = part.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some((name.to_owned(), (soft.parse().ok()?, hard.parse().ok()?)))
    };
    let all: Option<_> = list(value).map(one).collect();
    all.ok_or_else(|| Fault::invalid(format!("bad ulimit: {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::FaultKind;

    fn attrs(all: &[(&str, &str)]) -> HashMap<String, String> {
        all.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn what_buildx_sends() {
        let r = request(
            &attrs(&[
                ("filename", "Dockerfile"),
                ("target", "t"),
                ("no-cache", ""),
                ("image-resolve-mode", "pull"),
                ("build-arg:A", "b:c"),
                ("build-arg:BUILDKIT_INLINE_CACHE", "1"),
                ("build-arg:BIGA_ISOLATION", "microvm"),
                ("label:a.b", "c"),
                ("add-hosts", "h=1.2.3.4,i=::1"),
                ("ulimit", "nofile=1:2,core=3"),
                ("shm-size", "65536"),
                ("force-network-mode", "none"),
                ("frontend.caps", "x"),
                ("odd", "x"),
                ("context:base", "docker-image://x:1"),
                ("context:more", "local:more"),
            ]),
            &[],
        )
        .unwrap();
        let b = &r.build;
        assert!(b.no_cache && b.pull && b.network == "none" && b.shm_size == Some(65536));
        assert_eq!(b.build_args, [("A".to_string(), "b:c".to_string())].into());
        assert_eq!((b.labels["a.b"].as_str(), b.isolation.as_str()), ("c", "microvm"));
        assert_eq!(b.extra_hosts, ["h=1.2.3.4", "i=::1"]);
        assert_eq!((b.ulimits["nofile"], b.ulimits["core"]), ((1, 2), (3, 3)));
        assert_eq!(b.contexts["base"], "x:1");
        assert_eq!(r.named, [("more".to_string(), "more".to_string())]);
        assert_eq!(r.warnings.len(), 1, "{:?}", r.warnings);
        assert!(r.warnings[0].contains("odd"));
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (key, value, said) in [
            ("platform", "linux/amd64,linux/arm64", "several platforms"),
            ("context:base", "oci-layout://x", "--build-context base"),
            ("attest:sbom", "", "attestation"),
            ("requestid", "frontend.outline", "frontend.outline"),
        ] {
            let e = request(&attrs(&[(key, value)]), &[]).unwrap_err();
            assert!(
                e.kind == FaultKind::Unsupported && e.message.contains(said),
                "{key}: {e}"
            );
        }
        for (key, value) in [("shm-size", "x"), ("ulimit", "nofile"), ("ulimit", "nofile=x")] {
            let e = request(&attrs(&[(key, value)]), &[]).unwrap_err();
            assert_eq!(e.kind, FaultKind::Invalid, "{key}");
        }
    }

    #[test]
    fn outputs() {
        let of = |kind: &str, all: &[(&str, &str)]| {
            export(&[Exporter {
                kind: kind.into(),
                attrs: attrs(all),
            }])
        };
        assert_eq!(export(&[]), Ok(None));
        let names = vec!["a:1".to_string(), "b:2".to_string()];
        assert_eq!(of("moby", &[("name", "a:1,b:2")]), Ok(Some((Export::Image, names))));
        assert_eq!(of("tar", &[]), Ok(Some((Export::Tar, vec![]))));
        for (kind, all) in [
            ("other", &[][..]),
            ("oci", &[("tar", "false")]),
            ("image", &[("push-by-digest", "true")]),
        ] {
            assert_eq!(of(kind, all).unwrap_err().kind, FaultKind::Unsupported, "{kind}");
        }
    }
}
