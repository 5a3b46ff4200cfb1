//! `biga diff`, `biga commit`, `biga export`.

use std::path::PathBuf;

use biga_model::Reference;
use biga_wire::files::{ChangeKind, Commit};

use super::image::archive;
use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::{clean, line, note};

/// Arguments of `diff`. A is what is new, C what changed, D what is gone.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// Lists what an instance changed of its image.
pub async fn diff(cx: &Context, args: DiffArgs) -> anyhow::Result<Code> {
    let o = cx.instance(&args.name).await?;
    for c in cx.client.changes(&cx.namespace, o.name()).await? {
        let letter = match c.kind {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        };
        // A name may hold anything, and the terminal must not obey it.
        line(format!("{letter} {}", clean(&c.path)))?;
    }
    Ok(Code::OK)
}

/// Arguments of `commit`. The name goes to standard output, the image's id to standard error.
#[derive(Debug, clap::Args)]
pub struct CommitArgs {
    /// A remark
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    message: String,
    /// By whom
    #[arg(short = 'a', long, value_name = "TEXT", default_value = "")]
    author: String,
    /// Change the image's config by an instruction of a Dockerfile, as 'CMD ["sh"]'
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Freeze the instance meanwhile, so that its files agree with each other
    #[arg(short = 'p', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
    /// Name of the new image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Makes an image of an instance.
pub async fn commit(cx: &Context, args: CommitArgs) -> anyhow::Result<Code> {
    let reference: Reference = args.image.parse().map_err(|e: String| fail(Code::USAGE, e))?;
    if reference.digest.is_some() {
        return Err(fail(
            Code::USAGE,
            "an image that is being made has no digest yet: name it NAME[:TAG]",
        ));
    }
    let o = cx.instance(&args.name).await?;
    let what = Commit {
        reference: Some(args.image.clone()),
        author: args.author,
        comment: args.message,
        changes: args.change,
        pause: args.pause,
        ..Commit::default()
    };
    let made = cx.client.commit(&cx.namespace, o.name(), &what).await?;
    if let Some(i) = made.images.first() {
        note(&i.image_id);
    }
    line(familiar(&args.image))?;
    Ok(Code::OK)
}

/// Arguments of `export`. What is mounted over the root file system, as volumes, is left out.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Tar; standard output where left out
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// Writes the root file system as a tar.
pub async fn export(cx: &Context, args: ExportArgs) -> anyhow::Result<Code> {
    archive::check_output(args.file.as_deref())?;
    let o = cx.instance(&args.name).await?;
    let bytes = cx.client.export(&cx.namespace, o.name()).await?;
    archive::write_out(args.file.as_deref(), bytes).await?;
    Ok(Code::OK)
}
