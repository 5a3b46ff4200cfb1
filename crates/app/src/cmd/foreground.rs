//! An instance in the foreground: its input and output are ours, its exit code becomes ours.

use std::time::{Duration, Instant};

use biga_client::{Duplex, Error, ErrorKind, StreamError};
use biga_model::{Instance, Isolation, Object, RestartWhen};
use biga_wire::FrameKind;
use biga_wire::shim::{ErrorCode, Exit, Request};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::note;
use crate::session::{End, Options, Session};
use crate::wait;

/// How long a lost daemon is waited for, and the removal after the end.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// How long a stream may take to open before the instance's status is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(250);

/// Attaches to an instance that starts (or runs) and stays until it ends or the user leaves.
/// `container` names one of several.
pub async fn attach(
    cx: &Context,
    o: &Object<Instance>,
    container: Option<&str>,
    options: Options,
) -> anyhow::Result<Code> {
    let way = Way::of(o, container, options.stdin);
    let first = wait::with_pull(cx, o.spec.main_image(), open(cx, o, &way)).await?;
    let mut stream = match first {
        Opened::Stream(s) => s,
        Opened::Ended(code) => return Ok(code),
    };
    let mut session = Session::begin(options)?;
    loop {
        let end = session.carry(&mut stream).await?;
        match end {
            End::Exit(exit) => {
                drop(session);
                // The others of a pod go on when one of its containers ends.
                let whole = !matches!(way.ask, Request::Of { .. });
                return finish(cx, o, &exit, whole, &mut stream.reader).await;
            }
            End::Detached => {
                drop(session);
                note(format!("\nleft {}; `biga attach {}` comes back", o.name(), o.name()));
                return Ok(Code::OK);
            }
            End::Signal(n) => return Ok(Code::of_process(128 + n)),
            End::Lost => match open(cx, o, &way).await? {
                Opened::Stream(s) => stream = s,
                Opened::Ended(code) => return Ok(code),
            },
        }
    }
}

/// The path and the request of a stream to the main process.
#[derive(Debug, Clone)]
pub struct Way {
    verb: &'static str,
    ask: Request,
}

impl Way {
    /// A machine has a console, everything else standard streams.
    fn of(o: &Object<Instance>, container: Option<&str>, stdin: bool) -> Way {
        if o.spec.isolation == Isolation::Vm {
            return Way::console();
        }
        Way {
            verb: "attach",
            ask: Request::Attach { stdin }.of(container),
        }
    }

    fn console() -> Way {
        Way {
            verb: "console",
            ask: Request::Console,
        }
    }
}

enum Opened {
    Stream(Duplex),
    Ended(Code),
}

