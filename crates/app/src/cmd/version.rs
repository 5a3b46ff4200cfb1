//! `biga version`.

use crate::context::Context;
use crate::exit::Code;
use crate::output::{Format, OutputArgs, cell, emit, json, line, yaml};

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the versions of this program and of the daemon.
pub async fn version(cx: &Context, args: VersionArgs) -> anyhow::Result<Code> {
    let client = env!("CARGO_PKG_VERSION");
    let daemon = match cx.client.get_json("/version").await {
        Ok(v) => v,
        Err(e) if e.kind == biga_client::ErrorKind::Unreachable => serde_json::Value::Null,
        Err(e) => return Err(e.into()),
    };
    let both = serde_json::json!({"client": client, "daemon": daemon});
    match args.output.get() {
        Format::Json => emit(&json(&both)?)?,
        Format::Yaml => emit(&yaml(&both)?)?,
        _ => {
            line(format!("biga {client}"))?;
            let text = match daemon {
                serde_json::Value::Null => "not running".to_string(),
                v => cell(v.get("bigaVersion").or(v.get("gitVersion")).unwrap_or(&v)),
            };
            line(format!("daemon {text}"))?;
        }
    }
    Ok(Code::OK)
}
