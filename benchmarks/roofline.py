"""Compare each operation with the best that the machine could do.

python benchmarks/roofline.py [kg.csv]   (without a file: a synthetic graph of PrimeKG's size)
make bench-avx2 [KG=kg.csv]              (the same as on a CPU with AVX2 only)

An operation must move bytes and make products; its bound is the longer of bytes over the bandwidth
of a large copy and operations over the rate of a large matrix product of the precision it computes
in, both measured in the same run. A multiplication and an addition are two operations. Bytes are
the least that must be moved: every row that an edge gathers once per edge, the edge's own numbers,
and what is read or written of each row once per edge type. Gathered rows may come from the cache,
which is faster than a copy: a ratio below 1 is possible. Beside it the bandwidth of gathering rows
of 512 bytes at random, by the size of their table.

On one core (`taskset -c 0`) times are CPU seconds, which other programs change less.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import torch
from llvmlite import binding
from measure import edges_file, seconds_of
from torch.nn import functional

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.ops.backend import Backend, has_bfloat16_products
from clinical_drug_discovery.ops.blocks import Block, full_block
from clinical_drug_discovery.ops.cpu import attention as cpu_attention
from clinical_drug_discovery.ops.cpu import head_maps as cpu_heads
from clinical_drug_discovery.ops.cpu import neighbors as cpu
from clinical_drug_discovery.ops.linear import linear_backward, linear_into
from clinical_drug_discovery.ops.mean import packed

DIM, HEADS = 256, 8
KERNELS = Backend(torch.device("cpu"), kernels=True)
TABLE_MIB = (1, 4, 8, 16, 32, 64, 128)
ONE_CORE = max(torch.get_num_threads(), numba.get_num_threads()) == 1


@dataclass(frozen=True)
class Work:
    """The work that an operation did, and the least that it must do."""

    name: str
    seconds: float
    num_bytes: float
    num_operations: float
    dtype: torch.dtype = torch.float32  #: in which it computes


class Machine:
    """The work that the machine can do per second."""

    def __init__(self) -> None:
        a = torch.randn(1 << 26)
        b = torch.empty_like(a)
        self.copy = 2 * a.nbytes / measured(lambda: b.copy_(a))
        self.rates: dict[torch.dtype, float] = {}
        for dtype in {torch.float32, KERNELS.product_dtype(a.dtype)}:
            m = torch.randn(2048, 2048).to(dtype)
            self.rates[dtype] = 2 * 2048**3 / measured(lambda m=m: m @ m)  # type: ignore[misc]  # a lambda's default

    def bound(self, work: Work) -> float:
        """Seconds that some work takes at least."""
        return max(work.num_bytes / self.copy, work.num_operations / self.rates[work.dtype])


def measured(work: Callable[[], object], repeat: int = 3) -> float:
    """Seconds of some work: CPU seconds if the process runs on one core."""
    return seconds_of(work, repeat, time.process_time if ONE_CORE else time.perf_counter)


def instructions() -> str:
    """The instruction sets that torch and the kernels use, as the environment allows."""
    kernels = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    products = torch.backends.cpu.get_cpu_capability()
    more = " with products of bfloat16" if has_bfloat16_products() else ""
    return f"kernels for {kernels}; torch for {products}{more}"


def gather_bandwidth(mib: int) -> float:
    """Bytes per second of sums over 64 random rows of 512 bytes each, of a table of that size."""
    num_rows = (mib << 20) // 512
    table, at = torch.randn(num_rows, 128), torch.randint(num_rows, (1 << 14, 64))
    seconds = measured(lambda: functional.embedding_bag(at, table, mode="sum"))
    return at.numel() * 512 / seconds


def mean(graph: KnowledgeGraph, block: Block) -> Iterator[Work]:
    rows = packed(torch.randn(graph.num_nodes, DIM), KERNELS)
    share = graph.degree.clamp(min=1).float().reciprocal()
    out = torch.zeros(graph.num_nodes, DIM)
    moved = graph.num_edges * (rows[0].nbytes + 4) + out.nbytes
    operations = graph.num_edges * DIM

    def backward() -> None:
        for t in range(len(graph.node_type_names)):
            of_type = out[slice(*graph.node_range(t))]
            cpu.add_neighbors_backward(rows, block, t, of_type)

    seconds = measured(lambda: cpu.add_neighbors(rows, block, share, out))
    yield Work("mean forward", seconds, moved, operations)
    yield Work("mean backward", measured(backward), moved, operations)


def attention(graph: KnowledgeGraph, block: Block) -> Iterator[Work]:
    """All edge types, with keys and values of the largest node type's size used for each."""
    num_nodes, kinds = graph.num_nodes, range(len(graph.edge_types))
    stored = KERNELS.storage_dtype(torch.float32)
    most = max(
        last - first for first, last in map(graph.node_range, range(len(graph.node_type_names)))
    )
    kv, qg = (torch.randn(n, 2, DIM).to(stored) for n in (most, num_nodes))
    q = qg[:, 0].contiguous()
    scale = torch.full((HEADS,), (DIM / HEADS) ** -0.5)
    highest, sums = torch.full((num_nodes, HEADS), -torch.inf), torch.zeros(num_nodes, HEADS)
    out, grad_q = torch.zeros(num_nodes, DIM), torch.zeros(num_nodes, DIM)
    log_total, delta = torch.full((num_nodes, HEADS), 9.0), torch.zeros(num_nodes, HEADS)
    grad_kv = torch.empty_like(kv)

    def sides(r: int) -> tuple[slice, slice]:
        """Sources and targets of an edge type."""
        src, dst = graph.endpoint_types[r]
        return slice(0, graph.node_range(src)[1] - graph.node_range(src)[0]), slice(
            *graph.node_range(dst)
        )

    def forward() -> None:
        for r in kinds:
            sources, rows = sides(r)
            cpu_attention.attend(
                block, r, q[rows], kv[sources], scale, highest[rows], sums[rows], out[rows]
            )

    def backward() -> None:
        for r in kinds:
            sources, rows = sides(r)
            cpu_attention.attend_backward(
                block, r, qg[rows], kv[sources], scale, log_total[rows], delta[rows],
                grad_q[rows], grad_kv[sources],
            )  # fmt: skip

    edges, pair = graph.num_edges, kv[0].nbytes
    num_targets = sum(int((graph.indptr_of(r).diff() > 0).sum()) for r in kinds)
    num_sources = sum(len(sources) for sources in graph.sources)
    shares = 2 * HEADS * kv.element_size()
    in_out = 2 * out[0].nbytes  # a float32 row that is read and written
    yield Work(
        "attention forward", measured(forward),
        edges * (pair + 4) + num_targets * (pair / 2 + in_out), 4 * DIM * edges,
    )  # fmt: skip
    with without("_backward_by_source"):
        by_target = measured(backward)
    with without("_backward_by_target"):
        by_source = measured(backward)
    yield Work(
        "attention backward by target", by_target,
        edges * (pair + 4 + shares) + num_targets * (pair + in_out), 6 * DIM * edges,
    )  # fmt: skip
    yield Work(
        "attention backward by source", by_source,
        edges * (pair + 12 + shares) + num_sources * pair, 4 * DIM * edges,
    )  # fmt: skip


