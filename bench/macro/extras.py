"""What is compared within one balancer, or at a rate of its own: latency, two workers, many routes, features, access logs."""
import statistics

from cases import BY_NAME, browser
from peers import OURS, USUAL, Variant
from rounds import once, started, told

BARE = frozenset()


def both(command):
    return [(f"{command}, {'TLS' if is_tls else 'plain'}", is_tls) for is_tls in (False, True)]


# ---------------------------------------------------------------------------------------------------------------------
# Latency at a fixed rate.

LOAD = 0.6


def sane_rate(rounds, running):
    """Requests a second that keep the busiest balancer busy for 60 % of the time, of those that do at least half of what the
    fastest does. A closed loop tells about how many; at that rate of arrivals, which come in smaller batches and so cost more,
    it is seen how busy they are."""
    def does_in(peer):
        got = rounds.tools.get(peer, "/1k", 64, rounds.seconds, is_tls=True)
        return got["n"] / got["seconds"]

    does = {peer.key: does_in(peer) for peer in running}
    sane = [peer for peer in running if does[peer.key] >= max(does.values()) / 2]
    rate = LOAD * min(does[peer.key] for peer in sane)
    busy = {peer.key: once(rounds.ground, peer, at_rate, rounds.tools, peer, rounds.seconds, True, int(rate))["busy"]
            for peer in sane}
    rate = round(rate * min(1, LOAD / max(max(busy.values()), 0.01)), -2)
    told(f"fixed rate: {rate:.0f}/s, as {', '.join(f'{name} does {n:.0f}' for name, n in does.items())} and "
         f"{', '.join(f'{name} is busy {share:.2f}' for name, share in busy.items())}")
    return int(rate)


def at_rate(tools, peer, seconds, is_tls, rate):
    return tools.on("fixed", peer, is_tls, connections=64, seconds=seconds, rate=rate)


def latency(rounds, running, rate):
    """An open loop over 64 connections. `none` is the origin itself, without a balancer."""
    cases = [(name, lambda tools, peer, seconds, is_tls=is_tls: at_rate(tools, peer, seconds, is_tls, rate))
             for name, is_tls in both("h1 1 KiB")]
    rows = rounds.measure("latency", cases, running)
    for turn in range(rounds.rounds):
        got = rounds.tools.own("fixed", "plain", rounds.ground.origin_a, connections=64, seconds=rounds.seconds, rate=rate)
        rows.append({"what": "latency", "case": cases[0][0], "peer": "none", "round": turn, "busy": 0,
                     "rate": got["n"] / max(got["seconds"], 1e-9), **got})
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Two workers.

def workers(rounds, programs, names):
    """CPU per request with one worker and with two, none of them and no load generator bound to a core."""
    cases = [(name, lambda tools, peer, seconds, is_tls=is_tls:
              tools.get(peer, "/1k", 64, seconds, is_tls=is_tls, cores="0,1")) for name, is_tls in both("h1 1 KiB")]
    rows = []
    for name in names:
        wanted = [(name, Variant(workers=n, cores="0,1"), f"{name} {n}") for n in (1, 2)]
        with started(rounds.ground, programs, wanted) as running:
            rows += rounds.measure("workers", cases, running)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Many routes, many backends.

MANY = {"one": USUAL, "routes": Variant(routes=1000), "backends": Variant(backends=200),
        "both": Variant(routes=1000, backends=200)}


def many(rounds, programs, names):
    """A thousand paths in turn, to balancers with one route for all, a thousand routes, 200 backends, or both."""
    case = ("h1 1 KiB, plain", lambda tools, peer, seconds: tools.get(peer, "/r0000/1k", 64, seconds, script="routes.lua"))
    rows = []
    for name in names:
        wanted = [(name, variant, f"{name} {key}") for key, variant in MANY.items()]
        with started(rounds.ground, programs, wanted) as running:
            rows += rounds.measure("many", [case], running)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Access logs, buffered where they can be.

def logs(rounds, programs, names):
    cases = [(name, BY_NAME[name].make) for name in ("h1 1 KiB, plain", "h1 1 KiB, TLS")]
    with started(rounds.ground, programs, [(name, Variant(has_log=True), f"{name} log") for name in names]) as running:
        return rounds.measure("logs", cases, running)


# ---------------------------------------------------------------------------------------------------------------------
# Each feature of Bowline alone.

FORWARDED = ("X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https", "X-Request-Id: 0f8fad5bd9cb469fa16570867728950e")


def plain(path, *headers, script=None):
    return lambda tools, peer, seconds: tools.get(peer, path, 64, seconds, *headers, script=script)


def known(tools, peer, seconds):
    # Of the one that binds; to the other it is any cookie of the same length.
    return tools.get(peer, "/1k", 64, seconds, f"Cookie: {known.cookie}")


# Load, and what is measured by it: a feature, or several.
FEATURES = [
    ("1 KiB", plain("/1k"), {
        "access log": {"log"}, "affinity cookie, new client": {"cookie"}, "least_sessions": {"least_sessions"},
        "probes": {"probes"}, "X-RSC-Request": {"rsc_request"},
        "all of these": {"log", "cookie", "least_sessions", "probes", "rsc_request"}}),
    ("1 KiB with that cookie", known, {"affinity cookie, client that returns": {"cookie"}}),
    ("1 KiB with forwarded fields", plain("/1k", *FORWARDED), {"forwarded fields believed": {"trusted"}}),
    ("POST 1 KiB", plain("/sink", script="post.lua"), {"body limit": {"body limit"}}),
    ("page of 1 KiB", plain("/page"), {"reconnection script in pages": {"shim"}}),
    ("browser's 20 fields", lambda tools, peer, seconds: browser(tools, peer, seconds, False),
     {"all, with 20 fields": USUAL.features}),
]


def features(rounds, programs):
    """Bowline without any, and with one; the same load for both."""
    rows = []
    for load, make, wanted in FEATURES:
        variants = {"bare": BARE, **wanted}
        with started(rounds.ground, programs,
                     [(OURS, Variant(features=frozenset(has)), key) for key, has in variants.items()]) as running:
            known.cookie = max((peer.cookie for peer in running), key=len)
            rows += rounds.measure("features", [(load, make)], running)
    return rows


def added_us(rows):
    """{feature: (load, CPU of the bare one, what the feature adds, the middle half of what it added)}, in µs per request."""
    found = {}
    for load in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == load]
        bare = {row["round"]: row["cpu_us"] for row in mine if row["peer"] == "bare"}
        for key in dict.fromkeys(row["peer"] for row in mine if row["peer"] != "bare"):
            added = sorted(row["cpu_us"] - bare[row["round"]] for row in mine if row["peer"] == key)
            middle = (added[len(added) // 4], added[-1 - len(added) // 4])
            found[key] = (load, statistics.median(bare.values()), statistics.median(added), middle)
    return found
