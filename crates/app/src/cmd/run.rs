//! `biga run` and `biga create`.

use std::time::Duration;

use biga_client::{DeleteParams, ErrorKind};
use biga_model::{Instance, Isolation, Object, Power};

use crate::cmd::foreground;
use crate::cmd::run_options::RunOptions;
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::line;
use crate::session::Options;
use crate::{names, wait};

/// How long the removal of what could not be started is waited for.
const REMOVAL: Duration = Duration::from_secs(10);

/// The image, and what follows it. One list, so that no option is looked for after the image.
#[derive(Debug, Clone, clap::Args)]
struct What {
    /// Image to run, as busybox:latest, and what to run instead of its command
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl What {
    fn split(&self) -> (&str, &[String]) {
        match self.words.split_first() {
            Some((image, command)) => (image, command),
            None => ("", &[]),
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "biga run [OPTIONS] IMAGE [COMMAND]...")]
pub struct RunArgs {
    /// Stay in the background; prints the name
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Do not send our signals to the process
    #[arg(long)]
    pub no_sig_proxy: bool,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    options: RunOptions,
}

/// Arguments of `create`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "biga create [OPTIONS] IMAGE [COMMAND]...")]
pub struct CreateArgs {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    options: RunOptions,
}

/// Makes an instance and runs it.
pub async fn run(cx: &Context, args: RunArgs) -> anyhow::Result<Code> {
    let (tty, interactive) = (args.options.tty, args.options.interactive);
    if tty && interactive && !args.detach && !crate::term::stdin_is_terminal() {
        return Err(fail(
            Code::USAGE,
            "-t needs a terminal, and standard input is none: leave out -t, or -i",
        ));
    }
    let made_up = args.options.name.is_none();
    let (image, command) = args.what.split();
    let mut o = args.options.into_object(image, command)?;
    o.spec.power = Power::Running;
    let machine = o.spec.isolation == Isolation::Vm;
    for c in &mut o.spec.containers {
        c.wait_attach = !args.detach;
        c.stdin_once = !args.detach && c.stdin;
    }
    let o = run_failed(create_object(cx, o, made_up).await)?;
    let work = async {
        if args.detach {
            wait::running(cx, &o).await?;
            line(o.name())?;
            return Ok(Code::OK);
        }
        let options = Options {
            stdin: interactive || machine,
            tty: if machine { crate::term::stdin_is_terminal() } else { tty },
            proxy_signals: !args.no_sig_proxy && !machine,
        };
        foreground::attach(cx, &o, None, options).await
    };
    let result = tokio::select! {
        biased;
        r = work => r,
        e = wait::not_placed(cx, &o) => Err(e),
    };
    if result.is_err() && o.spec.auto_remove {
        drop_unstarted(cx, &o).await;
    }
    run_failed(result)
}

/// `--rm` holds for what never ran too. What runs, or may run, is left alone.
async fn drop_unstarted(cx: &Context, o: &Object<Instance>) {
    let work = async {
        let seen = cx.api::<Instance>().get_opt(o.name()).await?;
        let mine = seen.is_some_and(|s| s.uid() == o.uid() && !s.status_or_default().phase.is_live());
        if mine
            && cx
                .api::<Instance>()
                .delete(o.name(), &DeleteParams::now())
                .await?
                .is_some()
        {
            wait::gone(cx, o).await?;
        }
        Ok::<_, biga_client::Error>(())
    };
    // The agent removes one that failed by itself, so it may be gone at any moment; the first error is what is told.
    let _ = tokio::time::timeout(REMOVAL, work).await;
}

/// Before the process ran, every failure is 125, as with Docker; what is more exact stays.
fn run_failed<T>(r: anyhow::Result<T>) -> anyhow::Result<T> {
    r.map_err(|e| match Code::of_error(&e) {
        Code::RUN_FAILED | Code::NOT_EXECUTABLE | Code::NO_PROGRAM => e,
        _ => fail(Code::RUN_FAILED, format!("{e:#}")),
    })
}

/// Makes an instance without running it.
pub async fn create(cx: &Context, args: CreateArgs) -> anyhow::Result<Code> {
    let made_up = args.options.name.is_none();
    let (image, command) = args.what.split();
    let o = args.options.into_object(image, command)?;
    let o = create_object(cx, o, made_up).await?;
    line(o.name())?;
    Ok(Code::OK)
}

/// Stores the object; a made-up name that is taken is made up again.
async fn create_object(cx: &Context, mut o: Object<Instance>, made_up: bool) -> anyhow::Result<Object<Instance>> {
    o.metadata.namespace = Some(cx.namespace.clone());
    for _ in 0..20 {
        match cx.api::<Instance>().create(&o).await {
            Err(e) if e.kind == ErrorKind::AlreadyExists && made_up => o.metadata.name = names::random(),
            Err(e) if e.kind == ErrorKind::AlreadyExists => {
                let name = o.name();
                return Err(fail(
                    Code::CONFLICT,
                    format!(
                        "an instance named {name} exists already: `biga rm {name}` removes it, or take another name"
                    ),
                ));
            }
            other => return Ok(other?),
        }
    }
    Err(fail(Code::CONFLICT, "no free name was found: give one with --name"))
}
