"""Every CPU kernel against the reference in float64, of the same stored rows.

Both get rows that are already rounded to bfloat16, so only the rounding of the sums is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
import torch
from backends import KERNELS
from closeness import BFLOAT16, off
from graphs import Fact, Node, node, random_facts, to_rows
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import padded
from clinical_drug_discovery.ops.blocks import Block, full_block, range_block, row_block
from clinical_drug_discovery.ops.cpu import attention as cpu_attention
from clinical_drug_discovery.ops.cpu import head_maps as head_maps_on_cpu
from clinical_drug_discovery.ops.cpu import neighbors as cpu
from clinical_drug_discovery.ops.cpu import ranges as cpu_ranges

#: The type of stored rows, the type of the computation, and the allowed distance from exact.
DTYPES = ((torch.float64, torch.float64, 1e-12), (torch.bfloat16, torch.float32, 1e-5))
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 34, 65)  # of edges into one row


def make_graph(directory: Path) -> KnowledgeGraph:
    """Rows of so many edges as the loops of the kernels have cases, and nodes without any."""
    rng = np.random.default_rng(3)
    facts: list[Fact] = []
    for number, count in enumerate(COUNTS):
        drug, others = node("drug", 100 + number), rng.permutation(70)[:count].tolist()
        facts += [(drug, "drug_protein", node("gene/protein", i)) for i in others]
    facts += random_facts(rng, 60, {"drug": 40, "disease": 20, "gene/protein": 90})
    lonely = [node(kind, 500) for kind in ("drug", "disease", "gene/protein")]
    facts += [(end, "other", Node("other", "other", "0", "other")) for end in lonely]
    to_rows(dict.fromkeys(facts)).write_csv(directory / "kg.csv")
    return read_graph(
        directory / "kg.csv", ReadSettings(include_node_types=["drug", "disease", "gene/protein"])
    )


@pytest.fixture(autouse=True)
def all_threads() -> Iterator[int]:
    """Their number, and one of them for each test, which says itself where it takes more.

    Thousands of small kernels wait for each other's threads for long if the CPU has other work.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba sets it later
    numba.set_num_threads(before)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeGraph:
    graph = make_graph(tmp_path_factory.mktemp("counts"))
    assert (graph.degree == 0).sum() == 3
    into_drugs = graph.edge_types.index(("gene/protein", "drug_protein", "drug"))
    assert set(graph.indptr_of(into_drugs).diff().tolist()) >= set(COUNTS)
    return graph


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeGraph:
    facts = [(node("gene/protein", 0), "r", node("drug", i)) for i in range(50_000)]
    path = tmp_path_factory.mktemp("hub") / "kg.csv"
    to_rows(facts).write_csv(path)
    return read_graph(path)


def blocks(graph: KnowledgeGraph) -> list[Block]:
    """All rows, some of all types, of one type, without any edge, and none at all."""
    some = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(5))[:40]
    one_type = torch.arange(*graph.node_range(1), 2)
    rows = some.sort().values, one_type, (graph.degree == 0).nonzero()[:, 0], some[:0]
    return [full_block(graph, KERNELS), *(row_block(graph, part, KERNELS) for part in rows)]


def ranges(graph: KnowledgeGraph) -> list[Block]:
    bounds = (
        (0, 1),
        (3, graph.type_offsets[1]),
        (7, graph.num_nodes - 2),
        (graph.type_offsets[1], 50),
    )
    return [range_block(graph, start, stop, KERNELS) for start, stop in bounds]


