//! Every field of a create call (API 1.51) is in force, refused by name, or told as left out; none is dropped in silence.

use biga_model::Instance;
use biga_store::Objects;
use serde_json::{Value, json};

use crate::support::{Served, served};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The instance is another for it.
    Kept,
    /// Nothing for the daemon to do: it is shown as it was sent.
    Shown,
    /// Refused, and the message says what.
    Refused,
    /// Left out, and a warning says so.
    Warned,
}
use Fate::{Kept, Refused, Shown, Warned};

/// Field, a value that is not what it is anyway, what becomes of it, and a word of the message or warning.
fn config() -> Vec<(&'static str, Value, Fate, &'static str)> {
    vec![
        ("Hostname", json!("h"), Kept, ""),
        ("Domainname", json!("d.test"), Kept, ""),
        ("User", json!("1:2"), Kept, ""),
        ("AttachStdin", json!(true), Shown, ""),
        ("AttachStdout", json!(true), Shown, ""),
        ("AttachStderr", json!(true), Shown, ""),
        ("ExposedPorts", json!({"81/tcp": {}}), Shown, ""),
        ("Tty", json!(true), Kept, ""),
        ("OpenStdin", json!(true), Kept, ""),
        ("StdinOnce", json!(true), Kept, ""),
        ("Env", json!(["A=b"]), Kept, ""),
        ("Cmd", json!(["echo"]), Kept, ""),
        ("Healthcheck", json!({"Test": ["CMD", "true"]}), Kept, ""),
        ("ArgsEscaped", json!(true), Shown, ""),
        ("Volumes", json!({"/v": {}}), Kept, ""),
        ("WorkingDir", json!("/w"), Kept, ""),
        ("Entrypoint", json!(["e"]), Kept, ""),
        ("NetworkDisabled", json!(true), Kept, ""),
        ("MacAddress", json!("02:00:00:00:00:01"), Kept, ""),
        ("OnBuild", json!(["RUN x"]), Shown, ""),
        ("Labels", json!({"l": "v"}), Kept, ""),
        ("StopSignal", json!("SIGINT"), Kept, ""),
        ("StopTimeout", json!(3), Kept, ""),
        ("Shell", json!(["/bin/sh"]), Shown, ""),
        ("Unheard", json!(1), Warned, "Unheard"),
    ]
}

