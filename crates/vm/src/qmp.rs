//! QEMU's control protocol: JSON objects, one a line; commands are answered by id, events come at any time.
//!
//! [`Codec`] is the protocol without a socket; [`Qmp`] puts it on a [`Duplex`].
//!
//! ```text
//!  greeting ──► qmp_capabilities ──► commands and events
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use biga_wire::workload::Host;
use serde_json::{Value, json};

use crate::duplex::{Duplex, Got};

/// Longest line taken from QEMU, bytes.
const MAX_LINE: usize = 4 << 20;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU said no.
    #[error("QEMU refused {command}: {message}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        message: String,
    },
    /// No answer.
    #[error("QEMU did not answer {command} within {ms} ms")]
    Timeout {
        /// The command.
        command: String,
        /// So long.
        ms: u128,
    },
    /// The connection is gone.
    #[error("QEMU ended while asked {command}")]
    Gone {
        /// The command.
        command: String,
    },
    /// A line that is none.
    #[error("QEMU sent a line that is not its protocol: {0}")]
    Protocol(String),
}

/// Something QEMU said.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// It is there, in this version.
    Greeting {
        /// Major, minor.
        version: (u32, u32),
    },
    /// Answer to a command.
    Return {
        /// Of the command.
        id: u64,
        /// Result, or QEMU's words.
        result: Result<Value, String>,
    },
    /// Something happened.
    Event {
        /// As `SHUTDOWN`.
        name: String,
        /// More about it.
        data: Value,
    },
}

/// The protocol.
#[derive(Debug, Default)]
pub struct Codec {
    buf: Vec<u8>,
    scanned: usize,
    next_id: u64,
}

