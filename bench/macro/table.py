"""The tables: medians over rounds, ratios to the best balancer of each row, and issue 5's aims beside them."""
import statistics

from cases import BY_NAME, CASES
from extras import MANY, added_us
from peers import OURS

MET, MISSED, INVALID = "yes", "**no**", "invalid"
SHOWN = {"nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "bowline": "Bowline", "none": "no balancer"}

# Idle connections: KiB each, or no more than the best balancer.
IDLE = {"idle websocket, plain": 2, "idle websocket, TLS": 14, "idle keep-alive, plain": 2, "idle keep-alive, TLS": None}


def lined(*cells):
    return "| " + " | ".join(cells) + " |"


def header(*cells):
    return [lined(*cells), "|" + "---|" * len(cells)]


def figure(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


class Rows:
    """Measurements, by case and balancer."""

    def __init__(self, rows, what):
        self.rows = [row for row in rows if row["what"] == what]
        self.cases = list(dict.fromkeys(row["case"] for row in self.rows))

    def of(self, case, peer):
        """{round: row}"""
        return {row["round"]: row for row in self.rows if row["case"] == case and row["peer"] == peer}

    def is_valid(self, case, peer):
        mine = self.of(case, peer)
        return bool(mine) and not any(row["errors"] for row in mine.values())

    def median(self, case, peer, key):
        return statistics.median(row[key] for row in self.of(case, peer).values())

    def ratio(self, case, peer, base, key):
        """Median over rounds of the ratios in the same round."""
        mine, its = self.of(case, peer), self.of(case, base)
        return statistics.median(mine[turn][key] / max(its[turn][key], 1e-9) for turn in mine)

    def best(self, case, others, key, is_most=False):
        """Which of the others has the least, or the most."""
        valid = [name for name in others if self.is_valid(case, name)]
        return (max if is_most else min)(valid, key=lambda name: self.median(case, name, key), default=None)


def mark(is_met):
    return MET if is_met else MISSED


def work(rows, names):
    """CPU per unit of work."""
    found, others = Rows(rows, "work"), [name for name in names if name != OURS]
    lines = header("CPU µs per …", *(SHOWN[n] for n in names), "of the best", "aim", "met")
    for case in (BY_NAME[name] for name in found.cases):
        key = "cpu_us_per_mib" if case.unit == "MiB" else "cpu_us"
        cells = []
        for name in names:
            if not found.is_valid(case.name, name):
                cells.append(INVALID)
                continue
            cpu, rate, busy = (found.median(case.name, name, k) for k in (key, "rate", "busy"))
            cells.append(f"{figure(cpu)} ({figure(rate)}/s at {busy:.2f})")
        judged = ("–", "–", INVALID) if INVALID in cells else verdict(found, case, others, key)
        lines.append(lined(f"{case.name}: {case.unit}", *cells, *judged))
    return lines


def verdict(found, case, others, key):
    best = case.aim.peer or found.best(case.name, others, key)
    if not found.of(case.name, OURS) or not best or not found.of(case.name, best):
        return "–", "–", "–"
    ratio = found.ratio(case.name, OURS, best, key)
    whose = SHOWN[case.aim.peer] if case.aim.peer else "the best"
    return f"{ratio:.2f} of {SHOWN[best]}", f"≤ {case.aim.cpu} of {whose}", mark(ratio <= case.aim.cpu)


def bound(rows, names, is_measured):
    """Rates where the balancer is what limits them."""
    found, others = Rows(rows, "bound" if is_measured else "work"), [name for name in names if name != OURS]
    lines = header("a second", *(SHOWN[n] for n in names), "of the best", "aim", "met")
    for case in CASES:
        if not (case.aim and case.aim.rate) or case.name not in found.cases:
            continue
        if not is_measured:
            for row in found.rows:
                row["derived"] = 1e6 / row["cpu_us"] if row["cpu_us"] else 0
        key = "rate" if is_measured else "derived"
        cells = [f"{found.median(case.name, n, key):.0f}" if found.is_valid(case.name, n) else INVALID for n in names]
        best = found.best(case.name, others, key, is_most=True)
        if INVALID in cells:
            lines.append(lined(case.name, *cells, "–", "–", INVALID))
        elif best and found.of(case.name, OURS):
            ratio = found.ratio(case.name, OURS, best, key)
            judged = (f"{ratio:.2f} of {SHOWN[best]}", f"≥ {case.aim.rate}", mark(ratio >= case.aim.rate))
            lines.append(lined(case.name, *cells, *judged))
        else:
            lines.append(lined(case.name, *cells, "–", "–", "–"))
    return lines


def latency(rows, names, rate):
    found = Rows(rows, "latency")
    columns = [*names, "none"]
    lines = header(f"ms at {rate}/s: p50 / p99 / p99.9 (busy)", *(SHOWN[n] for n in columns))
    for case in found.cases:
        cells = []
        for name in columns:
            if not found.of(case, name):
                cells.append("–")
            elif not found.is_valid(case, name):
                cells.append(INVALID)
            elif found.median(case, name, "rate") < 0.97 * rate:
                cells.append("cannot")
            else:
                told = " / ".join(f"{found.median(case, name, key):.2f}" for key in ("p50_ms", "p99_ms", "p999_ms"))
                cells.append(f"{told} ({found.median(case, name, 'busy'):.2f})")
        lines.append(lined(case, *cells))
    return lines


def memory(rows, names):
    found, others = Rows(rows, "memory"), [name for name in names if name != OURS]
    count = found.rows[0]["count"]
    lines = header(f"KiB each of {count} → after 64 KiB each way; all closed", *(SHOWN[n] for n in names), "aim", "met")
    for case in found.cases:
        keys = ["kib", "kib_after_traffic"] if "websocket" in case else ["kib"]
        cells = []
        for name in names:
            if not found.is_valid(case, name):
                cells.append(INVALID)
                continue
            kept = statistics.median(row["closed_kib"] / row["base_kib"] for row in found.of(case, name).values())
            cells.append(" → ".join(f"{found.median(case, name, key):.2f}" for key in keys) + f"; {kept:.2f} × start")
        if INVALID in cells or not found.of(case, OURS):
            lines.append(lined(case, *cells, "–", INVALID if INVALID in cells else "–"))
            continue
        best = found.best(case, others, "kib")
        most = IDLE[case] if IDLE[case] is not None else found.median(case, best, "kib") if best else 0
        is_small = all(found.median(case, OURS, key) <= most for key in keys)
        is_returned = all(row["closed_kib"] <= 2 * row["base_kib"] for row in found.of(case, OURS).values())
        shown = f"≤ {IDLE[case]}" if IDLE[case] is not None else "≤ the best"
        lines.append(lined(case, *cells, f"{shown}; ≤ 2 × start", mark(is_small and is_returned)))
    return lines


def against_itself(rows, what, names, variants, title, most):
    """CPU of a balancer in several variants, and its ratio to its own first."""
    found = Rows(rows, what)
    lines = header(title, *(SHOWN[n] for n in names), "aim", "met")
    first = variants[0]
    for case in found.cases:
        for variant in variants:
            cells, ratios = [], {}
            for name in names:
                mine, base = f"{name} {variant}", f"{name} {first}"
                if not (found.is_valid(case, mine) and found.is_valid(case, base)):
                    cells.append(INVALID)
                    continue
                ratios[name] = found.ratio(case, mine, base, "cpu_us")
                cells.append(f"{figure(found.median(case, mine, 'cpu_us'))} ({ratios[name]:.2f})")
            judged = (f"≤ {most}", mark(ratios[OURS] <= most)) if variant != first and OURS in ratios else ("–", "–")
            lines.append(lined(f"{case}: {variant}", *cells, *judged))
    return lines


def logs(rows, names):
    found = Rows(rows, "logs")
    lines = header("CPU µs per request, each with its access log", *(SHOWN[n] for n in names))
    for case in found.cases:
        cells = [figure(found.median(case, f"{n} log", "cpu_us")) if found.is_valid(case, f"{n} log") else INVALID for n in names]
        lines.append(lined(case, *cells))
    return lines


def features(rows):
    found = Rows(rows, "features")
    lines = header("Bowline's", "load", "without any, CPU µs", "it adds, µs", "middle half")
    for key, (load, bare, added, (low, high)) in added_us(found.rows).items():
        is_valid = found.is_valid(load, key) and found.is_valid(load, "bare")
        cells = (figure(bare), f"{added:+.2f}", f"{low:+.2f} to {high:+.2f}") if is_valid else (INVALID,) * 3
        lines.append(lined(key, load, *cells))
    return lines


def errors(rows):
    """One line for each case and balancer with errors."""
    lines = {}
    for row in rows:
        if row["errors"]:
            lines.setdefault((row["what"], row["case"], row["peer"]), row["errors"])
    return [f"* {what}, {case}, {peer}: {told}" for (what, case, peer), told in lines.items()]


def text(run):
    """All tables of a run, as Markdown."""
    rows, names = run["rows"], run["peers"]
    is_there = {row["what"] for row in rows}
    parts = []
    if "work" in is_there:
        parts += [work(rows, names)]
        is_measured = "bound" in is_there
        if (is_measured or not run["quota"]) and any(BY_NAME[name].aim.rate for name in Rows(rows, "work").cases):
            how = ("With half a core for each balancer (a quota of control groups, 1 of every 2 ms):" if is_measured else
                   "Control groups give no quota here: rates of a whole core, **derived from CPU**, not measured:")
            parts += [[how], bound(rows, names, is_measured)]
    if "latency" in is_there:
        parts += [latency(rows, names, run["rate"])]
    if "memory" in is_there:
        parts += [memory(rows, names)]
    if "workers" in is_there:
        parts += [against_itself(rows, "workers", names, ["1", "2"], "CPU µs per request by workers (ratio to one)", 1.05)]
    if "many" in is_there:
        parts += [against_itself(rows, "many", names, list(MANY), "CPU µs per request (ratio to one route, 2 backends)", 1.05)]
    if "logs" in is_there:
        parts += [logs(rows, names)]
    if "features" in is_there:
        parts += [features(rows)]
    notes = [f"* {problem}" for problem in run["differences"]] + errors(rows)
    if notes:
        parts += [["**Not all is valid:**", *notes]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"
