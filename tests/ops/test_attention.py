"""HGT's attention against PyTorch Geometric, and in every order, chunking and restriction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from allocations import LargestTensor, peak_bytes
from backends import EXACT_KERNELS, KERNELS, SLOW_EXACT_KERNELS, TORCH, heterogeneous_attention
from closeness import BFLOAT16, off
from graphs import Fact, node, random_facts, read_facts, to_rows, to_triples
from torch import Tensor
from torch_geometric.nn import HGTConv

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings
from clinical_drug_discovery.ops import reference
from clinical_drug_discovery.ops.backend import Backend
from clinical_drug_discovery.ops.blocks import Block, full_block, range_block, row_block
from clinical_drug_discovery.ops.cpu import head_maps as cpu_heads

HEADS, DIM = 4, 3
EXACT = pytest.mark.parametrize("backend", [SLOW_EXACT_KERNELS, TORCH], ids=["kernels", "torch"])
WIDTH = HEADS * DIM


def parameters(
    graph: KnowledgeGraph, dtype: torch.dtype, width: int = WIDTH, heads: int = HEADS
) -> list[Tensor]:
    """x, weight, bias, attention, message and prior, as `heterogeneous_attention` takes them."""
    generator = torch.Generator().manual_seed(0)
    num_types, num_edge_types = len(graph.node_type_names), len(graph.edge_types)
    dim = width // heads
    shapes = (
        (graph.num_nodes, width),
        (num_types, 3 * width, width),
        (num_types, 3 * width),
        (num_edge_types, heads, dim, dim),
        (num_edge_types, heads, dim, dim),
        (num_edge_types, heads),
    )
    scale = (1.0, width**-0.5, 0.1, dim**-0.5, dim**-0.5, 1.0)
    return [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * s)
        .to(dtype)
        .requires_grad_()
        for shape, s in zip(shapes, scale, strict=True)
    ]


def attend_all(given: list[Tensor], block: Block) -> Tensor:
    return heterogeneous_attention(block, *given)


def outputs_and_gradients(
    given: list[Tensor], block: Block, weight: Tensor | None = None
) -> list[Tensor]:
    out = attend_all(given, block)
    if weight is None:
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad((out * weight).sum(), given)]


def ours_and_pyg(
    graph: KnowledgeGraph, heads: int, dim: int, dtype: torch.dtype, backend: Backend
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of ours, and of the oracle in float64.

    With the identity as output map and its skip undone, the oracle is the attention alone.
    """
    width = heads * dim
    given = parameters(graph, dtype, width, heads)
    doubles = [value.detach().double().requires_grad_() for value in given]
    x, weight, bias, attention, message, prior = doubles
    names = list(graph.node_type_names)
    oracle = HGTConv(width, width, (names, [tuple(kind) for kind in graph.edge_types]), heads)
    oracle = oracle.double()
    # Our own functional copies go in, so that the oracle's gradients arrive at our parameters.
    bounds = graph.type_ptr.tolist()
    edges = {
        tuple(kind): torch.stack([graph.src, graph.dst])[:, graph.edge_type == r].long()
        - torch.tensor([[bounds[names.index(kind.src_type)]], [bounds[names.index(kind.dst_type)]]])
        for r, kind in enumerate(graph.edge_types)
    }
    values: dict[str, Tensor] = {}
    for t, name in enumerate(names):
        values[f"kqv_lin.lins.{name}.weight"] = weight[t]
        values[f"kqv_lin.lins.{name}.bias"] = bias[t]
        values[f"out_lin.lins.{name}.weight"] = torch.eye(width, dtype=torch.float64)
        values[f"out_lin.lins.{name}.bias"] = torch.zeros(width, dtype=torch.float64)
        values[f"skip.{name}"] = torch.full((1,), 50.0, dtype=torch.float64)  # sigmoid(50) is 1
    for r, kind in enumerate(graph.edge_types):
        values[f"p_rel.{'__'.join(kind)}"] = prior[r][None]
    values["k_rel.weight"] = attention.transpose(0, 1).reshape(-1, dim, dim)
    values["v_rel.weight"] = message.transpose(0, 1).reshape(-1, dim, dim)
    known = {name.replace("/", "").replace("-", "") for name in values}
    assert {name.replace("/", "").replace("-", "") for name in oracle.state_dict()} == known
    values = dict(zip(oracle.state_dict(), _in_order(oracle, values), strict=True))
    x_dict = {name: x[bounds[t] : bounds[t + 1]] for t, name in enumerate(names)}
    result = torch.func.functional_call(oracle, values, (x_dict, edges))
    theirs = torch.cat([result[name] for name in names])
    ours = torch.nn.functional.gelu(attend_all(given, full_block(graph, backend)))
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return (
        [ours, *torch.autograd.grad((ours * direction).sum(), given)],
        [theirs, *torch.autograd.grad((theirs * direction).sum(), doubles)],
    )


