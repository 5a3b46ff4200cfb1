//! `biga docker-context`: how Docker's clients reach the daemon.

use std::path::{Path, PathBuf};

use biga_client::Endpoint;

use crate::exit::{Code, fail};
use crate::output::line;
use crate::serve::DOCKER_SOCKET;

/// Arguments of `docker-context`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "In a shell: eval \"$(biga docker-context)\"; from then on docker, docker compose and everything \
                        else that heeds DOCKER_HOST talks to this daemon."
)]
pub struct DockerContextArgs {
    /// Socket of the Docker API (`biga serve --docker-socket`); docker.sock beside the socket of --host where left out
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Prints a line for a shell.
pub fn docker_context(args: &DockerContextArgs, host: &Endpoint) -> anyhow::Result<Code> {
    let socket = args.socket.clone().unwrap_or_else(|| beside(host));
    let socket =
        std::path::absolute(&socket).map_err(|e| fail(Code::USAGE, format!("{} is no path: {e}", socket.display())))?;
    line(export(&socket))?;
    Ok(Code::OK)
}

fn beside(host: &Endpoint) -> PathBuf {
    let Endpoint::Unix(path) = host;
    path.with_file_name(DOCKER_SOCKET)
}

fn export(socket: &Path) -> String {
    let url = format!("unix://{}", socket.display());
    format!("export DOCKER_HOST={}", shell_words::quote(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_understands_it() {
        let host: Endpoint = "unix:///run/biga/api.sock".parse().unwrap();
        let socket = beside(&host);
        assert_eq!(export(&socket), "export DOCKER_HOST=unix:///run/biga/docker.sock");
        assert_eq!(export(Path::new("/a b/s")), "export DOCKER_HOST='unix:///a b/s'");
    }
}
