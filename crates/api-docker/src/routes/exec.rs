//! Execs.

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use biga_model::{Instance, Object, Phase};
use biga_wire::shim::{self, ErrorCode, ExecSpec, Reply};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{empty, ok};
use crate::error::{Error, Result};
use crate::execs::{Exec, ExecState, new_id};
use crate::extract::{self, Query};
use crate::state::DockerApi;
use crate::stream::{DEFAULT_KEYS, End, Format, Plan, ShimStream, hijack, parse_keys, pump, run_detached};
use crate::translate::events::Message;
use crate::translate::ids::docker_id;
use crate::types;
use crate::types::exec::{ExecCreate, ExecStart};
use crate::version::ApiVersion;

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let value: Value = extract::json(&headers, body).await?;
    let body: ExecCreate = types::read(value).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    if body.cmd.is_empty() {
        return Err(Error::bad("no exec command specified"));
    }
    if let Some(bad) = body.env.iter().find(|e| e.is_empty() || e.starts_with('=')) {
        return Err(Error::bad(format!("invalid environment variable: {bad:?}")));
    }
    if !body.detach_keys.is_empty() {
        parse_keys(&body.detach_keys)?;
    }
    let o = api.container(&id).await?;
    may_exec(&o)?;
    let some = |s: &str| (!s.is_empty()).then(|| s.to_string());
    let exec = Exec {
        id: new_id(),
        uid: o.uid().to_string(),
        name: o.name().to_string(),
        stdout: body.attach_stdout,
        stderr: body.attach_stderr,
        detach_keys: some(&body.detach_keys),
        state: ExecState::Created,
        frames: None,
        spec: ExecSpec {
            args: body.cmd,
            env: body.env.into_iter().filter(|e| e.contains('=')).collect(),
            cwd: some(&body.working_dir),
            user: some(&body.user),
            tty: body.tty,
            stdin: body.attach_stdin,
            privileged: body.privileged,
            window: body.console_size.map(|[h, w]| (h, w)),
        },
    };
    let id = exec.id.clone();
    tell(&api, &o, &exec, "exec_create", true, &[]);
    api.inner.execs.add(exec);
    Ok(super::json(StatusCode::CREATED, &json!({"Id": id})))
}