SHAPES = [(4, 3), (1, 1), (2, 5), (3, 8), (8, 20), (4, 16), (1, 32), (3, 48)]  # heads, head dim


def assert_equals_pyg(
    graph: KnowledgeGraph, dtype: torch.dtype, tolerance: float, backend: Backend
) -> None:
    for heads, dim in SHAPES:
        ours, theirs = ours_and_pyg(graph, heads, dim, dtype, backend)
        for at, (value, wanted) in enumerate(zip(ours, theirs, strict=True)):
            assert off(value, wanted) < tolerance, (heads, dim, at)


@pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
def test_equals_pyg(graph: KnowledgeGraph, backend: Backend) -> None:
    assert_equals_pyg(graph, torch.float64, 1e-9, backend)


@EXACT
def test_equals_pyg_to_float32(graph: KnowledgeGraph, backend: Backend) -> None:
    assert_equals_pyg(graph, torch.float32, 1e-4, backend)


def test_equals_pyg_to_bfloat16(graph: KnowledgeGraph) -> None:
    """Errors pass four maps; those of the prior add up terms of both signs that mostly cancel."""
    for heads, dim in SHAPES:
        *ours, by_prior = zip(*ours_and_pyg(graph, heads, dim, torch.float32, KERNELS), strict=True)
        for at, (value, wanted) in enumerate(ours):
            assert off(value, wanted) < 4 * BFLOAT16, (heads, dim, at)
        assert off(*by_prior) < 8 * BFLOAT16, (heads, dim)


def _in_order(oracle: HGTConv, values: dict[str, Tensor]) -> list[Tensor]:
    """Our values in the order of the oracle's own names, which drop some characters of ours."""
    plain = {name.replace("/", "").replace("-", ""): value for name, value in values.items()}
    return [plain[name.replace("/", "").replace("-", "")] for name in oracle.state_dict()]


@pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
def test_a_block_may_have_no_rows(graph: KnowledgeGraph, backend: Backend) -> None:
    given = parameters(graph, torch.float64)
    block = row_block(graph, torch.arange(0), backend)
    out, *gradients = outputs_and_gradients(given, block)
    assert out.shape == (0, WIDTH)
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["keys", "queries", "values"])
def test_nan_stays_nan(graph: KnowledgeGraph, part: int) -> None:
    """Otherwise training would go on after its loss has diverged."""
    found = []
    for backend in (KERNELS, TORCH):
        given = parameters(graph, torch.float32)
        with torch.no_grad():
            given[2][0, part * WIDTH : (part + 1) * WIDTH] = torch.nan  # of the first node type
        found.append([v.isnan() for v in outputs_and_gradients(given, full_block(graph, backend))])
    for ours, wanted in zip(*found, strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("chunk_size", [1, 5, 64, 10**6])
def test_reference_in_any_chunks_equals_the_kernels(
    graph: KnowledgeGraph, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parameters(graph, torch.float64)
    wanted = outputs_and_gradients(given, full_block(graph, KERNELS))
    monkeypatch.setattr(reference.attend, "__defaults__", (chunk_size,))
    monkeypatch.setattr(reference.attend_backward, "__defaults__", (chunk_size,))
    ours = outputs_and_gradients(given, full_block(graph, TORCH))
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)


def test_any_order_of_edge_types_gives_the_same(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    given = parameters(graph, torch.float64)
    order = rng.permutation(len(graph.edge_types)).tolist()
    cuts = graph.arrays.edge_type_ptr.tolist()
    arrays = graph.arrays._replace(
        src=np.concatenate([graph.sources_of(r) for r in order]),
        # The places of the edges of each type move with the edges.
        indptr=np.concatenate(
            [
                graph.pointers_of(r) - cuts[r] + int(graph.edge_type_counts[order[:at]].sum())
                for at, r in enumerate(order)
            ]
        ),
        edge_type_ptr=np.array([0, *graph.edge_type_counts[order].cumsum()]),
    )
    other = replace(graph, arrays=arrays, edge_types=tuple(graph.edge_types[r] for r in order))
    assert to_triples(other) == to_triples(graph)
    # x, weight and bias go by node; attention, message and prior by edge type.
    moved = given[:3] + [value.detach()[order].requires_grad_() for value in given[3:]]
    wanted = outputs_and_gradients(given, full_block(graph, KERNELS))
    ours = outputs_and_gradients(moved, full_block(other, KERNELS))
    wanted[4:] = [gradient[order] for gradient in wanted[4:]]
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("restricted", [False, True])
def test_peak_memory_does_not_grow_with_the_edges(tmp_path: Path, restricted: bool) -> None:
    """Twice the edges of the same nodes take the shares of the largest edge type more, at most."""
    width, sizes = 64, {"drug": 200, "disease": 150, "gene/protein": 250}
    rng = np.random.default_rng(0)
    more = random_facts(rng, 40_000, sizes)
    peaks, shares = [], []
    for facts in (more[:20_000], more):
        graph = read_facts(tmp_path, facts)
        rows = torch.from_numpy(np.sort(np.random.default_rng(1).permutation(550)[:120]))
        block = row_block(graph, rows, KERNELS) if restricted else full_block(graph, KERNELS)
        given = parameters(graph, torch.float32, width)
        attend_all(given, block).sum().backward()  # compiled, and the mirrored edges are made
        forward = peak_bytes(partial(attend_all, given, block))
        out = attend_all(given, block)
        direction = torch.ones_like(out)
        backward = peak_bytes(partial(torch.autograd.grad, out, given, direction))
        peaks.append((forward, backward))
        shares.append(int(graph.edge_type_counts.max()) * 2 * HEADS * 2)  # in bfloat16
        nodes = graph.num_nodes
        assert forward + backward < graph.num_edges * width  # a quarter of keys in float32
    small = 4096 + 20 * 2 * width * 8  # bytes: figures of one number, and the few nodes that differ
    assert abs(nodes - 600) < 20
    assert peaks[1][0] <= peaks[0][0] + small
    assert peaks[1][1] <= peaks[0][1] + shares[1] - shares[0] + small


@pytest.mark.parametrize("backend", [KERNELS, TORCH], ids=["kernels", "torch"])
def test_no_tensor_of_the_edges_times_the_width_exists(
    tmp_path: Path, rng: np.random.Generator, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (reference.attend, reference.attend_backward):
        monkeypatch.setattr(function, "__defaults__", (100,))
    sizes = {"drug": 120, "disease": 120, "gene/protein": 120}
    graph = read_facts(tmp_path, random_facts(rng, 12_000, sizes))
    given = parameters(graph, torch.float32, 64)
    with LargestTensor() as seen:  # type: ignore[no-untyped-call]  # torch has no types for it
        attend_all(given, full_block(graph, backend)).sum().backward()
    # The largest are a type's shares, and the parts of the gradient by the matrices of its heads.
    shares = int(graph.edge_type_counts.max()) * 2 * HEADS
    assert seen.numel <= max(cpu_heads._PARTS * 2 * 64 * 16, shares) < graph.num_edges * 64 // 10


def test_restricted_rows_and_ranges_equal_rows_of_the_whole(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    given = parameters(graph, torch.float64)
    whole = attend_all(given, full_block(graph, KERNELS))
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:30]))
    part = outputs_and_gradients(given, row_block(graph, rows, KERNELS))
    torch.testing.assert_close(part[0], whole[rows], rtol=1e-12, atol=1e-12)
    direction = torch.zeros_like(whole)
    direction[rows] = torch.randn(part[0].shape, generator=torch.Generator().manual_seed(1)).to(
        torch.float64
    )
    wanted = torch.autograd.grad((whole * direction).sum(), given)
    torch.testing.assert_close(part[1:], list(wanted), rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        for size in (1, 7, graph.num_nodes):
            pieces = [
                attend_all(
                    given, range_block(graph, start, min(start + size, graph.num_nodes), KERNELS)
                )
                for start in range(0, graph.num_nodes, size)
            ]
            torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-12)


def test_isolated_nodes_get_zero_and_a_single_node_type_works(tmp_path: Path) -> None:
    facts: list[Fact] = [(node("drug", i), "indication", node("disease", 0)) for i in range(3)]
    facts.append((node("gene/protein", 0), "protein_protein", node("gene/protein", 1)))
    facts.append((node("drug", 0), "drug_protein", node("gene/protein", 0)))
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "kg.csv")
    graph = read_graph(
        tmp_path / "kg.csv", ReadSettings(include_node_types=["drug", "disease", "gene/protein"])
    )
    lonely = read_graph(
        tmp_path / "kg.csv", ReadSettings(include_node_types=["drug", "gene/protein"])
    )
    assert (lonely.degree == 0).any()
    for g in (graph, lonely):
        given = parameters(g, torch.float64)
        results = outputs_and_gradients(given, full_block(g, KERNELS))
        assert all(torch.isfinite(value).all() for value in results)
        assert (results[0][g.degree == 0] == 0).all()


