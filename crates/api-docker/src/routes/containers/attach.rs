//! `POST /containers/{id}/attach` and `/resize`.
//!
//! A client may attach to what does not run yet (`docker run` does): it is answered at once, waits here until somebody
//! starts the instance, and gets its stream then. The start holds the output back for it (`waitAttach`).

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use biga_model::{Instance, Object, Phase, Power};
use biga_wire::Frame;
use biga_wire::shim::{self, Reply};
use futures_util::StreamExt;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::attaches::Attached;
use crate::backend::LogQuery;
use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;
use crate::stream::{
    ClientRead, ClientWrite, DEFAULT_KEYS, Format, Plan, Recoder, ShimStream, hijack, parse_keys, pump,
};
use crate::translate::ids::docker_id;
use crate::translate::main_process;
use crate::version::ApiVersion;

pub(super) async fn attach(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    Extension(version): Extension<ApiVersion>,
    q: Query,
    request: Request,
) -> Result<Response> {
    let session = session(api, &id, &q, None).await?;
    let kind = session.plan.format.content_type(version.at_least(42));
    Ok(hijack(request, kind, move |r, w| session.run(r, w)))
}

/// What a client asks for that attaches to the container `id`; `format` where it is not the usual.
pub(super) async fn session(api: DockerApi, id: &str, q: &Query, format: Option<Format>) -> Result<Session> {
    let o = api.container(id).await?;
    if o.status_or_default().phase == Phase::Paused {
        return Err(Error::conflict(format!(
            "container {} is paused, unpause the container before attach",
            docker_id(o.uid())
        )));
    }
    let c = main_process(&o.spec);
    let keys = match q.get("detachKeys") {
        Some(k) => parse_keys(k)?,
        None => DEFAULT_KEYS.to_vec(),
    };
    let format = format.unwrap_or_else(|| Format::of_tty(c.tty));
    let plan = Plan {
        format,
        stdout: q.flag("stdout"),
        stderr: q.flag("stderr"),
        stdin: q.flag("stdin") && c.stdin,
        stdin_eof: c.stdin_once && !c.tty,
        detach: (c.tty && q.flag("stdin")).then_some(keys),
        drain: false,
    };
    let (logs, stream) = (q.flag("logs"), q.flag("stream"));
    api.tell(&o, "attach", &[]);
    let (tx, frames) = mpsc::channel(16);
    let phase = o.status_or_default().phase;
    let waiting = !phase.is_live();
    // Known before the client is answered: it may start the instance next.
    let attached = stream.then(|| api.inner.attaches.join(o.uid(), waiting, tx));
    // What runs may end before the client has read the answer: its output is for this client from now on.
    let opened = match phase == Phase::Running && stream && !logs {
        true => Some(open(&api, &o, plan.stdin).await),
        false => None,
    };
    Ok(Session {
        api,
        o,
        plan,
        logs,
        waiting,
        attached,
        opened,
        frames,
    })
}

/// A client's stay.
pub(super) struct Session {
    api: DockerApi,
    o: Object<Instance>,
    plan: Plan,
    logs: bool,
    /// Whether it did not run when the client came.
    waiting: bool,
    attached: Option<Attached>,
    opened: Option<Result<ShimStream>>,
    frames: mpsc::Receiver<Frame>,
}

impl Session {
    /// Waits for the container to run, and passes bytes.
    pub(super) async fn run(self, read: ClientRead, mut write: ClientWrite) {
        let name = self.o.name().to_string();
        if self.logs
            && let Err(e) = send_logs(&self.api, &self.o, &self.plan, &mut write).await
        {
            tracing::debug!(name, "attach: the log cannot be sent: {e}");
        }
        let Some(attached) = self.attached else {
            let _ = write.shutdown().await;
            return;
        };
        // A run that has ended meanwhile was this client's: the next one is not waited for.
        if self.waiting && !begun(&self.api, &self.o).await {
            let _ = write.shutdown().await;
            return;
        }
        let opened = match self.opened {
            Some(opened) => opened,
            None => open(&self.api, &self.o, self.plan.stdin).await,
        };
        attached.connected();
        match opened {
            Ok(shim) => {
                let ended = |end: &crate::stream::End| {
                    if matches!(end, crate::stream::End::Detached) {
                        self.api.tell(&self.o, "detach", &[]);
                    }
                };
                pump(shim, &self.plan, read, write, self.frames, ended).await;
            }
            Err(e) => {
                tracing::debug!(name, "attach: {e}");
                let _ = write.shutdown().await;
            }
        }
    }
}

/// What was said before the client came.
async fn send_logs(api: &DockerApi, o: &Object<Instance>, plan: &Plan, write: &mut ClientWrite) -> std::io::Result<()> {
    let query = LogQuery {
        follow: false,
        tail: None,
        since: None,
        until: None,
        timestamps: false,
        details: false,
        stdout: plan.stdout,
        stderr: plan.stderr,
    };
    let logs = api.backend().logs(api.ns(), o.name(), query).await;
    let mut logs = logs.map_err(std::io::Error::other)?;
    let mut recoder = Recoder::new(plan.format);
    while let Some(bytes) = logs.next().await {
        let out = recoder.push(&bytes.map_err(std::io::Error::other)?)?;
        write.write_all(&out).await?;
    }
    write.flush().await
}

/// Waits until somebody wants it to run. False when it went away before.
async fn begun(api: &DockerApi, o: &Object<Instance>) -> bool {
    let wanted = api.follow(o, |seen| {
        let Some(o) = seen.filter(|o| !o.is_deleting()) else {
            return Some(false);
        };
        let s = o.status_or_default();
        let asked =
            o.spec.power != Power::Stopped && (!s.phase.is_ended() || o.spec.restart_request > s.observed_restart);
        (s.phase.is_live() || asked).then_some(true)
    });
    wanted.await.unwrap_or(false)
}

async fn open(api: &DockerApi, o: &Object<Instance>, stdin: bool) -> Result<ShimStream> {
    let io = api
        .backend()
        .open(api.ns(), o.name(), shim::Request::Attach { stdin })
        .await?;
    let broken = |e: std::io::Error| Error::internal(format!("the shim of {} does not answer: {e}", o.name()));
    match ShimStream::begin(io).await.map_err(broken)? {
        (Reply::Error { message, .. }, _) => Err(Error::internal(message)),
        (_, stream) => Ok(stream),
    }
}

/// Rows and columns of a resize call.
pub(in crate::routes) fn window(q: &Query) -> Result<Frame> {
    let side = |name: &str| -> Result<u16> {
        q.number::<u16>(name)?
            .ok_or_else(|| Error::bad(format!("{name} is required: the size of the terminal")))
    };
    Ok(Frame::resize(side("h")?, side("w")?))
}

pub(super) async fn resize(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let frame = window(&q)?;
    let o = api.container(&id).await?;
    let told = || {
        let (h, w) = frame.window().unwrap_or_default();
        api.tell(&o, "resize", &[("height", h.to_string()), ("width", w.to_string())]);
    };
    if api.inner.attaches.send(o.uid(), frame.clone()) {
        told();
        return Ok(super::super::empty(StatusCode::OK));
    }
    if !o.status_or_default().phase.is_live() {
        return Err(Error::conflict(format!(
            "container {} is not running",
            docker_id(o.uid())
        )));
    }
    let mut stream = open(&api, &o, false).await?;
    stream
        .send(&frame)
        .await
        .map_err(|e| Error::internal(format!("cannot resize: {e}")))?;
    told();
    Ok(super::super::empty(StatusCode::OK))
}
