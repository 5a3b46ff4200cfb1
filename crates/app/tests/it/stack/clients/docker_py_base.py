"""What the parts of docker_py_surface.py have in common: the client, each of whose public methods is counted, and helpers."""

import functools
import inspect
import io
import json
import os
import socket
import struct
import sys
import tarfile
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone

import docker
import docker.models.containers
import docker.models.images
import docker.models.networks
import docker.models.plugins
import docker.models.volumes
from docker.errors import APIError, BuildError, DockerException, ImageNotFound, InvalidArgument, NotFound
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

BUSYBOX = "busybox:latest"
SLEEP = ["sleep", "1000"]
REGISTRY = "127.0.0.1:5000"
LOGIN = {"username": "me", "password": "secret"}
called = set()


def counted(cls):
    """Notes each public method of a class that is called. Gives their names."""
    names = set()
    for name, function in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or not function.__module__.startswith("docker."):
            continue
        label = f"{cls.__name__}.{name}"
        names.add(label)

        def wrap(function, label):
            @functools.wraps(function)
            def note(*args, **kwargs):
                called.add(label)
                return function(*args, **kwargs)

            return note

        setattr(cls, name, wrap(function, label))
    return names


surface = counted(docker.APIClient) | counted(docker.DockerClient)
for module in (
    docker.models.containers,
    docker.models.images,
    docker.models.networks,
    docker.models.volumes,
    docker.models.plugins,
):
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if cls.__module__ == module.__name__:
            surface |= counted(cls)
# Not calls of the engine, or of what only a swarm or a plugin that is there can be asked for.
surface -= {"APIClient.get_adapter", "APIClient.create_container_from_config", "ImageCollection.create"}
surface = {s for s in surface if not s.endswith(".prepare_model") and not s.startswith("Plugin.")}

client = docker.from_env(timeout=120)
low = client.api


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about")


def refused(status, call, *args, **kwargs):
    try:
        answer = call(*args, **kwargs)
        if inspect.isgenerator(answer):
            list(answer)
    except APIError as e:
        assert e.status_code == status, (call, e.status_code, e.explanation)
        assert e.explanation, "an error says why"
        return e.explanation
    raise AssertionError(f"{call} was not refused")


def make(name, command=SLEEP, **kwargs):
    """A container of the low-level client, with the options of a host config."""
    config = low.create_host_config(**kwargs.pop("host", {}))
    return low.create_container(BUSYBOX, command, name=name, host_config=config, stop_signal="SIGKILL", **kwargs)["Id"]


def frames(raw):
    """The frames of a multiplexed stream until its end: (1 or 2, bytes)."""

    def exactly(n):
        got = b""
        while len(got) < n:
            piece = raw.recv(n - len(got))
            if not piece:
                return None
            got += piece
        return got

    while True:
        head = exactly(8)
        if head is None:
            return
        kind, size = struct.unpack(">BxxxL", head)
        yield kind, exactly(size)


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o640
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def files_of(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: tar.extractfile(m).read() if m.isfile() else None for m in tar}
