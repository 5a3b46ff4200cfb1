//! Containers made again from the document of another, as tools do that replace containers by newer ones.

use serde_json::{Value, json};

use crate::support::{Served, served};

/// What a document says that a copy has of its own.
const OWN: [&str; 8] = [
    "Id",
    "Name",
    "Created",
    "LogPath",
    "HostnamePath",
    "HostsPath",
    "ResolvConfPath",
    "NetworkSettings",
];

/// Makes a container with all that the document of another says, and compares both.
async fn copy(s: &Served, version: &str, of: &str) {
    let path = |name: &str| format!("/{version}/containers/{name}/json");
    let doc = s.get(&path(of)).await.must(200).json();
    let mut body = doc["Config"].clone();
    body["HostConfig"] = doc["HostConfig"].clone();
    body["NetworkingConfig"] = json!({"EndpointsConfig": doc["NetworkSettings"]["Networks"]});
    let name = format!("{of}-{version}");
    let made = s.post(&format!("/{version}/containers/create?name={name}"), body).await;
    assert_eq!(made.status, 201, "{version} {of}: {}", made.text());
    let copy = s.get(&path(&name)).await.must(200).json();
    let same = |doc: &Value| {
        let mut doc = doc.clone();
        let all = doc.as_object_mut().unwrap();
        all.retain(|field, _| !OWN.contains(&field.as_str()));
        doc
    };
    assert_eq!(same(&copy), same(&doc), "{version} {of}");
    let joins = |doc: &Value| {
        let all = doc["NetworkSettings"]["Networks"].as_object().unwrap().iter();
        all.map(|(n, e)| {
            (
                n.clone(),
                e["Aliases"].clone(),
                e["Links"].clone(),
                e["IPAMConfig"].clone(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(joins(&copy), joins(&doc), "{version} {of}");
}

#[tokio::test]
async fn a_document_makes_the_same_again() {
    let s = served().await;
    s.post("/networks/create", json!({"Name": "front"})).await.must(201);
    s.create("other", &["sleep"]).await;
    let plain = json!({"Image": "busybox", "Cmd": ["sleep"]});
    let virtual_ = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {"Runtime": "microvm"}});
    let privileged = json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {"Privileged": true}});
    let full = json!({
        "Image": "busybox", "Cmd": ["sleep"], "Entrypoint": ["env"], "Env": ["A=b"], "Labels": {"x": "y"}, "User": "1:1",
        "Hostname": "host", "WorkingDir": "/tmp", "StopSignal": "USR1", "StopTimeout": 3, "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_i64},
        "HostConfig": {
            "Binds": ["data:/data:ro", "/tmp:/host"], "NetworkMode": "front", "Memory": 67_108_864, "NanoCpus": 500_000_000,
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "CapAdd": ["NET_ADMIN"], "SecurityOpt": ["no-new-privileges"], "Init": true, "Links": ["other:o"],
            "Tmpfs": {"/t": "size=1m"}, "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "Sysctls": {"net.ipv4.ip_forward": "1"}, "Dns": ["192.0.2.1"], "ExtraHosts": ["h:192.0.2.2"], "GroupAdd": ["5"],
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nn", "CgroupPermissions": "rw"}],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}, "PidsLimit": 50, "ShmSize": 1_048_576,
        },
        "NetworkingConfig": {"EndpointsConfig": {"front": {"Aliases": ["www"], "Links": ["other:o"]}}},
    });
    let all = [
        ("plain", plain),
        ("small", virtual_),
        ("mighty", privileged),
        ("full", full),
    ];
    for (name, body) in all {
        s.post(&format!("/containers/create?name={name}"), body).await.must(201);
        for version in ["v1.24", "v1.41", "v1.44", "v1.51"] {
            copy(&s, version, name).await;
        }
    }
    let doc = s.get("/containers/full/json").await.must(200).json();
    let links = |v: &Value| v["NetworkSettings"]["Networks"]["front"]["Links"].clone();
    assert_eq!(links(&doc), json!(["other:o"]), "sent twice, made once");
    assert_eq!(
        doc["HostConfig"]["Links"],
        Value::Null,
        "a link on another network than the default one"
    );
}
