//! Megabytes through attach, exec and logs of real containers, slow readers, half-closed and cut connections: by plain HTTP on
//! the socket, so that nothing of a client's library is between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use biga_testkit::{Daemon, PATIENCE, eventually};
use serde_json::{Value, json};

use super::daemon;
use super::docker::socket;

/// Bytes that pass.
const SIZE: usize = 32 << 20;

/// An answer: its status, and what follows its headers.
struct Answer {
    status: u16,
    io: BufReader<UnixStream>,
}

impl Answer {
    /// Of the request's end, where the answer ends with the connection.
    fn text(mut self) -> String {
        let mut text = String::new();
        self.io.read_to_string(&mut text).unwrap();
        text
    }

    fn must(self, status: u16) -> Answer {
        let is = self.status;
        if is == status {
            return self;
        }
        panic!("{is} is not {status}: {}", self.text());
    }

    /// Another handle, to write with.
    fn writer(&self) -> UnixStream {
        self.io.get_ref().try_clone().unwrap()
    }
}

/// One request on a connection of its own. HTTP/1.0, where an answer ends with its connection; or an upgrade.
fn call(d: &Daemon, method: &str, path: &str, body: Option<Value>, upgrade: bool) -> Answer {
    let mut io = UnixStream::connect(socket(d)).unwrap();
    io.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let (version, more) = match upgrade {
        true => ("1.1", "Connection: Upgrade\r\nUpgrade: tcp\r\n"),
        false => ("1.0", ""),
    };
    let kind = "Content-Type: application/json\r\n";
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/{version}\r\nHost: d\r\n{more}{kind}Content-Length: {length}\r\n\r\n{body}");
    io.write_all(head.as_bytes()).unwrap();
    let mut io = BufReader::new(io);
    let mut line = String::new();
    io.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    while line != "\r\n" {
        line.clear();
        io.read_line(&mut line).unwrap();
    }
    Answer { status, io }
}

fn hijack(d: &Daemon, path: &str, body: Option<Value>) -> Answer {
    call(d, "POST", path, body, true).must(101)
}

fn post(d: &Daemon, path: &str, body: Value, status: u16) -> Value {
    let text = call(d, "POST", path, Some(body), false).must(status).text();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

fn get(d: &Daemon, path: &str) -> Value {
    serde_json::from_str(&call(d, "GET", path, None, false).must(200).text()).unwrap()
}

/// Makes a container of busybox that runs a script.
fn create(d: &Daemon, name: &str, script: &str, more: Value) {
    let mut body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "SIGKILL"});
    for (k, v) in more.as_object().unwrap() {
        body[k] = v.clone();
    }
    post(d, &format!("/containers/create?name={name}"), body, 201);
}

fn start(d: &Daemon, name: &str) {
    post(d, &format!("/containers/{name}/start"), json!({}), 204);
}

fn remove(d: &Daemon, name: &str) {
    call(d, "DELETE", &format!("/containers/{name}?force=1"), None, false).must(204);
}

/// The same bytes each time, that follow no pattern (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The same as lines of text: what a log keeps of bytes that are none is another matter.
fn lines(len: usize) -> Vec<u8> {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let mut out: Vec<u8> = noise(len).iter().map(|b| digits[usize::from(b & 31)]).collect();
    for at in (99..len).step_by(100) {
        out[at] = b'\n';
    }
    out[len - 1] = b'\n';
    out
}

/// Reads a multiplexed stream to its end: standard output and standard error.
fn demultiplex(io: &mut impl Read) -> (Vec<u8>, Vec<u8>) {
    let mut out = (Vec::new(), Vec::new());
    let mut head = [0; 8];
    loop {
        match io.read(&mut head[..1]).unwrap() {
            0 => return out,
            _ => io.read_exact(&mut head[1..]).unwrap(),
        }
        let len = u32::from_be_bytes(head[4..].try_into().unwrap());
        let to = match head[..4] {
            [1, 0, 0, 0] => &mut out.0,
            [2, 0, 0, 0] => &mut out.1,
            _ => panic!("a frame begins with {head:?}"),
        };
        assert_eq!(io.take(u64::from(len)).read_to_end(to).unwrap(), len as usize);
    }
}

/// Sends in a thread of its own, and ends its half of the connection.
fn send(mut to: UnixStream, data: Vec<u8>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        to.write_all(&data).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    })
}

/// Keeps its input, and says its checksum and then all of it on both streams at once.
const BOTH: &str = "cat > /tmp/in; sha256sum < /tmp/in; cat /tmp/in & cat /tmp/in >&2; wait";

fn same(what: &str, got: &[u8], wanted: &[u8]) {
    let first = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert!(
        got == wanted,
        "{what}: {} of {} bytes; the first other one is at {first:?}",
        got.len(),
        wanted.len()
    );
}

