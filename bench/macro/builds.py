#!/usr/bin/env python3
"""Bowline beside itself, built in several ways: the same work, in one rotated run.

    bench/macro/builds.py --out bench/runs/DATE-MACHINE-builds 'as shipped=target/shipped/bowline' 'no profile=target/release/bowline'

The others are held against the first. bench/README.md says how builds that were compared differ.
"""
import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import peers  # noqa: E402
import table  # noqa: E402
from cases import CASES, Tools  # noqa: E402
from ground import Ground  # noqa: E402
from rounds import Rounds, told  # noqa: E402
from run import in_memory, versions  # noqa: E402

CASES_OF_BUILDS = ("h1 1 KiB;h1 20 fields, plain;h2 1 KiB;full handshake;download 10 MiB, TLS;websocket 100 B, plain;"
                   "websocket 16 KiB, TLS")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", metavar="NAME=PROGRAM", help="the first is what the others are held against")
    parser.add_argument("--load", default="target/load/release/load", help="the program made of bench/load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--cases", default=CASES_OF_BUILDS, help="separated by `;`, each the beginning of a name; default: %(default)s")
    parser.add_argument("--out", help="folder for raw.json and table.md")
    a = parser.parse_args()
    if not all("=" in build for build in a.builds):
        parser.error("a build is NAME=PROGRAM")
    a.builds = dict(build.split("=", 1) for build in a.builds)
    a.cases = [case for case in CASES if any(case.name.startswith(name.strip()) for name in a.cases.split(";"))]
    for path in [a.load, *a.builds.values()]:
        if not os.access(path, os.X_OK):
            parser.error(f"{path} is no program")
    return a


def measure(a, ground):
    rounds, running = Rounds(ground, Tools(ground.load, ground.client_config), a.rounds, a.seconds), []
    try:
        ground.start_origins()
        for n, (name, path) in enumerate(a.builds.items()):
            # The name of the process is one of a file, too.
            peer = peers.start(ground, peers.Programs(os.path.abspath(path)), peers.OURS, key=f"build-{n}")
            peer.key = name
            running.append(peer)
        return rounds.measure("builds", [(case.name, case.make) for case in a.cases], running)
    finally:
        ground.stop()


def text(rows, names):
    found = table.Rows(rows, "builds")
    lines = table.header("CPU µs per … (ratio to the first)", *names)
    for case in (case for case in CASES if case.name in found.cases):
        key = "cpu_us_per_mib" if case.unit == "MiB" else "cpu_us"
        cells = []
        for name in names:
            if found.is_valid(case.name, name) and found.is_valid(case.name, names[0]):
                ratio = found.ratio(case.name, name, names[0], key)
                cells.append(f"{table.figure(found.median(case.name, name, key))} ({ratio:.2f})")
            else:
                cells.append(table.INVALID)
        lines.append(table.lined(f"{case.name}: {case.unit}", *cells))
    return "\n".join([*lines, *table.errors(rows)]) + "\n"


def main():
    a = arguments()
    with tempfile.TemporaryDirectory(prefix="bowline-bench-", dir=in_memory()) as folder:
        os.chmod(folder, 0o755)  # nginx's worker runs as another user
        rows = measure(a, Ground(folder, os.path.abspath(a.load)))
    told_of = versions(peers.Programs(os.path.abspath(next(iter(a.builds.values())))))
    tables = text(rows, list(a.builds))
    print("\n" + tables)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
        run = {"date": time.strftime("%Y-%m-%d"), "versions": told_of, "rounds": a.rounds, "seconds": a.seconds, "rows": rows}
        Path(f"{a.out}/raw.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
        Path(f"{a.out}/table.md").write_text(tables)
    if table.errors(rows):
        told("not all is valid: see the end of the table")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
