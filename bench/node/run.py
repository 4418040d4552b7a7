#!/usr/bin/env python3
"""A node beside other package servers: the same packages, the same requests, in one rotated run on one small machine.

The server under test has core 0, the load generator core 1; loopback, plain HTTP, kept connections, no access log. Every
round visits every (case, server) pair in rotated order. CPU is on-CPU time of the server's process tree per request. nginx
serves files that Bowline rendered and compressed beforehand: it is the bound, not a package server.

    bench/node/run.py --bowline target/release/bowline --venv .venv-bench --out bench/runs/DATE-MACHINE-node
"""
import argparse
import http.client
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import apps
import content
import installs
from measure import cpu_by_thread, cpu_since, wrk
from servers import JSON, PEERS, PIP, Servers, fetch

BASES = ["nginx", "devpi"]
UPLOADERS = ["devpi", "pypiserver", "bowline"]
PACKED = "Accept-Encoding: gzip, deflate"
ALIKE = "Accept-Encoding: identity"


def page(servers, name, project, form):
    url = servers.index(name, project)
    # nginx does not negotiate.
    return url + f"index.{form}" if name == "nginx" else url


def index(servers, name, project, form):
    if form == "json" and name == "pypiserver":
        return None
    return page(servers, name, project, form), 64, [f"Accept: {PIP if form == 'json' else 'text/html'}", PACKED]


def unchanged(servers, name):
    url = page(servers, name, "small", "json")
    etag = fetch(url, Accept=JSON, Accept_Encoding="gzip")[0]["ETag"]
    return (url, 64, [f"Accept: {PIP}", PACKED, f"If-None-Match: {etag}"]) if etag else None


def file(servers, name, project, connections=64):
    largest = max(range(len(servers.projects[project])), key=lambda at: len(servers.projects[project][at][1]))
    return servers.listed(name, project)[largest], connections, [ALIKE]


def metadata(servers, name):
    if name not in ("nginx", "bowline"):
        return None
    return servers.listed(name, "small")[0] + ".metadata", 64, [PACKED]


def cran(servers, name, path):
    base = {"nginx": "", "bowline": "/packages/cran/latest"}.get(name)
    return None if base is None else (f"{servers.urls[name]}{base}/src/contrib/{path}", 16, [])


# Each gives URL, connections and fields, or nothing where a server has no such thing.
CASES = {
    "index of 5 files, JSON": lambda s, n: index(s, n, "small", "json"),
    "index of 300 files, JSON": lambda s, n: index(s, n, "big", "json"),
    "index of 5 files, HTML": lambda s, n: index(s, n, "small", "html"),
    "index of 300 files, HTML": lambda s, n: index(s, n, "big", "html"),
    "index not modified (304)": unchanged,
    "core metadata": metadata,
    "file of 200 kB": lambda s, n: file(s, n, "middle"),
    "file of 20 MB": lambda s, n: file(s, n, "huge", 8),
    "PACKAGES.rds, 22,000 packages": lambda s, n: cran(s, n, "PACKAGES.rds"),
    "PACKAGES.gz, 22,000 packages": lambda s, n: cran(s, n, "PACKAGES.gz"),
}
UPLOAD = "upload of a small wheel"


def uploading(servers, name, seconds, tag):
    """Eight clients that publish wheels nobody has seen, on core 1."""
    path, fields = servers.uploads(name)
    ended, counts, errors = time.time() + seconds, [0] * 8, []

    def client(at):
        connection = http.client.HTTPConnection(servers.urls[name].removeprefix("http://"), timeout=60)
        while time.time() < ended:
            version = f"{tag}.{at}.{counts[at]}"
            filename, data = content.wheel(f"up{at}", version)
            body, kind = content.form(f"up{at}", version, filename, data)
            connection.request("POST", path, body, {**fields, "Content-Type": kind})
            response = connection.getresponse()
            told = response.read()
            if response.status != 200:
                errors.append(f"{response.status} {told[:100]}")
                return
            counts[at] += 1

    os.sched_setaffinity(0, {1})
    threads = [threading.Thread(target=client, args=(at,)) for at in range(8)]
    began = time.time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"n": sum(counts), "seconds": time.time() - began, "bytes": 0, "p50_ms": None, "p99_ms": None,
            "errors": " ".join(errors[:1])}


def check(case, url, fields):
    """What is measured must be right first."""
    named = dict(field.split(": ", 1) for field in fields)
    if "If-None-Match" in named:
        return
    fields, body = fetch(url, **named)
    if not body or (case.endswith("JSON") and "json" not in fields["Content-Type"]):
        raise SystemExit(f"{url} is not what was asked for: {fields}")


def measured(servers, peers, rounds, seconds, cases):
    rows = []
    asked = {(case, name): CASES[case](servers, name) for case in cases if case in CASES for name in peers}
    asked = {key: value for key, value in asked.items() if value}
    for (case, name), (url, connections, fields) in asked.items():
        check(case, url, fields)
        wrk(url, connections, 1, *fields)  # warm-up, not counted
    for r in range(rounds):
        for case in cases:
            for i in range(len(peers)):
                name = peers[(i + r) % len(peers)]
                if case == UPLOAD and name not in UPLOADERS or case != UPLOAD and (case, name) not in asked:
                    continue
                pid = servers.processes[name].pid
                before = cpu_by_thread(pid)
                if case == UPLOAD:
                    got = uploading(servers, name, seconds, f"{r}.{int(time.time())}")
                else:
                    url, connections, fields = asked[case, name]
                    got = wrk(url, connections, seconds, *fields)
                cpu = cpu_since(pid, before)
                row = dict(round=r, case=case, server=name, cpu_us=cpu / 1e3 / max(got["n"], 1),
                           rps=got["n"] / got["seconds"], busy=cpu / 1e9 / got["seconds"], **got)
                rows.append(row)
                print(f"round {r} {case:30s} {name:10s} {row['rps']:9.1f}/s cpu {row['cpu_us']:10.1f} us "
                      f"busy {row['busy']:.2f} {row['errors']}", flush=True)
    return rows


