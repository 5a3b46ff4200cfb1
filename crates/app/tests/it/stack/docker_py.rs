//! docker-py, Docker's own Python client, and what is built on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use biga_testkit::Daemon;

use super::daemon;
use super::registries::Registry;

/// The versions that are tried.
const REQUIREMENTS: [&str; 3] = ["docker==7.1.0", "websocket-client==1.9.2", "testcontainers==4.15.0"];

fn succeeds(c: &mut Command) -> bool {
    c.output().is_ok_and(|o| o.status.success())
}

/// A Python that has docker-py: of an environment of its own, made once for all tests of this tree.
fn python() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker-py");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let (venv, done) = (dir.join("venv"), dir.join("done"));
    let python = venv.join("bin/python");
    let wanted = REQUIREMENTS.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|has| has == wanted) {
        return Some(python);
    }
    let install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--retries",
        "1",
    ];
    let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        && succeeds(Command::new(&python).args(install).args(REQUIREMENTS));
    if !made {
        println!("PyPI is not to be had: its docker-py is not tried");
        return None;
    }
    std::fs::write(&done, wanted).unwrap();
    Some(python)
}

/// Debian's Python with Debian's docker-py, of another version.
fn debian_python() -> Option<PathBuf> {
    let python = PathBuf::from("/usr/bin/python3");
    let found = succeeds(Command::new(&python).args(["-c", "import docker, websocket"]));
    if !found {
        println!("no python3-docker on this host: it is not tried");
    }
    found.then_some(python)
}

/// Runs a script against a daemon to its end.
fn run(d: &Daemon, python: &Path, script: &str) {
    let file = d.path().join("script.py");
    std::fs::write(&file, script).unwrap();
    let base = include_str!("clients/docker_py_base.py");
    std::fs::write(d.path().join("docker_py_base.py"), base).unwrap();
    let python = python.display().to_string();
    let mut c = d.host_command(&["timeout", "220", &python, &file.display().to_string()]);
    let ran = c
        .env(
            "DOCKER_HOST",
            format!("unix://{}", d.run_root().join("docker.sock").display()),
        )
        .env("DOCKER_CONFIG", d.path().join("docker"))
        .env("HOME", d.path())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn docker_py_does_its_work() {
    let Some(python) = python().or_else(debian_python) else {
        return;
    };
    let d = daemon();
    run(&d, &python, include_str!("clients/docker_py.py"));
    d.until_clean();
}

/// Each public method.
fn whole_surface(python: &Path) {
    let d = daemon();
    // `secret` as bcrypt with the lowest cost that the registry takes.
    let hash = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let file = d.path().join("htpasswd");
    std::fs::write(&file, hash).unwrap();
    let auth = format!("auth:\n  htpasswd:\n    realm: x\n    path: {}\n", file.display());
    let registry = Registry::start(&d, &auth);
    run(&d, python, include_str!("clients/docker_py_surface.py"));
    drop(registry);
    d.until_clean();
}

#[test]
fn docker_py_7_has_its_whole_surface() {
    if let Some(python) = python() {
        whole_surface(&python);
    }
}

#[test]
fn docker_py_5_has_its_whole_surface() {
    if let Some(python) = debian_python() {
        whole_surface(&python);
    }
}

#[test]
fn testcontainers_for_python_run_and_clean_up() {
    let Some(python) = python() else { return };
    let d = daemon();
    run(&d, &python, include_str!("clients/testcontainers_py.py"));
    assert_eq!(d.biga(&["ps", "-aq"]).ok(), "", "the reaper leaves nothing");
    d.until_clean();
}
