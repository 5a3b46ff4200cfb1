//! What clients ask before they do anything: each version of the API, and the questions of tools that show a whole engine, as
//! Portainer does.

use serde_json::{Value, json};

use crate::support::{Served, served};

/// Fields of a document that must be there, whatever they are.
fn has(doc: &Value, fields: &str) {
    let missing: Vec<&str> = fields.split_whitespace().filter(|f| doc.get(f).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} not in {doc}");
}

#[tokio::test]
async fn every_version_is_served() {
    let s = served().await;
    s.run("one", &["sleep"]).await;
    for minor in 24..=51 {
        for path in [
            "_ping",
            "version",
            "info",
            "containers/json",
            "containers/one/json",
            "images/json",
            "images/busybox/json",
            "networks",
            "volumes",
            "system/df",
            "events?since=0&until=1",
        ] {
            s.get(&format!("/v1.{minor}/{path}")).await.must(200);
        }
    }
    for (version, word) in [
        ("1.23", "too old"),
        ("1.52", "too new"),
        ("2.0", "too new"),
        ("0.1", "too old"),
    ] {
        let refused = s.get(&format!("/v{version}/containers/json")).await.must(400);
        assert!(refused.message().contains(word), "{version}: {}", refused.message());
    }
}

/// Every field of the documents of API 1.51 that is not optional there.
#[tokio::test]
async fn info_and_version_are_whole() {
    let s = served().await;
    let info = s.get("/v1.51/info").await.must(200).json();
    has(
        &info,
        "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus DockerRootDir Plugins \
        MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit OomKillDisable IPv4Forwarding Debug NFd NGoroutines \
        SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType \
        Architecture NCPU MemTotal IndexServerAddress RegistryConfig GenericResources HttpProxy HttpsProxy NoProxy Name Labels \
        ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation InitBinary ContainerdCommit \
        RuncCommit InitCommit SecurityOptions CDISpecDirs Warnings",
    );
    has(&info["Plugins"], "Volume Network Authorization Log");
    has(
        &info["Swarm"],
        "NodeID NodeAddr LocalNodeState ControlAvailable Error RemoteManagers",
    );
    has(&info["RegistryConfig"], "InsecureRegistryCIDRs IndexConfigs Mirrors");
    assert_eq!(info["NEventsListener"], 0);
    let follows = s.open(Served::request("GET", "/events", None)).await;
    assert_eq!(s.get("/info").await.must(200).json()["NEventsListener"], 1);
    drop(follows);
    let version = s.get("/v1.51/version").await.must(200).json();
    has(
        &version,
        "Platform Components Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion BuildTime",
    );
    has(&version["Components"][0], "Name Version Details");
}

/// The dashboard, the lists and the pages of one container of Portainer, and the fields that they show. Its other clients
/// (`docker exec` and `logs` in a page) are the streams of all.
#[tokio::test]
async fn what_a_console_asks() {
    let s = served().await;
    let id = s.run("one", &["sleep"]).await;
    let labels = json!({"com.docker.compose.project": "shop"});
    let body = json!({"Image": "busybox", "Cmd": ["sleep"], "Labels": labels});
    s.post("/containers/create?name=two", body).await.must(201);
    s.post("/volumes/create", json!({"Name": "data"})).await.must(201);

    let list = s.get("/containers/json?all=1&size=true").await.must(200).json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    for line in list.as_array().unwrap() {
        has(
            line,
            "Id Names Image ImageID Command Created Ports SizeRw SizeRootFs Labels State Status HostConfig NetworkSettings Mounts",
        );
    }
    let stack = "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22com.docker.compose.project%3Dshop%22%5D%7D";
    assert_eq!(s.get(stack).await.must(200).json().as_array().unwrap().len(), 1);
    let one = s.get(&format!("/containers/{id}/json?size=1")).await.must(200).json();
    has(
        &one,
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform \
        MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver SizeRw SizeRootFs Mounts Config NetworkSettings",
    );
    has(
        &s.get(&format!("/containers/{id}/top")).await.must(200).json(),
        "Titles Processes",
    );
    let stats = s
        .get(&format!("/containers/{id}/stats?stream=false"))
        .await
        .must(200)
        .json();
    has(&stats, "read cpu_stats precpu_stats memory_stats pids_stats");
    s.get(&format!(
        "/containers/{id}/logs?stdout=1&stderr=1&tail=100&timestamps=1&since=0"
    ))
    .await
    .must(200);

    for image in s.get("/images/json?all=0").await.must(200).json().as_array().unwrap() {
        has(
            image,
            "Id ParentId RepoTags RepoDigests Created Size SharedSize Labels Containers",
        );
    }
    let dangling = "/images/json?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D";
    assert_eq!(s.get(dangling).await.must(200).json(), json!([]));
    has(
        &s.get("/images/busybox/json").await.must(200).json(),
        "Id RepoTags RepoDigests Created Size Architecture Os Config RootFS",
    );
    let history = s.get("/images/busybox/history").await.must(200).json();
    has(&history[0], "Id Created CreatedBy Tags Size Comment");
    let volumes = s
        .get("/volumes?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D")
        .await
        .must(200)
        .json();
    has(
        &volumes["Volumes"][0],
        "Name Driver Mountpoint CreatedAt Labels Scope Options",
    );
    for network in s.get("/networks").await.must(200).json().as_array().unwrap() {
        has(
            network,
            "Name Id Created Scope Driver EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom ConfigOnly Options Labels",
        );
    }
    has(
        &s.get("/system/df").await.must(200).json(),
        "LayersSize Images Containers Volumes BuildCache",
    );
    let hour = s.get("/events?since=1&until=2").await.must(200);
    assert_eq!(hour.lines(), Vec::<Value>::new());
    // It asks about a swarm and lives with there being none.
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"] {
        let none = s.get(path).await.must(503);
        assert!(none.message().contains("not a swarm manager"), "{path}");
    }
    assert_eq!(s.get("/plugins").await.must(200).json(), json!([]));
}
