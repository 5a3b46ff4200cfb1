//! One document of the Container Device Interface, and what it says is to be done to a container
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).

use std::collections::BTreeMap;
use std::path::Path;

use biga_model::cdi::{is_device, is_kind};
use serde::Deserialize;
use serde_json::Value;

/// What a vendor says of its devices.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Of the specification, as `0.6.0`.
    pub cdi_version: String,
    /// `vendor.com/class`.
    pub kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// The devices.
    pub devices: Vec<DeviceEntry>,
    /// What is done for each of them.
    #[serde(default)]
    pub container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceEntry {
    /// Within its kind.
    pub name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// What is done for it.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What is done to a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// Variables, as `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Interfaces of the host that move into the container.
    pub net_devices: Vec<Value>,
    /// Programs.
    pub hooks: Vec<HookEntry>,
    /// Mounts.
    pub mounts: Vec<MountEntry>,
    /// Shares of caches and memory bandwidth.
    pub intel_rdt: Option<Value>,
    /// More groups of its process.
    #[serde(alias = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceNode {
    /// Inside.
    pub path: String,
    /// On the host, where it is another.
    pub host_path: String,
    /// `b`, `c` or `u`; `p` is a named pipe.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which driver.
    pub major: i64,
    /// Which of the driver's.
    pub minor: i64,
    /// Mode of the node.
    pub file_mode: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
    /// Its user.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MountEntry {
    /// On the host.
    pub host_path: String,
    /// Inside.
    pub container_path: String,
    /// Of the file system; a bind where empty.
    #[serde(rename = "type")]
    pub kind: String,
    /// As mount(8) has them.
    pub options: Vec<String>,
}

/// A program.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HookEntry {
    /// When.
    pub hook_name: String,
    /// Absolute.
    pub path: String,
    /// With its name first.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds it may take.
    pub timeout: Option<i64>,
}

impl Document {
    /// Reads a file's text: JSON, or YAML where the name says so.
    pub fn parse(path: &Path, text: &str) -> Result<Document, String> {
        let read: Result<Document, String> = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => serde_json::from_str(text).map_err(|e| e.to_string()),
            _ => serde_saphyr::from_str(text).map_err(|e| e.to_string()),
        };
        let document = read?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.trim_start_matches('v');
        if !matches!(version.split('.').next(), Some("0" | "1")) {
            return Err(format!(
                "cdiVersion {:?} is not known: 0.x and 1.x are",
                self.cdi_version
            ));
        }
        if !is_kind(&self.kind) {
            return Err(format!("kind {:?} is not of the form vendor.com/class", self.kind));
        }
        if self.devices.is_empty() {
            return Err("it describes no device".into());
        }
        match self.devices.iter().find(|d| !is_device(&d.name)) {
            Some(d) => Err(format!("{:?} is no name of a device", d.name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let yaml = "cdiVersion: 0.5.0\nkind: v.com/net\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/x\n      fileMode: 420\n      permissions: rw\ncontainerEdits:\n  env: [A=b]\n  additionalGids: [7]\n";
        let json = r#"{"cdiVersion": "0.5.0", "kind": "v.com/net", "containerEdits": {"env": ["A=b"], "additionalGids": [7]},
            "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/x", "fileMode": 420, "permissions": "rw"}]}}]}"#;
        let of_yaml = Document::parse(Path::new("/x/a.yaml"), yaml).unwrap();
        assert_eq!(of_yaml, Document::parse(Path::new("/x/a.json"), json).unwrap());
        assert_eq!(
            of_yaml.devices[0].container_edits.device_nodes[0].file_mode,
            Some(0o644)
        );
        assert_eq!(of_yaml.container_edits.additional_gids, [7]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let of = |json: &str| Document::parse(Path::new("a.json"), json).unwrap_err();
        let d = r#""devices": [{"name": "0"}]"#;
        for (text, hint) in [
            ("{".to_owned(), "EOF"),
            (
                format!(r#"{{"cdiVersion": "9.0.0", "kind": "v/c", {d}}}"#),
                "cdiVersion",
            ),
            (
                format!(r#"{{"cdiVersion": "0.5.0", "kind": "vc", {d}}}"#),
                "vendor.com/class",
            ),
            (
                r#"{"cdiVersion": "0.5.0", "kind": "v/c", "devices": []}"#.into(),
                "no device",
            ),
            (
                r#"{"cdiVersion": "0.5.0", "kind": "v/c", "devices": [{"name": "-"}]}"#.into(),
                "no name",
            ),
            (
                format!(r#"{{"cdiVersion": "0.5.0", "kind": "v/c", "odd": 1, {d}}}"#),
                "odd",
            ),
        ] {
            let e = of(&text);
            assert!(e.contains(hint), "{text}: {e}");
        }
    }
}