/// Opens the stream. The daemon answers once the instance has a shim; where it does not wait long enough, or goes away
/// and comes back, we ask again, until the instance has ended or cannot start.
async fn open(cx: &Context, o: &Object<Instance>, way: &Way) -> anyhow::Result<Opened> {
    let mut failing: Option<Instant> = None;
    loop {
        let error = match ask(cx, o, way).await? {
            Asked::Opened(s) => return Ok(Opened::Stream(*s)),
            Asked::No(e) => e,
        };
        match cx.api::<Instance>().get_opt(o.name()).await {
            Ok(Some(now)) if now.uid() == o.uid() => {
                let status = now.status_or_default();
                let answered = status.observed_generation >= o.metadata.generation;
                if let Some(e) = wait::start_failure(&now).filter(|_| answered) {
                    return Err(e);
                }
                if answered && status.phase.is_ended() && status.observed_restart >= now.spec.restart_request {
                    return Ok(Opened::Ended(Code::of_process(status.exit_code.unwrap_or(0))));
                }
                // It is on its way; only a refusal that will not change ends the waiting.
                if !may_change(&error) {
                    return Err(error.into());
                }
                // While it is being prepared there is no hurry; one that runs and cannot be reached is not waited for long.
                if error.retryable() || status.phase.is_live() {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error.into());
                    }
                }
            }
            Ok(_) => return gone(cx, o).await,
            Err(e) if e.retryable() => {
                let since = *failing.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(e.into());
                }
            }
            Err(e) => return Err(e.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// It removed itself, or was removed, before its stream could be opened: why, or how it ended.
async fn gone(cx: &Context, o: &Object<Instance>) -> anyhow::Result<Opened> {
    if let Some(last) = wait::last_state(cx, o).await {
        let status = last.status_or_default();
        if let Some(e) = wait::start_failure(&last) {
            return Err(e);
        }
        if let Some(code) = status.exit_code.filter(|_| status.phase.is_ended()) {
            return Ok(Opened::Ended(Code::of_process(code)));
        }
    }
    Err(fail(Code::FAILED, format!("instance {} is gone", o.name())))
}

enum Asked {
    Opened(Box<Duplex>),
    No(Error),
}

fn may_change(e: &Error) -> bool {
    e.retryable() || matches!(e.kind, ErrorKind::Conflict | ErrorKind::NotFound)
}

/// One attempt, given up when the instance turns out to have failed.
async fn ask(cx: &Context, o: &Object<Instance>, way: &Way) -> anyhow::Result<Asked> {
    let generation = o.metadata.generation;
    let failed = async {
        // The daemon itself tells of a failure on the stream; this is for one that is slow to.
        tokio::time::sleep(LOOK_AFTER).await;
        let failure = |seen: Option<&Object<Instance>>| {
            let s = seen?;
            let answered = s.status_or_default().observed_generation >= generation;
            wait::start_failure(s).filter(|_| answered)
        };
        wait::instance(cx, o, failure).await
    };
    tokio::select! {
        biased;
        r = cx.client.open_stream(&cx.namespace, o.name(), way.verb, &way.ask) => match r {
            Ok(s) => Ok(Asked::Opened(Box::new(s))),
            Err(StreamError::Api(e)) => Ok(Asked::No(e)),
            // It has no shim yet, or none any more.
            Err(StreamError::Refused { code: ErrorCode::State, message }) => {
                Ok(Asked::No(Error::new(ErrorKind::Conflict, message)))
            }
            Err(e) => Err(e.into()),
        },
        r = failed => match r {
            Ok(e) => Err(e),
            Err(e) => Ok(Asked::No(e)),
        },
    }
}

/// Waits until the end is in the instance's status too, so that the next command sees it.
async fn finish(
    cx: &Context,
    o: &Object<Instance>,
    exit: &Exit,
    whole: bool,
    rest: &mut biga_client::Reader,
) -> anyhow::Result<Code> {
    if whole && o.spec.restart_policy.policy == RestartWhen::No {
        let settled = async {
            if told(rest).await {
                Ok(())
            } else if o.spec.auto_remove {
                wait::gone(cx, o).await
            } else {
                wait::ended(cx, o).await.map(drop)
            }
        };
        // The code is known: nothing that goes wrong here changes it.
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            note(format!(
                "biga: instance {} ended, but the daemon has not seen it yet",
                o.name()
            ));
        }
    }
    if let Some(why) = &exit.error {
        note(format!("biga: {}: {why}", o.name()));
    }
    Ok(Code::of_process(exit.code))
}

/// Whether the daemon says on the stream itself that all is done. One that goes away before, or says no such thing, is asked.
async fn told(rest: &mut biga_client::Reader) -> bool {
    while let Ok(Some(frame)) = rest.next().await {
        if frame.kind == FrameKind::Settled {
            return true;
        }
    }
    false
}

/// The serial console of a machine, the kernel's console of a microvm.
pub async fn console(cx: &Context, o: &Object<Instance>) -> anyhow::Result<Code> {
    let way = Way::console();
    let mut stream = cx
        .client
        .open_stream(&cx.namespace, o.name(), way.verb, &way.ask)
        .await?;
    let terminal = crate::term::stdin_is_terminal();
    if terminal {
        note(format!("console of {}: ctrl-p ctrl-q leaves", o.name()));
    }
    let mut session = Session::begin(Options {
        stdin: true,
        tty: terminal,
        proxy_signals: false,
    })?;
    match session.carry(&mut stream).await? {
        End::Signal(n) => Ok(Code::of_process(128 + n)),
        End::Exit(_) | End::Detached => Ok(Code::OK),
        End::Lost => {
            drop(session);
            Err(fail(
                Code::UNREACHABLE,
                format!("the console of {} was closed", o.name()),
            ))
        }
    }
}
