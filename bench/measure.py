"""What both benchmarks measure with: CPU time and memory of a process and its children, and wrk."""
import glob
import os
import re
import socket
import subprocess
from pathlib import Path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(root):
    pids, todo = [], [root]
    while todo:
        pid = todo.pop()
        pids.append(pid)
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            try:
                todo += [int(x) for x in Path(path).read_text().split()]
            except OSError:
                pass
    return pids


def cpu_by_thread(root, alone=False):
    """Nanoseconds on a CPU of every thread of a process and, unless `alone`, its children."""
    found = {}
    for pid in [root] if alone else family(root):
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                found[path] = int(Path(path).read_text().split()[0])
            except OSError:
                pass
    return found


def cpu_since(root, before, alone=False):
    """Since `cpu_by_thread` said `before`. A thread that ended takes all it ever used with it, so each has its own sum."""
    return sum(now - before.get(path, 0) for path, now in cpu_by_thread(root, alone).items())


def pss_kib(root, alone=False):
    told = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in ([root] if alone else family(root)))
    return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE).group(1)) for text in told)


def sh(command, cores="1", environment=None):
    done = subprocess.run(["taskset", "-c", cores] + command, capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, **(environment or {})})
    return done.stdout + done.stderr


def wrk(url, connections, seconds, *headers, threads=1, script=None, cores="1", arguments=(), environment=None):
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency"]
    if script:
        command += ["-s", script]
    for header in headers:
        command += ["-H", header]
    out = sh([*command, url, *(["--", *arguments] if arguments else [])], cores, environment)
    m = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m), ([\d.]+)(\w+) read", out)
    if not m:
        raise RuntimeError(out)
    size = float(m.group(4)) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[m.group(5)]
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: .*", out)
    return {"n": int(m.group(1)), "seconds": float(m.group(2)) * {"ms": 1e-3, "s": 1, "m": 60}[m.group(3)], "bytes": size,
            "p50_ms": percentile(out, 50), "p99_ms": percentile(out, 99),
            "errors": " ".join(x.group(0) for x in (wrong, broken) if x)}


def percentile(out, which):
    m = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", out)
    return float(m.group(1)) * {"us": 1e-3, "ms": 1, "s": 1e3}[m.group(2)] if m else None
