//! Where the probe looks: the roots of `/proc`, `/sys`, `/dev` and the search path, so that tests can show it other hosts.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that takes longer than this is taken for broken.
const PATIENCE: Duration = Duration::from_secs(20);
/// No answer the probe reads is longer than this.
const MAX_OUTPUT: u64 = 64 << 10;

/// The host's files and programs.
#[derive(Debug, Clone)]
pub struct Host {
    /// Prepended to every absolute path; `/` on a real host.
    pub root: PathBuf,
    /// Directories of programs, first match wins.
    pub path: Vec<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        let mut path: Vec<PathBuf> = std::env::var_os("PATH")
            .map(|p| std::env::split_paths(&p).collect())
            .unwrap_or_default();
        // A service manager's PATH may lack these.
        for dir in [
            "/usr/local/sbin",
            "/usr/local/bin",
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
        ] {
            let dir = PathBuf::from(dir);
            if !path.contains(&dir) {
                path.push(dir);
            }
        }
        Host {
            root: PathBuf::from("/"),
            path,
        }
    }
}

impl Host {
    /// `path` (absolute) under this host's root.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A small text file without its last newline, if it can be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        std::fs::File::open(self.at(path))
            .ok()?
            .take(MAX_OUTPUT)
            .read_to_string(&mut text)
            .ok()?;
        Some(text.trim_end().to_owned())
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The first program of that name in the search path; an absolute name is looked for under the root.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        if name.starts_with('/') {
            return Some(self.at(name)).filter(|p| is_program(p));
        }
        self.path.iter().map(|dir| dir.join(name)).find(|p| is_program(p))
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What a program said.
pub(super) struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The first line that holds anything, of errors before output.
    pub fn complaint(&self) -> String {
        let line = |s: &str| s.lines().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned);
        line(&self.stderr)
            .or_else(|| line(&self.stdout))
            .unwrap_or_else(|| "failed without a word".into())
    }
}

/// Runs a program with `input`, in the namespaces of the calling thread, and kills it when it takes too long.
pub(super) fn run(program: &Path, args: &[&str], input: &str) -> std::io::Result<Said> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may have closed it; its exit status tells what matters.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let mut nap = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(8));
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = match status {
        Some(_) => stderr.join().unwrap_or_default(),
        None => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    Ok(Said {
        success: status.is_some_and(|s| s.success()),
        stdout,
        stderr,
    })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let mut bounded = pipe.take(MAX_OUTPUT);
            let _ = bounded.read_to_end(&mut bytes);
            // Let the writer finish; what is beyond the bound is of no interest.
            let _ = std::io::copy(&mut bounded.into_inner(), &mut std::io::sink());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs `work` on a thread with fresh namespaces of its own, which vanish with the thread.
pub(super) fn apart<T: Send>(
    flags: rustix::thread::UnshareFlags,
    work: impl FnOnce() -> T + Send,
) -> Result<T, std::io::Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // Deprecated for the sake of `FILES`, which is never asked for here: the descriptor table stays shared.
            #[allow(deprecated)]
            rustix::thread::unshare(flags)?;
            Ok(work())
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the check itself failed")))
    })
}