@contextmanager
def without(kernel: str) -> Iterator[None]:
    """Leave out a kernel of the attention within the block."""
    found = vars(cpu_attention)[kernel]
    setattr(cpu_attention, kernel, lambda *_: None)
    try:
        yield
    finally:
        setattr(cpu_attention, kernel, found)


def head_maps(graph: KnowledgeGraph) -> Iterator[Work]:
    """Keys and values of all edge types' sources, each times the matrices of its heads."""
    most = max(int(nodes.max()) for nodes in graph.sources) + 1
    heads = torch.randn(most, 2 * DIM).to(KERNELS.product_dtype(torch.float32))
    out = torch.randn(most, 2 * DIM).to(KERNELS.storage_dtype(torch.float32))
    matrix = torch.randn(2 * HEADS, DIM // HEADS, DIM // HEADS)
    by_heads = torch.zeros(most, 2 * DIM)

    def forward() -> None:
        for nodes in graph.sources:
            cpu_heads.map_heads(nodes, heads, matrix, out)

    def backward() -> None:
        for nodes in graph.sources:
            cpu_heads.map_heads_backward(nodes, heads, matrix, out, by_heads)

    mapped = sum(len(nodes) for nodes in graph.sources)
    operations = 4 * DIM * (DIM // HEADS) * mapped
    moved = mapped * (heads[0].nbytes + out[0].nbytes)
    yield Work("head maps forward", measured(forward), moved, operations, heads.dtype)
    moved += mapped * 2 * by_heads[0].nbytes
    yield Work("head maps backward", measured(backward), moved, 2 * operations, heads.dtype)


def dense(graph: KnowledgeGraph) -> Iterator[Work]:
    """One map of all nodes' rows."""
    x, grad = torch.randn(graph.num_nodes, DIM), torch.randn(graph.num_nodes, DIM)
    weight, out = torch.randn(DIM, DIM), torch.empty(graph.num_nodes, DIM)
    grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(weight)
    operations, dtype = 2 * DIM * DIM * graph.num_nodes, KERNELS.product_dtype(x.dtype)
    seconds = measured(lambda: linear_into(out, x, weight, None, KERNELS))
    yield Work("linear forward", seconds, 2 * x.nbytes, operations, dtype)
    seconds = measured(lambda: linear_backward(grad, x, weight, grad_x, grad_weight, None, KERNELS))
    yield Work("linear backward", seconds, 4 * x.nbytes, 2 * operations, dtype)


def row(machine: Machine, work: Work) -> str:
    seconds, bound = work.seconds, machine.bound(work)
    by = "bytes" if bound == work.num_bytes / machine.copy else "operations"
    return (
        f"| {work.name} | {work.num_bytes / 1e9:.2f} | {work.num_operations / 1e9:.1f} | "
        f"{seconds:.3f} | {bound:.3f} by {by} | {seconds / bound:.2f} |"
    )


@torch.no_grad()
def main() -> None:
    machine = Machine()
    threads = "one core, CPU seconds" if ONE_CORE else f"{torch.get_num_threads()} threads"
    print(f"{instructions()}; {threads}")
    print(f"copy: {machine.copy / 1e9:.0f} GB/s read and written")
    for dtype, rate in machine.rates.items():
        print(f"matrix product of {dtype}: {rate / 1e9:.0f} Gflop/s")
    tables = ", ".join(f"{mib} MiB {gather_bandwidth(mib) / 1e9:.0f}" for mib in TABLE_MIB)
    print(f"gather of 512-byte rows, GB/s by size of their table: {tables}")
    with edges_file(sys.argv[1] if sys.argv[1:] else None) as path:
        graph = read_graph(path)
    block = full_block(graph, KERNELS)
    print(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} directed edges\n")
    print("| operation | GB | Gflop | seconds | bound | ratio |\n|---|---|---|---|---|---|")
    for works in (mean(graph, block), attention(graph, block), head_maps(graph), dense(graph)):
        for work in works:
            print(row(machine, work), flush=True)


if __name__ == "__main__":
    main()
