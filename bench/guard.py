#!/usr/bin/env python3
"""Counts instructions under callgrind and holds them against those recorded in bench/guard.json.

    bench/guard.py --bowline target/release/bowline --load target/load/release/load

The pure core's are counted by tests/guard. The forwarder's are counted here: those of the one worker thread of a proxy
with everything switched on that bench/macro has, in a run of so many requests and in one of twice as many, so that what
beginning costs falls out of the difference. bench/README.md says how to read it. Ends with 1 where there are too many.
"""
import argparse
import dataclasses
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "macro"))
sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402
from cases import BROWSER, COOKIES  # noqa: E402
from ground import Ground  # noqa: E402
from measure import sh  # noqa: E402

RECORDS = Path(__file__).with_name("guard.json")
PARTS = ["core", "forwarder"]
REQUESTS = 2000
WARM_UP = 400  # requests, before those that are counted, in either run
PATIENCE_S = 60  # for the counts to be written at the end
PROFILE = "release"
# How much a count may differ from the record of the very compiler: requests that happen to come together share work. From
# another's, with which only what is grossly wrong can be told.
TOLERANCE, TOLERANCE_OF_ANOTHER = 0.08, 0.5
REMEDY = "if that is as it must be, `make bench-guard ARGS=--record` records it"


@dataclasses.dataclass(frozen=True)
class Work:
    """Requests of one kind, made by h2load."""
    path: str
    fields: tuple = ()
    body: str = ""
    is_h2: bool = False  # and TLS

    def make(self, ground, peer, requests):
        """Raises RuntimeError where not all were answered well."""
        words = [word for field in self.fields for word in ("-H", field)]
        if self.fields:
            words += ["-H", f"Cookie: {COOKIES}; {peer.cookie}"]
        if self.body:
            Path(f"{ground.run}/body").write_text(self.body)
            words += ["-d", f"{ground.run}/body"]
        if self.is_h2:
            words += ["-m16", "--tls13-ciphers=TLS_AES_256_GCM_SHA384", "--groups=X25519",
                      f"https://localhost:{peer.https}{self.path}"]
        else:
            words += ["--h1", f"http://127.0.0.1:{peer.http}{self.path}"]
        out = sh(["h2load", "-t1", "-c8", f"-n{requests}", *words], environment={"OPENSSL_CONF": ground.client_config})
        if not re.search(rf"status codes: {requests} 2xx", out) or not re.search(rf"{requests} succeeded, 0 failed", out):
            raise RuntimeError(out)


WORKS = {
    "GET 1 KiB": Work("/1k"),
    "GET 1 KiB, 20 fields each way": Work("/page", fields=BROWSER),
    "POST 1 KiB": Work("/sink", body="p" * 1024),
    "GET 1 KiB, HTTP/2 and TLS": Work("/1k", is_h2=True),
}


class Counted(peers.Programs):
    """Bowline under callgrind, which leaves a file for each thread in `folder`."""

    def __init__(self, path, folder):
        super().__init__(path)
        self.folder = folder

    def command(self, name, config, workers):
        return ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={self.folder}/thread",
                *super().command(name, config, workers)]


def counted(ground, bowline, work, requests):
    """Instructions of each thread, by number, in the order they began."""
    with tempfile.TemporaryDirectory(dir=ground.run) as folder:
        peer = peers.start(ground, Counted(bowline, folder), peers.OURS)
        work.make(ground, peer, WARM_UP)
        work.make(ground, peer, requests)
        # As Ground does it, but counts must be written before it is over.
        process = ground.processes[peer.key]
        process.terminate()
        process.wait(PATIENCE_S)
        ground.stop(peer.key)
        texts = {path: Path(path).read_text() for path in glob.glob(f"{folder}/thread-*")}
    return {int(path.rpartition("-")[2]): int(re.search(r"^totals: (\d+)$", text, re.MULTILINE).group(1))
            for path, text in texts.items()}