def hub_graph(directory: Path) -> KnowledgeGraph:
    hub: list[Fact] = [(node("gene/protein", 0), "r", node("drug", i)) for i in range(50_000)]
    return read_facts(directory, hub)


def test_a_hub_of_50_000_edges_and_large_logits(tmp_path: Path) -> None:
    graph = hub_graph(tmp_path)
    given = parameters(graph, torch.float32)
    with torch.no_grad():
        given[0] *= 30  # logits in the thousands overflow any softmax without its maximum
    results = outputs_and_gradients(given, full_block(graph, KERNELS))
    assert all(torch.isfinite(value).all() for value in results)


@pytest.mark.slow
def test_large_logits_are_exact_to_float32(tmp_path: Path) -> None:
    graph = hub_graph(tmp_path)
    given = parameters(graph, torch.float32)
    with torch.no_grad():
        given[0] *= 30
    results = outputs_and_gradients(given, full_block(graph, EXACT_KERNELS))
    assert all(torch.isfinite(value).all() for value in results)
    double = [value.detach().double().requires_grad_() for value in given]
    wanted = attend_all(double, full_block(graph, EXACT_KERNELS))
    torch.testing.assert_close(results[0].double(), wanted, rtol=1e-2, atol=1e-2)


def test_gradients_by_finite_differences(tmp_path: Path) -> None:
    facts = random_facts(np.random.default_rng(0), 25, {"drug": 4, "disease": 4, "gene/protein": 5})
    graph = read_facts(tmp_path, facts)
    block = full_block(graph, KERNELS)
    given = parameters(graph, torch.float64, width=HEADS)
    assert torch.autograd.gradcheck(lambda *values: attend_all(list(values), block), given)
