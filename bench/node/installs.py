"""Installs a day: what pip, uv and R ask for, through one proxy with TLS, from two nodes on a PostgreSQL of their own.

Everything shares all cores, the load generator and PostgreSQL too. All the while somebody publishes a wheel every second,
which makes the nodes forget the repository's pages.
"""
import glob
import json
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import content
from measure import cpu_by_thread, cpu_since, free_port, wrk
from servers import PIP, fetch

HERE = os.path.dirname(os.path.abspath(__file__))
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
COMMANDS = 2_000  # then they begin again


def postgres(servers):
    """Starts a new cluster; it refuses to run as root."""
    programs = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
    data, port = f"{servers.run}/postgres", free_port()
    os.makedirs(data)
    as_nobody = []
    if os.geteuid() == 0:
        os.chmod(servers.run, 0o755)
        os.chown(data, 65534, 65534)
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    subprocess.run([*as_nobody, f"{programs}/initdb", "--username=bowline", "--auth=trust", "--encoding=UTF8", "--locale=C",
                    "--pgdata", data], check=True, capture_output=True, cwd="/")
    log = Path(f"{servers.run}/postgres.log")
    with log.open("wb") as out:
        servers.processes["postgres"] = subprocess.Popen(
            [*as_nobody, f"{programs}/postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
             "-c", "unix_socket_directories="], stdout=out, stderr=subprocess.STDOUT, cwd="/")
    is_ready = [f"{programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(200):
        if subprocess.run(is_ready, check=False).returncode == 0:
            return f"postgres://bowline@127.0.0.1:{port}/postgres"
        time.sleep(0.05)
    raise SystemExit(f"PostgreSQL does not start\n{log.read_text(errors='replace')}")


def proxy(servers, nodes):
    folder, port = f"{servers.run}/certs", free_port()
    os.makedirs(folder)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-keyout", f"{folder}/default.key", "-out", f"{folder}/default.crt", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    os.chmod(f"{folder}/default.key", 0o600)
    admin = free_port()
    config = servers.fill("proxy.toml", HTTPS=port, ADMIN=admin, NODE_A=nodes[0], NODE_B=nodes[1])
    servers.start("proxy", [servers.bowline, "proxy", "-c", config], f"http://127.0.0.1:{admin}/readyz", core=None)
    return port


def recorded(servers, mix):
    """The requests of many commands in random order; what they install, and how many connections they take."""
    base = servers.urls["node-a"]
    paths, etags = {}, {}
    for project in servers.projects:
        page = f"/packages/pypi/simple/{project}/"
        etags[page] = fetch(base + page, Accept=PIP, Accept_Encoding="gzip")[0]["ETag"]
        newest = servers.listed("node-a", project)[-1].removeprefix(base)
        paths |= {f"index {project}": page, f"file {project}": newest, f"metadata {project}": f"{newest}.metadata"}
    for name in (*content.R_SIZES, ""):
        asked = f"{name}_1.0.tar.gz" if name else "PACKAGES.rds"
        paths[f"cran {asked}"] = f"/packages/cran/latest/src/contrib/{asked}"
    words = {"pip": PIP, "uv": UV}
    requests, packages, connections = [], 0, 0
    dice = random.Random(7)
    for command in dice.choices(mix["commands"], [c["of"] for c in mix["commands"]], k=COMMANDS):
        asks, last = command["asks"], []
        # The last request of each connection closes it.
        for n in range(command["connections"]):
            last.append(len(asks) - 1 - n * len(asks) // command["connections"])
        for at, ask in enumerate(asks):
            path = paths[ask]
            fields = {"Host": "localhost", **command[ask.split(" ")[0]]}
            fields["Accept"] = words.get(fields.get("Accept"), fields.get("Accept", "*/*"))
            if "If-None-Match" in fields:
                fields["If-None-Match"] = etags[path]
            if at in last:
                fields["Connection"] = "close"
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            requests.append(f"GET {path} HTTP/1.1\r\n{head}\r\n")
        packages += command["packages"]
        connections += command["connections"]
    return requests, packages, connections


def publish(servers, stop):
    number = 0
    while not stop.wait(1):
        servers.upload("bowline", [("fresh", content.wheel("fresh", f"1.{number}"))])
        number += 1


def measured(servers, seconds, connections):
    mix = json.loads(Path(f"{HERE}/mix.json").read_text())
    stop = threading.Event()
    publisher = threading.Thread(target=publish, args=(servers, stop))
    try:
        database = postgres(servers)
        servers.start_nginx(core=None)  # the CRAN that is mirrored
        nodes = [servers.start_node(name, os.cpu_count(), database, core=None) for name in ("node-a", "node-b")]
        servers.urls["bowline"] = servers.urls["node-a"]
        servers.upload("bowline", servers.everything())
        port = proxy(servers, nodes)
        requests, packages, opened = recorded(servers, mix)
        script = servers.write("requests.lua", f"return {{{','.join(json.dumps(r) for r in requests)}}}\n".encode())
        url, cores = f"https://127.0.0.1:{port}/", f"0-{os.cpu_count() - 1}"
        ask = lambda length: wrk(url, connections, length, threads=2, script=f"{HERE}/mix.lua", cores=cores, arguments=[script])
        ask(5)  # warm-up, not counted
        publisher.start()
        before = {name: cpu_by_thread(process.pid) for name, process in servers.processes.items()}
        got = ask(seconds)
        cpu = {name: cpu_since(servers.processes[name].pid, before[name]) / 1e9 / got["seconds"] for name in before}
    finally:
        stop.set()
        if publisher.is_alive():
            publisher.join()
        servers.stop()
    commands = got["n"] / len(requests) * COMMANDS / got["seconds"]
    installs = got["n"] / len(requests) * packages / got["seconds"]
    told = dict(requests_per_s=got["n"] / got["seconds"], commands_per_s=commands, installs_per_s=installs,
                installs_per_day=installs * 86_400, handshakes_per_s=commands / COMMANDS * opened, cores=cpu,
                connections=connections, **got)
    print(told, flush=True)
    return told


def summary(told):
    names = {"proxy": "the proxy", "node-a": "node a", "node-b": "node b", "postgres": "PostgreSQL"}
    rows = [
        ("installs (packages) a day", f"{told['installs_per_day'] / 1e6:.0f} million"),
        ("installs a second", f"{told['installs_per_s']:.0f}"),
        ("commands a second", f"{told['commands_per_s']:.0f}"),
        ("requests a second", f"{told['requests_per_s']:.0f}"),
        ("full TLS handshakes a second", f"{told['handshakes_per_s']:.0f}"),
        ("MiB a second", f"{told['bytes'] / 2**20 / told['seconds']:.0f}"),
        ("a request takes, median and 99 of 100, ms", f"{told['p50_ms']:.0f}, {told['p99_ms']:.0f}"),
        *((f"{name}, cores", f"{told['cores'][key]:.3f}") for key, name in names.items()),
        ("errors", told["errors"] or "none"),
    ]
    head = f"Installs, {told['connections']} connections for {told['seconds']:.0f} s"
    return f"| {head} | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
