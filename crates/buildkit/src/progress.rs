//! What happens in a build as clients of BuildKit see it: a graph of vertexes with times, logs and numbers.

use std::collections::{BTreeMap, VecDeque};

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
    discard: bool,
    count: usize,
    /// The step at hand of each stage that is built now, and its line; of none where they are built one after the other.
    open: BTreeMap<Option<usize>, (Open, Option<usize>)>,
    /// The stage that failed.
    broken: Option<Option<usize>>,
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

    fn begin(&mut self, stage: Option<usize>, name: &str, line: Option<usize>) -> Vec<StatusResponse> {
        let before = self.open.remove(&stage);
        let mut out: Vec<_> = before.map(|(o, _)| o.done(None)).into_iter().collect();
        self.count += 1;
        let open = Open::new(&self.build, &format!("step {}", self.count), name);
        out.push(open.report());
        self.open.insert(stage, (open, line));
        out
    }

    /// What one event means.
    pub fn event(&mut self, event: Event) -> Vec<StatusResponse> {
        match event {
            Event::Of { stage, event } => self.of(Some(stage), *event),
            event => self.of(None, event),
        }
    }

    fn of(&mut self, stage: Option<usize>, event: Event) -> Vec<StatusResponse> {
        let at = self.open.get_mut(&stage).map(|(o, _)| o);
        let on = |f: &dyn Fn(&Open) -> StatusResponse| at.iter().map(|o| f(o)).collect();
        match event {
            Event::Step {
                number,
                total,
                text,
                line,
                stage: name,
            } => {
                let name = if name.is_empty() { name } else { name + " " };
                let line = (line > 0).then_some(line);
                self.begin(stage, &format!("[{name}{number}/{total}] {text}"), line)
            }
            Event::Broken => {
                self.broken = Some(stage);
                Vec::new()
            }
            Event::Cached => {
                at.into_iter().for_each(|o| o.0.cached = true);
                Vec::new()
            }
            Event::Output { stderr, text } => on(&|o| o.log(stderr, &text)),
            Event::Pulling { progress: p, .. } => {
                let done = matches!(p.action.as_str(), "done" | "exists");
                on(&|o| o.part(&p.part, p.done, p.total, done))
            }
            Event::Note { text } => match text.strip_prefix("[Warning] ") {
                Some(text) => self.warning(text),
                // What the classic builder writes where there is no base.
                None if text.trim() == "--->" => Vec::new(),
                None => on(&|o| o.log(false, &format!("{text}\n"))),
            },
            Event::Built { image } => self.built(&image),
            Event::Tagged { name } => on(&|o| o.part(&format!("naming to {name}"), 0, 0, true)),
            Event::Running { .. } | Event::Removed { .. } | Event::Made { .. } | Event::Of { .. } => Vec::new(),
        }
    }

    fn warning(&self, text: &str) -> Vec<StatusResponse> {
        let last = self.open.values().next_back();
        last.map(|(o, _)| o.warning(text)).into_iter().collect()
    }

    fn built(&mut self, image: &str) -> Vec<StatusResponse> {
        let steps = std::mem::take(&mut self.open);
        let mut out: Vec<_> = steps.into_values().map(|(o, _)| o.done(None)).collect();
        // Where nobody wants the image, something else comes of it.
        if !self.discard {
            out.extend(self.begin(None, "exporting to image", None));
            if let Some((o, _)) = self.open.get(&None) {
                out.push(o.part("exporting layers", 0, 0, true));
                out.push(o.part(&format!("writing image {image}"), 0, 0, true));
            }
        }
        out
    }

    /// Line of the step that failed.
    pub fn line(&self) -> Option<usize> {
        self.open.get(&self.broken?)?.1
    }

    /// The last of it.
    pub fn end(&mut self, error: Option<&str>) -> Vec<StatusResponse> {
        let broken = self.broken;
        let why = |stage: Option<usize>| match (error, broken) {
            // As BuildKit says of steps that others end.
            (Some(_), Some(b)) if b != stage => Some("context canceled"),
            _ => error,
        };
        let open = std::mem::take(&mut self.open);
        open.into_iter().map(|(stage, (o, _))| o.done(why(stage))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stage: usize, event: Event) -> Event {
        Event::Of {
            stage,
            event: Box::new(event),
        }
    }

    fn step(number: usize, line: usize) -> Event {
        Event::Step {
            number,
            total: 4,
            text: format!("RUN {number}"),
            line,
            stage: "s".into(),
        }
    }

    #[test]
    fn stages_side_by_side() {
        let mut s = Steps::new("b", false);
        let mut all = Vec::new();
        let output = Event::Output {
            stderr: true,
            text: "x".into(),
        };
        for event in [
            of(0, step(1, 10)),
            of(1, step(3, 20)),
            of(0, output),
            of(1, Event::Cached),
            of(1, step(4, 21)),
            of(0, Event::Broken),
        ] {
            all.extend(s.event(event));
        }
        assert_eq!(s.line(), Some(10));
        all.extend(s.end(Some("why")));
        let vertexes: Vec<_> = all.iter().flat_map(|r| &r.vertexes).collect();
        let said: Vec<(&str, bool, bool, &str)> = vertexes
            .iter()
            .map(|v| (&v.name[..], v.cached, v.completed.is_some(), &v.error[..]))
            .collect();
        assert_eq!(
            said,
            [
                ("[s 1/4] RUN 1", false, false, ""),
                ("[s 3/4] RUN 3", false, false, ""),
                ("[s 3/4] RUN 3", true, true, ""),
                ("[s 4/4] RUN 4", false, false, ""),
                ("[s 1/4] RUN 1", false, true, "why"),
                ("[s 4/4] RUN 4", false, true, "context canceled"),
            ]
        );
        let logs: Vec<_> = all.iter().flat_map(|r| &r.logs).collect();
        assert!(logs.len() == 1 && logs[0].vertex == vertexes[0].digest && logs[0].stream == 2);
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded() {
        let feed = Feed::default();
        let open = Open::new("b", "k", "n");
        for _ in 0..100 {
            feed.put(open.log(false, &"x".repeat(1 << 20))).await;
        }
        feed.put(open.report()).await;
        feed.end();
        let (mut logs, mut others) = (0, 0);
        while let Some(r) = feed.next().await {
            logs += r.logs.len();
            others += r.vertexes.len();
        }
        assert!(logs <= 6 && others == 1, "{logs} {others}");
    }
}
