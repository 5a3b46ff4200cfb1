//! Images by tag, by digest and by platform, as Docker's users name them.

use biga_testkit::Daemon;

use super::daemon;
use super::docker::{docker, has_docker};
use super::registries::{HOST, Registry};

/// What Docker's engine API answers a plain request.
fn api(d: &Daemon, method: &str, path: &str) -> serde_json::Value {
    let socket = super::docker::socket(d);
    let url = format!("http://d/{path}");
    let text = d
        .host(&["curl", "-s", "-g", "-X", method, "--unix-socket", &socket, &url])
        .ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
}

/// Two tags of one repository, of two images.
fn two_tags(d: &Daemon) -> (String, String) {
    let (one, two) = (format!("{HOST}/team/app:1"), format!("{HOST}/team/app:2"));
    docker(d, &["tag", "busybox", &one]).ok();
    docker(d, &["run", "--name", "maker", "busybox", "touch", "/made"]).ok();
    docker(d, &["commit", "maker", &two]).ok();
    docker(d, &["rm", "maker"]).ok();
    docker(d, &["push", "-a", &format!("{HOST}/team/app")]).ok();
    (one, two)
}

#[test]
fn all_tags_are_pulled_at_once() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let registry = Registry::start(&d, "");
    let (one, two) = two_tags(&d);
    let repository = format!("{HOST}/team/app");
    docker(&d, &["rmi", &one, &two]).ok();
    let pulled = docker(&d, &["pull", "-a", &repository]).ok();
    for line in [
        "1: Pulling from team/app",
        "2: Pulling from team/app",
        &format!("Status: Downloaded newer image for {repository}"),
    ] {
        assert!(pulled.lines().any(|l| l.trim() == line), "{line}: {pulled}");
    }
    assert_eq!(pulled.matches("Digest: sha256:").count(), 2, "{pulled}");
    let tags = docker(&d, &["images", "--format", "{{.Tag}}", &repository]).ok();
    assert_eq!(
        tags.lines().collect::<std::collections::BTreeSet<_>>(),
        ["1", "2"].into()
    );
    let again = docker(&d, &["pull", "-a", &repository]).ok();
    assert!(
        again.contains(&format!("Status: Image is up to date for {repository}")),
        "{again}"
    );
    let missing = docker(&d, &["pull", "-a", &format!("{HOST}/team/absent")]);
    assert!(missing.code != 0 && missing.err.contains("absent"), "{missing:?}");
    drop(registry);
    d.until_clean();
}

#[test]
fn digests_name_images_everywhere() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let registry = Registry::start(&d, "");
    let (one, two) = two_tags(&d);
    let repository = format!("{HOST}/team/app");
    let inspect = |name: &str, format: &str| docker(&d, &["image", "inspect", "-f", format, name]).ok();
    let by_digest = inspect(&one, "{{index .RepoDigests 0}}");
    let digest = by_digest.split_once('@').unwrap().1.to_string();
    let id = inspect(&one, "{{.Id}}");
    docker(&d, &["rmi", &one, &two]).ok();

    let pulled = docker(&d, &["pull", &by_digest]).ok();
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert_eq!(inspect(&by_digest, "{{.Id}}"), id);
    assert!(!inspect(&by_digest, "{{json .RepoTags}}").contains("team/app"));
    let row = docker(
        &d,
        &[
            "images",
            "--digests",
            "--format",
            "{{.Repository}} {{.Tag}} {{.Digest}}",
            &repository,
        ],
    )
    .ok();
    assert_eq!(row, format!("{repository} <none> {digest}"));
    let ran = docker(&d, &["run", "--rm", "--pull", "never", &by_digest, "echo", "by digest"]).ok();
    assert_eq!(ran, "by digest");
    // With a tag beside the digest, the digest decides.
    let both = format!("{repository}:1@{digest}");
    assert_eq!(docker(&d, &["run", "--rm", &both, "echo", "both"]).ok(), "both");
    docker(&d, &["create", "--name", "user", &by_digest]).ok();
    assert_eq!(
        docker(&d, &["inspect", "-f", "{{.Config.Image}}", "user"]).ok(),
        by_digest
    );
    // The image has another name, so this one may go although it is used; the last one may not.
    assert_eq!(docker(&d, &["rmi", &by_digest]).ok(), format!("Untagged: {by_digest}"));
    docker(&d, &["pull", "-q", &by_digest]).ok();
    docker(&d, &["rmi", "busybox"]).ok();
    let used = docker(&d, &["rmi", &by_digest]);
    assert!(
        used.code != 0 && used.err.contains("is using its referenced image"),
        "{used:?}"
    );
    docker(&d, &["tag", &by_digest, "busybox"]).ok();
    docker(&d, &["rm", "user"]).ok();
    // A tag over it, and off again: what is untagged is told.
    docker(&d, &["tag", &by_digest, "mine:1"]).ok();
    assert_eq!(inspect("mine:1", "{{.Id}}"), id);
    let untagged = docker(&d, &["rmi", "mine:1"]).ok();
    assert!(
        untagged.starts_with("Untagged: mine:1\n") && !untagged.contains("Deleted"),
        "{untagged}"
    );
    let gone = docker(&d, &["rmi", &by_digest]).ok();
    assert!(gone.lines().any(|l| l == format!("Untagged: {by_digest}")), "{gone}");
    // The tag that `busybox` came by is there still, and so is the image.
    assert_eq!(inspect("busybox", "{{.Id}}"), id);
    let wrong = format!("{repository}@sha256:{}", "0".repeat(64));
    let missing = docker(&d, &["pull", &wrong]);
    assert!(
        missing.code != 0 && missing.err.contains("not in the registry"),
        "{missing:?}"
    );
    drop(registry);
    d.until_clean();
}

