//! Translations, as golden files.

use biga_api_docker::translate::create::{Around, KnownNetwork, instance};
use biga_api_docker::translate::inspect::{Beside, container};
use biga_api_docker::translate::list::{entry, status_text};
use biga_api_docker::translate::stats::{HostCpu, document};
use biga_api_docker::types;
use biga_api_docker::types::container::CreateBody;
use biga_model::{InstanceStatus, NetworkEndpoint, Phase, Timestamp};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

fn around() -> Around {
    let known = |name: &str| KnownNetwork {
        id: format!("{name}0000000000000000"),
        name: name.into(),
        gateway: "10.88.0.1".into(),
    };
    Around {
        networks: vec![known("default"), known("front"), known("back")],
        image: json!({"Cmd": ["sh"], "ExposedPorts": {"443/tcp": {}}, "Labels": {"of": "image"}}),
        image_reference: "busybox:latest".into(),
        volume_names: vec!["anonymous1".into(), "anonymous2".into()],
        others: Default::default(),
        runtimes: vec!["crun".into(), "runc".into()],
        cdi_devices: vec!["nvidia.com/gpu=0".into()],
        links: Vec::new(),
        volumes_from: Vec::new(),
    }
}

fn create(body: Value) -> Result<Value, String> {
    let body: CreateBody = types::read(body).map_err(|e| e.to_string())?;
    let made = instance(&body, &around()).map_err(|e| format!("{} {}", e.status.as_u16(), e.message))?;
    Ok(json!({
        "spec": made.object.spec,
        "labels": made.object.metadata.labels,
        "annotations": made.object.metadata.annotations,
        "anonymous": made.anonymous,
        "warnings": made.warnings,
    }))
}

/// What `docker run` of version 28 sends, with every option that means something here.
fn full() -> Value {
    json!({
        "Hostname": "h", "Domainname": "d.example", "User": "1000:100", "AttachStdin": true, "AttachStdout": true,
        "AttachStderr": true, "Tty": false, "OpenStdin": true, "StdinOnce": true, "Env": ["A=1", "B=x=y", "A=2"],
        "Cmd": ["-c", "true"], "Image": "busybox", "Volumes": {"/anon": {}}, "WorkingDir": "/app",
        "Entrypoint": ["/bin/sh"], "OnBuild": null, "Labels": {"plain": "v", "odd": "a b"}, "StopSignal": "SIGQUIT",
        "StopTimeout": 3, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "HostConfig": {
            "Binds": ["/srv:/srv:ro", "data:/data"], "NetworkMode": "front",
            "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "53/udp": [{"HostIp": "", "HostPort": ""}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "AutoRemove": false,
            "CapAdd": ["NET_ADMIN"], "CapDrop": ["CAP_MKNOD"], "Dns": ["9.9.9.9"], "DnsSearch": ["x"], "DnsOptions": ["ndots:2"],
            "ExtraHosts": ["db:10.0.0.9", "gw:host-gateway"], "GroupAdd": ["audio"], "OomScoreAdj": 5, "ReadonlyRootfs": true,
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"], "Tmpfs": {"/t": "size=64m,mode=1770,noexec"},
            "ShmSize": 134217728, "Sysctls": {"net.ipv4.ip_forward": "1"}, "Init": true, "PublishAllPorts": true,
            "Mounts": [{"Type": "volume", "Target": "/m1"}, {"Type": "bind", "Source": "/etc", "Target": "/m2", "ReadOnly": true},
                       {"Type": "tmpfs", "Target": "/m3", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 448}}],
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}],
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}], "NanoCpus": 1500000000, "Memory": 268435456,
            "MemorySwap": 536870912, "MemoryReservation": 134217728, "CpuShares": 512, "CpusetCpus": "0-1", "PidsLimit": 64,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
            "ConsoleSize": [24, 80], "MaskedPaths": null, "ReadonlyPaths": null, "BlkioWeight": 0, "MemorySwappiness": -1,
            "UsernsMode": "", "VolumesFrom": null, "Links": null
        },
        "NetworkingConfig": {"EndpointsConfig": {
            "front": {"Aliases": ["web"], "IPAMConfig": {"IPv4Address": "10.88.0.9"}, "MacAddress": "52:54:00:AA:BB:CC"},
            "back0000000000000000": null
        }}
    })
}

