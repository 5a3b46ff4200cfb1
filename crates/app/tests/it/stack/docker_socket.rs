//! How Docker's clients come in: sockets that the service manager passes (`sd_listen_fds(3)`), contexts of Docker's command line.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use biga_testkit::{Daemon, Ran, eventually};

use super::docker::{has_docker, socket};

const BIGA: &str = env!("CARGO_BIN_EXE_biga");

/// A program that starts biga, and `biga serve` with the descriptor `fd` as a service manager passes it.
fn passing(dir: &Path, fd: RawFd) -> PathBuf {
    let script = format!(
        r#"#!/bin/bash
if [ "$1" = serve ]; then
    exec 3<&{fd}
    [ {fd} = 3 ] || exec {fd}<&-
    export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=biga.socket
fi
exec {BIGA} "$@"
"#
    );
    let path = dir.join("passing");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Children of this test have it, too.
fn inherit(fd: &impl std::os::fd::AsFd) {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
}

fn ask(path: &Path) -> UnixStream {
    let mut s = UnixStream::connect(path).unwrap();
    s.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .unwrap();
    s
}

fn answer(mut s: UnixStream) -> String {
    let mut text = String::new();
    s.read_to_string(&mut text).unwrap();
    text.rsplit("\r\n\r\n").next().unwrap().into()
}

#[test]
fn a_passed_socket_is_served_and_stays_when_the_daemon_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given.sock");
    let listener = UnixListener::bind(&path).unwrap();
    inherit(&listener);
    let program = passing(dir.path(), listener.as_raw_fd());
    let mut d = Daemon::start(program.to_str().unwrap());
    d.import_busybox();
    assert_eq!(answer(ask(&path)), "OK");
    assert!(!Path::new(&socket(&d)).exists(), "and no other one is made");

    // What the daemon starts neither has it nor hears of it.
    d.biga(&[
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "none",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let main = d.field("one", &["status", "pid"]);
    let stat = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap();
    let shim = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap();
    let environ = std::fs::read(format!("/proc/{shim}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("LISTEN_"), "{environ:?}");
    let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
    for fd in std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten() {
        let to = std::fs::read_link(fd.path()).unwrap_or_default();
        assert_ne!(to.to_string_lossy(), format!("socket:[{inode}]"));
    }

    // Who comes while it is away waits, and is answered.
    d.terminate();
    assert!(path.exists());
    let waiting = ask(&path);
    d.serve();
    assert_eq!(answer(waiting), "OK");
    d.kill();
    let waiting = ask(&path);
    d.serve();
    assert_eq!(answer(waiting), "OK");
    d.biga(&["rm", "-f", "one"]).ok();
    d.until_clean();
}

#[test]
fn a_named_socket_is_served_beside_a_passed_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given.sock");
    let listener = UnixListener::bind(&path).unwrap();
    inherit(&listener);
    let program = passing(dir.path(), listener.as_raw_fd());
    let named = dir.path().join("named.sock");
    let args = |p: &Path| vec!["--docker-socket".to_string(), p.display().to_string()];
    let d = Daemon::start_with(program.to_str().unwrap(), |_| args(&named));
    assert_eq!((answer(ask(&path)), answer(ask(&named))), ("OK".into(), "OK".into()));
    drop(d);
    // The one is the manager's, also by its own name.
    let d = Daemon::start_with(program.to_str().unwrap(), |_| args(&path));
    assert_eq!(answer(ask(&path)), "OK");
    drop(d);
    assert!(path.exists());
}

/// `biga serve`, which has to end by itself.
fn refused(program: &Path, dir: &Path, args: &[&str]) -> Ran {
    let (state, run) = (dir.join("state"), dir.join("run"));
    let mut c = Command::new(program);
    c.args(["serve", "--tls-listen", "none", "--prefix", "trefused"]);
    c.arg("--state").arg(&state).arg("--run").arg(&run).args(args);
    let ran: Ran = c.stdin(Stdio::null()).output().unwrap().into();
    assert_ne!(ran.code, 0, "{ran:?}");
    // Before it made anything on the host.
    assert!(!run.exists(), "{ran:?}");
    ran
}

#[test]
fn what_is_passed_and_does_not_listen_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (end, _other) = UnixStream::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    inherit(&end);
    inherit(&tcp);
    inherit(&file);
    for fd in [end.as_raw_fd(), tcp.as_raw_fd(), file.as_raw_fd()] {
        let ran = refused(&passing(dir.path(), fd), dir.path(), &[]);
        assert!(ran.err.contains("descriptor 3 is no listening unix"), "{ran:?}");
    }
}

#[test]
fn no_docker_api_and_a_socket_for_it_is_a_contradiction() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("given.sock")).unwrap();
    inherit(&listener);
    let program = passing(dir.path(), listener.as_raw_fd());
    let ran = refused(&program, dir.path(), &["--docker-socket", "none"]);
    assert!(ran.err.contains("stop biga.socket"), "{ran:?}");
}

