"""Why a drug for this disease: the best typed paths between two nodes, hubs damped, by name.

A path's score is the product over its steps of the degrees of both ends to the power -0.4, degrees
within the step's edge type (Himmelstein et al., eLife 2017;6:e26726): a path through a protein
that a hundred drugs bind says little. What the graph says of the pair itself is stated, and is no
evidence. Nothing that the ranker has learned is used here.

All paths of one or two steps out of a node, each with its degree-damped weight.

Typed paths as sentences that a biologist can read.

PrimeKG's relations stand in a table; a relation that is not in it is told by its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import DAMPING
from clinical_drug_discovery.graph.knowledge_graph import (
    DISEASE,
    DRUG,
    EdgeType,
    IntArray,
    KnowledgeGraph,
)
from clinical_drug_discovery.ranking.treatments import TREATS

#: The kinds of evidence, the most telling first, and the most paths of each that are shown.
KINDS = ("mechanism", "similar drug", "related disease", "side effect")
_EACH, _SHARED = 2, 5
_ABSENT = ("disease_phenotype_negative", "anatomy_protein_absent")  # say that something is not so
_EFFECT = "effect/phenotype"

Chain = tuple[EdgeType, ...]
Explanation = dict[str, Any]


class Explainer:
    """Finds the best paths between nodes of one graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._steps = Steps(graph)
        self._kinds = [k for k in graph.edge_types if k.relation not in _ABSENT]
        self._half = cache(self._steps.half)

    def drug_for_disease(self, drug: int, disease: int) -> Explanation:
        """Say what speaks for a drug.

        Args:
            drug: node number.
            disease: node number.

        Returns:
            stated: the relations that the graph has between the two, and evidence: the paths, as
            `_record` gives them, by kind and falling path_score.
        """
        evidence = []
        for kind in KINDS:
            pairs = [pair for name, *pair in self._drug_paths() if name == kind]
            evidence += self._best(drug, disease, kind, ((a, b) for a, b in pairs))
        return {"stated": self._stated(drug, disease), "evidence": evidence}

    def shared(self, one: int, other: int) -> Explanation:
        """Say what two nodes share: their common neighbours.

        Args:
            one: node number.
            other: node number.

        Returns:
            As `drug_for_disease`; the only kind of evidence is "shared".
        """
        types = [str(self._graph.nodes["node_type"][node]) for node in (one, other)]
        out = [[k for k in self._kinds if k.src_type == name] for name in types]
        evidence: list[Explanation] = []
        for kind in out[0]:  # the best of each, or interactions would be all that is said
            pairs = (((kind,), (b,)) for b in out[1] if b.dst_type == kind.dst_type)
            evidence += self._best(one, other, "shared", pairs)
        evidence.sort(key=lambda path: -path["path_score"])
        evidence = evidence[:_SHARED]
        return {"stated": self._stated(one, other), "evidence": evidence}

    def _drug_paths(self) -> Iterable[tuple[str, Chain, Chain]]:
        """The metapaths: a kind, the chain out of the drug, that out of the disease; they meet."""
        drug, disease = self._beyond(DRUG), self._beyond(DISEASE)
        for a, b in product(drug, disease):
            kind = "side effect" if a.relation == "drug_effect" else "mechanism"
            if a.dst_type == b.dst_type:
                yield kind, (a,), (b,)
            for c in self._kinds:
                if c.src_type != a.dst_type or c.dst_type in (DRUG, DISEASE) or kind != "mechanism":
                    continue
                if c.dst_type == b.dst_type:
                    yield kind, (a, c), (b,)
                back = EdgeType(b.dst_type, c.relation, c.dst_type)
                if back in self._kinds and a.dst_type == b.dst_type and c.dst_type != c.src_type:
                    yield kind, (a, c), (b, back)
        treats = [k for k in self._kinds if k.relation in TREATS]
        for last in treats:
            if (last.src_type, last.dst_type) == (DISEASE, DRUG):
                yield from (("similar drug", a, (last,)) for a in self._alike(DRUG))
            if (last.src_type, last.dst_type) == (DRUG, DISEASE):
                yield from (("related disease", (last,), b) for b in self._alike(DISEASE))

    def _beyond(self, start: str) -> list[EdgeType]:
        ends = (DRUG, DISEASE)
        return [k for k in self._kinds if k.src_type == start and k.dst_type not in ends]

    def _alike(self, kind: str) -> Iterable[Chain]:
        """From a node of a type to others of it: by a relation, by what both have."""
        for edge in self._kinds:
            if edge.src_type == edge.dst_type == kind:
                yield (edge,)
                if kind == DISEASE:
                    yield (edge, edge)
        for edge in self._beyond(kind):
            yield (edge, EdgeType(edge.dst_type, edge.relation, edge.src_type))

    def _best(
        self,
        start: int,
        end: int,
        kind: str,
        metapaths: Iterable[tuple[Chain, Chain]],
        most: int = _EACH,
    ) -> list[Explanation]:
        found = []
        for a, b in metapaths:
            for nodes, score in join(self._half(start, a), self._half(end, b), most):
                back = [EdgeType(k.dst_type, k.relation, k.src_type) for k in reversed(b)]
                found.append((score, nodes, (*a, *back)))
        found.sort(key=lambda one: (-one[0], one[1]))
        middles: set[int] = set()
        records: list[Explanation] = []
        for score, nodes, kinds in found:
            # Two paths that differ in what lies beyond are one thing told twice.
            if middles.isdisjoint(nodes[1:-1]) and len(records) < most:
                middles |= set(nodes[1:-1])
                records.append(self._record(kind, nodes, kinds, score))
        return records

    def _record(self, kind: str, nodes: tuple[int, ...], kinds: Chain, score: float) -> Explanation:
        columns = ("node_index", "node_id", "node_name", "node_type")
        named = self._graph.nodes.select(columns)[list(nodes)].to_dicts()
        return {
            "kind": kind,
            "text": sentence([row["node_name"] for row in named], kinds),
            "path_score": float(f"{score:.4g}"),
            "nodes": named,
            "relations": [k.relation for k in kinds],
        }

    def _stated(self, one: int, other: int) -> list[str]:
        """What the graph says of the pair, in words, each relation once."""
        types = [str(self._graph.nodes["node_type"][node]) for node in (one, other)]
        names = [str(self._graph.nodes["node_name"][node]) for node in (one, other)]
        kinds = [k for k in self._graph.edge_types if [k.src_type, k.dst_type] == types]
        return [
            f"{names[0]} {phrase(kind)} {names[1]}"
            for kind in kinds
            if other in self._steps.half(one, (kind,)).ends
        ]


