//! A stock kubectl against the TLS port.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::stack::{INSTANCES, PATIENCE, Stack};

const MANIFEST: &str = "apiVersion: biga.dev/v1\nkind: Instance\nmetadata:\n  name: web\n  labels:\n    app: web\nspec:\n  image: busybox\n  power: Running\n";

struct Kubectl {
    program: PathBuf,
    dir: PathBuf,
}

/// kubectl where it is installed. These tests need it and say so where it is missing.
fn installed() -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|d| d.join("kubectl"))
        .find(|p| p.exists());
    if found.is_none() {
        eprintln!("kubectl is not installed: nothing is tested against it");
    }
    found
}

impl Kubectl {
    fn new(s: &Stack, program: &Path) -> Kubectl {
        let id = s.pki.issue_client_cert("tester", &["biga:admins"]).unwrap();
        let config = s.pki.kubeconfig(&format!("https://{}", s.tls), "tester", &id);
        std::fs::write(s.dir.path().join("config"), config).unwrap();
        Kubectl {
            program: program.into(),
            dir: s.dir.path().into(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.program);
        c.args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.dir)
            .env("KUBECONFIG", self.dir.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        c
    }

    async fn output(&self, args: &[&str]) -> std::process::Output {
        tokio::time::timeout(PATIENCE * 2, self.command(args).output())
            .await
            .unwrap()
            .unwrap()
    }

    async fn ok(&self, args: &[&str]) -> String {
        let o = self.output(args).await;
        assert!(
            o.status.success(),
            "kubectl {args:?}: {}",
            String::from_utf8_lossy(&o.stderr)
        );
        String::from_utf8(o.stdout).unwrap()
    }

    async fn fails(&self, args: &[&str]) -> String {
        let o = self.output(args).await;
        assert!(
            !o.status.success(),
            "kubectl {args:?} succeeded: {}",
            String::from_utf8_lossy(&o.stdout)
        );
        String::from_utf8(o.stderr).unwrap()
    }

    async fn apply(&self, text: &str, more: &[&str]) -> String {
        let mut args = vec!["apply", "-f", "-"];
        args.extend(more);
        let mut child = self.command(&args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
        let o = tokio::time::timeout(PATIENCE * 2, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
}

/// Writes a status as the agent does.
async fn set_phase(s: &Stack, phase: &str) {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let generation = &s.get(&format!("{INSTANCES}/web")).await.ok()["metadata"]["generation"];
    let status = json!({"status": {"phase": phase, "observedGeneration": generation, "conditions": ready}});
    s.merge(&format!("{INSTANCES}/web/status"), &status).await.ok();
}

async fn reading(s: &Stack, k: &Kubectl) {
    let resources = k.ok(&["api-resources", "--no-headers"]).await;
    for kind in ["instances", "images", "volumes", "networks", "nodes", "events"] {
        assert!(
            resources
                .lines()
                .any(|l| l.starts_with(kind) && l.contains("biga.dev/v1")),
            "{resources}"
        );
    }
    set_phase(s, "Running").await;
    let narrow = k.ok(&["get", "instances"]).await;
    let heading = narrow.lines().next().unwrap();
    assert!(
        heading.starts_with("NAME") && heading.contains("ISOLATION") && !heading.contains("UID"),
        "{narrow}"
    );
    assert!(narrow.lines().nth(1).unwrap().starts_with("web"), "{narrow}");
    assert!(k.ok(&["get", "inst", "-A"]).await.starts_with("NAMESPACE"));
    let wide = k.ok(&["get", "inst", "web", "-o", "wide"]).await;
    assert!(wide.contains("UID") && wide.contains("ACCELERATOR"), "{wide}");
    assert_eq!(
        k.ok(&["get", "inst", "-o", "name"]).await.trim(),
        "instance.biga.dev/web"
    );
    let json: Value = serde_json::from_str(&k.ok(&["get", "inst", "web", "-o", "json"]).await).unwrap();
    assert_eq!(json["spec"]["image"], "busybox");
    assert!(
        k.ok(&["get", "inst", "web", "-o", "yaml"])
            .await
            .contains("image: busybox")
    );
    let uid = &json["metadata"]["uid"];
    let started = json!({"metadata": {"generateName": "web."}, "spec": {"reason": "Started", "message": "it runs",
        "regarding": {"kind": "Instance", "namespace": "default", "name": "web", "uid": uid}}});
    s.post("/apis/biga.dev/v1/namespaces/default/events", &started)
        .await
        .ok();
    let described = k.ok(&["describe", "inst", "web"]).await;
    assert!(
        described.contains("API Version:  biga.dev/v1") && described.contains("busybox"),
        "{described}"
    );
    let (_, events) = described.split_once("\nEvents:").unwrap();
    assert!(events.contains("Started") && events.contains("it runs"), "{described}");
    assert!(k.ok(&["get", "inst", "-l", "app in (web)"]).await.contains("web"));
    assert!(
        !k.ok(&["get", "inst", "-l", "app!=web", "-o", "name"])
            .await
            .contains("web")
    );
    assert!(
        k.ok(&[
            "get",
            "inst",
            "--field-selector",
            "metadata.name=web,status.phase=Running"
        ])
        .await
        .contains("web")
    );
    assert!(k.fails(&["get", "inst", "none"]).await.contains("\"none\" not found"));
    assert!(k.ok(&["version"]).await.contains("+biga."));
}

async fn writing(s: &Stack, k: &Kubectl) {
    assert_eq!(
        k.apply(MANIFEST, &["--validate=false"]).await.trim(),
        "instance.biga.dev/web unchanged"
    );
    let changed = MANIFEST.replace("power: Running", "power: Stopped");
    assert_eq!(
        k.apply(&changed, &["--validate=false"]).await.trim(),
        "instance.biga.dev/web configured"
    );
    let get = || async { s.get(&format!("{INSTANCES}/web")).await.ok() };
    assert_eq!(get().await["spec"]["power"], "Stopped");
    k.ok(&["label", "inst", "web", "tier=front"]).await;
    k.ok(&["annotate", "inst", "web", "note=hello"]).await;
    k.ok(&[
        "patch",
        "inst",
        "web",
        "--type=merge",
        "-p",
        r#"{"spec":{"hostname":"h1"}}"#,
    ])
    .await;
    k.ok(&[
        "patch",
        "inst",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/hostname","value":"h2"}]"#,
    ])
    .await;
    let o = get().await;
    assert_eq!(
        (
            &o["metadata"]["labels"]["tier"],
            &o["metadata"]["annotations"]["note"],
            &o["spec"]["hostname"]
        ),
        (&json!("front"), &json!("hello"), &json!("h2"))
    );
    let editor = k.dir.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/hostname: h2/hostname: h3/' \"$1\"\n").unwrap();
    let edit = format!("sh {}", editor.display());
    let mut c = k.command(&["edit", "inst", "web", "--validate=false"]);
    let o = tokio::time::timeout(PATIENCE * 2, c.env("KUBE_EDITOR", edit).output())
        .await
        .unwrap()
        .unwrap();
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
    assert_eq!(get().await["spec"]["hostname"], "h3");
}

async fn waiting(s: &Stack, k: &Kubectl) {
    set_phase(s, "Running").await;
    k.ok(&["wait", "inst/web", "--for=condition=Ready", "--timeout=60s"])
        .await;
    let mut watch = k.command(&["get", "inst", "web", "-w", "-o", "name"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let next = tokio::time::timeout(PATIENCE * 2, lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.unwrap(), "instance.biga.dev/web");
    set_phase(s, "Paused").await;
    let next = tokio::time::timeout(PATIENCE * 2, lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.unwrap(), "instance.biga.dev/web");
    watch.kill().await.unwrap();
    // The agent's part of the removal, once it was asked for.
    let remove = async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let o = s.get(&format!("{INSTANCES}/web")).await.ok();
            if o["metadata"]["deletionTimestamp"].is_string() {
                break s
                    .merge(&format!("{INSTANCES}/web"), &json!({"metadata": {"finalizers": null}}))
                    .await
                    .ok();
            }
            assert!(tokio::time::Instant::now() < deadline, "no deletion was asked for");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let args = ["delete", "inst", "web", "--timeout=60s"];
    let (deleted, _) = tokio::join!(k.ok(&args), remove);
    assert!(deleted.contains("\"web\" deleted"), "{deleted}");
    // Old ones report what is gone already as an error.
    let gone = k.output(&["wait", "inst/web", "--for=delete", "--timeout=60s"]).await;
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(
        gone.status.success() || said.contains("no matching resources found"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installed_kubectl() {
    let Some(program) = installed() else { return };
    let s = Stack::start().await;
    let k = Kubectl::new(&s, &program);
    assert_eq!(
        k.apply(MANIFEST, &[]).await.trim(),
        "instance.biga.dev/web created",
        "also with validation"
    );
    reading(&s, &k).await;
    writing(&s, &k).await;
    let typo = MANIFEST.replace("power: Running", "pwer: Running");
    std::fs::write(s.dir.path().join("typo.yaml"), typo).unwrap();
    let file = s.dir.path().join("typo.yaml");
    let refused = k.fails(&["apply", "-f", file.to_str().unwrap()]).await;
    assert!(refused.contains("unknown field \"spec.pwer\""), "{refused}");
    set_phase(&s, "Running").await;
    k.ok(&[
        "wait",
        "inst/web",
        "--for=jsonpath={.status.phase}=Running",
        "--timeout=60s",
    ])
    .await;
    let explained = k.ok(&["explain", "instances"]).await;
    assert!(explained.contains("KIND:       Instance"), "{explained}");
    waiting(&s, &k).await;
}

/// kubectl 1.20 of Debian, where the package archive can be reached.
async fn old_kubectl(dir: &Path) -> Option<PathBuf> {
    let script = "apt-get -o DPkg::Lock::Timeout=120 download kubernetes-client && dpkg -x kubernetes-client_*.deb .";
    let done = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .await
        .ok()?;
    let program = dir.join("usr/bin/kubectl");
    if !done.status.success() || !program.exists() {
        eprintln!("kubectl 1.20 cannot be downloaded: nothing is tested against it");
        return None;
    }
    Some(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_of_1_20() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = old_kubectl(dir.path()).await else {
        return;
    };
    let s = Stack::start().await;
    let k = Kubectl::new(&s, &program);
    assert_eq!(
        k.apply(MANIFEST, &[]).await.trim(),
        "instance.biga.dev/web created",
        "also with validation"
    );
    reading(&s, &k).await;
    writing(&s, &k).await;
    waiting(&s, &k).await;
}