def figure(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def ratio(mine, base, key):
    """Median over rounds of one server's figure against another's in the same round."""
    shared = [mine[r][key] / base[r][key] for r in mine if base.get(r, {}).get(key)]
    return statistics.median(shared) if shared else None


def cell(of, name, key, bases):
    mine = of[name]
    if not mine:
        return "–"
    text = figure(statistics.median(row[key] for row in mine.values()))
    ratios = [(base, ratio(mine, of.get(base, {}), key)) for base in bases] if name == "bowline" else []
    told = ", ".join(f"{figure(value)} × {base}" for base, value in ratios if value)
    return f"{text} ({told})" if told else text


def summary(rows, peers):
    lines = ["| work | figure | " + " | ".join(peers) + " |", "|---|---|" + "---|" * len(peers)]
    for case in dict.fromkeys(r["case"] for r in rows):
        of = {name: {r["round"]: r for r in rows if r["case"] == case and r["server"] == name} for name in peers}
        lines.append(f"| {case} | requests/s | " + " | ".join(cell(of, name, "rps", BASES) for name in peers) + " |")
        lines.append("| | CPU µs each | " + " | ".join(cell(of, name, "cpu_us", BASES) for name in peers) + " |")
    return "\n".join(lines) + "\n"


def versions(bowline, venv):
    def first(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).splitlines()[0]

    python, listed = f"{venv}/bin/python", []
    # Bowline by itself needs none of the others.
    if os.access(python, os.X_OK):
        listed = json.loads(subprocess.run([python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
                                           capture_output=True, text=True, check=True).stdout)
    named = ("devpi-server", "pypiserver", "proxpi", "gunicorn", "waitress")
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"bowline": first(bowline, "--version"), "nginx": first("nginx", "-v"),
            **{p["name"]: p["version"] for p in listed if p["name"] in named},
            "kernel": platform.release(), "cpu": cpu.group(1) if cpu else "?", "cores": os.cpu_count()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bowline", default="target/release/bowline")
    parser.add_argument("--venv", default=".venv-bench", help="where devpi-server, pypiserver and proxpi are")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--cases", default=";".join([*CASES, UPLOAD]), help="separated by `;`, or none")
    parser.add_argument("--install-seconds", type=int, default=60, help="0: without installs")
    parser.add_argument("--connections", type=int, default=256, help="of the installs")
    parser.add_argument("--content-rounds", type=int, default=5, help="0: without content")
    parser.add_argument("--sessions", type=int, default=500, help="that are held")
    parser.add_argument("--uv", default=".venv/bin/uv", help="makes environments")
    parser.add_argument("--wheels", default=".venv-clients/wheels,.venv-clients/wheels-streamlit", help="of what content requires")
    parser.add_argument("--out", help="folder for raw.json and table.md")
    a = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then too
    for tool in ("nginx", "wrk", "openssl", "taskset", "setpriv"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: `make bench-node` installs what this needs")
    peers, rows, told, ran, text = a.peers.split(","), [], None, [], ""
    with tempfile.TemporaryDirectory(prefix="bowline-bench-") as folder:
        os.chmod(folder, 0o755)  # nginx's worker runs as another user
        if a.cases:
            servers = Servers(a.bowline, a.venv, f"{folder}/rates")
            try:
                servers.start_nginx()
                servers.start_node()
                servers.upload("bowline", servers.everything())
                servers.render()
                for name in peers:
                    if name not in ("nginx", "bowline"):
                        getattr(servers, f"start_{name}")()
                        if name in UPLOADERS:
                            servers.upload(name, servers.everything())
                        print(f"{name} is there", flush=True)
                rows = measured(servers, peers, a.rounds, a.seconds, a.cases.split(";"))
            finally:
                servers.stop()
            text = summary(rows, peers)
        if a.install_seconds:
            told = installs.measured(Servers(a.bowline, a.venv, f"{folder}/installs"), a.install_seconds, a.connections)
            text += ("\n" if text else "") + installs.summary(told)
        if a.content_rounds:
            ran = apps.measured(Servers(a.bowline, a.venv, f"{folder}/content"), a.uv, a.wheels.split(","), a.content_rounds,
                                a.seconds, a.sessions)
            text += ("\n" if text else "") + apps.summary(ran)
    print("\n" + text)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
        found = {**versions(a.bowline, a.venv), **({"content": apps.versions(a.wheels.split(","))} if ran else {})}
        raw = {"versions": found, "command": " ".join(["bench/node/run.py", *sys.argv[1:]]),
               "date": time.strftime("%Y-%m-%d"), "rates": rows, "installs": told, "content": ran}
        with open(f"{a.out}/raw.json", "w") as f:
            json.dump(raw, f, indent=1)
            f.write("\n")
        with open(f"{a.out}/table.md", "w") as f:
            f.write(text)


if __name__ == "__main__":
    main()
