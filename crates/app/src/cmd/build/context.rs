//! The context of a build: a directory as a tar, without what `.dockerignore` leaves out.

use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use biga_dockerfile::ignore::Ignore;
use biga_image::files::{Compose, Disk, Node, Tree};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use crate::exit::{Code, fail};

/// Under this name a Dockerfile goes along that stands elsewhere.
const OWN: &str = ".dockerfile.biga";
/// Bytes of a piece.
const PIECE: usize = 128 << 10;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// What is sent.
pub struct Packed {
    /// The Dockerfile's path in the context; empty for the usual one.
    pub dockerfile: String,
    /// Its text, where it is known here.
    pub dockerfile_text: Option<String>,
    /// An address instead of a context.
    pub remote: String,
    /// The context's tar.
    pub bytes: Pieces,
}

/// Makes what is sent ready.
pub fn pack(context: &str, file: Option<&Path>) -> anyhow::Result<Packed> {
    let is_address = ["http://", "https://", "git@", "git://", "ssh://"]
        .iter()
        .any(|p| context.starts_with(p));
    let inside = || file.map(|f| f.display().to_string()).unwrap_or_default();
    if is_address {
        return Ok(Packed {
            dockerfile: inside(),
            dockerfile_text: None,
            remote: context.into(),
            bytes: Box::pin(futures_util::stream::empty()),
        });
    }
    if context == "-" {
        if file == Some(Path::new("-")) {
            return Err(fail(
                Code::USAGE,
                "context and Dockerfile cannot both come from standard input",
            ));
        }
        return from_stdin(inside());
    }
    directory(Path::new(context), file)
}

/// An archive, or a Dockerfile without a context.
fn from_stdin(dockerfile: String) -> anyhow::Result<Packed> {
    let mut head = Vec::new();
    io::stdin().lock().take(1024).read_to_end(&mut head)?;
    let compressed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"];
    let is_archive = compressed.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar");
    if is_archive {
        let rest = ReaderStream::with_capacity(tokio::io::stdin(), PIECE);
        let first = futures_util::stream::once(async { Ok(Bytes::from(head)) });
        return Ok(Packed {
            dockerfile,
            dockerfile_text: None,
            remote: String::new(),
            bytes: Box::pin(first.chain(rest)),
        });
    }
    io::stdin().lock().read_to_end(&mut head)?;
    let mut compose = Compose::new(None);
    compose.put(
        b"Dockerfile",
        Node::file(&head, 0o644, (0, 0)),
        &Node::dir(0o755, (0, 0)),
    )?;
    Ok(Packed {
        dockerfile: String::new(),
        dockerfile_text: String::from_utf8(head).ok(),
        remote: String::new(),
        bytes: sent(compose),
    })
}

fn directory(dir: &Path, file: Option<&Path>) -> anyhow::Result<Packed> {
    let cannot = |e: io::Error| fail(Code::FAILED, format!("cannot read the context {}: {e}", dir.display()));
    if !dir.is_dir() {
        return Err(fail(
            Code::USAGE,
            format!(
                "{} is no directory: the context is one, an address, or -",
                dir.display()
            ),
        ));
    }
    let root = std::fs::File::open(dir).map_err(cannot)?;
    let tree = Disk(Arc::new(root.into()));
    let (dockerfile, outside) = dockerfile(dir, file)?;
    let named = if dockerfile.is_empty() {
        "Dockerfile"
    } else {
        &dockerfile
    };
    let ignore = ignore_file(dir, named)?;
    let mut compose = Compose::new(None);
    let new = Node::dir(0o755, (0, 0));
    walk(&tree, &ignore, named, b"", &mut compose, &new)?;
    let dockerfile_text = match outside {
        Some(text) => {
            compose.put(OWN.as_bytes(), Node::file(text.as_bytes(), 0o644, (0, 0)), &new)?;
            Some(text)
        }
        None => std::fs::read_to_string(dir.join(named)).ok(),
    };
    Ok(Packed {
        dockerfile,
        dockerfile_text,
        remote: String::new(),
        bytes: sent(compose),
    })
}

/// The Dockerfile's path in the context, and its text where it stands outside.
fn dockerfile(dir: &Path, file: Option<&Path>) -> anyhow::Result<(String, Option<String>)> {
    let Some(file) = file else {
        return Ok((String::new(), None));
    };
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok((OWN.into(), Some(text)));
    }
    let cannot = |e: io::Error| fail(Code::FAILED, format!("cannot read {}: {e}", file.display()));
    let (whole, dir) = (
        file.canonicalize().map_err(cannot)?,
        dir.canonicalize().map_err(cannot)?,
    );
    match whole.strip_prefix(&dir) {
        Ok(inside) => Ok((inside.display().to_string(), None)),
        Err(_) => Ok((OWN.into(), Some(std::fs::read_to_string(&whole).map_err(cannot)?))),
    }
}

