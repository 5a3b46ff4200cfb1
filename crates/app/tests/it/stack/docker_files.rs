//! `docker cp`, `diff`, `commit` and `export`, as a user types them.

use std::fs;

use super::daemon;
use super::docker::{docker, has_docker, socket};

#[test]
fn cp_both_ways() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let desk = d.path().join("desk");
    fs::create_dir_all(desk.join("tree/sub")).unwrap();
    fs::write(desk.join("tree/sub/file"), "content").unwrap();
    let at = |p: &str| desk.join(p).display().to_string();
    for (name, verb) in [("up", &["run", "-d"][..]), ("down", &["create"])] {
        docker(&d, &[verb, &["--name", name, "busybox", "sleep", "1000"]].concat()).ok();
        docker(&d, &["cp", &at("tree"), &format!("{name}:/tmp")]).ok();
        docker(&d, &["cp", &at("tree"), &format!("{name}:/tmp/new")]).ok();
        docker(&d, &["cp", &at("tree/."), &format!("{name}:/home")]).ok();
        docker(&d, &["cp", "-a", &at("tree/sub/file"), &format!("{name}:/etc/copied")]).ok();
        let back = at(name);
        fs::create_dir(&back).unwrap();
        for path in ["/tmp/tree", "/tmp/new", "/etc/copied", "/home/."] {
            docker(&d, &["cp", &format!("{name}:{path}"), &back]).ok();
        }
        docker(&d, &["cp", &format!("{name}:/tmp/tree"), &format!("{back}/renamed")]).ok();
        docker(
            &d,
            &["cp", &format!("{name}:/tmp/tree/sub/file"), &format!("{back}/one")],
        )
        .ok();
        for file in [
            "tree/sub/file",
            "new/sub/file",
            "copied",
            "sub/file",
            "renamed/sub/file",
            "one",
        ] {
            let path = desk.join(name).join(file);
            assert_eq!(
                fs::read_to_string(&path).unwrap_or_default(),
                "content",
                "{name} {file}"
            );
        }
        // A link is followed where that is asked for, inside the container.
        let script = "ln -s /etc/copied /tmp/link; ln -s /nowhere /tmp/broken";
        if name == "up" {
            docker(&d, &["exec", name, "sh", "-c", script]).ok();
            docker(
                &d,
                &["cp", "-L", &format!("{name}:/tmp/link"), &format!("{back}/followed")],
            )
            .ok();
            assert_eq!(fs::read_to_string(format!("{back}/followed")).unwrap(), "content");
            docker(&d, &["cp", &at("tree/sub/file"), &format!("{name}:/tmp/link")]).ok();
            assert_eq!(docker(&d, &["exec", name, "readlink", "/tmp/link"]).ok(), "/etc/copied");
        }
        let missing = docker(&d, &["cp", &format!("{name}:/none"), &back]);
        assert!(missing.code != 0 && missing.err.contains("/none"), "{missing:?}");
        let refused = docker(&d, &["cp", &at("tree"), &format!("{name}:/etc/passwd")]);
        assert!(
            refused.code != 0 && refused.err.contains("cannot copy directory"),
            "{refused:?}"
        );
        let refused = docker(&d, &["cp", &at("tree/sub/file"), &format!("{name}:/none/")]);
        assert!(refused.code != 0, "{refused:?}");
    }
    docker(&d, &["rm", "-f", "up", "down"]).ok();
    d.until_clean();
}

