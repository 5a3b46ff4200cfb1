//! `biga image …`.

pub mod archive;
mod history;
mod pull;
mod push;

use biga_client::{DeleteParams, ListParams};
use biga_model::{Image, Timestamp};

use crate::cmd::inspect::InspectArgs;
use crate::cmd::many::each;
use crate::context::{Context, familiar};
use crate::exit::Code;
use crate::output::{OutputArgs, line, note, object_table, print_objects, values};

/// Verbs of `image`.
#[derive(Debug, clap::Subcommand)]
pub enum ImageCommand {
    /// Fetch an image from its registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove images
    Rm(RmArgs),
    /// Show all about images
    Inspect(InspectImageArgs),
    /// Load the images of an archive
    Load(archive::LoadArgs),
    /// Write an image into an archive
    Save(archive::SaveArgs),
    /// Make an image of a root file system or a disk
    Import(archive::ImportArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Show how an image was made, step by step
    History(HistoryArgs),
    /// Show what refers to an image in its registry: signatures, bills of materials
    Referrers(ReferrersArgs),
    /// Remove what nothing uses
    Prune,
}

/// Arguments of `image ls`.
#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// Print ids only
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `image rm`.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// References or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Arguments of `image tag`.
#[derive(Debug, clap::Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Arguments of `image history`.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Show commands and digests in full
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Arguments of `image inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectImageArgs {
    /// Also show config, manifest, layers and what refers to it, as "detail"
    #[arg(long)]
    detail: bool,
    #[command(flatten)]
    inspect: InspectArgs,
}

/// Arguments of `image referrers`.
#[derive(Debug, clap::Args)]
pub struct ReferrersArgs {
    /// Show those that were fetched with the image, without asking its registry
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Runs one of them.
pub async fn run(cx: &Context, command: ImageCommand) -> anyhow::Result<Code> {
    match command {
        ImageCommand::Pull(a) => pull::pull(cx, a).await,
        ImageCommand::Push(a) => push::push(cx, a).await,
        ImageCommand::Ls(a) => ls(cx, a).await,
        ImageCommand::Rm(a) => rm(cx, a).await,
        ImageCommand::Inspect(a) => history::inspect_image(cx, a).await,
        ImageCommand::Load(a) => archive::load(cx, a).await,
        ImageCommand::Save(a) => archive::save(cx, a).await,
        ImageCommand::Import(a) => archive::import(cx, a).await,
        ImageCommand::Tag(a) => tag(cx, a).await,
        ImageCommand::History(a) => history::history(cx, a).await,
        ImageCommand::Referrers(a) => history::referrers(cx, a).await,
        ImageCommand::Prune => prune(cx).await,
    }
}

async fn ls(cx: &Context, args: LsArgs) -> anyhow::Result<Code> {
    let mut items = cx.api::<Image>().list(&ListParams::default()).await?.items;
    items.sort_by_key(|o| familiar(&o.spec.reference));
    if args.quiet {
        items.iter().try_for_each(|o| line(o.status_or_default().image_id))?;
        return Ok(Code::OK);
    }
    print_objects(&values(&items)?, false, args.output.get(), |wide| {
        let t = object_table(&items, wide, false, Timestamp::now());
        // The object's name only repeats the reference.
        if wide { t } else { t.without_first() }
    })?;
    Ok(Code::OK)
}

async fn rm(cx: &Context, args: RmArgs) -> anyhow::Result<Code> {
    each(&args.images, |name| async move {
        let o = cx.image(&name).await?;
        let api = cx.api::<Image>();
        let uid = o.uid().to_string();
        if api.delete(o.name(), &DeleteParams::default()).await?.is_some() {
            api.wait_for(o.name(), |seen| seen.filter(|s| s.uid() == uid).is_none().then_some(()))
                .await?;
        }
        Ok(familiar(&o.spec.reference))
    })
    .await
}

async fn tag(cx: &Context, args: TagArgs) -> anyhow::Result<Code> {
    let o = cx.image(&args.image).await?;
    cx.client.image_tag(&o.spec.reference, &args.name).await?;
    line(familiar(&args.name))?;
    Ok(Code::OK)
}

async fn prune(cx: &Context) -> anyhow::Result<Code> {
    let result = cx.client.prune(|_| {}).await?;
    result.removed.iter().try_for_each(line)?;
    note(format!("{} free again", biga_model::Memory(result.freed_bytes).human()));
    Ok(Code::OK)
}
