"""Testcontainers for Python against the daemon of DOCKER_HOST, with a stand-in for its reaper (which no registry here has)."""

import io
import os
import pathlib
import tempfile
import time
import urllib.request

import docker

RYUK = "testcontainers/ryuk:stand-in"
os.environ["RYUK_CONTAINER_IMAGE"] = RYUK
# It must be there, and a socket, for the reaper to say that it has started; it acknowledges each filter as the real one does.
RYUK_FILE = b"""FROM busybox
COPY <<-"EOT" /handle
	#!/bin/sh
	while read -r line; do echo "filter $line" > /proc/1/fd/1; echo ACK; done
	echo "session over" > /proc/1/fd/1
EOT
COPY <<-"EOT" /serve
	#!/bin/sh
	[ -S /var/run/docker.sock ] || exit 1
	(sleep 1; echo "the reaper has Started!") &
	exec nc -ll -p 8080 -e /handle
EOT
RUN chmod 755 /handle /serve
CMD ["/serve"]
"""
engine = docker.from_env()
engine.images.build(fileobj=io.BytesIO(RYUK_FILE), tag=RYUK, rm=True)

from testcontainers.core.container import DockerContainer, Reaper
from testcontainers.core.image import DockerImage
from testcontainers.core.labels import LABEL_SESSION_ID, SESSION_ID
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, HttpWaitStrategy, LogMessageWaitStrategy

web = ["sh", "-c", "mkdir -p /www; echo hello $WHO > /www/index.html; echo serving; exec httpd -f -p 80 -h /www"]


def fetch(container, port):
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(port)}/"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


with tempfile.TemporaryDirectory() as mounted, Network() as network:
    pathlib.Path(mounted, "given").write_text("by the host\n")
    server = DockerContainer("busybox").with_command(web).with_env("WHO", "tester").with_exposed_ports(80)
    server = server.with_network(network).with_network_aliases("server").with_volume_mapping(mounted, "/given", "ro")
    server.waiting_for(HttpWaitStrategy(80).for_status_code(200))
    with server:
        assert fetch(server, 80) == b"hello tester\n"
        own = server.get_wrapped_container()
        own.reload()
        assert own.labels[LABEL_SESSION_ID] == SESSION_ID
        read = server.exec(["cat", "/given/given"])
        # docker-py may lose what comes with an answer's headers: asked again then.
        while read.exit_code == 0 and not read.output:
            read = server.exec(["cat", "/given/given"])
        assert (read.exit_code, read.output) == (0, b"by the host\n"), read
        out, err = server.get_logs()
        assert b"serving" in out, (out, err)
        client = DockerContainer("busybox").with_command(["sh", "-c", "wget -q -O - http://server/; sleep 1000"])
        client = client.with_network(network).waiting_for(LogMessageWaitStrategy("hello tester").with_startup_timeout(60))
        client = client.with_kwargs(stop_signal="SIGKILL")
        with client:
            assert b"hello tester" in client.get_logs()[0]
    assert server.get_wrapped_container().id not in [c.id for c in engine.containers.list(all=True)]

    # An image that is built for a test, and that tells its health.
    pathlib.Path(mounted, "Dockerfile").write_text(
        "FROM busybox\nHEALTHCHECK --interval=200ms --retries=300 CMD test -f /ok\nCMD sleep 1; touch /ok; exec sleep 1000\nSTOPSIGNAL SIGKILL\n"
    )
    with DockerImage(path=mounted, tag="fortest:1") as image:
        with DockerContainer(str(image)).waiting_for(HealthcheckWaitStrategy()) as healthy:
            state = healthy.get_wrapped_container()
            state.reload()
            assert state.attrs["State"]["Health"]["Status"] == "healthy"
    assert "fortest:1" not in [t for i in engine.images.list() for t in i.tags]

reaper = Reaper.get_instance()._container.get_wrapped_container()
end = time.monotonic() + 60
wanted = f"filter label={LABEL_SESSION_ID}={SESSION_ID}".encode()
while wanted not in reaper.logs():
    assert time.monotonic() < end, reaper.logs()
    time.sleep(0.1)
Reaper.delete_instance()
# It was to remove itself.
while engine.containers.list(all=True):
    assert time.monotonic() < end, engine.containers.list(all=True)
    time.sleep(0.1)
engine.images.remove(RYUK)
