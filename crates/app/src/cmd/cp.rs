//! `biga cp`: files in and out of instances, by Docker's rules for what goes where.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use biga_client::{ErrorKind, StreamError};
use biga_image::files::{self as trees, Crossing, Owner, Packer, Place, Unpack};
use biga_wire::files::{PathStat, Put};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::note;

/// Bytes of one piece on its way.
const PIECE: usize = 256 << 10;

/// Arguments of `cp`. One side is NAME:PATH, the other a path of this host, or "-" for a tar on standard input or output.
#[derive(Debug, clap::Args)]
pub struct CpArgs {
    /// Keep owners and groups; else what is copied in belongs to root, and what is copied out to you
    #[arg(short = 'a', long)]
    archive: bool,
    /// Follow SRC where it is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short = 'q', long)]
    quiet: bool,
    /// What is copied; with /. at its end, what is in it
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to
    #[arg(value_name = "DST")]
    target: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Instance { name: String, path: String },
    Local(String),
    Stream,
}

/// A path of this host begins with `/` or `.`, or has no colon.
fn side(text: &str) -> Side {
    if text == "-" {
        return Side::Stream;
    }
    match text.split_once(':') {
        Some((name, path)) if !text.starts_with(['/', '.']) => Side::Instance {
            name: name.into(),
            path: path.into(),
        },
        _ => Side::Local(text.into()),
    }
}

/// Copies files.
pub async fn cp(cx: &Context, args: CpArgs) -> anyhow::Result<Code> {
    match (side(&args.source), side(&args.target)) {
        (Side::Instance { name, path }, target) if !matches!(target, Side::Instance { .. }) => {
            let o = cx.instance(&name).await?;
            out(cx, o.name(), &path, target, &args).await?;
        }
        (source, Side::Instance { name, path }) if !matches!(source, Side::Instance { .. }) => {
            let o = cx.instance(&name).await?;
            into(cx, source, o.name(), &path, &args).await?;
        }
        (Side::Instance { .. }, _) => {
            return Err(fail(
                Code::USAGE,
                "both sides are instances: copy to a directory of this host first, or `biga cp A:PATH - | biga cp - B:PATH`",
            ));
        }
        _ => {
            return Err(fail(
                Code::USAGE,
                "neither side is an instance: one has to be NAME:PATH; a file of this host whose name has a colon is ./NAME:PATH",
            ));
        }
    }
    Ok(Code::OK)
}

async fn stat(cx: &Context, name: &str, path: &str) -> anyhow::Result<Option<PathStat>> {
    match cx.client.files_stat(&cx.namespace, name, path).await {
        Ok(s) => Ok(Some(s)),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StreamError::Api(e).into()),
    }
}

fn local(e: &dyn std::fmt::Display) -> anyhow::Error {
    fail(Code::FAILED, e.to_string())
}

/// Whether only what is in a directory is meant.
fn is_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

fn says_directory(path: &str) -> bool {
    path.ends_with('/') || is_content(path)
}

/// Where a copy goes: the directory it is unpacked in, and the name that what is copied gets there.
#[derive(Debug, PartialEq, Eq)]
struct Goal {
    dir: String,
    /// Its own where unset.
    name: Option<String>,
    /// The directory has to be made first.
    make: bool,
}

/// Docker's rules. `stands` says whether something stands at the target, and whether that is a directory; `content` that
/// only what is in the source goes.
fn goal(target: &str, stands: Option<bool>, source_is_dir: bool, content: bool) -> Result<Goal, String> {
    let whole = |make| Goal {
        dir: target.into(),
        name: None,
        make,
    };
    match stands {
        Some(true) => return Ok(whole(false)),
        Some(false) if source_is_dir => return Err(format!("cannot copy a directory over the file {target}")),
        Some(false) if says_directory(target) => return Err(format!("{target} is a file and no directory")),
        None if !source_is_dir && says_directory(target) => {
            return Err(format!("there is no directory {target}"));
        }
        // What is in a directory goes into a new one.
        None if content => return Ok(whole(true)),
        _ => {}
    }
    let (dir, name) = split(target);
    Ok(Goal {
        dir,
        name: Some(name),
        make: false,
    })
}

/// The directory of a path and its last component.
fn split(path: &str) -> (String, String) {
    let path = path.strip_suffix("/.").unwrap_or(path).trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".into(), name.into()),
        Some((dir, name)) => (dir.into(), name.into()),
        None => (".".into(), path.into()),
    }
}