#[test]
fn diff_commit_and_export() {
    if !has_docker() {
        return;
    }
    let d = daemon();
    let script = "echo x > /new; rm /var/www/index.html; chmod 700 /home/app";
    let label = "two words";
    docker(
        &d,
        &[
            "run",
            "--name",
            "one",
            "--label",
            &format!("k={label}"),
            "busybox",
            "sh",
            "-c",
            script,
        ],
    )
    .ok();
    let mut diff: Vec<String> = docker(&d, &["diff", "one"]).ok().lines().map(Into::into).collect();
    diff.sort();
    let want = [
        "A /new",
        "C /home",
        "C /home/app",
        "C /var",
        "C /var/www",
        "D /var/www/index.html",
    ];
    assert_eq!(diff, want);
    let id = docker(
        &d,
        &[
            "commit",
            "-m",
            "why",
            "-a",
            "Ann",
            "-c",
            "CMD [\"cat\", \"/new\"]",
            "-c",
            "EXPOSE 80",
            "-c",
            "WORKDIR /home/app",
            "one",
            "made:v1",
        ],
    )
    .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(docker(&d, &["run", "--rm", "made:v1"]).ok(), "x");
    let format = "{{.Author}} {{.Comment}} {{.Config.WorkingDir}} {{index .Config.Labels \"k\"}}";
    assert_eq!(
        docker(&d, &["image", "inspect", "-f", format, "made:v1"]).ok(),
        format!("Ann why /home/app {label}")
    );
    let history = docker(&d, &["history", "--format", "{{.Comment}}", "made:v1"]).ok();
    assert_eq!(history.lines().next(), Some("why"), "{history}");
    // Without a name it gets one, so that it is kept.
    let unnamed = docker(&d, &["commit", "one"]).ok();
    assert_eq!(docker(&d, &["run", "--rm", &unnamed, "cat", "/new"]).ok(), "x");
    let bad = docker(&d, &["commit", "-c", "RUN x", "one", "bad:1"]);
    assert!(bad.code != 0 && bad.err.contains("RUN is not a change"), "{bad:?}");

    let tar = d.path().join("c.tar").display().to_string();
    docker(&d, &["export", "-o", &tar, "one"]).ok();
    let list = d.host(&["tar", "-tf", &tar]).ok();
    assert!(
        list.lines().any(|l| l == "new") && !list.contains("index.html"),
        "{list}"
    );
    docker(&d, &["import", &tar, "flat:1"]).ok();
    assert_eq!(docker(&d, &["run", "--rm", "flat:1", "cat", "/new"]).ok(), "x");
    docker(&d, &["rm", "one"]).ok();
    d.until_clean();
}

/// The calls as docker-py makes them, with answers that its users rely on.
#[test]
fn archive_by_http() {
    let d = daemon();
    d.biga(&[
        "run",
        "-d",
        "--name",
        "c",
        "--read-only",
        "--tmpfs",
        "/mem",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let api = socket(&d);
    let curl = |args: &[&str], path: &str| {
        let url = format!("http://d/v1.43/containers/c/{path}");
        let all = [
            &[
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--unix-socket",
                &api,
            ][..],
            args,
            &[&url],
        ];
        d.host(&all.concat()).ok()
    };
    let tar = d.path().join("x.tar").display().to_string();
    fs::write(d.path().join("f"), "x").unwrap();
    d.host(&["tar", "-C", &d.path().display().to_string(), "-cf", &tar, "f"])
        .ok();
    let noise = d.path().join("noise").display().to_string();
    fs::write(&noise, vec![7; 2000]).unwrap();
    for (args, path, want) in [
        (&["-I"][..], "archive?path=/etc", "200"),
        (&["-I"], "archive?path=/none", "404"),
        (&[], "archive?path=/none", "404"),
        (&[], "archive", "400"),
        (&["-T", &tar], "archive?path=/mem", "200"),
        (&["-T", &tar], "archive?path=/tmp", "403"),
        (&["-T", &tar], "archive?path=/none", "404"),
        (&["-T", &tar], "archive?path=/mem/f", "400"),
        (&["-T", &noise], "archive?path=/mem", "400"),
    ] {
        assert_eq!(curl(args, path), want, "{args:?} {path}");
    }
    let head = d
        .host(&[
            "curl",
            "-sI",
            "--unix-socket",
            &api,
            "http://d/containers/c/archive?path=/mem/f",
        ])
        .ok();
    let line = head
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("x-docker-container-path-stat:"));
    use base64::Engine;
    let json = line.unwrap().split_once(": ").unwrap().1.trim();
    let json = base64::engine::general_purpose::STANDARD.decode(json).unwrap();
    let stat: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&stat["name"], &stat["size"], &stat["linkTarget"]),
        (&"f".into(), &1.into(), &"".into())
    );
}
