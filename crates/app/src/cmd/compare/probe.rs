//! Work inside a running instance, done by the image's own shell and tools: no program of ours is brought in.
//!
//! Each figure is the wall time of one `exec` less that of an `exec` that does nothing, so what is left is the work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use biga_client::{Duplex, StreamError};
use biga_model::{Instance, Object};
use biga_wire::FrameKind;
use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Request};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::context::Context;
use crate::exit::{Code, fail};

/// The result of each probe by its key: nanoseconds, or why there is none.
pub type Probes = BTreeMap<&'static str, Outcome>;

/// What a probe gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// Nanoseconds.
    Took(u64),
    /// Why it could not be done.
    Failed(String),
}

/// A probe.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Key in JSON.
    pub key: &'static str,
    /// Row of the table.
    pub title: &'static str,
    /// What is done.
    pub what: &'static str,
    script: &'static str,
}

/// Bytes the network probe fetches.
const FETCHED: usize = 32 << 20;

/// So many execs of nothing, after one that does not count, give what an exec costs.
const NOTHINGS: usize = 3;

/// All probes, in the order of the table. The first does nothing: it is what an exec costs.
pub const PROBES: [Probe; 5] = [
    Probe {
        key: "exec",
        title: "exec of nothing",
        what: "sh -c :",
        script: ":",
    },
    Probe {
        key: "cpu",
        title: "CPU-bound",
        what: "sh counts to 100,000",
        script: "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done",
    },
    Probe {
        key: "syscall",
        title: "syscall-bound",
        what: "dd copies 100,000 single bytes from /dev/zero to /dev/null",
        script: "dd if=/dev/zero of=/dev/null bs=1 count=100000 2>/dev/null",
    },
    Probe {
        key: "disk",
        title: "disk write",
        what: "dd writes 16 MiB to the root file system and syncs",
        script: "f=/.biga-probe; dd if=/dev/zero of=$f bs=65536 count=256 conv=fsync 2>/dev/null; r=$?; rm -f $f; exit $r",
    },
    Probe {
        key: "network",
        title: "network fetch",
        what: "wget (or curl) fetches 32 MiB from the host over the bridge",
        script: "wget -q -O /dev/null \"$BIGA_URL\" 2>/dev/null || curl -sf -o /dev/null \"$BIGA_URL\"",
    },
];

/// No probe takes longer, not even in the emulator.
const LONGEST: Duration = Duration::from_secs(120);

/// How long a machine may take until its guest agent answers.
const BOOTS_WITHIN: Duration = Duration::from_secs(300);

