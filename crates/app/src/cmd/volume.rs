//! `biga volume …`.

use biga_client::{DeleteParams, ListParams, Preconditions};
use biga_model::{Instance, Kind, LocalMount, Memory, Object, Timestamp, Volume, VolumeMode, VolumeSpec};

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
    /// Mount something as the volume, as type=nfs device=:/srv o=addr=192.0.2.1
    #[arg(short = 'o', long, value_name = "KEY=VALUE", value_parser = env::key_value)]
    opt: Vec<(String, String)>,
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
        VolumeCommand::Rm(a) => rm::<Volume>(cx, a, uses).await,
        VolumeCommand::Inspect(a) => inspect(a, |n| async move { cx.named::<Volume>(&n).await }).await,
    }
}

/// What is mounted as the volume, in the words of Docker's local driver.
fn mount(options: &[(String, String)]) -> anyhow::Result<Option<LocalMount>> {
    if options.is_empty() {
        return Ok(None);
    }
    let mut m = LocalMount::default();
    for (k, v) in options {
        match k.as_str() {
            "type" => m.fs_type.clone_from(v),
            "device" => m.device.clone_from(v),
            "o" => m.options.clone_from(v),
            _ => {
                let why = format!("--opt {k}: is no option of a volume: use type, device, o");
                return Err(fail(Code::USAGE, why));
            }
        }
    }
    Ok(Some(m))
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
        mount: mount(&args.opt)?,
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
    made_or_removed(cx, &o, made).await
}

/// Prints the name of a new object. One that could not be made is removed again: nobody could use it, and its name
/// would be taken.
pub async fn made_or_removed<K: Kind>(cx: &Context, o: &Object<K>, made: Result<(), String>) -> anyhow::Result<Code> {
    let Err(why) = made else {
        line(o.name())?;
        return Ok(Code::OK);
    };
    let kind = K::SINGULAR;
    let mut text = format!("cannot make {kind} {}: {why}", o.name());
    let only_this = DeleteParams {
        preconditions: Preconditions {
            uid: Some(o.uid().into()),
            ..Preconditions::default()
        },
        ..DeleteParams::default()
    };
    if let Err(e) = cx.api::<K>().delete(o.name(), &only_this).await
        && !e.is_not_found()
    {
        text.push_str(&format!(" (and it cannot be removed again: {e})"));
    }
    Err(fail(Code::FAILED, text))
}

/// Whether an instance has this volume.
fn uses(o: &Object<Instance>, volume: &str) -> bool {
    o.spec.volumes.iter().any(|v| v.volume.as_deref() == Some(volume))
}

/// Lists objects of a kind.
pub async fn ls<K: Kind>(cx: &Context, args: LsArgs) -> anyhow::Result<Code> {
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

/// Removes objects of a kind that no instance uses, and waits until they are gone.
///
/// The API takes a deletion of one in use, and carries it out when the last instance went; until then nothing can be
/// started with it. Somebody at a terminal wants to know instead of waiting.
pub async fn rm<K: Kind>(
    cx: &Context,
    args: RmArgs,
    uses: impl Fn(&Object<Instance>, &str) -> bool + Copy,
) -> anyhow::Result<Code> {
    each(&args.names, |name| async move {
        let o = cx.named::<K>(&name).await?;
        let instances = match K::NAMESPACED {
            true => cx.api::<Instance>(),
            false => cx.client.api_all::<Instance>(),
        };
        let all = instances.list(&ListParams::default()).await?.items;
        let users: Vec<&str> = all
            .iter()
            .filter(|i| !i.is_deleting() && uses(i, &name))
            .map(|i| i.name())
            .collect();
        if !users.is_empty() {
            return Err(fail(Code::CONFLICT, in_use(K::SINGULAR, &name, &users)));
        }
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

/// Some names are enough to go on with.
fn in_use(kind: &str, name: &str, users: &[&str]) -> String {
    const SHOWN: usize = 3;
    let mut who = users.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if users.len() > SHOWN {
        who.push_str(&format!(" and {} more", users.len() - SHOWN));
    }
    let (noun, them) = match users.len() {
        1 => ("instance", "it"),
        _ => ("instances", "them"),
    };
    format!("{kind} {name} is used by {noun} {who}: remove {them} first")
}
