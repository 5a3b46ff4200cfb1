//! The daemon: store, API, control and agent in one process.

mod backend;
mod build;
mod buildkit;
mod checkpoints;
mod docker;
mod files;
mod images;
mod memory;
mod node;
mod notify;
mod usage;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use biga_agent::cdi::Cdi;
use biga_agent::engine::Layout;
use biga_agent::{Agent, Options as AgentOptions};
use biga_api_kube::Registry;
use biga_control::schedule::AtBirth;
use biga_model::{Event, Image, Instance, Network, Node, Volume};
use biga_server::{Options as ListenOptions, Server, TlsOptions, UnixOptions, pki};
use biga_store::embedded::EmbeddedStore;
use biga_store::{SpecWriter, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use images::docker_config;

/// Options of `biga serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeOptions {
    /// Where objects, images, volumes and the instances' files are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/biga")]
    pub state: PathBuf,
    /// Where sockets and the files of running instances are
    #[arg(long, value_name = "DIR", default_value = "/run/biga")]
    pub run: PathBuf,
    /// First part of the names of bridges, cgroups and network namespaces; another daemon on this host needs another
    #[arg(long, value_name = "WORD", default_value = "biga")]
    pub prefix: String,
    /// Address for kubectl and other clients over TLS; "none" listens on the unix socket only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6477")]
    pub tls_listen: String,
    /// Socket for Docker's command line and libraries, "none" for no socket; where left out, those that the service manager
    /// passed (LISTEN_FDS), else docker.sock below --run
    #[arg(long, value_name = "PATH")]
    pub docker_socket: Option<PathBuf>,
    /// Settings of images: mirrors, credentials, disk budget; /etc/biga/images.yaml where left out, if there is one
    #[arg(long, value_name = "FILE")]
    pub image_config: Option<PathBuf>,
    /// Disk that images may take, as 50Gi; above it those used least recently go. Stands over that of --image-config
    #[arg(long, value_name = "SIZE")]
    pub disk_budget: Option<biga_model::Memory>,
    /// Which images may come in and run; /etc/biga/policy.yaml where left out, if there is one
    #[arg(long, value_name = "FILE")]
    pub image_policy: Option<PathBuf>,
    /// One more OCI runtime that instances can name, as "kata=/opt/kata/bin/kata-runtime"; installed ones are known
    #[arg(long = "runtime", value_name = "NAME=PATH", value_parser = named_path)]
    pub runtimes: Vec<(String, PathBuf)>,
    /// Directory with documents of the Container Device Interface, instead of /etc/cdi and /var/run/cdi; what is in the last one
    /// counts
    #[arg(long = "cdi-dir", value_name = "DIR")]
    pub cdi_dirs: Vec<PathBuf>,
    /// Form of the daemon's own log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to log: a level, or levels of modules as in "info,biga_agent=debug"
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Name of this node; the host's name where left out
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
}

/// Form of the daemon's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl ServeOptions {
    /// The TLS address, unless it was switched off.
    pub fn tls_address(&self) -> Option<&str> {
        match self.tls_listen.as_str() {
            "" | "none" => None,
            a => Some(a),
        }
    }

    /// Listens for Docker's clients, unless that was switched off.
    async fn docker(&self, run: &Path, passed: Vec<OwnedFd>) -> anyhow::Result<Option<Server>> {
        let path = match &self.docker_socket {
            Some(p) if p.as_os_str() == "none" => return Ok(None),
            Some(p) => Some(absolute(p)?),
            None => passed.is_empty().then(|| run.join(DOCKER_SOCKET)),
        };
        docker::bind(path.as_deref(), passed).await.map(Some)
    }

    fn node_name(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = self.node_name.clone().unwrap_or_else(host);
        if biga_model::kind::is_resource_name(&name) {
            name
        } else {
            "node".into()
        }
    }
}

/// Name of the API's socket below the run root.
pub const SOCKET: &str = "api.sock";
/// Name of the Docker API's socket below the run root.
pub const DOCKER_SOCKET: &str = "docker.sock";

/// Runs the daemon until it is told to end.
pub fn run(options: ServeOptions) -> anyhow::Result<()> {
    let begun = Instant::now();
    let passed = biga_sys::activation::take().context("cannot take the sockets that the service manager passed")?;
    log_to_stderr(&options)?;
    raise_open_files();
    // One TLS stack for server and registry client.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(serve(options, passed, begun));
    // What still runs in threads of its own (a trial of KVM, say) is not waited for.
    runtime.shutdown_background();
    result
}

/// As the unit of `dist/` sets it, for who starts the daemon by hand: each instance takes some descriptors, and shells begin with
/// 1024. Containers start with the same, unless they have limits of their own.
const OPEN_FILES: u64 = 1 << 20;

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
    if now.current.is_some_and(|soft| soft < most) {
        let wanted = Rlimit {
            current: Some(most),
            maximum: now.maximum,
        };
        if let Err(e) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!("the limit of open files stays at {:?}: {e}", now.current);
        }
    }
}

