//! Repositories as contexts: the program `git` fetches them into a directory that is read as a tar and goes.
//!
//! Who names a repository may be anybody, and so may who wrote it. So git asks nobody for anything, reads no configuration of the
//! node's, runs no hooks, and speaks only to servers: no path of the node is a repository, and none of its keys is used.

use std::io::{BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use biga_image::files::{Crossing, Packer, Tarball, Tree, tree};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::prepare::blocking;
use crate::{Builder, Error};

/// Bytes of what git says that are read.
const MAX_SAID: u64 = 64 << 10;
/// Bytes read of the packed files at once.
const BUFFER: usize = 256 << 10;
/// What a server may answer that means: ask for more than this one commit.
const ASK_FOR_ALL: [&str; 5] = [
    "shallow",
    "unadvertised object",
    "not our ref",
    "couldn't find remote ref",
    "upload-pack: not our ref",
];
const CONFIG: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "advice.detachedHead=false",
    "gc.auto=0",
    "maintenance.auto=false",
    // A server that sends next to nothing for a minute is given up.
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
];
/// Of the daemon's environment; nothing else is passed on.
const PASSED_ON: [&str; 9] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "GIT_SSL_CAINFO",
];

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    address: String,
    /// A branch, a tag or a commit; empty for what the server says.
    reference: String,
    /// A directory in it; empty for all of it.
    subdir: String,
}

/// Whether an address is a repository's, by Docker's rules.
pub fn is_repository(address: &str) -> bool {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let is_web = path.starts_with("http://") || path.starts_with("https://");
    (is_web && path.ends_with(".git"))
        || ["git://", "git@", "ssh://", "github.com/"]
            .iter()
            .any(|p| address.starts_with(p))
}

impl Repository {
    /// `ADDRESS#REFERENCE:DIRECTORY`
    pub fn parse(text: &str) -> Result<Repository, Error> {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if address.starts_with("git@") || address.starts_with("ssh://") {
            return Err(Error::Unsupported(format!(
                "{}: a repository behind SSH needs keys, and those of the node are used for nobody: clone it and build the directory",
                shown(text)
            )));
        }
        let bad = |what: &str| Error::Invalid(format!("{}: {what}", shown(text)));
        if address.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("an address has no spaces"));
        }
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "._/+@-".contains(c));
        if reference.starts_with(['-', '/']) || reference.contains("..") || reference.contains(odd) {
            return Err(bad(&format!("{reference:?} is no name of a branch, a tag or a commit")));
        }
        let address = match address.starts_with("github.com/") {
            true => format!("https://{address}"),
            false => address.to_owned(),
        };
        Ok(Repository {
            address,
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
        })
    }
}

/// An address without what nobody should read in a message.
fn shown(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}/{path}")
        }
        None => address.to_owned(),
    }
}

impl Builder {
    /// The files of a repository, with those of its submodules.
    pub(crate) async fn clone_repository(&self, what: &Repository, keep_git_dir: bool) -> Result<Tarball, Error> {
        let tmp = self.store().root().join("tmp");
        let failed = |e: std::io::Error| Error::Failed(format!("{}: no directory for it: {e}", shown(&what.address)));
        let dir = tempfile::Builder::new()
            .prefix("git-")
            .tempdir_in(&tmp)
            .map_err(failed)?;
        let git = Git { dir: dir.path(), what };
        git.fetch().await?;
        let subdir = what.subdir.clone();
        let shown = shown(&what.address);
        blocking(move || {
            let whole = read(dir.path(), &tmp, keep_git_dir)
                .map_err(|e| Error::Failed(format!("the files of {shown} cannot be read: {e}")))?;
            let real = tree::real_path(&whole, subdir.as_bytes(), true);
            let real = real.map_err(|e| Error::Invalid(format!("{shown}: {e}")))?;
            if real.is_empty() {
                return Ok(whole);
            }
            match whole.look(&real) {
                Ok(Some(node)) if node.is_dir() => Ok(whole.below(&real)),
                _ => Err(Error::Invalid(format!("{shown}: there is no directory {subdir} in it"))),
            }
        })
        .await
    }
}

/// Packs the directory and reads the pack.
fn read(dir: &Path, tmp: &Path, keep_git_dir: bool) -> Result<Tarball, Box<dyn std::error::Error + Send + Sync>> {
    if !keep_git_dir {
        std::fs::remove_dir_all(dir.join(".git"))?;
    }
    let root = OwnedFd::from(std::fs::File::open(dir)?);
    let (source, out) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut packer = Packer::new(out, Crossing::Stay).owned_by(0, 0);
            packer.add_content(root.as_fd())?;
            let mut out = packer.finish()?;
            out.flush().map_err(biga_image::files::Error::Stream)
        });
        let read = Tarball::read(BufReader::with_capacity(BUFFER, source), tmp);
        let packed = packing.join().map_err(|_| "the thread that packs crashed")?;
        // What broke first is what the reader saw as an early end.
        packed?;
        Ok(read?)
    })
}

