//! The guest agent of a machine (`qemu-ga`): JSON objects, one a line, answered in order and without ids.
//!
//! ```text
//!            port opened by the guest        sync answered
//!   Absent ───────────────────────► Syncing ──────────────► Ready ──► one command at a time
//!     ▲                                │                       │
//!     └──────── port closed ◄──────────┴── no answer in time ──┘ (then Syncing again)
//! ```
//!
//! [`Session`] is the protocol without a socket or a clock. What the guest says is not trusted: sizes are bounded and strings
//! are cleaned.

use std::collections::VecDeque;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Guest};
use biga_wire::workload::{Fault, StreamId};
use serde_json::{Value, json};

/// Longest answer: the agent keeps 16 MiB of each output, and sends both in base64.
const MAX_LINE: usize = 48 << 20;
/// Most addresses taken.
const MAX_ADDRESSES: usize = 64;
/// Longest name taken, characters.
const MAX_TEXT: usize = 200;

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
enum Ask {
    Sync(u64),
    OsInfo,
    HostName,
    Interfaces,
    Exec(StreamId),
    Status(StreamId, u64),
    Kill,
}

/// What comes of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The agent answers: ask it.
    Ready,
    /// What it says about the system, when that changed.
    Guest(Guest),
    /// A process was started, or not.
    Started(StreamId, Result<u32, Fault>),
    /// A process still runs: ask again later.
    StillRuns(StreamId),
    /// A process ended: its output, error output and end.
    Ended(StreamId, Vec<u8>, Vec<u8>, Exit),
}

/// The protocol.
#[derive(Debug, Default)]
pub struct Session {
    open: bool,
    ready: bool,
    sync: u64,
    buf: Vec<u8>,
    scanned: usize,
    asked: Option<Ask>,
    queue: VecDeque<(Ask, Value)>,
    guest: Guest,
    told: Guest,
    running: Vec<(StreamId, u64)>,
}

impl Session {
    /// Whether the agent answers.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether an answer is awaited.
    pub fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// The guest opened the port: what to send.
    pub fn opened(&mut self) -> Vec<u8> {
        self.open = true;
        self.resync().0
    }

    /// The guest closed the port, as when it restarts. Processes that were started by the old agent are lost.
    pub fn closed(&mut self) -> Vec<News> {
        self.open = false;
        self.ready = false;
        self.buf.clear();
        self.scanned = 0;
        let fault = || Fault::failed("the guest agent went away");
        let mut news: Vec<News> = Vec::new();
        let waiting = self
            .asked
            .take()
            .into_iter()
            .chain(self.queue.drain(..).map(|(ask, _)| ask));
        for ask in waiting {
            if let Ask::Exec(stream) = ask {
                news.push(News::Started(stream, Err(fault())));
            }
        }
        for (stream, _) in self.running.drain(..) {
            news.push(lost(stream));
        }
        news
    }

    /// No answer came in time: begins anew. What to send, and what became of the question.
    pub fn resync(&mut self) -> (Vec<u8>, Vec<News>) {
        self.ready = false;
        // Its answer may come late; the sync tells old answers from new ones.
        let news = match self.asked.take() {
            Some(Ask::Exec(stream)) => vec![News::Started(
                stream,
                Err(Fault::failed("the guest agent does not answer")),
            )],
            Some(Ask::Status(stream, _)) => vec![News::StillRuns(stream)],
            _ => Vec::new(),
        };
        if !self.open {
            return (Vec::new(), news);
        }
        self.sync += 1;
        self.asked = Some(Ask::Sync(self.sync));
        // The byte makes the agent forget half a command.
        let mut out = vec![0xff];
        out.extend(line("guest-sync-delimited", json!({ "id": self.sync })));
        (out, news)
    }

    /// Asks what system it is and where it can be reached.
    pub fn look(&mut self) {
        for (ask, command) in [
            (Ask::OsInfo, "guest-get-osinfo"),
            (Ask::HostName, "guest-get-host-name"),
            (Ask::Interfaces, "guest-network-get-interfaces"),
        ] {
            if self.asked.as_ref() != Some(&ask) && !self.queue.iter().any(|(a, _)| *a == ask) {
                self.queue.push_back((ask, json!({ "execute": command })));
            }
        }
    }

    /// Starts a process.
    pub fn exec(&mut self, stream: StreamId, spec: &ExecSpec) -> Result<(), Fault> {
        let command = exec_arguments(spec)?;
        if !self.ready {
            return Err(Fault::state(
                "the guest agent of this machine does not answer (yet): is qemu-guest-agent installed in it? Use the console meanwhile",
            ));
        }
        self.queue.push_back((Ask::Exec(stream), command));
        Ok(())
    }

