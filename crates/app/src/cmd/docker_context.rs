//! `biga docker-context`: how Docker's clients reach the daemon.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use biga_client::Endpoint;
use biga_image::docker_config;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::exit::{Code, fail};
use crate::output::{line, note};
use crate::serve::DOCKER_SOCKET;

/// Arguments of `docker-context`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "In a shell: eval \"$(biga docker-context)\"; from then on docker, docker compose and everything \
                        else that heeds DOCKER_HOST talks to this daemon. For all shells: biga docker-context --use; \
                        back again: docker context use default. Neither needs Docker's command line."
)]
pub struct DockerContextArgs {
    /// Socket of the Docker API (`biga serve --docker-socket`); docker.sock beside the socket of --host where left out
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Make a context of Docker's command line (`docker context ls`) instead, or change that of this name
    #[arg(long)]
    pub create: bool,
    /// Make it, and the one that is used where DOCKER_HOST and DOCKER_CONTEXT are not set
    #[arg(long = "use")]
    pub use_it: bool,
    /// Name of the context
    #[arg(long, value_name = "NAME", default_value = "biga")]
    pub name: String,
}

/// Prints a line for a shell, or makes a context.
pub fn docker_context(args: &DockerContextArgs, host: &Endpoint) -> anyhow::Result<Code> {
    let socket = args.socket.clone().unwrap_or_else(|| beside(host));
    let socket =
        std::path::absolute(&socket).map_err(|e| fail(Code::USAGE, format!("{} is no path: {e}", socket.display())))?;
    let url = format!("unix://{}", socket.display());
    if !args.create && !args.use_it {
        line(export(&url))?;
        return Ok(Code::OK);
    }
    if !is_name(&args.name) {
        return Err(fail(
            Code::USAGE,
            format!(
                "{:?} is no name of a context: letters, digits and . _ + - make one, and default is Docker's own",
                args.name
            ),
        ));
    }
    let config = crate::serve::docker_config().ok_or_else(|| {
        fail(
            Code::USAGE,
            "there is no home directory: say with DOCKER_CONFIG where Docker's contexts are",
        )
    })?;
    write(&meta(&config, &args.name), &args.name, &url)?;
    if args.use_it {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime
            .block_on(docker_config::set_context(&config, &args.name))
            .map_err(anyhow::Error::msg)?;
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT"] {
            if std::env::var_os(name).is_some_and(|v| !v.is_empty()) {
                note(format!("{name} is set in this shell and goes before it: unset {name}"));
            }
        }
    }
    line(&args.name)?;
    Ok(Code::OK)
}

fn beside(host: &Endpoint) -> PathBuf {
    let Endpoint::Unix(path) = host;
    path.with_file_name(DOCKER_SOCKET)
}

fn export(url: &str) -> String {
    format!("export DOCKER_HOST={}", shell_words::quote(url))
}

/// What Docker's command line takes for a name, and does not keep for itself.
fn is_name(name: &str) -> bool {
    let rest = |c: u8| c.is_ascii_alphanumeric() || b"._+-".contains(&c);
    let bytes = name.as_bytes();
    name != "default" && bytes.len() > 1 && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(|c| rest(*c))
}

/// Where Docker's command line keeps a context, beside its config file.
fn meta(config: &Path, name: &str) -> PathBuf {
    let id: String = Sha256::digest(name).iter().map(|b| format!("{b:02x}")).collect();
    config
        .with_file_name("contexts")
        .join("meta")
        .join(id)
        .join("meta.json")
}

/// Writes a context, or another address into one that is there.
fn write(path: &Path, name: &str, url: &str) -> anyhow::Result<()> {
    let old: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let text = context(&old, name, url).to_string();
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let part = path.with_extension("part");
        std::fs::write(&part, text)?;
        std::fs::rename(&part, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The context, with what somebody else described.
fn context(old: &Value, name: &str, url: &str) -> Value {
    let metadata = match &old["Metadata"] {
        Value::Object(m) => Value::Object(m.clone()),
        _ => json!({"Description": "Biga on this host"}),
    };
    json!({
        "Name": name,
        "Metadata": metadata,
        "Endpoints": {"docker": {"Host": url, "SkipTLSVerify": false}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_understands_it() {
        let host: Endpoint = "unix:///run/biga/api.sock".parse().unwrap();
        let url = format!("unix://{}", beside(&host).display());
        assert_eq!(export(&url), "export DOCKER_HOST=unix:///run/biga/docker.sock");
        assert_eq!(export("unix:///a b/s"), "export DOCKER_HOST='unix:///a b/s'");
    }

    #[test]
    fn names_are_dockers() {
        for name in ["biga", "a.b_c+d-1", "0x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a", "default", "-a", "a/b", "../x", "a b", "ä1"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn descriptions_stay() {
        let new = context(&Value::Null, "biga", "unix:///a");
        assert_eq!(new["Metadata"]["Description"], "Biga on this host");
        let mut told = new.clone();
        told["Metadata"]["Description"] = "mine".into();
        let again = context(&told, "biga", "unix:///b");
        assert_eq!(again["Metadata"]["Description"], "mine");
        assert_eq!(again["Endpoints"]["docker"]["Host"], "unix:///b");
    }
}
