//! Credentials as `docker login` leaves them.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::Auth;
use crate::Error;

/// What a helper program may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperReply {
    username: String,
    secret: String,
}

/// Looks a registry (`host[:port]`) up in Docker's config file; who is not there asks as nobody.
pub(super) async fn lookup(path: &Path, registry: &str) -> Result<Auth, Error> {
    let bad = |why: String| Error::Credentials {
        registry: registry.to_owned(),
        why,
    };
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Auth::Anonymous),
        Err(e) => return Err(bad(format!("cannot read {}: {e}", path.display()))),
    };
    let config: Config =
        serde_json::from_slice(&bytes).map_err(|e| bad(format!("{} is not valid: {e}", path.display())))?;
    let helper = config.cred_helpers.get(registry).or(config.creds_store.as_ref());
    if let Some(helper) = helper.filter(|h| !h.is_empty()) {
        // The Docker Hub's credentials are kept under the address of its first API.
        let server = if is_hub(registry) { HUB_KEY } else { registry };
        if let Some(auth) = ask_helper(helper, server).await.map_err(bad)? {
            return Ok(auth);
        }
    }
    let entry = config.auths.iter().find(|(key, _)| matches(key, registry));
    entry.map_or(Ok(Auth::Anonymous), |(_, e)| from_entry(e).map_err(bad))
}

const HUB_KEY: &str = "https://index.docker.io/v1/";

fn is_hub(registry: &str) -> bool {
    matches!(registry, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// Keys are hosts, or addresses of which the host counts.
fn matches(key: &str, registry: &str) -> bool {
    let host = key.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (is_hub(host) && is_hub(registry))
}

fn from_entry(entry: &Entry) -> Result<Auth, String> {
    if !entry.registrytoken.is_empty() {
        return Ok(Auth::Bearer(entry.registrytoken.clone()));
    }
    if !entry.identitytoken.is_empty() {
        return Ok(Auth::Identity(entry.identitytoken.clone()));
    }
    if !entry.auth.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(entry.auth.trim())
            .map_err(|_| "its auth field is no base64".to_owned())?;
        let text = String::from_utf8(bytes).map_err(|_| "its auth field is no text".to_owned())?;
        let (username, password) = text.split_once(':').ok_or("its auth field has no colon")?;
        return Ok(Auth::Basic {
            username: username.into(),
            password: password.trim_end_matches('\0').into(),
        });
    }
    if entry.username.is_empty() {
        return Ok(Auth::Anonymous);
    }
    Ok(Auth::Basic {
        username: entry.username.clone(),
        password: entry.password.clone(),
    })
}

/// `docker-credential-NAME get`, the server's address on its standard input.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Auth>, String> {
    if !name
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input has said all it wants to.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let out = tokio::time::timeout(HELPER_TIMEOUT, run)
        .await
        .map_err(|_| format!("{program} does not answer"))?
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{program} failed: {}", said.trim()));
    }
    let reply: HelperReply =
        serde_json::from_slice(&out.stdout).map_err(|_| format!("{program} gave no credentials"))?;
    Ok(Some(if reply.username == "<token>" {
        Auth::Identity(reply.secret)
    } else {
        Auth::Basic {
            username: reply.username,
            password: reply.secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert!(matches("https://index.docker.io/v1/", "docker.io"));
        assert!(matches("localhost:5000", "localhost:5000"));
        assert!(matches("https://ghcr.io", "ghcr.io"));
        assert!(!matches("ghcr.io.evil.example", "ghcr.io"));
    }

    #[test]
    fn entries() {
        let e = |auth: &str| {
            from_entry(&Entry {
                auth: auth.into(),
                ..Entry::default()
            })
        };
        assert!(
            matches!(e("bWU6cGE6c3M=").unwrap(), Auth::Basic { username, password } if username == "me" && password == "pa:ss")
        );
        assert!(e("!!").is_err());
        assert!(matches!(e("").unwrap(), Auth::Anonymous));
    }

    #[tokio::test]
    async fn helpers_cannot_be_paths() {
        assert!(ask_helper("../../bin/sh", "x").await.is_err());
    }
}
