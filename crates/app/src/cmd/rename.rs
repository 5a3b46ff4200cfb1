//! `biga rename`.

use biga_model::{Instance, Phase};

use crate::context::Context;
use crate::exit::Code;
use crate::output::line;
use crate::wait;

/// Arguments of `rename`.
#[derive(Debug, clap::Args)]
pub struct RenameArgs {
    /// Name, or beginning of the uid (four digits or more)
    #[arg(value_name = "NAME")]
    name: String,
    /// The new name
    #[arg(value_name = "NEW-NAME")]
    to: String,
}

/// Gives an instance another name, and waits until others find it by that.
pub async fn rename(cx: &Context, args: RenameArgs) -> anyhow::Result<Code> {
    let o = cx.instance(&args.name).await?;
    let renamed = cx.api::<Instance>().rename(&o, &args.to).await?;
    let generation = renamed.metadata.generation;
    wait::instance(cx, &renamed, |seen| {
        let known = seen.is_none_or(|o| {
            let s = o.status_or_default();
            s.observed_networks >= generation || s.phase == Phase::Stopping || !s.phase.is_live()
        });
        known.then_some(())
    })
    .await?;
    line(renamed.name())?;
    Ok(Code::OK)
}
