//! The units of `dist/`, under a real systemd. It takes the names an installation has, so it is only for a machine that is thrown
//! away: `scripts/guest-suite` boots one and says so by `BIGA_GUEST_TESTS=machine`.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use biga_testkit::{Ran, eventually, images};

const UNIT: &str = "/etc/systemd/system/biga.service";
const SOCKET: &str = "/etc/systemd/system/biga.socket";

/// The service, installed; what it made goes with it.
struct Service {
    dir: tempfile::TempDir,
}

impl Service {
    fn install() -> Service {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_biga"), bin.join("biga")).unwrap();
        for unit in [UNIT, SOCKET] {
            let name = Path::new(unit).file_name().unwrap();
            let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../dist").join(name);
            let text = std::fs::read_to_string(source).unwrap();
            let text = text.replace("@PREFIX@", &dir.path().display().to_string());
            // A group that every system has.
            std::fs::write(unit, text.replace("@GROUP@", "adm")).unwrap();
        }
        run("systemctl", &["daemon-reload"]).ok();
        Service { dir }
    }

    fn biga(&self, args: &[&str]) -> Ran {
        run(self.dir.path().join("bin/biga").to_str().unwrap(), args)
    }

    fn pid_of(&self, name: &str) -> u32 {
        let text = self.biga(&["get", "instances", name, "-o", "json"]).ok();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["status"]["phase"], "Running", "{text}");
        object["status"]["pid"].as_u64().unwrap() as u32
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // As far as it goes: the machine is thrown away.
        let _ = self.biga(&["rm", "-f", "stays"]);
        let _ = run("systemctl", &["stop", "biga.socket", "biga.service"]);
        let _ = std::fs::remove_file(UNIT);
        let _ = std::fs::remove_file(SOCKET);
        let _ = run("systemctl", &["daemon-reload"]);
    }
}

fn run(program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).env_remove("BIGA_HOST");
    command.output().expect("start a program").into()
}

/// What the Docker API answers.
fn ping() -> String {
    let mut socket = UnixStream::connect("/run/biga/docker.sock").unwrap();
    socket
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.rsplit("\r\n\r\n").next().unwrap().into()
}

/// A property of the unit.
fn property(name: &str) -> String {
    run("systemctl", &["show", "-P", name, "biga"]).ok()
}

#[test]
fn the_unit_runs_under_systemd_and_containers_outlive_it() {
    if std::env::var("BIGA_GUEST_TESTS").as_deref() != Ok("machine") {
        eprintln!("this is no machine to be thrown away");
        return;
    }
    let s = Service::install();
    let verified = run("systemd-analyze", &["verify", UNIT, SOCKET]);
    assert_eq!((verified.code, verified.err.as_str()), (0, ""), "{verified:?}");

    // The socket alone starts the daemon, for the first client.
    run("systemctl", &["start", "biga.socket"]).ok();
    assert_eq!(property("ActiveState"), "inactive");
    let file = std::fs::metadata("/run/biga/docker.sock").unwrap();
    let adm = run("getent", &["group", "adm"]).ok();
    let adm: u32 = adm.split(':').nth(2).unwrap().parse().unwrap();
    assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o660, 0, adm));
    assert_eq!(ping(), "OK");
    assert_eq!(property("ActiveState"), "active");
    run("systemctl", &["stop", "biga"]).ok();
    assert_eq!(ping(), "OK", "it is started again");
    run("systemctl", &["stop", "biga.socket", "biga.service"]).ok();
    // So many starts in a row are refused otherwise.
    run("systemctl", &["reset-failed", "biga"]).ok();

    // It comes back when the daemon says that it is ready, and not before.
    run("systemctl", &["start", "biga"]).ok();
    s.biga(&["ps"]).ok();
    assert_eq!(property("ActiveState"), "active");
    let tar = images::busybox_tar(s.dir.path());
    s.biga(&["image", "import", tar.to_str().unwrap(), "busybox"]).ok();
    let limits = ["-m", "64M", "--cpus", "0.5", "--network", "none"];
    s.biga(
        &[
            &["run", "-d", "--name", "stays"][..],
            &limits,
            &["busybox", "sleep", "100000"],
        ]
        .concat(),
    )
    .ok();
    let pid = s.pid_of("stays");
    let unchanged = |after: &str| {
        assert_eq!(s.pid_of("stays"), pid, "after {after}");
        assert_eq!(s.biga(&["exec", "stays", "echo", "on"]).ok(), "on", "after {after}");
        let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = Path::new("/sys/fs/cgroup").join(group.trim().trim_start_matches("0::/"));
        let read =
            |name: &str| std::fs::read_to_string(group.join(name)).unwrap_or_else(|e| panic!("{after}: {name}: {e}"));
        assert_eq!(
            (read("memory.max"), read("cpu.max")),
            ("67108864\n".into(), "50000 100000\n".into()),
            "after {after}"
        );
    };
    unchanged("its start");
    run("systemctl", &["daemon-reload"]).ok();
    unchanged("systemd read its units again");
    run("systemctl", &["restart", "biga"]).ok();
    unchanged("a restart of the daemon");

    // One that dies is started again.
    let daemon = property("MainPID");
    run("kill", &["-KILL", &daemon]).ok();
    eventually("a new daemon", || {
        let now = property("MainPID");
        (now != "0" && now != daemon && s.biga(&["ps"]).code == 0).then_some(())
    });
    assert_eq!(property("NRestarts"), "1");
    unchanged("a crash of the daemon");

    // Stopped, it leaves what runs and where it is reached.
    run("systemctl", &["stop", "biga"]).ok();
    assert_eq!(
        (property("ActiveState"), property("Result")),
        ("inactive".into(), "success".into())
    );
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(Path::new("/run/biga/instances").is_dir());
    run("systemctl", &["start", "biga"]).ok();
    unchanged("a stop and a start");

    s.biga(&["rm", "-f", "stays"]).ok();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
