//! What happens in a build as clients of BuildKit see it: a graph of vertexes with times, logs and numbers.

use std::collections::VecDeque;

use biga_wire::build::Event;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::proto::Timestamp;
use crate::proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

/// Bytes of logs that wait for a reader; the build waits, too, where there is one, and else they are dropped.
const MAX_WAITING: usize = 4 << 20;

/// Reports on their way to the client.
#[derive(Default)]
pub struct Feed {
    state: Mutex<State>,
    changed: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<StatusResponse>,
    bytes: usize,
    read: bool,
    ended: bool,
}

fn weight(report: &StatusResponse) -> usize {
    report.logs.iter().map(|l| l.msg.len()).sum::<usize>() + 128
}

impl Feed {
    /// Reports.
    pub async fn put(&self, report: StatusResponse) {
        loop {
            let room = self.room.notified();
            {
                let mut s = self.state.lock();
                let full = s.bytes > MAX_WAITING;
                if s.ended {
                    return;
                }
                if !full || !s.read {
                    // Without a reader the text of commands is what there is too much of.
                    if !full || report.logs.is_empty() {
                        s.bytes += weight(&report);
                        s.waiting.push_back(report);
                    }
                    break;
                }
            }
            room.await;
        }
        self.changed.notify_one();
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
        self.room.notify_waiters();
    }

    /// The next report; `None` at the end.
    pub async fn next(&self) -> Option<StatusResponse> {
        loop {
            let changed = self.changed.notified();
            {
                let mut s = self.state.lock();
                s.read = true;
                if let Some(report) = s.waiting.pop_front() {
                    s.bytes -= weight(&report);
                    self.room.notify_waiters();
                    return Some(report);
                }
                if s.ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Nobody reads any more.
    pub fn left(&self) {
        self.state.lock().read = false;
        self.room.notify_waiters();
    }
}

/// A vertex that is not yet complete.
#[derive(Debug, Clone)]
pub struct Open(Vertex);

impl Open {
    /// It begins now. `key` tells it from others of its build.
    pub fn new(build: &str, key: &str, name: &str) -> Open {
        let hex: String = Sha256::digest(format!("{build}\n{key}").as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Open(Vertex {
            digest: format!("sha256:{hex}"),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        })
    }

    /// The report that it is there.
    pub fn report(&self) -> StatusResponse {
        StatusResponse {
            vertexes: vec![self.0.clone()],
            ..StatusResponse::default()
        }
    }

    /// The report that it is done, or why it failed.
    pub fn done(mut self, error: Option<&str>) -> StatusResponse {
        self.0.completed = Some(Timestamp::now());
        self.0.error = error.unwrap_or_default().to_owned();
        self.report()
    }

    fn log(&self, stderr: bool, text: &str) -> StatusResponse {
        let log = VertexLog {
            vertex: self.0.digest.clone(),
            timestamp: Some(Timestamp::now()),
            stream: if stderr { 2 } else { 1 },
            msg: text.as_bytes().to_vec(),
        };
        StatusResponse {
            logs: vec![log],
            ..StatusResponse::default()
        }
    }

    /// A part of it: so many of so many, done or not.
    pub fn part(&self, id: &str, current: u64, total: u64, done: bool) -> StatusResponse {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let now = Some(Timestamp::now());
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.0.digest.clone(),
            name: id.to_owned(),
            current: number(current),
            total: number(total),
            timestamp: now,
            started: self.0.started,
            completed: now.filter(|_| done),
        };
        StatusResponse {
            statuses: vec![status],
            ..StatusResponse::default()
        }
    }

    /// Something people should know.
    pub fn warning(&self, text: &str) -> StatusResponse {
        let warning = VertexWarning {
            vertex: self.0.digest.clone(),
            level: 1,
            short: text.as_bytes().to_vec(),
        };
        StatusResponse {
            warnings: vec![warning],
            ..StatusResponse::default()
        }
    }
}

/// Turns a builder's events into reports.
#[derive(Debug, Default)]
pub struct Steps {
    build: String,
    open: Option<Open>,
    /// Line of the step at hand.
    pub line: Option<usize>,
    count: usize,
    discard: bool,
}

impl Steps {
    /// Of this build, whose image nobody may want.
    pub fn new(build: &str, discard: bool) -> Steps {
        Steps {
            build: build.to_owned(),
            discard,
            ..Steps::default()
        }
    }

    fn begin(&mut self, name: &str) -> Vec<StatusResponse> {
        let mut out: Vec<_> = self.open.take().map(|o| o.done(None)).into_iter().collect();
        self.count += 1;
        let open = Open::new(&self.build, &format!("step {}", self.count), name);
        out.push(open.report());
        self.open = Some(open);
        out
    }

    /// What one event means.
    pub fn event(&mut self, event: Event) -> Vec<StatusResponse> {
        let on = |open: &Option<Open>, f: &dyn Fn(&Open) -> StatusResponse| open.iter().map(f).collect();
        match event {
            Event::Step {
                number,
                total,
                text,
                line,
                stage,
            } => {
                self.line = (line > 0).then_some(line);
                let stage = if stage.is_empty() { stage } else { stage + " " };
                self.begin(&format!("[{stage}{number}/{total}] {text}"))
            }
            Event::Cached => {
                if let Some(open) = &mut self.open {
                    open.0.cached = true;
                }
                Vec::new()
            }
            Event::Output { stderr, text } => on(&self.open, &|o| o.log(stderr, &text)),
            Event::Pulling { progress: p, .. } => {
                let done = matches!(p.action.as_str(), "done" | "exists");
                let total = p.total;
                on(&self.open, &|o| o.part(&p.part, p.done, total, done))
            }
            Event::Note { text } => match text.strip_prefix("[Warning] ") {
                Some(text) => on(&self.open, &|o| o.warning(text)),
                // What the classic builder writes where there is no base.
                None if text.trim() == "--->" => Vec::new(),
                None => on(&self.open, &|o| o.log(false, &format!("{text}\n"))),
            },
            // Something else comes of it.
            Event::Built { .. } if self.discard => {
                self.line = None;
                self.open.take().map(|o| o.done(None)).into_iter().collect()
            }
            Event::Built { image } => {
                self.line = None;
                let mut out = self.begin("exporting to image");
                out.extend(self.open.iter().map(|o| o.part("exporting layers", 0, 0, true)));
                let name = format!("writing image {image}");
                out.extend(self.open.iter().map(|o| o.part(&name, 0, 0, true)));
                out
            }
            Event::Tagged { name } => on(&self.open, &|o| o.part(&format!("naming to {name}"), 0, 0, true)),
            Event::Running { .. } | Event::Removed { .. } | Event::Made { .. } => Vec::new(),
        }
    }

    /// The last of it.
    pub fn end(&mut self, error: Option<&str>) -> Option<StatusResponse> {
        self.open.take().map(|o| o.done(error))
    }
}
