"""Starts what is measured, fills it with the same packages, and knows each server's URLs."""
import base64
import html
import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import content
from measure import free_port

PEERS = ["nginx", "devpi", "pypiserver", "proxpi", "bowline"]
JSON = "application/vnd.pypi.simple.v1+json"
PIP = f"{JSON}, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


def fetch(url, **headers):
    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.headers, response.read()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Servers:
    def __init__(self, bowline, venv, folder):
        self.bowline, self.venv, self.run = os.path.abspath(bowline), os.path.abspath(venv), folder
        self.processes, self.urls = {}, {}
        self.nginx = free_port()
        self.projects, self.cran = content.projects(), content.cran()
        for path, data in self.cran.items():
            self.write(f"www/src/contrib/{path}", data)

    def write(self, path, data):
        path = f"{self.run}/{path}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def fill(self, template, name=None, **values):
        text = Path(f"{HERE}/peers/{template}").read_text()
        values = dict(values, RUN=self.run, NGINX=self.nginx)
        text = re.sub(r"@([A-Z_]+)@", lambda m: str(values[m.group(1)]), text)
        return self.write(name or template, text.encode())

    def start(self, name, command, ready, core="0", **environment):
        log = Path(f"{self.run}/{name}.log")
        pinned = ["taskset", "-c", core] if core else []
        with log.open("wb") as out:
            self.processes[name] = subprocess.Popen(
                pinned + command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        began = time.time()
        while time.time() - began < 60:
            try:
                fetch(ready)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{name} does not answer\n{log.read_text(errors='replace')[-3000:]}")

    def stop(self):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -----------------------------------------------------------------------------------------------------------------

    def start_nginx(self, core="0"):
        config = self.fill("nginx.conf")
        self.start("nginx", ["nginx", "-c", config], f"http://127.0.0.1:{self.nginx}/src/contrib/PACKAGES.gz", core)
        self.urls["nginx"] = f"http://127.0.0.1:{self.nginx}"

    def command(self, config, *arguments):
        done = subprocess.run([self.bowline, *arguments, "-c", config], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bowline {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def start_node(self, name="bowline", threads=1, database=None, core="0"):
        port = free_port()
        config = self.fill("node.toml", f"{name}.toml", NAME=name, THREADS=threads, PORT=port,
                           DATABASE=database or f"sqlite:{self.run}/bowline.db")
        if not os.path.exists(f"{self.run}/node.key"):
            subprocess.run([self.bowline, "keygen", f"{self.run}/node.key"], check=True, capture_output=True)
            self.command(config, "repo", "create", "pypi")
            self.command(config, "source", "create", "mirror", "--type", "cran", "--url", f"http://127.0.0.1:{self.nginx}/")
            self.command(config, "repo", "create", "cran", "--type", "cran", "--source", "mirror")
            self.key = self.command(config, "key", "create", "--scope", "publish")
        self.start(name, [self.bowline, "node", "-c", config], f"http://127.0.0.1:{port}/__ping__", core)
        self.urls[name] = f"http://127.0.0.1:{port}"
        return port

    def start_devpi(self):
        port, data = free_port(), f"{self.run}/devpi"
        url = f"http://127.0.0.1:{port}"
        subprocess.run([f"{self.venv}/bin/devpi-init", "--serverdir", data, "--no-root-pypi", "--root-passwd", "root"],
                       check=True, capture_output=True)
        self.start("devpi", [f"{self.venv}/bin/devpi-server", "--serverdir", data, "--host", "127.0.0.1", "--port", str(port)],
                   f"{url}/+api")
        ask = lambda method, path, body, **head: json.load(urllib.request.urlopen(urllib.request.Request(
            url + path, json.dumps(body).encode(), {"Content-Type": "application/json", "Accept": "application/json", **head},
            method=method)))
        token = ask("POST", "/+login", {"user": "root", "password": "root"})["result"]["password"]
        self.devpi = {"X-Devpi-Auth": base64.b64encode(f"root:{token}".encode()).decode()}
        ask("PUT", "/root/bench", {"type": "stage", "bases": [], "volatile": True}, **self.devpi)
        self.urls["devpi"] = url

    def start_pypiserver(self):
        port, data = free_port(), f"{self.run}/pypiserver"
        os.makedirs(data)
        self.start("pypiserver", [f"{self.venv}/bin/gunicorn", "--workers", "1", "--threads", "8", "--bind", f"127.0.0.1:{port}",
                                  f"pypiserver:app(roots=[{data!r}], password_file='.', authenticate=[])"],
                   f"http://127.0.0.1:{port}/")
        self.urls["pypiserver"] = f"http://127.0.0.1:{port}"

    def start_proxpi(self):
        port = free_port()
        self.start("proxpi", [f"{self.venv}/bin/gunicorn", "--workers", "1", "--threads", "8", "--bind", f"127.0.0.1:{port}",
                              "proxpi.server:app"], f"http://127.0.0.1:{port}/", PROXPI_INDEX_URL=f"{self.urls['nginx']}/simple/",
                   PROXPI_INDEX_TTL="3600", PROXPI_CACHE_DIR=f"{self.run}/proxpi")
        self.urls["proxpi"] = f"http://127.0.0.1:{port}"

    # -----------------------------------------------------------------------------------------------------------------

    def uploads(self, name):
        """Where wheels are uploaded to, and with which fields."""
        return {
            "bowline": lambda: ("/packages/pypi/legacy/", {"Authorization": basic("__token__", self.key)}),
            "devpi": lambda: ("/root/bench/", self.devpi),
            "pypiserver": lambda: ("/", {}),
        }[name]()

    def upload(self, name, wheels):
        path, fields = self.uploads(name)
        connection = http.client.HTTPConnection(self.urls[name].removeprefix("http://"), timeout=120)
        for project, (filename, data) in wheels:
            body, kind = content.form(project, filename.split("-")[1], filename, data)
            connection.request("POST", path, body, {**fields, "Content-Type": kind})
            response = connection.getresponse()
            told = response.read()
            if response.status != 200:
                raise SystemExit(f"{name} took no upload: {response.status} {told[:300]}")
        connection.close()

    def render(self):
        """nginx serves what Bowline rendered: the same bytes."""
        base = f"{self.urls['bowline']}/packages/pypi/simple"
        for project in self.projects:
            for ending, accept in (("json", JSON), ("html", "text/html")):
                self.write(f"www/simple/{project}/index.{ending}", fetch(f"{base}/{project}/", Accept=accept)[1])
                packed = fetch(f"{base}/{project}/", Accept=accept, Accept_Encoding="gzip")[1]
                self.write(f"www/simple/{project}/index.{ending}.gz", packed)
            for file in self.listed("bowline", project):
                path = file.split("/packages/pypi/")[1]
                for ending in ("", ".metadata"):
                    self.write(f"www/{path}{ending}", fetch(file + ending)[1])
        cran = f"{self.urls['bowline']}/packages/cran/latest/src/contrib"
        for path in ("PACKAGES.rds", "PACKAGES.gz"):
            self.write(f"www/src/contrib/{path}", fetch(f"{cran}/{path}")[1])
        folder = f"{self.run}/www"
        for path in [folder, *(os.path.join(at, name) for at, folders, _ in os.walk(folder) for name in folders)]:
            os.chmod(path, 0o755)  # nginx's worker is another user

    def index(self, name, project):
        """URL of a project's page."""
        return self.urls[name] + {
            "bowline": f"/packages/pypi/simple/{project}/", "nginx": f"/simple/{project}/", "devpi": f"/root/bench/+simple/{project}/",
            "pypiserver": f"/simple/{project}/", "proxpi": f"/index/{project}/",
        }[name if name in PEERS else "bowline"]

    def listed(self, name, project):
        """URLs of its files, oldest first."""
        page = self.index(name, project)
        text = fetch(page, Accept="text/html")[1].decode()
        links = re.findall(r'href="([^"#]+\.whl)', text)
        urls = [urllib.parse.urljoin(page, html.unescape(link)) for link in links]
        order = {filename: at for at, (filename, _) in enumerate(self.projects[project])}
        return sorted(urls, key=lambda url: order[url.rsplit("/", 1)[1]])

    def everything(self):
        return [(project, wheel) for project, wheels in self.projects.items() for wheel in wheels]
