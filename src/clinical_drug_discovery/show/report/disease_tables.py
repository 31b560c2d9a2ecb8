"""The record of a disease as tables for spreadsheets: evidence in columns, facts in rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ...ranking.evidence.explanations import KINDS, MAX_PATHS
from .tables import Cell, Table

_DRUG = (
    "rank", "drug_name", "drug_id", "probability", "probability_treats", "score", "known",
    "contraindicated", "stated", "rank_without_popularity", "strongest",
)  # fmt: skip
_EVIDENCE = tuple(f"{kind} {i}" for kind in KINDS for i in range(1, MAX_PATHS + 1))


def ranked_table(record: Mapping[str, Any]) -> Table:
    """Return the ranked drugs; each path of the evidence has a column."""
    columns = ("disease_name", *_DRUG, "identifiers", "treats", "in_the_graph", *_EVIDENCE)
    disease = record["disease"]["name"]
    rows = tuple((disease, *_row(drug)) for drug in record["drugs"])
    return Table("ranked drugs", f"Drugs for {disease}", columns, rows)


def _row(drug: Mapping[str, Any]) -> list[Cell]:
    texts = dict.fromkeys(_EVIDENCE, "")
    for kind, paths in groupby(drug["evidence"], key=lambda path: path["kind"]):
        texts |= {f"{kind} {i}": path["text"] for i, path in enumerate(paths, start=1)}
    return [
        *(drug[name] for name in _DRUG),
        _links(drug),
        "; ".join(drug["treats"]) + ("; ..." if drug["num_treats"] > len(drug["treats"]) else ""),
        "; ".join(fact["text"] for fact in drug["stated_facts"]),
        *texts.values(),
    ]


def fact_table(record: Mapping[str, Any]) -> Table:
    """Return what the graph knows about the disease, one fact a row."""
    rows: list[tuple[Cell, ...]] = [
        (drug["stated"], drug["name"], drug["type"], _links(drug), drug["rank"])
        for drug in {
            d["drug_index"]: d for d in record["known"] + record["contraindicated"]
        }.values()
    ]
    for group in record["groups"]:
        rows += [
            (group["relation"], node["name"], node["type"], _links(node), None)
            for node in group["nodes"]
        ]
    columns = ("relation", "name", "type", "identifiers", "rank_among_all_drugs")
    return Table("facts", f"Facts about {record['disease']['name']}", columns, tuple(rows))


def origin_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return how the report was made."""
    return Table("how it was made", "How it was made", ("name", "value"), tuple(rows))


def _links(node: Mapping[str, Any]) -> str:
    return "; ".join(link["text"] for link in node["links"])
