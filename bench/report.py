"""From figures to tables: what was measured, and how it stands to the goals."""

CLIENTS = "docker CLI: "


def table(head, rows):
    """Markdown that is also read easily as text."""
    rows = [[str(c) for c in row] for row in rows]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    number = [all(r[i].replace(".", "", 1).isdigit() or r[i] in ("", "-") for r in rows) for i in range(len(head))]

    def line(cells):
        return "| " + " | ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, number)) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if n else "-") for w, n in zip(widths, number)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)]) + "\n"


def rows_table(rows):
    order, lines = {}, []
    for row in rows:
        if row["work"].startswith(CLIENTS) and "failed" not in row:
            continue
        if "cpu_ms" in row or "failed" in row:
            order.setdefault(row["work"], []).append(row)
    for work, group in order.items():
        for row in sorted(group, key=lambda r: r.get("cpu_ms", float("inf"))):
            if "cpu_ms" in row:
                figures = [f"{row['cpu_ms']:.1f}", f"{row['wall_ms']:.1f}", f"{row['wall_min_ms']:.1f}", row["rounds"]]
            else:
                figures = ["failed: " + row["failed"], "-", "-", "-"]
            lines.append([work, row["by"], *figures])
    return table(["work", "by", "CPU ms", "wall ms", "fastest", "rounds"], lines)


def goals(found):
    """The goals, what was reached, and whether that is enough. Without a peer there is no answer."""
    figures = {(r["work"], r["by"]): r for r in found["rows"]}

    def figure(work, by, what="cpu_ms"):
        return figures.get((work, by), {}).get(what)

    lines = []

    def goal(what, limit, value, unit="x", at_least=False):
        if value is None:
            lines.append([what, limit_text(limit, unit, at_least), "-", "not measured here"])
            return
        met = value >= limit if at_least else value <= limit
        lines.append([what, limit_text(limit, unit, at_least), f"{value:.3g}{suffix(unit)}", "yes" if met else "no"])

    def ratio(a, b):
        return a / b if a is not None and b else None

    none, bridge, bundle = "run a container, no network", "run a container, bridge", "run a bundle, no daemon"
    pull = "pull a 60 MB gzip layer"
    goal("`biga oci run` to the floor, CPU", 1.5, ratio(figure(bundle, "biga oci"), figure(bundle, "floor")))
    goal("`biga oci run` to crun, CPU", 1, ratio(figure(bundle, "biga oci"), figure(bundle, "crun")))
    goal("run, no network, to the floor, CPU", 2.5, ratio(figure(none, "biga"), figure(none, "floor")))
    goal("run, no network, to docker, CPU", 1 / 15, ratio(figure(none, "biga"), figure(none, "docker")))
    goal("run on the bridge to docker, CPU", 1 / 10, ratio(figure(bridge, "biga"), figure(bridge, "docker")))
    goal("exec to docker, CPU", 1 / 10, ratio(figure("exec", "biga"), figure("exec", "docker")))
    once = next((r["work"] for r in found["rows"] if r["work"].endswith("starts at once")), "")
    goal("50 starts at once to docker, wall", 1 / 10, ratio(figure(once, "biga", "wall_ms"), figure(once, "docker", "wall_ms")))
    goal("pull to `gzip -dc`, CPU", 1.5, ratio(figure(pull, "biga"), figure(pull, "gzip -dc")))
    goal("pull to docker, CPU", 1 / 3, ratio(figure(pull, "biga"), figure(pull, "docker")))
    goals_of_clients(figure, found, goal, ratio)
    many = found.get("many") or {}
    lists = [v for k, v in many.items() if k.startswith("list of ") and v["instances"] != 50]
    goal("list of all that runs", 20, max((l["all"]["one_ms"] for l in lists), default=None), "ms")
    idle = found.get("daemon_idle_pss_kib")
    goal("daemon idle, PSS", 40, idle / 1024 if idle else None, "MiB")
    after = found.get("daemon_after_work_pss_kib")
    if after:
        lines.append(["the same after all these rows and ten quiet seconds", "", f"{after / 1024:.3g} MiB", ""])
    shim = many.get("shim_pss_kib")
    goal("each running container, PSS", 1, shim / 1024 if shim else None, "MiB")
    for name in ("all", "by label", "by field"):
        rate = many.get("list of 50", {}).get(name, {}).get("per_second")
        goal(f"list of 50, {name}", 5000, rate, "/s", at_least=True)
    return table(["goal", "limit", "reached", "met"], lines)


def goals_of_clients(figure, found, goal, ratio):
    """Docker's command line with both engines: the engines' shares."""
    names = [r["work"] for r in found["rows"] if r["work"].startswith(CLIENTS) and r["by"] == "biga"]
    for work in names:
        by, limit = ("BuildKit", 1 / 2) if "build" in work else ("docker", 1 / 8)
        goal(f"{work}: engine's CPU to {by}'s", limit, ratio(figure(work, "biga", "engine_ms"), figure(work, by, "engine_ms")))
    for what, rates in ((w, r) for w, r in (found.get("rates") or {}).items() if w == "list"):
        goal(f"{CLIENTS}{what}s a second with 50, to docker", 20, ratio(rates["biga"], rates["docker"]), at_least=True)


def clients_table(found):
    lines = []
    for row in found["rows"]:
        if row["work"].startswith(CLIENTS) and "engine_ms" in row:
            client = row["cpu_ms"] - row["engine_ms"]
            lines.append([row["work"], row["by"], f"{row['engine_ms']:.1f}", f"{client:.1f}", f"{row['wall_ms']:.1f}"])
    rates = [[f"{what} with 50 running, requests a second", by, rate] for what, both in (found.get("rates") or {}).items()
             for by, rate in both.items()]
    lines.sort(key=lambda line: line[0])
    return table(["work", "engine", "engine CPU ms", "client CPU ms", "wall ms"], lines) + "\n" + table(["API", "engine", "figure"], rates)


def suffix(unit):
    return "x" if unit == "x" else unit if unit.startswith("/") else " " + unit


def limit_text(limit, unit, at_least):
    if unit == "x" and limit < 1:
        return f"1/{round(1 / limit)}"
    return f"{'at least ' if at_least else ''}{limit:g}{suffix(unit)}"


def many_table(many):
    lines = []
    for key, value in many.items():
        if key.startswith("list of "):
            for name, f in value.items():
                if isinstance(f, dict):
                    rate = f" ms, {f['per_second']:.0f}/s, {f['bytes']} bytes" if "per_second" in f else " ms"
                    lines.append([f"{key}, {name}", f"{f['one_ms']}{rate}"])
        elif key != "failed" or value:
            lines.append([key.replace("_", " "), value])
    return table(["with many", "figure"], lines)


def markdown(found):
    parts = ["## Rows\n", rows_table(found["rows"]), "\n## Goals\n", goals(found)]
    if found.get("rates"):
        parts += ["\n## Docker's command line with both engines\n", clients_table(found)]
    if found.get("many"):
        parts += ["\n## Many\n", many_table(found["many"])]
    if found["skipped"]:
        parts += ["\n## Left out\n", table(["what", "why"], [[s["work"], s["why"]] for s in found["skipped"]])]
    host = found["host"]
    parts.append(f"\nLinux {host['kernel']}, {host['cpus']} processors, load {host['load']} at the end.\n")
    return "\n".join(parts)
