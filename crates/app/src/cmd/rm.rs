//! `biga rm`.

use biga_client::{DeleteParams, Preconditions};
use biga_model::Instance;

use crate::cmd::many::{Names, each};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::wait;

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// Kill it if it runs
    #[arg(short = 'f', long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

/// Removes instances and waits until they are gone.
pub async fn rm(cx: &Context, args: RmArgs) -> anyhow::Result<Code> {
    let force = args.force;
    each(&args.names.names, |name| async move {
        let o = cx.instance(&name).await?;
        let (name, phase) = (o.name(), o.status_or_default().phase);
        if phase.is_live() && !force {
            let is = phase.as_str().to_lowercase();
            return Err(fail(
                Code::CONFLICT,
                format!("instance {name} is {is}: stop it first with `biga stop {name}`, or use rm -f"),
            ));
        }
        let params = DeleteParams {
            grace_period_seconds: force.then_some(0),
            preconditions: Preconditions {
                uid: Some(o.uid().to_string()),
                resource_version: None,
            },
        };
        let left = match cx.api::<Instance>().delete(name, &params).await {
            // Somebody else was faster: what was wanted is so.
            Err(e) if e.is_not_found() => None,
            other => other?,
        };
        if left.is_some() {
            wait::gone(cx, &o).await?;
        }
        Ok(name.to_string())
    })
    .await
}
