//! What the store knows of an image: one self-contained JSON file each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use biga_model::ImageFormat;
use serde::{Deserialize, Serialize};

use crate::Error;

/// `sha256:…` of an OCI image's config or of a disk file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// With `sha256:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ImageId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        if crate::digest::is_digest(s) {
            Ok(ImageId(s.to_owned()))
        } else {
            Err(Error::BadId(s.to_owned()))
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = Error;

    fn try_from(s: String) -> Result<Self, Error> {
        s.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> String {
        id.0
    }
}

/// One image, with all that is needed to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// Its identity.
    pub image_id: ImageId,
    /// `sha256:…` of its manifest; of one made here where it came without (archives); empty for an imported disk.
    pub manifest_digest: String,
    /// Digest of the index it was chosen from; empty where there was none.
    #[serde(default)]
    pub index_digest: String,
    /// OCI or disk.
    pub format: ImageFormat,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Bytes of its files on this disk; what it shares with others counts in full.
    pub size: u64,
    /// Its layers, lowest first; none for a disk.
    pub layers: Vec<LayerRecord>,
    /// What its config says of running it.
    pub config: ImageConfig,
    /// The disk file, for a disk image.
    #[serde(default)]
    pub disk: Option<DiskRecord>,
    /// When it was made, by its own word (RFC 3339).
    #[serde(default)]
    pub created: Option<String>,
    /// How it was made, oldest step first.
    #[serde(default)]
    pub history: Vec<History>,
    /// Repositories known to have its blobs, as `registry.example.org/team/app`.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Signatures, bills of materials and the like that were fetched with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Referrer>,
    /// Signatures that the policy asked for and that held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verified>,
    /// How it was built, where it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
}

/// What later builds may use again of an image that was built here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Built {
    /// What its last so many steps were made of, one for each of the last entries of its history.
    pub keys: Vec<String>,
    /// Images of other stages, which stay as long as it does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<ImageId>,
    /// It stays until then though nobody names it: the last good step of a build that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<biga_model::Timestamp>,
}

/// A manifest that says something about an image: a signature, a bill of materials, an attestation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// `sha256:…` of its manifest.
    pub digest: String,
    /// Media type of its manifest.
    pub media_type: String,
    /// Bytes of its manifest.
    pub size: u64,
    /// What it is, as `application/vnd.dev.cosign.artifact.sig.v1+json`; empty where it does not say.
    #[serde(default)]
    pub artifact_type: String,
    /// Of which manifest it speaks.
    pub subject: String,
    /// The tag by which it is found, where it is found by that alone, as `sha256-….sig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Its remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A signature that held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Of the manifest or index that was signed.
    pub digest: String,
    /// The name that was signed, as `registry.example.org/team/app`; empty where the signature has none.
    pub identity: String,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo).
    pub key: String,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// `sha256:…` of the uncompressed tar.
    pub diff_id: String,
    /// `sha256:…` of the blob as it came (compressed).
    pub digest: String,
    /// Media type of the blob.
    #[serde(default)]
    pub media_type: String,
    /// Bytes of the blob as it came.
    #[serde(default)]
    pub blob_size: u64,
    /// The EROFS file, absolute.
    pub file: PathBuf,
    /// Bytes of the EROFS file.
    pub size: u64,
}

/// A machine's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRecord {
    /// The file, absolute. Never opened for writing: instances put an overlay on it.
    pub file: PathBuf,
    /// Its format, checked; QEMU must be told and never guess.
    pub format: DiskFormat,
    /// Bytes the guest sees.
    pub virtual_size: u64,
}

/// Formats of disk files in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Bytes as they are.
    Raw,
    /// QEMU's.
    Qcow2,
}

impl DiskFormat {
    /// As QEMU calls it; also the file's extension.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        }
    }
}

/// The part of an OCI config that says how to run the image. JSON is in the OCI spelling (`Entrypoint`, …).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// The command's fixed part.
    #[serde(deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    #[serde(deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; empty means root.
    #[serde(deserialize_with = "null_default")]
    pub user: String,
    /// Where the command starts; empty means `/`.
    #[serde(deserialize_with = "null_default")]
    pub working_dir: String,
    /// As `SIGTERM` or `15`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Paths that want a volume each.
    #[serde(with = "key_set")]
    pub volumes: Vec<String>,
    /// As `80/tcp`.
    #[serde(with = "key_set")]
    pub exposed_ports: Vec<String>,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Docker's health check, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    /// Docker's shell of build steps and shell-form commands.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Instructions for builds that begin with this image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// One step of how an image was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// `null` and absence mean the same in configs written by Go programs.
fn null_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A Go `map[string]struct{}`: `{"80/tcp": {}}`.
mod key_set {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Empty {}

    pub fn serialize<S: Serializer>(keys: &[String], s: S) -> Result<S::Ok, S::Error> {
        keys.iter()
            .map(|k| (k, Empty {}))
            .collect::<BTreeMap<_, _>>()
            .serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
        let map = Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(d)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_as_go_writes_it() {
        let c: ImageConfig = serde_json::from_str(
            r#"{"Entrypoint":null,"Cmd":["sh"],"Env":null,"ExposedPorts":{"80/tcp":{}},"Volumes":null,"Labels":null,"User":"","OnBuild":null}"#,
        )
        .unwrap();
        assert_eq!(c.cmd, ["sh"]);
        assert_eq!(c.exposed_ports, ["80/tcp"]);
        assert!(c.entrypoint.is_empty() && c.labels.is_empty());
        let text = serde_json::to_string(&c).unwrap();
        assert!(text.contains(r#""ExposedPorts":{"80/tcp":{}}"#), "{text}");
        assert_eq!(serde_json::from_str::<ImageConfig>(&text).unwrap(), c);
    }

    #[test]
    fn ids_are_checked() {
        assert!("sha256:12".parse::<ImageId>().is_err());
        assert!(serde_json::from_str::<ImageId>("\"../../etc/passwd\"").is_err());
        let id: ImageId = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        assert_eq!(id.hex().len(), 64);
    }
}