class Draw:
    """Random numbers of any shape and precision."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64).to(dtype)


def double(*values: Tensor) -> tuple[Tensor, ...]:
    """Exact copies."""
    return tuple(value.double().clone() for value in values)


def table_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """All rows in one table, in a few of them, and each in one of its own."""
    for size in (8 * 2**20, 2_000, 1):
        monkeypatch.setattr(cpu_ranges, "_TABLE_BYTES", size)
        # Otherwise so few edges make one table of all rows.
        monkeypatch.setattr(cpu_ranges, "_FEW_EDGES", 0)
        yield size


def check_sums(
    block: Block, width: int, dtypes: tuple[torch.dtype, torch.dtype], tolerance: float
) -> None:
    """`add_neighbors` and, where there is a backward pass, `add_neighbors_backward`."""
    (stored, computed), draw, graph = dtypes, Draw(), block.graph
    messages = draw(graph.num_nodes, padded(width), dtype=stored)
    # Sizes are about 1 / degree, as for means, so the sum of a hub is not larger than others.
    scale = draw(block.num_rows, dtype=torch.float64) / graph.degree[block.rows].clamp(min=1)
    scale, out = scale.to(computed), draw(block.num_rows, width, dtype=computed)
    wanted, scale_64, messages_64 = double(out, scale, messages)
    sums = torch.zeros_like(wanted)
    reference.add_neighbors(messages_64, block, scale_64, sums)
    wanted += sums
    cpu.add_neighbors(messages, block, scale, out)
    assert off(out, wanted) < tolerance
    if block.row_of_node is None:
        with pytest.raises(RuntimeError, match="for inference only"):
            block.rows_of_nodes()
        return
    messages = draw(block.num_rows, padded(width), dtype=stored) / 16
    for node_type, (first, last) in enumerate(
        map(graph.node_range, range(len(graph.type_offsets) - 1))
    ):
        out = draw(last - first, width, dtype=computed)
        wanted, messages_64 = double(out, messages)
        given = block, node_type
        reference.add_neighbors_backward(messages_64, *given, wanted)
        cpu.add_neighbors_backward(messages, *given, out)
        assert off(out, wanted) < tolerance


def test_sums_over_neighbours(graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    for stored, computed, tolerance in DTYPES:
        for width in (1, 3, 16, 33, 64):
            for block in [*blocks(graph), *ranges(graph)]:
                check_sums(block, width, (stored, computed), tolerance)
    for size in table_sizes(monkeypatch):
        assert (
            len(cpu_ranges.tables(0, 100, 64, np.ones(9, np.int64)))
            == {8 * 2**20: 1, 2_000: 4, 1: 100}[size]
        )
        for block in [*blocks(graph), *ranges(graph)]:
            check_sums(block, 33, (torch.float64, torch.float64), 1e-12)
            check_sums(block, 16, (torch.bfloat16, torch.float32), 1e-5)


def test_tables_cover_every_node_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in table_sizes(monkeypatch):
        for first, last, row_bytes in ((0, 1, 10), (5, 105, 64), (5, 105, 2_000), (3, 3, 1)):
            found = cpu_ranges.tables(first, last, row_bytes, np.ones(9, np.int64))
            nodes = [i for low, high in found for i in range(low, high)]
            assert nodes == list(range(first, last))


def test_few_edges_a_row_are_not_worth_several_tables() -> None:
    rows = 40_000
    assert len(cpu_ranges.tables(0, rows, 1024, np.full(9, 39))) == 1
    assert len(cpu_ranges.tables(0, rows, 1024, np.full(9, 40))) == 5


@dataclass(frozen=True)
class Given:
    """The arguments of the attention kernels, for all edge types."""

    block: Block
    qg: Tensor  #: shape (M, 2, P), queries and gradients
    kv: list[Tensor]  #: of each edge type, shape (n, 2, P)
    scale: Tensor  #: shape (R, H)
    delta: Tensor  #: shape (M, H)

    @staticmethod
    def draw(
        block: Block, heads: int, dim: int, stored: torch.dtype, computed: torch.dtype
    ) -> Given:
        draw, graph, width = Draw(), block.graph, heads * dim
        return Given(
            block,
            draw(block.num_rows, 2, width, dtype=stored),
            [
                draw(graph.type_offsets[s + 1] - graph.type_offsets[s], 2, width, dtype=stored)
                for s, _ in graph.endpoint_types
            ],
            draw(len(graph.endpoint_types), heads, dtype=computed) / dim**0.5,
            draw(block.num_rows, heads, dtype=computed),
        )

    def double(self) -> Given:
        """The same in float64."""
        qg, scale, delta = double(self.qg, self.scale, self.delta)
        return Given(self.block, qg, [*double(*self.kv)], scale, delta)

    def edge_types(self) -> Iterator[tuple[int, slice]]:
        """Edge types that lead to rows of the block, with these rows."""
        for r, (_, dst_type) in enumerate(self.block.graph.endpoint_types):
            rows = slice(*self.block.row_ptr[dst_type : dst_type + 2])
            if rows.start < rows.stop:
                yield r, rows

    def attend(self, backend: ModuleType) -> list[Tensor]:
        """Highest logit, sum and weighted sum of each row, after all edge types."""
        q, width = self.qg[:, 0].contiguous(), self.qg.shape[2]
        highest = torch.full_like(self.delta, -torch.inf)
        sums, weighted = torch.zeros_like(highest), self.delta.new_zeros(len(q), width)
        for r, rows in self.edge_types():
            backend.attend(
                self.block, r, q[rows], self.kv[r], self.scale[r], highest[rows], sums[rows],
                weighted[rows],
            )  # fmt: skip
        return [highest, sums, weighted]

    @cached_property
    def exact(self) -> list[Tensor]:
        """What the reference's `attend` finds in float64."""
        return self.double().attend(reference)

    @cached_property
    def exact_gradients(self) -> tuple[Tensor, tuple[Tensor, list[Tensor], list[Tensor]]]:
        """The log of the totals in `exact`, and what the reference's `backward` finds with it."""
        log_total = self.exact[0] + self.exact[1].log()
        return log_total, self.double().backward(reference, log_total)

    def backward(
        self, backend: ModuleType, log_total: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Gradients by queries, by scales, and by keys and values of each edge type."""
        grad_q = self.delta.new_full((self.block.num_rows, self.qg.shape[2]), 0.5)
        by_scale, by_kv = [], []
        for r, rows in self.edge_types():
            by_kv.append(torch.full_like(self.kv[r], 7))
            by_scale.append(
                backend.attend_backward(
                    self.block, r, self.qg[rows], self.kv[r], self.scale[r],
                    log_total[rows].to(self.delta.dtype), self.delta[rows], grad_q[rows], by_kv[-1],
                )
            )  # fmt: skip
        return grad_q, by_scale, by_kv


def check_attention(given: Given, tolerance: float, stored_tolerance: float = BFLOAT16) -> None:
    ours, wanted = given.attend(cpu_attention), given.exact
    alone = wanted[1][:, 0] == 0
    assert (ours[0][alone] == -torch.inf).all()
    assert (ours[1][alone] == 0).all()
    assert (ours[2][alone] == 0).all()
    for value, exact in zip(ours, wanted, strict=True):
        assert off(value[~alone], exact[~alone]) < tolerance
    if given.block.row_of_node is None:
        return
    log_total, (exact_q, exact_scale, exact_kv) = given.exact_gradients
    grad_q, by_scale, by_kv = given.backward(cpu_attention, log_total)
    assert off(grad_q, exact_q) < tolerance
    # The weights of edges and the result are stored as bfloat16 if the rows are.
    rounded = given.qg.dtype == torch.bfloat16
    for at, (r, _) in enumerate(given.edge_types()):
        assert off(by_scale[at], exact_scale[at]) < 10 * tolerance  # of terms of both signs
        sources = given.block.graph.sources[r]
        found, exact = by_kv[at][sources], exact_kv[at][sources]
        assert off(found, exact) < (stored_tolerance if rounded else tolerance)
        others = torch.ones(len(by_kv[at]), dtype=torch.bool)
        others[sources] = False
        assert (by_kv[at][others] == 7).all()


HEADS_AND_DIMS = [(heads, dim) for heads in (1, 2, 3, 4, 8) for dim in (16, 32, 48)]


def test_attention(graph: KnowledgeGraph) -> None:
    for stored, computed, tolerance in DTYPES:
        for heads, dim in HEADS_AND_DIMS:
            every = [*blocks(graph), *ranges(graph)]
            for block in every if (heads, dim) in ((1, 16), (3, 16), (4, 32)) else every[:2]:
                check_attention(Given.draw(block, heads, dim, stored, computed), tolerance)


def test_attention_through_many_tables_and_pieces(
    graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in table_sizes(monkeypatch):
        for block in blocks(graph)[:3]:
            for stored, computed, tolerance in DTYPES:
                given = Given.draw(block, 4, 16, stored, computed)
                for most in (1 << 18, 40, 1):
                    monkeypatch.setattr(cpu_attention, "PIECE_EDGES", most)
                    # With one row a piece, a sum is rounded as often as it has terms.
                    check_attention(given, tolerance, stored_tolerance=4 * BFLOAT16)


def test_a_hub_of_50_000_edges(hub: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    first = torch.tensor([0, 7, hub.num_nodes - 1])
    for block in (full_block(hub, KERNELS), row_block(hub, first, KERNELS)):
        for stored, computed, tolerance in DTYPES:
            check_sums(block, 33, (stored, computed), 10 * tolerance)
            given = Given.draw(block, 4, 16, stored, computed)
            for most in (1 << 18, 1_000):
                monkeypatch.setattr(cpu_attention, "PIECE_EDGES", most)
                check_attention(given, 10 * tolerance)


@pytest.mark.parametrize("in_pairs", [False, True])
def test_head_maps(in_pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pairs: the kernels of CPUs with AVX512_BF16, which other CPUs can run too, but slowly."""
    monkeypatch.setattr(head_maps_on_cpu, "has_bfloat16_products", lambda: in_pairs)
    draw = Draw()
    single = (
        (torch.float64, torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.bfloat16, torch.float32, 1e-5),
    )
    rounded = (torch.bfloat16, torch.bfloat16, torch.float32, 1e-5)
    for multiplied, stored, computed, tolerance in [rounded] if in_pairs else [*single, rounded]:
        for heads, dim in HEADS_AND_DIMS:
            width = heads * dim
            matrix = draw(heads, dim, dim, dtype=computed) / dim**0.5
            rows = draw(101, width, dtype=multiplied)
            by_out = draw(101, width, dtype=stored)
            few = heads * dim <= 64  # else as many as there are in two groups, and some more
            for count in (*range(1, 14), 31, 33, 64, 101) if few else (11, 101):
                nodes = torch.randperm(101, generator=torch.Generator().manual_seed(count))[:count]
                nodes = nodes.sort().values
                others = torch.ones(101, dtype=torch.bool)
                others[nodes] = False
                check_head_map(nodes, others, rows, matrix, stored, tolerance)
                check_head_map_backward(nodes, others, rows, matrix, by_out, tolerance)


def check_head_map(
    nodes: Tensor,
    others: Tensor,
    heads: Tensor,
    matrix: Tensor,
    stored: torch.dtype,
    tolerance: float,
) -> None:
    out = torch.full(heads.shape, 7, dtype=stored)
    wanted, heads_64, matrix_64 = double(out, heads, as_multiplied(matrix, heads))
    cpu_attention.map_heads(nodes, heads, matrix, out)
    reference.map_heads(nodes, heads_64, matrix_64, wanted)
    assert off(out, wanted) < (2**-8 if stored == torch.bfloat16 else tolerance)
    # Rounded once, to the nearest: but for ties, the exact result rounds to the same.
    assert (out == wanted.to(stored)).double().mean() > 0.98 or stored != torch.bfloat16
    assert (out[others] == 7).all()


def check_head_map_backward(
    nodes: Tensor, others: Tensor, heads: Tensor, matrix: Tensor, by_out: Tensor, tolerance: float
) -> None:
    by_heads = torch.full(heads.shape, 0.25, dtype=matrix.dtype)
    given = by_heads, heads, as_multiplied(matrix, by_out), by_out
    wanted, heads_64, matrix_64, by_out_64 = double(*given)
    by_matrix = cpu_attention.map_heads_backward(nodes, heads, matrix, by_out, by_heads)
    exact = reference.map_heads_backward(nodes, heads_64, matrix_64, by_out_64, wanted)
    assert by_matrix.dtype == matrix.dtype
    assert off(by_matrix, exact) < tolerance
    assert off(by_heads, wanted) < tolerance
    assert (by_heads[others] == 0.25).all()


def as_multiplied(matrix: Tensor, rows: Tensor) -> Tensor:
    """The matrix as such rows are multiplied by it: rounded where they are multiplied in pairs."""
    return matrix.to(torch.bfloat16) if head_maps_on_cpu._in_pairs(rows) else matrix


def test_neither_the_number_of_threads_nor_the_run_changes_a_bit(
    graph: KnowledgeGraph, hub: KnowledgeGraph, all_threads: int
) -> None:
    results = []
    for threads in (1, all_threads, all_threads):
        numba.set_num_threads(threads)
        found = head_maps(5_000)
        for block in (full_block(graph, KERNELS), blocks(graph)[1], full_block(hub, KERNELS)):
            found += sums_and_attention(block)
        results.append([value.contiguous().view(-1).view(torch.uint8) for value in found])
    assert all(value.any() for value in results[0])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def sums_and_attention(block: Block) -> list[Tensor]:
    draw, graph = Draw(), block.graph
    messages = draw(graph.num_nodes, 48, dtype=torch.bfloat16)
    scale = draw(block.num_rows, dtype=torch.float32)
    sums = torch.zeros(block.num_rows, 33)
    cpu.add_neighbors(messages, block, scale, sums)
    by_message = torch.zeros(graph.type_offsets[1], 33)
    messages = messages[: block.num_rows]
    cpu.add_neighbors_backward(messages, block, 0, by_message)
    given = Given.draw(block, 3, 16, torch.bfloat16, torch.float32)
    highest, total, weighted = given.attend(cpu_attention)
    by_q, by_scale, by_kv = given.backward(cpu_attention, highest + total.log())
    return [sums, by_message, highest, total, weighted, by_q, *by_scale, *by_kv]


def head_maps(count: int) -> list[Tensor]:
    draw, nodes = Draw(), torch.arange(0, count, 2)
    heads, by_out = (draw(count, 64, dtype=torch.bfloat16) for _ in range(2))
    matrix, by_heads = draw(4, 16, 16, dtype=torch.float32), torch.zeros(count, 64)
    out = torch.zeros_like(heads)
    cpu_attention.map_heads(nodes, heads, matrix, out)
    by_matrix = cpu_attention.map_heads_backward(nodes, heads, matrix, by_out, by_heads)
    return [out, by_matrix, by_heads]