impl Codec {
    /// A line with a command, and its id.
    pub fn command(&mut self, name: &str, arguments: Value) -> (u64, Vec<u8>) {
        self.next_id += 1;
        let mut object = json!({ "execute": name, "id": self.next_id });
        if !arguments.is_null() {
            object["arguments"] = arguments;
        }
        let mut line = object.to_string().into_bytes();
        line.push(b'\n');
        (self.next_id, line)
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next message, if a whole one is there.
    pub fn next_message(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Some(at) = self.buf[self.scanned..].iter().position(|b| *b == b'\n') else {
                self.scanned = self.buf.len();
                if self.buf.len() > MAX_LINE {
                    self.buf.clear();
                    self.scanned = 0;
                    return Err(Error::Protocol(format!("longer than {MAX_LINE} bytes")));
                }
                return Ok(None);
            };
            let line: Vec<u8> = self.buf.drain(..=self.scanned + at).collect();
            self.scanned = 0;
            let line = line.trim_ascii();
            if !line.is_empty() {
                return parse(line).map(Some);
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, Error> {
    let bad = || Error::Protocol(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned());
    let mut value: Value = serde_json::from_slice(line).map_err(|_| bad())?;
    if let Some(qmp) = value.get("QMP") {
        let part = |name| qmp["version"]["qemu"][name].as_u64().unwrap_or(0) as u32;
        return Ok(Message::Greeting {
            version: (part("major"), part("minor")),
        });
    }
    if let Some(name) = value.get("event").and_then(Value::as_str) {
        return Ok(Message::Event {
            name: name.to_owned(),
            data: value.get("data").cloned().unwrap_or(Value::Null),
        });
    }
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    if let Some(error) = value.get("error") {
        let words = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(Message::Return {
            id,
            result: Err(words.to_owned()),
        });
    }
    match value.get_mut("return") {
        Some(result) => Ok(Message::Return {
            id,
            result: Ok(result.take()),
        }),
        None => Err(bad()),
    }
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    duplex: Duplex,
    codec: Codec,
    /// Seen while waiting for something else.
    later: VecDeque<Message>,
}

impl Qmp {
    /// Takes the near end of QEMU's monitor socket and asks for the commands.
    pub fn new(duplex: Duplex, host: &mut dyn Host) -> std::io::Result<Qmp> {
        let mut qmp = Qmp {
            duplex,
            codec: Codec::default(),
            later: VecDeque::new(),
        };
        qmp.duplex.register(host)?;
        qmp.send("qmp_capabilities", Value::Null, host);
        Ok(qmp)
    }

    /// Sends a command; its answer comes from [`Qmp::messages`] with this id.
    pub fn send(&mut self, name: &str, arguments: Value, host: &mut dyn Host) -> u64 {
        let (id, line) = self.codec.command(name, arguments);
        self.duplex.send(&line, host);
        id
    }

    /// What QEMU said since the last call; `None` in place of a message is the end of the connection.
    pub fn messages(&mut self, host: &mut dyn Host) -> Vec<Option<Message>> {
        self.duplex.flush(host);
        let mut end = false;
        let mut buf = [0; 16 << 10];
        loop {
            match self.duplex.read(&mut buf) {
                Got::Bytes(n) => self.codec.push(&buf[..n]),
                Got::Nothing => break,
                Got::End => {
                    end = true;
                    break;
                }
            }
        }
        let mut out: Vec<_> = self.later.drain(..).map(Some).collect();
        loop {
            match self.codec.next_message() {
                Ok(Some(message)) => out.push(Some(message)),
                Ok(None) => break,
                // A line we do not understand is skipped: the next one stands by itself.
                Err(_) => {}
            }
        }
        if end {
            self.duplex.close(host);
            out.push(None);
        }
        out
    }

    /// Sends a command and waits for its answer. Other messages are kept for [`Qmp::messages`].
    pub fn call(&mut self, name: &str, arguments: Value, wait: Duration, host: &mut dyn Host) -> Result<Value, Error> {
        let id = self.send(name, arguments, host);
        let command = || name.to_owned();
        let deadline = Instant::now() + wait;
        let mut buf = [0; 16 << 10];
        loop {
            while let Some(message) = self.codec.next_message()? {
                match message {
                    Message::Return { id: got, result } if got == id => {
                        return result.map_err(|message| Error::Refused {
                            command: command(),
                            message,
                        });
                    }
                    other => self.later.push_back(other),
                }
            }
            if !self.duplex.wait(deadline) {
                return Err(Error::Timeout {
                    command: command(),
                    ms: wait.as_millis(),
                });
            }
            match self.duplex.read(&mut buf) {
                Got::Bytes(n) => self.codec.push(&buf[..n]),
                Got::Nothing => {}
                Got::End => return Err(Error::Gone { command: command() }),
            }
        }
    }

    /// Whether messages were kept by [`Qmp::call`]: no new byte will announce them.
    pub fn has_kept(&self) -> bool {
        !self.later.is_empty()
    }

    /// Stops being watched.
    pub fn close(&mut self, host: &mut dyn Host) {
        self.duplex.close(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], piece: usize) -> Vec<Result<Message, String>> {
        let mut codec = Codec::default();
        let mut out = Vec::new();
        for part in bytes.chunks(piece) {
            codec.push(part);
            loop {
                match codec.next_message() {
                    Ok(Some(m)) => out.push(Ok(m)),
                    Ok(None) => break,
                    Err(e) => out.push(Err(e.to_string())),
                }
            }
        }
        out
    }

    const TALK: &str = concat!(
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"x\"}, \"capabilities\": [\"oob\"]}}\r\n",
        "{\"return\": {}, \"id\": 1}\r\n\r\n",
        "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n",
        "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\r\n",
        "{\"event\": \"STOP\"}\n",
    );

    #[test]
    fn a_talk_is_understood_in_any_pieces() {
        for piece in [1, 7, 64, 5000] {
            let got = all(TALK.as_bytes(), piece);
            assert_eq!(got.len(), 5, "in pieces of {piece}: {got:?}");
            assert_eq!(got[0], Ok(Message::Greeting { version: (7, 2) }));
            assert_eq!(
                got[3],
                Ok(Message::Return {
                    id: 2,
                    result: Err("no such thing".into())
                })
            );
            assert!(
                matches!(&got[2], Ok(Message::Event { name, data }) if name == "SHUTDOWN" && data["guest"] == true)
            );
        }
    }

    #[test]
    fn nonsense_is_an_error_and_the_next_line_is_read() {
        let got = all(b"hello\n{}\n[1]\n{\"event\":3}\n{\"return\":{},\"id\":9}\n", 11);
        assert_eq!(got.len(), 5);
        assert!(got[..4].iter().all(Result::is_err), "{got:?}");
        assert!(matches!(got[4], Ok(Message::Return { id: 9, .. })));
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let mut codec = Codec::default();
        let mut errors = 0;
        for _ in 0..3 * MAX_LINE / 65536 {
            codec.push(&[b'x'; 65536]);
            errors += codec.next_message().is_err() as usize;
            assert!(codec.buf.len() <= MAX_LINE + 65536);
        }
        assert!(errors >= 2);
    }

    #[test]
    fn commands_are_numbered_lines() {
        let mut codec = Codec::default();
        let (a, _) = codec.command("stop", Value::Null);
        let (b, line) = codec.command("quit", json!({"x": 1}));
        assert!(b > a);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let v: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&v["execute"], &v["arguments"]["x"]), (&json!("quit"), &json!(1)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000), piece in 1usize..300) {
            all(&bytes, piece);
        }
    }
}
