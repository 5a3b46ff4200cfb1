//! Programs of the fake node, and the streams into them.

use std::sync::Arc;

use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Reply};
use biga_wire::{Decoder, Frame, FrameKind};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::node::Shared;

/// A program that runs.
pub struct Process {
    pub log: Mutex<Vec<(FrameKind, Vec<u8>)>>,
    pub written: watch::Sender<usize>,
    pub attached: watch::Sender<bool>,
    pub exit: watch::Sender<Option<i32>>,
    pub stdin: mpsc::UnboundedSender<Option<Vec<u8>>>,
    pub held: bool,
}

impl Process {
    pub fn write(&self, kind: FrameKind, bytes: &[u8]) {
        let mut log = self.log.lock();
        log.push((kind, bytes.to_vec()));
        self.written.send_replace(log.len());
    }

    pub fn end(&self, code: i32) {
        self.exit.send_if_modified(|e| {
            let first = e.is_none();
            if first {
                *e = Some(code);
            }
            first
        });
    }
}

/// Runs one of the known programs to its end.
pub async fn program(
    words: &[String],
    mut input: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    write: impl Fn(FrameKind, &[u8]),
) -> i32 {
    let rest = words.get(1..).unwrap_or(&[]).join(" ");
    match words.first().map(String::as_str) {
        Some("exit") => rest.parse().unwrap_or(2),
        Some("echo") => {
            write(FrameKind::Stdout, format!("{rest}\n").as_bytes());
            0
        }
        Some("err") => {
            write(FrameKind::Stderr, format!("{rest}\n").as_bytes());
            1
        }
        Some("lines") => {
            for i in 1..=rest.parse().unwrap_or(1) {
                write(FrameKind::Stdout, format!("line {i}\n").as_bytes());
            }
            0
        }
        Some("cat") => {
            while let Some(Some(bytes)) = input.recv().await {
                write(FrameKind::Stdout, &bytes);
            }
            0
        }
        Some("sleep") => std::future::pending().await,
        _ => 0,
    }
}

async fn send(io: &mut (impl tokio::io::AsyncWrite + Unpin), frame: Frame) -> std::io::Result<()> {
    let mut buf = Vec::new();
    frame.encode(&mut buf);
    io.write_all(&buf).await
}

/// Takes a client's frames.
async fn take_input(
    mut io: tokio::net::unix::OwnedReadHalf,
    stdin: Option<mpsc::UnboundedSender<Option<Vec<u8>>>>,
    shared: Arc<Shared>,
) {
    let mut decoder = Decoder::new();
    let mut buf = vec![0; 32 << 10];
    while let Ok(n @ 1..) = io.read(&mut buf).await {
        decoder.push(&buf[..n]);
        while let Ok(Some(f)) = decoder.next_frame() {
            match (f.kind, &stdin) {
                (FrameKind::Stdin, Some(tx)) => drop(tx.send(Some(f.payload))),
                (FrameKind::StdinEof, Some(tx)) => drop(tx.send(None)),
                (FrameKind::Resize, _) => shared.windows.lock().extend(f.window()),
                _ => {}
            }
        }
    }
}

pub async fn serve_attach(io: UnixStream, p: Arc<Process>, stdin: bool, shared: Arc<Shared>) {
    let (r, mut w) = io.into_split();
    let first = p.held && !*p.attached.borrow();
    let mut sent = if first { 0 } else { p.log.lock().len() };
    p.attached.send_replace(true);
    let input = tokio::spawn(take_input(r, stdin.then(|| p.stdin.clone()), shared));
    let mut written = p.written.subscribe();
    let mut exit = p.exit.subscribe();
    if send(&mut w, Frame::json(FrameKind::Reply, &Reply::Ok)).await.is_err() {
        return;
    }
    loop {
        // The exit is looked at before the log: all output comes before it.
        let code = *exit.borrow_and_update();
        written.mark_unchanged();
        let news: Vec<_> = p.log.lock()[sent..].to_vec();
        sent += news.len();
        for (kind, bytes) in news {
            for piece in bytes.chunks(biga_wire::MAX_DATA) {
                if send(&mut w, Frame::new(kind, piece)).await.is_err() {
                    return;
                }
            }
        }
        if let Some(code) = code {
            let _ = send(
                &mut w,
                Frame::json(
                    FrameKind::Exit,
                    &Exit {
                        code,
                        ..Exit::default()
                    },
                ),
            )
            .await;
            input.abort();
            return;
        }
        tokio::select! {
            _ = written.wait_for(|n| *n > sent) => {}
            _ = exit.changed() => {}
        }
    }
}

pub async fn serve_exec(io: UnixStream, spec: ExecSpec, shared: Arc<Shared>) {
    let (r, mut w) = io.into_split();
    if spec.args[0] == "nosuch" {
        let message = "exec: \"nosuch\": no such program".to_string();
        let reply = Reply::Error {
            code: ErrorCode::NotFound,
            message,
        };
        let _ = send(&mut w, Frame::json(FrameKind::Reply, &reply)).await;
        return;
    }
    if let Some(window) = spec.window {
        shared.windows.lock().push(window);
    }
    let _ = send(&mut w, Frame::json(FrameKind::Reply, &Reply::Exec { pid: 4242 })).await;
    let (tx, input) = mpsc::unbounded_channel();
    let input_task = tokio::spawn(take_input(r, Some(tx), shared));
    let (out_tx, mut out) = mpsc::unbounded_channel();
    let run = async move { program(&spec.args, input, |k, b| drop(out_tx.send((k, b.to_vec())))).await };
    tokio::pin!(run);
    let mut code = None;
    loop {
        tokio::select! {
            biased;
            Some((kind, bytes)) = out.recv() => {
                for piece in bytes.chunks(biga_wire::MAX_DATA) {
                    let _ = send(&mut w, Frame::new(kind, piece)).await;
                }
            }
            c = &mut run, if code.is_none() => code = Some(c),
            else => break,
        }
        if let Some(code) = code
            && out.is_empty()
        {
            let _ = send(
                &mut w,
                Frame::json(
                    FrameKind::Exit,
                    &Exit {
                        code,
                        ..Exit::default()
                    },
                ),
            )
            .await;
            break;
        }
    }
    input_task.abort();
}
