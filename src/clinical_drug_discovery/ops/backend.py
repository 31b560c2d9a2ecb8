"""The backend of a run: on which device it computes, and with which of two implementations.

The choice is made once, by `choose_backend`, and travels with every `Block`. The kernels are
compiled for the CPU (`ops.cpu`). The torch backend (`ops.reference`) runs on every device. It also
runs small graphs on the CPU, where compiling takes longer than training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

MIN_KERNEL_EDGES = 50_000  #: directed edges of the smallest graph for which kernels are compiled
LANES = 16  #: numbers in a vector of the kernels
MOST_ROWS = 4096  # rows of a chunk: 4 MiB with 256 float32 columns, so a few chunks stay in cache
FEW_ROWS = 64  # a chunk of fewer rows may have any size


@dataclass(frozen=True)
class Backend:
    """Where and how operations are computed."""

    device: torch.device
    kernels: bool  #: True: the compiled CPU kernels; False: torch's own operations

    def storage_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype in which rows are stored for edges to gather.

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
        """Return the number of columns in which rows of a width are stored."""
        return padded(width) if self.kernels else width

    def row_chunks(self, start: int, stop: int) -> Iterator[slice]:
        """Cut start:stop into chunks whose rows fit into the cache.

        With the kernels chunks have 4096 rows, then halves of that, and fewer than 64 at last.
        oneDNN prepares a product for each shape that it sees and keeps it. Last chunks of any size
        cost 0.3 s and 30 MB in an epoch of HGT on PrimeKG.
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

    The choice depends on the device and the graph's size alone, never on what is compiled already.

    Args:
        device: where to compute.
        num_edges: directed edges of the whole graph.
    """
    return Backend(device, kernels=device.type == "cpu" and num_edges >= MIN_KERNEL_EDGES)


@cache
def has_bfloat16_products() -> bool:
    """Return whether torch multiplies bfloat16 faster than float32 on this CPU.

    It does not where ATEN_CPU_CAPABILITY forbids AVX-512.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def padded(width: int) -> int:
    """Return the next multiple of the kernels' vector length."""
    return -(-width // LANES) * LANES
