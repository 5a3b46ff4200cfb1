//! `biga login` and `biga logout`: the logins of Docker's config file, which both programs then share.

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use base64::Engine as _;
use biga_image::{Auth, docker_config};
use serde_json::json;

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{line, note};
use crate::term;

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// Name; asked for where left out
    #[arg(short = 'u', long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Host and port of the registry; the Docker Hub where left out
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Arguments of `logout`.
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {
    /// Host and port of the registry; the Docker Hub where left out
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Docker's config file of this user.
fn file() -> anyhow::Result<PathBuf> {
    crate::serve::docker_config().ok_or_else(|| {
        fail(
            Code::USAGE,
            "there is no home directory: say with DOCKER_CONFIG where to keep logins",
        )
    })
}

/// `host[:port]` of what the user wrote.
fn registry(word: Option<&str>) -> anyhow::Result<String> {
    let Some(word) = word else {
        return Ok(biga_model::reference::DEFAULT_REGISTRY.into());
    };
    let host = word
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    // A reference in it is what a registry's name is.
    match format!("{host}/x").parse::<biga_model::Reference>() {
        Ok(r) if r.registry == host || host == "index.docker.io" => Ok(r.registry),
        _ => Err(fail(
            Code::USAGE,
            format!("{word:?} is no registry: write its host, or host:port"),
        )),
    }
}

/// `login`.
pub async fn login(cx: &Context, args: LoginArgs) -> anyhow::Result<Code> {
    let registry = registry(args.registry.as_deref())?;
    let path = file()?;
    if args.password_stdin && args.username.is_none() {
        return Err(fail(Code::USAGE, "--password-stdin needs -u NAME"));
    }
    let username = match args.username {
        Some(name) => name,
        None => ask("Username: ", false)?,
    };
    let password = match args.password_stdin {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_string()
        }
        false => ask("Password: ", true)?,
    };
    if username.is_empty() || password.is_empty() || username.contains(':') {
        return Err(fail(Code::USAGE, "a name without colons and a password are needed"));
    }
    let auth = Auth::Basic { username, password };
    let header = header(&auth, &registry).unwrap_or_default();
    cx.client
        .registry_login(&header)
        .await
        .map_err(|e| fail(Code::DENIED, format!("not logged in at {registry}: {e}")))?;
    match docker_config::store(&path, &registry, &auth).await? {
        Some(helper) => note(format!("kept by docker-credential-{helper}")),
        None => note(format!(
            "kept in {}, which holds it as good as readable",
            path.display()
        )),
    }
    line(format!("logged in at {registry}"))?;
    Ok(Code::OK)
}

/// `logout`.
pub async fn logout(args: LogoutArgs) -> anyhow::Result<Code> {
    let registry = registry(args.registry.as_deref())?;
    let path = file()?;
    if docker_config::erase(&path, &registry).await? {
        line(format!("logged out of {registry}"))?;
        return Ok(Code::OK);
    }
    let file = path.display();
    Err(fail(
        Code::NOT_FOUND,
        format!("no login for {registry} is kept in {file}"),
    ))
}

/// Asks the user; a password is not shown while it is typed.
fn ask(what: &str, secret: bool) -> anyhow::Result<String> {
    if !term::stdin_is_terminal() {
        return Err(fail(
            Code::USAGE,
            "standard input is no terminal: give -u NAME and --password-stdin",
        ));
    }
    let mut err = std::io::stderr();
    write!(err, "{what}")?;
    err.flush()?;
    let quiet = secret.then(term::NoEcho::enter).transpose()?;
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text)?;
    if quiet.is_some() {
        writeln!(err)?;
    }
    drop(quiet);
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

/// What this user keeps for a registry, as the value of `X-Registry-Auth`; `None` where nothing is kept.
pub async fn kept(registry: &str) -> anyhow::Result<Option<String>> {
    let Some(path) = crate::serve::docker_config() else {
        return Ok(None);
    };
    let auth = docker_config::lookup(&path, registry).await?;
    Ok(header(&auth, registry))
}

/// What this user keeps for several registries, as the value of `X-Registry-Config`; `None` where nothing is kept.
pub async fn kept_for(registries: impl IntoIterator<Item = String>) -> anyhow::Result<Option<String>> {
    let Some(path) = crate::serve::docker_config() else {
        return Ok(None);
    };
    let mut all = serde_json::Map::new();
    for registry in registries {
        let auth = docker_config::lookup(&path, &registry).await?;
        all.extend(document(&auth, &registry).map(|d| (registry, d)));
    }
    let text = serde_json::Value::Object(all).to_string();
    Ok((text != "{}").then(|| base64::engine::general_purpose::URL_SAFE.encode(text)))
}

fn header(auth: &Auth, registry: &str) -> Option<String> {
    Some(base64::engine::general_purpose::URL_SAFE.encode(document(auth, registry)?.to_string()))
}

fn document(auth: &Auth, registry: &str) -> Option<serde_json::Value> {
    Some(match auth {
        Auth::Basic { username, password } => {
            json!({"username": username, "password": password, "serveraddress": registry})
        }
        Auth::Identity(token) => json!({"identitytoken": token, "serveraddress": registry}),
        Auth::Bearer(token) => json!({"registrytoken": token, "serveraddress": registry}),
        Auth::Anonymous | Auth::DockerConfig(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts() {
        for (word, host) in [
            (None, "docker.io"),
            (Some("docker.io"), "docker.io"),
            (Some("https://index.docker.io/"), "docker.io"),
            (Some("https://ghcr.io/"), "ghcr.io"),
            (Some("localhost:5000"), "localhost:5000"),
        ] {
            assert_eq!(registry(word).unwrap(), host);
        }
        for word in ["", "a b", "ghcr.io/team", "registry"] {
            assert!(registry(Some(word)).is_err(), "{word}");
        }
    }
}
