//! `biga oci` hands over to the runtime that it carries.

use std::os::unix::fs::symlink;
use std::process::Command;

const BIGA: &str = env!("CARGO_BIN_EXE_biga");

#[test]
fn it_is_the_runtime_by_verb_and_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("biga-oci");
    symlink(BIGA, &link).unwrap();
    let by_verb = Command::new(BIGA).args(["oci", "--version"]).output().unwrap();
    let by_name = Command::new(&link).arg("--version").output().unwrap();
    assert!(
        by_verb.status.success() && by_name.status.success(),
        "{by_verb:?} {by_name:?}"
    );
    assert!(String::from_utf8_lossy(&by_verb.stdout).starts_with("biga-oci version "));
    assert_eq!(by_verb.stdout, by_name.stdout);
}

#[test]
fn it_runs_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    let oci = |args: &[&str]| {
        let root = dir.path().join("state");
        Command::new(BIGA)
            .arg("oci")
            .arg("--root")
            .arg(root)
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap()
    };
    assert!(oci(&["spec"]).status.success());
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", "echo $$; exit 3"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let out = oci(&["run", &format!("bigatest-app-{}", std::process::id())]);
    assert_eq!(
        (out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()),
        (Some(3), "1\n"),
        "{out:?}"
    );
}
