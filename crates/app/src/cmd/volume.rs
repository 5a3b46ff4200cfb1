//! `biga volume …`.

use biga_client::{DeleteParams, ListParams};
use biga_model::{Memory, Object, Timestamp, Volume, VolumeMode, VolumeSpec};

use crate::cmd::inspect::{InspectArgs, inspect};
use crate::cmd::many::each;
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{OutputArgs, line, object_table, print_objects, values};
use crate::parse::env;
use crate::parse::size::size;

/// Verbs of `volume`.
#[derive(Debug, clap::Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove volumes and their data
    Rm(RmArgs),
    /// Show all about volumes
    Inspect(InspectArgs),
}

/// Arguments of `volume create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// A directory, or a block device for machines
    #[arg(long, value_name = "MODE", default_value = "directory", value_parser = ["directory", "block"])]
    mode: String,
    /// Size of a block volume
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<Memory>,
    /// Set a label
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]", value_parser = env::key_value)]
    label: Vec<(String, String)>,
    /// Name; made up where left out
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Print names only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// What to remove
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Runs one of them.
pub async fn run(cx: &Context, command: VolumeCommand) -> anyhow::Result<Code> {
    match command {
        VolumeCommand::Create(a) => create(cx, a).await,
        VolumeCommand::Ls(a) => ls::<Volume>(cx, a).await,
        VolumeCommand::Rm(a) => rm::<Volume>(cx, a).await,
        VolumeCommand::Inspect(a) => inspect(a, |n| async move { cx.named::<Volume>(&n).await }).await,
    }
}

async fn create(cx: &Context, args: CreateArgs) -> anyhow::Result<Code> {
    let block = args.mode == "block";
    if args.size.is_some() && !block {
        return Err(fail(
            Code::USAGE,
            "--size is only for --mode block: a directory has no size of its own",
        ));
    }
    let spec = VolumeSpec {
        mode: if block {
            VolumeMode::Block
        } else {
            VolumeMode::Directory
        },
        size: args.size,
    };
    let mut o = Object::<Volume>::new(args.name.unwrap_or_else(crate::names::random), spec);
    o.metadata.namespace = Some(cx.namespace.clone());
    o.metadata.labels = args.label.into_iter().collect();
    let o = cx.api::<Volume>().create(&o).await?;
    let generation = o.metadata.generation;
    let made = cx
        .api::<Volume>()
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
    made.map_err(|why| fail(Code::FAILED, format!("cannot make volume {}: {why}", o.name())))?;
    line(o.name())?;
    Ok(Code::OK)
}

/// Lists objects of a kind.
pub async fn ls<K: biga_model::Kind>(cx: &Context, args: LsArgs) -> anyhow::Result<Code> {
    let mut items = cx.api::<K>().list(&ListParams::default()).await?.items;
    items.sort_by(|a, b| a.name().cmp(b.name()));
    if args.quiet {
        items.iter().try_for_each(|o| line(o.name()))?;
        return Ok(Code::OK);
    }
    print_objects(&values(&items)?, false, args.output.get(), |wide| {
        object_table(&items, wide, false, Timestamp::now())
    })?;
    Ok(Code::OK)
}

/// Removes objects of a kind and waits until they are gone.
pub async fn rm<K: biga_model::Kind>(cx: &Context, args: RmArgs) -> anyhow::Result<Code> {
    each(&args.names, |name| async move {
        let o = cx.named::<K>(&name).await?;
        let uid = o.uid().to_string();
        let api = cx.api::<K>();
        if api.delete(&name, &DeleteParams::default()).await?.is_some() {
            api.wait_for(&name, |seen| seen.filter(|s| s.uid() == uid).is_none().then_some(()))
                .await?;
        }
        Ok(name)
    })
    .await
}
