"""Two witnesses of the operations that a computation needs, on a machine without the device.

`Operations` records what reaches a backend, with overloads, dtypes, layouts and shapes. It does not
see what a composite operation calls inside. `CallTree` records the whole tree of calls, but neither
dtypes nor layouts. Each finds what the other one misses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mps.operator_table import Coverage, coverage, has_own_cpu_kernel

_WIDE = (torch.float64, torch.complex128)
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
#: Operations for which the host waits, since a size or a value depends on the data.
WAITING = (
    "_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "masked_select", "bincount", "equal", "is_nonzero", "repeat_interleave",
)  # fmt: skip


class Operations(TorchDispatchMode):
    """Record the operations below autograd, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
        self.calls: Counter[str] = Counter()  #: by operation and overload
        self.num_launches = 0  #: calls other than views: about the number of kernels
        #: shapes of arguments and results, except for views
        self.shapes: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
        self.missing: set[str] = set()  #: operations without a kernel, with the layout if sparse
        self.wide: set[str] = set()  #: operations on float64, which MPS does not support
        self.compressed: set[str] = set()  #: operations on compressed sparse matrices
        self.waiting: Counter[str] = Counter()  #: operations for which the host waits
        self.largest = 0  #: number of elements of the largest tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record it."""
        result = func(*args, **(kwargs or {}))
        space, name = func._schema.name.split("::")
        if func._schema.overload_name:
            name = f"{name}.{func._schema.overload_name}"
        if space not in ("profiler", "prim"):
            name = name if space == "aten" else f"{space}::{name}"
            self._note(name, (args, kwargs), result, is_view=func.is_view)
        return result

    def _note(self, name: str, given: Any, result: Any, is_view: bool) -> None:
        arguments = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        tensors = [*arguments, *(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))]
        self.calls[name] += 1
        if not is_view:
            self.num_launches += 1
            self.shapes[name].add(tuple(tuple(tensor.shape) for tensor in tensors))
        self.largest = max([self.largest, *(tensor.numel() for tensor in tensors)])
        key = "MPS"
        if any(tensor.layout in _COMPRESSED for tensor in tensors):
            key = "SparseCsrMPS"
            self.compressed.add(name)
        elif any(tensor.layout == torch.sparse_coo for tensor in arguments):
            key = "SparseMPS"
        if coverage(name, key) not in (Coverage.NATIVE, Coverage.COMPOSITE):
            self.missing.add(name if key == "MPS" else f"{name} of {key}")
        if any(tensor.dtype in _WIDE for tensor in tensors):
            self.wide.add(name)
        base = name.split(".")[0].rstrip("_") or name
        masked = base in ("index", "index_put", "_index_put_impl") and any(
            tensor.dtype == torch.bool for tensor in arguments[1:]
        )
        if base in WAITING or masked:
            self.waiting[f"{base} by a mask" if masked else base] += 1


class CallTree:
    """Record what operations call inside, with torch's profiler.

    On MPS an operation with a kernel calls nothing else, so the walk stops there. It enters a
    composite operation.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()  #: operations that MPS would be asked for
        self.missing: set[str] = set()  #: operations without a kernel, with their callers
        self.unseen: set[str] = set()  #: operations composed on MPS, but not on a CPU
        config = torch._C._profiler._ExperimentalConfig(capture_overload_names=True)
        self._profile = profile(activities=[ProfilerActivity.CPU], experimental_config=config)

    def __enter__(self) -> CallTree:
        """Start recording."""
        self._profile.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop recording, and look up what was recorded."""
        self._profile.__exit__(kind, error, trace)
        if error is None:
            for event in self._profile.events() or ():
                if event.cpu_parent is None:
                    self._walk(event, ())

    def _walk(self, event: Any, callers: tuple[str, ...]) -> None:
        space, _, name = event.name.partition("::")
        if space == "aten":
            overload = getattr(event, "overload_name", "")
            name = f"{name}.{overload}" if overload else name
            self.calls[name] += 1
            found = coverage(name)
            if found == Coverage.NATIVE:
                return
            if found != Coverage.COMPOSITE:
                self.missing.add(" < ".join([name, *reversed(callers[-2:])]))
                return
            callers = (*callers, name)
            if has_own_cpu_kernel(name):
                self.unseen.add(name)
        for child in event.cpu_children:
            self._walk(child, callers)
