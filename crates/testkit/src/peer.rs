//! The real engine: Debian's dockerd on a host of its own, to compare with.
//!
//! It runs in namespaces of network, mounts and processes. The first keeps its bridges and rules from the host's; the second is
//! where it mounts, and hides the few places it writes to without being asked (`/etc/docker`, `/opt/containerd`, `/run`); the third
//! makes its end the end of everything it started, even when the test is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Ran, eventually};

/// Where `scripts/setup-dockerd` puts it.
const ROOT: &str = "/usr/local/lib/docker-debian12";

/// Becomes process 1 of the namespaces. Arguments: its directory, the engine's root, dockerd's further arguments.
const ENTER: &str = r#"
set -e
dir=$1 root=$2
shift 2
mount --make-rprivate /
mount -t tmpfs engine "$dir/own"
for at in /etc /opt; do
    mkdir -p "$dir/own$at/upper" "$dir/own$at/work"
    mount -t overlay engine -o "lowerdir=$at,upperdir=$dir/own$at/upper,workdir=$dir/own$at/work" "$at"
done
mount -t tmpfs engine /run
mount --make-rshared /
export PATH="$root/usr/sbin:$root/usr/bin:$PATH"
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu" XTABLES_LIBDIR="$root/usr/lib/x86_64-linux-gnu/xtables"
exec docker-init -- dockerd "$@"
"#;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A dockerd of one test. Dropping it removes whatever it and its containers made.
pub struct Peer {
    dir: tempfile::TempDir,
    name: String,
    child: Option<Child>,
}

impl Peer {
    /// Starts it; nothing where this host has none, which is said.
    ///
    /// # Panics
    /// Where it is there and does not start; its log is in the message.
    pub fn start() -> Option<Peer> {
        if !Path::new(ROOT).join("usr/sbin/dockerd").is_file() {
            println!("no dockerd on this host (scripts/setup-dockerd brings it): nothing is compared with it");
            return None;
        }
        let name = format!(
            "biga-peer-{:x}{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::Builder::new()
            .prefix("biga-peer-")
            .tempdir()
            .expect("make a directory");
        let mut peer = Peer { dir, name, child: None };
        peer.serve();
        Some(peer)
    }

    fn serve(&mut self) {
        for args in [
            &["netns", "add", &self.name][..],
            &["-n", &self.name, "link", "set", "lo", "up"],
        ] {
            let status = Command::new("ip").args(args).status().expect("ip is installed");
            assert!(status.success(), "ip {}", args.join(" "));
        }
        fs::create_dir(self.path().join("own")).expect("make a directory");
        fs::write(self.path().join("daemon.json"), "{}").expect("write");
        let log = fs::File::create(self.log_file()).expect("make the log");
        let log2 = log.try_clone().expect("clone the log");
        let mut c = self.host_command(&[
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
        ]);
        c.args(["--kill-child", "--mount-proc", "sh", "-c", ENTER, "sh"])
            .arg(self.path())
            .arg(ROOT)
            .args(self.options());
        // Of the test, and not of who started it.
        c.env_remove("DOCKER_HOST").env_remove("NOTIFY_SOCKET");
        self.child = Some(c.stdout(log).stderr(log2).spawn().expect("start dockerd"));
        let socket = self.socket();
        eventually("dockerd's first answer", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            // The socket is there before the answers are.
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    fn options(&self) -> Vec<String> {
        let at = |name: &str| self.path().join(name).display().to_string();
        let program = |name: &str| format!("{ROOT}/usr/{name}");
        let pairs = [
            ("data-root", at("data")),
            ("exec-root", at("exec")),
            ("pidfile", at("dockerd.pid")),
            ("config-file", at("daemon.json")),
            ("host", format!("unix://{}", at("docker.sock"))),
            ("cgroup-parent", format!("/{}", self.name)),
            ("init-path", program("bin/docker-init")),
            ("userland-proxy-path", program("sbin/docker-proxy")),
        ];
        pairs.into_iter().map(|(k, v)| format!("--{k}={v}")).collect()
    }

    /// Its API.
    pub fn socket(&self) -> PathBuf {
        self.path().join("docker.sock")
    }

    /// A directory for the test's own files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What its namespace and its control groups are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program of the host in the engine's network, ready to be started.
    pub fn host_command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/run/netns/{}", self.name)).arg("--").args(args);
        c.stdin(Stdio::null());
        c
    }

    /// Runs a program of the host in the engine's network.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn host(&self, args: &[&str]) -> Ran {
        Ran::from(self.host_command(args).output().expect("start a program"))
    }

    fn log_file(&self) -> PathBuf {
        self.path().join("dockerd.log")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Control groups of its containers, outer ones first.
    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = roots
            .map(|e| e.path())
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|r| r.join(&self.name))
            .filter(|p| p.is_dir())
            .collect();
        let mut next = 0;
        while next < found.len() {
            let inside = fs::read_dir(&found[next]).into_iter().flatten().flatten();
            let inside: Vec<PathBuf> = inside.map(|e| e.path()).filter(|p| p.is_dir()).collect();
            found.extend(inside);
            next += 1;
        }
        found
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the end of dockerd's log:\n{}", tail.join("\n"));
        }
        // With its process 1 the kernel ends everything in the namespace, and with that its mounts go. Who waits for it, which
        // is our child, ends after all of that.
        if let Some(mut child) = self.child.take() {
            let pid = child.id();
            let first = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            match first.trim() {
                "" => drop(child.kill()),
                first => drop(Command::new("kill").args(["-KILL", first]).status()),
            }
            let _ = child.wait();
        }
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the end of dockerd's control groups", || {
                for group in self.cgroups().iter().rev() {
                    let _ = fs::remove_dir(group);
                }
                self.cgroups().is_empty().then_some(())
            });
        }));
        if gone.is_err() {
            eprintln!("left behind: {:?}", self.cgroups());
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_it() {
        let Some(peer) = Peer::start() else { return };
        let host = format!("unix://{}", peer.socket().display());
        let info = peer
            .host(&["curl", "-s", "--unix-socket", &host[7..], "http://d/info"])
            .ok();
        assert!(info.contains("20.10"), "{info}");
        let (dir, name) = (peer.path().to_path_buf(), peer.name.clone());
        drop(peer);
        assert!(!dir.exists());
        assert!(!Path::new("/run/netns").join(&name).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir.display().to_string()));
    }
}
