"""The limits on the memory of this process: control groups of Linux, resource limits, free memory.

SLURM, systemd, Docker and Kubernetes set a limit on a control group, which may lie at any depth
below the root. A process is killed without a word if one of its groups reaches its limit.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil


class Room(NamedTuple):
    """Bytes that a process can still take, and the limit that allows no more."""

    num_bytes: int
    limit: str


#: Files of a control group: the limits, the bytes in use, and the pages that can be reclaimed.
_VERSION_1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = (("memory.max", "memory.high"), "memory.current", "inactive_file")


def available_memory() -> Room:
    """Return the least of the free memory of the machine and of all limits on this process."""
    free = Room(int(psutil.virtual_memory().available), "the free memory")
    return min([free, *_resource_limits(), *_group_limits(Path("/"))])


def available_memory_bytes() -> int:
    """Return the bytes that this process can still take; see `available_memory`."""
    return available_memory().num_bytes


def _resource_limits() -> Iterator[Room]:
    """Yield the room below the limits on address space and data, which `ulimit` sets."""
    used = psutil.Process().memory_info()
    for name, size in (("RLIMIT_AS", used.vms), ("RLIMIT_DATA", getattr(used, "data", used.vms))):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield Room(max(0, soft - size), f"the rest of {name}")


def _group_limits(root: Path) -> Iterator[Room]:
    """Yield the room in each control group of this process, up to the root of the hierarchy.

    Args:
        root: root of the file system; tests use another one.
    """
    for folder, top, (limits, usage, reclaimable) in _groups(root):
        for group in (folder, *folder.parents):
            used = _number(group / usage)
            if used is not None:
                cached = _statistic(group / "memory.stat", reclaimable)
                for name in limits:
                    limit = _number(group / name)
                    if limit is not None:
                        room = max(0, limit - max(0, used - cached))
                        yield Room(room, f"the rest of {group / name}")
            if group == top:
                break


def _groups(root: Path) -> Iterator[tuple[Path, Path, tuple[tuple[str, ...], str, str]]]:
    """Yield the folder of each memory group, the folder where its hierarchy is mounted, its files.

    A line of /proc/self/cgroup is `0::/path` (version 2) or `5:memory:/path` (version 1). The mount
    point may show only a part of the hierarchy, as in a container; the group is then looked for
    below the part that is visible.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux, or /proc is not mounted
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            files, kind, needed = _VERSION_2, "cgroup2", ""
        elif "memory" in controllers.split(","):
            files, kind, needed = _VERSION_1, "cgroup", "memory"
        else:
            continue
        for mount in mounts:
            before, _, after = mount.partition(" - ")
            fields, types = before.split(" "), after.split(" ")
            if len(fields) < 5 or types[0] != kind or needed not in [*types[-1].split(","), ""]:
                continue
            top = root / _unescaped(fields[4]).lstrip("/")
            yield top / _below(path, _unescaped(fields[3])), top, files


def _below(path: str, visible: str) -> PurePosixPath:
    """Return the path of a group below the mount point that shows the hierarchy from `visible`."""
    with suppress(ValueError):
        found = PurePosixPath(path).relative_to(visible)
        if ".." not in found.parts:
            return found
    return PurePosixPath()  # the group is outside of the visible part, whose top is then used


def _unescaped(text: str) -> str:
    """Return a field of mountinfo, in which blanks are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _number(path: Path) -> int | None:
    """Return the number in a file; None without one, and for "max"."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _statistic(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
