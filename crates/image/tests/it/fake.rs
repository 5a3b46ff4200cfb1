//! A registry that does as it is told: cuts connections, lies about digests, redirects, demands tokens.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::support::{gzip, sha};

/// What came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// What goes back.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

type Answer = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

pub struct Fake {
    pub host: String,
    pub log: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (log, stop) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let answer: Arc<Answer> = Arc::new(Box::new(answer));
        let (l, s) = (log.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if s.load(Ordering::Relaxed) {
                    break;
                }
                let (answer, log) = (answer.clone(), l.clone());
                std::thread::spawn(move || serve(stream.ok()?, &answer, &log));
            }
        });
        Fake { host, log, stop }
    }

    pub fn reference(&self, name: &str) -> biga_model::Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    pub fn count(&self, part: &str) -> usize {
        self.log.lock().iter().filter(|a| a.path.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
    }
}

fn serve(stream: TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((k, v)) => headers.insert(k.to_ascii_lowercase(), v.to_owned()),
            None => break,
        };
    }
    let asked = Asked { path, headers };
    log.lock().push(asked.clone());
    let reply = answer(&asked);
    let mut out = format!(
        "HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n",
        reply.status,
        reply.body.len()
    );
    for (k, v) in &reply.headers {
        out += &format!("{k}: {v}\r\n");
    }
    let mut stream = stream;
    stream.write_all(out.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    stream
        .write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())])
        .ok()?;
    Some(())
}

/// The documents and blobs of one image.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub files: HashMap<String, (String, Vec<u8>)>,
    pub manifest: Vec<u8>,
    pub layer: Vec<u8>,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Content {
    /// An image of one gzip layer.
    pub fn of(tar: &[u8], architecture: &str) -> Content {
        Content::with_blob(tar, gzip(tar), architecture)
    }

    pub fn with_blob(tar: &[u8], blob: Vec<u8>, architecture: &str) -> Content {
        Content::with_blobs(&[(sha(tar), blob)], architecture)
    }

    /// An image of several gzip layers.
    pub fn of_layers(tars: &[Vec<u8>], architecture: &str) -> Content {
        let layers: Vec<_> = tars.iter().map(|t| (sha(t), gzip(t))).collect();
        Content::with_blobs(&layers, architecture)
    }

    /// Each layer's diff id and blob. The last one is `layer`.
    fn with_blobs(layers: &[(String, Vec<u8>)], architecture: &str) -> Content {
        let diff_ids: Vec<String> = layers.iter().map(|(id, _)| format!("\"{id}\"")).collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["run"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let entry = |blob: &[u8]| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}"#,
                sha(blob),
                blob.len()
            )
        };
        let entries: Vec<String> = layers.iter().map(|(_, blob)| entry(blob)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
            sha(config.as_bytes()),
            config.len(),
            entries.join(",")
        );
        let mut content = Content {
            manifest: manifest.clone().into_bytes(),
            layer: layers.last().unwrap().1.clone(),
            ..Content::default()
        };
        content.manifest("latest", manifest.into_bytes());
        let blobs = layers.iter().map(|(_, b)| b.clone()).chain([config.into_bytes()]);
        for blob in blobs {
            let path = format!("/v2/app/blobs/{}", sha(&blob));
            content.files.insert(path, (String::new(), blob));
        }
        content
    }

    pub fn manifest(&mut self, tag: &str, bytes: Vec<u8>) {
        let kind = if bytes.windows(11).any(|w| w == b"\"manifests\"") {
            INDEX
        } else {
            MANIFEST
        };
        self.files.insert(
            format!("/v2/app/manifests/{}", sha(&bytes)),
            (kind.into(), bytes.clone()),
        );
        self.files
            .insert(format!("/v2/app/manifests/{tag}"), (kind.into(), bytes));
    }

    pub fn layer_path(&self) -> String {
        format!("/v2/app/blobs/{}", sha(&self.layer))
    }

    /// A well-behaved registry's answer; it knows ranges.
    pub fn reply(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap();
        let Some((kind, bytes)) = self.files.get(path) else {
            let status = if path == "/v2/" { 200 } else { 404 };
            return Reply {
                status,
                ..Reply::default()
            };
        };
        let mut reply = Reply {
            status: 200,
            body: bytes.clone(),
            ..Reply::default()
        };
        if !kind.is_empty() {
            reply.headers.push(("Content-Type".into(), kind.clone()));
        }
        if let Some(from) = asked
            .headers
            .get("range")
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        {
            reply.status = 206;
            reply.headers.push((
                "Content-Range".into(),
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ));
            reply.body.drain(..from);
        }
        reply
    }
}
