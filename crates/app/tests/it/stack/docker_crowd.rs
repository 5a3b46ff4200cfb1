//! Thousands of clients of one daemon at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use biga_testkit::Daemon;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::daemon;
use super::docker::socket;

/// So many of each kind.
const CROWD: usize = 2000;

/// Sends a request and reads the head of its answer.
fn ask(d: &Daemon, method: &str, path: &str) -> BufReader<UnixStream> {
    let mut s = UnixStream::connect(socket(d)).unwrap();
    write!(s, "{method} {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut s = BufReader::new(s);
    let mut line = String::new();
    s.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 200 "), "{path}: {line}");
    while line != "\r\n" {
        line.clear();
        assert_ne!(s.read_line(&mut line).unwrap(), 0, "{path}");
    }
    s
}

/// The next line of a body that holds this word.
fn line_with(s: &mut BufReader<UnixStream>, word: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(s.read_line(&mut line).unwrap(), 0, "the end before {word}");
        if line.contains(word) {
            return line;
        }
    }
}

#[test]
fn thousands_follow_events_and_wait() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let d = daemon();
    for name in ["one", "two"] {
        d.biga(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "busybox",
            "sleep",
            "100000",
        ])
        .ok();
    }
    let die = "/events?filters=%7B%22event%22%3A%5B%22die%22%5D%7D";
    let mut following: Vec<_> = (0..CROWD).map(|_| ask(&d, "GET", die)).collect();
    let mut waiting: Vec<_> = (0..CROWD).map(|_| ask(&d, "POST", "/containers/one/wait")).collect();
    // They cost others nothing that is noticed: nobody of them has read a byte yet.
    d.biga(&["exec", "two", "true"]).ok();
    d.biga(&["kill", "one"]).ok();
    for s in &mut waiting {
        let line = line_with(s, "StatusCode");
        assert!(line.contains("137"), "{line}");
    }
    // Nobody has to have read the one event before the next is told.
    d.biga(&["kill", "two"]).ok();
    for s in &mut following {
        for name in ["one", "two"] {
            let line = line_with(s, "die");
            assert!(line.contains(&format!("\"name\":\"{name}\"")), "{name}: {line}");
        }
    }
    drop((following, waiting));
    d.biga(&["rm", "one", "two"]).ok();
    d.until_clean();
}