/// Git in one directory.
struct Git<'a> {
    dir: &'a Path,
    what: &'a Repository,
}

/// Ends git with all that it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Of a child that was waited for there is none.
        if let Some(pid) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Git<'_> {
    async fn fetch(&self) -> Result<(), Error> {
        self.run(&["init", "-q", "."]).await?;
        self.run(&["remote", "add", "origin", &self.what.address]).await?;
        let reference = match self.what.reference.as_str() {
            "" => "HEAD",
            name => name,
        };
        // One commit is enough, where the server gives one.
        let one = self
            .run(&["fetch", "-q", "--no-tags", "--depth=1", "origin", reference])
            .await;
        let found = match one {
            Ok(()) => "FETCH_HEAD",
            Err(e) if ASK_FOR_ALL.iter().any(|w| e.to_string().contains(w)) => {
                let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
                self.run(&[&["fetch", "-q", "origin", "HEAD"], &all[..]].concat())
                    .await?;
                match reference {
                    "HEAD" => "FETCH_HEAD",
                    name if self.knows(&format!("refs/remotes/origin/{name}")).await? => {
                        &format!("refs/remotes/origin/{name}")
                    }
                    name if self.knows(name).await? => name,
                    _ => return Err(e),
                }
            }
            Err(e) => return Err(e),
        };
        self.run(&["checkout", "-q", "--detach", found]).await?;
        if self.dir.join(".gitmodules").exists() {
            self.run(&["submodule", "update", "-q", "--init", "--recursive", "--depth=1"])
                .await?;
        }
        Ok(())
    }

    async fn knows(&self, name: &str) -> Result<bool, Error> {
        let commit = format!("{name}^{{commit}}");
        let asked = self
            .run(&["rev-parse", "-q", "--verify", "--end-of-options", &commit])
            .await;
        match asked {
            Err(e @ Error::Unsupported(_)) => Err(e),
            other => Ok(other.is_ok()),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("git");
        c.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                c.env(name, value);
            }
        }
        c.env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_CEILING_DIRECTORIES", self.dir.parent().unwrap_or(self.dir))
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C");
        for setting in CONFIG {
            c.args(["-c", setting]);
        }
        c.args(args)
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        c
    }

    async fn run(&self, args: &[&str]) -> Result<(), Error> {
        let address = shown(&self.what.address);
        let started = self.command(args).spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Unsupported(format!(
                "{address}: repositories are fetched by the program git, which is not installed on the node: install it, or clone the \
                 repository and build the directory"
            )),
            _ => Error::Failed(format!("git cannot be started: {e}")),
        })?;
        let mut group = Group(started);
        let failed = |e: std::io::Error| Error::Failed(format!("git: {e}"));
        let mut said = Vec::new();
        if let Some(stderr) = group.0.stderr.take() {
            stderr.take(MAX_SAID).read_to_end(&mut said).await.map_err(failed)?;
        }
        let status = group.0.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        // Git names the address as it was given.
        let said = String::from_utf8_lossy(&said).replace(&self.what.address, &address);
        Err(Error::Failed(format!(
            "the repository {address} cannot be fetched (git {}): {}",
            args.first().unwrap_or(&""),
            said.trim()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories() {
        for (text, is) in [
            ("https://h/x.git", true),
            ("https://h/x.git#main:dir", true),
            ("http://h/x.git?a=b", true),
            ("git://h/x", true),
            ("git@h:x", true),
            ("github.com/a/b", true),
            ("https://h/x.tar.gz", false),
            ("https://h/x#y.git", false),
            ("/x.git", false),
        ] {
            assert_eq!(is_repository(text), is, "{text}");
        }
        let of = |t: &str| Repository::parse(t).map(|r| (r.address, r.reference, r.subdir));
        let all = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(of("https://h/x.git").unwrap(), all("https://h/x.git", "", ""));
        assert_eq!(of("git://h/x#v1.0:a/b").unwrap(), all("git://h/x", "v1.0", "a/b"));
        assert_eq!(of("github.com/a/b#:d").unwrap(), all("https://github.com/a/b", "", "d"));
        for bad in [
            "git://h/x#--upload-pack=x",
            "git://h/x#a b",
            "git://h/x#a..b",
            "git://h/x#$(x)",
            "git://h/x y",
        ] {
            assert!(matches!(Repository::parse(bad), Err(Error::Invalid(_))), "{bad}");
        }
        let e = Repository::parse("ssh://me:secret@h/x").unwrap_err().to_string();
        assert!(e.contains("behind SSH") && !e.contains("secret"), "{e}");
    }
}
