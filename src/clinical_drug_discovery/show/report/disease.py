"""The report about one disease: what the graph knows, and the ranked drugs with their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...api.model import Model
from ...evaluation.folds import graph_fingerprint
from ...graph.identifiers import shown_identifier
from ...graph.knowledge_graph import node_range_of
from ...graph.node_lookup import Synonym
from ...lib._run.ranked_list import ListRules, Ranking
from ...ranking.evidence.explanations import notes_on
from ...system.errors import InputError
from .confidence import LeftOut, fold_tables, left_out_tables, rank_left_out
from .evaluation import Evaluation, evaluation_tables, refusing_damage
from .facts import describe, groups_of, node_numbers, treated_by
from .pictures import reliability_svg

_SIMILAR = 10  # diseases with similar embeddings to list
_TREATED = 8  # diseases of a drug to name
_Record = dict[str, Any]
# The same for all reports of a model: kept, because it takes seconds on PrimeKG.
_LEFT_OUT: WeakKeyDictionary[Model, dict[bool, LeftOut]] = WeakKeyDictionary()


def disease_record(
    model: Model,
    disease: str,
    rules: ListRules,
    *,
    popularity: bool = True,
    synonyms: Sequence[Synonym] = (),
    evaluation: Evaluation | None = None,
) -> _Record:
    """Return everything that a report about a disease says, as plain values and tables.

    Args:
        model: with a drug ranker.
        disease: name or identifier.
        rules: which drugs are listed.
        popularity: see `Model.rank`.
        synonyms: other names of nodes.
        evaluation: on the same graph, for its figures.

    Raises:
        InputError: see `Model.rank`; or the evaluation is damaged.
    """
    ranking = replace(model.ranking, popularity=popularity)
    graph, words = model.graph, model.graph.vocabulary
    if synonyms:
        ranking = ranking.with_synonyms(synonyms)
    at = ranking.find("disease", disease)
    node = node_range_of(graph, words.disease_type)[0] + at
    found, counts = ranking.drugs_for(np.array([at]), rules)
    rows = ranking.explain(found.to_dicts())
    listed = _listed_drugs(ranking, at)
    known = [drug for drug in listed if drug["known"]]
    tables, figures = left_out_tables(_left_out(model, ranking), len(known))
    blend = ranking.ranker.with_known if known else ranking.ranker.without_known
    curve = blend.calibration if popularity else blend.without_popularity
    return {
        "disease": {**describe(graph, node), "num_facts": int(graph.degree[node])},
        "known": known,
        "contraindicated": [drug for drug in listed if drug["contraindicated"]],
        "groups": groups_of(graph, node, without=words.drug_type),
        "similar": _similar_diseases(model, ranking, node),
        "drugs": _ranked_drugs(ranking, node, rows),
        "notes": notes_on(rows),
        "num_candidates": int(ranking.candidates.sum()),
        "num_without_facts": int((~ranking.drug_has_facts).sum()),
        "num_known_hidden": counts["num_known_hidden"],
        "num_contraindicated_hidden": counts["num_contraindicated_hidden"],
        "popularity": popularity,
        "has_contraindications": bool(ranking.contraindicated.nnz),
        "vocabulary": words.describe({*graph.node_type_names, *graph.relations}),
        "left_out": {**figures, "tables": tables},
        "recorded_share": curve.recorded_share,
        "folds": None if evaluation is None else _folds(evaluation, len(known)),
    }


def _left_out(model: Model, ranking: Ranking) -> LeftOut:
    """Return where known drugs stood that a part of the ranker did not know."""
    if model not in _LEFT_OUT:
        _LEFT_OUT[model] = rank_left_out(ranking)
    return _LEFT_OUT[model][ranking.popularity]


def check_same_graph(model: Model, evaluation: Evaluation) -> None:
    """Check that an evaluation is of the graph of a model.

    Raises:
        InputError: it is of another graph.
    """
    of_evaluation, of_model = evaluation.report.get("graph"), graph_fingerprint(model.graph)
    if of_evaluation != of_model:
        shown = "an unknown graph" if of_evaluation is None else f"graph {of_evaluation}"
        raise InputError(
            f"evaluation (got {evaluation.directory}) is of {shown}, but the model is of graph "
            f"{of_model}: evaluate on the graph of the model"
        )


def _folds(evaluation: Evaluation, num_known: int) -> _Record:
    """Return what an evaluation has ranked, and how well."""
    with refusing_damage(evaluation):
        headline, _ = evaluation_tables(evaluation)
        return {
            "headline": headline,
            "tables": fold_tables(evaluation.ranks, num_known),
            "picture": reliability_svg(evaluation.report),
        }


def _listed_drugs(ranking: Ranking, disease: int) -> list[_Record]:
    """Return the known and the contraindicated drugs of a disease, with ranks among all drugs."""
    everything = ListRules(ranking.drugs.height, include_known=True)
    table, _ = ranking.drugs_for(np.array([disease]), everything)
    number = node_numbers(ranking.graph)
    rows = table.filter(table["known"] | table["contraindicated"]).to_dicts()
    return [row | describe(ranking.graph, number[row["drug_index"]]) for row in rows]


def _effect(path: _Record) -> float:
    return float(path["effect"])


def _kind(path: _Record) -> str:
    return str(path["kind"])


def _similar_diseases(model: Model, ranking: Ranking, node: int) -> list[_Record]:
    """Return the diseases with the most similar embeddings, and the numbers of their drugs."""
    graph, number = model.graph, node_numbers(model.graph)
    first = node_range_of(graph, graph.vocabulary.disease_type)[0]
    row = graph.nodes.row(node, named=True)
    shown = shown_identifier(row["node_id"], row["node_source"], row["node_type"])
    found = []
    for near in model.similar(shown, _SIMILAR).iter_rows(named=True):
        other = number[near["node_index"]]
        found.append(
            {
                **describe(graph, other),
                "cosine": near["cosine"],
                "num_known": ranking.features.num_known(other - first),
            }
        )
    return found


def _ranked_drugs(ranking: Ranking, disease: int, rows: list[_Record]) -> list[_Record]:
    """Return ranked drugs, with links for them and for the nodes of their evidence."""
    graph, number = ranking.graph, node_numbers(ranking.graph)
    found = []
    for row in rows:
        node = number[row["drug_index"]]
        treats = treated_by(graph, node)
        evidence = [
            {
                **path,
                "raw_nodes": path["nodes"],
                "nodes": [describe(graph, number[n["node_index"]]) for n in path["nodes"]],
            }
            for path in row["evidence"]
        ]
        best = max(evidence, key=_effect) if evidence else {}
        found.append(
            {
                **row,
                **describe(graph, node),
                "treats": treats[:_TREATED],
                "num_treats": len(treats),
                "evidence": evidence,
                "strongest": best.get("text", ""),
                "strongest_has_direction": not best.get("through_target", False),
                "ends": graph.nodes[[node, disease]].to_dicts(),
                "kinds": [(kind, list(paths)) for kind, paths in groupby(evidence, _kind)],
            }
        )
    return found
