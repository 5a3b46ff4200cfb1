//! `biga kubeconfig`: how kubectl reaches the daemon.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::exit::{Code, fail};
use crate::output::{emit, yaml};

/// Arguments of `kubeconfig`.
#[derive(Debug, Clone, clap::Args)]
pub struct KubeconfigArgs {
    /// Where the daemon keeps its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/biga")]
    pub state: PathBuf,
    /// Address the daemon listens on
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:6477")]
    pub server: String,
}

/// The certificates of a client, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Of the authority that signed the server's certificate.
    pub ca: String,
    /// The client's certificate.
    pub certificate: String,
    /// The client's key.
    pub key: String,
}

/// Reads the administrator's certificates from the daemon's state.
fn credentials(state: &Path) -> anyhow::Result<Credentials> {
    let dir = state.join("pki");
    let read = |name: &str| {
        let p = dir.join(name);
        std::fs::read_to_string(&p).map_err(|e| {
            fail(
                Code::FAILED,
                format!(
                    "cannot read {}: {e}; `biga serve` makes it at its first start",
                    p.display()
                ),
            )
        })
    };
    Ok(Credentials {
        ca: read("ca.crt")?,
        certificate: read("admin.crt")?,
        key: read("admin.key")?,
    })
}

/// Prints the config.
pub fn kubeconfig(args: &KubeconfigArgs, namespace: &str) -> anyhow::Result<Code> {
    let c = credentials(&args.state)?;
    emit(&yaml(&render(&c, &args.server, namespace))?)?;
    Ok(Code::OK)
}

fn render(c: &Credentials, server: &str, namespace: &str) -> Value {
    let b64 = |s: &str| STANDARD.encode(s);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "biga", "cluster": {"server": server, "certificate-authority-data": b64(&c.ca)}}],
        "users": [{"name": "biga-admin", "user": {
            "client-certificate-data": b64(&c.certificate),
            "client-key-data": b64(&c.key),
        }}],
        "contexts": [{"name": "biga", "context": {"cluster": "biga", "user": "biga-admin", "namespace": namespace}}],
        "current-context": "biga",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_holds_everything() {
        let c = Credentials {
            ca: "CA".into(),
            certificate: "CERT".into(),
            key: "KEY".into(),
        };
        let text = yaml(&render(&c, "https://127.0.0.1:6477", "lab")).unwrap();
        insta::assert_snapshot!("kubeconfig", text);
    }
}
