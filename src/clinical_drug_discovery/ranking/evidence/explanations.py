"""Explain a drug for a disease: find the best paths between the two, and write them as sentences.

path score = product over the steps of (degree of the start * degree of the end)^-0.4. A degree
counts only edges of the step's type (Himmelstein et al., eLife 2017;6:e26726). A path through a
protein that a hundred drugs bind thus scores low. Edges that join the two nodes directly are listed
apart from the evidence, as "stated_facts".

If the effects on the ranker's score are given, only kinds of paths that raised the score are
evidence. Otherwise explanations use the graph alone, not a model.

A side effect that a drug shares with a disease or with a treatment is not evidence that the drug
helps. Paths from a drug to its side effects are therefore left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from ...graph.knowledge_graph import EdgeType, KnowledgeGraph
from ..drug_similarity import Metapath, reverse_metapath, steps_from
from .path_search import PathSearch, PathsFromNode, join_paths
from .sentences import sentence, spoken

#: The kinds of evidence, from the most to the least convincing.
KINDS = ("mechanism", "similar drug", "related disease")
#: The note for a list with a path from a drug to its target.
NO_DIRECTION = (
    "A shared target does not have a direction: these paths do not tell agonists from antagonists, "
    "so a drug that binds the protein may help or harm."
)
MAX_PATHS = 2  #: largest number of paths for each kind of evidence
_MAX_SHARED = 5  # largest number of paths that `Explainer.shared` returns
_NEGATIVE = ("disease_phenotype_negative", "anatomy_protein_absent")  # relations that deny a link
#: Relations from drugs to their side effects: PrimeKG, Hetionet, DRKG, Biolink.
SIDE_EFFECTS = (
    "drug_effect", "causes", "CcSE", "Hetionet::CcSE::Compound:Side Effect", "biolink:causes",
    "biolink:causes_adverse_event", "biolink:has_adverse_event", "biolink:has_side_effect",
)  # fmt: skip

Explanation = dict[str, Any]


def notes_on(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a reader of explained rows must know, once for the whole list."""
    paths = (path for row in rows for path in row["evidence"])
    return [NO_DIRECTION] if any(path["through_target"] for path in paths) else []


