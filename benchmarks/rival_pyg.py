"""Train PyTorch Geometric's GraphSAGE on a split of quality.py --rivals or time_to_quality.py.

In an environment of its own (pip install torch_geometric polars):
python benchmarks/rival_pyg.py DIR/pair-0 --minutes 10 [--dim 64]

The model has a learned vector for each node and two SAGEConv layers with residuals, which treat all
edge types in the same way. The decoder is DistMult; the loss is a softmax over targets of the right
type, as in shallow.py. Each step sees the whole graph. PyG stores one message for each edge: 128
numbers for 6 million edges take 3 GB.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import SAGEConv

BATCH, NEGATIVES, LEARNING_RATE = 32_768, 512, 0.01


class Sage(nn.Module):
    """A vector for each node, two SAGEConv layers, and the relation vectors of the decoder."""

    def __init__(self, num_nodes: int, num_relations: int, dim: int) -> None:
        super().__init__()
        self.nodes = nn.Parameter(0.1 * torch.randn(num_nodes, dim))
        self.relations = nn.Parameter(torch.ones(num_relations, dim))
        self.layers = nn.ModuleList([SAGEConv(dim, dim) for _ in range(2)])

    def forward(self, edges: Tensor) -> Tensor:
        """Return the embeddings of all nodes, shape (N, dim)."""
        x: Tensor = self.nodes
        for layer in self.layers:
            x = x + functional.relu(layer(x, edges))
        return x


def train_sage(
    place: Path, *, dim: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[Sage, Tensor]:
    """Train on a split until `clock` has advanced by `seconds`; return the model and the edges."""
    torch.manual_seed(0)
    split = json.loads((place / "split.json").read_text())
    train = pl.read_parquet(place / "train.parquet")
    edges = torch.from_numpy(train.select("src", "dst").to_numpy().T.astype(np.int64).copy())
    relation = train["relation"].to_numpy()
    at = [np.flatnonzero(relation == r) for r in range(len(split["spans"]))]
    share = np.sqrt([len(rows) for rows in at])
    sizes = np.ceil(BATCH * share / share.sum()).astype(int)
    model = Sage(split["num_nodes"], len(at), dim)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    rng = np.random.default_rng(0)
    start, steps = clock(), 0
    while (passed := (clock() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - passed)
        optimizer.zero_grad()
        z = model(edges)
        loss = z.new_zeros(())
        for r, (rows, span) in enumerate(zip(at, split["spans"], strict=True)):
            if not len(rows):
                continue
            drawn = torch.from_numpy(rng.choice(rows, min(sizes[r], len(rows)), replace=False))
            src, dst = edges[:, drawn]
            others = torch.from_numpy(rng.integers(span[0], span[1], NEGATIVES))
            query = z[src] * model.relations[r]
            logits = (query @ z[others].T).masked_fill(dst[:, None] == others, -torch.inf)
            own = (query * z[dst]).sum(dim=1, keepdim=True)
            truth = torch.zeros(len(src), dtype=torch.int64)
            logits = torch.cat([own, logits], dim=1)
            loss = loss + functional.cross_entropy(logits, truth, reduction="sum")
        torch.autograd.backward(loss / sizes.sum())
        optimizer.step()
        steps += 1
    print(f"SAGEConv: {steps} steps, {clock() - start:.0f} s")
    return model, edges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--dim", type=int, default=64)
    arguments = parser.parse_args()
    model, edges = train_sage(arguments.split, dim=arguments.dim, seconds=60 * arguments.minutes)
    split = json.loads((arguments.split / "split.json").read_text())
    first, num_drugs = split["first_drug"], split["num_drugs"]
    forth, back = split["indication"]
    diseases = pl.read_parquet(arguments.split / "asked.parquet")["disease"].to_numpy()
    with torch.no_grad():
        z, relations = model(edges), model.relations
        asked = z[torch.from_numpy(diseases)] * (relations[forth] + relations[back])
        scores = asked @ z[first : first + num_drugs].T
    np.save(arguments.split / "PyG SAGEConv.npy", scores.numpy())


if __name__ == "__main__":
    main()
