//! `biga compare`: one image in every isolation, side by side, measured.
//!
//! - [`measure`]: one start of one isolation
//! - [`probe`]: work inside a running instance
//! - [`report`]: medians, as a table and as JSON

mod measure;
mod probe;
mod report;

use biga_client::{DeleteParams, ListParams};
use biga_model::{Instance, Isolation, Memory, Node};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{Format, OutputArgs, emit, json, note, yaml};
use crate::parse::size::size;
use measure::Plan;
use report::Report;

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// Measured rounds; each runs every isolation once, after one round that is not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Compare a machine too: boot this disk image
    #[arg(long, value_name = "IMAGE")]
    vm_image: Option<String>,
    /// Memory of each instance
    #[arg(short = 'm', long, value_name = "SIZE", default_value = "256m", value_parser = size)]
    memory: Memory,
    /// Measure starts only, no work inside
    #[arg(long)]
    no_probes: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command to run instead of the image's
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
}

/// The label under which a comparison finds its instances again.
const LABEL: &str = "biga.dev/compare";

/// Runs the comparison. Whatever ends it, its instances go.
pub async fn compare(cx: &Context, args: CompareArgs) -> anyhow::Result<Code> {
    let id = crate::names::random();
    let interrupted = async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => fail(Code::of_process(130), "interrupted"),
            Err(e) => e.into(),
        }
    };
    let result = tokio::select! {
        r = rounds(cx, &args, &id) => r,
        e = interrupted => Err(e),
    };
    clean_up(cx, &id).await;
    let report = result?;
    match args.output.get() {
        Format::Json => emit(&json(&report)?)?,
        Format::Yaml => emit(&yaml(&report)?)?,
        Format::Table | Format::Wide | Format::Name => emit(&report.render())?,
    }
    Ok(if report.complete() { Code::OK } else { Code::FAILED })
}

async fn rounds(cx: &Context, args: &CompareArgs, id: &str) -> anyhow::Result<Report> {
    let node = cx.api::<Node>().list(&ListParams::default()).await?.items;
    let node = node.first().map(|n| n.status_or_default()).unwrap_or_default();
    let offered = |i: Isolation| node.isolations.iter().any(|o| o == i.as_str());
    let mut plans: Vec<Plan> = [Isolation::Container, Isolation::Microvm]
        .into_iter()
        .filter(|i| offered(*i))
        .map(|isolation| Plan {
            isolation,
            image: args.image.clone(),
            command: args.command.clone(),
            memory: args.memory,
            label: id.to_string(),
        })
        .collect();
    if let Some(image) = &args.vm_image {
        if !offered(Isolation::Vm) {
            return Err(fail(Code::FAILED, "this node runs no machines: `biga doctor` says why"));
        }
        plans.push(Plan {
            isolation: Isolation::Vm,
            image: image.clone(),
            command: Vec::new(),
            memory: args.memory.max(Memory::mib(512)),
            label: id.to_string(),
        });
    }
    if plans.is_empty() {
        return Err(fail(
            Code::FAILED,
            "this node offers no isolation: `biga doctor` says why",
        ));
    }
    let daemon = measure::Daemon::of(&cx.client).await?;
    let mut report = Report::new(&args.image, args.rounds, &node);
    if args.vm_image.is_none() && offered(Isolation::Vm) {
        report.note("vm: not compared: a machine boots a disk image, which --vm-image names".into());
    }
    for round in 0..=args.rounds {
        for plan in &plans {
            // The first round fetches images and warms caches; its figures are not counted.
            let counted = round > 0;
            note(match counted {
                true => format!("round {round} of {}: {}", args.rounds, plan.isolation),
                false => format!("warming up: {}", plan.isolation),
            });
            let sample = measure::run(cx, plan, &daemon, counted && !args.no_probes).await;
            match sample {
                Ok(s) if counted => report.add(plan.isolation, s),
                Ok(_) => {}
                // One isolation that does not work here leaves the others to be compared.
                Err(e) => {
                    let text = format!("{e:#}");
                    note(format!("biga: {}: {text}", plan.isolation));
                    report.fail(plan.isolation, text);
                }
            }
        }
    }
    Ok(report)
}

async fn clean_up(cx: &Context, id: &str) {
    let api = cx.api::<Instance>();
    let mine = ListParams {
        label_selector: Some(format!("{LABEL}={id}")),
        ..ListParams::default()
    };
    let left = match api.list(&mine).await {
        Ok(l) => l.items,
        Err(e) => {
            note(format!("biga: cannot remove what was started: {e}"));
            return;
        }
    };
    for o in left {
        if let Err(e) = api.delete(o.name(), &DeleteParams::now()).await
            && !e.is_not_found()
        {
            note(format!("biga: cannot remove {}: {e}", o.name()));
        }
    }
}
