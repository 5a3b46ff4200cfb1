//! One daemon, with everything that is its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{eventually, images};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; 128+n after signal n.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    fn of(o: Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        let code = o.status.code().unwrap_or_else(|| 128 + o.status.signal().unwrap_or(0));
        Ran {
            code,
            out: text(o.stdout),
            err: text(o.stderr),
        }
    }

    /// Standard output of a command that must succeed, without the last newline.
    ///
    /// # Panics
    /// Where it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "exit code {}: {}{}", self.code, self.out, self.err);
        self.out.trim_end_matches('\n').to_string()
    }
}

impl From<Output> for Ran {
    fn from(o: Output) -> Ran {
        Ran::of(o)
    }
}

/// A daemon of one test. Dropping it removes whatever it and its instances made.
pub struct Daemon {
    program: PathBuf,
    dir: tempfile::TempDir,
    netns: String,
    prefix: String,
    /// Further arguments of `serve`.
    more: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `program serve` in a network namespace of its own.
    ///
    /// # Panics
    /// Where it does not start; its log is in the message.
    pub fn start(program: &str) -> Daemon {
        Daemon::start_with(program, |_| Vec::new())
    }

    /// As [`Daemon::start`], with further arguments; `prepare` is given the directory for the test's files before.
    ///
    /// # Panics
    /// As [`Daemon::start`].
    pub fn start_with(program: &str, prepare: impl FnOnce(&Path) -> Vec<String>) -> Daemon {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{:x}{number}", std::process::id());
        let netns = format!("biga-test-{tag}");
        run("ip", &["netns", "add", &netns]);
        let dir = tempfile::Builder::new()
            .prefix("biga-test-")
            .tempdir()
            .expect("make a directory");
        let prefix = format!("t{}", &tag[tag.len().saturating_sub(6)..]);
        let mut d = Daemon {
            program: program.into(),
            dir,
            netns,
            prefix,
            more: Vec::new(),
            child: None,
        };
        d.more = prepare(d.dir.path());
        run("ip", &["-n", &d.netns, "link", "set", "lo", "up"]);
        // Trying KVM takes seconds of processor time and comes out the same for each of us.
        let _ = fs::create_dir_all(d.state());
        let _ = fs::copy(kvm_trial(), d.state().join("kvm-trial"));
        d.serve();
        d
    }

