"""The kinds of work, what makes each, and what issue 5 aims at."""
import dataclasses
import json
import re
from collections.abc import Callable

from ground import HERE
from measure import sh, wrk

# Twenty fields of a browser, with Host, which the load generator sends by itself, and Cookie, which is the client's.
BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control: max-age=0",
    "DNT: 1",
    "Pragma: no-cache",
    "Priority: u=0, i",
    "Referer: https://shiny.example.org/apps/overview/",
    'Sec-CH-UA: "Chromium";v="149", "Not-A.Brand";v="24"',
    "Sec-CH-UA-Mobile: ?0",
    'Sec-CH-UA-Platform: "Linux"',
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-User: ?1",
    "Sec-GPC: 1",
    "Upgrade-Insecure-Requests: 1",
)
COOKIES = "theme=dark; _ga=GA1.2.1234567890.1700000000; csrftoken=9f8e7d6c5b4a39281706f5e4d3c2b1a0"


class Tools:
    """The load generators, on core 1 unless said otherwise. Each tells `n` (of requests, handshakes or messages),
    `seconds`, `bytes` and `errors`."""

    def __init__(self, load, client_config):
        self.load, self.environment = load, {"OPENSSL_CONF": client_config}

    def get(self, peer, path, connections, seconds, *headers, is_tls=False, script=None, cores="1"):
        url = f"https://127.0.0.1:{peer.https}{path}" if is_tls else f"http://127.0.0.1:{peer.http}{path}"
        return wrk(url, connections, seconds, *headers, script=script and str(HERE / script), cores=cores,
                   environment=self.environment)

    def h2(self, peer, path, connections, streams, seconds):
        out = sh(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0",
                  "--tls13-ciphers=TLS_AES_256_GCM_SHA384", "--groups=X25519", f"https://localhost:{peer.https}{path}"],
                 environment=self.environment)
        m = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
        if not m:
            raise RuntimeError(out)
        n = int(m.group(2))
        broken = sum(int(m.group(i)) for i in (3, 4, 5))
        return {"n": n, "seconds": float(seconds), "bytes": n * 1024.0, "errors": f"{broken} failed" if broken else ""}

    def own(self, *words, cores="1", **amounts):
        command = [self.load, *map(str, words)]
        for name, amount in amounts.items():
            command += [f"--{name}", str(amount)]
        out = sh(command, cores)
        try:
            return json.loads(out)
        except json.JSONDecodeError as e:
            raise RuntimeError(out) from e

    def on(self, command, peer, is_tls, **amounts):
        return self.own(command, "tls" if is_tls else "plain", peer.https if is_tls else peer.http, **amounts)

    def handshakes(self, peer, kind, seconds):
        got = self.own("handshakes", kind, peer.https, connections=32, seconds=seconds)
        of_kind = got.get(kind, 0)
        if of_kind < 0.99 * got["n"]:
            got["errors"] = f"only {of_kind:.0f} of {got['n']} were {kind}; {got['errors']}".rstrip("; ")
        return got


@dataclasses.dataclass(frozen=True)
class Aim:
    """At most this share of the CPU of the best peer, or of the peer named; at least this multiple of its rate."""
    cpu: float
    rate: float | None = None
    peer: str | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """Work whose CPU is divided by `unit`: `request`, `message`, `handshake` or `MiB`."""
    name: str
    unit: str
    aim: Aim | None
    make: Callable  # (tools, peer, seconds) -> what was done


def browser(tools, peer, seconds, is_tls):
    cookies = "; ".join(filter(None, (COOKIES, peer.cookie)))
    return tools.get(peer, "/page", 64, seconds, *BROWSER, f"Cookie: {cookies}", is_tls=is_tls)


def both(name, unit, aim, make):
    """Plain and TLS."""
    return [Case(f"{name}, {'TLS' if is_tls else 'plain'}", unit, aim,
                 lambda tools, peer, seconds, is_tls=is_tls: make(tools, peer, seconds, is_tls)) for is_tls in (False, True)]


SMALL = Aim(0.85, 1.1)
BIG = Aim(0.9)

CASES = [
    *both("h1 1 KiB", "request", SMALL, lambda t, p, s, tls: t.get(p, "/1k", 64, s, is_tls=tls)),
    *both("h1 20 fields", "request", SMALL, browser),
    *both("h1 POST 1 KiB", "request", SMALL, lambda t, p, s, tls: t.get(p, "/sink", 64, s, is_tls=tls, script="post.lua")),
    Case("h2 1 KiB, TLS", "request", Aim(1.0), lambda t, p, s: t.h2(p, "/1k", 8, 16, s)),
    Case("full handshake", "handshake", Aim(0.6, peer="nginx"), lambda t, p, s: t.handshakes(p, "full", s)),
    Case("resumed handshake", "handshake", Aim(1.0), lambda t, p, s: t.handshakes(p, "resumed", s)),
    *both("download 200 kB", "MiB", BIG, lambda t, p, s, tls: t.get(p, "/big/200k", 16, s, is_tls=tls)),
    *both("download 10 MiB", "MiB", BIG, lambda t, p, s, tls: t.get(p, "/big/10m", 8, s, is_tls=tls)),
    *both("upload 100 MiB", "MiB", BIG,
          lambda t, p, s, tls: t.on("upload", p, tls, connections=4, seconds=s, size=100 << 20)),
    *both("websocket 100 B", "message", BIG, lambda t, p, s, tls: t.on("echo", p, tls, connections=64, seconds=s, size=100)),
    *both("websocket 16 KiB", "message", BIG,
          lambda t, p, s, tls: t.on("echo", p, tls, connections=64, seconds=s, size=16 << 10)),
]
BY_NAME = {case.name: case for case in CASES}
