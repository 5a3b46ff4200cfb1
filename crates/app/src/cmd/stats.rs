//! `biga stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use biga_client::{Error, ListParams};
use biga_model::{Instance, Memory, Object};
use biga_wire::shim::Stats;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::exit::Code;
use crate::output::{Format, OutputArgs, TextTable, emit, line, note, yaml};

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    /// Print once and end
    #[arg(long)]
    no_stream: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Instances; all that run where left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Time between the two samples of which the first line is made.
const BETWEEN: Duration = Duration::from_millis(500);

/// Two samples of one instance.
#[derive(Debug, Clone, Default)]
struct Pair {
    before: Option<Stats>,
    now: Option<Stats>,
    ended: bool,
}

/// Shows what instances use.
pub async fn stats(cx: &Context, args: StatsArgs) -> anyhow::Result<Code> {
    let chosen = choose(cx, &args.names).await?;
    let format = args.output.get();
    let mut pairs: BTreeMap<String, Pair> = chosen.iter().map(|o| (o.name().to_string(), Pair::default())).collect();
    if args.no_stream {
        return once(cx, &mut pairs, format).await;
    }
    let (tx, mut rx) = mpsc::channel(64);
    for o in &chosen {
        tokio::spawn(follow(cx.clone(), o.name().to_string(), tx.clone()));
    }
    drop(tx);
    let live = format == Format::Table && crate::output::colours();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            news = rx.recv() => match news {
                None => break,
                Some((name, Ok(Some(s)))) => {
                    let sample = serde_json::json!({"name": name, "stats": s});
                    match format {
                        Format::Json => line(sample)?,
                        Format::Yaml => emit(&format!("---\n{}", yaml(&sample)?))?,
                        _ => {}
                    }
                    take(&mut pairs, &name, s);
                }
                Some((name, other)) => {
                    if let Err(e) = other {
                        note(format!("biga: {name}: {e}"));
                    }
                    if let Some(p) = pairs.get_mut(&name) {
                        p.ended = true;
                    }
                }
            },
            _ = tick.tick(), if !matches!(format, Format::Json | Format::Yaml) => {
                if pairs.values().any(|p| p.now.is_some()) {
                    let home = if live { "\x1b[H\x1b[2J" } else { "" };
                    emit(&format!("{home}{}", table(&pairs).render()))?;
                }
            }
        }
    }
    if pairs.is_empty() {
        table(&pairs).print()?;
    }
    Ok(Code::OK)
}

async fn choose(cx: &Context, names: &[String]) -> anyhow::Result<Vec<Object<Instance>>> {
    if names.is_empty() {
        let mut all = cx.api::<Instance>().list(&ListParams::default()).await?.items;
        all.retain(|o| o.status_or_default().phase.is_live());
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for n in names {
        chosen.push(cx.instance(n).await?);
    }
    Ok(chosen)
}

async fn follow(cx: Context, name: String, tx: mpsc::Sender<(String, Result<Option<Stats>, Error>)>) {
    let mut lines = match cx.client.stats(&cx.namespace, &name, true).await {
        Ok(l) => l,
        Err(e) => {
            // Where nobody listens the command is over.
            let _ = tx.send((name, Err(e))).await;
            return;
        }
    };
    loop {
        let sample = lines.next().await;
        let last = !matches!(sample, Ok(Some(_)));
        if tx.send((name.clone(), sample)).await.is_err() || last {
            return;
        }
    }
}

fn take(pairs: &mut BTreeMap<String, Pair>, name: &str, s: Stats) {
    if let Some(p) = pairs.get_mut(name) {
        p.before = p.now.replace(s);
    }
}

async fn once(cx: &Context, pairs: &mut BTreeMap<String, Pair>, format: Format) -> anyhow::Result<Code> {
    let names: Vec<String> = pairs.keys().cloned().collect();
    let mut code = Code::OK;
    for round in 0..2 {
        if round == 1 && !names.is_empty() {
            tokio::time::sleep(BETWEEN).await;
        }
        for name in &names {
            let sample = match cx.client.stats(&cx.namespace, name, false).await {
                Ok(mut lines) => lines.next().await,
                Err(e) => Err(e),
            };
            match sample {
                Ok(Some(s)) => take(pairs, name, s),
                Ok(None) => {}
                Err(e) => {
                    if round == 0 {
                        note(format!("biga: {name}: {e}"));
                    }
                    code = Code::of_error(&e.into());
                }
            }
        }
    }
    for (name, p) in pairs.iter() {
        let sample = serde_json::json!({"name": name, "cpuPercent": percent(p), "stats": p.now});
        match format {
            Format::Json => line(sample)?,
            Format::Yaml => emit(&format!("---\n{}", yaml(&sample)?))?,
            Format::Name => line(format!("instance/{name}"))?,
            Format::Table | Format::Wide => {}
        }
    }
    if matches!(format, Format::Table | Format::Wide) {
        table(pairs).print()?;
    }
    Ok(code)
}

/// CPU time between the samples, in hundredths of one processor.
fn percent(p: &Pair) -> Option<f64> {
    let (a, b) = (p.before.as_ref()?, p.now.as_ref()?);
    let wall = b.at_ns.checked_sub(a.at_ns).filter(|w| *w > 0)?;
    Some(b.cpu_ns.saturating_sub(a.cpu_ns) as f64 * 100.0 / wall as f64)
}

fn table(pairs: &BTreeMap<String, Pair>) -> TextTable {
    let mut t = TextTable::new([
        "Name",
        "CPU %",
        "Memory / limit",
        "Mem %",
        "Net in / out",
        "Block in / out",
        "PIDs",
    ]);
    let human = |n: u64| Memory(n).human();
    for (name, p) in pairs {
        let Some(s) = p.now.as_ref().filter(|_| !p.ended) else {
            t.row([name.as_str(), "--", "--", "--", "--", "--", "--"]);
            continue;
        };
        let share = if s.memory_limit > 0 {
            format!("{:.2}%", s.memory as f64 * 100.0 / s.memory_limit as f64)
        } else {
            "--".into()
        };
        t.row([
            name.clone(),
            percent(p).map_or("--".into(), |c| format!("{c:.2}%")),
            format!("{} / {}", human(s.memory), human(s.memory_limit)),
            share,
            format!("{} / {}", human(s.net_rx), human(s.net_tx)),
            format!("{} / {}", human(s.block_read), human(s.block_write)),
            s.pids.to_string(),
        ]);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_shares() {
        let sample = |at_ns, cpu_ns| Stats {
            at_ns,
            cpu_ns,
            memory: 64 << 20,
            memory_limit: 256 << 20,
            pids: 3,
            net_rx: 2048,
            ..Stats::default()
        };
        let mut pairs = BTreeMap::new();
        pairs.insert("web".to_string(), Pair::default());
        pairs.insert(
            "zz-gone".to_string(),
            Pair {
                ended: true,
                ..Pair::default()
            },
        );
        take(&mut pairs, "web", sample(1_000_000_000, 0));
        take(&mut pairs, "web", sample(2_000_000_000, 250_000_000));
        insta::assert_snapshot!(table(&pairs).render(), @r"
        NAME      CPU %    MEMORY / LIMIT     MEM %    NET IN / OUT   BLOCK IN / OUT   PIDS
        web       25.00%   64.0MiB / 256MiB   25.00%   2.00KiB / 0B   0B / 0B          3
        zz-gone   --       --                 --       --             --               --
        ");
    }
}
