//! `biga network …`.

use biga_model::kinds::network::DEFAULT_NETWORK;
use biga_model::{Instance, Network, NetworkSpec, Object};

use crate::cmd::inspect::{InspectArgs, inspect};
use crate::cmd::volume::{LsArgs, RmArgs, ls, made_or_removed, rm};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::parse::env;

/// Verbs of `network`.
#[derive(Debug, clap::Subcommand)]
pub enum NetworkCommand {
    /// Make a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove networks
    Rm(RmArgs),
    /// Show all about networks
    Inspect(InspectArgs),
}

/// Arguments of `network create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Its addresses, as 10.89.0.0/24; the node picks where left out
    #[arg(long, value_name = "SUBNET")]
    subnet: Option<String>,
    /// The node's own address on it; the first where left out
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<String>,
    /// Take free addresses only from here, as 10.89.0.128/25
    #[arg(long, value_name = "RANGE")]
    ip_range: Option<String>,
    /// An address that no instance gets
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = env::key_value)]
    reserve: Vec<(String, String)>,
    /// No way out
    #[arg(long)]
    internal: bool,
    /// Largest packet
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Set a label
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]", value_parser = env::key_value)]
    label: Vec<(String, String)>,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs one of them.
pub async fn run(cx: &Context, command: NetworkCommand) -> anyhow::Result<Code> {
    match command {
        NetworkCommand::Create(a) => create(cx, a).await,
        NetworkCommand::Ls(a) => ls::<Network>(cx, a).await,
        NetworkCommand::Rm(a) if a.names.iter().any(|n| n == DEFAULT_NETWORK) => Err(fail(
            Code::CONFLICT,
            format!("network {DEFAULT_NETWORK} is what instances join by themselves: it cannot be removed"),
        )),
        NetworkCommand::Rm(a) => rm::<Network>(cx, a, connected).await,
        NetworkCommand::Inspect(a) => inspect(a, |n| async move { cx.named::<Network>(&n).await }).await,
    }
}

async fn create(cx: &Context, args: CreateArgs) -> anyhow::Result<Code> {
    let spec = NetworkSpec {
        subnet: args.subnet,
        gateway: args.gateway,
        ip_range: args.ip_range,
        reserved: args.reserve.into_iter().collect(),
        internal: args.internal,
        mtu: args.mtu,
    };
    let mut o = Object::<Network>::new(args.name, spec);
    o.metadata.labels = args.label.into_iter().collect();
    let o = cx.api::<Network>().create(&o).await?;
    let generation = o.metadata.generation;
    let made = cx
        .api::<Network>()
        .wait_for(o.name(), |seen| {
            let Some(s) = seen else {
                return Some(Err("it was removed meanwhile".to_string()));
            };
            let s = s.status_or_default();
            match (s.observed_generation >= generation, s.ready, s.message.is_empty()) {
                (true, true, _) => Some(Ok(())),
                (true, false, false) => Some(Err(s.message)),
                _ => None,
            }
        })
        .await?;
    made_or_removed(cx, &o, made).await
}

/// Whether an instance has an end on this network; a stopped one keeps its address there.
fn connected(o: &Object<Instance>, network: &str) -> bool {
    let ends = o.status_or_default().networks;
    ends.iter().any(|e| e.network == network) || o.spec.networks.iter().any(|n| n.network == network)
}