    /// Starts the daemon (again).
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn serve(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("open the log");
        let mut c = self.in_netns(&self.program);
        c.arg("serve")
            .arg("--state")
            .arg(self.state())
            .arg("--run")
            .arg(self.run_root());
        c.args([
            "--prefix",
            &self.prefix,
            "--tls-listen",
            "127.0.0.1:0",
            "--node-name",
            "test",
        ]);
        c.args(["--log-level", "info,biga_agent=debug"]).args(&self.more);
        // Nobody's own logins take part.
        c.env("DOCKER_CONFIG", self.dir.path().join("no-logins"));
        let log2 = log.try_clone().expect("clone the log");
        self.child = Some(
            c.stdin(Stdio::null())
                .stdout(log)
                .stderr(log2)
                .spawn()
                .expect("start the daemon"),
        );
        eventually("the daemon's first answer", || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            (self.biga(&["node", "ls"]).code == 0).then_some(())
        });
    }

    fn in_netns(&self, program: &Path) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/run/netns/{}", self.netns)).arg("--").arg(program);
        c
    }

    /// The state root.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The run root.
    pub fn run_root(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// A directory for the test's own files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// First part of its names in the kernel.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The command line against this daemon, ready to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = self.in_netns(&self.program);
        c.env(
            "BIGA_HOST",
            format!("unix://{}", self.run_root().join("api.sock").display()),
        );
        c.env("DOCKER_CONFIG", self.dir.path().join("no-logins"));
        c.env("NO_COLOR", "1").args(args).stdin(Stdio::null());
        c
    }

    /// Runs the command line.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn biga(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("start biga"))
    }

    /// Runs the command line with something on its standard input.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn biga_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut c = self.command(args);
        c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = c.spawn().expect("start biga");
        let mut stdin = child.stdin.take().expect("its input");
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ran = Ran::of(child.wait_with_output().expect("biga ends"));
        let _ = feeding.join();
        ran
    }

    /// Another program of the host in the daemon's network, ready to be started.
    pub fn host_command(&self, args: &[&str]) -> Command {
        let mut c = self.in_netns(Path::new(args[0]));
        c.args(&args[1..]).stdin(Stdio::null());
        c
    }

    /// The daemon's network namespace, as a file.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    /// Runs another program of the host in the daemon's network.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn host(&self, args: &[&str]) -> Ran {
        let mut c = self.in_netns(Path::new(args[0]));
        Ran::of(
            c.args(&args[1..])
                .stdin(Stdio::null())
                .output()
                .expect("start a program"),
        )
    }

    /// Imports busybox as `busybox:latest`.
    ///
    /// # Panics
    /// Where that fails.
    pub fn import_busybox(&self) {
        let tar = images::busybox_tar(self.path());
        let config = self.path().join("config.json");
        fs::write(
            &config,
            r#"{"Cmd":["sh"],"Env":["PATH=/bin","FLAVOR=plain"],"WorkingDir":"/"}"#,
        )
        .expect("write");
        let (tar, config) = (tar.display().to_string(), config.display().to_string());
        self.biga(&["image", "import", "--config", &config, &tar, "busybox"])
            .ok();
    }

    /// One field of an instance, by a path of names, as text. Empty where it is not there.
    ///
    /// # Panics
    /// Where the instance does not exist.
    pub fn field(&self, instance: &str, path: &[&str]) -> String {
        let text = self.biga(&["get", "instances", instance, "-o", "json"]).ok();
        let mut v: &serde_json::Value = &serde_json::from_str(&text).expect("JSON");
        for p in path {
            v = &v[*p];
        }
        match v {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(s) => s.clone(),
            v => v.to_string(),
        }
    }

    /// Waits until an instance is in a phase.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn until_phase(&self, instance: &str, phase: &str) {
        eventually(&format!("{instance} {phase}"), || {
            (self.field(instance, &["status", "phase"]) == phase).then_some(())
        });
    }

    /// Kills the daemon with SIGKILL: its instances live on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("kill the daemon");
        child.wait().expect("reap the daemon");
    }

    /// Asks the daemon to end and waits for it.
    ///
    /// # Panics
    /// Where it does not run or does not end.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        run("kill", &["-TERM", &child.id().to_string()]);
        eventually("the daemon's end", || child.try_wait().expect("wait for the daemon"));
    }

    /// What of this daemon is still in the kernel: processes, mounts, control groups.
    pub fn leftovers(&self) -> Vec<String> {
        let dir = self.dir.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let text = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            let own = self
                .child
                .as_ref()
                .is_some_and(|c| entry.file_name() == *c.id().to_string());
            if text.contains(&dir) && !own {
                found.push(format!("process {} {text}", entry.file_name().to_string_lossy()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // The directory of layers itself is a mount point as long as the daemon lives.
        let (under, own) = (format!(" {dir}/run/"), format!(" {dir}/run/layers "));
        found.extend(
            mounts
                .lines()
                .filter(|l| l.contains(&under) && !l.contains(&own))
                .map(|l| format!("mount {l}")),
        );
        found.extend(self.cgroups().into_iter().map(|g| format!("cgroup {}", g.display())));
        found
    }

    /// Waits until nothing of this daemon's instances is left in the kernel.
    ///
    /// # Panics
    /// Where something stays; the message names it.
    pub fn until_clean(&self) {
        let mut last = Vec::new();
        let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("a clean kernel", || {
                last = self.leftovers();
                last.is_empty().then_some(())
            });
        }));
        assert!(
            clean.is_ok(),
            "left behind: {last:#?}\ninstances: {}",
            self.biga(&["ps", "-a"]).out
        );
    }

    /// Control groups of this daemon's instances.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(
            fs::read_dir("/sys/fs/cgroup")
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path()),
        );
        let inside = |r: PathBuf| fs::read_dir(r.join(&self.prefix)).into_iter().flatten().flatten();
        roots
            .into_iter()
            .flat_map(inside)
            .map(|e| e.path())
            .filter(|p| p.is_dir())
            .collect()
    }

    fn remove_all(&mut self) {
        if self.child.is_none() {
            let log = self.log_file();
            let _ = fs::remove_file(log);
            self.serve();
        }
        let names = self.biga(&["ps", "-aq"]).out;
        for name in names.lines() {
            self.biga(&["rm", "-f", name]);
        }
        self.terminate();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if fs::metadata(kvm_trial()).is_err() {
            let _ = fs::copy(self.state().join("kvm-trial"), kvm_trial());
        }
        // A panic in here would hide the test's own.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_all()));
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            let _ = c.wait();
        }
        for line in self.leftovers() {
            if let Some(pid) = line.strip_prefix("process ").and_then(|l| l.split(' ').next()) {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dir = self.dir.path().display().to_string();
        for l in mounts.lines().rev() {
            if let Some(at) = l.split(' ').nth(4).filter(|p| p.starts_with(&dir)) {
                let _ = Command::new("umount").args(["-l", at]).status();
            }
        }
        for g in self.cgroups() {
            let _ = fs::remove_dir(g);
        }
        for root in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(root.path().join(&self.prefix));
        }
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

/// Where the outcome of the trial of KVM is kept for the next test of this machine.
fn kvm_trial() -> PathBuf {
    std::env::temp_dir().join("biga-test-kvm-trial")
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().expect("start a program");
    assert!(status.success(), "{program} {args:?} failed");
}