async fn serve(options: ServeOptions, passed: Vec<OwnedFd>, begun: Instant) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "biga serve must run as root: it makes namespaces and mounts"
    );
    // Nobody would answer there, and the manager would start us for it again and again.
    anyhow::ensure!(
        passed.is_empty() || options.docker_socket.as_ref().is_none_or(|p| p.as_os_str() != "none"),
        "--docker-socket none, and the service manager passed a socket for the Docker API: stop biga.socket"
    );
    let layout = Layout {
        state: absolute(&options.state)?,
        run: absolute(&options.run)?,
        prefix: options.prefix.clone(),
    };
    biga_agent::engine::private_dir(&layout.state)?;
    biga_agent::engine::passage_dir(&layout.run)?;
    let _lock = lock(&layout.state)?;
    let store = EmbeddedStore::open(layout.state.join("store.redb")).context("cannot open the store")?;
    let node = options.node_name();
    let dynamic: Arc<dyn Store> = store.clone();
    let agent = Agent::start(agent_options(&node, &layout, &options)?, dynamic.clone())
        .await
        .context("cannot start the agent")?;
    let shutdown = CancellationToken::new();
    let driver = biga_control::Driver::new(dynamic.clone(), biga_control::Options::default());
    let control = tokio::spawn(driver.run(shutdown.clone()));

    let server = Server::bind(&listen(&options, &layout)?)
        .await
        .context("cannot listen")?;
    let docker = options.docker(&layout.run, passed).await?;
    let (engine, streams, files) = (agent.engine().clone(), agent.streams().clone(), agent.files().clone());
    let backend = node::Node::new(engine, streams, files, dynamic.clone());
    let builder = backend.builder().clone();
    tokio::spawn(async move { builder.sweep().await });
    tokio::spawn(memory::give_back(dynamic.clone()));
    let router = router(&dynamic, backend.clone(), &node);
    if let Some(address) = server.tls_address() {
        std::fs::write(layout.run.join("tls-address"), address.to_string()).context("cannot note the TLS address")?;
    }
    tracing::info!(node, state = %layout.state.display(), took_ms = begun.elapsed().as_millis(), "biga serves");
    if let Some(d) = &docker {
        tracing::info!(sockets = ?d.paths(), "Docker's clients are heard");
    }
    notify::ready();
    let serving = tokio::spawn(server.run(router, shutdown.clone()));
    let docker = docker.map(|d| {
        let router = docker::router(dynamic.clone(), backend, &node, &layout.state);
        tokio::spawn(d.run(router, shutdown.clone()))
    });
    wait_for_end().await?;
    tracing::info!("told to end: instances live on");
    notify::stopping();
    shutdown.cancel();
    let docker = async {
        if let Some(d) = docker {
            let _ = d.await;
        }
    };
    let _ = tokio::join!(serving, docker, control);
    drop(agent);
    store.close();
    Ok(())
}

fn router(store: &Arc<dyn Store>, backend: node::Node, node: &str) -> axum::Router {
    let kube = Registry::new(store.clone())
        .with_writer(instances(store))
        .with::<Image>()
        .with::<Volume>()
        .with::<Network>()
        .with::<Node>()
        .with::<Event>()
        .router();
    biga_server::routes(kube, store.clone(), Arc::new(backend::Native(backend)), node)
}

/// Writes what instances are wanted.
fn instances(store: &Arc<dyn Store>) -> SpecWriter<Instance> {
    SpecWriter::new(store.clone()).completed_by(Arc::new(AtBirth::new(store.clone())))
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && path.starts_with('/') => Ok((name.into(), path.into())),
        _ => Err("it is a name and an absolute path, as in kata=/opt/kata/bin/kata-runtime".into()),
    }
}

fn agent_options(node: &str, layout: &Layout, options: &ServeOptions) -> anyhow::Result<AgentOptions> {
    let shim = biga_payload::shim_memfd().context("cannot put the shim into memory")?;
    Ok(AgentOptions {
        node: node.into(),
        layout: layout.clone(),
        shim: Arc::new(shim),
        guest: biga_payload::GUEST,
        images: images::options(
            options.image_config.as_deref(),
            options.image_policy.as_deref(),
            options.disk_budget,
        )?,
        runtimes: options.runtimes.iter().cloned().collect(),
        cdi: match options.cdi_dirs.is_empty() {
            true => Cdi::default(),
            false => Cdi::new(
                options
                    .cdi_dirs
                    .iter()
                    .map(|d| absolute(d))
                    .collect::<anyhow::Result<_>>()?,
            ),
        },
    })
}

fn listen(options: &ServeOptions, layout: &Layout) -> anyhow::Result<ListenOptions> {
    let mut unix = UnixOptions::new(layout.run.join(SOCKET));
    unix.group = Some("biga".into());
    let tls = match options.tls_address() {
        None => None,
        Some(a) => {
            let address = a
                .parse()
                .with_context(|| format!("{a:?} is no address to listen on, as 127.0.0.1:6477"))?;
            let authority = Arc::new(pki::ensure_pki(&layout.state.join("pki")).context("cannot make certificates")?);
            write_admin(&authority, &layout.state.join("pki"))?;
            Some(TlsOptions {
                address,
                pki: authority,
                names: Vec::new(),
            })
        }
    };
    Ok(ListenOptions {
        unix: Some(unix),
        tls,
        half_close: true,
    })
}

/// The administrator's certificate, which `biga kubeconfig` hands out. Made once.
fn write_admin(authority: &pki::Pki, dir: &Path) -> anyhow::Result<()> {
    let (crt, key) = (dir.join("admin.crt"), dir.join("admin.key"));
    if crt.exists() && key.exists() {
        return Ok(());
    }
    let identity = authority.issue_client_cert("biga-admin", &["system:masters"])?;
    for (path, text) in [(key, identity.key), (crt, identity.certificate)] {
        write_private(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// Only one daemon may own a state directory.
fn lock(state: &Path) -> anyhow::Result<std::fs::File> {
    let path = state.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => anyhow::bail!(
            "another biga serve uses {}: give this one another --state, --run and --prefix",
            state.display()
        ),
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

async fn wait_for_end() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

fn log_to_stderr(options: &ServeOptions) -> anyhow::Result<()> {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_new(&options.log_level).with_context(|| {
        format!(
            "{:?} is no log level, as info or info,biga_agent=debug",
            options.log_level
        )
    })?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
