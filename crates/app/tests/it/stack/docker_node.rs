//! dockerode, Docker's client for Node.

use std::path::PathBuf;
use std::process::Command;

use super::daemon;
use super::docker::socket;

/// The versions that are tried.
const PACKAGES: [&str; 2] = ["dockerode@5.0.1", "tar-stream@2.2.0"];

/// A directory with the packages: made once for all tests of this tree.
fn modules() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dockerode");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let (done, wanted) = (dir.join("done"), PACKAGES.join("\n"));
    if std::fs::read_to_string(&done).is_ok_and(|has| has == wanted) {
        return Some(dir);
    }
    let install = [
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--fetch-retries=1",
        "--prefix",
    ];
    let mut npm = Command::new("npm");
    npm.args(install).arg(&dir).args(PACKAGES);
    if !npm.output().is_ok_and(|o| o.status.success()) {
        println!("no Node here, or npm's registry is not to be had: dockerode is not tried");
        return None;
    }
    std::fs::write(&done, wanted).unwrap();
    Some(dir)
}

#[test]
fn dockerode_does_its_work() {
    let Some(dir) = modules() else { return };
    let d = daemon();
    let script = d.path().join("dockerode.js");
    std::fs::write(&script, include_str!("clients/dockerode.js")).unwrap();
    let mut c = d.host_command(&["timeout", "200", "node", &script.display().to_string()]);
    let ran = c
        .env("DOCKER_HOST", format!("unix://{}", socket(&d)))
        .env("NODE_PATH", dir.join("node_modules"))
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    d.until_clean();
}
