//! Images come, get names, and go.

use super::daemon;

#[test]
fn save_load_tag_and_remove() {
    let d = daemon();
    let id = |name: &str| d.biga(&["image", "inspect", name]).ok();
    assert!(id("busybox").contains("sha256:"));
    let tar = d.path().join("saved.tar").display().to_string();
    d.biga(&["image", "save", "-o", &tar, "busybox"]).ok();
    d.biga(&["image", "tag", "busybox", "other:v1"]).ok();
    d.biga(&["image", "rm", "busybox"]).ok();
    assert_eq!(d.biga(&["run", "--rm", "other:v1", "echo", "still"]).ok(), "still");
    let missing = d.biga(&["run", "--rm", "--pull", "never", "busybox", "true"]);
    assert!(
        missing.code == 125 && missing.err.contains("not on this node"),
        "{missing:?}"
    );
    d.biga(&["image", "rm", "other:v1"]).ok();
    d.biga(&["image", "load", "-i", &tar]).ok();
    assert_eq!(d.biga(&["run", "--rm", "busybox", "echo", "back"]).ok(), "back");
    assert!(d.biga(&["image", "ls"]).ok().contains("busybox:latest"));
}
