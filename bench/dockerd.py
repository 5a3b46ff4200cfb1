"""A Docker engine of our own to measure beside: Debian's dockerd and containerd, in a control group and directories of their
own. It uses the network namespace of the benchmark, so nothing of it is left in the host's."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from measure import quiet

# Where scripts/setup-dockerd unpacks them, for hosts that have none installed.
UNPACKED = pathlib.Path("/usr/local/lib/docker-debian12")
GROUP = "biga-bench-docker"


def programs():
    """The search path with dockerd and containerd on it; None where they are not here."""
    path = os.pathsep.join([str(UNPACKED / "usr/sbin"), str(UNPACKED / "usr/bin"), os.environ["PATH"], "/usr/sbin", "/sbin"])
    needed = ("dockerd", "containerd", "runc", "iptables")
    return path if all(shutil.which(name, path=path) for name in needed) else None


class Dockerd:
    """dockerd with its containerd. `socket` is where it answers."""

    def __init__(self, work, groups):
        self.groups = groups
        self.state = work / "dockerd"
        self.socket = self.state / "docker.sock"
        self.process = None

    def start(self):
        """Whether it answers in the end; its words are in `dockerd.log`."""
        path = programs()
        if not path:
            return False
        self.state.mkdir()
        home = self.groups.root / GROUP
        home.mkdir(exist_ok=True)

        def enter():
            (home / "cgroup.procs").write_text(str(os.getpid()))

        command = ["dockerd", "--host", f"unix://{self.socket}", "--data-root", self.state / "data", "--exec-root", self.state / "run",
                   "--pidfile", self.state / "docker.pid", "--cgroup-parent", f"/{GROUP}/containers", "--exec-opt",
                   "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2"]
        with open(self.state / "dockerd.log", "wb") as log:
            self.process = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=enter,
                env=os.environ | {"PATH": path})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if quiet("docker", "-H", f"unix://{self.socket}", "version"):
                return True
            time.sleep(0.1)
        return False

    def words(self):
        """Its last words."""
        log = self.state / "dockerd.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1][:200] if lines else "dockerd, containerd, runc or iptables is not here"

    def stop(self):
        if self.process:
            client = ["docker", "-H", f"unix://{self.socket}"]
            done = subprocess.run([*client, "ps", "-aq"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.stdout.split():
                quiet(*client, "rm", "-f", *done.stdout.split())
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(30)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        self.sweep()

    def sweep(self):
        """What a killed dockerd leaves: processes of its group, mounts, control groups."""
        for _ in range(50):
            procs = self.groups.root / GROUP / "cgroup.procs"
            left = procs.read_text().split() if procs.exists() else []
            for pid in left:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
            if not left:
                break
            time.sleep(0.1)
        mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([m for m in mounts if m.startswith(str(self.state))]):
            quiet("umount", "-l", mount)
        self.groups.remove(GROUP)
