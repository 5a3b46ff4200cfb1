//! `_ping`, `version`, `info`, `system df`, `auth`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::Response;
use axum::routing::{get, post};
use biga_model::Phase;
use biga_wire::cache::CacheRecord;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::ok;
use crate::error::{Error, Result};
use crate::extract::{self, Query};
use crate::state::{DockerApi, docker_arch};
use crate::translate::{image, list, volume};
use crate::version::{ApiVersion, MAX_API, MIN_API};

pub(super) fn routes() -> Router<DockerApi> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/system/df", get(disk_usage))
        .route("/auth", post(auth))
}

async fn ping(State(api): State<DockerApi>) -> Response {
    let mut r = Response::new(Body::from("OK"));
    let h = r.headers_mut();
    h.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    h.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    h.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // 2 is BuildKit.
    let builder = if api.inner.buildkit.is_some() { "2" } else { "1" };
    h.insert("Builder-Version", HeaderValue::from_static(builder));
    h.insert("Swarm", HeaderValue::from_static("inactive"));
    r
}

async fn version(State(api): State<DockerApi>) -> Response {
    let n = &api.inner.node;
    let (max, min) = (MAX_API.to_string(), MIN_API.to_string());
    ok(&json!({
        "Platform": {"Name": "Biga"},
        "Components": [{
            "Name": "Engine",
            "Version": n.version,
            "Details": {
                "ApiVersion": max, "MinAPIVersion": min, "Arch": docker_arch(), "Os": "linux", "Experimental": "true",
                "GitCommit": n.commit, "GoVersion": "none (Rust)", "KernelVersion": n.kernel, "BuildTime": "",
            },
        }],
        "Version": n.version,
        "ApiVersion": max,
        "MinAPIVersion": min,
        "GitCommit": n.commit,
        "GoVersion": "none (Rust)",
        "Os": "linux",
        "Arch": docker_arch(),
        "KernelVersion": n.kernel,
        "BuildTime": "",
    }))
}

async fn info(State(api): State<DockerApi>) -> Result<Response> {
    let n = &api.inner.node;
    let all = api.instances().list(Some(api.ns())).await?.items;
    let count = |f: fn(Phase) -> bool| all.iter().filter(|o| f(o.status_or_default().phase)).count();
    let running = count(|p| p.is_live() && p != Phase::Paused);
    let paused = count(|p| p == Phase::Paused);
    let images = image::group(&api.ready_images().await?).len();
    let mut runtimes = json!({"biga": {"path": "biga"}});
    if n.microvms {
        runtimes["microvm"] = json!({"path": "biga"});
    }
    for (name, path) in api.backend().runtimes() {
        runtimes[name] = json!({"path": path});
    }
    let devices = api.backend().devices();
    let discovered: Vec<Value> = devices
        .devices
        .iter()
        .map(|d| json!({"Source": "cdi", "ID": d}))
        .collect();
    Ok(ok(&json!({
        "ID": n.id,
        "Containers": all.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": all.len() - running - paused,
        "Images": images,
        "Driver": "erofs",
        "DriverStatus": [],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["journald", "json-file", "local", "none", "syslog"]},
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        // A knob of version 1.
        "OomKillDisable": n.cgroup_version == 1,
        "IPv4Forwarding": true,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "SystemTime": biga_model::Timestamp::now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": n.cgroup_version.to_string(),
        "NEventsListener": api.inner.events.listeners(),
        "KernelVersion": n.kernel,
        "OperatingSystem": n.os,
        "OSVersion": n.os_version,
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": []},
        "NCPU": n.cpus,
        "MemTotal": n.memory,
        "GenericResources": null,
        "DockerRootDir": n.state_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": n.name,
        "Labels": [],
        "ExperimentalBuild": true,
        "ServerVersion": n.version,
        "Runtimes": runtimes,
        "DefaultRuntime": "biga",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": devices.dirs,
        "DiscoveredDevices": discovered,
        "Warnings": devices.warnings,
    })))
}