fn host_config() -> Vec<(&'static str, Value, Fate, &'static str)> {
    let device = json!([{"Path": "/dev/null", "Rate": 1000}]);
    let plain = vec![
        ("CpuShares", json!(512), Kept, ""),
        ("Memory", json!(64 << 20), Kept, ""),
        ("CgroupParent", json!("slice"), Kept, ""),
        ("BlkioWeight", json!(300), Kept, ""),
        (
            "BlkioWeightDevice",
            json!([{"Path": "/dev/null", "Weight": 300}]),
            Kept,
            "",
        ),
        ("BlkioDeviceReadBps", device.clone(), Kept, ""),
        ("BlkioDeviceWriteBps", device.clone(), Kept, ""),
        ("BlkioDeviceReadIOps", device.clone(), Kept, ""),
        ("BlkioDeviceWriteIOps", device, Kept, ""),
        ("CpuPeriod", json!(100_000), Kept, ""),
        ("CpuQuota", json!(50_000), Kept, ""),
        ("CpuRealtimePeriod", json!(1_000_000), Kept, ""),
        ("CpuRealtimeRuntime", json!(950_000), Kept, ""),
        ("CpuRealtimeRuntime", json!(-1), Refused, "negative"),
        ("CpusetCpus", json!("0"), Kept, ""),
        ("CpusetMems", json!("0"), Kept, ""),
        ("Devices", json!([{"PathOnHost": "/dev/null"}]), Kept, ""),
        ("DeviceCgroupRules", json!(["c 1:3 r"]), Kept, ""),
        (
            "DeviceRequests",
            json!([{"Count": -1, "Capabilities": [["gpu"]]}]),
            Refused,
            "[[gpu]]",
        ),
        (
            "DeviceRequests",
            json!([{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=0"]}]),
            Kept,
            "",
        ),
        (
            "DeviceRequests",
            json!([{"Driver": "cdi", "DeviceIDs": ["/dev/null"]}]),
            Refused,
            "vendor.com/class=device",
        ),
        (
            "DeviceRequests",
            json!([{"Driver": "nvidia", "Count": -1}]),
            Refused,
            "\"nvidia\"",
        ),
        ("KernelMemory", json!(1 << 30), Warned, "KernelMemory"),
        ("KernelMemoryTCP", json!(1 << 30), Warned, "KernelMemoryTCP"),
        ("MemoryReservation", json!(32 << 20), Kept, ""),
        ("MemorySwappiness", json!(10), Kept, ""),
        ("NanoCpus", json!(500_000_000), Kept, ""),
        ("OomKillDisable", json!(true), Warned, "OOM killer"),
        ("Init", json!(true), Kept, ""),
        ("PidsLimit", json!(50), Kept, ""),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 10, "Hard": 20}]), Kept, ""),
        ("CpuCount", json!(2), Warned, "CpuCount"),
        ("CpuPercent", json!(50), Warned, "CpuPercent"),
        ("IOMaximumIOps", json!(100), Warned, "IOMaximumIOps"),
        ("IOMaximumBandwidth", json!(100), Warned, "IOMaximumBandwidth"),
        ("Binds", json!(["/tmp:/t"]), Kept, ""),
        ("ContainerIDFile", json!("/tmp/id"), Shown, ""),
        ("LogConfig", json!({"Type": "none"}), Kept, ""),
        ("LogConfig", json!({"Type": "journald"}), Kept, ""),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"compress": "true"}}),
            Warned,
            "compress",
        ),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"odd": "1"}}),
            Refused,
            "odd",
        ),
        (
            "LogConfig",
            json!({"Type": "syslog", "Config": {"syslog-address": "x"}}),
            Refused,
            "syslog-address",
        ),
        ("LogConfig", json!({"Type": "fluentd"}), Refused, "fluentd"),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "-1"}}),
            Refused,
            "invalid size: '-1'",
        ),
        ("NetworkMode", json!("host"), Kept, ""),
        // Looked for when it starts.
        ("NetworkMode", json!("absent"), Kept, ""),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "8080"}]}), Kept, ""),
        ("PortBindings", json!({"80/sctp": [{}]}), Kept, ""),
        ("PortBindings", json!({"80/dccp": [{}]}), Refused, "dccp"),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "8000-8010"}]}), Kept, ""),
        (
            "PortBindings",
            json!({"80/tcp": [{"HostPort": "8010-8000"}]}),
            Refused,
            "8010-8000",
        ),
        ("RestartPolicy", json!({"Name": "always"}), Kept, ""),
        ("AutoRemove", json!(true), Kept, ""),
        ("VolumeDriver", json!("rexray"), Refused, "rexray"),
        ("VolumeDriver", json!("local"), Shown, ""),
        ("VolumesFrom", json!(["other"]), Kept, ""),
        ("ConsoleSize", json!([24, 80]), Shown, ""),
        ("Annotations", json!({"a/b": "c"}), Kept, ""),
        ("Annotations", json!({"": "c"}), Refused, "annotation key"),
        ("CapAdd", json!(["NET_ADMIN"]), Kept, ""),
        ("CapDrop", json!(["NET_RAW"]), Kept, ""),
        ("CgroupnsMode", json!("host"), Kept, ""),
        ("CgroupnsMode", json!("odd"), Refused, "CgroupnsMode"),
        ("Dns", json!(["192.0.2.1"]), Kept, ""),
        ("DnsOptions", json!(["ndots:1"]), Kept, ""),
        ("DnsSearch", json!(["x.test"]), Kept, ""),
        ("ExtraHosts", json!(["h:192.0.2.1"]), Kept, ""),
        ("GroupAdd", json!(["7"]), Kept, ""),
        ("IpcMode", json!("host"), Kept, ""),
        ("IpcMode", json!("none"), Kept, ""),
        ("IpcMode", json!("odd"), Refused, "IPC mode"),
        ("Cgroup", json!("container:x"), Warned, "Cgroup"),
        ("Links", json!(["other:alias"]), Kept, ""),
        ("OomScoreAdj", json!(100), Kept, ""),
        ("PidMode", json!("host"), Kept, ""),
        ("PidMode", json!("container:other"), Kept, ""),
        ("Privileged", json!(true), Kept, ""),
        ("PublishAllPorts", json!(true), Kept, ""),
        ("ReadonlyRootfs", json!(true), Kept, ""),
        ("SecurityOpt", json!(["no-new-privileges"]), Kept, ""),
        ("SecurityOpt", json!(["odd=1"]), Refused, "odd"),
        ("StorageOpt", json!({"size": "10G"}), Refused, "pquota"),
        ("StorageOpt", json!({"odd": "1"}), Refused, "odd"),
        ("Tmpfs", json!({"/t": "size=1m"}), Kept, ""),
        ("UTSMode", json!("host"), Kept, ""),
        ("UsernsMode", json!("private"), Kept, ""),
        ("UsernsMode", json!("odd"), Refused, "UsernsMode"),
        ("ShmSize", json!(32 << 20), Kept, ""),
        ("Sysctls", json!({"net.ipv4.ip_forward": "1"}), Kept, ""),
        ("Runtime", json!("microvm"), Kept, ""),
        ("Runtime", json!("kata-odd"), Refused, "kata-odd"),
        ("Isolation", json!("hyperv"), Kept, ""),
        ("Isolation", json!("odd"), Refused, "odd"),
        ("MaskedPaths", json!(["/proc/kcore"]), Kept, ""),
        ("ReadonlyPaths", json!(["/proc/sys"]), Kept, ""),
        ("Unheard", json!(1), Refused, "Unheard"),
    ];
    plain.into_iter().chain(mounts()).collect()
}

