"""Every public method of docker-py against the daemon of DOCKER_HOST: what it answers, and at the end that none was left out.

Needs Debian's docker-registry to listen on 127.0.0.1:5000, for `me` with the password `secret`.
"""

from docker_py_base import *


def system():
    assert client.ping() and low.ping()
    assert low.version(api_version=False)["Version"] == client.version()["Version"]
    # Each version of the API that is spoken.
    for version in ("1.24", "1.30", "1.40", "1.44", "auto"):
        other = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version=version, timeout=60)
        assert other.info()["ServerVersion"] == low.info()["ServerVersion"]
        assert other.containers(all=True) == [] and other.images()
        other.close()
    info = client.info()
    assert info["Images"] >= 1 and info["Containers"] == 0 and info["MemTotal"] > 1 << 28
    assert {"Network", "Volume", "Log"} <= set(info["Plugins"])
    df = low.df()
    assert any(BUSYBOX in (i["RepoTags"] or []) for i in df["Images"]), df
    assert client.df()["LayersSize"] == df["LayersSize"] > 0
    low.reload_config()
    other = docker.from_env()
    other.close()


def login():
    assert refused(401, low.login, registry=REGISTRY, username="me", password="wrong")
    answer = low.login(registry=REGISTRY, reauth=True, **LOGIN)
    assert answer["Status"] == "Login Succeeded", answer
    # Kept by the client, and asked no second time.
    assert client.login(registry=REGISTRY, **LOGIN)["password"] == "secret"


def registries():
    low.login(registry=REGISTRY, **LOGIN)
    name = f"{REGISTRY}/team/box"
    assert low.tag(BUSYBOX, name, "1") is True
    lines = [json.loads(l) for l in client.images.push(name, "1", auth_config=LOGIN).splitlines()]
    digest = next(l["aux"]["Digest"] for l in lines if "aux" in l)
    assert digest.startswith("sha256:") and not any("error" in l for l in lines), lines
    again = list(low.push(name, "1", stream=True, decode=True, auth_config=LOGIN))
    assert any("already exists" in l.get("status", "") for l in again), again
    bad = [json.loads(l) for l in client.images.push(name, "1", auth_config={"username": "me", "password": "no"}).splitlines()]
    assert any("error" in l for l in bad), bad
    found = low.inspect_distribution(f"{name}:1", auth_config=LOGIN)
    assert found["Descriptor"]["digest"] == digest and found["Platforms"][0]["os"] == "linux"
    data = client.images.get_registry_data(f"{name}:1", auth_config=LOGIN)
    assert data.id == digest and data.has_platform("linux/amd64") and not data.has_platform("linux/s390x")
    data.reload()
    client.images.remove(f"{name}:1")
    pulled = data.pull(platform="linux/amd64")
    assert pulled.id == client.images.get(BUSYBOX).id
    client.images.remove(f"{name}@{digest}" if not pulled.tags or f"{name}:1" not in pulled.tags else f"{name}:1", force=True)
    assert client.images.pull(name, tag="1", auth_config=LOGIN).id == pulled.id
    lines = list(low.pull(name, tag="1", stream=True, decode=True, auth_config=LOGIN))
    assert any("up to date" in l.get("status", "") for l in lines), lines
    # Without a login: as the registry answers, told to be missing or not allowed.
    stranger = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    stranger._auth_configs = docker.auth.AuthConfig({})
    try:
        stranger.pull(name, tag="1")
        raise AssertionError("it was pulled without a login")
    except (ImageNotFound, APIError) as e:
        assert e.status_code in (401, 403, 404, 500), e
    client.images.remove(f"{name}:1")
    refused(404, client.images.pull, f"{REGISTRY}/team/nonesuch", tag="1", auth_config=LOGIN)
    # Registries of the distribution specification have no search.
    refused(501, client.images.search, "busybox")
    refused(501, low.search, "busybox", limit=3)