#[test]
fn a_full_create_body() {
    assert_json_snapshot!(create(full()).unwrap());
}

#[test]
fn the_smallest_create_body() {
    assert_json_snapshot!(create(json!({"Image": "busybox"})).unwrap());
}

#[test]
fn the_dial() {
    let isolation = |h: Value| create(json!({"Image": "b", "HostConfig": h})).map(|v| v["spec"]["isolation"].clone());
    for (h, want) in [
        (json!({}), "container"),
        (json!({"Runtime": "runc"}), "container"),
        (json!({"Runtime": "microvm"}), "microvm"),
        (json!({"Isolation": "hyperv"}), "microvm"),
        (json!({"Isolation": "vm", "Runtime": "microvm"}), "microvm"),
        (json!({"Isolation": "default"}), "container"),
    ] {
        assert_eq!(isolation(h.clone()).unwrap(), want, "{h}");
    }
    assert!(
        isolation(json!({"Runtime": "nvidia"}))
            .unwrap_err()
            .contains("unknown or invalid runtime name")
    );
    assert!(isolation(json!({"Runtime": "runc", "Isolation": "vm"})).is_err());
}

#[test]
fn runtimes_are_those_that_are_there() {
    let runtime = |name: &str| {
        create(json!({"Image": "b", "HostConfig": {"Runtime": name}})).map(|v| v["spec"]["runtime"].clone())
    };
    for (name, want) in [
        ("", Value::Null),
        ("biga", Value::Null),
        ("microvm", Value::Null),
        ("runc", json!("runc")),
        ("io.containerd.runc.v2", json!("runc")),
        ("crun", json!("crun")),
    ] {
        assert_eq!(runtime(name).unwrap(), want, "{name}");
    }
    for odd in ["runsc", "/usr/bin/crun", "Biga"] {
        let e = runtime(odd).unwrap_err();
        assert!(e.starts_with("400") && e.contains(odd), "{e}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let h = |h: Value| json!({"Image": "b", "HostConfig": h});
    let bodies = [
        json!({"Image": "b", "Healthcheck": {"Test": ["RUN", "true"]}}),
        json!({"Image": "b", "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000}}),
        json!({"Image": "b", "Hostname": "h", "HostConfig": {"NetworkMode": "container:x"}}),
        h(json!({"NetworkMode": "container:x"})),
        h(json!({"DeviceRequests": [{"Count": -1}]})),
        h(json!({"StorageOpt": {"size": "1g"}})),
        h(json!({"LogConfig": {"Type": "fluentd"}})),
        h(json!({"SecurityOpt": ["seccomp={}"]})),
        h(json!({"SecurityOpt": ["seccomp=no json"]})),
        h(json!({"UsernsMode": "keep-id"})),
        h(json!({"CpuQuota": 10})),
        h(json!({"CpuPeriod": 10})),
        h(json!({"NanoCpus": 1000000000, "CpuQuota": 5000})),
        h(json!({"MemorySwappiness": 500})),
        h(json!({"DeviceCgroupRules": ["q 1:2 r"]})),
        h(json!({"Privileged": true, "UsernsMode": "private"})),
        h(json!({"Binds": ["a"]})),
        h(json!({"Binds": [""]})),
        h(json!({"Binds": ["../a:/b"]})),
        h(json!({"Binds": ["/a:/b", "/c:/b/"]})),
        h(json!({"Runtime": "microvm", "Mounts": [{"Type": "image", "Source": "x", "Target": "/x"}]})),
        h(json!({"Runtime": "microvm", "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["v.com/c=0"]}]})),
        h(json!({"Mounts": [{"Type": "volume", "Target": "x"}]})),
        h(json!({"PortBindings": {"80/dccp": [{}]}})),
        h(json!({"PortBindings": {"x/tcp": [{}]}})),
        h(json!({"PortBindings": {"80/tcp": [{"HostPort": "5-1"}]}})),
        h(json!({"RestartPolicy": {"Name": "sometimes"}})),
        h(json!({"RestartPolicy": {"Name": "always"}, "AutoRemove": true})),
        h(json!({"Memory": 1024})),
        h(json!({"NanoCpus": -1})),
        h(json!({"Sysctls": {"kernel.panic": "1"}})),
        h(json!({"Tmpfs": {"/t": "size=lots"}})),
    ];
    let answers: Vec<String> = bodies.into_iter().map(|b| create(b).unwrap_err()).collect();
    assert_json_snapshot!(answers);
}

#[test]
fn a_bind_of_one_path_is_a_volume_without_a_name() {
    let made = create(json!({"Image": "b", "Volumes": {"/a/": {}}, "HostConfig": {"Binds": ["/a", "/b"]}})).unwrap();
    assert_eq!(made["anonymous"], json!(["anonymous1", "anonymous2"]));
    let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let paths: Vec<&Value> = mounts.iter().map(|m| &m["mountPath"]).collect();
    assert_eq!(paths, ["/a", "/b"]);
    let twice = create(json!({"Image": "b", "HostConfig": {"Binds": ["/a", "/a"]}}));
    assert_eq!(twice.unwrap_err(), "400 Duplicate mount point: /a");
}

#[test]
fn sharing_and_finer_limits() {
    let body = json!({"Image": "b", "HostConfig": {
        "PidMode": "container:abc", "IpcMode": "shareable", "UTSMode": "host", "CgroupnsMode": "host",
        "NetworkMode": "container:abc", "CgroupParent": "/x",
        "CpuQuota": 50000, "CpuPeriod": 100000, "CpusetMems": "0", "MemorySwappiness": 10, "OomKillDisable": true,
        "BlkioWeight": 300, "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}],
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1048576}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 7}],
        "DeviceCgroupRules": ["c 188:* rwm"], "MaskedPaths": [], "ReadonlyPaths": [],
        "SecurityOpt": ["seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}", "apparmor=mine", "label=type:x_t"],
        "Binds": ["/a:/b:rshared,ro", "v:/v:nocopy"], "Tmpfs": {"/t": "exec,uid=5", "/u": ""},
        "Mounts": [
            {"Type": "bind", "Source": "/m", "Target": "/m", "ReadOnly": true,
             "BindOptions": {"Propagation": "rslave", "NonRecursive": true, "ReadOnlyNonRecursive": true}},
            {"Type": "tmpfs", "Target": "/w", "TmpfsOptions": {"Options": [["uid", "33"], ["noatime"]]}},
        ],
    }});
    let body: CreateBody = types::read(body).unwrap();
    let mut around = around();
    around.others.insert("abc".into(), "db".into());
    let mut o = instance(&body, &around).unwrap().object;
    let spec = serde_json::to_value(&o.spec).unwrap();
    o.metadata.name = "x".into();
    let shown = biga_api_docker::translate::inspect::host_config(&o, &body);
    let of = |keys: &[&str]| -> Value { keys.iter().map(|k| ((*k).to_string(), shown[*k].clone())).collect() };
    let keys = [
        "PidMode",
        "IpcMode",
        "UTSMode",
        "CgroupnsMode",
        "NetworkMode",
        "CgroupParent",
        "CpuQuota",
        "CpuPeriod",
        "CpusetMems",
        "MemorySwappiness",
        "OomKillDisable",
        "BlkioWeight",
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteIOps",
        "DeviceCgroupRules",
        "SecurityOpt",
    ];
    assert_json_snapshot!((spec, of(&keys)));
    assert!(
        instance(&body, &Default::default())
            .unwrap_err()
            .to_string()
            .contains("No such container: abc")
    );
}

#[test]
fn health_checks_are_translated() {
    let check = |b: Value| create(b).unwrap()["spec"]["containers"][0]["healthCheck"].clone();
    assert_eq!(
        check(json!({"Image": "b"})),
        Value::Null,
        "the image's is the node's affair"
    );
    let body = json!({"Image": "b", "Healthcheck": {"Test": ["NONE"]}});
    assert_eq!(check(body), json!({"test": ["NONE"]}));
    let body = json!({"Image": "b", "Labels": {"biga.dev/restart-unhealthy": "true"}, "Healthcheck": {"Interval": 1_500_000_000, "Retries": 4}});
    assert_eq!(check(body), json!({"intervalMs": 1500, "retries": 4, "restart": true}));
}

#[test]
fn what_is_left_out_is_told() {
    let warnings = |b: Value| create(b).unwrap()["warnings"].clone();
    let h = |h: Value| json!({"Image": "b", "HostConfig": h});
    let told = [
        warnings(json!({"Image": "b", "Env": ["GONE"], "Colour": "red"})),
        warnings(h(
            json!({"Privileged": true, "SecurityOpt": ["seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}"]}),
        )),
        warnings(h(
            json!({"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}}),
        )),
    ];
    assert_json_snapshot!(told);
}

fn running() -> biga_model::Object<biga_model::Instance> {
    let body: CreateBody = types::read(full()).unwrap();
    let mut o = instance(&body, &around()).unwrap().object;
    o.metadata.name = "web".into();
    o.metadata.uid = "11111111-2222-4333-8444-555555555555".into();
    let t = |s: i64| Timestamp::from_second(1_700_000_000 + s).ok();
    o.metadata.creation_timestamp = t(0);
    let mut ports = o.spec.ports.clone();
    ports
        .iter_mut()
        .for_each(|p| p.host_port = p.host_port.or(Some(40_000)));
    o.status = Some(InstanceStatus {
        phase: Phase::Running,
        pid: Some(77),
        started_at: t(5),
        image_id: "sha256:aaaa".into(),
        ports,
        networks: vec![NetworkEndpoint {
            network: "front".into(),
            interface: "eth0".into(),
            address: "10.88.0.9/24".into(),
            gateway: "10.88.0.1".into(),
            mac: "52:54:00:aa:bb:cc".into(),
            aliases: vec!["web".into()],
            slot: None,
        }],
        ..InstanceStatus::default()
    });
    o
}

fn image() -> Value {
    json!({"os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=0"], "StopSignal": "SIGINT"}})
}

#[test]
fn an_inspected_container() {
    let image = image();
    let beside = Beside {
        image: Some(&image),
        networks: &[("front".into(), "f0".into()), ("back".into(), "b0".into())],
        volumes: &[("data".into(), "/state/volumes/data".into())],
        execs: vec!["e1".into()],
        state_dir: "/state",
    };
    assert_json_snapshot!(container(&running(), &beside));
}

#[test]
fn a_listed_container() {
    let image = image();
    let beside = Beside {
        image: Some(&image),
        ..Beside::default()
    };
    let now = Timestamp::from_second(1_700_000_000 + 65).unwrap();
    let mut line = entry(&running(), &beside);
    line["Status"] = status_text(&running(), now).into();
    assert_json_snapshot!(line);
}

#[test]
fn states_in_docker_s_words() {
    use biga_api_docker::translate::inspect::status_word;
    use biga_api_docker::translate::list::status_text;
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let word = |change: &dyn Fn(&mut biga_model::Object<biga_model::Instance>)| {
        let mut o = running();
        o.spec.power = biga_model::Power::Running;
        o.spec.restart_policy = Default::default();
        change(&mut o);
        format!("{}: {}", status_word(&o), status_text(&o, now))
    };
    let phase = |p: Phase| {
        move |o: &mut biga_model::Object<biga_model::Instance>| {
            let s = o.status.as_mut().unwrap();
            s.phase = p;
            s.exit_code = Some(3);
            s.finished_at = Timestamp::from_second(1_700_000_090).ok();
        }
    };
    let words: Vec<String> = Phase::ALL
        .into_iter()
        .map(|p| format!("{p} -> {}", word(&phase(p))))
        .collect();
    let policy = word(&|o| {
        phase(Phase::Exited)(o);
        o.spec.restart_policy.policy = biga_model::RestartWhen::Always;
    });
    let never = word(&|o| {
        phase(Phase::Failed)(o);
        o.status.as_mut().unwrap().started_at = None;
    });
    assert_json_snapshot!((words, policy, never));
}

#[test]
fn a_sample_of_statistics() {
    let a = biga_wire::shim::Stats {
        at_ns: 1_700_000_000_000_000_000,
        cpu_ns: 100,
        memory: 10,
        memory_cache: 5,
        ..Default::default()
    };
    let b = biga_wire::shim::Stats {
        at_ns: 1_700_000_001_000_000_000,
        cpu_ns: 300,
        pids: 2,
        ..a.clone()
    };
    let host = |total_ns| HostCpu { total_ns, online: 2 };
    assert_json_snapshot!(document("id", "web", (&b, host(20)), Some((&a, host(10)))));
}
