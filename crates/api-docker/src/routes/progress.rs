//! Long calls: JSON lines as Docker's clients draw them.

use axum::body::Body;
use axum::response::Response;
use biga_wire::http::Progress;
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::backend::{Fault, Reporter};
use crate::error::Error;
use crate::translate::ids::short;

/// Where lines go.
#[derive(Clone)]
pub(super) struct Lines(mpsc::Sender<Bytes>);

impl Lines {
    /// Sends a line; false when the client is gone.
    pub async fn send(&self, line: Value) -> bool {
        self.0.send(Bytes::from(line.to_string() + "\r\n")).await.is_ok()
    }

    /// Waits until the client is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// A line of plain status.
    pub async fn status(&self, text: impl Into<String>) -> bool {
        self.send(json!({"status": text.into()})).await
    }

    /// The last line of a call that failed.
    pub async fn error(&self, e: &Error) -> bool {
        self.send(json!({"errorDetail": {"message": e.message}, "error": e.message}))
            .await
    }
}

/// An answer whose lines are written by `work`, in a task that goes on when the client leaves.
pub(super) fn stream<F, Fut>(work: F) -> Response
where
    F: FnOnce(Lines) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (tx, rx) = mpsc::channel(64);
    tokio::spawn(work(Lines(tx)));
    let body = futures_util::stream::unfold(rx, |mut rx: mpsc::Receiver<Bytes>| async move {
        rx.recv().await.map(|l| (Ok::<_, std::io::Error>(l), rx))
    });
    let mut r = Response::new(Body::from_stream(body));
    r.headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    r
}

/// A line with a bar.
pub(super) fn bar(status: &str, id: &str, done: u64, total: u64) -> Value {
    if total == 0 {
        return json!({"status": status, "progressDetail": {}, "id": id});
    }
    let width = 50;
    let full = (done.min(total) * width / total) as usize;
    let head = if full < width as usize { ">" } else { "" };
    let text = format!(
        "[{}{head}{}] {}/{}",
        "=".repeat(full),
        " ".repeat(width as usize - full - head.len()),
        size(done),
        size(total)
    );
    json!({"status": status, "progressDetail": {"current": done, "total": total}, "progress": text, "id": id})
}

/// `1.5MB`: decimal units, as Docker's bars have.
fn size(bytes: u64) -> String {
    let mut v = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if v < 1000.0 {
            return if unit == "B" {
                format!("{bytes}B")
            } else {
                format!("{v:.3}{unit}")
            };
        }
        v /= 1000.0;
    }
    format!("{v:.3}TB")
}

/// Runs a call of the node, with what it reports as lines. A client that does not read them does not hold up the call.
pub(super) async fn with_progress<T>(
    lines: &Lines,
    call: impl AsyncFnOnce(Reporter) -> Result<T, Fault>,
) -> Result<T, Error> {
    let (tx, mut rx) = mpsc::channel::<Progress>(64);
    // It takes the reporter with it when it ends.
    let work = call(Reporter::new(tx));
    let telling = async {
        while let Some(p) = rx.recv().await {
            tell(lines, &p).await;
        }
    };
    let (done, ()) = tokio::join!(work, telling);
    done.map_err(Error::from)
}

async fn tell(lines: &Lines, p: &Progress) {
    if p.part.is_empty() {
        // Before the first of the parts Docker says nothing.
        if p.action != "preparing" {
            lines.status(word(&p.action)).await;
        }
    } else {
        lines
            .send(bar(&word(&p.action), &short(&p.part), p.done, p.total))
            .await;
    }
}

/// Docker's words for what a transfer does.
fn word(action: &str) -> String {
    match action {
        "uploading" => "Pushing".into(),
        "downloading" => "Downloading".into(),
        "exists" => "Layer already exists".into(),
        "waiting" => "Waiting".into(),
        "preparing" => "Preparing".into(),
        "done" => "Pushed".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_though_nobody_reads() {
        let (tx, mut rx) = mpsc::channel(1);
        let (ended, end) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let lines = Lines(tx);
            let work = async |report: Reporter| {
                for done in 0..500 {
                    report.progress(Progress {
                        action: "downloading".into(),
                        part: "sha256:1".into(),
                        done,
                        total: 500,
                    });
                    tokio::task::yield_now().await;
                }
                ended.send(()).unwrap();
                Ok(7)
            };
            with_progress(&lines, work).await.unwrap()
        });
        end.await.unwrap();
        let mut lines = 0;
        while rx.recv().await.is_some() {
            lines += 1;
        }
        assert_eq!(task.await.unwrap(), 7);
        assert!((1..500).contains(&lines), "{lines}: what did not fit was left out");
    }

    #[test]
    fn bars_have_one_width() {
        for (done, total) in [(0, 10), (5, 10), (10, 10), (20, 10)] {
            let b = bar("Downloading", "x", done, total);
            let text = b["progress"].as_str().unwrap();
            assert_eq!(text.find(']'), Some(51), "{text}");
        }
        assert_eq!(size(1_500_000), "1.500MB");
        assert_eq!(size(12), "12B");
    }
}
