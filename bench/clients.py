"""Docker's command line as the client of both engines: ours and dockerd, each through its own socket. What the client
itself uses is the same for both and taken off: the engine's share is compared."""
import shutil
import statistics
import subprocess

from dockerd import GROUP, UNPACKED
from measure import Meter, Row, load, quiet, sh
from report import CLIENTS as FAMILY

IMAGE = "localhost/biga-bench"
HELD = "biga-bench-cli"
RUNNING = 50
DOCKERFILE = f"""FROM {IMAGE}
RUN echo one > /one
RUN mkdir /two && echo two > /two/file
COPY file /three
"""


class Engine:
    """One engine behind a socket."""

    def __init__(self, name, socket, groups):
        self.name, self.socket, self.groups = name, socket, groups
        self.client = ["docker", "-H", f"unix://{socket}"]


def engines(bench):
    """Ours and dockerd; fewer than two where there is nothing to compare."""
    if not shutil.which("docker"):
        bench.skip(FAMILY + "all", "no docker command line")
        return []
    if not bench.dockerd:
        bench.skip(FAMILY + "all", "no dockerd to compare with")
        return []
    return [Engine("biga", bench.run / "docker.sock", (bench.prefix,)), Engine("docker", bench.dockerd.socket, (GROUP,))]


def context(bench):
    """A directory to build from."""
    directory = bench.work / "context"
    directory.mkdir(exist_ok=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "file").write_text("three\n")
    return directory


def rows(bench):
    """Rows of single commands, the engines in turn."""
    found, directory = [], context(bench)
    for engine in engines(bench):
        docker, kw = engine.client, {"groups": engine.groups}
        sh(*docker, "import", bench.work / "busybox.tar", IMAGE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sh(*docker, "run", "-d", "--name", HELD, "--network", "none", IMAGE, "sleep", "1000000", stdout=subprocess.DEVNULL)
        both = "{0} create --name biga-bench-two --network none {1} true && {0} start -a biga-bench-two".format(" ".join(docker), IMAGE)
        build = [*docker, "build", "-q", "-t", "biga-bench/built", directory]
        slow = bench.options.slow_rounds
        found += [
            Row(FAMILY + "run, no network", engine.name, [*docker, "run", "--rm", "--network", "none", IMAGE, "true"], **kw),
            Row(FAMILY + "run, bridge", engine.name, [*docker, "run", "--rm", IMAGE, "true"], **kw),
            Row(FAMILY + "exec", engine.name, [*docker, "exec", HELD, "true"], **kw),
            Row(FAMILY + "create and start", engine.name, ["sh", "-c", both],
                before=lambda d=docker: quiet(*d, "rm", "-f", "biga-bench-two"), **kw),
            *builds(engine, build, slow, kw),
        ]
        if bench.registry:
            pull = lambda number, d=docker: [*d, "pull", "-q", bench.registry.reference("cli", number)]  # noqa: E731
            found.append(Row(FAMILY + "pull of a 60 MB gzip layer", engine.name, pull, rounds=slow, **kw))
    return found


def builds(engine, build, rounds, kw):
    """A build of three steps, all of it and out of the cache. With dockerd by BuildKit too: the command line of its own age
    speaks that without a plugin."""
    classic = {"DOCKER_BUILDKIT": "0"}
    uncached = [*build[:-1], "--no-cache", build[-1]]
    found = [
        Row(FAMILY + "build, no cache", engine.name, uncached, env=classic, rounds=rounds, **kw),
        Row(FAMILY + "build, cached", engine.name, build, env=classic, rounds=rounds, **kw),
    ]
    old = UNPACKED / "usr/bin/docker"
    if engine.name == "docker" and old.exists():
        modern = {"DOCKER_BUILDKIT": "1"}
        found += [
            Row(FAMILY + "build, no cache", "BuildKit", [old, *uncached[1:]], env=modern, rounds=rounds, **kw),
            Row(FAMILY + "build, cached", "BuildKit", [old, *build[1:]], env=modern, rounds=rounds, **kw),
        ]
    return found


def at_once(bench, engine):
    """Starts many in parallel and leaves them running."""
    names = [f"biga-bench-cli-{i}" for i in range(RUNNING)]
    with Meter(bench.groups, engine.groups) as meter:
        running = [subprocess.Popen([*engine.client, "run", "-d", "--name", name, "--network", "none", IMAGE, "sleep", "1000000"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                   for name in names]
        words = [p.communicate(timeout=600)[1] for p in running]
        meter.answered()
    found = {"work": f"{FAMILY}{RUNNING} starts in parallel", "by": engine.name, "rounds": 1}
    bad = [w.strip() for w, p in zip(words, running) if p.returncode != 0]
    if bad:
        return found | {"failed": f"{len(bad)} failed: {bad[0][:100]}"}
    return found | {"cpu_ms": round(meter.cpu, 1), "engine_ms": round(meter.engine, 1), "wall_ms": round(meter.wall, 1),
                    "wall_min_ms": round(meter.wall, 1)}


def with_many(bench):
    """With 50 running: `docker ps`, and how often a second each answers lists and inspects."""
    both = engines(bench)
    found, rates = [at_once(bench, engine) for engine in both], {}
    lists = [Row(f"{FAMILY}ps with {RUNNING} running", e.name, [*e.client, "ps"], groups=e.groups) for e in both]
    for number in range(bench.options.rounds + 1):
        for row in lists:
            row.measure(bench.groups, number)
    paths = {"list": "/v1.41/containers/json", "inspect": f"/v1.41/containers/{HELD}/json"}
    for what, path in paths.items():
        taken = {e.name: [] for e in both}
        for _ in range(3):
            for engine in both:
                taken[engine.name].append(load(bench.loader, engine.socket, path, 1, 1.0)["per_second"])
        rates[what] = {name: round(statistics.median(values)) for name, values in taken.items()}
    return found + [row.report() for row in lists], rates


def clean(bench):
    """Our own engine goes as a whole; dockerd removes what it runs when it is stopped."""
    for engine in engines(bench) if bench.dockerd else []:
        names = [f"biga-bench-cli-{i}" for i in range(RUNNING)]
        quiet(*engine.client, "rm", "-f", HELD, "biga-bench-two", *names)
