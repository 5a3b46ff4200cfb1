//! Debian's Podman, with our program as its runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Bundle, Runtime, until};

/// Podman with a store of its own.
struct Podman {
    bundle: Bundle,
    image: &'static str,
}

impl Podman {
    fn new() -> Podman {
        let bundle = Bundle::sh(Runtime::Ours, "true");
        let podman = Podman {
            bundle,
            image: "localhost/busybox:1",
        };
        let tar = podman.dir().join("rootfs.tar");
        let status = Command::new("tar")
            .arg("-C")
            .arg(podman.bundle.rootfs())
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        podman.ok(&["import", tar.to_str().unwrap(), podman.image]);
        podman
    }

    fn dir(&self) -> &Path {
        &self.bundle.dir
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.dir().join("store"))
            .arg("--runroot")
            .arg(self.dir().join("run"))
            .args([
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ])
            .args(["--runtime", env!("CARGO_BIN_EXE_biga-oci")])
            .args(args)
            .stdin(Stdio::null())
            .env("TMPDIR", self.dir())
            .env("CONTAINERS_CONF", self.conf());
        command
    }

    /// Settings that do not depend on the host's: a host may allow less than Podman takes for granted.
    fn conf(&self) -> PathBuf {
        let path = self.dir().join("containers.conf");
        let tmp = self.dir().join("tmp");
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:2048\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\nlock_type = \"file\"\ntmp_dir = {tmp:?}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn call(&self, args: &[&str]) -> Output {
        // Files and not pipes: what Podman leaves running would hold them open.
        let (out, err) = (self.dir().join("podman.out"), self.dir().join("podman.err"));
        let status = self
            .command(args)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .expect("podman is installed by scripts/setup");
        Output {
            status,
            stdout: fs::read(out).unwrap(),
            stderr: fs::read(err).unwrap(),
        }
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A container's control group, to know that our runtime made it.
    fn inspect(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(&self.ok(&["inspect", name])).unwrap();
        all[0].clone()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What is left of a failed test: containers, then mounts of the store.
        let _ = self.command(&["rm", "--all", "--force", "--time", "0"]).output();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.dir().to_string_lossy().into_owned();
        let mut mounts: Vec<&str> = table
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|p| p.starts_with(&own))
            .collect();
        mounts.reverse();
        for path in mounts {
            let _ = Command::new("umount").args(["-l", path]).output();
        }
    }
}

#[test]
fn podman_runs_containers_by_it() {
    let podman = Podman::new();
    let run = |args: &[&str]| podman.call(&[&["run", "--rm", "--network", "none"], args].concat());
    let out = run(&[
        "--hostname",
        "box",
        "-e",
        "A=b",
        podman.image,
        "sh",
        "-c",
        "hostname; echo $A; id -u; echo $$; grep Seccomp: /proc/self/status",
    ]);
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "box\nb\n0\n1\nSeccomp:\t2\n",
        "{out:?}"
    );
    let out = run(&[
        "--read-only",
        "--user",
        "7:8",
        "--memory",
        "64m",
        "--pids-limit",
        "20",
        podman.image,
        "sh",
        "-c",
        "id -u; id -g; touch /x || echo fixed",
    ]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "7\n8\nfixed\n", "{out:?}");
    assert_eq!(run(&[podman.image, "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(run(&[podman.image, "nothing"]).status.code(), Some(127));
    assert_eq!(run(&[podman.image, "/etc"]).status.code(), Some(126));
    let out = run(&[
        "--privileged",
        podman.image,
        "sh",
        "-c",
        "mount -t tmpfs x /tmp && echo mounted",
    ]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "mounted\n", "{out:?}");
    let data = podman.dir().join("data");
    fs::create_dir(&data).unwrap();
    let volume = format!("{}:/data:ro", data.display());
    let out = run(&[
        "-v",
        &volume,
        "--tmpfs",
        "/scratch",
        "--shm-size",
        "1m",
        podman.image,
        "sh",
        "-c",
        "touch /data/x || echo fixed; touch /scratch/x && echo ok",
    ]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "fixed\nok\n", "{out:?}");
}

#[test]
fn podman_keeps_one_running() {
    let podman = Podman::new();
    let name = format!("c{}", std::process::id());
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    podman.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        &name,
        podman.image,
        "sh",
        "-c",
        script,
    ]);
    assert!(
        podman.inspect(&name)["OCIRuntime"]
            .as_str()
            .unwrap()
            .ends_with("biga-oci")
    );
    until("its output", || {
        podman.ok(&["logs", &name]).contains("up").then_some(())
    });
    assert_eq!(
        podman.ok(&["exec", "-w", "/etc", "-u", "5", &name, "sh", "-c", "pwd; id -u"]),
        "/etc\n5\n"
    );
    assert_eq!(
        podman.call(&["exec", &name, "sh", "-c", "exit 4"]).status.code(),
        Some(4)
    );
    assert_eq!(podman.call(&["exec", &name, "nothing"]).status.code(), Some(127));
    podman.ok(&["pause", &name]);
    assert_eq!(podman.inspect(&name)["State"]["Status"], "paused");
    podman.ok(&["unpause", &name]);
    assert!(podman.ok(&["top", &name]).contains("sleep"));
    podman.ok(&["stop", "-t", "60", &name]);
    let state = podman.inspect(&name)["State"].clone();
    assert_eq!(
        (&state["Status"], &state["ExitCode"]),
        (&"exited".into(), &3.into()),
        "{state}"
    );
    podman.ok(&["start", &name]);
    podman.ok(&["kill", &name]);
    until("its end", || {
        (podman.inspect(&name)["State"]["Status"] == "exited").then_some(())
    });
    podman.ok(&["rm", &name]);
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
}
