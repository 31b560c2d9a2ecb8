"""Small knowledge graphs for the tests: as rows, as files, and as obvious Python sets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph


class Node(NamedTuple):
    source: str
    type: str
    id: str
    name: str


Fact = tuple[Node, str, Node]


def node(type: str, number: int) -> Node:
    source = {"drug": "DrugBank", "disease": "MONDO"}.get(type, "NCBI")
    # Ids repeat across types, as in the real data: gene 7 and disease 7 are different things.
    return Node(source, type, str(number), f"{type} {number}")


def random_facts(
    rng: np.random.Generator, num_facts: int = 400, sizes: dict[str, int] | None = None
) -> list[Fact]:
    """Distinct facts of several relations, two of them between the same types."""
    sizes = sizes or {"drug": 30, "disease": 20, "gene/protein": 40}
    relations = (
        ("drug_protein", "drug", "gene/protein"),
        ("disease_protein", "disease", "gene/protein"),
        ("indication", "drug", "disease"),
        ("off-label use", "drug", "disease"),
        ("protein_protein", "gene/protein", "gene/protein"),
    )
    facts: dict[tuple[str, frozenset[Node]], Fact] = {}
    while len(facts) < num_facts:
        relation, x_type, y_type = relations[rng.integers(len(relations))]
        # Squared, so that some nodes are hubs and others stay alone.
        x, y = (node(kind, int(sizes[kind] * rng.random() ** 2)) for kind in (x_type, y_type))
        if x != y:
            facts[relation, frozenset((x, y))] = (x, relation, y)
    return list(facts.values())


def planted_facts(
    seed: int = 0,
    *,
    num_drugs: int = 60,
    num_diseases: int = 40,
    num_genes: int = 12,
    chance: float = 1.0,
) -> list[Fact]:
    """Drugs treat the diseases whose gene they bind, with a chance; interactions are noise."""
    rng = np.random.default_rng(seed)
    target, gene = (rng.integers(num_genes, size=n) for n in (num_drugs, num_diseases))
    facts: list[Fact] = []
    for drug in range(num_drugs):
        facts.append((node("drug", drug), "drug_protein", node("gene/protein", int(target[drug]))))
        other = (drug + 1 + int(rng.integers(num_drugs - 1))) % num_drugs
        facts.append((node("drug", drug), "drug_drug", node("drug", other)))
    for disease in range(num_diseases):
        of_it = node("gene/protein", int(gene[disease]))
        facts.append((node("disease", disease), "disease_protein", of_it))
        fits = np.flatnonzero(target == gene[disease])
        treats = fits[rng.random(len(fits)) < chance].tolist()
        facts += [(node("drug", d), "indication", node("disease", disease)) for d in treats]
    return list({(frozenset((f[0], f[2])), f[1]): f for f in facts}.values())


def to_rows(facts: Iterable[Fact], *, both: bool = False, numbered: bool = True) -> pl.DataFrame:
    """Facts in PrimeKG's columns, once or in both directions, with x_index or without."""
    facts = list(facts)
    written = facts + [(y, relation, x) for x, relation, y in facts] if both else facts
    # Numbers that are not in the order of the types, and have gaps, as in a filtered file.
    seen = sorted({end for x, _, y in facts for end in (x, y)}, key=lambda n: (n.id, n.type))
    index = {end: 3 * i for i, end in enumerate(seen)}
    rows = [
        {
            "relation": relation,
            "display_relation": relation,
            **{
                f"{side}_{field}": value
                for side, end in (("x", x), ("y", y))
                for field, value in (
                    ("index", index[end]),
                    ("id", end.id),
                    ("type", end.type),
                    ("name", end.name),
                    ("source", end.source),
                )
            },
        }
        for x, relation, y in written
    ]
    table = pl.DataFrame(rows)
    return table if numbered else table.drop("x_index", "y_index")


def read_facts(directory: Path, facts: Iterable[Fact]) -> KnowledgeGraph:
    """The graph of some facts, by way of a file."""
    path = directory / "facts.csv"
    to_rows(facts).write_csv(path)
    return read_graph(path)


def graph_of(facts: Iterable[Fact]) -> KnowledgeGraph:
    """The graph of some facts, by way of a file that does not stay."""
    with TemporaryDirectory() as directory:
        return read_facts(Path(directory), facts)


def to_triples(graph: KnowledgeGraph) -> set[tuple[tuple[str, ...], str, tuple[str, ...]]]:
    """The directed edges of a graph as plain tuples of (source, type, id)."""
    keys = graph.nodes.select("node_source", "node_type", "node_id").rows()
    relation = [graph.edge_types[kind].relation for kind in graph.edge_type.tolist()]
    edges = zip(graph.src.tolist(), relation, graph.dst.tolist(), strict=True)
    return {(keys[src], name, keys[dst]) for src, name, dst in edges}


def assert_same_graph(a: KnowledgeGraph, b: KnowledgeGraph) -> None:
    for name, array in a.arrays._asdict().items():
        np.testing.assert_array_equal(array, getattr(b.arrays, name), err_msg=name)
    for name in ("dst", "edge_type"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.edge_types == b.edge_types
    assert a.node_type_names == b.node_type_names
    assert a.nodes.equals(b.nodes)


#: Nodes whose ids and names coincide across types, in letters of either case.
LOOK_UP_NODES = pl.DataFrame(
    [
        (0, "DB1", "drug", "Aspirin", "DrugBank"),
        (1, "DB2", "drug", "Atorvastatin", "DrugBank"),
        (2, "1234", "gene/protein", "ASP", "NCBI"),
        (3, "1234", "disease", "asthma", "MONDO"),
        (4, "5", "disease", "Cold", "MONDO"),
        (5, "6", "disease", "cold", "MONDO"),
        (6, "7", "drug", "asthma", "DrugBank"),
        (7, "DB9", "drug", "Rosuvastatin", "DrugBank"),
    ],
    schema=["node_index", "node_id", "node_type", "node_name", "node_source"],
    orient="row",
)