    /// Asks whether a process ended.
    pub fn poll(&mut self, stream: StreamId) {
        if let Some((_, pid)) = self.running.iter().find(|(s, _)| *s == stream) {
            let command = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
            self.queue.push_back((Ask::Status(stream, *pid), command));
        }
    }

    /// Sends a signal to a process.
    pub fn kill(&mut self, stream: StreamId, signal: i32) {
        if let Some((_, pid)) = self.running.iter().find(|(s, _)| *s == stream) {
            let arguments = json!({ "path": "kill", "arg": [format!("-{signal}"), pid.to_string()] });
            let command = json!({ "execute": "guest-exec", "arguments": arguments });
            self.queue.push_back((Ask::Kill, command));
        }
    }

    /// The next bytes to send; nothing while an answer is awaited.
    pub fn next_command(&mut self) -> Option<Vec<u8>> {
        if !self.ready || self.asked.is_some() {
            return None;
        }
        let (ask, command) = self.queue.pop_front()?;
        self.asked = Some(ask);
        let mut bytes = command.to_string().into_bytes();
        bytes.push(b'\n');
        Some(bytes)
    }

    /// Takes received bytes.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<News> {
        self.buf.extend_from_slice(bytes);
        let mut news = Vec::new();
        while let Some(at) = self.buf[self.scanned..].iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buf.drain(..=self.scanned + at).collect();
            self.scanned = 0;
            // An answer to a sync follows this byte; what stands before it is old.
            let start = line.iter().rposition(|b| *b == 0xff).map_or(0, |i| i + 1);
            if let Ok(value) = serde_json::from_slice::<Value>(line[start..].trim_ascii()) {
                self.answer(value, &mut news);
            }
        }
        self.scanned = self.buf.len();
        if self.buf.len() > MAX_LINE {
            self.buf = Vec::new();
            self.scanned = 0;
        }
        news
    }

    fn answer(&mut self, value: Value, news: &mut Vec<News>) {
        let Some(ask) = self.asked.take() else { return };
        let result = match value.get("error") {
            Some(error) => Err(clean(error["desc"].as_str().unwrap_or("no reason given"))),
            None => Ok(&value["return"]),
        };
        match (ask, result) {
            (Ask::Sync(id), Ok(got)) if got.as_u64() == Some(id) => {
                self.ready = true;
                news.push(News::Ready);
            }
            // An old answer: the right one is still to come.
            (Ask::Sync(id), _) => self.asked = Some(Ask::Sync(id)),
            (Ask::OsInfo, Ok(info)) => {
                self.guest.os = clean(info["pretty-name"].as_str().unwrap_or(""));
                self.guest.kernel = clean(info["kernel-release"].as_str().unwrap_or(""));
            }
            (Ask::HostName, Ok(name)) => self.guest.hostname = clean(name["host-name"].as_str().unwrap_or("")),
            (Ask::Interfaces, result) => {
                if let Ok(list) = result {
                    self.guest.addresses = addresses(list);
                }
                // The last of the three questions.
                if self.guest != self.told {
                    self.told = self.guest.clone();
                    news.push(News::Guest(self.guest.clone()));
                }
            }
            (Ask::OsInfo | Ask::HostName | Ask::Kill, _) => {}
            (Ask::Exec(stream), result) => news.push(self.started(stream, result)),
            (Ask::Status(stream, pid), Ok(status)) => news.push(self.status(stream, pid, status)),
            (Ask::Status(stream, pid), Err(_)) => {
                self.running.retain(|r| *r != (stream, pid));
                news.push(lost(stream));
            }
        }
    }

    fn started(&mut self, stream: StreamId, result: Result<&Value, String>) -> News {
        let result = match result {
            Ok(value) => match value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) {
                Some(pid) => {
                    self.running.push((stream, pid.into()));
                    Ok(pid)
                }
                None => Err(Fault::failed("the guest agent gave an answer that makes no sense")),
            },
            Err(words) => Err(exec_fault(&words)),
        };
        News::Started(stream, result)
    }

    fn status(&mut self, stream: StreamId, pid: u64, status: &Value) -> News {
        if status["exited"].as_bool() != Some(true) {
            return News::StillRuns(stream);
        }
        self.running.retain(|r| *r != (stream, pid));
        let data = |name: &str| {
            let text = status[name].as_str().unwrap_or("");
            BASE64.decode(text).unwrap_or_default()
        };
        let signal = status["signal"].as_i64().map(|s| s.clamp(1, 64) as i32);
        let code = status["exitcode"].as_i64().map_or(255, |c| c.clamp(0, 255) as i32);
        let mut error = data("err-data");
        for name in ["out-truncated", "err-truncated"] {
            if status[name].as_bool() == Some(true) {
                error.extend_from_slice(b"\n[the guest agent cut the output off]\n");
            }
        }
        let exit = Exit {
            code: signal.map_or(code, |s| 128 + s),
            signal,
            ..Exit::default()
        };
        News::Ended(stream, data("out-data"), error, exit)
    }
}