def images():
    image = client.images.get(BUSYBOX)
    doc = low.inspect_image(BUSYBOX)
    assert doc["Id"] == image.id and doc["Architecture"] in ("amd64", "arm64") and doc["Size"] > 0
    assert doc["Config"]["Env"] == ["PATH=/bin", "FLAVOR=plain"]
    assert low.history(image.id)[0]["Id"] == image.id and image.history()[-1]["Size"] >= 0
    assert low.images(quiet=True) == [image.id]
    assert [i["Id"] for i in low.images(filters={"reference": "busy*"})] == [image.id]
    assert low.images(filters={"label": "nonesuch"}) == [] and low.images(name="nonesuch") == []
    assert low.images(filters={"dangling": True}) == []
    image.tag("kept", tag="1")
    image.reload()
    assert sorted(image.tags) == ["busybox:latest", "kept:1"]
    # Saved and loaded, by both layers of the client.
    archive = b"".join(low.get_image("kept:1"))
    names = files_of(archive)
    assert json.loads(names["manifest.json"])[0]["RepoTags"] == ["kept:1"]
    assert b"".join(image.save(named="kept:1"))[:100] == archive[:100]
    low.remove_image("kept:1")
    lines = list(low.load_image(archive))
    assert any("kept:1" in l.get("stream", "") for l in lines), lines
    assert client.images.load(archive)[0].id == image.id
    client.images.remove("kept:1")
    refused(404, low.remove_image, "kept:1")
    assert any("error" in l for l in low.load_image(b"no archive at all"))
    # Imports, from wherever they come.
    root = tar_of({"etc/hello": b"hi"})
    with tempfile.NamedTemporaryFile() as file:
        file.write(root)
        file.flush()
        low.import_image(src=file.name, repository="imp", tag="a")
        low.import_image_from_file(file.name, repository="imp", tag="b", changes=["CMD /bin/x"])
    low.import_image_from_stream((root[i : i + 1000] for i in range(0, len(root), 1000)), repository="imp", tag="c")
    low.import_image_from_data(root, repository="imp", tag="d")
    assert low.inspect_image("imp:b")["Config"]["Cmd"] == ["/bin/sh", "-c", "/bin/x"]
    ids = {low.inspect_image(f"imp:{t}")["RootFS"]["Layers"][0] for t in "abcd"}
    assert len(ids) == 1
    made = low.inspect_image("imp:a")["Created"]
    assert abs(time.time() - datetime.strptime(made[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z").timestamp()) < 600, made
    served = socket.create_server(("127.0.0.1", 0))

    def serve():
        peer, _ = served.accept()
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(root) + root)
        peer.close()

    server = threading.Thread(target=serve)
    server.start()
    low.import_image_from_url(f"http://127.0.0.1:{served.getsockname()[1]}/root.tar", repository="imp", tag="e")
    server.join()
    served.close()
    assert low.inspect_image("imp:e")["RootFS"]["Layers"][0] in ids
    # An image is no source of an import with Docker either: it takes it for an address.
    try:
        low.import_image_from_image("busybox", repository="imp", tag="f")
    except APIError as e:
        assert e.status_code in (400, 404, 500), e
    for tag in "abcde":
        client.images.remove(f"imp:{tag}")
    refused(404, low.inspect_image, "nonesuch")
    refused(404, low.history, "nonesuch")
    refused(404, low.tag, "nonesuch", "x")
    refused(400, low.tag, BUSYBOX, "Not/Lower")


def builds():
    text = b"FROM busybox AS first\nARG A=none\nLABEL l=1\nRUN echo $A > /a\nFROM first\nCOPY f /f\nRUN cat /f\nUSER 1000\n"
    context = tar_of({"Dockerfile": text, "f": b"of the context\n", ".dockerignore": b"x\n"})
    build = dict(fileobj=io.BytesIO(context), custom_context=True, rm=True, decode=True)
    lines = list(low.build(tag="made:1", buildargs={"A": "b"}, labels={"k": "v"}, pull=False, **build))
    said = "".join(l.get("stream", "") for l in lines)
    assert "of the context" in said and "Successfully tagged made:1" in said, said
    doc = low.inspect_image("made:1")
    assert doc["Config"]["User"] == "1000" and doc["Config"]["Labels"] == {"k": "v", "l": "1"}
    build["fileobj"] = io.BytesIO(context)
    part = list(low.build(tag="made:part", target="first", nocache=True, **build))
    assert not any("COPY" in l.get("stream", "") for l in part), part
    with tempfile.TemporaryDirectory() as path:
        with open(os.path.join(path, "Other"), "w") as f:
            f.write("FROM made:1\nCMD echo $$\n")
        image, _ = client.images.build(path=path, dockerfile="Other", tag="made:2", forcerm=True)
        assert image.attrs["Config"]["Cmd"] == ["/bin/sh", "-c", "echo $$"]
        refused(501, lambda: client.images.build(path=path, dockerfile="Other", squash=True))
        try:
            client.images.build(path=path, dockerfile="Other", target="nonesuch")
            raise AssertionError("a target that is not there")
        except (APIError, BuildError) as e:
            assert "nonesuch" in str(e)
    for name in ("made:2", "made:1", "made:part"):
        client.images.remove(name)
    pruned = client.images.prune(filters={"dangling": True})
    assert {"ImagesDeleted", "SpaceReclaimed"} <= set(pruned)
    assert low.prune_images()["SpaceReclaimed"] >= 0
    assert low.prune_builds()["SpaceReclaimed"] >= 0 and "SpaceReclaimed" in client.images.prune_builds()
    assert [t for i in client.images.list() for t in i.tags] == [BUSYBOX]


def create_options():
    host = dict(
        binds={"/proc/version": {"bind": "/version", "mode": "ro"}},
        port_bindings={"80/tcp": ("127.0.0.1", 8090), "53/udp": None},
        privileged=False,
        dns=["192.0.2.53"],
        dns_search=["example.org"],
        dns_opt=["ndots:3"],
        extra_hosts={"there": "192.0.2.9"},
        cap_add=["NET_ADMIN"],
        cap_drop=["MKNOD"],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        mem_limit="64m",
        memswap_limit="128m",
        mem_reservation="32m",
        mem_swappiness=10,
        oom_score_adj=100,
        cpu_shares=512,
        cpu_period=100000,
        cpu_quota=50000,
        cpuset_cpus="0",
        pids_limit=64,
        shm_size="8m",
        tmpfs={"/t": "size=1m,mode=1777"},
        ulimits=[Ulimit(name="nofile", soft=99, hard=100)],
        sysctls={"net.ipv4.ip_default_ttl": "77"},
        group_add=["2000"],
        ipc_mode="private",
        read_only=True,
        init=True,
        security_opt=["no-new-privileges"],
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
        mounts=[Mount("/m", None, type="tmpfs", tmpfs_size=1 << 20)],
        device_cgroup_rules=["c 1:3 rwm"],
        devices=["/dev/zero:/dev/nil:rw"],
        cgroup_parent="",
        auto_remove=False,
    )
    made = make(
        "full",
        host=host,
        ports=[80, (53, "udp"), 9000],
        environment=["A=b"],
        labels=["one", "two"],
        domainname="example.org",
        hostname="full",
        user="app",
        working_dir="/t",
        tty=False,
        stdin_open=True,
        healthcheck={"test": ["NONE"]},
        stop_timeout=3,
    )
    config = low.create_container_config(BUSYBOX, SLEEP, host_config=low.create_host_config())
    assert config["Image"] == BUSYBOX
    low.start(made)
    doc = low.inspect_container("full")
    h = doc["HostConfig"]
    wanted = {
        "Memory": 64 << 20,
        "MemorySwap": 128 << 20,
        "MemoryReservation": 32 << 20,
        "MemorySwappiness": 10,
        "OomScoreAdj": 100,
        "CpuShares": 512,
        "CpuPeriod": 100000,
        "CpuQuota": 50000,
        "CpusetCpus": "0",
        "PidsLimit": 64,
        "ShmSize": 8 << 20,
        "ReadonlyRootfs": True,
        "Init": True,
        "Dns": ["192.0.2.53"],
        "DnsSearch": ["example.org"],
        "DnsOptions": ["ndots:3"],
        "GroupAdd": ["2000"],
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["MKNOD"],
        "ExtraHosts": ["there:192.0.2.9"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "Sysctls": {"net.ipv4.ip_default_ttl": "77"},
        "SecurityOpt": ["no-new-privileges"],
        "DeviceCgroupRules": ["c 1:3 rwm"],
    }
    wrong = {k: h.get(k) for k, v in wanted.items() if h.get(k) != v and k not in ("CapAdd", "CapDrop")}
    assert not wrong, wrong
    assert [c.removeprefix("CAP_") for c in h["CapAdd"] + h["CapDrop"]] == ["NET_ADMIN", "MKNOD"]
    c = client.containers.get("full")
    tell = lambda command: until(command, lambda: c.exec_run(["sh", "-c", command]).output).decode()
    assert "ttl 77" in tell("echo ttl $(cat /proc/sys/net/ipv4/ip_default_ttl)")
    assert tell("ulimit -n; ulimit -Hn; id -u; id -G; pwd; hostname").split() == ["99", "100", "1000", "1000", "2000", "/t", "full"]
    assert "example.org" in tell("cat /etc/resolv.conf") and "192.0.2.9" in tell("cat /etc/hosts")
    assert "Linux version" in tell("cat /version") and "Read-only" in tell("echo x > /etc/x 2>&1; true; touch /y 2>&1")
    assert tell("ls /dev/nil; grep -c NoNewPrivs.*1 /proc/self/status").split() == ["/dev/nil", "1"]
    assert tell("grep -o 'tmpfs /m ' /proc/mounts").strip() == "tmpfs /m"
    assert low.port("full", 80) == [{"HostIp": "127.0.0.1", "HostPort": "8090"}]
    assert low.port("full", "53/udp")[0]["HostPort"] and c.ports["9000/tcp"] is None
    assert doc["Config"]["Labels"] == {"one": "", "two": ""} and doc["Config"]["StopTimeout"] == 3
    listed = low.containers(filters={"name": "full"})[0]
    assert {"PrivatePort": 9000, "Type": "tcp"} in listed["Ports"], listed["Ports"]
    low.remove_container("full", force=True, v=True)
    # What this host has not, and what makes no sense.
    try:
        client.containers.run(BUSYBOX, "true", device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])])
        raise AssertionError("there is no GPU here")
    except APIError as e:
        assert e.status_code in (400, 500, 501), e
    client.containers.prune()
    for bad in (
        {"mem_limit": "1k"},
        {"cpuset_cpus": "9999"},
        {"network_mode": "container:nonesuch"},
        {"restart_policy": {"Name": "sometimes"}},
        {"security_opt": ["nonesuch=1"]},
        {"sysctls": {"kernel.panic": "1"}},
    ):
        try:
            made = make("bad", host=bad)
            low.start(made)
            raise AssertionError(f"{bad} was taken")
        except APIError as e:
            assert e.status_code in (400, 404, 409, 500), (bad, e)
        finally:
            for c in client.containers.list(all=True, ignore_removed=True):
                c.remove(force=True)
    for call in (lambda: low.create_host_config(mem_limit="x"), lambda: low.create_host_config(network_mode="host", port_bindings={1: 1})):
        try:
            call()
        except (DockerException, InvalidArgument):
            pass


