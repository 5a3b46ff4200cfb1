//! Raw HTTP: runs everywhere, with or without the real `docker`.

use serde_json::{Value, json};

use crate::support::{Served, eventually, served};

#[tokio::test]
async fn ping_version_and_info() {
    let s = served().await;
    for method in ["GET", "HEAD"] {
        let a = s.call(method, "/_ping", None).await.must(200);
        let header = |k: &str| a.headers.get(k).map(|v| v.to_str().unwrap().to_string());
        assert_eq!(header("api-version").as_deref(), Some("1.51"));
        assert_eq!(header("ostype").as_deref(), Some("linux"));
        assert_eq!(header("docker-experimental").as_deref(), Some("true"));
        assert_eq!(header("builder-version").as_deref(), Some("1"));
        assert_eq!(a.text(), if method == "GET" { "OK" } else { "" });
    }
    let v = s.get("/v1.24/version").await.must(200).json();
    assert_eq!(
        (v["ApiVersion"].as_str(), v["MinAPIVersion"].as_str()),
        (Some("1.51"), Some("1.24"))
    );
    let i = s.get("/v1.51/info").await.must(200).json();
    assert_eq!(
        (i["Name"].as_str(), i["Containers"].as_u64(), i["Images"].as_u64()),
        (Some("testnode"), Some(0), Some(1))
    );
    assert!(i["Runtimes"].get("microvm").is_some());
}

