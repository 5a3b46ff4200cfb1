//! `biga update`.

use biga_client::Patch;
use biga_model::{Cpus, Instance, Isolation, Memory, Resources, RestartPolicy};
use serde_json::{Map, Value, json};

use crate::cmd::limit_options::FineLimits;
use crate::cmd::many::{Names, each};
use crate::cmd::run_options::isolation;
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::parse::size::size;
use crate::parse::words;

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Turn a stopped container into a microvm, or back; name, address, volumes and ports stay
    #[arg(long, value_name = "ISOLATION", value_parser = isolation())]
    isolation: Option<Isolation>,
    /// Memory: at most so much, or a machine's size at its next start
    #[arg(short = 'm', long, value_name = "SIZE", value_parser = size)]
    memory: Option<Memory>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_swap: Option<Memory>,
    /// Memory it is pushed back to when the host has little
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_reservation: Option<Memory>,
    /// Processors: at most so much, or a machine's number at its next start
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Weight among others; 1024 is usual
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Processors it may run on, as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// At most so many processes
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<u32>,
    #[command(flatten)]
    fine: FineLimits,
    /// Restart when it ends: no, always, unless-stopped, on-failure[:MAX]
    #[arg(long, value_name = "POLICY", value_parser = words::restart)]
    restart: Option<RestartPolicy>,
    #[command(flatten)]
    names: Names,
}

/// Changes instances.
pub async fn update(cx: &Context, args: UpdateArgs) -> anyhow::Result<Code> {
    let spec = changes(&args)?;
    let spec = &spec;
    each(&args.names.names, |name| async move {
        let o = cx.instance(&name).await?;
        if let Some(i) = args.isolation
            && i != o.spec.isolation
            && o.status_or_default().phase.is_live()
        {
            let name = o.name();
            return Err(fail(
                Code::CONFLICT,
                format!("instance {name} runs: stop it first with `biga stop {name}`, then change its isolation"),
            ));
        }
        let patch = Patch::Merge(json!({ "spec": spec }));
        cx.api::<Instance>().patch(o.name(), &patch).await?;
        Ok(o.name().to_string())
    })
    .await
}

fn changes(args: &UpdateArgs) -> anyhow::Result<Value> {
    let mut resources = Map::new();
    let mut set = |k: &str, v: Option<Value>| {
        if let Some(v) = v {
            resources.insert(k.into(), v);
        }
    };
    set("memory", args.memory.map(|m| json!(m)));
    set("memorySwap", args.memory_swap.map(|m| json!(m)));
    set("memoryReservation", args.memory_reservation.map(|m| json!(m)));
    set("cpus", args.cpus.map(|c| json!(c)));
    set("cpuShares", args.cpu_shares.map(|n| json!(n)));
    set("cpusetCpus", args.cpuset_cpus.as_ref().map(|s| json!(s)));
    set("pidsLimit", args.pids_limit.map(|n| json!(n)));
    let mut fine = Resources::default();
    args.fine.apply(&mut fine);
    if let Ok(Value::Object(fine)) = serde_json::to_value(fine) {
        resources.extend(fine);
    }
    let mut spec = Map::new();
    if !resources.is_empty() {
        spec.insert("resources".into(), resources.into());
    }
    if let Some(i) = args.isolation {
        spec.insert("isolation".into(), json!(i));
    }
    if let Some(r) = &args.restart {
        let mut v = json!(r);
        if r.maximum_retry_count == 0 {
            // A number that stood there before goes.
            v["maximumRetryCount"] = Value::Null;
        }
        spec.insert("restartPolicy".into(), v);
    }
    if spec.is_empty() {
        return Err(fail(Code::USAGE, "nothing to change: give an option, as --memory 512m"));
    }
    Ok(spec.into())
}