def life():
    made = make("one", ["sh", "-c", "trap 'exit 9' USR1; echo begun; while :; do sleep 0.1; done"], labels={"k": "v"})
    assert [c["Id"] for c in low.containers(all=True)] == [made] and low.containers() == []
    low.start("one")
    until("begun", lambda: low.logs("one") == b"begun\n")
    low.pause("one")
    assert low.containers(filters={"status": "paused"})[0]["Id"] == made
    refused(409, low.pause, "one")
    low.unpause("one")
    refused(409, low.unpause, "one")
    low.rename("one", "uno")
    refused(404, low.inspect_container, "one")
    client.containers.get("uno").rename("one")
    refused(400, low.rename, "one", "/")
    low.resize("one", 30, 100)
    low.update_container("one", mem_limit="80m", memswap_limit="160m", cpu_shares=256, restart_policy={"Name": "no"})
    h = low.inspect_container("one")["HostConfig"]
    assert (h["Memory"], h["MemorySwap"], h["CpuShares"]) == (80 << 20, 160 << 20, 256), h
    top = low.top("one")
    assert "PID" in top["Titles"] and len(top["Processes"]) >= 1
    refused(500, low.top, "one", ps_args="--no-such-option")
    stats = low.stats("one", stream=False)
    assert stats["memory_stats"]["limit"] == 80 << 20 and stats["pids_stats"]["current"] >= 1 and stats["networks"]
    two = [s for s, _ in zip(low.stats("one", decode=True), range(2))]
    assert two[1]["cpu_stats"]["cpu_usage"]["total_usage"] >= two[0]["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    if "one_shot" in inspect.signature(low.stats).parameters:
        shot = low.stats("one", stream=False, one_shot=True)
        assert shot["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    low.kill("one", signal="USR1")
    assert low.wait("one")["StatusCode"] == 9
    refused(409, low.kill, "one")
    low.restart("one", timeout=1)
    assert low.inspect_container("one")["State"]["Running"]
    low.start("one")  # 304
    low.stop("one", timeout=1)
    low.stop("one")  # 304
    assert low.wait("one", condition="not-running")["StatusCode"] in (137, 143)
    refused(404, low.wait, "nonesuch")
    waiting = {}

    def wait(condition):
        waiting[condition] = low_of().wait("one", condition=condition)["StatusCode"]

    # A client of its own each, since one waits on one connection.
    low_of = lambda: docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=60)
    threads = [threading.Thread(target=wait, args=(c,)) for c in ("next-exit", "removed")]
    for t in threads:
        t.start()
    # Until both wait: what they wait for comes only after.
    time.sleep(0.5)
    low.start("one")
    low.kill("one")
    threads[0].join(60)
    low.remove_container("one")
    threads[1].join(60)
    assert waiting["next-exit"] == 137 and waiting["removed"] in (137, 0), waiting
    refused(404, low.remove_container, "one")
    for name in ("pp", "qq"):
        make(name, labels={"prune": name})
    pruned = low.prune_containers(filters={"label": ["prune=pp"]})
    assert len(pruned["ContainersDeleted"]) == 1 and pruned["SpaceReclaimed"] >= 0
    assert len(client.containers.prune(filters={"until": "0s"})["ContainersDeleted"] or []) == 1
    refused(400, client.containers.prune, filters={"nonesuch": "x"})


def lists():
    a = client.containers.run(BUSYBOX, SLEEP, name="aa", detach=True, labels={"g": "1"}, stop_signal="KILL", ports={"80": 8095})
    b = client.containers.run(BUSYBOX, ["sh", "-c", "exit 3"], name="bb", detach=True, labels={"g": "2"}, network_mode="none")
    b.wait()
    named = lambda **kwargs: sorted(c.name for c in client.containers.list(**kwargs))
    assert named() == ["aa"] and named(all=True) == ["aa", "bb"]
    assert named(limit=1) == ["bb"]
    for filters, names in [
        ({"exited": 3}, ["bb"]),
        ({"status": "exited"}, ["bb"]),
        ({"label": "g=1"}, ["aa"]),
        ({"label": ["g"]}, ["aa", "bb"]),
        ({"id": b.id[:10]}, ["bb"]),
        ({"name": "a"}, ["aa"]),
        ({"since": "aa"}, ["bb"]),
        ({"before": "bb"}, ["aa"]),
        ({"ancestor": "busybox"}, ["aa", "bb"]),
        ({"network": "bridge"}, ["aa"]),
        ({"publish": "8095"}, ["aa"]),
        ({"volume": "nonesuch"}, []),
        ({"health": "none"}, ["aa", "bb"]),
        ({"is-task": "false"}, ["aa", "bb"]),
    ]:
        assert named(all=True, filters=filters) == names, filters
    refused(400, client.containers.list, filters={"status": "nonesuch"})
    assert low.containers(all=True, size=True, latest=True)[0]["SizeRootFs"] >= 0
    assert client.containers.list(sparse=True)[0].attrs["Id"] == a.id
    assert client.containers.list(ignore_removed=True)[0].id == a.id
    assert a.attach_socket(params={"stdout": 1, "logs": 1}) and a.image.tags == [BUSYBOX] and a.short_id == a.id[: len(a.short_id)]
    a.remove(force=True)
    b.remove()


def archives():
    made = make("files", labels={"f": "1"})
    c = client.containers.get("files")
    assert low.put_archive(made, "/tmp", tar_of({"a": b"one", "d/b": b"two"})) is True
    low.start(made)
    assert c.put_archive("/tmp/d", tar_of({"c": b"three"})) is True
    chunks, stat = low.get_archive(made, "/tmp/d")
    assert files_of(b"".join(chunks)) == {"d": None, "d/b": b"two", "d/c": b"three"}
    assert stat["name"] == "d" and stat["mode"] & 0o777 == 0o755, stat
    chunks, stat = c.get_archive("/tmp/a", chunk_size=100)
    assert files_of(b"".join(chunks)) == {"a": b"one"} and stat["size"] == 3 and stat["mode"] == 0o640
    refused(404, low.get_archive, made, "/nonesuch")
    refused(404, low.put_archive, made, "/nonesuch", tar_of({"a": b""}))
    refused(400, low.put_archive, made, "/tmp", b"no archive")
    refused(400, low.put_archive, made, "/tmp/a", tar_of({"a": b""}))
    until("a change", lambda: c.exec_run(["rm", "/etc/group"]).exit_code == 0)
    changes = {e["Path"]: e["Kind"] for e in low.diff(made)}
    assert changes["/tmp/a"] == 1 and changes["/tmp"] == 0 and changes["/etc/group"] == 2, changes
    assert c.diff() == low.diff(made)
    whole = files_of(b"".join(low.export(made)))
    norm = {k.removeprefix("./"): v for k, v in whole.items()}
    assert norm["tmp/d/c"] == b"three" and "etc/group" not in norm
    assert sum(map(len, c.export(chunk_size=1 << 16))) > 1 << 20
    image = c.commit("committed", tag="1", message="m", author="me", changes=["ENV X=y", "LABEL z=1"])
    assert image.attrs["Config"]["Labels"]["z"] == "1" and "X=y" in image.attrs["Config"]["Env"] and image.attrs["Author"] == "me"
    again = low.commit(made, "committed", tag="2", conf={"Cmd": ["cat", "/tmp/a"]})
    assert low.inspect_image("committed:2")["Id"] == again["Id"]
    assert client.containers.run("committed:2", remove=True) == b"one"
    refused(404, low.commit, "nonesuch", "x")
    c.remove(force=True)
    client.images.remove("committed:1")
    client.images.remove("committed:2")


def execs():
    made = make("host", environment={"OUTER": "1"})
    low.start(made)
    e = low.exec_create(made, "sh -c 'echo out; echo err >&2; exit 4'", stderr=True, privileged=False, environment={"IN": "2"})
    doc = low.exec_inspect(e["Id"])
    assert doc["Running"] is False and doc["ExitCode"] is None and doc["ContainerID"] == made
    assert doc["ProcessConfig"]["arguments"] == ["-c", "echo out; echo err >&2; exit 4"]
    # Not by `exec_start`, which may lose what comes with an answer's headers: see `reads_ahead`.
    sock = low.exec_start(e["Id"], socket=True)
    raw = getattr(sock, "_sock", sock)
    got = sorted(f for f in frames(raw) if f[1])
    assert set(k for k, _ in got) <= {1, 2}
    until("its code", lambda: low.exec_inspect(e["Id"])["ExitCode"] == 4)
    refused(409, low.exec_start, e["Id"])
    e = low.exec_create(made, ["sh", "-c", "read x; stty size; echo got $x"], stdin=True, tty=True)
    sock = low.exec_start(e["Id"], tty=True, socket=True)
    raw = getattr(sock, "_sock", sock)
    low.exec_resize(e["Id"], height=33, width=77)
    raw.sendall(b"it\n")
    seen = b""
    while b"got it" not in seen:
        piece = raw.recv(1024)
        assert piece, seen
        seen += piece
    assert b"33 77" in seen, seen
    e = low.exec_create(made, ["sh", "-c", "echo $IN $OUTER > /tmp/e"], environment=["IN=2"])
    assert low.exec_start(e["Id"], detach=True) in ("", b"")
    until("its end", lambda: low.exec_inspect(e["Id"])["ExitCode"] == 0)
    assert files_of(b"".join(low.get_archive(made, "/tmp/e")[0])) == {"e": b"2 1\n"}
    e = low.exec_create(made, ["nonesuch"])
    low.exec_start(e["Id"])
    until("its failure", lambda: low.exec_inspect(e["Id"])["ExitCode"] in (126, 127))
    refused(404, low.exec_create, "nonesuch", "true")
    refused(404, low.exec_start, "nonesuch")
    refused(404, low.exec_resize, "nonesuch", 1, 1)
    low.stop(made, timeout=0)
    refused(409, low.exec_create, made, "true")
    low.remove_container(made)


def streams():
    made = make("cat", ["sh", "-c", "cat; echo done >&2"], stdin_open=True)
    sock = low.attach_socket(made, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw = getattr(sock, "_sock", sock)
    low.start(made)
    raw.sendall(b"hello\n")
    reading = frames(raw)
    assert next(reading) == (1, b"hello\n")
    low.kill(made)
    assert [f for f in reading] == []
    low.remove_container(made)
    made = make("log", ["sh", "-c", "for i in 1 2 3 4; do echo o$i; echo e$i >&2; sleep 0.05; done; sleep 1000"])
    low.start(made)
    c = client.containers.get("log")
    until("all lines", lambda: low.logs(made).count(b"\n") == 8)
    assert low.logs(made, stderr=False) == b"o1\no2\no3\no4\n" and c.logs(stdout=False) == b"e1\ne2\ne3\ne4\n"
    assert low.logs(made, tail=1) == b"e4\n" and low.logs(made, tail=0) == b""
    stamped = low.logs(made, timestamps=True, stderr=False).decode().splitlines()
    times = [datetime.strptime(l[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z") for l in stamped]
    assert times == sorted(times) and len(times) == 4
    ahead = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(hours=1)
    assert low.logs(made, since=ahead) == b"" and low.logs(made, until=1) == b""
    assert low.logs(made, since=1).count(b"\n") == 8 and low.logs(made, until=ahead).count(b"\n") == 8
    follow = low.logs(made, stream=True, follow=True)
    got = b""
    while got.count(b"\n") < 8:
        got += next(follow)
    follow.close()
    seen = []
    attached = c.attach(stream=True, logs=True, stdout=True, stderr=True, demux=True)
    for out, err in attached:
        seen.append((out, err))
        if b"e4" in b"".join(e or b"" for _, e in seen) and b"o4" in b"".join(o or b"" for o, _ in seen):
            break
    assert b"".join(o or b"" for o, _ in seen) == b"o1\no2\no3\no4\n"
    c.kill()
    assert low.attach(made, logs=True, stderr=False) == b"o1\no2\no3\no4\n"
    refused(404, low.logs, "nonesuch")
    c.remove()


def networks():
    pool = docker.types.IPAMPool(subnet="10.127.0.0/24", gateway="10.127.0.1")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    made = low.create_network("net", driver="bridge", ipam=ipam, labels={"n": "1"}, options={"com.docker.network.driver.mtu": "1400"})
    doc = low.inspect_network(made["Id"])
    assert doc["Name"] == "net" and doc["IPAM"]["Config"][0]["Subnet"] == "10.127.0.0/24" and doc["Labels"] == {"n": "1"}
    assert doc["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert [n["Name"] for n in low.networks(names=["net"])] == ["net"] and [n["Id"] for n in low.networks(ids=[made["Id"]])]
    assert [n.name for n in client.networks.list(filters={"label": "n=1"}, greedy=True)] == ["net"]
    assert [n.name for n in client.networks.list(filters={"type": "custom"})] == ["net"]
    c = make("member", networking_config=low.create_networking_config({"net": low.create_endpoint_config(ipv4_address="10.127.0.9", aliases=["al"])}))
    low.start(c)
    net = client.networks.get("net")
    assert "10.127.0.9" in json.dumps(low.inspect_network("net", verbose=False)["Containers"])
    assert net.containers[0].name == "member"
    other = client.networks.create("other", internal=True, attachable=True, scope="local")
    low.connect_container_to_network("member", "other", aliases=["oo"])
    assert "oo" in low.inspect_container("member")["NetworkSettings"]["Networks"]["other"]["Aliases"]
    low.disconnect_container_from_network("member", "other", force=True)
    other.reload()
    other.connect("member")
    other.disconnect("member")
    refused(404, low.connect_container_to_network, "nonesuch", "other")
    refused(404, low.connect_container_to_network, "member", "nonesuch")
    refused(409, low.create_network, "net")
    refused(403, low.create_network, "clash", ipam=ipam)
    refused(403, low.remove_network, "bridge")
    refused(404, low.remove_network, "nonesuch")
    low.remove_container(c, force=True)
    low.remove_network("other")
    assert low.prune_networks(filters={"label": "n=2"})["NetworksDeleted"] in (None, [])
    assert client.networks.prune()["NetworksDeleted"] == ["net"]
    made = client.networks.create("again")
    made.remove()


def volumes():
    doc = low.create_volume("vol", driver="local", labels={"v": "1"})
    assert doc["Name"] == "vol" and doc["Driver"] == "local" and doc["Scope"] == "local"
    assert low.inspect_volume("vol")["Labels"] == {"v": "1"}
    assert [v["Name"] for v in low.volumes(filters={"label": "v=1"})["Volumes"]] == ["vol"]
    assert client.volumes.list(filters={"dangling": True})[0].name == "vol"
    client.volumes.get("vol").reload()
    anonymous = client.volumes.create()
    assert len(anonymous.name) == 64
    refused(404, low.inspect_volume, "nonesuch")
    refused(404, low.remove_volume, "nonesuch")
    refused(400, low.create_volume, "no/slash")
    try:
        low.create_volume("x", driver="nonesuch")
        raise AssertionError("a driver that is not there")
    except APIError as e:
        assert e.status_code in (400, 404, 501), e
    # By default only those without a name.
    assert client.volumes.prune()["VolumesDeleted"] == [anonymous.name]
    low.remove_volume("vol", force=True)
    client.volumes.create("named", labels={"p": "1"})
    assert low.prune_volumes(filters={"all": ["true"], "label": ["p=1"]})["VolumesDeleted"] == ["named"]
    client.volumes.create("last").remove()


def events():
    since = time.time()
    made = make("seen", ["true"])
    low.start(made)
    low.wait(made)
    low.remove_container(made)
    until_now = time.time() + 1
    past = list(low.events(since=since - 1, until=until_now, decode=True, filters={"container": "seen"}))
    actions = [e["Action"] for e in past if e["Type"] == "container"]
    assert actions == ["create", "start", "die", "destroy"], actions
    assert past[0]["Actor"]["Attributes"]["image"] == BUSYBOX and past[0]["scope"] == "local" and past[0]["timeNano"] > since * 1e9 - 2e9
    raw = b"".join(l if isinstance(l, bytes) else l.encode() for l in client.events(since=since - 1, until=until_now))
    assert b'"destroy"' in raw


def swarms_and_plugins():
    for call in (
        low.nodes,
        low.services,
        low.tasks,
        low.secrets,
        low.configs,
        low.inspect_swarm,
        low.leave_swarm,
        low.get_unlock_key,
        lambda: low.inspect_node("n"),
        lambda: low.inspect_service("s"),
        lambda: low.inspect_task("t"),
        lambda: low.inspect_secret("s"),
        lambda: low.inspect_config("c"),
        lambda: low.remove_node("n"),
        lambda: low.remove_service("s"),
        lambda: low.remove_secret("s"),
        lambda: low.remove_config("c"),
        lambda: low.service_logs("s"),
        lambda: low.update_node("n", 1, {}),
        lambda: low.create_secret("s", b"d"),
        lambda: low.create_config("c", b"d"),
        lambda: low.create_service(docker.types.TaskTemplate(docker.types.ContainerSpec(BUSYBOX)), name="s"),
        lambda: low.update_service("s", 1, docker.types.TaskTemplate(docker.types.ContainerSpec(BUSYBOX))),
        lambda: low.update_swarm(1, low.create_swarm_spec()),
        lambda: low.unlock_swarm("key"),
        lambda: low.init_swarm("127.0.0.1"),
        lambda: low.join_swarm(["127.0.0.1"], "token"),
    ):
        try:
            call()
            raise AssertionError(f"{inspect.getsource(call) if call.__name__ == '<lambda>' else call} was taken")
        except APIError as e:
            assert e.status_code in (503, 501, 406), (e, call)
    assert low.plugins() == [] and client.plugins.list() == []
    refused(404, client.plugins.get, "nonesuch")
    for call in (low.inspect_plugin, low.enable_plugin, low.disable_plugin, low.remove_plugin, low.push_plugin):
        refused(404, call, "nonesuch")
    refused(404, low.configure_plugin, "nonesuch", {"A": "b"})
    refused(404, low.upgrade_plugin, "nonesuch", "remote", [])
    refused(501, low.plugin_privileges, "nonesuch")
    refused(501, low.pull_plugin, "nonesuch", [])
    refused(501, client.plugins.install, "nonesuch")
    with tempfile.TemporaryDirectory() as path:
        os.mkdir(os.path.join(path, "rootfs"))
        with open(os.path.join(path, "config.json"), "w") as f:
            f.write("{}")
        refused(501, low.create_plugin, "mine", path)
        refused(501, client.plugins.create, "mine", path)


def models():
    """What the upper layer has and nothing before has called."""
    c = client.containers.create(BUSYBOX, ["sh", "-c", "read x; exit 5"], name="mm", stdin_open=True, tty=True, stop_signal="KILL")
    c.start()
    c.pause()
    c.unpause()
    c.resize(20, 80)
    assert c.top()["Processes"] and c.stats(stream=False)["read"]
    c.update(cpu_shares=100)
    c.restart(timeout=0)
    c.stop(timeout=0)
    assert c.wait()["StatusCode"] == 137
    c.reload()
    c.remove()
    v = client.volumes.create("mv")
    assert v == client.volumes.get("mv")
    v.remove(force=True)
    image = client.images.get(BUSYBOX)
    image.tag("by-id:1")
    client.images.get("by-id:1")
    low.import_image_from_data(tar_of({"x": b"y"}), repository="alone", tag="1")
    alone = client.images.get("alone:1")
    if hasattr(alone, "remove"):
        alone.remove()
    else:
        client.images.remove(alone.id)
    refused(404, low.inspect_image, "alone:1")
    client.images.remove("by-id:1")


PARTS = [system, login, registries, images, builds, create_options, life, lists, archives, execs, streams, networks, volumes, events, swarms_and_plugins, models]
wanted = sys.argv[1:]
for part in PARTS:
    if not wanted or part.__name__ in wanted:
        part()
        # Containers of a build's steps go a little later.
        until("all to be gone", lambda: not client.containers.list(all=True, ignore_removed=True))
        print(part.__name__, "ok", flush=True)
if not wanted:
    left_out = sorted(surface - called)
    assert not left_out, f"not tried: {left_out}"
    print(json.dumps({"docker-py": docker.__version__, "methods": len(surface)}))
