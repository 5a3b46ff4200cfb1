//! `biga node …`.

use biga_model::Node;

use crate::cmd::inspect::{InspectArgs, inspect};
use crate::cmd::volume::{LsArgs, ls};
use crate::context::Context;
use crate::exit::Code;

/// Verbs of `node`.
#[derive(Debug, clap::Subcommand)]
pub enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all about nodes
    Inspect(InspectArgs),
}

/// Runs one of them.
pub async fn run(cx: &Context, command: NodeCommand) -> anyhow::Result<Code> {
    match command {
        NodeCommand::Ls(a) => ls::<Node>(cx, a).await,
        NodeCommand::Inspect(a) => inspect(a, |n| async move { cx.named::<Node>(&n).await }).await,
    }
}