#[test]
fn systemds_own_tool_starts_it_for_the_first_client() {
    let tool = "/usr/bin/systemd-socket-activate";
    if !Path::new(tool).exists() {
        println!("no {tool} here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given.sock");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = serve ] || exec {BIGA} \"$@\"\nexec {tool} -l {} {BIGA} \"$@\"\n",
        path.display()
    );
    let program = dir.path().join("activating");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let first = std::thread::spawn(move || {
        eventually("the socket", || {
            std::fs::symlink_metadata(&path)
                .ok()
                .filter(|m| m.file_type().is_socket())
        });
        answer(ask(&path))
    });
    let d = Daemon::start(program.to_str().unwrap());
    assert_eq!(first.join().unwrap(), "OK");
    assert!(!Path::new(&socket(&d)).exists());
}

#[test]
fn the_socket_is_for_root_and_a_group() {
    let d = Daemon::start(BIGA);
    let file = std::fs::metadata(socket(&d)).unwrap();
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let id = |name: &str| {
        let mut of = groups.lines().map(|l| l.split(':').collect::<Vec<_>>());
        of.find(|f| f[0] == name).map(|f| f[2].parse::<u32>().unwrap())
    };
    let group = id("docker").or(id("biga")).unwrap_or(0);
    assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o660, 0, group));
}

#[test]
fn a_context_is_made_without_docker_and_understood_by_it() {
    let mut d = Daemon::start(BIGA);
    let config = d.path().join("with contexts");
    let env = format!("DOCKER_CONFIG={}", config.display());
    let program = BIGA;
    let host = format!("BIGA_HOST=unix://{}", d.run_root().join("api.sock").display());
    // No docker in its PATH.
    let biga = |d: &Daemon, args: &[&str]| {
        d.host(
            &[
                &["env", &env, &host, "PATH=/nonexistent", program, "docker-context"],
                args,
            ]
            .concat(),
        )
    };
    let docker = |d: &Daemon, args: &[&str]| d.host(&[&["env", "-u", "DOCKER_HOST", &env, "docker"], args].concat());

    assert_eq!(biga(&d, &["--create"]).ok(), "biga");
    let all = std::fs::read_dir(config.join("contexts/meta")).unwrap().count();
    assert_eq!(
        (all, config.join("config.json").exists()),
        (1, false),
        "it is not used yet"
    );
    std::fs::write(config.join("config.json"), r#"{"auths":{"r.example":{"auth":"YTpi"}}}"#).unwrap();
    assert_eq!(biga(&d, &["--use", "--name", "other"]).ok(), "other");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(config.join("config.json")).unwrap()).unwrap();
    assert_eq!(file["currentContext"], "other");
    assert_eq!(
        file["auths"]["r.example"]["auth"], "YTpi",
        "what else is in the file stays"
    );
    let told = d.host(&[
        "env",
        &env,
        &host,
        "DOCKER_HOST=tcp://x:1",
        program,
        "docker-context",
        "--use",
    ]);
    assert!(told.err.contains("unset DOCKER_HOST"), "{told:?}");
    assert_eq!(told.ok(), "biga");
    for name in ["default", "../x", "x"] {
        assert_eq!(biga(&d, &["--create", "--name", name]).code, 2, "{name}");
    }

    if has_docker() {
        let list = docker(
            &d,
            &[
                "context",
                "ls",
                "--format",
                "{{.Name}} {{.Current}} {{.DockerEndpoint}}",
            ],
        )
        .ok();
        let at = format!("unix://{}", socket(&d));
        assert_eq!(
            list.lines().collect::<Vec<_>>(),
            [
                format!("biga true {at}"),
                "default false unix:///var/run/docker.sock".into(),
                format!("other false {at}")
            ]
        );
        assert_eq!(docker(&d, &["version", "-f", "{{.Server.Platform.Name}}"]).ok(), "Biga");
        docker(&d, &["context", "update", "biga", "--description", "mine"]).ok();
        biga(&d, &["--create"]).ok();
        let told = docker(&d, &["context", "ls", "--format", "{{.Name}} {{.Description}}"]).ok();
        assert!(told.lines().any(|l| l == "biga mine"), "{told}");
        docker(&d, &["context", "use", "default"]).ok();
        docker(&d, &["context", "rm", "biga", "other"]).ok();
    }
    d.terminate();
}
