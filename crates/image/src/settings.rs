//! The settings of images, as they stand in the daemon's file. What is left out stays as it is by default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, Options};

/// `images.yaml` of the daemon.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Registries that need something of their own, by `host[:port]`.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Docker's directory of CAs and client certificates; `/etc/docker/certs.d` where it is left out.
    pub certs_dir: Option<PathBuf>,
    /// File in the form of Docker's `config.json` with the credentials of this host.
    pub credentials: Option<PathBuf>,
    /// Layers fetched at once in one pull.
    pub parallel_layers: Option<usize>,
    /// Tries of a request, or of a blob without progress, before it fails.
    pub attempts: Option<u32>,
    /// Disk that images may take, as `50Gi`; above it those used least recently go.
    pub disk_budget: Option<biga_model::Memory>,
    /// Mount layers through loop devices also where the kernel could mount them from their files.
    pub loop_devices: bool,
}

/// What is special about one registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Addresses to ask before it, as `https://mirror.example.org`.
    pub mirrors: Vec<String>,
    /// It may be spoken to over plain HTTP.
    pub insecure: bool,
}

impl Settings {
    /// Options with these settings. `path` is the settings' file, for messages, and where relative paths are seen from.
    pub fn options(self, path: &Path) -> Result<Options, Error> {
        let bad = |why: String| Error::Settings {
            path: path.to_path_buf(),
            why,
        };
        let dir = path.parent().unwrap_or(path);
        let mut o = Options::default();
        for (host, r) in self.registries {
            if host.is_empty() || host.contains(['/', ' ']) {
                return Err(bad(format!("{host:?} is no registry: write host or host:port")));
            }
            if let Some(m) = r
                .mirrors
                .iter()
                .find(|m| !m.starts_with("http://") && !m.starts_with("https://"))
            {
                return Err(bad(format!(
                    "the mirror {m:?} of {host} must begin with https:// or http://"
                )));
            }
            if r.insecure {
                o.insecure_registries.push(host.clone());
            }
            if !r.mirrors.is_empty() {
                o.mirrors.insert(host, r.mirrors);
            }
        }
        if self.parallel_layers == Some(0) || self.attempts == Some(0) {
            return Err(bad("parallelLayers and attempts must be at least 1".into()));
        }
        o.certs_dir = self.certs_dir.map_or(o.certs_dir, |d| dir.join(d));
        o.credentials = self.credentials.map(|c| dir.join(c));
        o.parallel_layers = self.parallel_layers.unwrap_or(o.parallel_layers);
        o.attempts = self.attempts.unwrap_or(o.attempts);
        o.disk_budget = self.disk_budget.map(|b| b.0);
        o.loop_devices = self.loop_devices;
        Ok(o)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> Result<Options, String> {
        let settings: Settings = serde_json::from_str(json).map_err(|e| e.to_string())?;
        settings
            .options(Path::new("/etc/biga/images.yaml"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn settings_become_options() {
        let o = options(
            r#"{"registries":{"docker.io":{"mirrors":["https://m.example"]},"r.example:5000":{"insecure":true}},
            "credentials":"auth.json","certsDir":"/c","diskBudget":"2Gi","attempts":2,"loopDevices":true}"#,
        )
        .unwrap();
        assert_eq!(o.mirrors["docker.io"], ["https://m.example"]);
        assert_eq!(o.insecure_registries, ["r.example:5000"]);
        assert_eq!(o.credentials.as_deref(), Some(Path::new("/etc/biga/auth.json")));
        assert_eq!(
            (o.certs_dir.as_path(), o.attempts, o.loop_devices),
            (Path::new("/c"), 2, true)
        );
        assert_eq!(o.disk_budget, Some(2 << 30));
        let o = options("{}").unwrap();
        assert_eq!(
            (o.disk_budget, o.credentials, o.attempts),
            (None, None, Options::default().attempts)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"{"mirrors":{}}"#,
            r#"{"registries":{"https://x":{}}}"#,
            r#"{"registries":{"x":{"mirrors":["m.example"]}}}"#,
            r#"{"attempts":0}"#,
            r#"{"diskBudget":"much"}"#,
        ] {
            assert!(options(json).is_err(), "{json}");
        }
    }
}