def forwarder(bowline, load, requests):
    """Instructions per request of each work."""
    counts = {}
    with tempfile.TemporaryDirectory(prefix="bowline-guard-") as folder:
        os.chmod(folder, 0o755)  # nginx's worker runs as another user
        ground = Ground(folder, load)
        try:
            ground.start_origins()
            for name, work in WORKS.items():
                once, twice = (counted(ground, bowline, work, times * requests) for times in (1, 2))
                # Of all threads the worker is the one that has more to do.
                counts[name] = max(twice[number] - once.get(number, 0) for number in twice) // requests
        finally:
            ground.stop()
    return counts


def core(has_to_record):
    """Whether tests/guard had nothing to say."""
    # Debug is what `make test` compares.
    profiles = [[], ["--profile", "guard"]] if has_to_record else [["--profile", "guard"]]
    environment = {**os.environ, "BOWLINE_GUARD_RECORD": "1"} if has_to_record else None
    commands = (["cargo", "test", "--quiet", *profile, "--test", "guard", "--", "--nocapture"] for profile in profiles)
    return all(subprocess.run(command, check=False, env=environment).returncode == 0 for command in commands)


def compiler():
    """As records name it: what `rustc --version` says, and for which machines."""
    told = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{told}, {platform.machine()}"


def distance(a, b):
    """How far two compilers are apart; those for other machines are farther than any other."""
    machine = lambda name: name.rpartition(", ")[2]
    minor = lambda name: int((re.search(r"\d+\.(\d+)", name) or [0, 0])[1])
    return machine(a) != machine(b), a != b, abs(minor(a) - minor(b))


def compared(counts, records):
    """Prints all, and tells what is wrong."""
    own = compiler()
    alike = {name: profiles[PROFILE] for name, profiles in records["forwarder"].items() if PROFILE in profiles}
    if not alike:
        return [f"nothing is recorded of profile `{PROFILE}`"]
    nearest = min(alike, key=lambda name: distance(own, name))
    recorded, tolerance = alike[nearest], TOLERANCE if nearest == own else TOLERANCE_OF_ANOTHER
    print(f"{own}, {PROFILE}; recorded of {nearest}\n{'work':44} {'count':>10} {'recorded':>10} {'ratio':>6}")
    problems = [f"{work}: is recorded, and is no work" for work in recorded if work not in counts]
    for work, count in counts.items():
        if work not in recorded:
            problems.append(f"{work}: {count}, and nothing is recorded")
            continue
        ratio = count / recorded[work]
        less = "less than recorded: record it" if ratio < 1 - tolerance else ""
        print(f"{work:44} {count:10} {recorded[work]:10} {ratio:6.3f} {less}")
        if ratio > 1 + tolerance:
            problems.append(f"{work}: {count}, {recorded[work]} are recorded: {(ratio - 1) * 100:+.1f} %")
    return problems


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bowline", default="target/release/bowline", help="the program whose forwarder is counted")
    parser.add_argument("--load", default="target/load/release/load", help="the program made of bench/load")
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by `,`; all: %(default)s")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of the shorter run; default: %(default)s")
    parser.add_argument("--record", action="store_true", help="write bench/guard.json in place of comparing")
    a = parser.parse_args()
    a.parts = [part for part in PARTS if part in a.parts.split(",")]
    if not a.parts:
        parser.error("no such part")
    return a


def check_tools(a):
    missing = [tool for tool in ("valgrind", "h2load", "nginx", "openssl", "taskset") if not shutil.which(tool)]
    missing += [name for name in ("bowline", "load") if not os.access(getattr(a, name), os.X_OK)]
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; `make bench-guard` installs and builds what this needs")


def main():
    a = arguments()
    problems = []
    if "core" in a.parts and not core(a.record):
        problems.append("the core: see above")
    if "forwarder" in a.parts:
        check_tools(a)
        counts = forwarder(os.path.abspath(a.bowline), os.path.abspath(a.load), a.requests)
        records = json.loads(RECORDS.read_text())
        if a.record:
            records.setdefault("forwarder", {}).setdefault(compiler(), {})[PROFILE] = counts
            RECORDS.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")
        else:
            problems += compared(counts, records)
    if problems:
        raise SystemExit("\n".join([*problems, REMEDY]))


if __name__ == "__main__":
    main()
