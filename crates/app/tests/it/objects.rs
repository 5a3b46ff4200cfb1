//! Objects of any kind: get, apply, edit, delete.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::fake::Fake;

const MANIFEST: &str = "\
apiVersion: biga.dev/v1
kind: Volume
metadata: {name: data}
---
apiVersion: biga.dev/v1
kind: Instance
metadata:
  name: web
  labels: {tier: front}
spec:
  image: busybox
  hostname: one
  resources: {memory: 64Mi}
";

#[test]
fn files_are_applied_again_and_again() {
    let f = Fake::start();
    let d = f.biga_with(&["apply", "-f", "-"], MANIFEST.as_bytes()).code(0);
    assert_eq!(d.out, "volume/data created\ninstance/web created\n");
    let d = f.biga_with(&["apply", "-f", "-"], MANIFEST.as_bytes()).code(0);
    assert_eq!(d.out, "volume/data unchanged\ninstance/web unchanged\n");
    let changed = MANIFEST.replace("  hostname: one\n", "").replace("64Mi", "128Mi");
    let d = f.biga_with(&["apply", "-f", "-"], changed.as_bytes()).code(0);
    assert_eq!(d.out, "volume/data unchanged\ninstance/web configured\n");
    let spec = f.get("instances", "web").unwrap()["spec"].clone();
    assert_eq!(spec, json!({"image": "busybox", "resources": {"memory": "128Mi"}}));
    let file = f.dir().join("m.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    let d = f.biga(&["delete", "-f", file.to_str().unwrap()]).code(0);
    assert_eq!(d.out, "instance/web deleted\nvolume/data deleted\n");
    assert!(f.get("volumes", "data").is_none());
}

#[test]
fn bad_files_and_unknown_kinds_are_named() {
    let f = Fake::start();
    let d = f.biga_with(&["apply", "-f", "-"], b"kind: [").code(2);
    assert!(d.err.contains("standard input is neither YAML nor JSON"), "{d:?}");
    let d = f
        .biga_with(
            &["apply", "-f", "-"],
            b"{apiVersion: v9, kind: Pod, metadata: {name: x}}",
        )
        .code(3);
    assert!(d.err.contains("the daemon has no kind Pod in v9"), "{d:?}");
    let d = f.biga(&["apply", "-f", "/nonexistent.yaml"]).code(1);
    assert!(d.err.contains("cannot read /nonexistent.yaml"), "{d:?}");
}

#[test]
fn get_prints_tables_and_objects() {
    let f = Fake::start();
    f.running("web", json!({}));
    f.running("db", json!({"metadata": {"namespace": "lab"}}));
    assert_eq!(f.biga(&["get", "inst"]).code(0).out, "NAME   STATE\nweb    on\n");
    let d = f.biga(&["get", "instances", "-A", "-o", "wide"]).code(0);
    assert_eq!(
        d.out,
        "NAMESPACE   NAME   STATE   MORE\ndefault     web    on      detail\nlab         db     on      detail\n"
    );
    let v: Value = serde_json::from_str(&f.biga(&["get", "instance/web", "-o", "json"]).code(0).out).unwrap();
    assert_eq!(v["metadata"]["name"], "web");
    let yaml = f.biga(&["get", "instance", "web", "-o", "yaml"]).code(0).out;
    assert!(yaml.contains("name: web\n"), "{yaml}");
    assert_eq!(f.biga(&["get", "instances", "-o", "name"]).out, "instance/web\n");
    f.biga(&["get", "instance", "nope"]).code(3);
    assert_eq!(f.biga(&["get", "gadgets"]).code(0).err, "no gadgets found\n");
    let d = f.biga(&["get", "widgets"]).code(3);
    assert!(
        d.err
            .contains("there is no kind of resource \"widgets\": there are instances, gadgets"),
        "{d:?}"
    );
}

#[test]
fn delete_needs_to_know_which() {
    let f = Fake::start();
    f.running("web", json!({}));
    let d = f.biga(&["delete", "instances"]).code(2);
    assert!(d.err.contains("say which"), "{d:?}");
    f.biga(&["delete", "instance", "nope"]).code(3);
    f.biga(&["delete", "instance", "nope", "--ignore-not-found"]).code(0);
    assert_eq!(
        f.biga(&["delete", "instance/web"]).code(0).out,
        "instance/web deleted\n"
    );
}

#[test]
fn an_editor_changes_the_object() {
    let f = Fake::start();
    f.running("web", json!({}));
    let script = f.dir().join("editor.sh");
    std::fs::write(&script, "#!/bin/sh\nsed -i 's/busybox:latest/busybox:2/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edit = |editor: &str| {
        let mut c = f.command(&["edit", "instance", "web"]);
        c.env_remove("VISUAL").env("EDITOR", editor).env("TMPDIR", f.dir());
        crate::fake::Done::of(c.output().unwrap())
    };
    let d = edit(&format!("sh {}", script.display())).code(0);
    assert_eq!(d.out, "instance/web edited\n");
    assert_eq!(f.get("instances", "web").unwrap()["spec"]["image"], "busybox:2");
    let d = edit("true").code(0);
    assert_eq!(d.err, "nothing was changed\n");
    edit("false").code(1);
    let left: Vec<_> = std::fs::read_dir(f.dir())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("biga-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
