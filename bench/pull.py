"""The pull of a 60 MB gzip layer from a registry on loopback, beside `gzip -dc` of it alone."""
import gzip
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tarfile
import time

from measure import Row, quiet

WORK = "pull a 60 MB gzip layer"
SIZE = 60 << 20
NAME = "bench/layer"


def tree(out, wanted):
    """A tar of files as images hold them (programs and libraries of this host), until gzip makes `wanted` of it."""
    with gzip.open(out, "wb", compresslevel=6) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for top in ("/usr/lib", "/usr/bin", "/usr/share"):
            for directory, _, names in os.walk(top):
                for name in sorted(names):
                    path = pathlib.Path(directory, name)
                    if path.is_symlink() or not path.is_file() or path.stat().st_size > 32 << 20:
                        continue
                    tar.add(path, arcname=str(path).lstrip("/"), recursive=False)
                    if packed.fileobj.tell() >= wanted:
                        return


class Registry:
    """Debian's docker-registry on loopback, with the image in it."""

    def __init__(self, work):
        self.work = work
        self.process = None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]

    def start(self):
        config = self.work / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.work}/registry}}}}\n"
            f"http: {{addr: 127.0.0.1:{self.port}}}\n")
        with open(self.work / "registry.log", "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for _ in range(200):
            try:
                return self.call("GET", "/v2/")
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the registry did not start: " + (self.work / "registry.log").read_text())

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"the registry answered {answer.status} to {method} {path}")
        return answer

    def put_blob(self, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        location = self.call("POST", f"/v2/{NAME}/blobs/uploads/").getheader("Location")
        path = location.split(f":{self.port}", 1)[-1]
        self.call("PUT", f"{path}&digest={digest}", data, {"Content-Type": "application/octet-stream"})
        return {"digest": digest, "size": len(data)}

    def put_image(self, layer, tag):
        """The layer with one file more, which tells it from those under other tags: an engine that keeps layers has none of it."""
        one = tarfile.TarInfo(f"tag-{tag}")
        one.size = len(tag)
        begin = one.tobuf() + tag.encode().ljust(tarfile.BLOCKSIZE, b"\0")
        packed = gzip.compress(begin) + layer.read_bytes()
        diff = hashlib.sha256(begin)
        with gzip.open(layer) as plain:
            while piece := plain.read(1 << 20):
                diff.update(piece)
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/usr/bin/true"]},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff.hexdigest()]}}
        oci = "application/vnd.oci.image"
        manifest = {"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json",
                    "config": {"mediaType": f"{oci}.config.v1+json", **self.put_blob(json.dumps(config).encode())},
                    "layers": [{"mediaType": f"{oci}.layer.v1.tar+gzip", **self.put_blob(packed)}]}
        self.call("PUT", f"/v2/{NAME}/manifests/{tag}", json.dumps(manifest), {"Content-Type": manifest["mediaType"]})

    def reference(self, row, number):
        """What a row pulls in a round: no engine has had it before."""
        return f"127.0.0.1:{self.port}/{NAME}:{row}-{number}"

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)


def rows(bench):
    """Rows of the pull; none, and why, where there is no registry."""
    if not shutil.which("docker-registry"):
        bench.skip(WORK, "docker-registry is not installed")
        return []
    layer = bench.work / "layer.tar.gz"
    tree(layer, SIZE)
    bench.registry = Registry(bench.work)
    bench.registry.start()
    rounds = bench.options.slow_rounds
    for tag in [f"{row}-{number}" for row in ("own", "cli") for number in range(rounds + 1)]:
        bench.registry.put_image(layer, tag)

    def pulling(*command):
        return lambda number: [*command, bench.registry.reference("own", number)]

    # The registry serves from outside our group's children, so its own work counts for all alike and is left out.
    pathlib.Path(bench.groups.root, "cgroup.procs").write_text(str(bench.registry.process.pid))
    found = [
        Row(WORK, "gzip -dc", ["sh", "-c", f"gzip -dc {layer} >/dev/null"], rounds=rounds),
        Row(WORK, "biga", pulling(bench.biga, "image", "pull"), groups=(bench.prefix,), rounds=rounds),
    ]
    for peer in bench.peers:
        plain = ["--tls-verify=false"] if peer.name == "podman" else []
        found.append(Row(WORK, peer.name, pulling(*peer.client, "pull", "-q", *plain), groups=peer.groups,
                         daemons=peer.daemons, rounds=rounds))
    return found
