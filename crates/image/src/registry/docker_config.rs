//! Credentials as `docker login` keeps them: in Docker's config file, or with a helper program that the file names.

use std::collections::HashMap;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use serde_json::{Map, Value, json};
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
pub async fn lookup(path: &Path, registry: &str) -> Result<Auth, Error> {
    let bad = |why: String| Error::Credentials {
        registry: registry.to_owned(),
        why,
    };
    let document = read(path).await.map_err(bad)?;
    let config: Config = serde_json::from_value(Value::Object(document))
        .map_err(|e| bad(format!("{} is not valid: {e}", path.display())))?;
    if let Some(helper) = config.helper(registry)
        && let Some(auth) = ask_helper(helper, key_of(registry)).await.map_err(bad)?
    {
        return Ok(auth);
    }
    let entry = config.auths.iter().find(|(key, _)| matches(key, registry));
    entry.map_or(Ok(Auth::Anonymous), |(_, e)| from_entry(e).map_err(bad))
}

/// Keeps credentials for a registry, where the file says that they are kept: with a helper, or in the file itself.
/// Returns the helper's name where there is one.
pub async fn store(path: &Path, registry: &str, auth: &Auth) -> Result<Option<String>, Error> {
    let bad = |why: String| Error::Credentials {
        registry: registry.to_owned(),
        why,
    };
    let (username, secret, entry) = match auth {
        Auth::Basic { username, password } => {
            let both = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            (username.as_str(), password.as_str(), json!({ "auth": both }))
        }
        Auth::Identity(token) => ("<token>", token.as_str(), json!({ "identitytoken": token })),
        _ => return Err(bad("only a name with a password, or a token, can be kept".into())),
    };
    let mut document = read(path).await.map_err(bad)?;
    let config: Config = serde_json::from_value(Value::Object(document.clone()))
        .map_err(|e| bad(format!("{} is not valid: {e}", path.display())))?;
    let helper = config.helper(registry).map(str::to_owned);
    let entry = match &helper {
        Some(helper) => {
            let said = json!({ "ServerURL": key_of(registry), "Username": username, "Secret": secret });
            run_helper(helper, "store", &said.to_string()).await.map_err(bad)?;
            // As Docker does: the file tells that there is something, and the helper what.
            json!({})
        }
        None => entry,
    };
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    let auths = auths
        .as_object_mut()
        .ok_or_else(|| bad(format!("auths in {} is no object", path.display())))?;
    auths.retain(|key, _| !matches(key, registry));
    auths.insert(key_of(registry).to_owned(), entry);
    write(path, &document).map_err(|e| bad(format!("cannot write {}: {e}", path.display())))?;
    Ok(helper)
}

/// Forgets the credentials for a registry. Tells whether there were any.
pub async fn erase(path: &Path, registry: &str) -> Result<bool, Error> {
    let bad = |why: String| Error::Credentials {
        registry: registry.to_owned(),
        why,
    };
    let mut document = read(path).await.map_err(bad)?;
    let config: Config = serde_json::from_value(Value::Object(document.clone()))
        .map_err(|e| bad(format!("{} is not valid: {e}", path.display())))?;
    let mut there = false;
    if let Some(helper) = config.helper(registry) {
        there = ask_helper(helper, key_of(registry)).await.map_err(bad)?.is_some();
        if there {
            run_helper(helper, "erase", key_of(registry)).await.map_err(bad)?;
        }
    }
    if let Some(auths) = document.get_mut("auths").and_then(Value::as_object_mut) {
        let before = auths.len();
        auths.retain(|key, _| !matches(key, registry));
        if auths.len() < before {
            there = true;
            write(path, &document).map_err(|e| bad(format!("cannot write {}: {e}", path.display())))?;
        }
    }
    Ok(there)
}

/// Names the context that Docker's clients use where nobody says another; the rest of the file stays.
pub async fn set_context(path: &Path, name: &str) -> Result<(), String> {
    let mut document = read(path).await?;
    document.insert("currentContext".into(), name.into());
    write(path, &document).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// The whole file, with all that is of no interest here. What is missing is empty.
async fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|e| format!("{} is not valid: {e}", path.display()))
}

/// Replaces the file; others may not read it.
fn write(path: &Path, document: &Map<String, Value>) -> std::io::Result<()> {
    use std::io::Write;
    // A link (to a file under version control, say) stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let dir = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    let part = path.with_added_extension("part");
    let _ = std::fs::remove_file(&part);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_all()));
    written
        .and_then(|()| std::fs::rename(&part, path))
        .inspect_err(|_| drop(std::fs::remove_file(&part)))
}

impl Config {
    /// The helper that keeps a registry's credentials.
    fn helper(&self, registry: &str) -> Option<&str> {
        let own = self
            .cred_helpers
            .get(registry)
            .or_else(|| self.cred_helpers.get(key_of(registry)));
        own.or(self.creds_store.as_ref())
            .map(String::as_str)
            .filter(|h| !h.is_empty())
    }
}

/// Under which name a registry's credentials are kept: the Docker Hub's under the address of its first API.
fn key_of(registry: &str) -> &str {
    if is_hub(registry) { HUB_KEY } else { registry }
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

/// What a helper says of a server.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Auth>, String> {
    let Some(said) = run_helper(name, "get", server).await? else {
        return Ok(None);
    };
    let reply: HelperReply =
        serde_json::from_slice(&said).map_err(|_| format!("docker-credential-{name} gave no credentials"))?;
    Ok(Some(if reply.username == "<token>" {
        Auth::Identity(reply.secret)
    } else {
        Auth::Basic {
            username: reply.username,
            password: reply.secret,
        }
    }))
}

/// `docker-credential-NAME VERB` with this on its standard input; what it writes, or `None` where it knows nothing of the
/// server (<https://github.com/docker/docker-credential-helpers>).
async fn run_helper(name: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>, String> {
    if !name
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input has said all it wants to.
            let _ = stdin.write_all(input.as_bytes()).await;
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
    Ok(Some(out.stdout))
}

/// For the fuzzers.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<Config>(bytes) {
        for (key, entry) in &config.auths {
            let _ = from_entry(entry);
            let _ = (matches(key, "docker.io"), config.helper(key));
        }
    }
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
