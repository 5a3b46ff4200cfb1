//! `biga checkpoint …`: running containers saved, and what of that is kept.

use biga_client::Patch;
use biga_model::{Instance, Power, Timestamp, checkpoint_name_fault};
use biga_wire::checkpoint::CheckpointWanted;
use serde_json::json;

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{TextTable, json as to_json, line};
use crate::wait;

/// Verbs of `checkpoint`.
#[derive(Debug, clap::Subcommand)]
pub enum CheckpointCommand {
    /// Save the processes of a container; unless left running, it is stopped then
    ///
    /// `biga start --checkpoint CHECKPOINT NAME` lets it go on from there.
    Create(CreateArgs),
    /// List the checkpoints of a container
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove checkpoints of a container
    Rm(RmArgs),
}

/// Arguments of `checkpoint create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Let it go on afterwards
    #[arg(long)]
    leave_running: bool,
    /// Save connections of TCP too, which is refused otherwise; the other ends see them stand still meanwhile
    #[arg(long)]
    tcp_established: bool,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
    /// Name of the checkpoint
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: String,
}

/// Arguments of `checkpoint ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Print names only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// Arguments of `checkpoint rm`.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
    /// What to remove
    #[arg(value_name = "CHECKPOINT", required = true)]
    checkpoints: Vec<String>,
}

/// Runs one of them.
pub async fn run(cx: &Context, command: CheckpointCommand) -> anyhow::Result<Code> {
    match command {
        CheckpointCommand::Create(a) => create(cx, a).await,
        CheckpointCommand::Ls(a) => ls(cx, a).await,
        CheckpointCommand::Rm(a) => rm(cx, a).await,
    }
}

/// Refuses what cannot be a checkpoint's name, before it becomes part of a path.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    checkpoint_name_fault(name).map_or(Ok(()), |why| Err(fail(Code::USAGE, why)))
}

async fn create(cx: &Context, args: CreateArgs) -> anyhow::Result<Code> {
    check_name(&args.checkpoint)?;
    let o = cx.instance(&args.name).await?;
    let wanted = CheckpointWanted {
        name: args.checkpoint.clone(),
        leave_running: args.leave_running,
        tcp_established: args.tcp_established,
    };
    cx.client.checkpoint(&cx.namespace, o.name(), &wanted).await?;
    if !args.leave_running {
        // Its policy does not start it again; that it is not wanted running is said for whoever looks.
        let patch = Patch::Merge(json!({"spec": {"power": Power::Stopped}}));
        let o = cx.api::<Instance>().patch(o.name(), &patch).await?;
        wait::instance(cx, &o, |seen| {
            seen.is_none_or(|s| !s.status_or_default().phase.is_live())
                .then_some(())
        })
        .await?;
    }
    line(&args.checkpoint)?;
    Ok(Code::OK)
}

async fn ls(cx: &Context, args: LsArgs) -> anyhow::Result<Code> {
    let o = cx.instance(&args.name).await?;
    let all = cx.client.checkpoints(&cx.namespace, o.name()).await?;
    if args.json {
        line(to_json(&all)?.trim_end())?;
    } else if args.quiet {
        all.iter().try_for_each(|c| line(&c.name))?;
    } else {
        let mut table = TextTable::new(["NAME", "CREATED", "SIZE"]);
        for c in &all {
            let created = Timestamp::from_nanosecond(i128::from(c.created_ns)).unwrap_or_default();
            let size = biga_model::Memory(c.size).human();
            table.row([c.name.clone(), created.to_string(), size]);
        }
        table.print()?;
    }
    Ok(Code::OK)
}

async fn rm(cx: &Context, args: RmArgs) -> anyhow::Result<Code> {
    args.checkpoints.iter().try_for_each(|c| check_name(c))?;
    let o = cx.instance(&args.name).await?;
    for c in &args.checkpoints {
        cx.client.checkpoint_remove(&cx.namespace, o.name(), c).await?;
        line(c)?;
    }
    Ok(Code::OK)
}
