"""Rank all drugs for one disease or for many, with the ranker that `cdd embed` has saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..graph.knowledge_graph import IntArray, KnowledgeGraph, node_range_of
from ..graph.node_lookup import Synonym, find_node, find_nodes
from ..graph.synonyms import read_synonyms
from ..models.embeddings_file import check_table_output, write_tables
from ..ops.backend import MIN_KERNEL_EDGES
from ..ranking.drug_ranker import DrugRanker
from ..ranking.explanations import Explainer
from ..ranking.metapath_features import MetapathFeatures
from ..system.errors import InputError, check_at_least
from ..system.machine import one_thread
from ._run.model_dir import MODEL_FILES, model_dir_of, read_model_graph, read_model_ranker

ALL = "all"  #: value of `diseases` that stands for every disease of the graph
_CHUNK = 128  # diseases ranked at a time; their scores take 6 MB on PrimeKG


def rank_drugs(
    model_dir: str | Path,
    *,
    disease: str | None = None,
    diseases: str | Path | None = None,
    output: str | Path | None = None,
    top: int = 10,
    include_known: bool = False,
    explain: bool = False,
    synonyms: str | Path | None = None,
) -> list[dict[str, Any]] | dict[str, Any]:
    """Rank the drugs for one disease or for many diseases, the most promising drugs first.

    Args:
        model_dir: model directory that `cdd embed` has written, with its graph and its ranker.
        disease: one disease, given by name or identifier in any spelling, such as MONDO:0005148.
        diseases: many diseases: a text file with one name or id per line, or "all".
        output: file for the table of many diseases, .csv or .parquet.
        top: number of drugs to list for each disease.
        include_known: also list the drugs that already treat the disease in the graph.
        explain: add the evidence in the graph for each drug. Works for one disease only.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.

    Returns:
        For one disease: a list with one dict per drug, the best drug first. The keys are
        disease_index, disease_id, disease_name, rank, drug_index, drug_id, drug_name, score
        (comparable within a disease only), probability (of a recorded indication) and known (true
        if the graph says that the drug treats the disease). With `explain` there are also stated
        and evidence, see `Explainer.drug_for_disease`. The list is shorter than `top` if the graph
        has too few drugs to list. For many diseases: a dict with output, num_diseases, num_drugs,
        num_rows and seconds. The columns of the table are the keys above.

    Raises:
        InputError: a parameter is invalid, a file is missing or damaged, or a disease does not
            exist or is ambiguous. Nothing is written in this case.

    Example:
        >>> from clinical_drug_discovery.lib.rank import rank_drugs
        >>> rows = rank_drugs("embeddings_model", disease="asthma", top=3)
        >>> [(row["rank"], row["disease_name"]) for row in rows]
        [(1, 'asthma'), (2, 'asthma'), (3, 'asthma')]
    """
    start = time.perf_counter()
    check_at_least("top", top, 1)
    if (disease is None) == (diseases is None):
        raise InputError("exactly one of disease and diseases must be given")
    if (diseases is None) != (output is None):
        raise InputError("diseases and output must be given together")
    if explain and disease is None:
        raise InputError("explain works with one disease only, not with diseases")
    directory = Path(model_dir)
    table = None if output is None else _check_output(Path(output), directory, diseases, synonyms)
    ranking = Ranking.of(directory)
    names = read_synonyms(synonyms, ranking.graph.nodes)
    if top > ranking.drugs.height:
        raise InputError(
            f"top (got {top}) must be at most {ranking.drugs.height}, the number of drugs"
        )
    if disease is not None:
        kind = ranking.graph.vocabulary.disease_type
        found = find_node(ranking.diseases, disease, type=kind, parameter="disease", synonyms=names)
        asked = np.array([found])
        rows = ranking.table(asked, top, include_known).to_dicts()
        for row in rows:  # further digits are not meaningful
            row["score"] = round(row["score"], 4)
            row["probability"] = float(f"{row['probability']:.4g}")
        return ranking.explained(int(asked[0]), rows) if explain else rows
    assert diseases is not None
    assert table is not None
    asked = ranking.find(diseases, names)
    chunks = (asked[start : start + _CHUNK] for start in range(0, len(asked), _CHUNK))
    num_rows = write_tables(table, (ranking.table(part, top, include_known) for part in chunks))
    return {
        "output": str(table),
        "num_diseases": len(asked),
        "num_drugs": ranking.drugs.height,
        "num_rows": num_rows,
        "seconds": time.perf_counter() - start,
    }


def _check_output(
    output: Path, model_dir: Path, diseases: str | Path | None, synonyms: str | Path | None
) -> Path:
    check_table_output(output)
    taken = [model_dir / name for name in MODEL_FILES]
    if diseases is not None and str(diseases) != ALL:
        taken.append(Path(diseases))
    if synonyms is not None:
        taken.append(Path(synonyms))
    if output.resolve() in [path.resolve() for path in taken]:
        raise InputError(f"output (got {output}) would overwrite an input of this command")
    if model_dir_of(output).resolve() == model_dir.resolve():
        raise InputError(f"output (got {output}) would overwrite the model's embeddings")
    return output


@dataclass(frozen=True)
class Ranking:
    """A graph with the metapath features and the ranker."""

    graph: KnowledgeGraph
    features: MetapathFeatures
    ranker: DrugRanker
    drugs: pl.DataFrame  #: the part of the graph's node table with the drugs
    diseases: pl.DataFrame  #: the part of the graph's node table with the diseases

    @staticmethod
    def of(model_dir: Path) -> Ranking:
        """Read the graph and the ranker from a model directory, and prepare the features.

        Raises:
            InputError: a file is missing or damaged, or the files do not belong together.
        """
        ranker, graph_sha256 = read_model_ranker(model_dir)
        graph = read_model_graph(model_dir, graph_sha256)
        features = MetapathFeatures(graph)
        if features.feature_names != ranker.feature_names:
            raise InputError(
                f"model_dir (got {model_dir}) contains a ranker for other features than this "
                "version of the package computes; run cdd embed again"
            )
        drugs, diseases = (
            graph.nodes[slice(*node_range_of(graph, name))]
            for name in (graph.vocabulary.drug_type, graph.vocabulary.disease_type)
        )
        return Ranking(graph, features, ranker, drugs, diseases)

    def find(self, diseases: str | Path, synonyms: Sequence[Synonym] = ()) -> IntArray:
        """Return the diseases that a file lists, or all diseases, numbered within their type.

        Raises:
            InputError: the file is missing or empty, or a line does not name exactly one disease.
        """
        if str(diseases) == ALL:
            return np.arange(self.diseases.height)
        try:  # utf-8-sig skips a byte order mark; read_text accepts any line ending
            lines = Path(diseases).read_text(encoding="utf-8-sig").split("\n")
        except OSError as error:
            raise InputError(
                f"diseases (got {diseases}) must be a file of names or ids, or {ALL}: "
                f"{error.strerror}"
            ) from None
        except UnicodeError as error:
            raise InputError(f"diseases (got {diseases}) must be UTF-8: {error}") from None
        numbers = [i for i, line in enumerate(lines, start=1) if line.strip()]
        if not numbers:
            raise InputError(f"diseases (got {diseases}) is empty")
        queries = [(f"diseases, line {i} of {diseases}", lines[i - 1]) for i in numbers]
        seen: dict[int, int] = {}
        found = find_nodes(
            self.diseases, queries, type=self.graph.vocabulary.disease_type, synonyms=synonyms
        )
        for number, (where, line), row in zip(numbers, queries, found, strict=True):
            if row in seen:
                raise InputError(f"{where} (got {line!r}) is the same disease as line {seen[row]}")
            seen[row] = number
        return np.array(list(seen))

    def table(self, diseases: IntArray, top: int, include_known: bool) -> pl.DataFrame:
        """Return the best `top` drugs for each of n diseases, numbered within their type."""
        with one_thread(self.graph.num_edges < MIN_KERNEL_EDGES):  # as in training
            scores = self.ranker.scores(self.features, diseases)
        probabilities = self.ranker.probabilities(self.features, diseases, scores)
        known = self.features.known[:, diseases].toarray().T > 0
        listed = ~known | include_known
        order = np.argsort(-scores, axis=1, kind="stable")  # equal scores: lower number first
        best = [drugs[i[drugs]][:top] for drugs, i in zip(order, listed, strict=True)]
        count = [len(drugs) for drugs in best]
        row, drug = np.repeat(np.arange(len(diseases)), count), np.concatenate(best)
        rank = np.concatenate([np.arange(1, n + 1) for n in count])
        return _named(self.diseases, diseases[row], "disease").with_columns(
            pl.Series("rank", rank),
            *_named(self.drugs, drug, "drug"),
            pl.Series("score", scores[row, drug]),
            pl.Series("probability", probabilities[row, drug]),
            pl.Series("known", known[row, drug]),
        )

    def explained(self, disease: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of one disease, extended by the evidence for each drug."""
        explainer = Explainer(self.graph)
        words = self.graph.vocabulary
        disease += node_range_of(self.graph, words.disease_type)[0]
        indices = self.drugs["node_index"].to_list()
        drugs = dict(zip(indices, range(*node_range_of(self.graph, words.drug_type)), strict=True))
        return [row | explainer.drug_for_disease(drugs[row["drug_index"]], disease) for row in rows]


def _named(nodes: pl.DataFrame, rows: IntArray, name: str) -> pl.DataFrame:
    return nodes[rows].select(
        pl.col("node_index").alias(f"{name}_index"),
        pl.col("node_id").alias(f"{name}_id"),
        pl.col("node_name").alias(f"{name}_name"),
    )
