"""Measuring: every round visits all that is compared in rotated order, so that a slow drift of the machine hits all alike."""
import contextlib
import subprocess
import sys

import peers
from measure import cpu_by_thread, cpu_since



def told(text):
    print(text, file=sys.stderr, flush=True)


def once(ground, peer, make, *arguments):
    """CPU of a balancer while `make` does its work."""
    before = cpu_by_thread(peer.pid)
    try:
        got = make(*arguments)
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        got = {"n": 0, "seconds": 1.0, "bytes": 0.0, "errors": str(e).strip()[-300:]}
    cpu = cpu_since(peer.pid, before)
    ground.forget_logs()
    if not got["n"] and not got["errors"]:
        got["errors"] = "nothing was done"
    return {
        "cpu_us": cpu / 1e3 / max(got["n"], 1),
        "cpu_us_per_mib": cpu / 1e3 / max(got["bytes"] / 2**20, 1e-9),
        "rate": got["n"] / got["seconds"],
        "busy": cpu / 1e9 / got["seconds"],
        **got,
    }


def rotated(things, turn):
    turn %= len(things)
    return things[turn:] + things[:turn]


class Rounds:
    """How often, how long, by which tools."""

    def __init__(self, ground, tools, rounds, seconds):
        self.ground, self.tools, self.rounds, self.seconds = ground, tools, rounds, seconds

    def measure(self, what, cases, running, quotas=None):
        """Rows of `cases`, [(name, make)], for all the balancers; within `quotas` if given."""
        rows = []
        if self.rounds > 1 and not quotas:
            for _, make in cases:  # warm-up, not counted
                for peer in running:
                    make(self.tools, peer, 1)
        for turn in range(self.rounds):
            for name, make in cases:
                for peer in rotated(running, turn):
                    with quotas.bound(peer) if quotas else contextlib.nullcontext():
                        got = once(self.ground, peer, make, self.tools, peer, self.seconds)
                    row = {"what": what, "case": name, "peer": peer.key, "round": turn, **got}
                    rows.append(row)
                    told(f"{what}, round {turn}: {name:26s} {peer.key:18s} {row['rate']:9.0f}/s "
                         f"{row['cpu_us']:9.2f} us busy {row['busy']:.2f} {row['errors']}")
        return rows


@contextlib.contextmanager
def started(ground, programs, wanted):
    """Balancers for a while; `wanted` is [(name, variant, key)]."""
    running = []
    try:
        for name, variant, key in wanted:
            running.append(peers.start(ground, programs, name, variant, key))
        yield running
    finally:
        peers.stop(ground, running)
