"""What the benchmarks measure with: processor time of control groups and processes, memory, and rows of commands."""
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time

GROUP = "biga-bench"
# Where processor time is counted on hosts with the older control groups.
V1 = pathlib.Path("/sys/fs/cgroup/cpuacct")
TICK = os.sysconf("SC_CLK_TCK")
# Work that goes on after the client has its answer (a shim that cleans up) is waited for, the same for every row.
SETTLE_SECONDS = 0.25


class Groups:
    """Processor time of control groups, in either version."""

    def __init__(self):
        self.v1 = V1
        self.root = self.v1 if self.v1.is_dir() else pathlib.Path("/sys/fs/cgroup")
        self.own = self.root / GROUP

    def enter(self):
        self.own.mkdir(exist_ok=True)
        (self.own / "cgroup.procs").write_text(str(os.getpid()))

    def leave(self):
        (self.root / "cgroup.procs").write_text(str(os.getpid()))
        self.remove(GROUP)

    def remove(self, group):
        """Removes a group and those below it, as soon as they are empty. Other runtimes make it in every hierarchy of v1."""
        base = pathlib.Path("/sys/fs/cgroup")
        for top in [base / group, *base.glob(f"*/{group}")]:
            for _ in range(100):
                try:
                    for path in sorted(top.rglob("*"), reverse=True):
                        if path.is_dir():
                            path.rmdir()
                    top.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)
                else:
                    break

    def milliseconds(self, group):
        """Of the group and of all below it, those removed meanwhile too."""
        path = self.root / group
        try:
            if self.root == self.v1:
                return int((path / "cpuacct.usage").read_text()) / 1e6
            for line in (path / "cpu.stat").read_text().splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e3
        except (OSError, ValueError):
            pass
        return 0.0


def named(names):
    """Running processes by name: id and the fields of their stat after the name."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        # Names of threads and long programs are cut at 15 bytes.
        if text[text.index("(") + 1 : text.rindex(")")] in {n[:15] for n in names}:
            yield int(stat.parent.name), text[text.rindex(")") + 2 :].split()


def processes(names):
    """Milliseconds of processor time of running processes by name, with children that were waited for."""
    return sum(sum(int(f) for f in fields[11:15]) for _, fields in named(names)) * 1000 / TICK


def homes(names):
    """Control groups of running processes by name, where each has one that is not the root: what they start is counted
    there to the end, which names cannot do."""
    found = set()
    for pid, _ in named(names):
        for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == ("cpuacct" if V1.is_dir() else ""):
                found.add(path.strip("/"))
    return tuple(found) if found and all(found) else ()


def memory(pid):
    """KiB of a process: proportional share, and what is its own alone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return {"pss": 0, "private": 0}
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:] if line.endswith(" kB")}
    return {"pss": found.get("Pss", 0), "private": found.get("Private_Dirty", 0) + found.get("Private_Clean", 0)}


def sh(*command, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, **kwargs)


def quiet(*command):
    """Whether a command exists and succeeds."""
    try:
        return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def load(program, socket, path, connections=1, seconds=2.0):
    """Answers a second, median time and size of GET requests to a unix socket."""
    answer = sh(program, socket, path, connections, seconds, capture_output=True, text=True)
    return json.loads(answer.stdout)


def waited_for():
    """Milliseconds of processor time of the commands that this program ran and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (children.ru_utime + children.ru_stime) * 1000


class Meter:
    """Processor time and wall of what happens inside a `with`, over everything that takes part in it."""

    def __init__(self, groups, others=(), daemons=(), family=False):
        self.groups, self.others, self.daemons, self.family = groups, others, daemons, family

    def read(self):
        """Of our own group (clients, daemon), of others (containers), less what this program itself used. Of a `family`: of its
        processes, which are all waited for. Their groups come and go, and take what they counted with them."""
        if self.family:
            return waited_for()
        total = self.groups.milliseconds(GROUP) + sum(self.groups.milliseconds(g) for g in self.others)
        return total + processes(self.daemons) - time.process_time() * 1000

    def __enter__(self):
        self.before = self.read()
        self.clients = waited_for()
        self.start = time.monotonic()
        self.wall = None
        return self

    def answered(self):
        """The client has its answer; what is still at work belongs to the processor time only."""
        self.wall = (time.monotonic() - self.start) * 1000

    def __exit__(self, *_):
        if self.wall is None:
            self.answered()
        time.sleep(SETTLE_SECONDS)
        self.cpu = self.read() - self.before
        # What is not the client's: the engine's share.
        self.engine = max(0.0, self.cpu - (waited_for() - self.clients))


class Row:
    """One command, measured again and again. `before` runs outside the measure, ahead of each; `env` is added to its environment."""

    def __init__(self, work, by, command, groups=(), daemons=(), rounds=None, before=None, family=False, env=None):
        self.family, self.env = family, env
        self.work, self.by, self.command = work, by, command
        self.groups, self.daemons, self.rounds, self.before = groups, daemons, rounds, before
        self.cpu, self.engine, self.wall, self.failed = [], [], [], None

    def measure(self, groups, number):
        if (self.rounds is not None and number > self.rounds) or (self.failed and not self.cpu):
            return
        if self.before:
            self.before()
        # One that differs from round to round is made anew for each.
        command = self.command(number) if callable(self.command) else self.command
        with Meter(groups, self.groups, self.daemons, self.family) as meter:
            result = subprocess.run(
                [str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
                env=os.environ | self.env if self.env else None)
            meter.answered()
        if result.returncode != 0:
            words = (result.stderr or result.stdout).strip().splitlines()
            self.failed = words[-1][:100] if words else f"exit code {result.returncode}"
        elif number > 0:
            # The first round only warms caches.
            self.cpu.append(meter.cpu)
            self.engine.append(meter.engine)
            self.wall.append(meter.wall)

    def report(self):
        found = {"work": self.work, "by": self.by, "rounds": len(self.cpu)}
        if self.failed:
            found["failed"] = self.failed
        if self.cpu:
            found["cpu_ms"] = round(statistics.median(self.cpu), 2)
            found["engine_ms"] = round(statistics.median(self.engine), 2)
            found["wall_ms"] = round(statistics.median(self.wall), 2)
            found["wall_min_ms"] = round(min(self.wall), 2)
        return found
