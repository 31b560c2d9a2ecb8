"""An outside list of drug-disease pairs: read it, find its nodes, and build the ranking task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date as calendar_date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import NodeIndex, Synonym
from ..graph.synonyms import table_rows
from ..ranking.treatments import Pairs, pairs_of
from ..system.errors import InputError, counted
from .gnn_scores import Scores
from .metrics import Metrics, bootstrap_interval
from .split import RankingTask

APPROVED = "approved"
LABELS = (APPROVED, "failed", "contraindicated")  #: "approved" is that of a file without labels
_COLUMNS = ("drug_id", "drug_name", "disease_id", "disease_name", "date", "label")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")


class GoldRow(NamedTuple):
    """One row of the list; absent fields are empty."""

    row: int  #: the header is row 1
    drug_id: str
    drug_name: str
    disease_id: str
    disease_name: str
    date: str  #: such as 2015-06-30
    label: str


class GoldTask(NamedTuple):
    """The pairs to rank, and the pairs to compare with them."""

    task: RankingTask
    pairs: Pairs  #: the ranked pairs, in the order of the task
    others: dict[str, tuple[IntArray, IntArray]]  #: by label: row and column in the task's scores


def read_gold(path: Path) -> list[GoldRow]:
    """Read a list of pairs.

    Args:
        path: .csv or .tsv in UTF-8 with a header: drug_id or drug_name (or both), disease_id or
            disease_name (or both), and if wanted date and label. Other columns are ignored.

    Raises:
        InputError: the file or a row is invalid.
    """
    rows = table_rows("gold", path)
    _, header = next(rows, (1, []))
    repeated = [name for name in _COLUMNS if header.count(name) > 1]
    has_nodes = all({f"{kind}_id", f"{kind}_name"} & set(header) for kind in ("drug", "disease"))
    if repeated or not has_nodes:
        raise InputError(
            f"gold (got {path}) must have a header with drug_id or drug_name, and with disease_id "
            "or disease_name, each once; the header has "
            f"{', '.join(map(repr, header)) or 'no columns'}"
        )
    found = []
    for row, fields in rows:
        where = f"gold, row {row} of {path}"
        if len(fields) != len(header):
            raise InputError(
                f"{where}: {counted(len(fields), 'field')}, but the header has {len(header)}"
            )
        given = dict(zip(header, fields, strict=True))
        drug_id, drug_name, disease_id, disease_name, date, label = (
            given.get(name, "") for name in _COLUMNS
        )
        if not (drug_id or drug_name) or not (disease_id or disease_name):
            raise InputError(f"{where}: the drug and the disease need an id or a name")
        if "label" in header and label not in LABELS:
            raise InputError(f"{where}: label (got {label!r}) must be one of {', '.join(LABELS)}")
        day = parse_date(f"{where}: date", date) if date else ""
        found.append(
            GoldRow(row, drug_id, drug_name, disease_id, disease_name, day, label or APPROVED)
        )
    if not found:
        raise InputError(f"gold (got {path}) must have at least one row below the header")
    return found


def parse_date(name: str, text: str) -> str:
    """Return a date as YYYY-MM-DD; a year or a month stands for its first day.

    Raises:
        InputError: the text is not such a date; the message starts with `name`.
    """
    match = _DATE.fullmatch(text)
    try:
        assert match is not None
        return calendar_date(*(int(part or 1) for part in match.groups())).isoformat()
    except (AssertionError, ValueError):
        raise InputError(
            f"{name} (got {text!r}) must be a date such as 2015, 2015-06 or 2015-06-30"
        ) from None


def match_gold(
    graph: KnowledgeGraph,
    rows: Sequence[GoldRow],
    *,
    since: str | None = None,
    synonyms: Sequence[Synonym] = (),
) -> pl.DataFrame:
    """Find the nodes of each row, and decide what happens to the row.

    A node is found by its id or, if the id is empty or not in the graph, by its name.

    Args:
        graph: the graph of the model, on the CPU.
        rows: the list.
        since: date as YYYY-MM-DD; earlier pairs are not ranked. A pair of several rows counts with
            its first date.
        synonyms: other names of nodes.

    Returns:
        One record per row: the fields of `GoldRow`; `drug_node` and `disease_node`, node numbers or
        None; `outcome`; and `reason`. The outcomes are: ranked (approved); compared (not approved,
        with the ranked drugs of the disease); alone (not approved, and no drug of the disease is
        ranked); known (the graph lists the pair as a treatment); earlier (before since); no date
        (since is given); duplicate (of an earlier row); conflict (rows of the pair have different
        labels); not found (the graph lacks the drug or the disease, or the name is ambiguous).

    Raises:
        InputError: since is given, but no row has a date.
    """
    if since is not None and not any(row.date for row in rows):
        raise InputError(f"since (got {since!r}) needs dates in the column date of gold")
    words = graph.vocabulary
    drugs, diseases = (
        NodeIndex(graph.nodes, type=kind, synonyms=synonyms)
        for kind in (words.drug_type, words.disease_type)
    )
    known = pairs_of(graph)
    listed = set(zip(known.drug.tolist(), known.disease.tolist(), strict=True))
    by_pair: dict[tuple[int, int], list[GoldRow]] = {}
    found = []
    for row in rows:
        drug, why_drug = _find(drugs, "drug", row.drug_id, row.drug_name)
        disease, why_disease = _find(diseases, "disease", row.disease_id, row.disease_name)
        found.append((drug, disease, "; ".join(filter(None, (why_drug, why_disease)))))
        if drug is not None and disease is not None:
            by_pair.setdefault((drug, disease), []).append(row)
    records = []
    for row, (drug, disease, reason) in zip(rows, found, strict=True):
        outcome = "not found"
        if drug is not None and disease is not None:
            same, is_known = by_pair[drug, disease], (drug, disease) in listed
            outcome, reason = _outcome(row, same, is_known, since)
        nodes = {"drug_node": drug, "disease_node": disease}
        records.append({**row._asdict(), **nodes, "outcome": outcome, "reason": reason})
    integers = dict.fromkeys(("drug_node", "disease_node"), pl.Int64)
    table = pl.DataFrame(records, schema_overrides=integers, infer_schema_length=None)
    ranked = table.filter(outcome="ranked")["disease_node"].unique().to_list()
    alone = (pl.col("outcome") == "compared") & ~pl.col("disease_node").is_in(ranked)
    return table.with_columns(
        outcome=pl.when(alone).then(pl.lit("alone")).otherwise("outcome"),
        reason=pl.when(alone).then(pl.lit("no drug of the disease is ranked")).otherwise("reason"),
    )


def _find(index: NodeIndex, kind: str, id_: str, name: str) -> tuple[int | None, str]:
    """Return the node of an id or a name; or None, and the reason."""
    reason = ""
    if id_:
        rows = index.rows_of_identifier(id_)
        if len(rows) == 1:
            return rows[0], ""
        fits = f"fits {index.choices(rows)}" if rows else f"is not the id of a {kind} in the graph"
        reason = f"{kind}_id {id_!r} {fits}"
        if rows or not name:
            return None, reason
    try:
        return index.find(name, parameter=f"{kind}_name"), ""
    except InputError as error:
        return None, "; ".join(filter(None, (reason, str(error))))


def _outcome(
    row: GoldRow, same: Sequence[GoldRow], is_known: bool, since: str | None
) -> tuple[str, str]:
    """Return the outcome of a row whose nodes were found, and the reason.

    Args:
        row: the row.
        same: all rows with the same pair, in the order of the file.
        is_known: the graph lists the pair as a treatment.
        since: see `match_gold`.
    """
    labels = sorted({one.label for one in same})
    dates = sorted(one.date for one in same if one.date)
    if len(labels) > 1:
        return "conflict", f"rows of this pair have the labels {' and '.join(labels)}"
    if row is not same[0]:
        return "duplicate", f"row {same[0].row} has the same pair"
    if is_known:
        return "known", "the graph lists the pair as a treatment"
    if since is not None and not dates:
        return "no date", "since needs a date"
    if since is not None and dates[0] < since:
        return "earlier", f"{dates[0]} is before {since}"
    return ("ranked" if row.label == APPROVED else "compared"), ""


def gold_task(graph: KnowledgeGraph, table: pl.DataFrame) -> GoldTask:
    """Return the task of ranking the pairs with the outcome "ranked".

    A pair is ranked without the other drugs of the disease that the graph or the list knows as
    treatments, also earlier ones and those with conflicting labels.

    Args:
        graph: the graph of the model, on the CPU; it does not list the ranked pairs.
        table: result of `match_gold`.

    Raises:
        InputError: no pair can be ranked.
    """
    words = graph.vocabulary
    first, stop = node_range_of(graph, words.drug_type)
    ranked = table.filter(outcome="ranked").sort("disease_node", "drug_node")
    if not ranked.height:
        counts = dict(table["outcome"].value_counts(sort=True).iter_rows())
        shown = ", ".join(f"{name}: {number}" for name, number in counts.items())
        raise InputError(
            f"gold must hold an approved pair to rank; outcomes of its rows are {shown}"
        )
    pairs = Pairs(ranked["drug_node"].to_numpy(), ranked["disease_node"].to_numpy())
    diseases = pairs.diseases
    helpful = (pl.col("label") == APPROVED) | (pl.col("outcome") == "conflict")
    listed = table.filter(helpful & pl.col("drug_node").is_not_null())
    of_graph = pairs_of(graph)
    known = np.zeros((len(diseases), stop - first), bool)
    for drug, disease in (
        (of_graph.drug, of_graph.disease),
        (listed["drug_node"].to_numpy(), listed["disease_node"].fill_null(-1).to_numpy()),
    ):
        chosen = np.isin(disease, diseases)
        known[np.searchsorted(diseases, disease[chosen]), drug[chosen] - first] = True
    task = RankingTask(
        diseases, known, np.searchsorted(diseases, pairs.disease), pairs.drug - first
    )
    others: dict[str, tuple[IntArray, IntArray]] = {}
    for label in LABELS[1:]:
        rows = table.filter(outcome="compared", label=label)
        row = np.searchsorted(diseases, rows["disease_node"].to_numpy())
        others[label] = row, rows["drug_node"].to_numpy() - first
    return GoldTask(task, pairs, others)


def gold_counts(graph: KnowledgeGraph, table: pl.DataFrame, task: GoldTask) -> dict[str, Any]:
    """Return the entries of a report about the sizes of the graph, the list and the task."""
    first, stop = node_range_of(graph, graph.vocabulary.drug_type)
    return {
        "num_nodes": graph.num_nodes,
        "num_edges": graph.num_edges,
        "num_candidates": stop - first,
        "num_rows": table.height,
        "outcomes": dict(table["outcome"].value_counts(sort=True).iter_rows()),
        "num_ranked_pairs": len(task.pairs),
        "num_ranked_diseases": len(task.task.diseases),
    }


def outcome_table(graph: KnowledgeGraph, table: pl.DataFrame) -> pl.DataFrame:
    """Return the result of `match_gold` for a file: names and indices instead of node numbers."""
    nodes = graph.nodes.with_row_index("node").with_columns(pl.col("node").cast(pl.Int64))
    for kind in ("drug", "disease"):
        of_kind = nodes.select(
            pl.col("node").alias(f"{kind}_node"),
            pl.col("node_index").alias(f"{kind}_index"),
            pl.col("node_name").alias(f"found_{kind}"),
        )
        table = table.join(of_kind, on=f"{kind}_node", how="left", maintain_order="left")
    return table.drop("drug_node", "disease_node").select(
        pl.exclude("outcome", "reason"), "outcome", "reason"
    )


def above_metrics(
    label: str, scores: Scores, task: RankingTask, row: IntArray, column: IntArray, *, seed: int = 0
) -> Metrics:
    """Return how often a ranked drug scores higher than a drug with another label.

    Args:
        label: label of the other drugs, such as failed.
        scores: shape (n, M), scores of all drugs for the diseases of the task.
        task: the diseases and their ranked pairs.
        row: shape (K,), position in `task.diseases` of the disease of each other pair.
        column: shape (K,), drug of each other pair.
        seed: seed of the bootstrap over diseases.

    Returns:
        `approved_above_<label>`: fraction of the comparisons of a ranked and another drug of one
        disease in which the ranked drug scores higher (ties count half), with its interval; None
        without comparisons. `num_comparisons_<label>` is their number.
    """
    values, diseases = [np.zeros(0)], [np.zeros(0, np.int64)]
    for i in np.intersect1d(row, task.row).tolist():
        ranked = scores[i, task.candidate[task.row == i]]
        difference = ranked[:, None] - scores[i, column[row == i]]
        values.append(((difference > 0) + (difference == 0) / 2).ravel())
        diseases.append(np.full(difference.size, i))
    won, disease = np.concatenate(values), np.concatenate(diseases)
    name, figures = f"approved_above_{label}", (None, None, None)
    found: Metrics = dict(zip((name, f"{name}_low", f"{name}_high"), figures, strict=True))
    if len(won):
        low, high = bootstrap_interval(won, disease, seed=seed)
        found = {name: float(won.mean()), f"{name}_low": low, f"{name}_high": high}
    return {**found, f"num_comparisons_{label}": len(won)}
