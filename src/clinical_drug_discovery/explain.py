"""Why a drug for this disease: the best typed paths between two nodes, hubs damped, by name.

A path's score is the product over its steps of the degrees of both ends to the power -0.4, degrees
within the step's edge type (Himmelstein et al., eLife 2017;6:e26726): a path through a protein
that a hundred drugs bind says little. What the graph says of the pair itself is stated, and is no
evidence. Nothing that the ranker has learned is used here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from clinical_drug_discovery.graph.knowledge_graph import EdgeType, KnowledgeGraph
from clinical_drug_discovery.halves import Half, Steps
from clinical_drug_discovery.pairs import DISEASE, DRUG, TREATS
from clinical_drug_discovery.wording import phrase, sentence

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
