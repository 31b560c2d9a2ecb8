"""HGT's attention against PyTorch Geometric, and in every order, chunking and restriction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Fact, node, random_facts, read_facts, to_rows
from torch import Tensor
from torch_geometric.nn import HGTConv
from witness import peak_bytes

from clinical_drug_discovery.graph import KnowledgeGraph
from clinical_drug_discovery.ops import attention as attention_module
from clinical_drug_discovery.ops import cpu_attention, heterogeneous_attention, reference
from clinical_drug_discovery.tables import read_graph
from clinical_drug_discovery.typed_blocks import TypedBlock, TypedGraph

CPU = torch.device("cpu")
HEADS, DIM = 4, 3
WIDTH = HEADS * DIM


def parameters(graph: KnowledgeGraph, dtype: torch.dtype, width: int = WIDTH) -> list[Tensor]:
    """x, weight, bias, attention, message and prior, as `heterogeneous_attention` takes them."""
    generator = torch.Generator().manual_seed(0)
    num_types, num_edge_types = len(graph.node_type_names), len(graph.edge_types)
    dim = width // HEADS
    shapes = (
        (graph.num_nodes, width),
        (num_types, 3 * width, width),
        (num_types, 3 * width),
        (num_edge_types, HEADS, dim, dim),
        (num_edge_types, HEADS, dim, dim),
        (num_edge_types, HEADS),
    )
    scale = (1.0, width**-0.5, 0.1, dim**-0.5, dim**-0.5, 1.0)
    return [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * s)
        .to(dtype)
        .requires_grad_()
        for shape, s in zip(shapes, scale, strict=True)
    ]


def attend_all(given: list[Tensor], block: TypedBlock) -> Tensor:
    x, weight, bias, attention, message, prior = given
    return heterogeneous_attention(x, weight, bias, attention, message, prior, block)


def outputs_and_gradients(
    given: list[Tensor], block: TypedBlock, weight: Tensor | None = None
) -> list[Tensor]:
    out = attend_all(given, block)
    if weight is None:
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad((out * weight).sum(), given)]


@pytest.mark.parametrize("backend", [cpu_attention, reference])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str
)
def test_equals_pyg(
    graph: KnowledgeGraph,
    dtype: torch.dtype,
    tolerance: float,
    backend: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the identity as output map and its skip undone, the oracle is the attention alone."""
    monkeypatch.setattr(attention_module, "cpu_attention", backend)
    given = parameters(graph, dtype)
    x, weight, bias, attention, message, prior = given
    names = list(graph.node_type_names)
    oracle = HGTConv(WIDTH, WIDTH, (names, [tuple(kind) for kind in graph.edge_types]), HEADS)
    oracle = oracle.to(dtype)
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
        values[f"out_lin.lins.{name}.weight"] = torch.eye(WIDTH, dtype=dtype)
        values[f"out_lin.lins.{name}.bias"] = torch.zeros(WIDTH, dtype=dtype)
        values[f"skip.{name}"] = torch.full((1,), 50.0, dtype=dtype)  # sigmoid(50) is 1
    for r, kind in enumerate(graph.edge_types):
        values[f"p_rel.{'__'.join(kind)}"] = prior[r][None]
    values["k_rel.weight"] = attention.transpose(0, 1).reshape(-1, DIM, DIM)
    values["v_rel.weight"] = message.transpose(0, 1).reshape(-1, DIM, DIM)
    known = {name.replace("/", "").replace("-", "") for name in values}
    assert {name.replace("/", "").replace("-", "") for name in oracle.state_dict()} == known
    values = dict(zip(oracle.state_dict(), _in_order(oracle, values), strict=True))
    x_dict = {name: x[bounds[t] : bounds[t + 1]] for t, name in enumerate(names)}
    result = torch.func.functional_call(oracle, values, (x_dict, edges))
    theirs = torch.cat([result[name] for name in names])
    block = TypedGraph(graph).full_block(CPU)
    ours = torch.nn.functional.gelu(
        heterogeneous_attention(x, weight, bias, attention, message, prior, block)
    )
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    direction = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for gradient, wanted in zip(
        torch.autograd.grad((ours * direction).sum(), given),
        torch.autograd.grad((theirs * direction).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(
            gradient, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max())
        )


def _in_order(oracle: HGTConv, values: dict[str, Tensor]) -> list[Tensor]:
    """Our values in the order of the oracle's own names, which drop some characters of ours."""
    plain = {name.replace("/", "").replace("-", ""): value for name, value in values.items()}
    return [plain[name.replace("/", "").replace("-", "")] for name in oracle.state_dict()]


@pytest.mark.parametrize("chunk_size", [1, 5, 64, 10**6])
def test_reference_in_any_chunks_equals_the_kernels(
    graph: KnowledgeGraph, chunk_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, block = parameters(graph, torch.float64), TypedGraph(graph).full_block(CPU)
    wanted = outputs_and_gradients(given, block)
    monkeypatch.setattr(reference.attend, "__defaults__", (chunk_size,))
    monkeypatch.setattr(reference.attend_backward, "__defaults__", (chunk_size,))
    monkeypatch.setattr(attention_module, "cpu_attention", reference)
    ours = outputs_and_gradients(given, block)
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-10)


def test_any_order_of_edge_types_gives_the_same(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    given = parameters(graph, torch.float64)
    order = rng.permutation(len(graph.edge_types))
    edge_type = np.argsort(order)[graph.edge_type.numpy()]
    by = np.lexsort((graph.src.numpy(), edge_type, graph.dst.numpy()))
    other = replace(
        graph,
        src=graph.src[by],
        dst=graph.dst[by],
        edge_type=torch.from_numpy(edge_type[by].astype(np.int32)),
        edge_types=tuple(graph.edge_types[r] for r in order),
    )
    # x, weight and bias go by node; attention, message and prior by edge type.
    moved = given[:3] + [value.detach()[order].requires_grad_() for value in given[3:]]
    wanted = outputs_and_gradients(given, TypedGraph(graph).full_block(CPU))
    ours = outputs_and_gradients(moved, TypedGraph(other).full_block(CPU))
    wanted[4:] = [gradient[order] for gradient in wanted[4:]]
    torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("restricted", [False, True])
def test_peak_memory_is_within_the_documented_formula(tmp_path: Path, restricted: bool) -> None:
    rng = np.random.default_rng(0)
    sizes = {"drug": 2_000, "disease": 1_500, "gene/protein": 2_500}
    graph = read_facts(tmp_path, random_facts(rng, 40_000, sizes))
    given = parameters(graph, torch.float32, width := 64)
    typed = TypedGraph(graph)
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:900]))
    block = typed.row_block(rows, CPU) if restricted else typed.full_block(CPU)
    attend_all(given, block).sum().backward()  # the kernels are compiled, the gradients exist
    n, largest = block.num_rows, int(graph.type_ptr.diff().max())
    numbers = sum(value.numel() for value in given[1:])
    small = 4096  # bytes: figures of one number, and what rounds an allocation up
    kept = 4 * n * (width + HEADS)
    forward = 4 * (n * width + 2 * n * HEADS + 6 * largest * width)
    backward = 4 * (
        graph.num_nodes * width + n * (3 * width + HEADS) + 10 * largest * width + numbers
    )
    seen = peak_bytes(lambda: attend_all(given, block))
    assert 0.8 * (kept + forward) < seen <= kept + forward + small
    out = attend_all(given, block)
    direction = torch.ones_like(out)
    seen = peak_bytes(lambda: torch.autograd.grad(out, given, direction))
    assert 0.8 * backward < seen <= backward + small
    # Far from what an edge-sized buffer of keys or values alone would take.
    assert backward < 4 * graph.num_edges * width


