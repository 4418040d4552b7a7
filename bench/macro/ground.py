"""What every balancer stands on: a folder for one run, its certificate, the origins, and the processes that were started."""
import glob
import os
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from measure import free_port

HERE = Path(__file__).resolve().parent
LOOPBACKS = 200  # addresses the origin answers on, for pools of many backends

# With Content-Type, Content-Length, Date, Server, Last-Modified, Accept-Ranges and Connection, these make twenty.
PAGE_FIELDS = {
    "Cache-Control": "no-cache, no-store, must-revalidate, private",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; img-src 'self' data: https:; "
                               "connect-src 'self' wss:; frame-ancestors 'self'",
    "ETag": "W/\\\"5f8d-Jc2kQm3pVt0bqk8nYw4eHq1sXzA\\\"",
    "Expires": "0",
    "Pragma": "no-cache",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Set-Cookie": "session=Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA; Path=/; HttpOnly; SameSite=Lax",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "Vary": "Accept-Encoding, Cookie",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Powered-By": "Shiny/1.12",
}


def fill(template, values):
    """A file of `peers/`, with each @NAME@ replaced; a list becomes lines indented as the placeholder is."""
    def put(match):
        value = values[match.group(2)]
        return "\n".join(match.group(1) + line for line in value) if isinstance(value, list) else match.group(1) + str(value)

    text = (HERE / "peers" / template).read_text()
    text = re.sub(r"^( *)@([A-Z_]+)@$", put, text, flags=re.MULTILINE)
    return re.sub(r"()@([A-Z_]+)@", put, text)


class Ground:
    """The balancers have core 0, origins and load generators core 1, unless a process is started otherwise."""

    def __init__(self, folder, load):
        self.run, self.load, self.processes = folder, load, {}
        # As on a real machine not in the folder of the configuration, which is watched for changes.
        self.log = f"{folder}/log/access.log"
        os.makedirs(f"{folder}/log")
        self.origin_a, self.origin_b, self.tool = free_port(), free_port(), free_port()
        os.makedirs(f"{folder}/www/big")
        os.makedirs(f"{folder}/certs")
        for name, size in (("1k", 1024), ("big/200k", 200_000), ("big/10m", 10 << 20)):
            Path(f"{folder}/www/{name}").write_bytes(secrets.token_bytes(size))
        page = "<!DOCTYPE html><html><head><title>page</title></head><body>" + "<p>words</p>" * 80
        Path(f"{folder}/www/page").write_text(page[:1010] + "</body></html>")
        self.client_config = f"{folder}/client.cnf"
        Path(self.client_config).write_text(fill("client.cnf", {}))
        key, certificate = f"{folder}/certs/default.key", f"{folder}/certs/default.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )
        os.chmod(key, 0o600)
        Path(f"{folder}/both.pem").write_text(Path(certificate).read_text() + Path(key).read_text())
        os.chmod(f"{folder}/both.pem", 0o600)

    def backends(self, count):
        """Addresses with ports, all the same origin."""
        if count == 2:
            return [("127.0.0.1", self.origin_a), ("127.0.0.1", self.origin_b)]
        return [(f"127.0.1.{i + 1}", self.origin_a) for i in range(count)]

    def start_origins(self):
        everywhere = ["127.0.0.1"] + [f"127.0.1.{i + 1}" for i in range(LOOPBACKS)]
        listens = [f"listen {address}:{self.origin_a} backlog=4096;" for address in everywhere]
        fields = " ".join(f'add_header {name} "{value}";' for name, value in PAGE_FIELDS.items())
        Path(f"{self.run}/origin.conf").write_text(fill("origin.conf", {
            "RUN": self.run, "LISTENS": [*listens, f"listen 127.0.0.1:{self.origin_b} backlog=4096;"], "PAGE_FIELDS": fields}))
        self.start("origin", ["nginx", "-c", f"{self.run}/origin.conf"], "1")
        self.start("tool", [self.load, "origin", str(self.tool)], "1")
        self.wait(f"http://127.0.0.1:{self.origin_a}/1k")
        self.wait(f"http://127.0.0.1:{self.tool}/sink")

    def start(self, name, command, cores):
        # Appended to, as a balancer's log on standard output is cut off now and then.
        with open(f"{self.run}/{name}.out", "ab") as output:
            process = subprocess.Popen(["taskset", "-c", cores, *command], stdout=output, stderr=subprocess.STDOUT)
        self.processes[name] = process
        return process

    def wait(self, url):
        """Seconds until it answers."""
        started = time.monotonic()
        while time.monotonic() - started < 30:
            try:
                urllib.request.urlopen(url, timeout=2).read()
                return time.monotonic() - started
            except (urllib.error.URLError, ConnectionError, OSError):
                time.sleep(0.003)
        told = "".join(f"--- {path}\n{Path(path).read_text(errors='replace')[-2000:]}"
                       for path in glob.glob(f"{self.run}/*.out") + glob.glob(f"{self.run}/*.err"))
        raise RuntimeError(f"nobody answers at {url}\n{told}")

    def stop(self, *names):
        for name in names or list(self.processes):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def forget_logs(self):
        """Access logs may lie in memory: none grows for long."""
        for path in (self.log, *glob.glob(f"{self.run}/*.out")):
            if os.path.exists(path) and os.path.getsize(path) > 1 << 20:
                os.truncate(path, 0)