/// Of a Dockerfile `NAME` the rules of `NAME.dockerignore` go before those of `.dockerignore`.
fn ignore_file(dir: &Path, dockerfile: &str) -> anyhow::Result<Ignore> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".into()] {
        match std::fs::read_to_string(dir.join(&name)) {
            Ok(text) => return Ignore::parse(&text).map_err(|e| fail(Code::INVALID, format!("{name}: {e}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(Code::FAILED, format!("cannot read {name}: {e}"))),
        }
    }
    Ok(Ignore::default())
}

fn walk(
    tree: &Disk,
    ignore: &Ignore,
    dockerfile: &str,
    dir: &[u8],
    compose: &mut Compose<'_>,
    new: &Node,
) -> anyhow::Result<()> {
    for name in tree.list(dir)? {
        let path = match dir {
            b"" => name,
            dir => [dir, b"/", &name].concat(),
        };
        let shown = String::from_utf8_lossy(&path).into_owned();
        let Some(mut node) = tree.look(&path)? else { continue };
        // Who owns it here does not matter there.
        (node.uid, node.gid) = (0, 0);
        let is_dir = node.is_dir();
        // The daemon reads these two, whatever the rules say.
        let needed = shown == dockerfile || shown == ".dockerignore";
        let excluded = ignore.excludes(&shown) && !needed;
        if !excluded {
            compose.put(&path, node, new)?;
        }
        let below = format!("{shown}/");
        if is_dir && !(excluded && ignore.excludes_all_in(&shown) && !dockerfile.starts_with(&below)) {
            walk(tree, ignore, dockerfile, &path, compose, new)?;
        }
    }
    Ok(())
}

/// The tar, made while it is sent.
fn sent(compose: Compose<'_>) -> Pieces {
    let mut tar = compose.into_tar();
    let (tx, rx) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let mut filled = 0;
            let read = loop {
                match tar.read(&mut piece[filled..]) {
                    Ok(0) => break Ok(()),
                    Ok(n) => filled += n,
                    Err(e) => break Err(e),
                }
                if filled == piece.len() {
                    break Ok(());
                }
            };
            piece.truncate(filled);
            let (is_error, at_end) = (read.is_err(), filled == 0);
            let sent = match read {
                Err(e) => tx.blocking_send(Err(e)),
                Ok(()) if at_end => return,
                Ok(()) => tx.blocking_send(Ok(Bytes::from(piece))),
            };
            if sent.is_err() || is_error {
                return;
            }
        }
    });
    Box::pin(tokio_stream(rx))
}

fn tokio_stream(rx: mpsc::Receiver<io::Result<Bytes>>) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    futures_util::stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|p| (p, rx)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path, file: Option<&Path>) -> (String, Vec<String>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let packed = pack(&dir.display().to_string(), file).unwrap();
        let tar = runtime.block_on(packed.bytes.fold(Vec::new(), |mut all, p| async move {
            all.extend_from_slice(&p.unwrap());
            all
        }));
        let read = biga_image::files::Tarball::read(&tar[..], dir).unwrap();
        let all = read.beneath(b"").map(|(k, _)| String::from_utf8_lossy(k).into_owned());
        (packed.dockerfile, all.collect())
    }

    #[test]
    fn a_directory_without_what_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("target/deep")).unwrap();
        std::fs::create_dir_all(at("src")).unwrap();
        for f in ["Dockerfile", "src/a.rs", "src/b.o", "target/deep/x", "target/keep"] {
            std::fs::write(at(f), "FROM scratch").unwrap();
        }
        std::fs::write(
            at(".dockerignore"),
            "target\n!target/keep\n**/*.o\nDockerfile\n.dockerignore\n",
        )
        .unwrap();
        let (name, all) = names(dir.path(), None);
        assert_eq!(name, "");
        assert_eq!(
            all,
            [
                ".dockerignore",
                "Dockerfile",
                "src",
                "src/a.rs",
                "target",
                "target/keep"
            ]
        );
        std::fs::write(at("src/Other"), "FROM scratch").unwrap();
        std::fs::write(at("src/Other.dockerignore"), "*\n").unwrap();
        let (name, all) = names(dir.path(), Some(&at("src/Other")));
        assert_eq!(
            (name.as_str(), all.join(" ").as_str()),
            ("src/Other", ".dockerignore src src/Other")
        );
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let (name, all) = names(dir.path(), Some(elsewhere.path()));
        assert!(name == OWN && all.contains(&OWN.to_string()), "{all:?}");
    }

    #[test]
    fn what_is_no_context_is_refused() {
        assert!(pack("/nonexistent/context", None).is_err());
        assert!(pack("-", Some(Path::new("-"))).is_err());
        assert_eq!(pack("http://h/x", None).unwrap().remote, "http://h/x");
    }
}
