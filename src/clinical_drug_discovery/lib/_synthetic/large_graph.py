"""A synthetic graph with many nodes, few facts for each, and no names: `cdd synthesize`, "large".

Three node types have most nodes, as in graphs that contain variants, chemicals and proteins. In
half of the facts of a relation, both nodes have about the same place within their types; the other
facts lead to a few popular nodes more often than to others. All facts are random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

Ints = npt.NDArray[np.int64]
_CHUNK_ROWS = 262_144  # rows per chunk; a chunk takes about 20 MB
_NEAR, _SPREAD = 0.5, 1e-3  # fraction of near facts, and deviation of the places of their nodes
_POPULARITY = 3  # the place of a popular node is u^3, for u uniform between 0 and 1
_MAX_DENSITY = 0.5  # largest fraction of node pairs that one relation may join
_FACTOR = 7_368_787  # ids are numbers of nodes times this, modulo the number of nodes
_TREE = "disease_disease"  # its facts join each disease but the first to an earlier one


class _Relation(NamedTuple):
    x_type: str
    y_type: str
    rows: int  # at scale 1; each fact has two rows
    covers: str = ""  # ends ("x", "y") whose nodes all have a fact
    share: float = 1.0  # fraction of the nodes of both types among which facts are drawn


NODE_TYPES = {
    "variant": 5_000_000, "chemical": 5_000_000, "protein": 5_000_000, "taxon": 2_000_000,
    "gene": 1_800_000, "process": 400_000, "disease": 200_000, "phenotype": 200_000,
    "pathway": 200_000, "anatomy": 100_000, "drug": 100_000,
}  # fmt: skip
RELATIONS = {
    "variant_gene": _Relation("variant", "gene", 20_000_000, "xy"),
    "chemical_protein": _Relation("chemical", "protein", 24_000_000, "x"),
    "protein_gene": _Relation("protein", "gene", 10_000_000, "x"),
    "protein_protein": _Relation("protein", "protein", 16_000_000, share=0.1),
    "protein_taxon": _Relation("protein", "taxon", 10_000_000, "y"),
    "protein_process": _Relation("protein", "process", 10_000_000, "y"),
    "disease_protein": _Relation("disease", "gene", 3_000_000, "x"),
    "gene_anatomy": _Relation("gene", "anatomy", 2_400_000, "y"),
    "disease_phenotype": _Relation("disease", "phenotype", 2_000_000, "y"),
    "pathway_gene": _Relation("pathway", "gene", 600_000, "x"),
    "drug_protein": _Relation("drug", "gene", 600_000, "x"),
    "drug_effect": _Relation("drug", "phenotype", 600_000),
    _TREE: _Relation("disease", "disease", 400_000),
    "indication": _Relation("drug", "disease", 200_000),
    "contraindication": _Relation("drug", "disease", 200_000),
}
_SCHEMA = {
    "relation": pl.String, "x_id": pl.Int64, "x_type": pl.String, "y_id": pl.Int64,
    "y_type": pl.String,
}  # fmt: skip


class LargeGraph:
    """The numbers of nodes of each type, and the facts, which are drawn as they are written."""

    def __init__(self, scale: float, seed: int, min_nodes: int) -> None:
        """Scale the numbers.

        Args:
            scale: factor of the numbers of nodes and rows.
            seed: of all draws; each relation has numbers of its own.
            min_nodes: least number of nodes of a type.
        """
        self.counts = {kind: max(min_nodes, round(n * scale)) for kind, n in NODE_TYPES.items()}
        self.asked = {name: round(one.rows * scale / 2) for name, one in RELATIONS.items()}
        self.asked[_TREE] = self.counts[RELATIONS[_TREE].x_type] - 1
        self.num_facts: dict[str, int] = {}  #: of the relations that were written
        self._seed = seed

    def rows(self) -> pl.LazyFrame:
        """Stream the rows: the facts of a relation, then their reverse rows."""

        def batches(*_: Any) -> Iterator[pl.DataFrame]:  # polars asks for all columns and rows
            for number, (name, relation) in enumerate(RELATIONS.items()):
                x, y = self._facts(name, np.random.default_rng((self._seed, number)))
                self.num_facts[name] = len(x)
                ends = (relation.x_type, x), (relation.y_type, y)
                for (x_type, source), (y_type, target) in (ends, ends[::-1]):
                    for at in range(0, len(x), _CHUNK_ROWS):
                        chunk = slice(at, at + _CHUNK_ROWS)
                        ids = {
                            "x_id": _shuffled(source[chunk], self.counts[x_type]),
                            "y_id": _shuffled(target[chunk], self.counts[y_type]),
                        }
                        texts = {"relation": name, "x_type": x_type, "y_type": y_type}
                        lits = [pl.lit(text).alias(column) for column, text in texts.items()]
                        yield pl.DataFrame(ids).with_columns(lits).select(list(_SCHEMA))

        return register_io_source(batches, schema=_SCHEMA)

    def _facts(self, name: str, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Draw the distinct facts of a relation, without self-loops; numbers within the types."""
        relation = RELATIONS[name]
        num_x, num_y = (
            math.ceil(relation.share * self.counts[kind])
            for kind in (relation.x_type, relation.y_type)
        )
        if name == _TREE:
            child = rng.permutation(np.arange(1, num_x))
            return child, (child * rng.random(len(child))).astype(np.int64)
        pairs = num_x * num_y if relation.x_type != relation.y_type else num_x * (num_x - 1) // 2
        least = max([1, *(n for end, n in (("x", num_x), ("y", num_y)) if end in relation.covers)])
        goal = min(max(self.asked[name], least), int(_MAX_DENSITY * pairs))
        keys = np.empty(0, np.int64)
        while (need := goal - len(keys)) > 0:
            x, y = _ends(rng, need, num_x, num_y)
            if not len(keys):
                for covered, array, number in (("x", x, num_x), ("y", y, num_y)):
                    if covered in relation.covers:
                        array[:number] = rng.permutation(number)
            if relation.x_type == relation.y_type:
                x, y = np.minimum(x, y), np.maximum(x, y)
                x, y = x[x != y], y[x != y]
            keys = np.union1d(keys, x * num_y + y)
        x, y = np.divmod(rng.permutation(keys), num_y)
        return x, y


def _ends(rng: np.random.Generator, count: int, num_x: int, num_y: int) -> tuple[Ints, Ints]:
    """Draw both nodes of some facts."""
    x = rng.integers(0, num_x, count)
    place = (x + rng.random(count)) / num_x + rng.normal(0, _SPREAD, count)
    place = np.where(rng.random(count) < _NEAR, place % 1, rng.random(count) ** _POPULARITY)
    return x, np.minimum((place * num_y).astype(np.int64), num_y - 1)


def _shuffled(nodes: Ints, count: int) -> Ints:
    """Return distinct ids in another order than the nodes, which are popular in theirs."""
    factor = next(n for n in itertools.count(_FACTOR) if math.gcd(n, count) == 1)
    return nodes * factor % count