/// What came back of [`BOTH`] is what was sent, and its checksum in there too.
fn both_came(d: &Daemon, io: &mut impl Read, data: &[u8]) {
    let (out, err) = demultiplex(io);
    let file = d.path().join("sent");
    std::fs::write(&file, data).unwrap();
    let sum = d.host(&["sha256sum", &file.display().to_string()]).ok();
    let sum = format!("{}  -\n", sum.split(' ').next().unwrap());
    let (said, rest) = out.split_at(sum.len().min(out.len()));
    assert_eq!(String::from_utf8_lossy(said), sum, "the checksum of what came in");
    same("standard output", rest, data);
    same("standard error", &err, data);
}

#[test]
fn megabytes_pass_through_attach_both_ways() {
    let d = daemon();
    let data = noise(SIZE);
    let open = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "HostConfig": {"LogConfig": {"Type": "none"}}});
    create(&d, "mega", BOTH, open);
    let mut io = hijack(&d, "/containers/mega/attach?stream=1&stdin=1&stdout=1&stderr=1", None);
    start(&d, "mega");
    let sending = send(io.writer(), data.clone());
    both_came(&d, &mut io.io, &data);
    sending.join().unwrap();
    let ended = post(&d, "/containers/mega/wait", json!({}), 200);
    assert_eq!(ended["StatusCode"], 0);
    remove(&d, "mega");
    d.until_clean();
}

fn exec(d: &Daemon, name: &str, script: &str, more: Value) -> (String, Answer) {
    let mut body =
        json!({"Cmd": ["sh", "-c", script], "AttachStdin": true, "AttachStdout": true, "AttachStderr": true});
    for (k, v) in more.as_object().unwrap() {
        body[k] = v.clone();
    }
    let tty = body["Tty"].as_bool() == Some(true);
    let made = post(d, &format!("/containers/{name}/exec"), body, 201);
    let id = made["Id"].as_str().unwrap().to_string();
    let io = hijack(
        d,
        &format!("/exec/{id}/start"),
        Some(json!({"Detach": false, "Tty": tty})),
    );
    (id, io)
}

#[test]
fn megabytes_pass_through_exec_both_ways() {
    let d = daemon();
    let data = noise(SIZE);
    create(&d, "mega", "exec sleep 1000", json!({}));
    start(&d, "mega");
    let (id, mut io) = exec(&d, "mega", BOTH, json!({}));
    let sending = send(io.writer(), data.clone());
    both_came(&d, &mut io.io, &data);
    sending.join().unwrap();
    // Known as soon as the stream has ended.
    let doc = get(&d, &format!("/exec/{id}/json"));
    assert_eq!((&doc["Running"], &doc["ExitCode"]), (&json!(false), &json!(0)));
    remove(&d, "mega");
    d.until_clean();
}

/// A reader of its own thread.
fn reading(mut io: Answer) -> JoinHandle<(Vec<u8>, Vec<u8>)> {
    std::thread::spawn(move || demultiplex(&mut io.io))
}

/// Says on both streams what its input is.
const ECHO: &str = "cat > /tmp/in; cat /tmp/in & cat /tmp/in >&2; wait; echo the end";

/// Logs that are followed, and read later; one attached that reads nothing until all others are done.
#[test]
fn who_reads_slowly_holds_up_nobody_and_misses_nothing() {
    let d = daemon();
    let data = lines(SIZE);
    // A log keeps 48 MiB where nothing else is said.
    let log = json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "300m"}}});
    let open = json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true, "HostConfig": log});
    create(&d, "talker", ECHO, open);
    let attach = "/containers/talker/attach?stream=1&stdout=1&stderr=1";
    let mut slow = hijack(&d, attach, None);
    let io = hijack(&d, &format!("{attach}&stdin=1"), None);
    start(&d, "talker");
    let followed = call(
        &d,
        "GET",
        "/containers/talker/logs?stdout=1&stderr=1&follow=1",
        None,
        false,
    )
    .must(200);
    // Another that follows and reads nothing.
    let mut still = call(
        &d,
        "GET",
        "/containers/talker/logs?stdout=1&stderr=1&follow=1",
        None,
        false,
    )
    .must(200);
    let sending = send(io.writer(), data.clone());
    let (followed, attached) = (reading(followed), reading(io));
    let mut wanted = data.clone();
    wanted.extend_from_slice(b"the end\n");
    for (what, one) in [("attached", attached), ("the log, followed", followed)] {
        let (out, err) = one.join().unwrap();
        same(&format!("{what}: standard output"), &out, &wanted);
        same(&format!("{what}: standard error"), &err, &data);
    }
    sending.join().unwrap();
    assert_eq!(
        post(&d, "/containers/talker/wait", json!({}), 200)["StatusCode"],
        0,
        "nobody who does not read keeps it"
    );
    let mut later = call(&d, "GET", "/containers/talker/logs?stdout=1&stderr=1", None, false).must(200);
    for (what, io) in [
        ("attached and slow", &mut slow.io),
        ("the log, followed slowly", &mut still.io),
        ("the log, later", &mut later.io),
    ] {
        let (out, err) = demultiplex(io);
        same(&format!("{what}: standard output"), &out, &wanted);
        same(&format!("{what}: standard error"), &err, &data);
    }
    remove(&d, "talker");
    d.until_clean();
}

