"""KiB of PSS per idle connection, a fresh process for each line."""
import subprocess
import time

import peers
from measure import pss_kib
from rounds import rotated, told

KINDS = [("ws", "plain"), ("ws", "tls"), ("http", "plain"), ("http", "tls")]
SETTLE = 1  # seconds before memory is looked at
GIVEN_BACK_WITHIN = 5  # seconds after all have closed


def case(kind, mode):
    return f"idle {'websocket' if kind == 'ws' else 'keep-alive'}, {'TLS' if mode == 'tls' else 'plain'}"


def measure(ground, programs, names, count, rounds):
    rows = []
    for turn in range(rounds):
        for kind, mode in KINDS:
            for name in rotated(names, turn):
                peer = peers.start(ground, programs, name)
                row = {"what": "memory", "case": case(kind, mode), "peer": name, "round": turn, "count": count,
                       **held(ground, peer, kind, mode, count)}
                peers.stop(ground, [peer])
                rows.append(row)
                told(f"memory, round {turn}: {row['case']:26s} {name:10s} {row.get('kib', 0):.2f} KiB each, "
                     f"after traffic {row.get('kib_after_traffic', 0):.2f}, at start {row['base_kib']}, "
                     f"given back to {row.get('closed_kib', 0)} {row['errors']}")
    return rows


def held(ground, peer, kind, mode, count):
    port = peer.https if mode == "tls" else peer.http
    client = subprocess.Popen(["taskset", "-c", "1", ground.load, "hold", mode, kind, str(port)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(line):
        """How many answered."""
        client.stdin.write(line + "\n")
        client.stdin.flush()
        answer = client.stdout.readline().split()
        if not answer:
            raise RuntimeError(f"at `{line}`: {client.stderr.read().strip()}")
        time.sleep(SETTLE)
        return int(answer[1])

    row = {"base_kib": pss_kib(peer.pid), "errors": ""}
    try:
        ask(f"open {count}")
        row["kib"] = (pss_kib(peer.pid) - row["base_kib"]) / count
        alive = count
        if kind == "ws":
            alive = ask("big")
            row["kib_after_traffic"] = (pss_kib(peer.pid) - row["base_kib"]) / count
        alive = min(alive, ask("alive"))
        if alive != count:
            row["errors"] = f"only {alive} of {count} answered"
    except (RuntimeError, BrokenPipeError) as e:
        row["errors"] = str(e)
    finally:
        client.stdin.close()
        client.wait(30)
    row["closed_kib"] = given_back(peer.pid, row["base_kib"])
    return row


def given_back(pid, base):
    """The least within some seconds, as allocators give back after a while; the first that is about what it was at start."""
    least, until = pss_kib(pid), time.monotonic() + GIVEN_BACK_WITHIN
    while time.monotonic() < until and least > 1.1 * base:
        time.sleep(0.5)
        least = min(least, pss_kib(pid))
    return least
