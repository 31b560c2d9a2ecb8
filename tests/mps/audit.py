"""The MPS audit: does torch have an MPS kernel for every operation that a computation needs?

The answer needs no Mac. The computation runs on the CPU with torch's own operations, which are
those of a GPU, while two witnesses record the operations. Each operation is then looked up in the
table that torch's wheel contains.

The audit cannot know three things: whether a kernel that exists is correct and fast, what a kernel
refuses inside (by dtype, layout or version of macOS), and which branches torch itself takes for
another device. `cdd doctor --try mps` answers these on a Mac.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mps.witnesses import CallTree, Operations

#: Operations that MPS has, but slowly or with sums in no fixed order.
_NOTES = {
    "index_add": "compiled for each shape up to torch 2.13; sums in no fixed order",
    "index_select": "compiled for each shape up to torch 2.13",
    "embedding_dense_backward": "sums in no fixed order",
    "scatter_reduce": "fast from torch 2.13",
    "scatter_add": "fast from torch 2.13; sums in no fixed order",
    "sort": "slow on large tensors",
}


def audit_path(run: Callable[[], object], waits: int = 0) -> dict[str, Any]:
    """Run a computation twice, once before each witness, and report what MPS could not run.

    Args:
        run: the computation; everything that it does counts as work of the device.
        waits: how often the host may wait for the device.

    Returns:
        "passed" (true or false), and the reasons to fail: "missing" operations, "float64" tensors,
        "compressed_sparse" matrices, and "host_waits" beyond `waits`. For information: "num_calls",
        "num_launches" (calls other than views), "num_operations", "notes" on slow operations,
        "unseen" operations (composed on MPS, but not on a CPU), "most_shapes" of one operation,
        and the number of elements of the "largest_tensor".
    """
    with Operations() as seen:
        run()
    with CallTree() as tree:
        run()
    names = {name.split(".")[0].rstrip("_") for name in seen.calls}
    most = max(seen.shapes, key=lambda name: len(seen.shapes[name]), default="nothing")
    missing = sorted(seen.missing | tree.missing)
    too_many_waits = seen.waiting.total() > waits
    return {
        "num_calls": seen.calls.total(),
        "num_launches": seen.num_launches,
        "num_operations": len(seen.calls),
        "missing": missing,
        "float64": sorted(seen.wide),
        "compressed_sparse": sorted(seen.compressed),
        "host_waits": dict(seen.waiting),
        "notes": {name: text for name, text in _NOTES.items() if name in names},
        "unseen": sorted(tree.unseen),
        "most_shapes": f"{len(seen.shapes[most])} of {most}",
        "largest_tensor": seen.largest,
        "passed": not (missing or seen.wide or seen.compressed or too_many_waits),
    }
