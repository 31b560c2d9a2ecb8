"""Structure that was planted must be found: held-out facts, and nodes of one group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from graphs import Fact, node, to_rows
from safetensors.torch import load_file

from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.read_embeddings import read_embeddings

NUM_GROUPS = 6
SIZES = {"drug": 60, "disease": 48, "gene/protein": 90}
RELATIONS = (
    ("indication", "drug", "disease", 250),
    ("drug_protein", "drug", "gene/protein", 400),
    ("disease_protein", "disease", "gene/protein", 400),
)


def planted_facts(rng: np.random.Generator) -> list[Fact]:
    """Facts of which nine in ten join nodes of the same group; a node's group is its id mod 6."""
    facts: dict[tuple[str, int, int], Fact] = {}
    for relation, x_type, y_type, wanted in RELATIONS:
        while sum(key[0] == relation for key in facts) < wanted:
            x, y = int(rng.integers(SIZES[x_type])), int(rng.integers(SIZES[y_type]))
            if x % NUM_GROUPS == y % NUM_GROUPS or rng.random() < 0.1 / NUM_GROUPS:
                facts[relation, x, y] = (node(x_type, x), relation, node(y_type, y))
    return list(facts.values())


SAGE = {"num_layers": 2, "edge_batch_size": 600}
HGT = {"num_heads": 4, "learning_rate": 0.01}
PARTS = {"training": "sampled", "subgraph_size": 170}


@pytest.mark.parametrize(
    ("generate", "options"),
    [
        (generate_gnn_embeddings, SAGE),
        (generate_gnn_embeddings, {**SAGE, **PARTS, "edge_batch_size": 120}),
        (generate_hgt_embeddings, HGT),
        (generate_hgt_embeddings, {**HGT, **PARTS, "edge_sample_size": 20}),
    ],
    ids=["graphsage", "graphsage on parts", "hgt", "hgt on parts"],
)
def test_groups_and_held_out_indications_are_found(
    tmp_path: Path,
    generate: Callable[..., dict[str, Any]],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "training" in options:  # few enough nodes in a batch for parts to be parts
        for module in ("graph_sizes", "edge_sampler"):
            monkeypatch.setattr(f"clinical_drug_discovery.training.{module}.NUM_CANDIDATES", 15)
    rng = np.random.default_rng(0)
    facts = planted_facts(rng)
    indications = [fact for fact in facts if fact[1] == "indication"]
    held_out = [indications[i] for i in rng.permutation(len(indications))[:50]]
    known = {(x.id, y.id) for x, relation, y in facts if relation == "indication"}
    to_rows([fact for fact in facts if fact not in held_out]).write_csv(tmp_path / "kg.csv")
    stats = generate(tmp_path / "kg.csv", tmp_path / "e.npy", 32, 32, num_epochs=60, **options)
    nodes, values = read_embeddings(tmp_path / "e.npy")
    row = {
        (kind, int(number)): i
        for i, (kind, number) in enumerate(nodes.select("node_type", "node_id").rows())
    }

    # The nearest node of the same type is in the same group (chance: one in six).
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    cosine = unit @ unit.T
    types = nodes["node_type"].to_numpy()
    cosine[types[:, None] != types[None, :]] = -2
    np.fill_diagonal(cosine, -2)
    group = nodes["node_id"].cast(pl.Int64).to_numpy() % NUM_GROUPS
    assert (group[cosine.argmax(axis=1)] == group).mean() > 0.8

    # Held-out indications score above other pairs.
    decoder = DistMult(3, 32, torch.Generator().manual_seed(0))
    weights = load_file(Path(stats["model_dir"]) / "weights.safetensors")
    decoder.load_state_dict({name: weights[f"decoder.{name}"] for name in decoder.state_dict()})
    z = torch.from_numpy(values)

    def score(pairs: list[tuple[int, int]]) -> np.ndarray:
        src = torch.tensor([row["drug", a] for a, _ in pairs])
        dst = torch.tensor([row["disease", b] for _, b in pairs])
        relation = torch.full((len(pairs),), 2)  # drug_protein, disease_protein, indication, sorted
        with torch.no_grad():
            return np.asarray(decoder(z, src, relation, dst))

    drugs = {number for kind, number in row if kind == "drug"}
    diseases = {number for kind, number in row if kind == "disease"}
    hits = [(int(x.id), int(y.id)) for x, _, y in held_out]
    hits = [(a, b) for a, b in hits if a in drugs and b in diseases]
    others = [(a, b) for a in drugs for b in diseases if (str(a), str(b)) not in known]
    above = score(hits)[:, None] > score(others)[None, :]
    # One fact in ten joins two groups, and one pair in six is of one group: about 0.87 is possible.
    assert above.mean() > 0.78