class Explainer:
    """Find the best paths between two nodes of a graph, and describe them."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph, self._words = graph, graph.vocabulary
        self._kinds = [k for k in graph.edge_types if k.relation not in _NEGATIVE]
        self._search = PathSearch(graph)
        self._found: dict[tuple[int, Metapath], PathsFromNode] = {}

    def drug_for_disease(
        self, drug: int, disease: int, effects: Mapping[str, float] | None = None
    ) -> Explanation:
        """Explain a drug for a disease; both are node numbers.

        Args:
            drug: node number.
            disease: node number.
            effects: effect of each kind on the score of the ranker, see `kind_effects`.

        Returns:
            A dict. "stated_facts" has one dict for each edge between the two nodes, with text,
            relation and contraindicated; contraindications come first. "evidence" has the best
            paths, sorted by kind and then by falling path_score. Each path is a dict with kind,
            text, path_score, through_target (true if a step joins a drug to a gene), nodes and
            relations; with `effects` also effect, the part of the score that all paths of the
            kind add.
        """
        evidence = []
        for kind in KINDS:
            metapaths = [(a, b) for name, a, b in self._drug_metapaths() if name == kind]
            if effects is None:
                evidence += self._best(drug, disease, kind, metapaths)
            elif (effect := effects.get(kind, 0)) > 0:
                shown = float(f"{effect:.3g}")
                found = self._best(drug, disease, kind, metapaths)
                evidence += [{**path, "effect": shown} for path in found]
        return {"stated_facts": self._stated_facts(drug, disease), "evidence": evidence}

    def shared(self, one: int, other: int) -> Explanation:
        """Explain the similarity of two nodes by the neighbors that both have.

        Returns:
            A dict as from `drug_for_disease`; all evidence is of the kind "shared".
        """
        types = [str(self._graph.nodes["node_type"][node]) for node in (one, other)]
        out = [[k for k in self._kinds if k.src_type == name] for name in types]
        if set(types) == {self._words.drug_type, self._words.disease_type}:
            out = [[k for k in kinds if not self._is_side_effect(k)] for kinds in out]
        evidence: list[Explanation] = []
        for kind in out[0]:  # a few paths per edge type, so that one type cannot fill the list
            metapaths = [((kind,), (b,)) for b in out[1] if b.dst_type == kind.dst_type]
            evidence += self._best(one, other, "shared", metapaths)
        evidence.sort(key=lambda path: -path["path_score"])
        stated = self._stated_facts(one, other)
        return {"stated_facts": stated, "evidence": evidence[:_MAX_SHARED]}

    def _drug_metapaths(self) -> Iterable[tuple[str, Metapath, Metapath]]:
        """Yield a kind of evidence, and metapaths from drug and disease to the same node type."""
        drug, disease = self._words.drug_type, self._words.disease_type
        for a, b in product(self._steps_from(drug), self._steps_from(disease)):
            if a.dst_type == b.dst_type:
                yield "mechanism", (a,), (b,)
            for c in self._kinds:
                if c.src_type != a.dst_type or c.dst_type in (drug, disease):
                    continue
                if c.dst_type == b.dst_type:
                    yield "mechanism", (a, c), (b,)
                same = EdgeType(b.dst_type, c.relation, c.dst_type)
                if same in self._kinds and a.dst_type == b.dst_type and c.dst_type != c.src_type:
                    yield "mechanism", (a, c), (b, same)
        for last in (kind for kind in self._kinds if kind.relation in self._words.treats):
            if (last.src_type, last.dst_type) == (disease, drug):
                yield from (("similar drug", a, (last,)) for a in self._to_same_type(drug))
            if (last.src_type, last.dst_type) == (drug, disease):
                yield from (("related disease", (last,), b) for b in self._to_same_type(disease))

    def _to_same_type(self, node_type: str) -> Iterable[Metapath]:
        """Yield the metapaths from a type to itself: a relation, or through a shared neighbor."""
        for kind in self._kinds:
            if kind.src_type == kind.dst_type == node_type:
                yield (kind,)
                if node_type == self._words.disease_type:
                    yield (kind, kind)
        for kind in self._steps_from(node_type):
            yield (kind, kind.reverse)

    def _steps_from(self, node_type: str) -> list[EdgeType]:
        """Return the edge types out of a type that may be part of the evidence for a drug."""
        kinds = steps_from(self._graph, node_type)
        return [k for k in kinds if k.relation not in _NEGATIVE and not self._is_side_effect(k)]

    def _is_side_effect(self, kind: EdgeType) -> bool:
        return kind.src_type == self._words.drug_type and kind.relation in SIDE_EFFECTS

    def _best(
        self, start: int, end: int, kind: str, metapaths: Iterable[tuple[Metapath, Metapath]]
    ) -> list[Explanation]:
        """Return the best paths along `metapaths`; two paths share only the start and the end."""
        found = []
        for a, b in metapaths:
            paths = join_paths(self._paths_from(start, a), self._paths_from(end, b), MAX_PATHS)
            found += [(score, nodes, (*a, *reverse_metapath(b))) for nodes, score in paths]
        found.sort(key=lambda one: (-one[0], one[1]))
        middles: set[int] = set()
        records: list[Explanation] = []
        for score, nodes, metapath in found:
            if middles.isdisjoint(nodes[1:-1]) and len(records) < MAX_PATHS:
                middles |= set(nodes[1:-1])
                records.append(self._record(kind, nodes, metapath, score))
        return records

    def _paths_from(self, start: int, metapath: Metapath) -> PathsFromNode:
        """Return all paths from a node along a metapath, and keep them for later questions."""
        # Not `functools.cache`, with which a model could not be pickled.
        asked = start, metapath
        if asked not in self._found:
            self._found[asked] = self._search.paths_from(start, metapath)
        return self._found[asked]

    def _record(
        self, kind: str, nodes: tuple[int, ...], metapath: Metapath, score: float
    ) -> Explanation:
        columns = ("node_index", "node_id", "node_name", "node_type")
        named = self._graph.nodes.select(columns)[list(nodes)].to_dicts()
        return {
            "kind": kind,
            "text": sentence(
                [row["node_name"] for row in named], [spoken(self._words, k) for k in metapath]
            ),
            "path_score": float(f"{score:.4g}"),
            "through_target": any(self._is_target(kind) for kind in metapath),
            "nodes": named,
            "relations": [k.relation for k in metapath],
        }

    def _is_target(self, kind: EdgeType) -> bool:
        return {kind.src_type, kind.dst_type} == {self._words.drug_type, self._words.gene_type}

    def _stated_facts(self, one: int, other: int) -> list[dict[str, Any]]:
        """Return one record for each edge between two nodes; its sentence has the subject `one`."""
        types = [str(self._graph.nodes["node_type"][node]) for node in (one, other)]
        names = [str(self._graph.nodes["node_name"][node]) for node in (one, other)]
        of_drug = set(types) == {self._words.drug_type, self._words.disease_type}
        facts = [
            {
                "text": sentence(names, [spoken(self._words, kind)]),
                "relation": kind.relation,
                "contraindicated": of_drug and kind.relation in self._words.contraindicates,
            }
            for kind in self._graph.edge_types
            if [kind.src_type, kind.dst_type] == types
            and other in self._search.paths_from(one, (kind,)).ends
        ]
        return sorted(facts, key=lambda fact: not fact["contraindicated"])
