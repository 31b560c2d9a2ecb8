"""Compare the cost of layers with PyTorch Geometric, on the same graph, of the same widths.

python benchmarks/against_pyg.py [scale]   (1/16 if left out; 1 is PrimeKG's size)

One layer, forward and backward, 256 columns, 8 heads, float32, with shared weights; a fresh process
for each. Ours take the CPU's kernels, and then the path of GPUs, in plain torch. SAGEConv is
measured as it is usually called, with a list of edges, and with a CSR matrix.
The memory that PyTorch Geometric would need for the whole graph is said twice: counted, as the
least that its code holds at once, and extrapolated along a line through half the scale and the
scale. Seconds are not extrapolated: those of HGTConv grow faster than the graph.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from measure import cached_graph, csr_matrix, edges_file, in_fresh_process, run, seconds_of

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph

if TYPE_CHECKING:
    from torch import Tensor

DIM, HEADS = 256, 8
PRIMEKG_EDGES = 8_100_498
PATH = " on the path of GPUs"
LAYERS = {
    "SageLayer": ("SAGEConv", "SAGEConv with CSR", f"SageLayer{PATH}"),
    "HgtLayer": ("HGTConv", f"HgtLayer{PATH}"),
}
Layer = tuple[Callable[["Tensor"], "Tensor"], list["Tensor"]]


def our_layer(name: str, graph: KnowledgeGraph) -> Any:
    import torch

    from clinical_drug_discovery.models.hgt import HgtLayer
    from clinical_drug_discovery.models.sage import SageLayer

    generator = torch.Generator().manual_seed(0)
    if name == "SageLayer":
        return SageLayer(DIM, DIM, generator)
    return HgtLayer(len(graph.node_type_names), len(graph.edge_types), DIM, HEADS, generator)


def build(name: str, graph: KnowledgeGraph) -> Layer:
    """A layer as a function of all nodes' rows, and its weights; both libraries' are the same."""
    if name.removesuffix(PATH) in LAYERS:
        from clinical_drug_discovery.ops.backend import Backend
        from clinical_drug_discovery.ops.blocks import full_block

        backend = Backend(graph.device, kernels=not name.endswith(PATH))
        layer, block = our_layer(name.removesuffix(PATH), graph), full_block(graph, backend)
        return lambda x: layer(x, block), list(layer.parameters())
    return build_hgt_conv(graph) if name == "HGTConv" else build_sage_conv(graph, "CSR" in name)


def build_sage_conv(graph: KnowledgeGraph, with_csr: bool) -> Layer:
    import torch
    from torch_geometric.nn import SAGEConv

    ours, theirs = our_layer("SageLayer", graph), SAGEConv(DIM, DIM)
    with torch.no_grad():
        theirs.lin_l.weight.copy_(ours.weight_neighbor)
        theirs.lin_l.bias.copy_(ours.bias)
        theirs.lin_r.weight.copy_(ours.weight_self)
    edges = csr_matrix(graph) if with_csr else torch.stack([graph.src, graph.dst]).long()
    return lambda x: theirs(x, edges), list(theirs.parameters())


def build_hgt_conv(graph: KnowledgeGraph) -> Layer:
    import torch
    from torch.nn import functional
    from torch_geometric.nn import HGTConv

    names, bounds = list(graph.node_type_names), graph.type_offsets
    ours = our_layer("HgtLayer", graph)
    theirs = HGTConv(DIM, DIM, (names, [tuple(kind) for kind in graph.edge_types]), HEADS)
    with torch.no_grad():
        for t, name in enumerate(names):
            theirs.kqv_lin.lins[name].weight.copy_(ours.kqv.weight[t])
            theirs.kqv_lin.lins[name].bias.copy_(ours.kqv.bias[t])
            theirs.out_lin.lins[name].weight.copy_(ours.out.weight[t])
            theirs.out_lin.lins[name].bias.copy_(ours.out.bias[t])
            theirs.skip[name].copy_(ours.skip[t])
        for r, kind in enumerate(graph.edge_types):
            theirs.p_rel["__".join(kind)].copy_(ours.prior[r][None])
        theirs.k_rel.weight.copy_(ours.attention.transpose(0, 1).flatten(0, 1))
        theirs.v_rel.weight.copy_(ours.message.transpose(0, 1).flatten(0, 1))
    ends, kinds = torch.stack([graph.src, graph.dst]).long(), graph.edge_type
    edges = {}
    for r, kind in enumerate(graph.edge_types):
        first = torch.tensor([[bounds[t]] for t in graph.endpoint_types[r]])
        edges[tuple(kind)] = ends[:, kinds == r] - first
    del ends, kinds

    def forward(x: Tensor) -> Tensor:
        rows = theirs({name: x[slice(*graph.node_range(t))] for t, name in enumerate(names)}, edges)
        whole = torch.cat([rows[name] for name in names])
        return functional.layer_norm(whole, whole.shape[1:], eps=1e-5)  # ours ends in one

    return forward, list(theirs.parameters())


def step(arguments: list[str]) -> dict[str, float]:
    """Seconds of a layer forward and backward, and peak beside the graph, layer and input."""
    import psutil
    import torch

    from clinical_drug_discovery.system.machine import GIB, peak_memory_bytes
    from clinical_drug_discovery.training.compile_kernels import train_tiny_models

    name, path, directory = arguments
    for model in ("graphsage", "hgt"):  # compile and load everything before the measurement
        train_tiny_models(model)
    graph = cached_graph(path, directory)
    forward, weights = build(name, graph)
    x = torch.randn(graph.num_nodes, DIM, requires_grad=True)
    direction = torch.randn(graph.num_nodes, DIM)
    held = psutil.Process().memory_info().rss

    def work() -> None:
        torch.autograd.grad(forward(x), [x, *weights], direction.clone())

    return {"seconds": seconds_of(work, 2), "peak_gib": (peak_memory_bytes() - held) / GIB}


def compare(arguments: list[str]) -> dict[str, float]:
    """The distances of both outputs and both gradients, relative to their mean size."""
    import torch

    ours, theirs, path, directory = arguments
    graph = cached_graph(path, directory)
    x = torch.randn(graph.num_nodes, DIM, requires_grad=True)
    direction = torch.randn(graph.num_nodes, DIM)
    results = []
    for name in (ours, theirs):
        out = build(name, graph)[0](x)
        # A copy, since our layers use the place of the incoming gradient.
        results.append((out.detach(), torch.autograd.grad(out, x, direction.clone())[0]))
    names = ("output", "gradient")
    return {
        name: float((a - b).norm() / b.norm()) for name, a, b in zip(names, *results, strict=True)
    }


def counted_gib(graph: KnowledgeGraph, scale: float) -> dict[str, float]:
    """Memory that PyTorch Geometric's layers hold at once for PrimeKG, as their code has it.

    HGTConv, forward: keys and values are laid side by side for every edge type, before and after
    their maps: 4 rows for each node of an edge type's source type. `message` gets q_i, k_j and v_j
    of every edge, kept for the backward pass, and makes their products: 4 rows for each edge.
    SAGEConv with a list of edges: x_j of every edge.
    """
    copies = (
        sum(b - a for a, b in (graph.node_range(src) for src, _ in graph.endpoint_types)) / scale
    )
    row = 4 * DIM / 2**30
    return {"HGTConv": 4 * row * (copies + PRIMEKG_EDGES), "SAGEConv": row * PRIMEKG_EDGES}


def main() -> None:
    scale = float(Fraction(sys.argv[1] if sys.argv[1:] else "1/16"))
    names = [name for ours, theirs in LAYERS.items() for name in (ours, *theirs)]
    results: list[dict[str, dict[str, float]]] = []
    millions = []
    for at in (scale / 2, scale):
        with edges_file(None, at) as path, tempfile.TemporaryDirectory() as directory:
            graph = cached_graph(path, directory)
            millions.append(graph.num_edges / 1e6)
            given = (path, directory)
            results.append(
                {name: in_fresh_process(__file__, "step", name, *given) for name in names}
            )
            print(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} edges")
            for ours, theirs in LAYERS.items():
                for name in (ours, *theirs):
                    seconds, peak = (results[-1][name][key] for key in ("seconds", "peak_gib"))
                    ratio = seconds / results[-1][ours]["seconds"]
                    print(
                        f"  {name}: {seconds:.3f} s = {ratio:.1f} {ours}, peak {peak:.3f} GiB "
                        "beside its input"
                    )
            if at < scale:
                continue
            for ours, theirs in LAYERS.items():
                apart = in_fresh_process(__file__, "compare", ours, theirs[0], *given)
                print(
                    f"  {ours} and {theirs[0]} differ by {apart['output']:.1e} of the output's "
                    f"norm, by {apart['gradient']:.1e} of the gradient's (bfloat16 rounds by 2e-3)"
                )
            counted = counted_gib(graph, scale)
    print(f"PrimeKG's {PRIMEKG_EDGES:,} edges would take")
    far = (PRIMEKG_EDGES / 1e6 - millions[1]) / (millions[1] - millions[0])
    for name in names:
        near, at_scale = (result[name]["peak_gib"] for result in results)
        least = f"; at least {counted[name]:.1f} GiB by its code" if name in counted else ""
        print(f"  {name}: {at_scale + far * (at_scale - near):.1f} GiB, extrapolated{least}")


if __name__ == "__main__":
    run({"step": step, "compare": compare}, main)