async fn out(cx: &Context, name: &str, path: &str, target: Side, args: &CpArgs) -> anyhow::Result<()> {
    let mut path = path.to_owned();
    if args.follow_link
        && let Some(s) = stat(cx, name, &path).await?
        && s.is_link()
    {
        path = s.link_target;
    }
    let Side::Local(target) = target else {
        use std::io::IsTerminal;
        if io::stdout().is_terminal() {
            return Err(fail(
                Code::USAGE,
                "standard output is a terminal: send the tar on with > or |",
            ));
        }
        let (_, mut bytes) = cx.client.files_read(&cx.namespace, name, &path).await?;
        let mut stdout = tokio::io::stdout();
        while let Some(b) = bytes.next().await {
            stdout.write_all(&b?).await?;
        }
        return Ok(stdout.flush().await?);
    };
    let (found, bytes) = cx.client.files_read(&cx.namespace, name, &path).await?;
    let content = is_content(&path) || found.name == "/";
    let stands = std::fs::metadata(&target).ok().map(|m| m.is_dir());
    let goal = goal(&target, stands, found.is_dir(), content).map_err(|e| fail(Code::FAILED, e))?;
    if goal.make {
        std::fs::create_dir(&goal.dir).map_err(|e| local(&format!("cannot make {}: {e}", goal.dir)))?;
    }
    let count = counter();
    let counted = count.clone();
    let bytes = bytes.map(move |b| {
        let b = b.map_err(io::Error::other)?;
        counted.fetch_add(b.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, io::Error>(b)
    });
    let reader = SyncIoBridge::new(StreamReader::new(bytes));
    let owner = if args.archive { Owner::Archive } else { Owner::Ours };
    let done = tokio::task::spawn_blocking(move || unpack(&goal, reader, owner)).await?;
    done.map_err(|e| local(&e))?;
    say(args, &count, &target);
    Ok(())
}

fn counter() -> std::sync::Arc<std::sync::atomic::AtomicU64> {
    std::sync::Arc::default()
}

fn say(args: &CpArgs, count: &std::sync::atomic::AtomicU64, target: &str) {
    if !args.quiet {
        let bytes = indicatif::HumanBytes(count.load(std::sync::atomic::Ordering::Relaxed));
        note(format!("copied {bytes} to {target}"));
    }
}

fn unpack(goal: &Goal, reader: impl io::Read, owner: Owner) -> Result<(), trees::Error> {
    let dir = Path::new(&goal.dir);
    let root = trees::changes::directory(dir)?.ok_or_else(|| trees::Error::NotFound(goal.dir.clone()))?;
    let options = Unpack {
        owner,
        keep_kinds: true,
        rename: goal.name.clone().map(String::into_bytes),
        ids: trees::Ids::default(),
    };
    let reader = io::BufReader::with_capacity(PIECE, reader);
    trees::unpack::unpack(root.as_fd(), "/", reader, options)
}

async fn into(cx: &Context, source: Side, name: &str, path: &str, args: &CpArgs) -> anyhow::Result<()> {
    let mut path = path.to_owned();
    let mut stands = stat(cx, name, &path).await?;
    if let Some(s) = &stands
        && s.is_link()
    {
        // What a link leads to is meant, and not the link.
        path.clone_from(&s.link_target);
        stands = stat(cx, name, &path).await?;
    }
    let put = Put {
        keep_kinds: true,
        to_user: false,
    };
    let stands = stands.map(|s| s.is_dir());
    let Side::Local(source) = source else {
        if crate::term::stdin_is_terminal() {
            return Err(fail(
                Code::USAGE,
                "standard input is a terminal: send a tar with < or |",
            ));
        }
        if stands != Some(true) {
            return Err(fail(
                Code::FAILED,
                format!("{path} in {name} is no directory to unpack a tar in"),
            ));
        }
        let tar = ReaderStream::with_capacity(tokio::io::stdin(), PIECE);
        return Ok(cx.client.files_write(&cx.namespace, name, &path, put, tar).await?);
    };
    let mut place = find(&source, args.follow_link).map_err(|e| local(&e))?;
    let is_dir = std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place.fd)))
        .is_ok_and(|m| m.is_dir())
        && !is_link(&place);
    let content = is_content(&source) || place.base == b"/";
    let goal = goal(&path, stands, is_dir, content).map_err(|e| fail(Code::FAILED, e))?;
    let mut dir = goal.dir;
    if goal.make {
        // Made by the tar: its own entry gets the new name.
        let (above, new) = split(&dir);
        (dir, place.base) = (above, new.into_bytes());
    } else if let Some(new) = goal.name {
        place.base = new.into_bytes();
    } else if content {
        place.base = b".".to_vec();
    }
    let dir = if dir == "." { "/".into() } else { dir };
    let count = counter();
    let tar = pack(place, args.archive, count.clone());
    cx.client.files_write(&cx.namespace, name, &dir, put, tar).await?;
    say(args, &count, &format!("{name}:{path}"));
    Ok(())
}

