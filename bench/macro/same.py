"""Whether all balancers really do the same work: asked once per run, told in `raw.json`."""
import contextlib
import hashlib
import http.client
import ipaddress
import os
import re
import subprocess
import urllib.request
from pathlib import Path

REQUESTS = 40  # so many on one connection
EXPECTED = {"version": "TLSv1.3", "suite": "TLS_AES_256_GCM_SHA384", "curve": "X25519", "alpn": "h2", "keeps clients": True,
            "keeps upstream": True, "forwards address": True, "answers alike": True, "echoes": True, "uploads": True,
            "resumes": True}


def spoken(ground, peer):
    """What a client like those of the load generators speaks with it."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{peer.https}", "-servername", "localhost", "-alpn", "h2,http/1.1"],
        # What is told may be followed by frames of HTTP/2.
        input="", capture_output=True, text=True, errors="replace", check=False, timeout=20,
        env={**os.environ, "OPENSSL_CONF": ground.client_config})
    first = lambda pattern: (re.search(pattern, done.stdout) or ["", "?"])[1]
    return {"version": first(r"New, (TLSv[\d.]+), Cipher"), "suite": first(r"Cipher is (\S+)"),
            "curve": first(r"Server Temp Key: (\w+)"), "alpn": first(r"ALPN protocol: (\S+)")}


def kept(peer):
    """Over one connection, many requests: whether it stays open, and whether the upstream connections do."""
    client = http.client.HTTPConnection("127.0.0.1", peer.http, timeout=10)
    client.connect()
    socket, came = client.sock, []
    for _ in range(REQUESTS):
        client.request("GET", "/came")
        came.append(client.getresponse().read().decode().strip().split("|"))
    is_kept = client.sock is socket
    client.close()
    # Two origins and 64 connections of warm-up at most: the last requests are not the first on theirs.
    return {"keeps clients": is_kept, "keeps upstream": int(came[-1][0]) > REQUESTS // 4,
            "forwards address": is_address(came[-1][1])}


def is_address(text):
    # Envoy tells the machine's own address in place of a loopback one.
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return False


def answer(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/1k", timeout=10) as reply:
        return hashlib.sha256(reply.read()).hexdigest()


def done_by(ground, tools, peer):
    wanted = hashlib.sha256(Path(f"{ground.run}/www/1k").read_bytes()).hexdigest()
    echoed = [tools.on("echo", peer, is_tls, connections=2, seconds=1, size=300) for is_tls in (False, True)]
    sent = [tools.on("upload", peer, is_tls, connections=1, seconds=1, size=3 << 20) for is_tls in (False, True)]
    return {
        **spoken(ground, peer), **kept(peer), "answers alike": answer(peer.http) == wanted,
        "echoes": all(got["n"] and not got["errors"] for got in echoed),
        "uploads": all(got["n"] and not got["errors"] for got in sent),
        "resumes": not tools.handshakes(peer, "resumed", 1)["errors"],
        "cookie": peer.cookie.split("=")[0] or None,
    }


def check(ground, tools, running):
    """{balancer: what it does}, and what differs from the expected."""
    found, problems = {}, []
    for peer in running:
        try:
            does = found[peer.key] = done_by(ground, tools, peer)
        except (RuntimeError, OSError, ValueError, http.client.HTTPException, subprocess.TimeoutExpired) as e:
            problems.append(f"{peer.key}: {e}")
            continue
        problems += [f"{peer.key}: {what} is {does[what]}, not {value}"
                     for what, value in EXPECTED.items() if does[what] != value]
    return found, problems
