//! `biga start`, `stop`, `restart`, `pause` and `resume`: each writes one field and waits until the agent has answered.

use biga_client::Patch;
use biga_model::{Instance, Isolation, Object, Phase, Power};
use serde_json::json;

use crate::cmd::checkpoint::check_name;
use crate::cmd::foreground;
use crate::cmd::many::{Names, each};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::session::Options;
use crate::wait;

/// Arguments of `start`.
#[derive(Debug, clap::Args)]
pub struct StartArgs {
    /// Show its output and take its exit code
    #[arg(short = 'a', long)]
    pub attach: bool,
    /// Send our standard input too
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Go on from a checkpoint instead of beginning anew: `biga checkpoint ls NAME` lists them
    #[arg(long, value_name = "CHECKPOINT")]
    pub checkpoint: Option<String>,
    #[command(flatten)]
    names: Names,
}

/// Arguments of `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Seconds until it is killed, from now on
    #[arg(short = 't', long, value_name = "SECONDS")]
    pub time: Option<u32>,
    #[command(flatten)]
    names: Names,
}

/// `start`.
pub async fn start(cx: &Context, args: StartArgs) -> anyhow::Result<Code> {
    let from = args.checkpoint.as_deref();
    from.map_or(Ok(()), check_name)?;
    if !args.attach && !args.interactive {
        return each(&args.names.names, |name| async move {
            let o = cx.instance(&name).await?;
            not_running_already(&o, from)?;
            let o = switch_on(cx, &o, false, from).await?;
            wait::running(cx, &o).await?;
            Ok(o.name().to_string())
        })
        .await;
    }
    let [name] = &args.names.names[..] else {
        return Err(fail(Code::USAGE, "only one instance can be in the foreground"));
    };
    let o = cx.instance(name).await?;
    not_running_already(&o, from)?;
    let o = if o.status_or_default().phase.is_live() {
        o
    } else {
        switch_on(cx, &o, true, from).await?
    };
    let tty = o.spec.containers.first().is_some_and(|c| c.tty);
    let machine = o.spec.isolation == Isolation::Vm;
    let options = Options {
        stdin: args.interactive || machine,
        tty: if machine { crate::term::stdin_is_terminal() } else { tty },
        proxy_signals: !machine,
    };
    foreground::attach(cx, &o, None, options).await
}

/// Writes that it should run. One that ended by itself is wanted running already, so it is asked to begin again.
async fn switch_on(
    cx: &Context,
    o: &Object<Instance>,
    wait_attach: bool,
    from: Option<&str>,
) -> anyhow::Result<Object<Instance>> {
    let phase = o.status_or_default().phase;
    let mut ops = vec![json!({"op": "replace", "path": "/spec/power", "value": Power::Running})];
    if o.spec.power == Power::Running && phase.is_ended() {
        let next = o.spec.restart_request + 1;
        ops.push(json!({"op": "add", "path": "/spec/restartRequest", "value": next}));
    }
    match (from, &o.spec.restore_from) {
        (Some(from), _) => ops.push(json!({"op": "add", "path": "/spec/restoreFrom", "value": from})),
        (None, Some(_)) if !phase.is_live() => ops.push(json!({"op": "remove", "path": "/spec/restoreFrom"})),
        _ => {}
    }
    if !phase.is_live() {
        for i in 0..o.spec.containers.len() {
            let path = format!("/spec/containers/{i}/waitAttach");
            ops.push(json!({"op": "add", "path": path, "value": wait_attach}));
        }
    }
    Ok(cx.api::<Instance>().patch(o.name(), &Patch::Json(ops.into())).await?)
}

/// What runs cannot go on from somewhere else.
fn not_running_already(o: &Object<Instance>, from: Option<&str>) -> anyhow::Result<()> {
    match from {
        Some(from) if o.status_or_default().phase.is_live() => {
            let name = o.name();
            let why = format!("instance {name} runs: stop it before it goes on from checkpoint {from}");
            Err(fail(Code::CONFLICT, why))
        }
        _ => Ok(()),
    }
}

/// `stop`.
pub async fn stop(cx: &Context, args: StopArgs) -> anyhow::Result<Code> {
    let time = args.time;
    each(&args.names.names, |name| async move {
        let o = cx.instance(&name).await?;
        switch_off(cx, &o, time).await?;
        Ok(o.name().to_string())
    })
    .await
}

/// Writes that it should not run, and waits until it does not.
pub async fn switch_off(cx: &Context, o: &Object<Instance>, time: Option<u32>) -> anyhow::Result<()> {
    let mut spec = json!({"power": Power::Stopped});
    if let Some(t) = time {
        spec["stop"] = json!({"gracePeriodSeconds": t});
    }
    let o = cx
        .api::<Instance>()
        .patch(o.name(), &Patch::Merge(json!({ "spec": spec })))
        .await?;
    let generation = o.metadata.generation;
    wait::instance(cx, &o, |seen| match seen {
        None => Some(()),
        Some(s) => {
            let s = s.status_or_default();
            let still = matches!(s.phase, Phase::Created | Phase::Exited | Phase::Failed);
            (s.observed_generation >= generation && still).then_some(())
        }
    })
    .await?;
    Ok(())
}

/// `restart`.
pub async fn restart(cx: &Context, args: StopArgs) -> anyhow::Result<Code> {
    let time = args.time;
    each(&args.names.names, |name| async move {
        let o = cx.instance(&name).await?;
        let mut spec =
            json!({"power": Power::Running, "restartRequest": o.spec.restart_request + 1, "restoreFrom": null});
        if let Some(t) = time {
            spec["stop"] = json!({"gracePeriodSeconds": t});
        }
        let patch = Patch::Merge(json!({ "spec": spec }));
        let o = cx.api::<Instance>().patch(o.name(), &patch).await?;
        wait::running(cx, &o).await?;
        Ok(o.name().to_string())
    })
    .await
}

/// `pause`.
pub async fn pause(cx: &Context, names: Names) -> anyhow::Result<Code> {
    freeze(cx, names, Power::Paused, Phase::Running, Phase::Paused).await
}

/// `resume`.
pub async fn resume(cx: &Context, names: Names) -> anyhow::Result<Code> {
    freeze(cx, names, Power::Running, Phase::Paused, Phase::Running).await
}

async fn freeze(cx: &Context, names: Names, power: Power, from: Phase, to: Phase) -> anyhow::Result<Code> {
    each(&names.names, |name| async move {
        let o = cx.instance(&name).await?;
        let phase = o.status_or_default().phase;
        if phase != from {
            let (name, is) = (o.name(), phase.as_str().to_lowercase());
            let needs = from.as_str().to_lowercase();
            return Err(fail(Code::CONFLICT, format!("instance {name} is {is}, not {needs}")));
        }
        let patch = Patch::Merge(json!({"spec": {"power": power}}));
        let o = cx.api::<Instance>().patch(o.name(), &patch).await?;
        let generation = o.metadata.generation;
        let reached = wait::instance(cx, &o, |seen| match seen {
            None => Some(None),
            Some(s) => {
                let s = s.status_or_default();
                let settled = s.phase == to || s.phase.is_ended();
                (s.observed_generation >= generation && settled).then_some(Some(s.phase))
            }
        })
        .await?;
        match reached {
            Some(p) if p == to => Ok(o.name().to_string()),
            _ => Err(fail(Code::CONFLICT, format!("instance {} ended meanwhile", o.name()))),
        }
    })
    .await
}
