//! `biga logs`.

use std::io::Write;

use biga_client::node::LogParams;
use biga_model::Timestamp;
use biga_wire::FrameKind;

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::parse::time;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Go on with what is written from now
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Only lines since a time, or not older than a duration, as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines before a time, or older than a duration
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Begin each line with its time
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only standard error
    #[arg(long)]
    stderr: bool,
    /// Of several containers this one; the main one where left out
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// Prints what an instance wrote: its standard output on ours, its standard error on ours.
pub async fn logs(cx: &Context, args: LogsArgs) -> anyhow::Result<Code> {
    let o = cx.instance(&args.name).await?;
    let now = Timestamp::now();
    let at = |t: &Option<String>| {
        t.as_deref()
            .map(|t| time::since(t, now).map(|t| t.to_string()))
            .transpose()
            .map_err(|e| fail(Code::USAGE, e))
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        n => Some(
            n.parse()
                .map_err(|_| fail(Code::USAGE, format!("--tail {n}: write a number, or all")))?,
        ),
    };
    let params = LogParams {
        container: args.container,
        follow: args.follow,
        tail,
        since: at(&args.since)?,
        until: at(&args.until)?,
        timestamps: args.timestamps,
        stdout_only: args.stdout,
        stderr_only: args.stderr,
    };
    let mut log = cx.client.logs(&cx.namespace, o.name(), &params).await?;
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    while let Some(f) = log.next().await? {
        match f.kind {
            FrameKind::Stdout => {
                out.write_all(&f.payload)?;
                out.flush()?;
            }
            FrameKind::Stderr => err.write_all(&f.payload)?,
            FrameKind::Error => {
                return Err(fail(Code::FAILED, String::from_utf8_lossy(&f.payload).into_owned()));
            }
            _ => {}
        }
    }
    Ok(Code::OK)
}
