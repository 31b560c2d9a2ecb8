"""Answer the questions of the page as records that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ...api.explanations import STATED
from ...graph.knowledge_graph import EdgeType, IntArray, node_range_of
from ...lib._run.ranked_list import ListRules
from ...ranking.evidence.explanations import NO_DIRECTION
from ...system.log import part
from ..report.links import links_of
from ..report.write import write_report
from .open_model import OpenModel

_ALL = 2**31  # more rows than any list has
_KEPT_LISTS = 16  # whole lists that are kept; one of 8,000 drugs takes about 1 MB
_LINKS = 6  # identifiers of a group of diseases that are shown
_FACTS = 12  # neighbors of a relation that a node's page shows at first


class Choice(NamedTuple):
    """The choices above a ranked list."""

    include_known: bool = False
    hide_contraindicated: bool = False
    popularity: bool = True


class Answers:
    """The questions about one model."""

    def __init__(self, opened: OpenModel) -> None:
        self.opened = opened
        self._drugs = lru_cache(_KEPT_LISTS)(self._rank_drugs)
        self._diseases = lru_cache(_KEPT_LISTS)(self._rank_diseases)

    def home(self) -> dict[str, Any]:
        """Return the size of the graph, and nodes to begin with."""
        graph, words = self.opened.graph, self.opened.graph.vocabulary
        treated = self.opened.most_treated(8)
        diseases = self.opened.describe([row for row, _ in treated])
        return {
            "no_ranks": self.opened.no_ranks,
            "nodes": graph.num_nodes,
            "facts": graph.num_edges // 2,
            "counts": {
                name: stop - first
                for name, (first, stop) in zip(
                    graph.node_type_names,
                    map(graph.node_range, range(len(graph.node_type_names))),
                    strict=True,
                )
            },
            "drug_type": words.drug_type,
            "disease_type": words.disease_type,
            "contraindications": self._lists_contraindications(),
            "diseases": [
                node | {"treatments": count}
                for node, (_, count) in zip(diseases, treated, strict=True)
            ],
            "drugs": self.opened.best_known(words.drug_type, 8),
        }

    def _lists_contraindications(self) -> bool:
        kinds = zip(self.opened.graph.edge_types, self.opened.graph.edge_type_counts, strict=True)
        return any(count and self._harms(kind) for kind, count in kinds)

    def search(self, text: str, types: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the nodes that a text may mean, each with the synonym that fits."""
        found = self.opened.suggest(text, types)
        records = self.opened.describe(self.opened.rows([one.node for one in found]))
        return [
            record | {"synonym": one.synonym} for record, one in zip(records, found, strict=True)
        ]

    def node(self, number: int) -> dict[str, Any]:
        """Return a node and its facts by relation; the neighbors with the nearest embeddings first.

        Each relation has a few neighbors. `facts` returns the others. While the model is pending,
        "nearest" is false, and the neighbors are in the order of the graph.
        """
        row, nearest = self.opened.row(number), self.opened.is_ready
        groups = [
            {
                "relation": kind.relation,
                "type": kind.dst_type,
                "phrase": self.opened.phrase(kind),
                "count": len(others),
                "nodes": self.opened.describe(self._in_order(row, others, nearest)[:_FACTS]),
            }
            for kind, others in self.opened.facts_of(row).items()
        ]
        links = links_of(self.opened.graph.nodes.row(row, named=True))[:_LINKS]
        described = self.opened.describe([row])[0]
        return {**described, "links": links, "groups": groups, "nearest": nearest}

    def facts(
        self,
        number: int,
        relation: str,
        node_type: str,
        start: int,
        stop: int,
        *,
        nearest: bool = True,
    ) -> list[dict[str, Any]]:
        """Return some of the neighbors of a node by one relation.

        Args:
            number: node_index of the node.
            relation: name of the relation.
            node_type: node type of the neighbors.
            start: place of the first neighbor to return.
            stop: place after the last one.
            nearest: as `node` has told; the order is the same as there.
        """
        row = self.opened.row(number)
        kind = EdgeType(self.opened.type_of(row), relation, node_type)
        others = self.opened.facts_of(row).get(kind, np.empty(0, np.int64))
        return self.opened.describe(self._in_order(row, others, nearest)[start:stop])

    def _in_order(self, row: int, others: IntArray, nearest: bool) -> IntArray:
        return self.opened.nearest_first(row, others) if nearest else others

    def drugs(self, disease: int, top: int, choice: Choice) -> dict[str, Any]:
        """Return the best drugs for a disease, and how many there are in all."""
        table = self._drugs(self.opened.row(disease), choice)
        return _listed(table, "drug", top)

    def diseases(self, drug: int, top: int, choice: Choice) -> dict[str, Any]:
        """Return the best diseases for a drug, and how many there are in all."""
        row = self.opened.row(drug)
        listed = _listed(self._diseases(row, top, choice), "disease", top)
        return listed | {"total": self._num_diseases(row, choice)}

    def table(self, node: int, top: int, choice: Choice) -> pl.DataFrame:
        """Return the ranked list of a drug or a disease, in the columns of `Model.rank`."""
        row = self.opened.row(node)
        if self.opened.type_of(row) == self.opened.graph.vocabulary.drug_type:
            return self._diseases(row, top, choice)
        return self._drugs(row, choice)[:top]

    def report(self, disease: int, suffix: str, top: int, choice: Choice) -> bytes:
        """Return the report about the drugs for a disease; see `write_report`.

        Args:
            disease: node_index of the disease.
            suffix: ".html" or ".xlsx".
            top: largest number of drugs.
            choice: the choices above the list.

        Raises:
            InputError: a package that writes such a report is not installed.
        """
        query = self.opened.query(self.opened.row(disease))
        with TemporaryDirectory() as directory:
            path = Path(directory) / f"report{suffix}"
            write_report(
                path, model_dir=self.opened.model, disease=query, top=top, **choice._asdict()
            )
            return path.read_bytes()

    def prepare_report(self) -> None:
        """Compute what all reports share, by short reports."""
        if not self.opened.no_ranks:
            with part("Preparing the reports"):
                for row, _ in self.opened.most_treated(1):
                    number = int(self.opened.graph.nodes["node_index"][row])
                    for suffix in (".html", ".xlsx"):
                        self.report(number, suffix, 1, Choice())

    def why(self, drug: int, disease: int, choice: Choice) -> dict[str, Any]:
        """Return what speaks for a drug in a disease: facts, sentences, and a network of both.

        The rank and the probability are those of the list of the disease. A drug that this list
        hides has those of the list of all drugs.
        """
        opened, words = self.opened, self.opened.graph.vocabulary
        rows = opened.rows([drug, disease])
        table = opened.model.explain(*map(opened.query, rows)).to_dicts()
        ranked = self._drugs(rows[1], choice)
        if drug not in ranked["drug_index"]:  # hidden in the list
            choice = choice._replace(include_known=True, hide_contraindicated=False)
            ranked = self._drugs(rows[1], choice)
        listed = ranked.filter(pl.col("drug_index") == drug).to_dicts()
        fields = ("rank", "probability", "known", "contraindicated", "stated")
        return {
            "drug": opened.describe(rows[:1])[0],
            "disease": opened.describe(rows[1:])[0],
            "listed": {name: listed[0][name] for name in fields} if listed else None,
            "candidates": ranked.height,
            "stated": [
                {
                    "harms": one["relations"][0] in words.contraindicates,
                    "pieces": pieces(one["text"], one["nodes"]),
                }
                for one in table
                if one["kind"] == STATED
            ],
            "evidence": [
                {
                    "kind": one["kind"],
                    "effect": one["effect"],
                    "path_score": one["path_score"],
                    "pieces": pieces(one["text"], one["nodes"]),
                }
                for one in table
                if one["kind"] != STATED
            ],
            "note": NO_DIRECTION if any(one["through_target"] for one in table) else "",
            "network": self._network(table, drug, disease),
        }

    def similar(self, number: int, node_type: str, top: int) -> list[dict[str, Any]]:
        """Return the nodes of a type with the most similar embeddings."""
        opened = self.opened
        query = opened.query(opened.row(number))
        found = opened.model.similar(query, top, type=node_type).to_dicts()
        records = opened.describe(opened.rows([one["node_index"] for one in found]))
        fields = ("rank", "cosine", "stated", "contraindicated")
        return [
            record | {name: one[name] for name in fields}
            for record, one in zip(records, found, strict=True)
        ]

    def neighbors(self, number: int, shown: Sequence[int], limit: int) -> dict[str, Any]:
        """Return neighbors of a node that a network does not show yet, and all new edges.

        Among many neighbors, those with the most similar embeddings are taken, or the first ones
        while the model is pending.

        Args:
            number: node_index of the node.
            shown: node_index of each node in the network.
            limit: largest number of new nodes.
        """
        opened = self.opened
        row, known = opened.row(number), opened.rows(shown)
        found = [np.empty(0, np.int64), *opened.facts_of(row).values()]
        others = np.setdiff1d(np.concatenate(found), [row, *known])
        others = self._in_order(row, others, opened.is_ready)[:limit]
        inside = np.array([*known, *others.tolist()], np.int64)
        edges: dict[tuple[int, int], dict[str, Any]] = {}
        for new in [row, *others.tolist()]:
            for kind, ends in opened.facts_of(new).items():
                for end in np.intersect1d(ends, inside).tolist():
                    if (end, new) not in edges and end != new:
                        edges.setdefault((new, end), self._edge(new, end, kind))
        return {"nodes": opened.describe(others), "edges": list(edges.values())}

    def _edge(self, source: int, target: int, kind: EdgeType) -> dict[str, Any]:
        numbers = self.opened.graph.nodes["node_index"]
        return {
            "source": numbers[source],
            "target": numbers[target],
            "phrase": self.opened.phrase(kind),
            "harms": self._harms(kind),
        }

    def _harms(self, kind: EdgeType) -> bool:
        words = self.opened.graph.vocabulary
        ends = {kind.src_type, kind.dst_type}
        return ends == {words.drug_type, words.disease_type} and (
            kind.relation in words.contraindicates
        )

    def _network(self, table: list[dict[str, Any]], drug: int, disease: int) -> dict[str, Any]:
        """Return the nodes and edges of all paths; `place` is 0 at the drug, 1 at the disease."""
        places: dict[int, list[float]] = {drug: [0.0], disease: [1.0]}
        edges: dict[tuple[int, int], dict[str, Any]] = {}
        for one in table:
            nodes = one["nodes"]
            for at, node in enumerate(nodes[1:-1], start=1):
                places.setdefault(node["node_index"], []).append(at / (len(nodes) - 1))
            rows = self.opened.rows([node["node_index"] for node in nodes])
            for i, relation in enumerate(one["relations"]):
                ends = rows[i], rows[i + 1]
                kind = EdgeType(nodes[i]["node_type"], relation, nodes[i + 1]["node_type"])
                if ends[::-1] not in edges:
                    edges.setdefault(ends, self._edge(*ends, kind))
        described = self.opened.describe(self.opened.rows(list(places)))
        return {
            "nodes": [
                node | {"place": sum(own) / len(own)}
                for node, own in zip(described, places.values(), strict=True)
            ],
            "edges": list(edges.values()),
        }

    def _rank_drugs(self, disease: int, choice: Choice) -> pl.DataFrame:
        return self.opened.model.rank(self.opened.query(disease), _ALL, **choice._asdict())

    def _rank_diseases(self, drug: int, top: int, choice: Choice) -> pl.DataFrame:
        """Return the best diseases; each further row costs time, so `top` is not all of them."""
        return self.opened.model.rank_diseases(self.opened.query(drug), top, **choice._asdict())

    def _num_diseases(self, drug: int, choice: Choice) -> int:
        """Return the number of diseases that a list of a drug could have."""
        ranking, graph = self.opened.model.ranking, self.opened.graph
        own = [drug - node_range_of(graph, graph.vocabulary.drug_type)[0]]
        known, harmful = (
            matrix[own].toarray()[0] > 0
            for matrix in (ranking.features.known, ranking.contraindicated)
        )
        rules = ListRules(1, choice.include_known, choice.hide_contraindicated)
        return int(rules.shown(ranking.disease_has_facts, known, harmful)[0].sum())


def pieces(text: str, nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut a sentence about a path into words and nodes, so that the page can link the nodes.

    Args:
        text: the sentence; it names the nodes in the order of the path.
        nodes: with node_index, node_name and node_type.

    Returns:
        Records with text, and for a node also node and type.

    Example:
        >>> path = [{"node_index": 7, "node_name": "Aspirin", "node_type": "drug"}]
        >>> pieces("Aspirin binds it", path)[1]
        {'text': ' binds it'}
    """
    found: list[dict[str, Any]] = []
    for node in nodes:
        before, name, after = text.partition(node["node_name"])
        if not name:
            break
        found += [{"text": before}] if before else []
        found.append({"text": name, "node": node["node_index"], "type": node["node_type"]})
        text = after
    return [*found, {"text": text}] if text else found


def _listed(table: pl.DataFrame, one: str, top: int) -> dict[str, Any]:
    fields = ("rank", "score", "probability", "known", "contraindicated", "stated")
    names = {f"{one}_index": "node", f"{one}_id": "id", f"{one}_name": "name"}
    rows = table[:top].select(*fields, *names).rename(names).to_dicts()
    return {"rows": rows, "total": table.height}
