"""Many at once: 50 starts together, 500 running, what a list of them takes, what each costs in memory, a restart of the
daemon over them."""
import statistics
import subprocess
import time

from measure import Meter, load, memory, quiet

BATCH = 25


def at_once(bench, by, peer, image):
    """Starts many together and waits for all; then removes them."""
    count = bench.options.at_once
    names = [f"bench-{by}-{i}" for i in range(count)]
    cpu, wall, failed = [], [], None
    for _ in range(bench.options.slow_rounds):
        with Meter(bench.groups, peer.groups, peer.daemons) as meter:
            running = [
                subprocess.Popen([*map(str, peer.run), "-d", "--name", name, "--network", "none", image, "sleep", "1000000"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                for name in names
            ]
            words = [p.communicate(timeout=600)[1] for p in running]
            meter.answered()
        bad = [w for p, w in zip(running, words) if p.returncode != 0]
        if bad:
            failed = f"{len(bad)} of {count} failed: {bad[0].strip().splitlines()[-1][:100] if bad[0].strip() else 'no word'}"
        else:
            cpu.append(meter.cpu)
            wall.append(meter.wall)
        quiet(*peer.client, "rm", "-f", *names)
    found = {"work": f"{count} starts at once", "by": by, "rounds": len(cpu)}
    if cpu:
        found |= {"cpu_ms": round(statistics.median(cpu), 1), "wall_ms": round(statistics.median(wall), 1),
                  "wall_min_ms": round(min(wall), 1)}
    elif failed:
        found["failed"] = failed
    return found


def start(bench, names, image):
    """Starts instances in batches; a list of what failed."""
    failed = []
    for at in range(0, len(names), BATCH):
        running = [
            (name, subprocess.Popen([str(bench.biga), "run", "-d", "--name", name, "--network", "none", "--label", "bench=many",
                                     image, "sleep", "1000000"],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
            for name in names[at : at + BATCH]
        ]
        for name, process in running:
            words = process.communicate(timeout=600)[1]
            if process.returncode != 0:
                failed.append(f"{name}: {words.strip()[:200]}")
    return failed


def lists(bench, count):
    """Lists over the native API, plain and by selectors: requests a second and the time of one."""
    path = "/apis/biga.dev/v1/namespaces/default/instances"
    queries = {"all": "", "by label": "?labelSelector=bench%3Dmany", "by field": "?fieldSelector=status.phase%3DRunning"}
    found = {}
    for name, query in queries.items():
        one = load(bench.loader, bench.socket, path + query, 1, 1.5)
        two = load(bench.loader, bench.socket, path + query, 2, 1.5)
        found[name] = {"one_ms": round(one["median_us"] / 1000, 3), "per_second": max(one["per_second"], two["per_second"]),
                       "bytes": one["bytes"]}
    begin = time.monotonic()
    quiet(bench.biga, "ps")
    found["biga ps"] = {"one_ms": round((time.monotonic() - begin) * 1000, 1)}
    return found | {"instances": count}


def many(bench, count, image):
    """`count` running instances."""
    names = [f"many-{i}" for i in range(count)]
    found = {"instances": count}
    half = names[:50]
    failed = start(bench, half, image)
    found["list of 50"] = lists(bench, len(half))
    begin = time.monotonic()
    failed += start(bench, names[50:], image)
    found["started_per_second"] = round((count - 50) / (time.monotonic() - begin), 1) if count > 50 else None
    found["failed"] = failed[:5]
    found[f"list of {count}"] = lists(bench, count)
    shims = [memory(int(file.read_text())) for file in bench.run.glob("instances/*/shim.pid")]
    found["shims"] = len(shims)
    found["shim_pss_kib"] = round(statistics.mean(m["pss"] for m in shims), 1) if shims else None
    found["shim_private_kib"] = round(statistics.mean(m["private"] for m in shims), 1) if shims else None
    found["daemon_pss_kib"] = memory(bench.daemon.pid)["pss"]
    found |= restart(bench, names)
    quiet(bench.biga, "rm", "-f", *names)
    return found


def restart(bench, names):
    """Ends the daemon and starts it over what runs: how long until it answers, and until the last is in its hands."""
    bench.stop_daemon()
    begin = time.monotonic()
    with Meter(bench.groups, (bench.prefix,)) as meter:
        bench.start_daemon()
        answered = time.monotonic() - begin
        while not quiet(bench.biga, "exec", names[-1], "true"):
            if time.monotonic() - begin > 120:
                break
            time.sleep(0.02)
        taken = time.monotonic() - begin
        meter.answered()
    running = subprocess.run([str(bench.biga), "ps", "-q"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()
    return {"restart_answers_ms": round(answered * 1000), "restart_took_over_ms": round(taken * 1000),
            "restart_cpu_ms": round(meter.cpu), "running_after_restart": len([n for n in running if n.startswith("many-")])}
