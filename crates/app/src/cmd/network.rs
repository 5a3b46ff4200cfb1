//! `biga network …`.

use biga_model::kinds::network::{DEFAULT_NETWORK, GatewayMode};
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
    /// Name of its bridge on the node; one that is there already is used
    #[arg(long, value_name = "INTERFACE")]
    bridge_name: Option<String>,
    /// Instances on it do not reach each other
    #[arg(long)]
    isolate_instances: bool,
    /// Packets to the outside keep the instance's address
    #[arg(long)]
    no_masquerade: bool,
    /// The node's address that packets to the outside get
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_masquerade")]
    source_address: Option<String>,
    /// The node's address for published ports that name none
    #[arg(long, value_name = "ADDRESS")]
    bind_address: Option<String>,
    /// What interfaces in containers are called, before their number
    #[arg(long, value_name = "NAME")]
    interface_prefix: Option<String>,
    /// How it is connected with the outside: nat, nat-unprotected, routed, or isolated from the node as well
    #[arg(long, value_name = "MODE", default_value = "nat")]
    gateway_mode: GatewayMode,
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
        config_only: false,
        bridge_name: args.bridge_name,
        isolate_instances: args.isolate_instances,
        masquerade: args.no_masquerade.then_some(false),
        source_address: args.source_address,
        bind_address: args.bind_address,
        interface_prefix: args.interface_prefix,
        gateway_mode: args.gateway_mode,
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
