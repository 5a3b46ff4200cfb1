//! Health checks: which command is run, when, and what its results mean.
//!
//! [`check`] and [`take`] decide and do nothing; [`Prober`] runs the command by way of the shim, which is the same for
//! containers and microvms, and hands results to the task that owns the instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use biga_model::kinds::health::{
    DEFAULT_INTERVAL_MS, DEFAULT_RETRIES, DEFAULT_START_INTERVAL_MS, DEFAULT_TIMEOUT_MS, HEALTH_LOG, HEALTH_OUTPUT,
};
use biga_model::{Health, HealthCheck, HealthResult, HealthStatus, Timestamp};
use biga_runtime::Runtime;
use biga_wire::shim::{ExecSpec, Exit, Reply, Request};
use biga_wire::{Decoder, Frame, FrameKind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How long a killed probe may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A check in force: spec, image and defaults made one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Program and arguments.
    pub args: Vec<String>,
    /// From the end of a probe to the next.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failures this soon after the start do not count.
    pub start_period: Duration,
    /// As `interval`, within the start period.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// Whether it is restarted then.
    pub restart: bool,
}

/// The check of a container under an image with the check `image` (Docker's form) and the shell `shell`. `None` where
/// there is none.
pub fn check(spec: Option<&HealthCheck>, image: Option<&Value>, shell: &[String]) -> Option<Check> {
    let own = image.map(from_docker).unwrap_or_default();
    let spec = spec.cloned().unwrap_or_default();
    let test = if spec.test.is_empty() { &own.test } else { &spec.test };
    let args = match test.split_first() {
        Some((kind, rest)) if kind == "CMD" => rest.to_vec(),
        Some((kind, rest)) if kind == "CMD-SHELL" => {
            let usual = ["/bin/sh".to_string(), "-c".to_string()];
            let shell = if shell.is_empty() { &usual[..] } else { shell };
            shell.iter().chain(rest).cloned().collect()
        }
        _ => return None,
    };
    if args.is_empty() {
        return None;
    }
    let ms = |spec: Option<u64>, own: Option<u64>, usual| Duration::from_millis(spec.or(own).unwrap_or(usual));
    Some(Check {
        args,
        interval: ms(spec.interval_ms, own.interval_ms, DEFAULT_INTERVAL_MS),
        timeout: ms(spec.timeout_ms, own.timeout_ms, DEFAULT_TIMEOUT_MS),
        start_period: ms(spec.start_period_ms, own.start_period_ms, 0),
        start_interval: ms(spec.start_interval_ms, own.start_interval_ms, DEFAULT_START_INTERVAL_MS),
        retries: spec.retries.or(own.retries).unwrap_or(DEFAULT_RETRIES),
        restart: spec.restart,
    })
}

/// Docker's `Healthcheck` of an image's config: nanoseconds, zero for what is unset.
fn from_docker(v: &Value) -> HealthCheck {
    let ms = |field: &str| {
        let n = v[field].as_u64().filter(|n| *n > 0)?;
        Some(n.div_ceil(1_000_000))
    };
    let words = v["Test"].as_array().into_iter().flatten();
    HealthCheck {
        test: words.filter_map(|w| w.as_str().map(str::to_string)).collect(),
        interval_ms: ms("Interval"),
        timeout_ms: ms("Timeout"),
        start_period_ms: ms("StartPeriod"),
        start_interval_ms: ms("StartInterval"),
        retries: v["Retries"]
            .as_u64()
            .filter(|n| *n > 0)
            .and_then(|n| u32::try_from(n).ok()),
        restart: false,
    }
}