def test_restricted_rows_and_ranges_equal_rows_of_the_whole(
    graph: KnowledgeGraph, rng: np.random.Generator
) -> None:
    given, typed = parameters(graph, torch.float64), TypedGraph(graph)
    whole = attend_all(given, typed.full_block(CPU))
    rows = torch.from_numpy(np.sort(rng.permutation(graph.num_nodes)[:30]))
    part = outputs_and_gradients(given, typed.row_block(rows, CPU))
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
                attend_all(given, typed.range_block(start, min(start + size, graph.num_nodes), CPU))
                for start in range(0, graph.num_nodes, size)
            ]
            torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-12)


def test_isolated_nodes_get_zero_and_a_single_node_type_works(tmp_path: Path) -> None:
    facts: list[Fact] = [(node("drug", i), "indication", node("disease", 0)) for i in range(3)]
    facts.append((node("gene/protein", 0), "protein_protein", node("gene/protein", 1)))
    facts.append((node("drug", 0), "drug_protein", node("gene/protein", 0)))
    rows = to_rows(facts)
    rows.write_csv(tmp_path / "kg.csv")
    graph = read_graph(tmp_path / "kg.csv", include_node_types=["drug", "disease", "gene/protein"])
    lonely = read_graph(tmp_path / "kg.csv", include_node_types=["drug", "gene/protein"])
    assert (lonely.indptr.diff() == 0).any()
    for g in (graph, lonely):
        given = parameters(g, torch.float64)
        results = outputs_and_gradients(given, TypedGraph(g).full_block(CPU))
        assert all(torch.isfinite(value).all() for value in results)
        assert (results[0][g.indptr.diff() == 0] == 0).all()


def test_a_hub_of_50_000_edges_and_large_logits(tmp_path: Path) -> None:
    hub: list[Fact] = [(node("gene/protein", 0), "r", node("drug", i)) for i in range(50_000)]
    graph = read_facts(tmp_path, hub)
    given = parameters(graph, torch.float32)
    with torch.no_grad():
        given[0] *= 30  # logits in the thousands overflow any softmax without its maximum
    results = outputs_and_gradients(given, TypedGraph(graph).full_block(CPU))
    assert all(torch.isfinite(value).all() for value in results)
    double = [value.detach().double().requires_grad_() for value in given]
    wanted = attend_all(double, TypedGraph(graph).full_block(CPU))
    torch.testing.assert_close(results[0].double(), wanted, rtol=1e-2, atol=1e-2)


def test_gradients_by_finite_differences(tmp_path: Path) -> None:
    facts = random_facts(np.random.default_rng(0), 25, {"drug": 4, "disease": 4, "gene/protein": 5})
    graph = read_facts(tmp_path, facts)
    block = TypedGraph(graph).full_block(CPU)
    given = parameters(graph, torch.float64, width=HEADS)
    assert torch.autograd.gradcheck(lambda *values: attend_all(list(values), block), given)