/// Connections that are cut in the middle end nothing but what hung on them.
#[test]
fn cut_connections_end_only_themselves() {
    let d = daemon();
    let open = json!({"OpenStdin": true});
    create(&d, "stays", "while read -r l; do echo \"got $l\"; done", open);
    start(&d, "stays");
    // A client that sends and goes, and one that goes while much is on its way to it.
    let io = hijack(&d, "/containers/stays/attach?stream=1&stdin=1&stdout=1", None);
    io.writer().write_all(b"one\n").unwrap();
    eventually("the first line", || {
        let mut log = call(&d, "GET", "/containers/stays/logs?stdout=1", None, false).must(200);
        (demultiplex(&mut log.io).0 == b"got one\n").then_some(())
    });
    drop(io);
    let (id, mut io) = exec(&d, "stays", "cat /dev/zero", json!({}));
    io.io.read_exact(&mut [0; 1000]).unwrap();
    drop(io);
    let (other, io) = exec(&d, "stays", "read -r line; exec sleep 1000", json!({}));
    io.io.get_ref().shutdown(Shutdown::Both).unwrap();
    drop(io);
    // Its input ended with the connection.
    let (third, io) = exec(&d, "stays", "cat > /tmp/all; echo ended > /tmp/ended", json!({}));
    io.writer().write_all(b"a part").unwrap();
    drop(io);
    let (_, mut io) = exec(
        &d,
        "stays",
        "until [ -e /tmp/ended ]; do sleep 0.05; done; cat /tmp/all",
        json!({}),
    );
    assert_eq!(demultiplex(&mut io.io).0, b"a part");
    eventually("an end known", || {
        (get(&d, &format!("/exec/{third}/json"))["ExitCode"] == 0).then_some(())
    });
    // What was left alone runs on, as with Docker, until its container ends.
    for id in [&id, &other] {
        assert_eq!(get(&d, &format!("/exec/{id}/json"))["Running"], true, "{id}");
    }
    let mut io = hijack(&d, "/containers/stays/attach?stream=1&stdin=1&stdout=1", None);
    let mut w = io.writer();
    w.write_all(b"two\n").unwrap();
    let mut got = [0; 8 + 8];
    io.io.read_exact(&mut got).unwrap();
    assert_eq!(&got[8..], b"got two\n");
    // Half of a request, and connections that say nothing.
    let mut half = UnixStream::connect(socket(&d)).unwrap();
    half.write_all(b"POST /containers/create HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
        .unwrap();
    let silent: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(socket(&d)).unwrap()).collect();
    drop(half);
    assert_eq!(get(&d, "/containers/stays/json")["State"]["Running"], true);
    drop(silent);
    remove(&d, "stays");
    d.until_clean();
}

/// Keys that leave a terminal: the usual ones, others, ones that were begun only.
#[test]
fn terminals_are_left_by_keys() {
    let d = daemon();
    create(
        &d,
        "term",
        "stty raw -echo; exec cat",
        json!({"OpenStdin": true, "Tty": true}),
    );
    start(&d, "term");
    let path = "/containers/term/attach?stream=1&stdin=1&stdout=1";
    let passes = |io: &mut Answer, typed: &[u8]| {
        io.writer().write_all(typed).unwrap();
        let mut got = vec![0; typed.len()];
        io.io.read_exact(&mut got).unwrap();
        assert_eq!(got, typed);
    };
    let leaves = |mut io: Answer, keys: &[u8]| {
        io.writer().write_all(keys).unwrap();
        let mut rest = Vec::new();
        io.io.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(get(&d, "/containers/term/json")["State"]["Running"], true);
    };
    let raw = |io: &mut Answer| {
        // Once the terminal is raw each byte comes back as it is.
        io.writer().write_all(b"\x01").unwrap();
        let mut got = [0];
        while got != [1] {
            io.io.read_exact(&mut got).unwrap();
        }
    };
    let (_, mut ready) = exec(
        &d,
        "term",
        "until stty -F /dev/pts/0 | grep -q -- -icanon; do sleep 0.05; done",
        json!({}),
    );
    demultiplex(&mut ready.io);
    let mut io = hijack(&d, path, None);
    raw(&mut io);
    passes(&mut io, b"plain \x10 text");
    leaves(io, b"\x10\x11");
    let mut io = hijack(&d, &format!("{path}&detachKeys=ctrl-x,y,z"), None);
    passes(&mut io, b"\x10\x11 \x18yy \x18\x18 ");
    leaves(io, b"\x18yz");
    let (id, io) = exec(
        &d,
        "term",
        "stty raw -echo; exec cat",
        json!({"Tty": true, "DetachKeys": "ctrl-e,e"}),
    );
    io.writer().write_all(b"\x05e").unwrap();
    let mut rest = Vec::new();
    { io }.io.read_to_end(&mut rest).unwrap();
    assert_eq!(get(&d, &format!("/exec/{id}/json"))["Running"], true);
    remove(&d, "term");
    d.until_clean();
}
