//! Manifests, indexes and configs, as far as they matter here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, History, ImageConfig, Platform};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What is asked for in the name of a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// Largest config.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// More layers than overlayfs can stack are of no use; a bound all the same for what is read.
const MAX_LAYERS: usize = 512;

/// Names a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: String, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    /// What it speaks of, where it is no image but says something of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Several images under one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

/// Either.
#[expect(clippy::large_enum_variant, reason = "one at a time, and never for long")]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// An image's config.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub config: Option<ImageConfig>,
    pub rootfs: RootFs,
    #[serde(default)]
    pub history: Option<Vec<History>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

impl Config {
    pub(crate) fn platform(&self) -> Platform {
        let known = |s: &str, default: &str| if s.is_empty() { default.to_owned() } else { s.to_owned() };
        let host = Platform::host();
        Platform {
            os: known(&self.os, &host.os),
            architecture: known(&self.architecture, &host.architecture),
            variant: self.variant.clone(),
        }
    }
}

/// Reads a manifest or index and checks what the rest relies on.
pub(crate) fn document(bytes: &[u8], media_type: &str, what: &str) -> Result<Document, Error> {
    let invalid = |why: String| Error::Invalid {
        what: what.to_owned(),
        why,
    };
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: Option<u32>,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let probe: Probe = serde_json::from_slice(bytes).map_err(|e| invalid(format!("it is no JSON document: {e}")))?;
    if probe.schema_version != Some(2) {
        return Err(invalid(
            "its schemaVersion is not 2: it is of a form that registries gave up in 2017".into(),
        ));
    }
    // A document that can be read both ways is an attack on whoever checks it one way and uses it the other.
    if probe.manifests.is_some() && probe.layers.is_some() {
        return Err(invalid("it has both manifests and layers".into()));
    }
    let named = probe.media_type.filter(|t| !t.is_empty());
    let named = named.as_deref().unwrap_or(media_type);
    let is_index = probe.manifests.is_some();
    if matches!(named, OCI_INDEX | DOCKER_INDEX) != is_index
        && matches!(named, OCI_INDEX | DOCKER_INDEX | OCI_MANIFEST | DOCKER_MANIFEST)
    {
        return Err(invalid(format!("its content does not go with its media type {named}")));
    }
    let parsed = if is_index {
        serde_json::from_slice(bytes).map(Document::Index)
    } else {
        serde_json::from_slice(bytes).map(Document::Manifest)
    };
    let document = parsed.map_err(|e| invalid(e.to_string()))?;
    let (descriptors, count): (Vec<&Descriptor>, usize) = match &document {
        Document::Manifest(m) => (m.layers.iter().chain([&m.config]).collect(), m.layers.len()),
        Document::Index(i) => (i.manifests.iter().collect(), i.manifests.len()),
    };
    if count > MAX_LAYERS {
        return Err(invalid(format!("it names more than {MAX_LAYERS} parts")));
    }
    match descriptors.iter().find(|d| !crate::digest::is_digest(&d.digest)) {
        Some(d) => Err(invalid(format!("{:?} is no sha256 digest", d.digest))),
        None => Ok(document),
    }
}

/// The image of an index that serves a platform best.
pub(crate) fn choose<'i>(index: &'i Index, wanted: &Platform, what: &str) -> Result<&'i Descriptor, Error> {
    let offers = || index.manifests.iter().filter(|d| !is_attestation(d));
    let best = offers()
        .filter_map(|d| Some((wanted.rank(d.platform.as_ref()?)?, d)))
        // The first of equals counts.
        .rev()
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, d)| d);
    let only = || {
        offers()
            .next()
            .filter(|d| d.platform.is_none() && offers().count() == 1)
    };
    best.or_else(only).ok_or_else(|| {
        let list: Vec<String> = offers()
            .filter_map(|d| d.platform.as_ref())
            .map(Platform::to_string)
            .collect();
        Error::NoPlatform {
            what: what.to_owned(),
            wanted: wanted.to_string(),
            available: list.join(", "),
        }
    })
}

/// Build tools put their attestations beside images, under a platform that no host has.
fn is_attestation(d: &Descriptor) -> bool {
    d.annotations.contains_key("vnd.docker.reference.type")
        || d.platform
            .as_ref()
            .is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// Reads a config; it must name a diff id for each of so many layers.
pub(crate) fn config(bytes: &[u8], layers: usize, what: &str) -> Result<Config, Error> {
    let invalid = |why: String| Error::Invalid {
        what: format!("the config of {what}"),
        why,
    };
    let config: Config = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
    if config.rootfs.diff_ids.len() != layers {
        let named = config.rootfs.diff_ids.len();
        return Err(invalid(format!(
            "it names {named} layers where the manifest has {layers}"
        )));
    }
    match config.rootfs.diff_ids.iter().find(|d| !crate::digest::is_digest(d)) {
        Some(d) => Err(invalid(format!("{d:?} is no sha256 digest"))),
        None => Ok(config),
    }
}

/// The digest of the config that a manifest names.
pub(crate) fn config_digest(manifest: &[u8]) -> Option<String> {
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    crate::digest::is_digest(&manifest.config.digest).then_some(manifest.config.digest)
}

/// A manifest made here.
pub(crate) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Vec<u8>, Error> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    json(&manifest)
}

/// A document's bytes.
pub(crate) fn json(document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|e| Error::Invalid {
        what: "a document to be written".into(),
        why: e.to_string(),
    })
}

/// What a registry says of an error: `{"errors": [{"code", "message"}]}`.
pub(crate) fn error_text(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    let first = errors.errors.first()?;
    Some(match first.message.is_empty() {
        true => first.code.clone(),
        false => first.message.chars().take(300).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{{"digest":"{}","size":1}}}}"#,
            digest('a')
        );
        assert!(document(both.as_bytes(), OCI_MANIFEST, "x").is_err());
        let manifest = format!(
            r#"{{"schemaVersion":2,"layers":[],"config":{{"digest":"{}","size":1}}}}"#,
            digest('a')
        );
        assert!(document(manifest.as_bytes(), OCI_MANIFEST, "x").is_ok());
        assert!(document(manifest.as_bytes(), OCI_INDEX, "x").is_err());
        assert!(document(br#"{"schemaVersion":1}"#, "", "x").is_err());
        let evil = r#"{"schemaVersion":2,"layers":[],"config":{"digest":"sha256:../../x","size":1}}"#;
        assert!(document(evil.as_bytes(), "", "x").is_err());
    }

    #[test]
    fn platforms_are_chosen() {
        let one = |c: char, p: Option<&str>| Descriptor {
            platform: p.map(|p| p.parse().unwrap()),
            ..Descriptor::new(OCI_MANIFEST, digest(c), 1)
        };
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: vec![
                one('0', Some("unknown/unknown")),
                one('a', Some("linux/arm64/v8")),
                one('b', Some("linux/amd64")),
                one('c', Some("linux/amd64")),
            ],
        };
        let get = |p: &str| choose(&index, &p.parse().unwrap(), "x").map(|d| d.digest.clone());
        assert_eq!(get("linux/amd64").unwrap(), digest('b'));
        assert_eq!(get("linux/arm64").unwrap(), digest('a'));
        let e = get("linux/s390x").unwrap_err().to_string();
        assert!(
            e.contains("linux/arm64/v8, linux/amd64") && !e.contains("unknown"),
            "{e}"
        );
    }
}
