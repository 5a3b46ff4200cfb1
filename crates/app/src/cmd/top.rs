//! `biga top`: the processes of an instance.

use std::path::Path;

use biga_model::Isolation;
use biga_wire::shim::{ExecSpec, Request};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::TextTable;
use crate::session::{End, Options, Session};

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Of several containers this one; the main one where left out
    #[arg(short = 'c', long, value_name = "CONTAINER")]
    container: Option<String>,
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

/// A container's processes are the host's, and read from its `/proc`; those of a guest are asked of its own `ps`.
pub async fn top(cx: &Context, args: TopArgs) -> anyhow::Result<Code> {
    let o = cx.instance(&args.name).await?;
    let status = o.status_or_default();
    if !status.phase.is_live() {
        return Err(fail(Code::CONFLICT, format!("instance {} does not run", o.name())));
    }
    let container = args.container.as_deref();
    let pid = match container {
        Some(name) if o.spec.is_pod() => status.container(name).and_then(|c| c.pid),
        _ => status.pid,
    };
    if let (Isolation::Container, Some(pid)) = (o.spec.isolation, pid)
        && let Some(table) = same_namespace(Path::new("/proc"), pid)
    {
        table.print()?;
        return Ok(Code::OK);
    }
    let spec = ExecSpec {
        args: vec!["ps".into()],
        ..ExecSpec::default()
    };
    let ask = Request::Exec { exec: Box::new(spec) }.of(container);
    let mut stream = cx
        .client
        .open_stream(&cx.namespace, o.name(), "exec", &ask)
        .await
        .map_err(|e| {
            let code = Code::of_error(&e.clone().into());
            fail(code, format!("cannot run ps in {}: {e}", o.name()))
        })?;
    match Session::begin(Options::default())?.carry(&mut stream).await? {
        End::Exit(e) => Ok(Code::of_process(e.code)),
        _ => Err(fail(Code::UNREACHABLE, "the connection broke")),
    }
}

/// All processes in the pid namespace of `pid`.
fn same_namespace(proc: &Path, pid: u32) -> Option<TextTable> {
    let ns = |p: &Path| std::fs::read_link(p.join("ns/pid")).ok();
    let own = ns(&proc.join(pid.to_string()))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc).ok()?.flatten() {
        let name = entry.file_name();
        let Some(n) = name.to_str().and_then(|s| s.parse::<u32>().ok()) else {
            continue;
        };
        // Processes come and go while we look.
        if ns(&entry.path()).as_ref() == Some(&own)
            && let Some(p) = crate::procfs::Process::read(&entry.path())
        {
            found.push((n, p));
        }
    }
    found.sort_by_key(|(n, _)| *n);
    let mut t = TextTable::new(["PID", "PPID", "UID", "CPU", "Memory", "Command"]);
    for (n, p) in found {
        t.row([
            n.to_string(),
            p.parent.to_string(),
            p.uid.to_string(),
            format!("{:.2}s", p.cpu.as_secs_f64()),
            biga_model::Memory(p.resident).human(),
            p.command,
        ]);
    }
    Some(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_holds_us() {
        let me = std::process::id();
        let text = same_namespace(Path::new("/proc"), me).unwrap().render();
        assert!(
            text.lines()
                .any(|l| l.split_whitespace().next() == Some(&me.to_string())),
            "{text}"
        );
    }
}
