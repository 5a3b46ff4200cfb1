//! `biga attach` and `biga console`.

use biga_model::{Instance, Isolation, Object};

use crate::cmd::foreground;
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::session::Options;

/// Arguments of `attach`.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// Do not send our standard input
    #[arg(long)]
    no_stdin: bool,
    /// Do not send our signals to the process
    #[arg(long)]
    no_sig_proxy: bool,
    /// Of several containers this one; the main one where left out
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// Arguments of `console`.
#[derive(Debug, clap::Args)]
pub struct ConsoleArgs {
    /// The instance: a machine or a microvm
    #[arg(value_name = "NAME")]
    name: String,
}

/// Connects to the main process.
pub async fn attach(cx: &Context, args: AttachArgs) -> anyhow::Result<Code> {
    let o = live(cx, &args.name).await?;
    if o.spec.isolation == Isolation::Vm {
        return foreground::console(cx, &o).await;
    }
    let main = match &args.container {
        Some(name) => o.spec.container(name),
        None => o.spec.containers.first(),
    };
    let options = Options {
        stdin: !args.no_stdin && main.is_some_and(|c| c.stdin),
        tty: main.is_some_and(|c| c.tty),
        proxy_signals: !args.no_sig_proxy,
    };
    foreground::attach(cx, &o, args.container.as_deref(), options).await
}

/// Connects to the console.
pub async fn console(cx: &Context, args: ConsoleArgs) -> anyhow::Result<Code> {
    let o = live(cx, &args.name).await?;
    if o.spec.isolation == Isolation::Container {
        let name = o.name();
        return Err(fail(
            Code::CONFLICT,
            format!("a container has no console: `biga attach {name}` or `biga exec -it {name} sh`"),
        ));
    }
    foreground::console(cx, &o).await
}

async fn live(cx: &Context, name: &str) -> anyhow::Result<Object<Instance>> {
    let o = cx.instance(name).await?;
    let phase = o.status_or_default().phase;
    if phase.is_live() {
        return Ok(o);
    }
    let (name, is) = (o.name(), phase.as_str().to_lowercase());
    Err(fail(
        Code::CONFLICT,
        format!("instance {name} does not run: it is {is}; `biga start -a {name}` starts it"),
    ))
}
