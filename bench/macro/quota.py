"""A share of a core for a balancer, by control groups of version 1 or 2, so that it and nothing else limits the rate."""
import contextlib
import os
from pathlib import Path

from measure import family

PERIOD_US = 2000
SHARE_US = 1000  # half a core, in the smallest slices the kernel gives


def group_folder():
    """Version and folder of the group this process is in; `None` where processors are not shared out by groups."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup" and "cpu" in options.split(","):
            path = next(path for names, path in own.items() if "cpu" in names.split(","))
            return 1, Path(place + path)
        if kind == "cgroup2":
            folder = Path(place + own.get("", "/"))
            controllers = folder / "cgroup.controllers"
            if controllers.exists() and "cpu" in controllers.read_text().split():
                return 2, folder
    return None


class Quotas:
    """Groups of this run. `is_possible` is false where there can be none."""

    def __init__(self):
        self.groups, self.version = {}, None
        self.is_possible = self.is_made("try")
        self.close()

    def is_made(self, name):
        found = group_folder()
        if not found:
            return False
        self.version, parent = found
        folder = parent / f"bowline-bench-{os.getpid()}-{name}"
        try:
            if self.version == 2 and "cpu" not in (parent / "cgroup.subtree_control").read_text().split():
                (parent / "cgroup.subtree_control").write_text("+cpu")
            folder.mkdir()
            self.groups[name] = folder
            self.give(name, None)
        except OSError:
            return False
        return True

    def add(self, peer):
        """Puts a balancer and all its processes into a group of its own, as yet without a bound."""
        if self.is_possible and self.is_made(peer.key):
            for pid in family(peer.pid):
                (self.groups[peer.key] / "cgroup.procs").write_text(str(pid))

    def give(self, name, share_us):
        """`None` takes the bound away."""
        folder = self.groups[name]
        if self.version == 1:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(share_us or -1))
        else:
            (folder / "cpu.max").write_text(f"{share_us or 'max'} {PERIOD_US}")

    @contextlib.contextmanager
    def bound(self, peer):
        self.give(peer.key, SHARE_US)
        try:
            yield
        finally:
            self.give(peer.key, None)

    def close(self):
        """The processes have ended."""
        for folder in self.groups.values():
            with contextlib.suppress(OSError):
                folder.rmdir()
        self.groups = {}
