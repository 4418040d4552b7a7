"""Content: what a node adds to the programs it runs, each beside the same program begun by hand.

Cold starts, deployments and held sessions have the whole machine. Requests and websockets: what serves has core 0, the
clients core 1.
"""
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from measure import cpu_by_thread, cpu_since, free_port, pss_kib, wrk

HERE = os.path.dirname(os.path.abspath(__file__))
CONNECTIONS = 32  # of wrk
SOCKETS = 50  # websockets that echo at once

FASTAPI = """from fastapi import FastAPI, WebSocket, WebSocketDisconnect
app = FastAPI()

@app.get("/")
async def root():
    return {"hello": "world"}

@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_bytes(await socket.receive_bytes())
    except WebSocketDisconnect:
        pass
"""
FLASK = """from flask import Flask
app = Flask(__name__)

@app.get("/")
def root():
    return {"hello": "world"}
"""
SHINY = """from shiny import App, render, ui

def server(input, output, session):
    @render.text
    def square():
        return str((input.n() or 0) ** 2)

app = App(ui.page_fluid(ui.input_numeric("n", "n", 2), ui.output_text("square")), server)
"""
STREAMLIT = "import streamlit as st\nst.write('hello', st.number_input('n', value=2) ** 2)\n"
R_SHINY = """library(shiny)
ui <- fluidPage(numericInput("n", "n", 2), textOutput("square"))
shinyApp(ui, function(input, output, session) output$square <- renderText(input$n^2))
"""

# Mode → its bundle, and how the same is begun by hand on a port.
UVICORN = ["@python@", "-m", "uvicorn", "app:app", "--port", "@port@"]
APPS = {
    "static": ({"index.html": "<h1>hello</h1>"}, None),
    "python-fastapi": ({"app.py": FASTAPI, "requirements.txt": "fastapi\n"}, UVICORN),
    "python-shiny": ({"app.py": SHINY, "requirements.txt": "shiny\n"}, UVICORN),
    "python-api": ({"app.py": FLASK, "requirements.txt": "flask\n"},
                   ["@python@", "-m", "gunicorn", "--threads", "16", "--bind", "127.0.0.1:@port@", "app:app"]),
    "python-streamlit": ({"app.py": STREAMLIT, "requirements.txt": "streamlit\n"},
                         ["@python@", "-m", "streamlit", "run", "app.py", "--server.port", "@port@", "--server.address",
                          "127.0.0.1", "--server.headless", "true", "--browser.gatherUsageStats", "false",
                          "--server.fileWatcherType", "none"]),
    "shiny": ({"app.R": R_SHINY}, ["R", "--no-save", "--no-restore", "--slave", "-e",
                                   "shiny::runApp('.', port = @port@, launch.browser = FALSE)"]),
}
NAMES = {"static": "static page", "python-fastapi": "FastAPI", "python-shiny": "Shiny for Python", "python-api": "Flask",
         "python-streamlit": "Streamlit", "shiny": "Shiny for R"}


def manifest(mode, files):
    metadata = {"appmode": mode, "entrypoint": "app" if mode.startswith("python-") else None,
                "primary_html": "index.html" if mode == "static" else None}
    told = {"version": 1, "metadata": metadata, "files": {name: {"checksum": "0"} for name in files}}
    if "requirements.txt" in files:
        told |= {"python": {"version": ".".join(map(str, sys.version_info[:3])),
                            "package_manager": {"name": "pip", "package_file": "requirements.txt"}}}
    return json.dumps(told)