async fn disk_usage(
    State(api): State<DockerApi>,
    Extension(version): Extension<ApiVersion>,
    q: Query,
) -> Result<Response> {
    let wants = |kind: &str| q.all("type").is_empty() || q.all("type").iter().any(|t| t == kind);
    if let Some(t) = q
        .all("type")
        .iter()
        .find(|t| !matches!(t.as_str(), "container" | "image" | "volume" | "build-cache"))
    {
        return Err(Error::bad(format!("unknown object type: {t}")));
    }
    let instances = api.instances().list(Some(api.ns())).await?.items;
    let mut doc = json!({"Images": null, "Containers": null, "Volumes": null, "BuildCache": null, "LayersSize": 0});
    if wants("image") {
        let images = api.ready_images().await?;
        let groups = image::group(&images);
        let entries: Vec<Value> = groups
            .iter()
            .map(|g| {
                let used = instances
                    .iter()
                    .filter(|o| o.status_or_default().image_id == g.id)
                    .count();
                let mut e = image::entry(g, &Value::Null, i64::try_from(used).unwrap_or(0));
                e["SharedSize"] = 0.into();
                image::line_of_version(&mut e, version);
                e
            })
            .collect();
        doc["LayersSize"] = groups.iter().map(|g| image::size(&g.objects)).sum::<u64>().into();
        doc["Images"] = entries.into();
    }
    if wants("container") {
        let now = biga_model::Timestamp::now();
        let around = api.around().await?;
        let all: Vec<_> = instances.iter().collect();
        let sizes = super::usage::containers(&api, &all).await?;
        let mut entries = Vec::with_capacity(all.len());
        for (o, (own, whole)) in instances.iter().zip(sizes) {
            let image = api.image_config(&o.status_or_default().image_id).await;
            let mut e = list::entry(o, &around.beside(&api, o, &image));
            e["Status"] = list::status_text(o, now).into();
            e["SizeRw"] = own.into();
            e["SizeRootFs"] = whole.into();
            entries.push(e);
        }
        doc["Containers"] = entries.into();
    }
    if wants("volume") {
        let volumes = api.volumes().list(Some(api.ns())).await?.items;
        let sizes = super::usage::volumes(&api, &volumes.iter().collect::<Vec<_>>()).await;
        let entries: Vec<Value> = volumes
            .iter()
            .zip(sizes)
            .map(|(v, size)| {
                let used = instances.iter().filter(|o| super::volumes::uses(o, v.name())).count();
                let mut e = volume::inspect(v);
                e["UsageData"] = json!({"Size": size, "RefCount": used});
                e
            })
            .collect();
        doc["Volumes"] = entries.into();
    }
    if wants("build-cache") {
        let records = api.backend().build_cache().await?;
        doc["BuildCache"] = records.iter().map(cache_record).collect::<Vec<_>>().into();
    }
    if !version.at_least(42) {
        let records = doc["BuildCache"].as_array().into_iter().flatten();
        doc["BuilderSize"] = records.filter_map(|r| r["Size"].as_u64()).sum::<u64>().into();
    }
    Ok(ok(&doc))
}

fn cache_record(r: &CacheRecord) -> Value {
    let time = |s: i64| biga_model::Timestamp::from_second(s).unwrap_or_default().to_string();
    json!({
        "ID": r.id, "Type": r.kind, "Description": r.description, "InUse": r.in_use, "Shared": r.shared, "Size": r.size,
        "CreatedAt": time(r.created), "LastUsedAt": time(r.used), "UsageCount": 1,
    })
}

async fn auth(State(api): State<DockerApi>, headers: HeaderMap, body: Body) -> Result<Response> {
    let auth = extract::json(&headers, body).await?;
    let token = api.backend().login(auth).await.map_err(|f| match Error::from(f) {
        e if e.status == StatusCode::BAD_REQUEST => Error::new(StatusCode::UNAUTHORIZED, e.message),
        e => e,
    })?;
    Ok(ok(&json!({"Status": "Login Succeeded", "IdentityToken": token})))
}
