//! `biga kill`.

use crate::cmd::many::{Names, each};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::parse::signal;

/// Arguments of `kill`.
#[derive(Debug, clap::Args)]
pub struct KillArgs {
    /// Signal to send
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal::number)]
    signal: i32,
    /// To the main process of this one of several containers
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    #[command(flatten)]
    names: Names,
}

/// Sends a signal to the main process.
pub async fn kill(cx: &Context, args: KillArgs) -> anyhow::Result<Code> {
    let (signal, container) = (args.signal, args.container.as_deref());
    each(&args.names.names, |name| async move {
        let o = cx.instance(&name).await?;
        let phase = o.status_or_default().phase;
        if !phase.is_live() {
            let is = phase.as_str().to_lowercase();
            return Err(fail(
                Code::CONFLICT,
                format!("instance {} does not run: it is {is}", o.name()),
            ));
        }
        cx.client.signal(&cx.namespace, o.name(), container, signal).await?;
        Ok(o.name().to_string())
    })
    .await
}
