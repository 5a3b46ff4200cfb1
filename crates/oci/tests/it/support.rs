//! Bundles of busybox, and runtimes to run them by.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

const APPLETS: [&str; 44] = [
    "sh", "true", "false", "cat", "echo", "id", "ls", "sleep", "env", "pwd", "head", "wc", "kill", "hostname", "mount",
    "umount", "stat", "ps", "tty", "stty", "touch", "chmod", "ln", "mkdir", "readlink", "grep", "ip", "test", "printf",
    "mknod", "cut", "sort", "sed", "awk", "tr", "uname", "unshare", "mv", "rm", "rmdir", "date", "cp", "tail", "seq",
];

/// Which runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Ours,
    Runc,
}

/// Polls until it answers something.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(t) = probe() {
            return t;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A bundle, and what runs of it; everything goes when it is dropped.
pub struct Bundle {
    pub dir: PathBuf,
    pub id: String,
    pub config: Value,
    runtime: Runtime,
    _temp: tempfile::TempDir,
}

impl Bundle {
    /// A container that runs a shell script.
    pub fn sh(runtime: Runtime, script: &str) -> Bundle {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let temp = tempfile::Builder::new().prefix("oci").tempdir().unwrap();
        let dir = temp.path().to_owned();
        let id = format!(
            "bigatest-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let rootfs = dir.join("rootfs");
        for d in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(d)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let config = config(script, &id);
        Bundle {
            dir,
            id,
            config,
            runtime,
            _temp: temp,
        }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Value, &Path)) -> Bundle {
        let dir = self.dir.clone();
        change(&mut self.config, &dir);
        self
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A command of the runtime.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = match self.runtime {
            Runtime::Ours => env!("CARGO_BIN_EXE_biga-oci"),
            Runtime::Runc => "runc",
        };
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(args)
            .stdin(Stdio::null())
            .current_dir(&self.dir);
        command
    }

    /// Runs a command of the runtime.
    pub fn call(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().unwrap())
    }

    /// The same, and it must succeed. Output goes to files: a container left running would hold pipes open.
    pub fn must(&self, args: &[&str]) -> String {
        let (out, err) = (self.dir.join("out"), self.dir.join("err"));
        let status = self
            .command(args)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        let text = fs::read_to_string(&out).unwrap();
        assert!(
            status.success(),
            "{args:?}: {text}{}",
            fs::read_to_string(&err).unwrap()
        );
        text
    }

    /// Writes the configuration down.
    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).unwrap();
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Outcome {
        self.write();
        self.call(&["run", &self.id])
    }

    /// Starts it, and stays away.
    pub fn up(&self) -> &Bundle {
        self.write();
        self.must(&["run", "-d", &self.id]);
        self
    }

    /// What `state` says.
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.must(&["state", &self.id])).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u64 {
        self.state()["pid"].as_u64().unwrap()
    }

    /// Runs a shell script in it.
    pub fn exec(&self, script: &str) -> Outcome {
        self.call(&["exec", &self.id, "sh", "-c", script])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Of most there is nothing left.
        let _ = self.command(&["delete", "--force", &self.id]).output();
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    fn of(o: Output) -> Outcome {
        Outcome {
            code: o.status.code(),
            out: String::from_utf8_lossy(&o.stdout).into_owned(),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
        }
    }

    /// Its output; it must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its error output; it must have failed, with this word in it.
    pub fn refused(self, word: &str) -> String {
        assert_ne!(self.code, Some(0), "{self:?}");
        assert!(self.err.contains(word), "no {word:?} in {self:?}");
        self.err
    }
}

/// A plain configuration.
pub fn config(script: &str, id: &str) -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_DAC_OVERRIDE",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Adds a mount.
pub fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}