/// Takes a result in. `started` is when the run began. True where the health changed by it.
pub fn take(status: &mut HealthStatus, check: &Check, result: HealthResult, started: Option<Timestamp>) -> bool {
    let before = status.status;
    if result.exit_code == 0 {
        status.failing_streak = 0;
        status.status = Health::Healthy;
    } else {
        let age = started.map(|s| result.start.duration_since(s));
        let young = age.is_some_and(|a| a.as_millis() < check.start_period.as_millis() as i128);
        // What was healthy once gets no more patience.
        if before != Health::Starting || !young {
            status.failing_streak = status.failing_streak.saturating_add(1);
            if status.failing_streak >= check.retries {
                status.status = Health::Unhealthy;
            }
        }
    }
    status.log.push(result);
    let over = status.log.len().saturating_sub(HEALTH_LOG);
    status.log.drain(..over);
    status.status != before
}

/// Runs the probes of one run, until it is dropped.
pub struct Prober {
    results: mpsc::Receiver<HealthResult>,
    task: AbortHandle,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Begins. `starting` says whether no probe has succeeded yet, `left` how much of the start period is left.
    pub fn start(runtime: Arc<dyn Runtime>, uid: String, check: Check, starting: bool, left: Duration) -> Prober {
        let (tx, results) = mpsc::channel(1);
        let until = Instant::now() + left;
        let task = tokio::spawn(async move {
            let mut starting = starting;
            loop {
                let early = starting && Instant::now() < until;
                tokio::time::sleep(if early { check.start_interval } else { check.interval }).await;
                let result = probe(&*runtime, &uid, &check).await;
                starting &= result.exit_code != 0;
                if tx.send(result).await.is_err() {
                    return;
                }
            }
        });
        Prober {
            results,
            task: task.abort_handle(),
        }
    }

    /// The next result; never returns once the probes have ended.
    pub async fn next(&mut self) -> HealthResult {
        match self.results.recv().await {
            Some(r) => r,
            None => std::future::pending().await,
        }
    }
}

/// Runs the command once.
async fn probe(runtime: &dyn Runtime, uid: &str, check: &Check) -> HealthResult {
    let start = Timestamp::now();
    let exec = ExecSpec {
        args: check.args.clone(),
        ..ExecSpec::default()
    };
    let mut output = Vec::new();
    let request = Request::Exec { exec: Box::new(exec) };
    let opening = runtime.open(uid, &request);
    let exit_code = match tokio::time::timeout(check.timeout, opening).await {
        Err(_) => {
            output = too_long(check);
            -1
        }
        Ok(Err(e)) => {
            output = e.to_string().into_bytes();
            -1
        }
        Ok(Ok(mut io)) => match tokio::time::timeout(check.timeout, listen(&mut io, &mut output)).await {
            Ok(code) => code,
            Err(_) => {
                kill(&mut io).await;
                output = too_long(check);
                -1
            }
        },
    };
    let end = Timestamp::now();
    HealthResult {
        start,
        end,
        exit_code,
        output: text(&output),
    }
}

fn too_long(check: &Check) -> Vec<u8> {
    format!("Health check exceeded timeout ({:?})", check.timeout).into_bytes()
}

fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(HEALTH_OUTPUT)];
    String::from_utf8_lossy(cut).into_owned()
}

/// Reads to the end of the probe and answers its exit code.
async fn listen(io: &mut UnixStream, output: &mut Vec<u8>) -> i32 {
    let mut decoder = Decoder::new();
    let mut buf = [0u8; 8 << 10];
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(f)) => {
                    if let Some(code) = frame(&f, output) {
                        return code;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    output.extend_from_slice(e.to_string().as_bytes());
                    return -1;
                }
            }
        }
        match io.read(&mut buf).await {
            Ok(0) | Err(_) => {
                output.extend_from_slice(b"the probe's connection broke");
                return -1;
            }
            Ok(n) => decoder.push(&buf[..n]),
        }
    }
}