#[tokio::test]
async fn a_life_by_raw_calls() {
    let s = served().await;
    let id = s.create("web", &["sleep"]).await;
    assert_eq!(id.len(), 64);
    let state = async |want: &str| {
        let doc = s.get("/containers/web/json").await.must(200).json();
        assert_eq!(doc["State"]["Status"], want, "{doc}");
        doc
    };
    eventually("created", async || {
        (s.get("/containers/web/json").await.json()["Image"] != "").then_some(())
    })
    .await;
    state("created").await;
    s.call("POST", "/containers/web/start", None).await.must(204);
    s.call("POST", "/containers/web/start", None).await.must(304);
    let doc = state("running").await;
    assert_eq!(doc["Id"].as_str(), Some(id.as_str()));
    assert_eq!(doc["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], "10.88.0.2");
    assert_eq!(doc["Config"]["Hostname"].as_str(), Some(&id[..12]));
    s.call("POST", "/containers/web/pause", None).await.must(204);
    state("paused").await;
    s.call("POST", "/containers/web/pause", None).await.must(409);
    s.call("POST", "/containers/web/start", None).await.must(409);
    s.call("POST", "/containers/web/unpause", None).await.must(204);
    s.call("POST", "/containers/web/unpause", None).await.must(409);
    s.call("DELETE", "/containers/web", None).await.must(409);
    s.call("POST", "/containers/web/restart?t=1", None).await.must(204);
    state("running").await;
    s.call("POST", "/containers/web/stop", None).await.must(204);
    s.call("POST", "/containers/web/stop", None).await.must(304);
    let doc = state("exited").await;
    assert_eq!(doc["State"]["ExitCode"], 143);
    s.call("POST", "/containers/web/kill", None).await.must(409);
    s.call("POST", "/containers/web/start", None).await.must(204);
    s.call("POST", "/containers/web/kill?signal=SIGKILL", None)
        .await
        .must(204);
    assert_eq!(state("exited").await["State"]["ExitCode"], 137);
    s.call("POST", "/containers/web/start", None).await.must(204);
    s.call("DELETE", "/containers/web?force=1", None).await.must(204);
    s.get("/containers/web/json").await.must(404);
}

#[tokio::test]
async fn containers_are_found_by_name_id_and_prefix() {
    let s = served().await;
    let a = s.create("aa", &["true"]).await;
    let b = s.create("bb", &["true"]).await;
    for word in ["aa", "/aa", &a, &a[..12]] {
        let path = format!("/containers/{}/json", word.replace('/', "%2F"));
        assert_eq!(
            s.get(&path).await.must(200).json()["Id"].as_str(),
            Some(a.as_str()),
            "{word}"
        );
    }
    // A name wins over the beginning of another's id.
    let c = s.create(&b[..6], &["true"]).await;
    assert_eq!(
        s.get(&format!("/containers/{}/json", &b[..6])).await.json()["Id"].as_str(),
        Some(c.as_str())
    );
    let a = s
        .post("/containers/create?name=aa", json!({"Image": "busybox"}))
        .await
        .must(409);
    assert!(a.message().contains("is already in use by container"));
    // Seventeen ids share a first digit at least once.
    for i in 0..17 {
        s.create(&format!("more{i}"), &["true"]).await;
    }
    let ids: Vec<String> = s
        .get("/containers/json?all=1")
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["Id"].as_str().unwrap().into())
        .collect();
    let first = ids
        .iter()
        .map(|i| &i[..1])
        .find(|f| ids.iter().filter(|i| i.starts_with(f)).count() > 1)
        .unwrap();
    assert!(
        s.get(&format!("/containers/{first}/json"))
            .await
            .must(400)
            .message()
            .contains("Multiple IDs")
    );
}

#[tokio::test]
async fn a_missing_image_is_404_by_docker_s_sentence() {
    let s = served().await;
    let a = s.post("/containers/create", json!({"Image": "alpine"})).await.must(404);
    assert_eq!(a.message(), "No such image: alpine:latest");
}

#[tokio::test]
async fn what_cannot_start_says_so() {
    let s = served().await;
    let id = s.create("xx", &["nosuch"]).await;
    let a = s.call("POST", &format!("/containers/{id}/start"), None).await.must(400);
    assert!(a.message().contains("executable file not found in $PATH"));
    let doc = s.get("/containers/xx/json").await.json();
    assert_eq!(
        (doc["State"]["Status"].as_str(), doc["State"]["ExitCode"].as_i64()),
        (Some("created"), Some(127))
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let s = served().await;
    s.run("run1", &["sleep"]).await;
    s.run("done0", &["exit", "0"]).await;
    s.run("done3", &["exit", "3"]).await;
    let body = json!({"Image": "busybox", "Labels": {"tier": "front end"}});
    s.post("/containers/create?name=made", body).await.must(201);
    for n in ["done0", "done3"] {
        s.call("POST", &format!("/containers/{n}/wait"), None).await.must(200);
    }
    let names = async |query: &str| -> Vec<String> {
        let list = s.get(&format!("/containers/json?{query}")).await.must(200).json();
        let mut n: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["Names"][0].as_str().unwrap()[1..].to_string())
            .collect();
        n.sort();
        n
    };
    let f = |f: Value| {
        format!(
            "all=1&filters={}",
            f.to_string().replace('"', "%22").replace(' ', "%20")
        )
    };
    assert_eq!(names("").await, ["run1"]);
    assert_eq!(names("all=1").await, ["done0", "done3", "made", "run1"]);
    assert_eq!(names("limit=2").await.len(), 2);
    assert_eq!(names(&f(json!({"status": ["exited"]}))).await, ["done0", "done3"]);
    assert_eq!(names(&f(json!({"exited": ["3"]}))).await, ["done3"]);
    assert_eq!(names(&f(json!({"name": ["done"]}))).await, ["done0", "done3"]);
    assert_eq!(names(&f(json!({"label": ["tier=front end"]}))).await, ["made"]);
    assert_eq!(names(&f(json!({"label": {"from=image": true}}))).await.len(), 4);
    assert_eq!(names(&f(json!({"ancestor": ["busybox"]}))).await.len(), 4);
    assert_eq!(names(&f(json!({"ancestor": ["other"]}))).await.len(), 0);
    assert_eq!(names(&f(json!({"network": ["bridge"]}))).await.len(), 4);
    assert_eq!(names(&f(json!({"network": ["none"]}))).await.len(), 0);
    // A port of the image.
    assert_eq!(names(&f(json!({"expose": ["80/tcp"]}))).await.len(), 4);
    assert_eq!(names(&f(json!({"expose": ["81-90/tcp"]}))).await.len(), 0);
    s.get(&format!("/containers/json?{}", f(json!({"colour": ["red"]}))))
        .await
        .must(400);
    s.get(&format!("/containers/json?{}", f(json!({"status": ["odd"]}))))
        .await
        .must(400);
}

#[tokio::test]
async fn waits_end_with_the_exit_code() {
    let s = served().await;
    s.create("ww", &["exit", "7"]).await;
    assert_eq!(
        s.call("POST", "/containers/ww/wait", None).await.must(200).json()["StatusCode"],
        0
    );
    // The headers come at once, the body with the end.
    let next = s
        .open(Served::request("POST", "/containers/ww/wait?condition=next-exit", None))
        .await;
    let gone = s
        .open(Served::request("POST", "/containers/ww/wait?condition=removed", None))
        .await;
    assert_eq!(next.status(), 200);
    s.call("POST", "/containers/ww/start", None).await.must(204);
    let body = |r: http::Response<hyper::body::Incoming>| async {
        use http_body_util::BodyExt;
        let b = tokio::time::timeout(crate::support::PATIENCE, r.into_body().collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        serde_json::from_slice::<Value>(&b).unwrap()
    };
    assert_eq!(body(next).await["StatusCode"], 7);
    s.call("DELETE", "/containers/ww", None).await.must(204);
    assert_eq!(body(gone).await["StatusCode"], 7);
    s.create("vv", &["true"]).await;
    s.call("POST", "/containers/vv/wait?condition=odd", None)
        .await
        .must(400);
}

#[tokio::test]
async fn auto_remove_takes_the_container_and_its_nameless_volumes() {
    let s = served().await;
    let body =
        json!({"Image": "busybox", "Cmd": ["sleep"], "Volumes": {"/data": {}}, "HostConfig": {"AutoRemove": true}});
    s.post("/containers/create?name=gone", body).await.must(201);
    let volumes = s.get("/volumes").await.json()["Volumes"].as_array().unwrap().clone();
    assert_eq!(volumes.len(), 1);
    assert!(volumes[0]["Labels"].get("com.docker.volume.anonymous").is_some());
    s.call("POST", "/containers/gone/start", None).await.must(204);
    s.call("POST", "/containers/gone/stop", None).await.must(204);
    eventually("gone", async || {
        (s.get("/containers/gone/json").await.status == 404).then_some(())
    })
    .await;
    let body = json!({"Image": "busybox", "Volumes": {"/data": {}}});
    s.post("/containers/create?name=kept", body).await.must(201);
    let count = async || s.get("/volumes").await.json()["Volumes"].as_array().unwrap().len();
    let before = count().await;
    s.call("DELETE", "/containers/kept?v=1", None).await.must(204);
    eventually("its volume is gone", async || {
        (count().await == before - 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn limits_are_updated() {
    let s = served().await;
    s.create("uu", &["true"]).await;
    let a = s
        .post(
            "/containers/uu/update",
            json!({"Memory": 67108864, "NanoCpus": 500000000, "RestartPolicy": {"Name": "always"}}),
        )
        .await;
    assert_eq!(a.must(200).json()["Warnings"], json!([]));
    let h = s.get("/containers/uu/json").await.json()["HostConfig"].clone();
    assert_eq!(
        (&h["Memory"], &h["NanoCpus"], &h["RestartPolicy"]["Name"]),
        (&json!(67108864), &json!(500000000), &json!("always"))
    );
    s.post("/containers/uu/update", json!({"Memory": 1})).await.must(400);
    s.post("/containers/uu/update", json!({"BlkioWeight": 10}))
        .await
        .must(200);
    let h = s.get("/containers/uu/json").await.json()["HostConfig"].clone();
    assert_eq!(
        (&h["BlkioWeight"], &h["Memory"]),
        (&json!(10), &json!(67108864)),
        "what is not named stays"
    );
    let ulimits = json!({"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]});
    s.post("/containers/uu/update", ulimits).await.must(501);
}

#[tokio::test]
async fn images_come_get_names_and_go() {
    let s = served().await;
    let a = s
        .call("POST", "/images/create?fromImage=alpine&tag=3.20", None)
        .await
        .must(200);
    let text = a.text();
    assert!(
        text.contains("Pulling from library/alpine") && text.contains("Status: Downloaded newer image for alpine:3.20"),
        "{text}"
    );
    let a = s
        .call("POST", "/images/create?fromImage=alpine&tag=3.20", None)
        .await
        .must(200);
    assert!(a.text().contains("Image is up to date"));
    // Without a tag all there are, each with its own lines, and one status.
    let a = s.call("POST", "/images/create?fromImage=many", None).await.must(200);
    let text = a.text();
    for id in ["1", "2", "latest"] {
        let line = format!("{{\"status\":\"Pulling from library/many\",\"id\":\"{id}\"}}");
        assert!(text.contains(&line), "{id}: {text}");
    }
    assert_eq!(text.matches("Status: ").count(), 1, "{text}");
    assert!(text.contains("Status: Downloaded newer image for many\""), "{text}");
    assert!(
        s.call("POST", "/images/create?fromImage=missing", None)
            .await
            .must(404)
            .message()
            .contains("not found")
    );
    s.call("POST", "/images/create?fromImage=UPPER:::", None)
        .await
        .must(400);
    s.call(
        "POST",
        "/images/alpine:3.20/tag?repo=localhost:5000/team/app&tag=v1",
        None,
    )
    .await
    .must(201);
    let doc = s.get("/images/localhost:5000/team/app:v1/json").await.must(200).json();
    assert_eq!(doc["RepoTags"], json!(["alpine:3.20", "localhost:5000/team/app:v1"]));
    let id = doc["Id"].as_str().unwrap().to_string();
    assert_eq!(
        s.get(&format!("/images/{}/json", &id[7..19])).await.must(200).json()["Id"],
        doc["Id"]
    );
    assert_eq!(
        s.get("/images/alpine:3.20/history")
            .await
            .must(200)
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    s.call("DELETE", &format!("/images/{}", &id[7..19]), None)
        .await
        .must(409);
    let a = s.call("DELETE", "/images/alpine:3.20", None).await.must(200).json();
    assert!(a.as_array().unwrap().iter().all(|l| l.get("Deleted").is_none()), "{a}");
    let a = s
        .call("DELETE", "/images/localhost:5000/team/app:v1", None)
        .await
        .must(200)
        .json();
    assert_eq!(
        a.as_array().unwrap().last().unwrap()["Deleted"].as_str(),
        Some(id.as_str())
    );
    s.get("/images/alpine:3.20/json").await.must(404);
    s.create("user", &["true"]).await;
    assert!(
        s.call("DELETE", "/images/busybox", None)
            .await
            .must(409)
            .message()
            .contains("container")
    );
    assert_eq!(
        s.call("POST", "/images/prune", None).await.must(200).json()["SpaceReclaimed"],
        7
    );
    let push = s
        .call("POST", "/images/busybox/push?tag=latest", None)
        .await
        .must(200)
        .text();
    assert!(
        push.contains("The push refers to repository [docker.io/library/busybox]") && push.contains("\"aux\""),
        "{push}"
    );
    let told = s.told(json!({"event": ["push"]})).await;
    assert_eq!(told[0]["Actor"]["ID"], "busybox:latest");
    assert_eq!(told[0]["Actor"]["Attributes"]["name"], "busybox");
}

#[tokio::test]
async fn archives_pass_through() {
    let s = served().await;
    let a = s.get("/images/get?names=busybox&names=busybox:latest").await.must(200);
    assert_eq!(
        a.text(),
        "archive of docker.io/library/busybox:latest docker.io/library/busybox:latest"
    );
    let send = async |path: &str, body: &'static str| {
        let r = http::Request::post(path)
            .header("host", "d")
            .body(http_body_util::Full::new(body.into()))
            .unwrap();
        s.send(r).await
    };
    let loaded = send("/images/load?quiet=1", "archive of x").await.must(200);
    assert_eq!(loaded.lines().last().unwrap()["stream"], "Loaded image: loaded:1\n");
    let bad = send("/images/load", "rubbish").await.must(200);
    assert_eq!(bad.lines().last().unwrap()["error"], "this is no archive of images");
    let made = send("/images/create?fromSrc=-&repo=made&tag=1", "12345")
        .await
        .must(200);
    assert!(
        made.lines().last().unwrap()["status"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    s.get("/images/made:1/json").await.must(200);
}

#[tokio::test]
async fn networks_and_volumes() {
    let s = served().await;
    let body = json!({"Name": "front", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]}, "Labels": {"a": "b"}});
    let id = s.post("/networks/create", body.clone()).await.must(201).json()["Id"]
        .as_str()
        .unwrap()
        .to_string();
    s.post("/networks/create", body).await.must(409);
    s.post("/networks/create", json!({"Name": "bridge"})).await.must(403);
    s.post("/networks/create", json!({"Name": "o", "Driver": "overlay"}))
        .await
        .must(501);
    s.post(
        "/networks/create",
        json!({"Name": "o", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}),
    )
    .await
    .must(400);
    let doc = s.get(&format!("/networks/{}", &id[..12])).await.must(200).json();
    assert_eq!(
        doc["IPAM"]["Config"],
        json!([{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}])
    );
    let names: Vec<Value> = s
        .get("/networks")
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["Name"].clone())
        .collect();
    assert_eq!(names, ["bridge", "front", "host", "none"]);
    s.post(
        "/containers/create?name=on",
        json!({"Image": "busybox", "Cmd": ["sleep"], "HostConfig": {"NetworkMode": "front"}}),
    )
    .await
    .must(201);
    s.post(
        "/containers/create?name=off",
        json!({"Image": "busybox", "Cmd": ["sleep"]}),
    )
    .await
    .must(201);
    s.post(
        "/networks/front/connect",
        json!({"Container": "off", "EndpointConfig": {"Aliases": ["x"]}}),
    )
    .await
    .must(200);
    let doc = s.get("/containers/off/json").await.json();
    assert_eq!(doc["NetworkSettings"]["Networks"].as_object().unwrap().len(), 2);
    s.post("/networks/front/disconnect", json!({"Container": "off"}))
        .await
        .must(200);
    s.call("POST", "/containers/on/start", None).await.must(204);
    // What the node cannot do is its answer, and is not wanted any more.
    let refused = s
        .post("/networks/bridge/connect", json!({"Container": "on"}))
        .await
        .must(403);
    assert!(refused.json()["message"].as_str().unwrap().contains("joins nothing"));
    let doc = s.get("/containers/on/json").await.json();
    assert_eq!(doc["NetworkSettings"]["Networks"].as_object().unwrap().len(), 1);
    let doc = s.get("/networks/front").await.json();
    assert_eq!(doc["Containers"].as_object().unwrap().len(), 1);
    s.call("DELETE", "/networks/front", None).await.must(403);
    s.call("DELETE", "/containers/on?force=1", None).await.must(204);
    s.call("DELETE", "/networks/front", None).await.must(204);
    s.call("DELETE", "/networks/host", None).await.must(403);

    let v = s
        .post("/volumes/create", json!({"Name": "data", "Labels": {"k": "v w"}}))
        .await
        .must(201)
        .json();
    assert_eq!(
        (v["Mountpoint"].as_str(), v["Labels"]["k"].as_str()),
        (Some("/state/volumes/data"), Some("v w"))
    );
    s.post("/volumes/create", json!({"Name": "data"})).await.must(201);
    s.post("/volumes/create", json!({"Name": "../x"})).await.must(400);
    for (options, status) in [(json!({"type": "nfs"}), 400), (json!({"size": "1g"}), 501)] {
        s.post("/volumes/create", json!({"Name": "nfs", "DriverOpts": options}))
            .await
            .must(status);
    }
    s.post(
        "/containers/create?name=vol",
        json!({"Image": "busybox", "HostConfig": {"Binds": ["data:/d"]}}),
    )
    .await
    .must(201);
    assert!(
        s.call("DELETE", "/volumes/data", None)
            .await
            .must(409)
            .message()
            .contains("volume is in use")
    );
    s.call("DELETE", "/containers/vol", None).await.must(204);
    s.call("DELETE", "/volumes/data", None).await.must(204);
    s.get("/volumes/data").await.must(404);
    s.call("DELETE", "/volumes/data?force=1", None).await.must(204);

    // Paths alone are volumes without names, as many as are asked for.
    let body = json!({"Image": "busybox", "HostConfig": {"Binds": ["/one", "/two", "/three"]}});
    s.post("/containers/create?name=unnamed", body).await.must(201);
    let doc = s.get("/containers/unnamed/json").await.json();
    let mut mounts: Vec<(&str, &str)> = doc["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            assert_eq!(m["Name"].as_str().unwrap().len(), 64, "{m}");
            (m["Type"].as_str().unwrap(), m["Destination"].as_str().unwrap())
        })
        .collect();
    mounts.sort_unstable();
    assert_eq!(mounts, [("volume", "/one"), ("volume", "/three"), ("volume", "/two")]);
    s.call("DELETE", "/containers/unnamed?v=1", None).await.must(204);
}

#[tokio::test]
async fn events_are_told_and_kept() {
    let s = served().await;
    s.run("ev", &["exit", "4"]).await;
    s.call("POST", "/containers/ev/wait", None).await.must(200);
    s.call("DELETE", "/containers/ev", None).await.must(204);
    let words = eventually("all events", async || {
        let until = biga_model::Timestamp::now().as_second() + 1;
        let a = s
            .get(&format!(
                "/events?since=1&until={}&filters=%7B%22type%22%3A%5B%22container%22%5D%7D",
                until - 1
            ))
            .await
            .must(200);
        let words: Vec<String> = a
            .lines()
            .iter()
            .map(|l| l["Action"].as_str().unwrap().to_string())
            .collect();
        words.contains(&"destroy".to_string()).then_some(words)
    })
    .await;
    assert_eq!(words, ["create", "start", "die", "destroy"]);
    let live = s
        .open(Served::request(
            "GET",
            "/events?filters=%7B%22event%22%3A%5B%22die%22%5D%7D",
            None,
        ))
        .await;
    s.run("ev2", &["exit", "5"]).await;
    use http_body_util::BodyExt;
    let mut body = live.into_body();
    let frame = tokio::time::timeout(crate::support::PATIENCE, body.frame())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let line: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
    assert_eq!(
        (
            line["status"].as_str(),
            line["Actor"]["Attributes"]["exitCode"].as_str()
        ),
        (Some("die"), Some("5"))
    );
    assert_eq!(line["from"], "busybox");
}

#[tokio::test]
async fn what_is_not_here_says_so() {
    let s = served().await;
    assert!(
        s.get("/swarm")
            .await
            .must(503)
            .message()
            .starts_with("This node is not a swarm manager")
    );
    s.get("/nodes").await.must(503);
    s.get("/services/x").await.must(503);
    s.post("/swarm/init", json!({})).await.must(501);
    assert_eq!(s.get("/plugins").await.must(200).json(), json!([]));
    // This node of tests builds nothing.
    s.call("POST", "/build?t=x", None).await.must(501);
    s.call("POST", "/session", None).await.must(501);
    s.call("POST", "/grpc", None).await.must(501);
    let a = s.get("/images/search?term=x").await.must(501);
    assert!(a.message().starts_with("search is not offered"), "{a:?}");
    s.post("/auth", json!({"username": "u", "password": "p"}))
        .await
        .must(501);
    // The routes are there; it is the container that is not.
    for route in ["export", "changes", "archive?path=/", "checkpoints"] {
        s.get(&format!("/containers/xx/{route}")).await.must(404);
    }
    s.call("POST", "/commit?container=xx", None).await.must(404);
    s.call("POST", "/commit", None).await.must(400);
    let mut r = Served::request("POST", "/images/create?fromImage=private", None);
    let auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==";
    r.headers_mut().insert("x-registry-auth", auth.parse().unwrap());
    let a = s.send(r).await.must(200);
    assert!(a.text().contains("credentials"), "{}", a.text());
    let df = s.get("/system/df").await.must(200).json();
    assert_eq!(
        (df["Images"].as_array().unwrap().len(), &df["BuildCache"]),
        (1, &json!([]))
    );
}

#[tokio::test]
async fn many_wait_for_one_end() {
    let s = served().await;
    s.run("many", &["sleep"]).await;
    let waits = (0..200).map(|_| s.open(Served::request("POST", "/containers/many/wait", None)));
    let waiting = futures_util::future::join_all(waits).await;
    s.call("POST", "/containers/many/kill", None).await.must(204);
    for r in waiting {
        use http_body_util::BodyExt;
        let body = tokio::time::timeout(crate::support::PATIENCE, r.into_body().collect())
            .await
            .unwrap()
            .unwrap();
        let doc: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        assert_eq!(doc["StatusCode"], 137);
    }
}

#[tokio::test]
async fn what_biga_made_is_seen_with_its_isolation() {
    let s = served().await;
    let spec = biga_model::InstanceSpec {
        isolation: biga_model::Isolation::Vm,
        image: "debian-disk".into(),
        power: biga_model::Power::Stopped,
        ..Default::default()
    };
    let o = biga_model::Object::<biga_model::Instance>::new("machine", spec);
    let stored = biga_store::SpecWriter::new(s.node.store.clone())
        .create(o)
        .await
        .unwrap();
    let list = s.get("/containers/json?all=1").await.must(200).json();
    assert_eq!(
        (&list[0]["Names"][0], &list[0]["Image"]),
        (&json!("/machine"), &json!("debian-disk:latest"))
    );
    let doc = s.get("/containers/machine/json").await.must(200).json();
    assert_eq!(
        doc["Id"],
        json!(biga_api_docker::translate::ids::docker_id(stored.uid()))
    );
    assert_eq!(
        (
            &doc["HostConfig"]["Runtime"],
            &doc["HostConfig"]["Isolation"],
            &doc["Config"]["Tty"]
        ),
        (&json!("vm"), &json!("vm"), &json!(true))
    );
}

#[tokio::test]
async fn a_registry_is_asked_what_there_is() {
    let s = served().await;
    let d = s.get("/distribution/registry.test/a/b:1/json").await.must(200).json();
    assert_eq!(d["Descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(d["Descriptor"]["size"], 7);
    let want =
        json!([{"architecture": "amd64", "os": "linux"}, {"architecture": "arm", "os": "linux", "variant": "v7"}]);
    assert_eq!(d["Platforms"], want);
    let a = s.get("/distribution/registry.test/missing/json").await.must(404);
    assert!(a.message().contains("missing"), "{a:?}");
    s.get("/distribution/BAD/json").await.must(400);
    s.get("/distribution/a/b").await.must(404);
    let mut r = Served::request("GET", "/distribution/private/json", None);
    s.send(r.clone()).await.must(401);
    r.headers_mut().insert(
        "x-registry-auth",
        "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==".parse().unwrap(),
    );
    s.send(r).await.must(200);
}
