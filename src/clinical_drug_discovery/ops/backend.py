"""The backend of a run: the device, and the implementation of operations on edges.

`choose_backend` makes the choice once per run, and every `Block` holds it. The kernels (`ops.cpu`)
are compiled for the CPU. The torch backend (`ops.reference`) runs on every device. On the CPU it
runs small graphs, because compiling the kernels would take longer than training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from ..system.machine import trim_heap

MIN_KERNEL_EDGES = 50_000  #: graphs with at least this many directed edges use the kernels
LANES = 16  #: numbers per vector in the kernels
MOST_ROWS = 1024  # most rows per chunk: 1 MiB with 256 float32 columns; a chunk fits the cache
BLOCK_ROWS = 1024  #: rows per product in inference; chunks of nodes are multiples of it
FEW_ROWS = 64  # only chunks with fewer rows than this may have any size


@dataclass(frozen=True)
class Backend:
    """The device and the implementation of a run's operations."""

    device: torch.device
    kernels: bool  #: True: the compiled CPU kernels; False: torch's own operations

    def implementation(self, kernels: ModuleType, reference: ModuleType) -> ModuleType:
        """Return the module that computes: CPU kernels, or torch's operations of the same names."""
        return kernels if self.kernels else reference

    def storage_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the stored rows that edges gather.

        The kernels store float32 rows in bfloat16, which halves the bytes to read. Sums are always
        in `dtype`.
        """
        return torch.bfloat16 if self.kernels and dtype == torch.float32 else dtype

    def product_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype in which rows are multiplied by weight matrices.

        Bfloat16 doubles the speed on CPUs with instructions for it (AVX512_BF16 or AMX).
        """
        half = self.kernels and dtype == torch.float32 and has_bfloat16_products()
        return torch.bfloat16 if half else dtype

    def padded(self, width: int) -> int:
        """Return the number of columns of stored rows, given the number of columns in use."""
        return padded(width) if self.kernels else width

    def trim_heap(self) -> None:
        """Return freed memory of the C heap to the system, if a step is long enough for that.

        With 100 MiB to return, it takes 10 ms, and the system clears this memory again.
        """
        if self.kernels:
            trim_heap()

    def row_chunks(self, start: int, stop: int) -> Iterator[slice]:
        """Cut start:stop into chunks whose rows fit into the cache.

        With the kernels, chunks have 1024 rows, then smaller powers of two, and the last has fewer
        than 64: oneDNN prepares and keeps a product for each shape. Last chunks of arbitrary size
        took 0.3 s and 30 MB per epoch of HGT on PrimeKG.
        """
        size = MOST_ROWS
        while start < stop:
            while self.kernels and size > stop - start and size >= FEW_ROWS:
                size //= 2
            end = min(start + size, stop) if size >= FEW_ROWS else stop
            yield slice(start, end)
            start = end


def choose_backend(device: torch.device, num_edges: int) -> Backend:
    """Choose the backend for a graph.

    The choice depends only on the arguments, not on which kernels are already compiled.

    Args:
        device: where to compute.
        num_edges: directed edges of the whole graph.
    """
    return Backend(device, kernels=device.type == "cpu" and num_edges >= MIN_KERNEL_EDGES)


@cache
def has_bfloat16_products() -> bool:
    """Return whether torch multiplies bfloat16 faster than float32 on this CPU.

    The answer is False if ATEN_CPU_CAPABILITY forbids AVX-512.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def padded(width: int) -> int:
    """Return `width` rounded up to a multiple of `LANES`."""
    return -(-width // LANES) * LANES
