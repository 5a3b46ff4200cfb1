//! The user's side of a stream: terminal, input, output, signals.

use std::io::{Read, Write};

use anyhow::Context as _;
use biga_client::{Duplex, Reader, Writer};
use biga_wire::shim::Exit;
use biga_wire::{Frame, FrameKind, MAX_DATA};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::{Code, fail};
use crate::output::note;
use crate::term::{DetachKeys, RawMode, window};

/// What of the user's side belongs to the stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Standard input goes to the process.
    pub stdin: bool,
    /// The process has a terminal, and ours becomes its screen.
    pub tty: bool,
    /// Signals go to the process.
    pub proxy_signals: bool,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The process ended.
    Exit(Exit),
    /// The user left it with the detach keys.
    Detached,
    /// The connection broke.
    Lost,
    /// A signal ended us.
    Signal(i32),
}

/// What comes from standard input.
enum Input {
    Bytes(Vec<u8>),
    Eof,
    Detach,
}

/// The user's side; lives over several streams where a connection broke and was made again.
pub struct Session {
    options: Options,
    input: Option<mpsc::Receiver<Input>>,
    resized: Option<Signal>,
    signals: Vec<(i32, Signal)>,
    // Dropped last: what was printed until then was meant for raw mode.
    _raw: Option<RawMode>,
}

/// The signals that mean something to the process.
const PROXIED: [i32; 7] = [1, 2, 3, 10, 12, 15, 18];
/// The signals that end us where the process has the terminal.
const ENDING: [i32; 3] = [1, 2, 15];

impl Session {
    /// Takes the terminal and begins to read standard input.
    pub fn begin(options: Options) -> anyhow::Result<Session> {
        // Without our input, ctrl-c must stay ours.
        let screen = options.tty && options.stdin;
        let raw = if screen {
            RawMode::enter().context("cannot set the terminal to raw mode")?
        } else {
            None
        };
        let numbers: &[i32] = match (screen, options.proxy_signals) {
            (true, _) => &ENDING,
            (false, true) => &PROXIED,
            (false, false) => &[],
        };
        let signals = numbers
            .iter()
            .map(|n| Ok((*n, signal(SignalKind::from_raw(*n))?)))
            .collect::<std::io::Result<_>>()?;
        Ok(Session {
            options,
            input: options.stdin.then(|| read_stdin(options.tty)),
            resized: options.tty.then(|| signal(SignalKind::window_change())).transpose()?,
            signals,
            _raw: raw,
        })
    }

    /// Carries one stream to its end.
    pub async fn carry(&mut self, stream: &mut Duplex) -> anyhow::Result<End> {
        let Duplex { reader, writer, .. } = stream;
        if self.options.tty
            && let Some((rows, cols)) = window()
        {
            // A connection that broke already is seen by the reader.
            let _ = writer.send(&Frame::resize(rows, cols)).await;
        }
        // Two loops in one task: neither direction waits for the other.
        tokio::select! {
            end = output(reader) => end,
            end = self.input(writer) => Ok(end),
        }
    }

    /// Sends what the user does. Ends only when the user leaves.
    async fn input(&mut self, writer: &mut Writer) -> End {
        let mut interrupts = 0;
        loop {
            let frame = tokio::select! {
                n = any_signal(&mut self.signals) => {
                    if self.options.tty && self.options.stdin {
                        return End::Signal(n);
                    }
                    interrupts += i32::from(n == 2 || n == 15);
                    if interrupts == 4 {
                        note("biga: leaving: the process does not react; `biga kill` ends it");
                        return End::Signal(n);
                    }
                    Frame::with_number(FrameKind::Signal, n as u32)
                }
                () = resize(&mut self.resized) => match window() {
                    Some((rows, cols)) => Frame::resize(rows, cols),
                    None => continue,
                },
                input = next_input(&mut self.input) => match input {
                    Input::Bytes(b) => Frame::new(FrameKind::Stdin, b),
                    Input::Detach => return End::Detached,
                    Input::Eof => {
                        self.input = None;
                        Frame::new(FrameKind::StdinEof, [])
                    }
                },
            };
            if writer.send(&frame).await.is_err() {
                // The reader sees why, after what came before.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Prints what comes until the stream ends.
async fn output(reader: &mut Reader) -> anyhow::Result<End> {
    loop {
        let frame = match reader.next().await {
            Ok(Some(f)) => f,
            Ok(None) | Err(_) => return Ok(End::Lost),
        };
        match frame.kind {
            FrameKind::Stdout => write_all(std::io::stdout().lock(), &frame.payload)?,
            FrameKind::Stderr => write_all(std::io::stderr().lock(), &frame.payload)?,
            FrameKind::Exit => return Ok(End::Exit(frame.parse()?)),
            FrameKind::Error => {
                return Err(fail(Code::FAILED, String::from_utf8_lossy(&frame.payload).into_owned()));
            }
            // Later versions may say more.
            _ => {}
        }
    }
}

fn write_all(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Reads standard input on a thread of its own: a read of a terminal cannot be cancelled, and the thread may stay behind.
fn read_stdin(tty: bool) -> mpsc::Receiver<Input> {
    let (tx, rx) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut keys = DetachKeys::default();
        let mut buffer = vec![0; MAX_DATA - 1];
        let mut stdin = std::io::stdin().lock();
        loop {
            let n = match stdin.read(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let (bytes, detach) = if tty {
                keys.filter(&buffer[..n])
            } else {
                (buffer[..n].to_vec(), false)
            };
            if !bytes.is_empty() && tx.blocking_send(Input::Bytes(bytes)).is_err() {
                return;
            }
            if detach && tx.blocking_send(Input::Detach).is_err() {
                return;
            }
        }
        // Where nobody waits any more the stream is over.
        let _ = tx.blocking_send(Input::Eof);
    });
    rx
}

async fn next_input(input: &mut Option<mpsc::Receiver<Input>>) -> Input {
    match input {
        Some(rx) => rx.recv().await.unwrap_or(Input::Eof),
        None => std::future::pending().await,
    }
}

async fn resize(resized: &mut Option<Signal>) {
    let news = match resized {
        Some(s) => s.recv().await,
        None => None,
    };
    if news.is_none() {
        std::future::pending().await
    }
}

async fn any_signal(signals: &mut [(i32, Signal)]) -> i32 {
    if signals.is_empty() {
        return std::future::pending().await;
    }
    let waits = signals.iter_mut().map(|(n, s)| {
        Box::pin(async move {
            s.recv().await;
            *n
        })
    });
    futures_util::future::select_all(waits).await.0
}
