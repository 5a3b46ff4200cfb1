//! docker-py, Docker's own Python client.

use std::path::PathBuf;
use std::process::Command;

use super::daemon;

/// The version that is tried.
const REQUIREMENTS: [&str; 2] = ["docker==7.1.0", "websocket-client==1.9.2"];
const SCRIPT: &str = include_str!("clients/docker_py.py");

/// A Python that has docker-py: of an environment of its own, made once for all tests of this tree, or the host's.
fn python() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker-py");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let (venv, done) = (dir.join("venv"), dir.join("done"));
    let python = venv.join("bin/python");
    let run = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
    if !done.exists() {
        let pip = || Command::new(&python);
        let install = [
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--retries",
            "1",
        ];
        let made =
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv)) && run(pip().args(install).args(REQUIREMENTS));
        if made {
            std::fs::write(&done, "").unwrap();
        }
    }
    if done.exists() {
        return Some(python);
    }
    // Debian's package, of another version.
    let host = run(Command::new("python3").args(["-c", "import docker, websocket"]));
    host.then(|| "python3".into())
}

#[test]
fn docker_py_does_its_work() {
    let Some(python) = python() else {
        println!("no docker-py: neither PyPI nor Debian's python3-docker is to be had, so it is not tried");
        return;
    };
    let d = daemon();
    let script = d.path().join("docker_py.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let host = format!("DOCKER_HOST=unix://{}", d.run_root().join("docker.sock").display());
    let (python, script) = (python.display().to_string(), script.display().to_string());
    let ran = d.host(&["env", &host, "timeout", "200", &python, &script]);
    assert!(ran.code == 0, "{}\n{}", ran.out, ran.err);
    d.until_clean();
}