fn may_exec(o: &Object<Instance>) -> Result<()> {
    let id = docker_id(o.uid());
    match o.status_or_default().phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(Error::conflict(format!(
            "container {id} is paused, unpause the container before exec"
        ))),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

fn tell(api: &DockerApi, o: &Object<Instance>, e: &Exec, action: &str, command: bool, more: &[(&str, String)]) {
    let mut attributes = vec![("execID", e.id.clone())];
    attributes.extend(more.iter().cloned());
    let action = match command {
        true => format!("{action}: {}", e.spec.args.join(" ")),
        false => action.to_string(),
    };
    api.inner.events.publish(Message::container(o, action, &attributes));
}

fn find(api: &DockerApi, id: &str) -> Result<Exec> {
    api.inner
        .execs
        .get(id)
        .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
}

async fn start(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    Extension(version): Extension<ApiVersion>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let value: Option<Value> = extract::json_or_none(&parts.headers, body).await?;
    let options: ExecStart =
        types::read(value.unwrap_or_else(|| json!({}))).map_err(|e| Error::bad(format!("invalid JSON: {e}")))?;
    let exec = find(&api, &id)?;
    let o = api.container(&docker_id(&exec.uid)).await?;
    may_exec(&o)?;
    if !api.inner.execs.begin(&exec.id) {
        return Err(Error::conflict(format!(
            "exec command {} is already running or has ended",
            exec.id
        )));
    }
    let mut spec = exec.spec.clone();
    spec.stdin &= !options.detach;
    spec.window = options.console_size.map(|[h, w]| (h, w)).or(spec.window);
    let running = Running {
        api: api.clone(),
        o,
        exec,
    };
    let begun = running.begin(spec).await;
    let request = Request::from_parts(parts, Body::empty());
    if options.detach {
        let (stream, frames) = begun.map_err(|e| e.error)?;
        tokio::spawn(async move {
            let end = run_detached(stream, frames).await;
            running.ended(&end);
        });
        return Ok(empty(StatusCode::OK));
    }
    let format = Format::of_tty(running.exec.spec.tty);
    let kind = format.content_type(version.at_least(42));
    match begun {
        Ok((stream, frames)) => {
            let plan = running.plan(format)?;
            Ok(hijack(request, kind, move |r, w| async move {
                pump(stream, &plan, r, w, frames, |end| running.ended(end)).await;
            }))
        }
        // The node itself failed, nothing of the command.
        Err(f) if f.code.is_none() => Err(f.error),
        // As Docker: told on the stream, and by the exit code.
        Err(f) => Ok(hijack(request, kind, move |_, mut w| async move {
            let mut out = Vec::new();
            let text = format!("{}\r\n", f.error.message);
            format.encode(biga_wire::FrameKind::Stdout, text.as_bytes(), &mut out);
            let _ = w.write_all(&out).await;
            let _ = w.shutdown().await;
        })),
    }
}

/// Why an exec did not begin.
struct NotBegun {
    error: Error,
    /// The exit code it has, where the command is to blame.
    code: Option<i32>,
}

struct Running {
    api: DockerApi,
    o: Object<Instance>,
    exec: Exec,
}

impl Running {
    fn plan(&self, format: Format) -> Result<Plan> {
        let e = &self.exec;
        let keys = match &e.detach_keys {
            Some(k) => parse_keys(k)?,
            None => DEFAULT_KEYS.to_vec(),
        };
        Ok(Plan {
            format,
            stdout: e.stdout || e.spec.tty,
            stderr: e.stderr,
            stdin: e.spec.stdin,
            stdin_eof: true,
            detach: (e.spec.tty && e.spec.stdin).then_some(keys),
            drain: true,
        })
    }

    async fn begin(
        &self,
        spec: ExecSpec,
    ) -> std::result::Result<(ShimStream, mpsc::Receiver<biga_wire::Frame>), NotBegun> {
        let result = self.open(spec).await;
        let (tx, frames) = mpsc::channel(16);
        let state = match &result {
            Ok((pid, _)) => ExecState::Running(*pid),
            Err(f) => ExecState::Ended(f.code.unwrap_or(125)),
        };
        self.api.inner.execs.change(&self.exec.id, |e| {
            e.state = state;
            e.frames = result.is_ok().then_some(tx);
        });
        let (_, stream) = result?;
        tell(&self.api, &self.o, &self.exec, "exec_start", true, &[]);
        Ok((stream, frames))
    }

    async fn open(&self, spec: ExecSpec) -> std::result::Result<(u32, ShimStream), NotBegun> {
        let failed = |error: Error| NotBegun { error, code: None };
        let request = shim::Request::Exec { exec: Box::new(spec) };
        let io = self.api.backend().open(self.api.ns(), &self.exec.name, request).await;
        let io = io.map_err(|f| failed(f.into()))?;
        match ShimStream::begin(io).await {
            Ok((Reply::Exec { pid }, stream)) => Ok((pid, stream)),
            Ok((Reply::Error { code, message }, _)) => Err(refused(code, &message)),
            Ok((other, _)) => Err(failed(Error::internal(format!(
                "the shim answered an exec by {other:?}"
            )))),
            Err(e) => Err(failed(Error::internal(format!("the shim does not answer: {e}")))),
        }
    }

    fn ended(&self, end: &End) {
        let code = match end {
            End::Exit(exit) => exit.code,
            // The client alone: the process goes on.
            End::Detached => return tell(&self.api, &self.o, &self.exec, "exec_detach", false, &[]),
            // The shim is gone, and with it everything that ran.
            End::Lost => 137,
        };
        self.api.inner.execs.change(&self.exec.id, |e| {
            e.state = ExecState::Ended(code);
            e.frames = None;
        });
        tell(
            &self.api,
            &self.o,
            &self.exec,
            "exec_die",
            false,
            &[("exitCode", code.to_string())],
        );
    }
}

fn refused(code: ErrorCode, message: &str) -> NotBegun {
    let head = "OCI runtime exec failed: exec failed";
    let (error, code) = match code {
        ErrorCode::NotFound => {
            let hint = if message.contains("not found") {
                ""
            } else {
                ": executable file not found in $PATH"
            };
            (Error::bad(format!("{head}: {message}{hint}")), Some(127))
        }
        ErrorCode::NotExecutable => {
            let hint = if message.contains("permission denied") {
                ""
            } else {
                ": permission denied"
            };
            (Error::bad(format!("{head}: {message}{hint}")), Some(126))
        }
        ErrorCode::State => (Error::conflict(message), None),
        ErrorCode::Unsupported => (Error::new(StatusCode::NOT_IMPLEMENTED, message), None),
        ErrorCode::Invalid => (Error::bad(message), Some(126)),
        ErrorCode::Failed => (Error::internal(message), Some(126)),
    };
    NotBegun { error, code }
}

async fn resize(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let frame = super::containers::window(&q)?;
    let exec = find(&api, &id)?;
    match (exec.state, exec.frames) {
        (_, Some(frames)) => {
            let _ = frames.try_send(frame);
        }
        (ExecState::Created | ExecState::Starting, None) => {
            api.inner.execs.change(&exec.id, |e| e.spec.window = frame.window());
        }
        (_, None) => return Err(Error::conflict(format!("exec {} is not running", exec.id))),
    }
    Ok(empty(StatusCode::OK))
}

async fn inspect(State(api): State<DockerApi>, Path(id): Path<String>) -> Result<Response> {
    let e = find(&api, &id)?;
    let (running, pid, code) = match e.state {
        ExecState::Created | ExecState::Starting => (false, 0, Value::Null),
        ExecState::Running(pid) => (true, pid, Value::Null),
        ExecState::Ended(code) => (false, 0, code.into()),
    };
    Ok(ok(&json!({
        "ID": e.id,
        "Running": running,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": e.spec.tty,
            "entrypoint": e.spec.args.first(),
            "arguments": e.spec.args.get(1..).unwrap_or(&[]),
            "privileged": e.spec.privileged,
            "user": e.spec.user.clone().unwrap_or_default(),
        },
        "OpenStdin": e.spec.stdin,
        "OpenStderr": e.stderr,
        "OpenStdout": e.stdout,
        "CanRemove": !running && !code.is_null(),
        "ContainerID": docker_id(&e.uid),
        "DetachKeys": e.detach_keys.clone().unwrap_or_default(),
        "Pid": pid,
    })))
}
