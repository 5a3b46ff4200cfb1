//! `biga delete`: objects of any kind.

use std::path::PathBuf;

use biga_client::{DeleteParams, ListParams, RawApi};
use serde_json::Value;

use crate::cmd::apply::place;
use crate::cmd::get::{api_of, split_kind};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::manifest;
use crate::output::{line, note};

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Those in a file, a directory, or "-" for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with_all = ["kind", "selector"])]
    files: Vec<PathBuf>,
    /// Those with these labels, as app=web
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Seconds to end by itself; 0 is at once
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// No error where there is nothing
    #[arg(long)]
    ignore_not_found: bool,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// Kind, as instances or inst; also KIND/NAME
    #[arg(value_name = "KIND", required_unless_present = "files")]
    kind: Option<String>,
    /// Names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Deletes objects and waits until they are gone.
pub async fn delete(cx: &Context, args: DeleteArgs) -> anyhow::Result<Code> {
    let mut targets: Vec<(RawApi, String)> = Vec::new();
    if let Some(kind) = &args.kind {
        let (kind, mut names) = split_kind(kind, &args.names);
        let api = api_of(cx, cx.client.find_resource(&kind).await?, false);
        match (&args.selector, names.is_empty()) {
            (Some(_), false) => return Err(fail(Code::USAGE, "give names, or select with -l, not both")),
            (None, true) => return Err(fail(Code::USAGE, "say which: give names, or select with -l")),
            (Some(s), true) => {
                let params = ListParams {
                    label_selector: Some(s.clone()),
                    ..ListParams::default()
                };
                let list = api.list(&params).await?;
                names = list.items.iter().map(name_of).collect();
            }
            (None, false) => {}
        }
        targets.extend(names.into_iter().map(|n| (api.clone(), n)));
    } else {
        // The last first: what was made later may need what was made before.
        for d in manifest::read(&args.files)?.iter().rev() {
            targets.push((place(&cx.client, &cx.namespace, &d.object).await?, name_of(&d.object)));
        }
    }
    let params = DeleteParams {
        grace_period_seconds: args.grace_period,
        ..DeleteParams::default()
    };
    let mut code = Code::OK;
    for (api, name) in targets {
        match one(&api, &name, &params, !args.no_wait).await {
            Ok(()) => line(format!("{}/{name} deleted", api.resource().singular))?,
            Err(e) if e.is_not_found() && args.ignore_not_found => {}
            Err(e) => {
                note(format!("biga: {e}"));
                if code == Code::OK {
                    code = Code::of_error(&e.into());
                }
            }
        }
    }
    Ok(code)
}

fn name_of(o: &Value) -> String {
    o["metadata"]["name"].as_str().unwrap_or_default().to_string()
}

async fn one(api: &RawApi, name: &str, params: &DeleteParams, wait: bool) -> Result<(), biga_client::Error> {
    let left = api.delete(name, params).await?;
    let Some(uid) = left["metadata"]["uid"].as_str() else {
        return Ok(());
    };
    if !wait {
        return Ok(());
    }
    let mut pause = std::time::Duration::from_millis(10);
    // Any kind may be here, so its watch cannot be typed; asking is enough for a deletion.
    loop {
        match api.get_opt(name).await? {
            Some(o) if o["metadata"]["uid"] == uid => {}
            _ => return Ok(()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_millis(500));
    }
}