fn is_link(place: &Place) -> bool {
    use rustix::fs::{AtFlags, FileType};
    rustix::fs::statat(&place.fd, c"", AtFlags::EMPTY_PATH)
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink)
}

/// A path of this host. With `follow` a link at its end is followed, and its own name kept.
fn find(path: &str, follow: bool) -> Result<Place, trees::Error> {
    let failed = |source: io::Error| trees::Error::Io {
        what: "find",
        path: path.into(),
        source,
    };
    let here = std::env::current_dir().map_err(failed)?;
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        // Joined as text: a dot or slash at the end says something.
        format!("{}/{path}", here.display())
    };
    let root = std::fs::File::open("/").map_err(failed)?;
    let place = trees::stat::find(root.as_fd(), &whole)?;
    if !follow || !is_link(&place) {
        return Ok(place);
    }
    let real: PathBuf = std::fs::canonicalize(&whole).map_err(failed)?;
    let real = trees::stat::find(root.as_fd(), &String::from_utf8_lossy(real.as_os_str().as_bytes()))?;
    Ok(Place {
        base: place.base,
        ..real
    })
}

/// The tar of a place, made by a thread while it is sent.
fn pack(
    place: Place,
    archive: bool,
    count: std::sync::Arc<std::sync::atomic::AtomicU64>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let (to, from) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE, Sending { to: to.clone(), count });
        let mut packer = Packer::new(out, Crossing::Enter);
        if !archive {
            packer = packer.owned_by(0, 0);
        }
        let packed = packer.add(&place).and_then(|()| packer.finish().map(drop));
        if let Err(e) = packed {
            let _ = to.blocking_send(Err(io::Error::other(e)));
        }
    });
    tokio_stream(from)
}

fn tokio_stream(
    from: mpsc::Receiver<io::Result<Bytes>>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    futures_util::stream::unfold(from, |mut rx| async move { rx.recv().await.map(|b| (b, rx)) })
}

struct Sending {
    to: mpsc::Sender<io::Result<Bytes>>,
    count: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.to.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.count
            .fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let instance = |name: &str, path: &str| Side::Instance {
            name: name.into(),
            path: path.into(),
        };
        assert_eq!(side("web:/etc/x:y"), instance("web", "/etc/x:y"));
        assert_eq!(side("web:"), instance("web", ""));
        for local in ["/a:b", "./a:b", "../a:b", "plain"] {
            assert_eq!(side(local), Side::Local(local.into()), "{local}");
        }
        assert_eq!(side("-"), Side::Stream);
    }

    #[test]
    fn goals_are_docker_s() {
        let at = |dir: &str, name: Option<&str>, make| {
            Ok(Goal {
                dir: dir.into(),
                name: name.map(Into::into),
                make,
            })
        };
        // To a directory that is there.
        assert_eq!(goal("/d", Some(true), false, false), at("/d", None, false));
        assert_eq!(goal("/d", Some(true), true, true), at("/d", None, false));
        // To a file.
        assert_eq!(goal("/d/f", Some(false), false, false), at("/d", Some("f"), false));
        assert!(goal("/d/f", Some(false), true, false).is_err());
        assert!(goal("/d/f/", Some(false), false, false).is_err());
        // To nothing.
        assert_eq!(goal("/new", None, false, false), at("/", Some("new"), false));
        assert_eq!(goal("new", None, true, false), at(".", Some("new"), false));
        assert_eq!(goal("/a/new/", None, true, false), at("/a", Some("new"), false));
        assert_eq!(goal("/a/new", None, true, true), at("/a/new", None, true));
        assert!(goal("/a/new/", None, false, false).is_err());
    }
}