fn lost(stream: StreamId) -> News {
    let exit = Exit {
        code: 255,
        error: Some("the guest agent went away".into()),
        ..Exit::default()
    };
    News::Ended(stream, Vec::new(), Vec::new(), exit)
}

fn line(command: &str, arguments: Value) -> Vec<u8> {
    let mut bytes = json!({ "execute": command, "arguments": arguments })
        .to_string()
        .into_bytes();
    bytes.push(b'\n');
    bytes
}

fn exec_arguments(spec: &ExecSpec) -> Result<Value, Fault> {
    if spec.tty || spec.stdin {
        return Err(Fault::unsupported(
            "the guest agent of a machine runs a command and returns its output; it has no terminal and no input. Leave out -i and -t, or use `biga console` or ssh",
        ));
    }
    if spec
        .user
        .as_ref()
        .is_some_and(|u| !matches!(u.as_str(), "" | "root" | "0"))
    {
        return Err(Fault::unsupported(
            "the guest agent of a machine runs commands as root only; use `runuser -u NAME -- COMMAND` as the command",
        ));
    }
    let mut args: Vec<String> = Vec::new();
    if !spec.env.is_empty() {
        args.push("/usr/bin/env".into());
        args.extend(spec.env.iter().cloned());
    }
    if let Some(cwd) = spec.cwd.as_ref().filter(|c| !c.is_empty()) {
        args.extend(["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", cwd].map(str::to_owned));
    }
    args.extend(spec.args.iter().cloned());
    let Some((path, rest)) = args.split_first() else {
        return Err(Fault::new(ErrorCode::Invalid, "the command is empty"));
    };
    Ok(json!({
        "execute": "guest-exec",
        "arguments": { "path": path, "arg": rest, "capture-output": true },
    }))
}

fn exec_fault(words: &str) -> Fault {
    let code = match words {
        w if w.contains("No such file") => ErrorCode::NotFound,
        w if w.contains("Permission denied") => ErrorCode::NotExecutable,
        w if w.contains("disabled") || w.contains("not found") => ErrorCode::Unsupported,
        _ => ErrorCode::Failed,
    };
    Fault::new(code, format!("the guest agent could not run the command: {words}"))
}

/// A string of the guest's, fit to be shown.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