#[test]
fn manifests_and_platforms_are_told() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let tree = docker(&d, &["images", "--tree"]).ok();
    assert!(
        tree.contains("busybox:latest") && tree.contains("linux/amd64"),
        "{tree}"
    );
    docker(&d, &["create", "--name", "user", "busybox"]).ok();
    let all = api(&d, "GET", "v1.48/images/json?manifests=1");
    let one = &all[0]["Manifests"][0];
    assert_eq!(
        (&one["Kind"], &one["Available"]),
        (&"image".into(), &true.into()),
        "{all}"
    );
    assert_eq!(one["ImageData"]["Platform"]["architecture"], "amd64");
    assert_eq!(
        one["ImageData"]["Containers"].as_array().map(Vec::len),
        Some(1),
        "{one}"
    );
    assert!(
        one["Size"]["Total"].as_u64() > Some(0) && one["Size"]["Content"].as_u64() > Some(0),
        "{one}"
    );
    docker(&d, &["rm", "user"]).ok();

    let archive = d.path().join("saved.tar").display().to_string();
    docker(&d, &["save", "-o", &archive, "busybox"]).ok();
    let refused = docker(&d, &["load", "--platform", "linux/arm64", "-i", &archive]);
    assert!(
        refused.code != 0 && refused.err.contains("no image for linux/arm64; it has: linux/amd64"),
        "{refused:?}"
    );
    assert_eq!(
        docker(&d, &["load", "--platform", "linux/amd64", "-i", &archive]).ok(),
        "Loaded image: busybox:latest"
    );
    d.until_clean();
}

#[test]
fn a_prune_takes_what_its_filters_say() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let make = |label: &str, name: &str| {
        docker(&d, &["run", "--name", "maker", "busybox", "touch", &format!("/{name}")]).ok();
        let change = format!("LABEL of={label}");
        docker(&d, &["commit", "-c", &change, "maker", name]).ok();
        docker(&d, &["rm", "maker"]).ok();
    };
    make("a", "first");
    make("b", "second");
    make("d", "third");
    // One without a name.
    docker(&d, &["run", "--name", "maker", "busybox", "touch", "/c"]).ok();
    docker(&d, &["commit", "-c", "LABEL of=c", "maker"]).ok();
    docker(&d, &["rm", "maker"]).ok();
    assert_eq!(
        docker(&d, &["images", "-q", "-f", "dangling=true"])
            .ok()
            .lines()
            .count(),
        1
    );
    let kept = docker(&d, &["image", "prune", "-f", "--filter", "label=of=a"]).ok();
    assert_eq!(kept, "Total reclaimed space: 0B");
    let pruned = docker(&d, &["image", "prune", "-f"]).ok();
    assert!(pruned.contains("deleted: sha256:"), "{pruned}");
    assert_eq!(docker(&d, &["images", "-q", "-f", "dangling=true"]).ok(), "");
    assert_eq!(
        docker(&d, &["image", "prune", "-af", "--filter", "until=24h"]).ok(),
        "Total reclaimed space: 0B"
    );
    docker(&d, &["create", "--name", "user", "second"]).ok();
    let pruned = docker(&d, &["image", "prune", "-af", "--filter", "label!=of=d"]).ok();
    assert!(
        pruned.contains("untagged: first:latest") && !pruned.contains("second"),
        "{pruned}"
    );
    let names = docker(&d, &["images", "--format", "{{.Repository}}"]).ok();
    assert_eq!(
        names.lines().collect::<std::collections::BTreeSet<_>>(),
        ["second", "third"].into()
    );
    docker(&d, &["rm", "user"]).ok();
    d.until_clean();
}

#[test]
fn the_mountpoint_of_a_volume_is_there_at_once() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    for i in 0..20 {
        let name = format!("vol-{i}");
        docker(&d, &["volume", "create", &name]).ok();
        let path = docker(&d, &["volume", "inspect", "-f", "{{.Mountpoint}}", &name]).ok();
        assert!(std::path::Path::new(&path).is_dir(), "{name}: {path:?}");
    }
    // A volume that a container brings has one as soon as the container is made.
    docker(
        &d,
        &[
            "create",
            "--name",
            "user",
            "-v",
            "brought:/data",
            "-v",
            "/anonymous",
            "busybox",
        ],
    )
    .ok();
    let paths = docker(&d, &["inspect", "-f", "{{range .Mounts}}{{.Source}}\n{{end}}", "user"]).ok();
    let mut paths: Vec<&str> = paths.lines().filter(|l| !l.is_empty()).collect();
    let named = docker(&d, &["volume", "inspect", "-f", "{{.Mountpoint}}", "brought"]).ok();
    assert!(paths.contains(&named.as_str()), "{paths:?}");
    paths.push(&named);
    assert_eq!(paths.len(), 3, "{paths:?}");
    assert!(paths.iter().all(|p| std::path::Path::new(p).is_dir()), "{paths:?}");
    // A size needs a file system that counts.
    let refused = docker(&d, &["volume", "create", "-o", "size=10m", "counted"]);
    assert!(refused.code != 0 && refused.err.contains("size"), "{refused:?}");
    docker(&d, &["rm", "-v", "user"]).ok();
    d.until_clean();
}