def join(start: Half, end: Half, most: int) -> list[tuple[tuple[int, ...], float]]:
    """The best paths of two halves that end in one node, one for each such node.

    Args:
        start: all paths from the first node.
        end: all paths from the last node.
        most: how many are wanted.

    Returns:
        Nodes and score of each path, the best first; no path comes by a node twice.
    """
    common = np.intersect1d(start.ends, end.ends)
    if not len(common):
        return []
    bound = start.best(common) * end.best(common)
    found: list[tuple[tuple[int, ...], float]] = []
    for i in np.lexsort((common, -bound)).tolist():
        if len(found) >= most and bound[i] < found[most - 1][1]:
            break
        paths = [
            ((*left, *reversed(right[:-1])), a * b)
            for (left, a), (right, b) in product(start.to(common[i]), end.to(common[i]))
        ]
        simple = [path for path in paths if len(set(path[0])) == len(path[0])]
        if simple:
            found.append(max(simple, key=lambda path: (path[1], path[0])))
            found.sort(key=lambda path: (-path[1], path[0]))
    return found[:most]


_KEPT = 3  # paths to each end: one or two may come by nodes of the other half


@dataclass(frozen=True)
class Half:
    """Paths out of one node, sorted by where they end, then the best first."""

    nodes: npt.NDArray[np.int64]  #: shape (P, steps + 1)
    weights: npt.NDArray[np.float64]  #: shape (P,)

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each path ends, ascending."""
        return self.nodes[:, -1]

    def best(self, ends: IntArray) -> npt.NDArray[np.float64]:
        """The weight of the best path to each of some nodes, all of which are ends."""
        return self.weights[np.searchsorted(self.ends, ends)]

    def to(self, end: int) -> list[tuple[tuple[int, ...], float]]:
        """The best few paths to a node, with their weights."""
        first, stop = np.searchsorted(self.ends, [end, end + 1])
        rows = slice(first, min(stop, first + _KEPT))
        return list(
            zip(map(tuple, self.nodes[rows].tolist()), self.weights[rows].tolist(), strict=True)
        )


class Steps:
    """Who is joined to whom by a graph's edges, read off its tensors without a copy."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._src, self._indptr = graph.src.numpy(), graph.indptr.numpy()
        self._number = {kind: r for r, kind in enumerate(graph.edge_types)}

    def half(self, start: int, chain: Sequence[EdgeType]) -> Half:
        """All paths out of a node along a metapath.

        Args:
            start: node number.
            chain: edge types, each starting where the one before ends.
        """
        nodes, weights = np.array([[start]]), np.ones(1)
        for kind in chain:
            first, degree = self._out(kind, nodes[:, -1])
            at = np.repeat(np.arange(len(nodes)), degree)
            offset = np.arange(len(at)) - np.repeat(np.cumsum(degree) - degree, degree)
            ends = self._src[first[at] + offset].astype(np.int64)
            back = EdgeType(kind.dst_type, kind.relation, kind.src_type)
            degrees = degree[at] * self._out(back, ends)[1].astype(np.float64)
            nodes = np.column_stack([nodes[at], ends])
            weights = weights[at] * degrees**-DAMPING
        order = np.lexsort((*nodes.T, -weights, nodes[:, -1]))
        return Half(nodes[order], weights[order])

    def _out(self, kind: EdgeType, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """Where in the graph's sources the ends of nodes' edges of a type stand, and how many."""
        mirror = self._number[EdgeType(kind.dst_type, kind.relation, kind.src_type)]
        at = self._graph.indptr_ptr[mirror] + nodes
        at = at - self._graph.node_range(self._graph.endpoint_types[mirror][1])[0]
        return self._indptr[at], self._indptr[at + 1] - self._indptr[at]


#: Relation and the type it starts from -> what the start does to the end. A relation of a type with
#: itself, or read the same both ways, needs no type.
_WORDS: dict[tuple[str, str], str] = {
    ("drug_protein", "drug"): "binds",
    ("drug_protein", "gene/protein"): "is bound by",
    ("drug_class", "drug"): "belongs to the class",
    ("drug_class", "pharmacologic_class"): "includes",
    ("drug_effect", "drug"): "has the side effect",
    ("drug_effect", "effect/phenotype"): "is a side effect of",
    ("drug_drug", ""): "interacts with the drug",
    ("drug_drug_similarity", ""): "resembles",
    ("indication", "drug"): "treats",
    ("indication", "disease"): "is treated by",
    ("palliation", "drug"): "relieves",
    ("palliation", "disease"): "is relieved by",
    ("off-label use", "drug"): "is used off label for",
    ("off-label use", "disease"): "is treated off label with",
    ("contraindication", "drug"): "is contraindicated in",
    ("contraindication", "disease"): "speaks against",
    ("disease_protein", ""): "is linked to",
    ("disease_disease", ""): "is related to",
    ("disease_phenotype_positive", "disease"): "shows",
    ("disease_phenotype_positive", "effect/phenotype"): "is seen in",
    ("disease_phenotype_negative", "disease"): "does not show",
    ("disease_phenotype_negative", "effect/phenotype"): "is not seen in",
    ("disease_anatomy", "disease"): "affects",
    ("disease_anatomy", "anatomy"): "is affected by",
    ("protein_protein", ""): "interacts with",
    ("pathway_protein", "gene/protein"): "takes part in",
    ("pathway_protein", "pathway"): "involves",
    ("bioprocess_protein", "gene/protein"): "takes part in",
    ("bioprocess_protein", "biological_process"): "involves",
    ("molfunc_protein", "gene/protein"): "has the function",
    ("molfunc_protein", "molecular_function"): "is a function of",
    ("cellcomp_protein", "gene/protein"): "is found in",
    ("cellcomp_protein", "cellular_component"): "contains",
    ("anatomy_protein_present", "gene/protein"): "is expressed in",
    ("anatomy_protein_present", "anatomy"): "expresses",
    ("anatomy_protein_absent", "gene/protein"): "is not expressed in",
    ("anatomy_protein_absent", "anatomy"): "does not express",
    ("phenotype_protein", ""): "is linked to",
    ("phenotype_phenotype", ""): "is related to",
    ("pathway_pathway", ""): "is related to",
    ("bioprocess_bioprocess", ""): "is related to",
    ("molfunc_molfunc", ""): "is related to",
    ("cellcomp_cellcomp", ""): "is related to",
    ("anatomy_anatomy", ""): "is related to",
    ("exposure_disease", ""): "is linked to",
    ("exposure_protein", ""): "is linked to",
}


def phrase(kind: EdgeType) -> str:
    """What the start of an edge does to its end, such as "treats"."""
    for start in (kind.src_type, ""):
        if (kind.relation, start) in _WORDS:
            return _WORDS[kind.relation, start]
    return f"is joined by '{kind.relation}' to"


def sentence(names: Sequence[str], kinds: Sequence[EdgeType]) -> str:
    """A path in words: "A binds B, which is linked to C".

    Two steps that meet, as those of two drugs at one protein, are told together: "A binds B, as
    does C, which treats D".

    Args:
        names: of the nodes, one more than steps.
        kinds: of the steps, from each node to the next.
    """
    text, i = names[0], 0
    while i < len(kinds):
        text += ", which" if i else ""
        text += f" {phrase(kinds[i])} {names[i + 1]}"
        i += 1
        if i < len(kinds) and _meet(kinds[i - 1], kinds[i]):
            does = "is" if phrase(kinds[i - 1]).startswith("is ") else "does"
            text += f", as {does} {names[i + 1]}"
            i += 1
    return text


def _meet(one: EdgeType, next_: EdgeType) -> bool:
    """Whether the second step is the first one backwards: both ends do the same to the middle."""
    return next_ == (one.dst_type, one.relation, one.src_type)