fn addresses(interfaces: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for interface in interfaces.as_array().into_iter().flatten() {
        for address in interface["ip-addresses"].as_array().into_iter().flatten() {
            let ip: Option<IpAddr> = address["ip-address"].as_str().and_then(|t| t.parse().ok());
            let Some(ip) = ip.filter(|ip| !ip.is_loopback()) else {
                continue;
            };
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let prefix = address["prefix"].as_u64().unwrap_or(most).min(most);
            if out.len() < MAX_ADDRESSES {
                out.push(format!("{ip}/{prefix}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Session {
        let mut session = Session::default();
        session.opened();
        assert_eq!(session.receive(b"\xff{\"return\": 1}\n"), [News::Ready]);
        session
    }

    fn spec(args: &[&str]) -> ExecSpec {
        ExecSpec {
            args: args.iter().map(|a| a.to_string()).collect(),
            ..ExecSpec::default()
        }
    }

    #[test]
    fn old_answers_before_the_sync_are_skipped() {
        let mut session = Session::default();
        let hello = session.opened();
        assert_eq!(hello[0], 0xff);
        assert!(
            session
                .receive(b"{\"return\": {}}\nrubbish\n{\"return\": 7}\n")
                .is_empty()
        );
        assert!(!session.is_ready());
        assert_eq!(session.receive(b"half\xff{\"return\": 1}\n"), [News::Ready]);
    }

    #[test]
    fn the_system_is_told_once_and_when_it_changes() {
        let mut session = ready();
        let talk = |session: &mut Session, address: &str| {
            session.look();
            let mut news = Vec::new();
            let answers = [
                r#"{"return": {"pretty-name": "Debian\u0007 12", "kernel-release": "6.1"}}"#.to_owned(),
                r#"{"return": {"host-name": "vm"}}"#.to_owned(),
                json!({"return": [
                    {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}]},
                    {"name": "e", "ip-addresses": [{"ip-address": address, "prefix": 24}, {"ip-address": "x"}]}]})
                .to_string(),
            ];
            for answer in answers {
                assert!(session.next_command().is_some());
                assert!(session.next_command().is_none(), "one at a time");
                news.extend(session.receive(format!("{answer}\n").as_bytes()));
            }
            news
        };
        let news = talk(&mut session, "10.0.0.2");
        let [News::Guest(guest)] = &news[..] else {
            panic!("{news:?}")
        };
        assert_eq!((guest.os.as_str(), guest.hostname.as_str()), ("Debian 12", "vm"));
        assert_eq!(guest.addresses, ["10.0.0.2/24"]);
        assert!(talk(&mut session, "10.0.0.2").is_empty());
        assert_eq!(talk(&mut session, "10.0.0.3").len(), 1);
    }

    #[test]
    fn a_command_runs_and_its_output_comes_at_the_end() {
        let mut session = ready();
        session.exec(9, &spec(&["echo", "x"])).unwrap();
        let sent = String::from_utf8(session.next_command().unwrap()).unwrap();
        assert!(sent.contains("\"path\":\"echo\""), "{sent}");
        assert_eq!(
            session.receive(b"{\"return\":{\"pid\":55}}\n"),
            [News::Started(9, Ok(55))]
        );
        session.poll(9);
        assert!(session.next_command().is_some());
        assert_eq!(
            session.receive(b"{\"return\":{\"exited\":false}}\n"),
            [News::StillRuns(9)]
        );
        session.poll(9);
        assert!(session.next_command().is_some());
        let news = session.receive(b"{\"return\":{\"exited\":true,\"exitcode\":3,\"out-data\":\"aGk=\"}}\n");
        let [News::Ended(9, out, err, exit)] = &news[..] else {
            panic!("{news:?}")
        };
        assert_eq!((out.as_slice(), err.as_slice(), exit.code), (&b"hi"[..], &b""[..], 3));
    }

    #[test]
    fn what_the_agent_cannot_do_is_said() {
        let mut session = ready();
        let tty = ExecSpec {
            tty: true,
            ..spec(&["sh"])
        };
        assert_eq!(session.exec(9, &tty).unwrap_err().code, ErrorCode::Unsupported);
        assert_eq!(session.exec(9, &spec(&[])).unwrap_err().code, ErrorCode::Invalid);
        assert_eq!(
            Session::default().exec(9, &spec(&["x"])).unwrap_err().code,
            ErrorCode::State
        );
        session.exec(9, &spec(&["nix"])).unwrap();
        session.next_command();
        let news = session
            .receive(b"{\"error\":{\"desc\":\"Failed to execute child process (No such file or directory)\"}}\n");
        assert!(
            matches!(&news[..], [News::Started(9, Err(f))] if f.code == ErrorCode::NotFound),
            "{news:?}"
        );
    }

    #[test]
    fn environment_and_directory_are_wrapped() {
        let exec = ExecSpec {
            env: vec!["A=1".into()],
            cwd: Some("/tmp".into()),
            ..spec(&["ls", "-l"])
        };
        let command = exec_arguments(&exec).unwrap();
        assert_eq!(command["arguments"]["path"], "/usr/bin/env");
        let expected = json!(["A=1", "/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", "/tmp", "ls", "-l"]);
        assert_eq!(command["arguments"]["arg"], expected);
    }

    #[test]
    fn processes_of_an_agent_that_goes_away_end() {
        let mut session = ready();
        session.exec(9, &spec(&["a"])).unwrap();
        session.next_command();
        session.receive(b"{\"return\":{\"pid\":55}}\n");
        session.exec(10, &spec(&["b"])).unwrap();
        let news = session.closed();
        assert!(
            matches!(&news[..], [News::Started(10, Err(_)), News::Ended(9, _, _, _)]),
            "{news:?}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_answers_are_survived(lines in proptest::collection::vec("[\\x00-\\xff]{0,40}|\\{\"return\":[0-9\\[\\]{}\",:a-z]{0,30}\\}", 0..20)) {
            let mut session = ready();
            for line in lines {
                session.look();
                session.exec(9, &spec(&["x"])).ok();
                session.poll(9);
                session.next_command();
                session.receive(line.as_bytes());
                session.receive(b"\n");
            }
        }
    }
}
