//! `biga exec`.

use std::path::PathBuf;

use biga_wire::shim::{ExecSpec, Request};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::note;
use crate::parse::env;
use crate::session::{End, Options, Session};
use crate::term::{stdin_is_terminal, window};

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Do not wait for the process
    #[arg(short = 'd', long)]
    detach: bool,
    /// Send our standard input
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Set a variable, or pass ours on where there is no value
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// With all the host's capabilities
    #[arg(long)]
    privileged: bool,
    /// In this one of several containers; in the main one where left out
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
    /// What to run
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Runs one more process in an instance; its exit code becomes ours.
pub async fn exec(cx: &Context, args: ExecArgs) -> anyhow::Result<Code> {
    if args.tty && args.interactive && !args.detach && !stdin_is_terminal() {
        return Err(fail(
            Code::USAGE,
            "-t needs a terminal, and standard input is none: leave out -t, or -i",
        ));
    }
    let mut vars = Vec::new();
    for f in &args.env_file {
        vars.extend(env::file(f).map_err(|e| fail(Code::USAGE, e))?);
    }
    for e in &args.env {
        vars.extend(env::variable(e).map_err(|e| fail(Code::USAGE, e))?);
    }
    let o = cx.instance(&args.name).await?;
    let phase = o.status_or_default().phase;
    if !phase.is_live() {
        let (name, is) = (o.name(), phase.as_str().to_lowercase());
        return Err(fail(
            Code::CONFLICT,
            format!("instance {name} does not run: it is {is}; `biga start {name}` starts it"),
        ));
    }
    let stdin = args.interactive && !args.detach;
    let spec = ExecSpec {
        args: args.command,
        env: env::merge(vars)
            .into_iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect(),
        cwd: args.workdir,
        user: args.user,
        tty: args.tty,
        stdin,
        privileged: args.privileged,
        window: args.tty.then(window).flatten(),
    };
    let ask = Request::Exec { exec: Box::new(spec) }.of(args.container.as_deref());
    let mut stream = cx.client.open_stream(&cx.namespace, o.name(), "exec", &ask).await?;
    if args.detach {
        return Ok(Code::OK);
    }
    let mut session = Session::begin(Options {
        stdin,
        tty: args.tty,
        proxy_signals: true,
    })?;
    let end = session.carry(&mut stream).await?;
    drop(session);
    match end {
        End::Exit(e) => {
            if let Some(why) = &e.error {
                note(format!("biga: {}: {why}", o.name()));
            }
            Ok(Code::of_process(e.code))
        }
        End::Detached => Ok(Code::OK),
        End::Signal(n) => Ok(Code::of_process(128 + n)),
        End::Lost => Err(fail(
            Code::UNREACHABLE,
            format!("the connection to {} broke: the process may go on", o.name()),
        )),
    }
}
