#!/usr/bin/env python3
"""Bowline beside nginx and HAProxy: the same work, in one rotated run, on one small machine, loopback only.

The proxy under test is pinned to core 0 with one worker; origin and load generator share core 1. Every round visits
every (case, peer) pair in rotated order, so that a slow drift of the machine hits all alike. The figure that counts is
CPU: on-CPU nanoseconds of all the proxy's threads (schedstat) per request, as the median over rounds of its ratio to
nginx in the same round. Requests per second mean something only where `busy` is near 1.

    bench/macro/run.py --bowline target/release/bowline --out bench/runs/DATE-MACHINE
"""
import argparse
import glob
import json
import os
import platform
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from measure import cpu_ns, free_port, pss_kib, sh, wrk  # noqa: E402

PEERS = ["nginx", "haproxy", "bowline"]
BASE = "nginx"


def fill(template, values):
    text = open(f"{HERE}/peers/{template}").read()
    return re.sub(r"@([A-Z_]+)@", lambda m: str(values[m.group(1)]), text)


class Bench:
    def __init__(self, bowline, folder):
        self.run, self.processes = folder, {}
        self.bowline = os.path.abspath(bowline)
        self.common = dict(RUN=folder, ORIGIN_A=free_port(), ORIGIN_B=free_port(), ECHO=free_port())
        self.ports = {}
        os.makedirs(f"{folder}/www")
        os.makedirs(f"{folder}/certs")
        for name, size in (("1k", 1024), ("10m", 10 << 20)):
            with open(f"{folder}/www/{name}", "wb") as f:
                f.write(secrets.token_bytes(size))
        key, crt = f"{folder}/certs/default.key", f"{folder}/certs/default.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-keyout", key, "-out", crt, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )
        os.chmod(key, 0o600)
        with open(f"{folder}/both.pem", "w") as f:
            f.write(open(crt).read() + open(key).read())

    def start(self, name, command, core):
        log = open(f"{self.run}/{name}.log", "wb")
        process = subprocess.Popen(["taskset", "-c", str(core)] + command, stdout=log, stderr=subprocess.STDOUT)
        self.processes[name] = process
        return process

    def origin(self):
        with open(f"{self.run}/origin.conf", "w") as f:
            f.write(fill("origin.conf", self.common))
        self.start("origin", ["nginx", "-c", f"{self.run}/origin.conf"], 1)
        self.start("echo", [sys.executable, f"{HERE}/websockets.py", "echo", str(self.common["ECHO"])], 1)
        self.wait(self.common["ORIGIN_A"], time.time())

    def peer(self, name, policy="least_sessions"):
        ports = dict(HTTP=free_port(), HTTPS=free_port())
        values = dict(self.common, **ports, POLICY=policy)
        template, command = {
            "nginx": ("nginx.conf", lambda c: ["nginx", "-c", c]),
            "haproxy": ("haproxy.cfg", lambda c: ["haproxy", "-f", c, "-db"]),
            "bowline": ("bowline.toml", lambda c: [self.bowline, "proxy", "-c", c]),
        }[name]
        config = f"{self.run}/{template}"
        with open(config, "w") as f:
            f.write(fill(template, values))
        started = time.time()
        process = self.start(name, command(config), 0)
        self.ports[name] = (ports["HTTP"], ports["HTTPS"])
        seconds = self.wait(ports["HTTP"], started)
        time.sleep(0.3)
        return process, seconds

    def wait(self, port, started):
        while time.time() - started < 20:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/1k", timeout=1).read()
                return time.time() - started
            except (urllib.error.URLError, ConnectionError, OSError):
                time.sleep(0.003)
        logs = "".join(f"--- {p}\n{open(p, errors='replace').read()[-2000:]}" for p in glob.glob(f"{self.run}/*.log"))
        raise SystemExit(f"nobody answers on port {port}\n{logs}")

    def stop(self, *names):
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def h2load(url, connections, streams, seconds):
    out = sh(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0", url])
    m = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed", out)
    if not m:
        raise RuntimeError(out)
    n = int(m.group(4))
    return dict(n=n, seconds=float(seconds), bytes=n * 1024.0, p99_ms=None,
                errors="" if m.group(5) == "0" else f"failed: {m.group(5)}")


CASES = {
    "h1 1 KiB": lambda p, d: wrk(f"http://127.0.0.1:{p[0]}/1k", 64, d),
    "h1 TLS 1 KiB": lambda p, d: wrk(f"https://127.0.0.1:{p[1]}/1k", 64, d),
    "h2 TLS 1 KiB": lambda p, d: h2load(f"https://localhost:{p[1]}/1k", 8, 16, d),
    "full TLS handshake": lambda p, d: wrk(f"https://127.0.0.1:{p[1]}/1k", 32, d, "Connection: close"),
    "10 MiB plain": lambda p, d: wrk(f"http://127.0.0.1:{p[0]}/10m", 8, d),
    "10 MiB TLS": lambda p, d: wrk(f"https://127.0.0.1:{p[1]}/10m", 8, d),
}


def traffic(bench, rounds, seconds, cases):
    rows = []
    for name in PEERS:
        _, up = bench.peer(name)
        print(f"{name}: first answer after {up * 1000:.0f} ms", flush=True)
    for name in PEERS:  # warm-up, not counted
        for case in cases:
            CASES[case](bench.ports[name], 1)
    for r in range(rounds):
        for case in cases:
            for i in range(len(PEERS)):
                name = PEERS[(i + r) % len(PEERS)]
                pid = bench.processes[name].pid
                before = cpu_ns(pid)
                got = CASES[case](bench.ports[name], seconds)
                cpu = cpu_ns(pid) - before
                row = dict(round=r, case=case, peer=name, cpu_us=cpu / 1e3 / max(got["n"], 1),
                           cpu_ms_per_mib=cpu / 1e6 / max(got["bytes"] / 2**20, 1e-9), rps=got["n"] / got["seconds"],
                           busy=cpu / 1e9 / got["seconds"], **got)
                rows.append(row)
                print(f"round {r} {case:20s} {name:8s} {row['rps']:9.0f}/s cpu {row['cpu_us']:8.2f} us "
                      f"busy {row['busy']:.2f} {row['errors']}", flush=True)
    bench.stop(*PEERS)
    return rows


def memory(bench, count):
    """KiB of PSS per idle connection, a fresh process per line."""
    rows = []
    for kind, mode in (("ws", "plain"), ("ws", "tls"), ("http", "plain")):
        for name in PEERS:
            process, _ = bench.peer(name)
            port = bench.ports[name][1 if mode == "tls" else 0]
            client = subprocess.Popen(
                ["taskset", "-c", "1", sys.executable, f"{HERE}/websockets.py", "hold", str(port), mode, kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

            def ask(line):
                client.stdin.write(line + "\n")
                client.stdin.flush()
                answer = client.stdout.readline().split()
                if not answer:
                    raise RuntimeError(f"the client of {name} ended at `{line}`")
                time.sleep(1.5)
                return int(answer[1])

            base = pss_kib(process.pid)
            ask(f"open {count}")
            row = dict(case=f"{'idle websocket' if kind == 'ws' else 'idle keep-alive'}, {mode}", peer=name, count=count,
                       base_kib=base, kib=(pss_kib(process.pid) - base) / count)
            if kind == "ws":
                ask("big")
                row["kib_after_traffic"] = (pss_kib(process.pid) - base) / count
                row["alive"] = ask("alive")
            client.stdin.close()
            client.wait(30)
            time.sleep(1)
            row["kib_kept_after_close"] = pss_kib(process.pid) - base
            rows.append(row)
            print(row, flush=True)
            bench.stop(name)
    return rows


def summary(traffic_rows, memory_rows):
    lines = ["| work | figure | " + " | ".join(PEERS) + " |", "|---|---|" + "---|" * len(PEERS)]
    for case in dict.fromkeys(r["case"] for r in traffic_rows):
        is_big = case.startswith("10 MiB")
        key, unit = ("cpu_ms_per_mib", "CPU ms per MiB") if is_big else ("cpu_us", "CPU µs per request")
        of = lambda name: {r["round"]: r for r in traffic_rows if r["case"] == case and r["peer"] == name}
        base, cells = of(BASE), []
        for name in PEERS:
            mine = of(name)
            value = statistics.median(r[key] for r in mine.values())
            ratio = statistics.median(mine[r][key] / base[r][key] for r in mine)
            cells.append(f"{value:.3g} ({ratio:.2f})")
        lines.append(f"| {case} | {unit} (ratio to {BASE}) | " + " | ".join(cells) + " |")
        rate = {n: statistics.median(r["rps"] for r in of(n).values()) for n in PEERS}
        busy = {n: statistics.median(r["busy"] for r in of(n).values()) for n in PEERS}
        lines.append("| | requests/s at busy | " + " | ".join(f"{rate[n]:.0f} at {busy[n]:.2f}" for n in PEERS) + " |")
    for case in dict.fromkeys(r["case"] for r in memory_rows):
        mine = {r["peer"]: r for r in memory_rows if r["case"] == case}
        cells = [f"{mine[n]['kib']:.2f}" + (f" → {mine[n]['kib_after_traffic']:.2f}" if "kib_after_traffic" in mine[n] else "")
                 for n in PEERS]
        lines.append(f"| {case} | KiB each" + (" → after 64 KiB each way" if "websocket" in case else "") + " | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def versions(bowline):
    first = lambda *c: (subprocess.run(c, capture_output=True, text=True).stdout or subprocess.run(c, capture_output=True, text=True).stderr).splitlines()[0]
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    return {"nginx": first("nginx", "-v"), "haproxy": first("haproxy", "-v"), "bowline": first(bowline, "--version"),
            "rustc": first("rustc", "--version"), "kernel": platform.release(), "cpu": cpu.group(1) if cpu else "?",
            "cores": os.cpu_count()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bowline", default="target/release/bowline")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=5000, help="idle connections of the memory cases")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", help="folder for raw.json and table.md")
    a = parser.parse_args()
    for tool in ("nginx", "haproxy", "wrk", "h2load", "openssl", "taskset"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing: `make bench` installs what this needs")
    with tempfile.TemporaryDirectory(prefix="bowline-bench-") as folder:
        os.chmod(folder, 0o755)  # nginx's worker runs as another user
        bench = Bench(a.bowline, folder)
        try:
            bench.origin()
            moved = traffic(bench, a.rounds, a.seconds, a.cases.split(","))
            held = [] if a.no_memory else memory(bench, a.connections)
        finally:
            bench.stop()
    table = summary(moved, held)
    print("\n" + table)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
        with open(f"{a.out}/raw.json", "w") as f:
            json.dump(dict(versions=versions(a.bowline), command=" ".join(["bench/macro/run.py"] + sys.argv[1:]),
                           date=time.strftime("%Y-%m-%d"), traffic=moved, memory=held), f, indent=1)
        with open(f"{a.out}/table.md", "w") as f:
            f.write(table)


if __name__ == "__main__":
    main()