def bundle(mode, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in {**files, "manifest.json": manifest(mode, files)}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def first_byte(port, path, patience=120):
    """Seconds until an answer's first byte, on a connection of its own."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = s.recv(4096)
        took = time.perf_counter() - began
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{path} answers {head[:300]}")
    return took


class Apps:
    """A node with content, and the same programs by hand."""

    def __init__(self, servers, uv, wheels):
        self.servers, self.uv, self.run = servers, os.path.abspath(uv), servers.run
        self.wheels = [str(path) for folder in wheels for path in sorted(Path(folder).glob("*.whl"))]
        self.guids, self.node, self.python = {}, None, None

    def has(self, mode):
        if mode == "shiny":
            return subprocess.run(["Rscript", "-e", "library(shiny)"], capture_output=True, check=False).returncode == 0
        return mode != "python-streamlit" or any("/streamlit-" in wheel for wheel in self.wheels)

    # -----------------------------------------------------------------------------------------------------------------

    def start(self, threads, core):
        self.port = free_port()
        config = self.servers.fill("apps.toml", THREADS=threads, PORT=self.port, UV=self.uv)
        if not os.path.exists(f"{self.run}/node.key"):
            subprocess.run([self.servers.bowline, "keygen", f"{self.run}/node.key"], check=True, capture_output=True)
            self.servers.command(config, "repo", "create", "pypi")
            for at in range(0, len(self.wheels), 20):
                self.servers.command(config, "add", "pypi", *self.wheels[at:at + 20])
            self.key = self.servers.command(config, "key", "create", "--admin", "--name", "bench")
        self.servers.start("apps", [self.servers.bowline, "node", "-c", config], f"http://127.0.0.1:{self.port}/__ping__", core)
        self.node = self.servers.processes["apps"].pid

    def restart(self, threads, core):
        process = self.servers.processes.pop("apps")
        process.kill()  # what it has would be waited for
        process.wait()
        self.start(threads, core)

    def ask(self, method, path, body=None):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/__api__/v1/{path}", data,
            {"Authorization": f"Key {self.key}", "Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read()[:500]}") from error

    def deploy(self, mode, files=None):
        """Publishes a bundle as a client does; seconds from its upload until it runs."""
        if mode not in self.guids:
            self.guids[mode] = self.ask("POST", "content", {"name": f"bench-{mode}"})["guid"]
            self.ask("PATCH", f"content/{self.guids[mode]}", {"access_type": "all"})
        guid, data = self.guids[mode], bundle(mode, files or APPS[mode][0])
        began = time.perf_counter()
        number = self.ask("POST", f"content/{guid}/bundles", data)["id"]
        task = self.ask("POST", f"content/{guid}/deploy", {"bundle_id": number})["task_id"]
        first = 0
        while True:
            told = self.ask("GET", f"tasks/{task}?wait=30&first={first}")
            if told["finished"]:
                break
            first = told["last"]
        if told["code"]:
            raise SystemExit(f"{mode} cannot be deployed: {told['error']}")
        return time.perf_counter() - began

    def path(self, mode, rest=""):
        return f"/content/{self.guids[mode]}/{rest}"

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        if not found:
            raise SystemExit(f"no metric {name}")
        return sum(found)

    def until(self, name, value):
        ended = time.time() + 60
        while self.metric(name) != value:
            if time.time() > ended:
                raise SystemExit(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.1)

    # -----------------------------------------------------------------------------------------------------------------

    def prepare(self):
        """An environment outside the node, with the same wheels."""
        self.python = f"{self.run}/by-hand/bin/python"
        subprocess.run([self.uv, "venv", "--quiet", "--python", sys.executable, f"{self.run}/by-hand"], check=True)
        folders = sorted({os.path.dirname(wheel) for wheel in self.wheels})
        wanted = ["fastapi", "uvicorn", "websockets", "shiny", "flask", "gunicorn"]
        wanted += ["streamlit"] if self.has("python-streamlit") else []
        subprocess.run([self.uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", self.python, "--no-index",
                        *(f"--find-links={folder}" for folder in folders), *wanted], check=True)

    def by_hand(self, mode, core=None):
        """Begins a program; its process, and its port."""
        files, command = APPS[mode]
        for name, text in files.items():
            self.servers.write(f"apps/{mode}/{name}", text.encode())
        port = free_port()
        words = [word.replace("@python@", self.python).replace("@port@", str(port)) for word in command]
        log = Path(f"{self.run}/{mode}.log")
        with log.open("wb") as out:
            process = subprocess.Popen([*(["taskset", "-c", core] if core else []), *words], cwd=f"{self.run}/apps/{mode}",
                                       stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.servers.processes[mode] = process
        return process, port, log

    def begun_by_hand(self, mode, core=None):
        """As `by_hand`, when it answers; with the seconds until then."""
        began = time.perf_counter()
        process, port, log = self.by_hand(mode, core)
        while time.perf_counter() - began < 60:
            try:
                first_byte(port, "/")
                return process, port, time.perf_counter() - began
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.005)
        raise SystemExit(f"{mode} does not answer\n{log.read_text(errors='replace')[-2000:]}")

    def end(self, mode):
        process = self.servers.processes.pop(mode)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def cold(apps, modes, rounds):
    rows = []
    for mode in modes:
        for r in range(rounds):
            apps.until("bowline_node_workers", 0)
            row = dict(round=r, case="cold", mode=mode, node_s=first_byte(apps.port, apps.path(mode)))
            if APPS[mode][1]:
                row["straight_s"] = apps.begun_by_hand(mode)[2]
                apps.end(mode)
            rows.append(row)
            print(row, flush=True)
    return rows


def deployments(apps, modes, rounds):
    rows = []
    for mode in modes:
        rows.append(dict(case="deploy", mode=mode, is_first=True, seconds=apps.deploy(mode)))
        print(rows[-1], flush=True)
    for r in range(rounds):
        files = {**APPS["python-fastapi"][0], "app.py": f"{FASTAPI}# {r}\n"}
        rows.append(dict(round=r, case="deploy", mode="python-fastapi", is_first=False, seconds=apps.deploy("python-fastapi", files)))
        print(rows[-1], flush=True)
    return rows


def seen(parts):
    """What threads of each part, a process with or without its children, have used until now."""
    return {name: cpu_by_thread(pid, alone) for name, (pid, alone) in parts.items()}


def spent(parts, before, n):
    """CPU µs of each part since `seen` said `before`, for each of n."""
    return {name: cpu_since(pid, before[name], alone) / 1e3 / max(n, 1) for name, (pid, alone) in parts.items()}


def requests(apps, rounds, seconds):
    """The node and its worker share core 0; so does the program by hand with nobody."""
    rows = []
    by_hand, port, _ = apps.begun_by_hand("python-fastapi", "0")
    cases = {"straight": (port, "/", {"worker": (by_hand.pid, False)}),
             "node": (apps.port, apps.path("python-fastapi"), {"all": (apps.node, False), "node": (apps.node, True)})}
    for name, (port, path, _) in cases.items():
        wrk(f"http://127.0.0.1:{port}{path}", CONNECTIONS, 1)  # warm-up, not counted
    for r in range(rounds):
        for name, (port, path, parts) in cases.items():
            first_byte(port, path)
            before = seen(parts)
            got = wrk(f"http://127.0.0.1:{port}{path}", CONNECTIONS, seconds)
            cpu = spent(parts, before, got["n"])
            rows.append(dict(round=r, case="requests", by=name, rps=got["n"] / got["seconds"], cpu_us=cpu, **got))
            print(rows[-1], flush=True)
    apps.end("python-fastapi")
    return rows


def echoes(apps, rounds, seconds):
    rows = []
    by_hand, port, _ = apps.begun_by_hand("python-fastapi", "0")
    http, admin = free_port(), free_port()
    config = apps.servers.fill("apps-proxy.toml", HTTP=http, ADMIN=admin, NODE=apps.port)
    apps.servers.start("proxy", [apps.servers.bowline, "proxy", "-c", config], f"http://127.0.0.1:{admin}/readyz", "0")
    proxy = apps.servers.processes["proxy"].pid
    cases = {"straight": (port, "/ws", {"worker": (by_hand.pid, False)}),
             "proxy and node": (http, apps.path("python-fastapi", "ws"),
                                {"proxy": (proxy, False), "all": (apps.node, False), "node": (apps.node, True)})}
    first_byte(http, apps.path("python-fastapi"))
    for r in range(rounds):
        for name, (port, path, parts) in cases.items():
            before = seen(parts)
            done = subprocess.run(["taskset", "-c", "1", sys.executable, f"{HERE}/sockets.py", "echo", str(port), path,
                                   str(SOCKETS), str(seconds)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"echoes by {name}: {done.stderr[-2000:]}")
            got = json.loads(done.stdout)
            cpu = spent(parts, before, got["n"])
            rows.append(dict(round=r, case="echoes", by=name, cpu_us=cpu, **got))
            print(rows[-1], flush=True)
    apps.end("python-fastapi")
    return rows


def held(apps, count):
    """KiB of the node alone per session of a Shiny app: with a browser, then without."""
    for _ in range(10):  # what a new process does once is done
        first_byte(apps.port, apps.path("python-shiny"))
        time.sleep(0.3)
    base = pss_kib(apps.node, alone=True)
    client = subprocess.Popen([sys.executable, f"{HERE}/sockets.py", "shiny", str(apps.port), apps.path("python-shiny"), str(count)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if client.stdout.readline().strip() != "ready":
            raise SystemExit("the sessions did not begin")
        time.sleep(2)
        live = pss_kib(apps.node, alone=True)
    finally:
        client.kill()
        client.wait()
    ended = time.time() + 60
    while apps.metric("bowline_node_sessions") != count or apps.metric("bowline_node_session_bytes") == 0:
        if time.time() > ended:
            raise SystemExit("the sessions are not held")
        time.sleep(0.2)
    time.sleep(2)
    row = dict(case="sessions", count=count, base_kib=base, live_kib=(live - base) / count,
               held_kib=(pss_kib(apps.node, alone=True) - base) / count, kept_bytes=apps.metric("bowline_node_session_bytes") / count)
    print(row, flush=True)
    return [row]


def measured(servers, uv, wheels, rounds, seconds, sessions):
    apps = Apps(servers, uv, wheels)
    if not apps.wheels:
        raise SystemExit(f"there are no wheels in {', '.join(wheels)}: `make bench-node` fetches them")
    try:
        apps.prepare()
        modes = [mode for mode in APPS if apps.has(mode)]
        apps.start(os.cpu_count(), None)
        rows = deployments(apps, modes, rounds)
        rows += cold(apps, modes, rounds)
        apps.restart(os.cpu_count(), None)
        rows += held(apps, sessions)
        apps.restart(1, "0")
        rows += requests(apps, rounds, seconds)
        rows += echoes(apps, rounds, seconds)
    finally:
        servers.stop()
    return rows


def versions(wheels):
    """Of what content runs on."""
    named = ("fastapi", "uvicorn", "websockets", "shiny", "flask", "gunicorn", "streamlit")
    names = [path.name.split("-") for folder in wheels for path in sorted(Path(folder).glob("*.whl"))]
    r = subprocess.run(["Rscript", "-e", "cat(format(packageVersion('shiny')), R.version.string, sep = ', ')"],
                       capture_output=True, text=True, check=False).stdout
    return {**{name: version for name, version, *_ in names if name in named}, "python": sys.version.split()[0],
            "r-shiny": r}


def figure(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def summary(rows):
    of = lambda case, **more: [row for row in rows if row["case"] == case and all(row[k] == v for k, v in more.items())]
    middle = lambda found, key: figure(statistics.median(key(row) for row in found))
    lines = ["| Content | figure | by hand | bowline |", "|---|---|---|---|"]
    for mode in dict.fromkeys(row["mode"] for row in of("cold")):
        mine = of("cold", mode=mode)
        straight = middle(mine, lambda row: row["straight_s"] * 1e3) if "straight_s" in mine[0] else "–"
        lines.append(f"| cold start, {NAMES[mode]} | ms to first byte | {straight} | {middle(mine, lambda row: row['node_s'] * 1e3)} |")
    for mode in dict.fromkeys(row["mode"] for row in of("deploy", is_first=True)):
        lines.append(f"| deployment, {NAMES[mode]}, first | s | – | {middle(of('deploy', mode=mode, is_first=True), lambda row: row['seconds'])} |")
    again = of("deploy", is_first=False)
    lines.append(f"| deployment, FastAPI, environment cached | s | – | {middle(again, lambda row: row['seconds'])} |")
    for case, other, name, unit, key in (
            ("requests", "node", f"FastAPI, {CONNECTIONS} connections", "requests/s", "rps"),
            ("echoes", "proxy and node", f"websocket echo, {SOCKETS} connections", "messages/s", "per_s")):
        straight, mine = of(case, by="straight"), of(case, by=other)
        lines.append(f"| {name} | {unit} | {middle(straight, lambda row: row[key])} | {middle(mine, lambda row: row[key])} |")
        for which in ("p50_ms", "p99_ms"):
            lines.append(f"| | {which[:3]} ms | {middle(straight, lambda row: row[which])} | {middle(mine, lambda row: row[which])} |")
        cpu = middle(straight, lambda row: row["cpu_us"]["worker"])
        whole = middle(mine, lambda row: row["cpu_us"]["all"] + row["cpu_us"].get("proxy", 0))
        parts = ", ".join(f"{part} {middle(mine, lambda row: row['cpu_us'][part])}" for part in ("proxy", "node") if part in mine[0]["cpu_us"])
        lines.append(f"| | CPU µs each | {cpu} | {whole} ({parts}) |")
    for row in of("sessions"):
        lines.append(f"| Shiny session, of {row['count']} | KiB of the node | – | {figure(row['live_kib'])} |")
        lines.append(f"| held without its browser | KiB of the node | – | {figure(row['held_kib'])} |")
    return "\n".join(lines) + "\n"