/// Waits until a program can be run inside a machine.
pub async fn answers(cx: &Context, o: &Object<Instance>) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let once = tokio::time::timeout(LONGEST, exec(cx, o.name(), PROBES[0].script, Vec::new())).await;
        if let Ok(Ok((Exit { code: 0, .. }, _))) = once {
            return Ok(());
        }
        if begin.elapsed() > BOOTS_WITHIN {
            let secs = BOOTS_WITHIN.as_secs();
            return Err(fail(
                Code::TIMEOUT,
                format!("no program could be run in it within {secs} s: is qemu-guest-agent in the image?"),
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Does all of them once.
pub async fn run(cx: &Context, o: &Object<Instance>) -> anyhow::Result<Probes> {
    let server = Server::start(o).await;
    let mut out = Probes::new();
    let nothing = match nothing(cx, o.name()).await {
        Ok(d) => d,
        Err(Refusal::NoShell) => {
            out.extend(PROBES.map(|p| (p.key, Outcome::Failed("the image has no sh".into()))));
            return Ok(out);
        }
        Err(Refusal::Other(e)) => {
            out.extend(PROBES.map(|p| (p.key, Outcome::Failed(format!("nothing can be run in it: {e:#}")))));
            return Ok(out);
        }
    };
    out.insert(PROBES[0].key, Outcome::Took(nothing.as_nanos() as u64));
    for p in &PROBES[1..] {
        let env = match &server {
            Some(s) => vec![format!("BIGA_URL={}", s.url)],
            None if p.key == "network" => {
                out.insert(p.key, Outcome::Failed("the host cannot listen on the bridge".into()));
                continue;
            }
            None => Vec::new(),
        };
        let outcome = match tokio::time::timeout(LONGEST, exec(cx, o.name(), p.script, env)).await {
            Err(_) => Outcome::Failed(format!("not done in {} s", LONGEST.as_secs())),
            Ok(Err(Refusal::NoShell)) => Outcome::Failed("the image has no sh".into()),
            Ok(Err(Refusal::Other(e))) => Outcome::Failed(format!("{e:#}")),
            Ok(Ok((exit, _))) if exit.code != 0 => Outcome::Failed(format!("it ended with code {}", exit.code)),
            Ok(Ok((_, took))) => work(took, nothing),
        };
        out.insert(p.key, outcome);
    }
    Ok(out)
}

/// What an exec costs. The first reads the shell from the image, which the work after it does not pay again.
async fn nothing(cx: &Context, name: &str) -> Result<Duration, Refusal> {
    let mut all = Vec::with_capacity(NOTHINGS);
    for round in 0..=NOTHINGS {
        let once = tokio::time::timeout(LONGEST, exec(cx, name, PROBES[0].script, Vec::new())).await;
        let took = match once {
            Err(_) => Err(fail(Code::TIMEOUT, format!("not done in {} s", LONGEST.as_secs()))),
            Ok(Err(e)) => return Err(e),
            Ok(Ok((exit, _))) if exit.code != 0 => Err(fail(Code::FAILED, format!("it ended with code {}", exit.code))),
            Ok(Ok((_, took))) => Ok(took),
        };
        let took = took.map_err(Refusal::Other)?;
        if round > 0 {
            all.push(took);
        }
    }
    all.sort_unstable();
    Ok(all[NOTHINGS / 2])
}

/// What is left of an exec's time without what an exec of nothing takes.
fn work(took: Duration, nothing: Duration) -> Outcome {
    match took.checked_sub(nothing) {
        Some(d) if !d.is_zero() => Outcome::Took(d.as_nanos() as u64),
        _ => Outcome::Failed("it took no longer than an exec of nothing: too little to be measured here".into()),
    }
}

enum Refusal {
    NoShell,
    Other(anyhow::Error),
}

/// Runs a script and gives its end and its wall time.
async fn exec(cx: &Context, name: &str, script: &str, env: Vec<String>) -> Result<(Exit, Duration), Refusal> {
    let spec = ExecSpec {
        args: ["sh", "-c", script].map(String::from).to_vec(),
        env,
        ..ExecSpec::default()
    };
    let ask = Request::Exec { exec: Box::new(spec) };
    let begin = Instant::now();
    let stream = match cx.client.open_stream(&cx.namespace, name, "exec", &ask).await {
        Ok(s) => s,
        Err(StreamError::Refused {
            code: ErrorCode::NotFound,
            ..
        }) => return Err(Refusal::NoShell),
        Err(e) => return Err(Refusal::Other(e.into())),
    };
    let exit = to_end(stream).await.map_err(Refusal::Other)?;
    // Some runtimes learn only from the process itself that there is no such program.
    if exit.code == 127 {
        return Err(if script == PROBES[0].script {
            Refusal::NoShell
        } else {
            Refusal::Other(fail(Code::NO_PROGRAM, "the image has no program for it"))
        });
    }
    Ok((exit, begin.elapsed()))
}

async fn to_end(mut stream: Duplex) -> anyhow::Result<Exit> {
    while let Some(f) = stream.reader.next().await? {
        match f.kind {
            FrameKind::Exit => return Ok(f.parse()?),
            FrameKind::Error => return Err(fail(Code::FAILED, String::from_utf8_lossy(&f.payload).into_owned())),
            _ => {}
        }
    }
    Err(fail(Code::UNREACHABLE, "the stream ended without an exit code"))
}

/// Answers every request on the bridge with the same number of bytes.
struct Server {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// `None` where the instance is on no network of this host.
    async fn start(o: &Object<Instance>) -> Option<Server> {
        let gateway: std::net::IpAddr = o.status_or_default().networks.first()?.gateway.parse().ok()?;
        let listener = TcpListener::bind((gateway, 0)).await.ok()?;
        let url = format!("http://{}/", listener.local_addr().ok()?);
        let task = tokio::spawn(async move {
            while let Ok((mut c, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let answer = format!(
                        "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {FETCHED}\r\n\r\n"
                    );
                    let body = vec![0u8; FETCHED];
                    // A client that goes away has its own error.
                    let _ = c.read(&mut request).await;
                    let _ = c.write_all(answer.as_bytes()).await;
                    let _ = c.write_all(&body).await;
                    let _ = c.shutdown().await;
                });
            }
        });
        Some(Server { url, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_from_nothing_is_no_figure() {
        let ms = Duration::from_millis;
        assert_eq!(work(ms(30), ms(10)), Outcome::Took(20_000_000));
        for took in [ms(10), ms(9)] {
            assert!(matches!(work(took, ms(10)), Outcome::Failed(_)), "{took:?}");
        }
    }
}
