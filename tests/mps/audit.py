"""Would everything run on Apple's MPS? Answered without a Mac, from what torch's wheel says.

Both models are trained, and their inference and evaluation run, on a small synthetic graph on the
CPU along the path of other devices (`ops.reference`), in front of the two witnesses of
`witnesses`. What the host does by design (drawing of batches, the look at collapse in float64) is
left out: it works on tensors that the recipes keep on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mps.witnesses import CallTree, Operations

#: Has a kernel, but one that is slow somewhere, or one whose sums have no fixed order.
_NOTES = {
    "index_add": "prepared for each shape up to torch 2.13; sums in no fixed order",
    "index_select": "prepared for each shape up to torch 2.13",
    "embedding_dense_backward": "sums in no fixed order",
    "scatter_reduce": "fast from torch 2.13",
    "scatter_add": "fast from torch 2.13; sums in no fixed order",
    "sort": "slow on large tensors",
}


def audit_path(run: Callable[[], object], waits: int = 0) -> dict[str, Any]:
    """Run something twice along the path of devices, once before each witness.

    Args:
        run: what is to be audited; whatever it does counts as work of the device.
        waits: how often the host may wait for the device.

    Returns:
        num_calls, num_launches (calls but for views), num_operations, what fails the audit
        (missing, float64, compressed_sparse, host_waits beyond `waits`), and what does not: notes
        on slow operations, unseen (what MPS composes, and a CPU does not show), most_shapes of an
        operation, largest_tensor in elements.
    """
    with Operations() as seen:
        run()
    with CallTree() as tree:
        run()
    names = {name.split(".")[0].rstrip("_") for name in seen.calls}
    most = max(seen.shapes, key=lambda name: len(seen.shapes[name]), default="nothing")
    missing = sorted(seen.missing | tree.missing)
    too_many = seen.waiting.total() > waits
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
        "passed": not (missing or seen.wide or seen.compressed or too_many),
    }
