//! A server that answers each connection with the next entry of a script.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// A running script. Ends with the test.
pub struct Script {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Answers the n-th connection with the n-th text, then closes it; what comes after the script is refused.
    pub fn play(answers: Vec<String>) -> Script {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            for a in answers {
                let (mut c, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                let mut b = [0; 4096];
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    let n = c.read(&mut b).await.unwrap();
                    assert!(n > 0, "the client left");
                    head.extend_from_slice(&b[..n]);
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                log.lock().unwrap().push(text.lines().next().unwrap().to_string());
                // A client that leaves early is part of some tests.
                let _ = c.write_all(a.as_bytes()).await;
            }
        });
        Script {
            _dir: dir,
            socket,
            seen,
        }
    }

    pub fn client(&self) -> biga_client::Client {
        biga_client::Client::new(biga_client::Endpoint::Unix(self.socket.clone()))
    }

    /// The request lines so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// An answer with JSON.
pub fn json(code: u16, v: &serde_json::Value) -> String {
    let body = v.to_string();
    format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An answer of lines that ends with the connection, in the middle of the body.
pub fn lines(lines: &[serde_json::Value]) -> String {
    let mut out = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_string();
    for l in lines {
        let text = format!("{l}\n");
        out.push_str(&format!("{:x}\r\n{text}\r\n", text.len()));
    }
    out
}
