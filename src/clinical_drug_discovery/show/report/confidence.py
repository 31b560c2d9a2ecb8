"""Trust in a ranking: the ranks of treatments that the ranker did not know."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ...evaluation.measures.strata import STRATA, stratum_name
from ...evaluation.metrics import filtered_ranks
from ...graph.knowledge_graph import IntArray
from ...lib._run.ranked_list import Ranking
from ...ranking.path_scores import Form
from ...ranking.treatments import mask_of
from ...system.processes import let_others
from .tables import Cell, Share, Table

_MOST_ASKED = 128  # left-out diseases of each MLP
_CHUNK = 32  # diseases of a step, after which other questions are answered
_BANDS = (0, 5, 10, 25, 50, 100)  # ranks above which a band starts
_WITHIN = (10, 50, 100)
RANKER = "ranker"  #: the name of the drug ranker in an evaluation
_STRATA = STRATA["drugs_of_disease"]
_Ranks = npt.NDArray[np.float64]


class LeftOut(NamedTuple):
    """Where recorded treatments stood that a part of the ranker did not know."""

    hits: IntArray  #: recorded treatments in each band of ranks, if all of a disease are hidden
    ranks: dict[str, _Ranks]  #: rank of each treatment, by the number of other known drugs
    num_diseases: int


class _Lists(NamedTuple):
    """The scores of all drugs for n diseases, each array of shape (n, drugs)."""

    all_hidden: npt.NDArray[Any]  #: scores if all known drugs are hidden
    one_hidden: npt.NDArray[Any]  #: scores if each known drug is hidden alone
    known: npt.NDArray[np.bool_]


def rank_left_out(ranking: Ranking) -> dict[bool, LeftOut]:
    """Rank the known drugs of diseases that a part of the ranker was not trained on.

    Each MLP of the ranker leaves a quarter of the treated diseases out of its training. It ranks
    all drugs for up to 128 of these diseases as if it did not know their treatments. This takes
    about 30 ms a disease on PrimeKG.

    Args:
        ranking: a graph with the ranker.

    Returns:
        The ranks without (False) and with (True) the popularity of drugs.
    """
    lists: dict[bool, list[_Lists]] = {False: [], True: []}
    for popularity, some in _left_out_scores(ranking):
        lists[popularity].append(some)
    return {popularity: _counted(some) for popularity, some in lists.items()}


def _counted(lists: list[_Lists]) -> LeftOut:
    hits, num_diseases = np.zeros(len(_BANDS) - 1, np.int64), 0
    parts: dict[str, list[_Ranks]] = {_name(bounds): [np.zeros(0)] for bounds in _STRATA}
    nothing, *more = _STRATA
    for all_hidden, one_hidden, known in lists:
        num_diseases += len(known)
        order = np.argsort(-all_hidden, axis=1, kind="stable")
        at_rank = np.take_along_axis(known, order, axis=1)
        hits += [int(at_rank[:, low:high].sum()) for low, high in pairwise(_BANDS)]
        row, drug = np.nonzero(known)
        parts[_name(nothing)].append(filtered_ranks(all_hidden, known, row, drug))
        ranks, others = filtered_ranks(one_hidden, known, row, drug), known.sum(axis=1)[row] - 1
        for bounds in more:
            parts[_name(bounds)].append(ranks[_within(others, *bounds)])
    return LeftOut(hits, {name: np.concatenate(some) for name, some in parts.items()}, num_diseases)


def left_out_tables(found: LeftOut, num_known: int) -> tuple[list[Table], dict[str, int]]:
    """Return two tables about left-out diseases, and the numbers of these and of their treatments.

    One table has the share of drugs in each band of ranks that are recorded treatments, if all
    treatments of the disease are hidden. The other has the share of treatments among the first
    drugs, if each is hidden in turn.

    Args:
        found: the ranks.
        num_known: number of known drugs of the disease of the report; the row of diseases with
            about as many is marked.
    """
    num_treatments = len(found.ranks[_name(_STRATA[0])])
    figures = {"num_diseases": found.num_diseases, "num_treatments": num_treatments}
    if not found.num_diseases:
        return [], figures
    all_hidden = "All treatments of a disease were hidden, and all drugs were listed."
    one_hidden = "Each treatment was hidden alone; in the first row, all were hidden."
    return [
        _band_table(found.hits, found.num_diseases, "by rank", all_hidden),
        _stratum_table(found.ranks, num_known, "hidden treatments", one_hidden),
    ], figures


def _left_out_scores(ranking: Ranking) -> Iterator[tuple[bool, _Lists]]:
    """Yield the scores of each MLP for all drugs and some diseases that it was not trained on.

    They come without and with popularity, which shares the features.
    """
    paths, features = ranking.ranker.paths, ranking.features
    forms = [Form(use_known, popular) for popular in (False, True) for use_known in (False, True)]
    for n, left_out in enumerate(paths.left_out):
        asked: IntArray = left_out[:: -(-len(left_out) // _MOST_ASKED) or 1]
        for start in range(0, len(asked), _CHUNK):
            chunk = asked[start : start + _CHUNK]
            of_one = paths.only(n).scores_by_mlp(features, chunk, forms)
            scores, known = [x[:, 0] for x in of_one], mask_of(features.known, chunk)
            yield False, _Lists(scores[0], scores[1], known)
            yield True, _Lists(scores[2], scores[3], known)
            let_others()


def _band_table(hits: IntArray, num_lists: int, sheet: str, note: str) -> Table:
    rows = tuple(
        (f"{low + 1} to {high}", Share(int(count) / max(num_lists * (high - low), 1)))
        for (low, high), count in zip(pairwise(_BANDS), hits, strict=True)
    )
    title = "Drugs at each rank that turned out to be recorded treatments"
    return Table(sheet, title, ("rank", "recorded treatments"), rows, note)


def _stratum_table(ranks_of: dict[str, _Ranks], num_known: int, sheet: str, note: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    marked = None
    for name, bounds in zip(map(_name, _STRATA), _STRATA, strict=True):
        ranks = ranks_of.get(name, np.zeros(0))
        if len(ranks):
            marked = len(rows) if bool(_within(np.array([num_known]), *bounds)[0]) else marked
            shares = (Share((ranks <= most).mean()) for most in _WITHIN)
            rows.append((name, len(ranks), *shares, round(float(np.median(ranks)))))
    within = (f"first {most}" for most in _WITHIN)
    columns = ("other known drugs of the disease", "treatments", *within, "median rank")
    title = "Hidden treatments that were found, by what else is known of the disease"
    return Table(sheet, title, columns, tuple(rows), note, marked)


def _name(bounds: tuple[int, int | None]) -> str:
    return stratum_name(*bounds)


def _within(counts: IntArray, least: int, most: int | None) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (counts >= least) & (
        counts <= (np.inf if most is None else most)
    )
    return inside


def fold_tables(ranks: pl.DataFrame, num_known: int) -> list[Table]:
    """Return both tables for the held-out treatments of an evaluation.

    Args:
        ranks: `ranks.parquet` of an evaluation.
        num_known: number of known drugs of the disease of the report.
    """
    own = ranks.filter(ranker=RANKER)
    if not own.height:
        return []
    lists = own.select(c for c in ("fold", "disease_index") if c in own.columns).n_unique()
    found = own["rank"].to_numpy()
    hits = np.array([((found > low) & (found <= high)).sum() for low, high in pairwise(_BANDS)])
    counts = own["drugs_of_disease"].to_numpy()
    note = "Drugs that the model knew as treatments are left out of the lists."
    ranks_of = {_name(bounds): found[_within(counts, *bounds)] for bounds in _STRATA}
    return [
        _band_table(hits, lists, "by rank, evaluation", note),
        _stratum_table(ranks_of, num_known, "hidden, evaluation", note),
    ]
