"""The operations that Apple's MPS supports, from the table in torch's wheel.

For each operation, `native_functions.yaml` says which devices have a kernel, whether the operation
borrows another one's kernels (`structured_delegate`), or whether it is composed of others.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

_PLACE = Path("packaged", "ATen", "native", "native_functions.yaml")
# aten/src/ATen/mps/MPSFallback.mm makes these run on the CPU, whatever the environment says.
_FALLS_BACK = {"embedding_renorm_", "linalg_svd", "linalg_svd.U", "upsample_nearest3d.vec"}


class Coverage(StrEnum):
    """The way in which an operation runs on MPS."""

    NATIVE = "native"
    COMPOSITE = "composite"  #: composed of other operations, which are looked up themselves
    FALLS_BACK = "falls back"  #: runs on the CPU, silently
    MISSING = "missing"  #: raises an error
    UNKNOWN = "unknown"  #: not in the table, such as an operation of another library


@dataclass(frozen=True)
class Entry:
    """One operation and overload."""

    keys: frozenset[str]  #: the dispatch keys with a kernel, own or borrowed
    base: str | None  #: the operation that this one was generated from and calls


def coverage(name: str, key: str = "MPS") -> Coverage:
    """Return how an operation runs on MPS.

    Args:
        name: with its overload, such as "add.Tensor" or "relu".
        key: "MPS", or "SparseMPS" or "SparseCsrMPS" for sparse arguments.
    """
    entry = operations().get(name)
    if entry is None:
        return Coverage.UNKNOWN
    if name in _FALLS_BACK:
        return Coverage.FALLS_BACK
    if entry.base is not None:  # its body calls the base and copies
        found = coverage(entry.base, key)
        return Coverage.COMPOSITE if found == Coverage.NATIVE else found
    if key in entry.keys:
        return Coverage.NATIVE
    composed = any(found.startswith("Composite") for found in entry.keys)
    return Coverage.COMPOSITE if composed else Coverage.MISSING


def has_own_cpu_kernel(name: str) -> bool:
    """Return whether a CPU has a kernel for an operation that is composed on MPS."""
    return "CPU" in operations()[name].keys


@cache
def operations() -> dict[str, Entry]:
    """Return the table, by operation and overload.

    Raises:
        RuntimeError: this torch does not contain it.
    """
    found = importlib.util.find_spec("torchgen")  # comes with torch
    path = Path(found.origin).parent if found is not None and found.origin else None
    if path is None or not (path / _PLACE).exists():
        raise RuntimeError("the installed torch does not contain a table of operations")
    return parse_operations((path / _PLACE).read_text(encoding="utf-8"))


def parse_operations(text: str) -> dict[str, Entry]:
    """Parse the part of YAML that native_functions.yaml uses; torch does not come with a parser.

    Args:
        text: content of the file.
    """
    kernels: dict[str, set[str]] = {}
    delegates: dict[str, str] = {}
    generated: dict[str, str] = {}
    name, in_dispatch = "", False
    for line in text.splitlines():
        line = line.split(" #", 1)[0].rstrip()
        if not line or line.lstrip().startswith("#"):
            continue
        key, _, value = line.strip().partition(":")
        if line.startswith("- func:"):
            name = value.split("(", 1)[0].strip()
            kernels[name], in_dispatch = set(), False
        elif line.startswith("    ") and in_dispatch:
            kernels[name] |= {part.strip() for part in key.split(",")}
        elif line.startswith("  ") and not line.startswith("   "):
            in_dispatch = key == "dispatch"
            if key == "structured_delegate":
                delegates[name] = value.strip()
            elif key == "autogen":
                generated |= {part.strip(): name for part in value.split(",")}
    table = {}
    for name, keys in kernels.items():
        delegate = delegates.get(name)
        # An operation without a dispatch table is composed, unless it borrows kernels.
        all_keys = keys | (kernels[delegate] if delegate else set())
        table[name] = Entry(frozenset(all_keys or {"CompositeImplicitAutograd"}), None)
    for name, base in generated.items():
        table.setdefault(name, Entry(frozenset(), base))
    return table
