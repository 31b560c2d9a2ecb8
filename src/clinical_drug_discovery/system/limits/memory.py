"""The limits on the memory of this process: control groups of Linux, resource limits, free memory.

SLURM, systemd, Docker and Kubernetes set a limit on a control group, which may lie at any depth
below the root. A process is killed without a word if one of its groups reaches its limit.
"""

from __future__ import annotations

import math
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import InputError, shown

_GIB = 2**30
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}  # bytes per unit
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": _GIB}
_MARGIN, _MORE_MARGIN = 1.01, 24 * 2**20  # factor and bytes by which equal runs may differ
_FREE_FRACTION = 0.7  # default budget / free memory; other programs may need the rest


class Room(NamedTuple):
    """Bytes that a process can still take, and the limit that allows no more."""

    num_bytes: int
    limit: str


_Files = tuple[tuple[str, ...], str, str]
#: Files of a control group: the limits, the bytes in use, and the pages that can be reclaimed.
_VERSION_1: _Files = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2: _Files = (("memory.max", "memory.high"), "memory.current", "inactive_file")


def available_memory() -> Room:
    """Return the least of the free memory of the machine and of all limits on this process."""
    import psutil  # here and below: the command line reads this file, and needs no psutil

    free = Room(int(psutil.virtual_memory().available), "the free memory")
    return min([free, *_resource_limits(), *_group_limits(Path("/"))])


def available_memory_bytes() -> int:
    """Return the bytes that this process can still take; see `available_memory`."""
    return available_memory().num_bytes


def _resource_limits() -> Iterator[Room]:
    """Yield the room below the limits on address space and data, which `ulimit` sets."""
    import psutil

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


def _groups(root: Path) -> Iterator[tuple[Path, Path, _Files]]:
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


def parse_memory(budget: str | int | None) -> int:
    """Return a memory budget in bytes.

    Args:
        budget: bytes, text such as "4GiB" or "5.33 GB", or None for 70% of the free memory.
    """
    if budget is None:
        return int(available_memory_bytes() * _FREE_FRACTION)
    return parse_bytes("memory_budget", budget)


def parse_bytes(name: str, size: str | int) -> int:
    """Return a size in bytes.

    Args:
        name: of the parameter, for the error message.
        size: bytes, or text such as "4GiB" or "5.33 GB".
    """
    text = "" if isinstance(size, int) and size >= 2**63 else str(size)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS or not 0 < float(match[1]) < 1e30:
        rule = "must be a positive number of bytes, or text such as '4GiB'"
        raise InputError(f"{name} (got {shown(size)}) {rule}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def sufficient_gib(size: int) -> str:
    """Return a predicted peak as text in GiB, such that the next run fits a budget of this text.

    Equal runs hold slightly different amounts of memory, so the size is increased and rounded up.
    """
    return f"{math.ceil((size * _MARGIN + _MORE_MARGIN) / _GIB * 100) / 100:.2f} GiB"