fn mounts() -> Vec<(&'static str, Value, Fate, &'static str)> {
    let one = |more: Value| {
        let mut m = json!({"Type": "volume", "Source": "data", "Target": "/m"});
        if let (Some(m), Value::Object(more)) = (m.as_object_mut(), more) {
            m.extend(more);
        }
        json!([m])
    };
    let image = |more: Value| {
        let mut m = json!({"Type": "image", "Source": "busybox"});
        if let (Some(m), Value::Object(more)) = (m.as_object_mut(), more) {
            m.extend(more);
        }
        one(m)
    };
    let bind = |options: Value| json!([{"Type": "bind", "Source": "/tmp", "Target": "/m", "BindOptions": options}]);
    let tmpfs = |options: Value| json!([{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": options}]);
    vec![
        ("Mounts", one(json!({})), Kept, ""),
        ("Mounts", one(json!({"ReadOnly": true})), Kept, ""),
        ("Mounts", one(json!({"VolumeOptions": {"NoCopy": true}})), Kept, ""),
        ("Mounts", one(json!({"VolumeOptions": {"Subpath": "s"}})), Kept, ""),
        (
            "Mounts",
            one(json!({"VolumeOptions": {"DriverConfig": {"Name": "nfs-odd"}}})),
            Refused,
            "nfs-odd",
        ),
        ("Mounts", bind(json!({"Propagation": "rslave"})), Kept, ""),
        ("Mounts", bind(json!({"NonRecursive": true})), Kept, ""),
        ("Mounts", bind(json!({"Odd": true})), Refused, "Odd"),
        ("Mounts", tmpfs(json!({"SizeBytes": 1 << 20})), Kept, ""),
        ("Mounts", tmpfs(json!({"Mode": 0o700})), Kept, ""),
        ("Mounts", image(json!({})), Kept, ""),
        ("Mounts", image(json!({"ImageOptions": {"Subpath": "etc"}})), Kept, ""),
        (
            "Mounts",
            image(json!({"ImageOptions": {"Subpath": "../etc"}})),
            Refused,
            "subpath",
        ),
        ("Mounts", image(json!({"Source": "absent"})), Refused, "No such image"),
        ("Mounts", image(json!({"Source": ""})), Refused, "Source"),
        ("Mounts", one(json!({"Type": "npipe"})), Refused, "npipe"),
        ("Mounts", one(json!({"Type": "cluster"})), Refused, "cluster"),
        ("Mounts", one(json!({"Odd": 1})), Refused, "Odd"),
    ]
}

/// Settings of one network.
fn endpoint() -> Vec<(&'static str, Value, Fate, &'static str)> {
    vec![
        ("Aliases", json!(["a"]), Kept, ""),
        ("Links", json!(["other:alias"]), Kept, ""),
        ("MacAddress", json!("02:00:00:00:00:01"), Kept, ""),
        ("IPAMConfig", json!({"IPv4Address": "10.88.0.99"}), Kept, ""),
        ("IPAMConfig", json!({"IPv6Address": "fd00::1"}), Refused, "IPv6"),
        ("IPAMConfig", json!({"LinkLocalIPs": ["169.254.1.1"]}), Kept, ""),
        ("IPAMConfig", json!({"LinkLocalIPs": ["fe80::1"]}), Refused, "IPv6"),
        ("IPAMConfig", json!({"LinkLocalIPs": ["x"]}), Refused, "link-local"),
        (
            "IPAMConfig",
            json!({"LinkLocalIPs": ["10.0.0.1"]}),
            Refused,
            "linkLocal",
        ),
        ("DriverOpts", json!({"a": "b"}), Refused, "driver options"),
        ("GwPriority", json!(7), Kept, ""),
    ]
}

/// Makes a container and tells what is stored of it, or the refusal; and the warnings.
async fn stored(s: &Served, body: Value) -> Result<(Value, String), String> {
    let a = s.call("POST", "/containers/create?name=it", Some(body)).await;
    let doc = a.json();
    if a.status != 201 {
        assert!((400..=501).contains(&a.status.as_u16()) && a.status != 500, "{a:?}");
        return Err(doc["message"].as_str().unwrap().to_string());
    }
    let o = Objects::<Instance>::new(s.node.store.clone())
        .get("default", "it")
        .await
        .unwrap();
    let mut o = serde_json::to_value(&o).unwrap();
    // What every container has of its own, and what was sent, which `inspect` shows.
    for own in ["uid", "resourceVersion", "creationTimestamp"] {
        o["metadata"][own] = Value::Null;
    }
    let annotations = o["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.retain(|k, _| !k.starts_with("docker.biga.dev/"));
    o["status"] = Value::Null;
    if body_names_no_hostname(&o) {
        o["spec"]["hostname"] = Value::Null;
    }
    for v in o["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        v["volume"] = Value::Null;
    }
    s.call("DELETE", "/containers/it?force=1", None).await.must(204);
    Ok((o, doc["Warnings"].to_string()))
}

/// A host name made of the id, which is another each time.
fn body_names_no_hostname(o: &Value) -> bool {
    let name = o["spec"]["hostname"].as_str().unwrap_or_default();
    name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn judge(s: &Served, what: &str, body: Value, plain: &Value, fate: Fate, word: &str) -> Option<String> {
    let found = match stored(s, body).await {
        Err(message) if fate == Refused && message.to_lowercase().contains(&word.to_lowercase()) => return None,
        Err(message) => format!("refused: {message}"),
        Ok((_, warnings)) if fate == Warned && warnings.contains(word) => return None,
        Ok((o, warnings)) if o == *plain => match fate {
            Shown if warnings == "[]" => return None,
            _ => format!("left out (warnings {warnings})"),
        },
        Ok((_, warnings)) if fate == Kept && warnings == "[]" => return None,
        Ok((_, warnings)) => format!("kept (warnings {warnings})"),
    };
    Some(format!("{what}: should be {fate:?}, is {found}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_is_dropped_in_silence() {
    let s = served().await;
    let volumes = json!({"Image": "busybox", "HostConfig": {"Binds": ["shared:/shared"]}});
    s.call("POST", "/containers/create?name=other", Some(volumes))
        .await
        .must(201);
    let base = || json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {}});
    let (plain, warnings) = stored(&s, base()).await.unwrap();
    assert_eq!(warnings, "[]");
    let (again, _) = stored(&s, base()).await.unwrap();
    assert_eq!(plain, again, "two of the same kind are the same");
    let mut wrong = Vec::new();
    for (field, value, fate, word) in config() {
        let mut body = base();
        body[field] = value.clone();
        wrong.extend(judge(&s, &format!("{field} {value}"), body, &plain, fate, word).await);
    }
    for (field, value, fate, word) in host_config() {
        let mut body = base();
        body["HostConfig"][field] = value.clone();
        let what = format!("HostConfig.{field} {value}");
        wrong.extend(judge(&s, &what, body, &plain, fate, word).await);
    }
    for (field, value, fate, word) in endpoint() {
        let mut body = base();
        body["NetworkingConfig"]["EndpointsConfig"]["bridge"] = json!({field: value});
        let what = format!("EndpointsConfig.{field} {value}");
        wrong.extend(judge(&s, &what, body, &plain, fate, word).await);
    }
    // Swap is nothing without a limit of memory.
    let mut body = base();
    body["HostConfig"] = json!({"Memory": 64 << 20, "MemorySwap": 128 << 20});
    let (o, _) = stored(&s, body).await.unwrap();
    assert_eq!(o["spec"]["resources"]["memorySwap"], "128Mi");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything in the reference is in the tables above: what a client may send is what `inspect` shows.
#[tokio::test]
async fn the_tables_know_every_field_that_is_shown() {
    let s = served().await;
    s.create("it", &["sleep"]).await;
    let doc = s.get("/containers/it/json").await.must(200).json();
    let known = |list: Vec<(&'static str, Value, Fate, &str)>| list.iter().map(|l| l.0).collect::<Vec<_>>();
    let missing = |shown: &Value, known: Vec<&str>, but: &[&str]| {
        let names = shown.as_object().unwrap().keys().map(String::as_str);
        names
            .filter(|n| !known.contains(n) && !but.contains(n))
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        missing(&doc["Config"], known(config()), &["Image"]),
        Vec::<String>::new()
    );
    assert_eq!(
        missing(&doc["HostConfig"], known(host_config()), &["MemorySwap"]),
        Vec::<String>::new()
    );
}
