//! `biga build`.

mod context;
mod given;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use biga_dockerfile::Instruction;
use biga_model::{Memory, Reference, Ulimit};
use biga_wire::build::Build;
use futures_util::StreamExt;

use crate::cmd::login;
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::line;
use crate::parse;

/// Arguments of `build`. The image's id goes to standard output, everything else to standard error.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Name of the image, as app:1; may be given several times
    #[arg(short = 't', long = "tag", value_name = "IMAGE")]
    tags: Vec<String>,
    /// The Dockerfile; that of the context where left out, - for standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG; without a value that of the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    args: Vec<String>,
    /// Give the image a label
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse::env::key_value)]
    labels: Vec<(String, String)>,
    /// Use nothing of earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Use again only what these images have
    #[arg(long, value_name = "IMAGE")]
    cache_from: Vec<String>,
    /// Ask registries for images that are here, too
    #[arg(long)]
    pull: bool,
    /// What RUN runs in: a container, or a microvm with a kernel of its own
    #[arg(long, value_name = "ISOLATION", default_value = "container", value_parser = ["container", "microvm"])]
    isolation: String,
    /// Network of RUN: default, none, host, or the name of one
    #[arg(long, value_name = "NETWORK", default_value = "default")]
    network: String,
    /// Memory of each step, as 512m
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = parse::size::size)]
    memory: Option<Memory>,
    /// Memory and swap of each step together
    #[arg(long, value_name = "SIZE", value_parser = parse::size::size)]
    memory_swap: Option<Memory>,
    /// Weight of a step's processor time beside others
    #[arg(long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,
    /// Microseconds of a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processors that steps may use, as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that steps may use, as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Control group above those of the steps
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = parse::size::size)]
    shm_size: Option<Memory>,
    /// Limit of processes, as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = parse::words::ulimit)]
    ulimits: Vec<(String, Ulimit)>,
    /// A line for /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// Give RUN --mount=type=secret a file or a variable, as id=token,src=FILE or id=token,env=NAME
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<String>,
    /// Give RUN --mount=type=ssh an agent: that of SSH_AUTH_SOCK, or the one at a socket
    #[arg(long = "ssh", value_name = "ID[=SOCKET]")]
    agents: Vec<String>,
    /// Show nothing but the image's id
    #[arg(short = 'q', long)]
    quiet: bool,
    /// How progress is shown: a live view on a terminal, else plain lines
    #[arg(long, value_enum, default_value = "auto")]
    progress: view::Progress,
    /// Directory that is sent, an address, or - for an archive on standard input
    #[arg(value_name = "PATH|URL|-")]
    context: String,
}

/// Builds an image.
pub async fn build(cx: &Context, args: BuildArgs) -> anyhow::Result<Code> {
    for tag in &args.tags {
        let name: Reference = tag.parse().map_err(|e: String| fail(Code::USAGE, e))?;
        if name.digest.is_some() {
            return Err(fail(
                Code::USAGE,
                format!("{tag}: an image that is being made has no digest yet"),
            ));
        }
    }
    let packed = context::pack(&args.context, args.file.as_deref())?;
    let auths = login::kept_for(registries(packed.dockerfile_text.as_deref())).await?;
    let mut wanted = wanted(&args)?;
    wanted.dockerfile = packed.dockerfile;
    wanted.remote = packed.remote;
    let (secrets, values) = given::secrets(&args.secrets)?;
    wanted.secrets = secrets;
    wanted.agents = given::agents(&args.agents)?;
    let body = futures_util::stream::once(async { Ok(values.into()) }).chain(packed.bytes);
    let mut view = view::View::new(args.progress, args.quiet);
    let built = cx.client.build(&wanted, auths.as_deref(), body, |e| view.show(e)).await;
    match built {
        Ok(made) => {
            view.done();
            if let Some(image) = made.images.first() {
                line(&image.image_id)?;
            }
            Ok(Code::OK)
        }
        Err(e) => {
            view.failed();
            Err(e.into())
        }
    }
}

/// Where the images come from that a Dockerfile begins with; the daemon knows its own logins, and these go along.
fn registries(text: Option<&str>) -> BTreeSet<String> {
    let Some(Ok(file)) = text.map(biga_dockerfile::parse) else {
        return BTreeSet::new();
    };
    let images = file.stages.iter().filter_map(|s| match &s.from.instruction {
        Instruction::From { image, .. } if !image.contains('$') => image.parse::<Reference>().ok(),
        _ => None,
    });
    images.map(|r| r.registry).collect()
}

fn wanted(args: &BuildArgs) -> anyhow::Result<Build> {
    let mut build_args = BTreeMap::new();
    for text in &args.args {
        match text.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    build_args.insert(text.clone(), value);
                }
            }
        }
    }
    let mut tags = args.tags.clone();
    tags.dedup();
    Ok(Build {
        tags,
        target: args.target.clone().unwrap_or_default(),
        build_args,
        labels: args.labels.iter().cloned().collect(),
        no_cache: args.no_cache,
        cache_from: args.cache_from.clone(),
        pull: args.pull,
        isolation: args.isolation.clone(),
        network: args.network.clone(),
        memory: args.memory.map(|m| m.0),
        memory_swap: args.memory_swap.map(|m| m.0),
        cpu_shares: args.cpu_shares,
        cpu_quota: args.cpu_quota,
        cpu_period: args.cpu_period,
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        cgroup_parent: args.cgroup_parent.clone(),
        shm_size: args.shm_size.map(|m| m.0),
        ulimits: args
            .ulimits
            .iter()
            .map(|(n, u)| (n.clone(), (u.soft, u.hard)))
            .collect(),
        extra_hosts: args.hosts.clone(),
        // What failed can be looked at by its output; it leaves nothing behind.
        force_remove: true,
        ..Build::default()
    })
}