/// Takes a frame in; the exit code where it is the last.
fn frame(f: &Frame, output: &mut Vec<u8>) -> Option<i32> {
    match f.kind {
        FrameKind::Stdout | FrameKind::Stderr => {
            let room = HEALTH_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&f.payload[..f.payload.len().min(room)]);
            None
        }
        FrameKind::Reply => match f.parse::<Reply>() {
            Ok(Reply::Error { message, .. }) => {
                output.extend_from_slice(message.as_bytes());
                Some(-1)
            }
            _ => None,
        },
        FrameKind::Exit => Some(f.parse::<Exit>().map_or(-1, |e| e.code)),
        FrameKind::Error => {
            output.extend_from_slice(&f.payload);
            Some(-1)
        }
        _ => None,
    }
}

/// Kills a probe that takes too long, and waits until it is gone: the next must not find it still at work.
async fn kill(io: &mut UnixStream) {
    let mut bytes = Vec::new();
    Frame::with_number(FrameKind::Signal, 9).encode(&mut bytes);
    if io.write_all(&bytes).await.is_ok() {
        let _ = tokio::time::timeout(KILLED_WITHIN, listen(io, &mut Vec::new())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Value {
        serde_json::json!({"Test": ["CMD-SHELL", "curl -f http://localhost"], "Interval": 5_000_000_000u64, "Retries": 2})
    }

    #[test]
    fn spec_and_image_are_made_one() {
        assert_eq!(check(None, None, &[]), None);
        let c = check(None, Some(&image()), &[]).unwrap();
        assert_eq!(c.args, ["/bin/sh", "-c", "curl -f http://localhost"]);
        assert_eq!(
            (c.interval, c.timeout, c.retries),
            (Duration::from_secs(5), Duration::from_secs(30), 2)
        );
        let spec = |words: &[&str]| HealthCheck {
            test: words.iter().map(|w| w.to_string()).collect(),
            timeout_ms: Some(7),
            ..HealthCheck::default()
        };
        assert_eq!(check(Some(&spec(&["NONE"])), Some(&image()), &[]), None);
        let c = check(Some(&spec(&[])), Some(&image()), &["bash".into(), "-lc".into()]).unwrap();
        assert_eq!(c.args, ["bash", "-lc", "curl -f http://localhost"]);
        assert_eq!(
            (c.interval, c.timeout),
            (Duration::from_secs(5), Duration::from_millis(7))
        );
        let c = check(Some(&spec(&["CMD", "true", "x"])), Some(&image()), &[]).unwrap();
        assert_eq!(c.args, ["true", "x"]);
    }

    #[test]
    fn results_count_as_dockers() {
        let c = Check {
            start_period: Duration::from_secs(10),
            ..check(None, Some(&image()), &[]).unwrap()
        };
        let begun = Timestamp::from_second(1000).unwrap();
        let at = |second: i64, exit_code: i32| {
            let t = Timestamp::from_second(second).unwrap();
            HealthResult {
                start: t,
                end: t,
                exit_code,
                output: String::new(),
            }
        };
        let mut s = HealthStatus::default();
        assert!(!take(&mut s, &c, at(1001, 1), Some(begun)));
        assert!(!take(&mut s, &c, at(1002, 1), Some(begun)));
        assert_eq!(
            (s.status, s.failing_streak),
            (Health::Starting, 0),
            "within the start period"
        );
        assert!(!take(&mut s, &c, at(1011, 1), Some(begun)));
        assert!(take(&mut s, &c, at(1012, -1), Some(begun)));
        assert_eq!((s.status, s.failing_streak), (Health::Unhealthy, 2));
        assert!(take(&mut s, &c, at(1013, 0), Some(begun)));
        assert_eq!((s.status, s.failing_streak), (Health::Healthy, 0));
        assert!(!take(&mut s, &c, at(1014, 1), Some(begun)));
        assert_eq!(s.log.len(), HEALTH_LOG);
        assert_eq!(s.log.last().map(|r| r.start.as_second()), Some(1014));
        // Once healthy, a failure counts within the start period too.
        let mut s = HealthStatus::default();
        take(&mut s, &c, at(1001, 0), Some(begun));
        take(&mut s, &c, at(1002, 1), Some(begun));
        assert_eq!(s.failing_streak, 1);
    }
}
