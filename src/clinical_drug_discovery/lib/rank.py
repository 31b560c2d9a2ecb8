"""Rank drugs for one disease or for many, or diseases for a drug, with the saved ranker."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..graph.knowledge_graph import IntArray
from ..graph.synonyms import read_synonyms
from ..models.embeddings_file import check_table_output, write_tables
from ..ranking.evidence.explanations import notes_on
from ..system.arguments import plain_arguments
from ..system.errors import InputError, shown
from ..system.files import check_new
from ..system.log import part
from ..system.processes import alone, use_threads
from ..system.untrusted.inputs import bounded_lines, check_regular
from ._run.model_dir import check_not_input, read_model_graph, read_model_ranker
from ._run.ranked_list import CHUNK, Counts, ListRules, Ranking, shared_parts

ALL = "all"  #: value of `diseases` that stands for every disease of the graph


@plain_arguments
@alone()
@part("Ranking")
def rank_drugs(
    model_dir: str | Path,
    *,
    disease: str | None = None,
    diseases: str | Path | None = None,
    shard: str | None = None,
    workers: int | None = None,
    drug: str | None = None,
    drugs: str | Path | None = None,
    output: str | Path | None = None,
    top: int = 10,
    include_known: bool = False,
    hide_contraindicated: bool = False,
    explain: bool = False,
    popularity: bool = True,
    synonyms: str | Path | None = None,
    add: str | Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Rank the drugs for one disease or for many diseases, or the diseases for one drug.

    Args:
        model_dir: model directory that `cdd embed` has written, with its graph and its ranker.
        disease: one disease, given by name or identifier in any spelling, such as MONDO:0005148.
        diseases: many diseases: a text file with one name or id per line, or "all".
        shard: only with diseases: i/n, such as 2/8; ranks only the i-th of n parts of them.
        workers: only with diseases: threads (default: one per core); the result stays the same.
        drug: one drug; lists the diseases with the highest probabilities for this drug.
        drugs: text file with one name or id per line; only these drugs are ranked.
        output: file for the table, .csv or .parquet; many diseases need it.
        top: largest number of drugs to list for each disease, or of diseases for the drug.
        include_known: also list the drugs that already treat the disease in the graph.
        hide_contraindicated: leave out drugs that are contraindicated according to the graph.
        explain: add the evidence in the graph for each row; not together with diseases or output.
        popularity: prefer drugs of which much is known, such as those that treat many diseases.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.
        add: file of facts in the columns of kg.csv. They join the graph for this question, with
            new drugs, diseases and other nodes, without a training.
        overwrite: replace the output if it exists.

    Returns:
        For one disease, a dict with disease_index, disease_id, disease_name and disease_source;
        num_candidates (ranked drugs), num_drugs_without_facts (left out), num_known_hidden,
        num_contraindicated (in the list) and num_contraindicated_hidden; vocabulary (the graph's
        words for drugs, diseases and their relations); output; new_nodes (names of nodes that added
        facts brought); and drugs, a list with one dict per row of the table, the best drug first.
        The keys are disease_index, disease_id, disease_name, rank, drug_index, drug_id, drug_name,
        score (comparable within a disease only), probability (of a recorded indication),
        probability_treats (of a treatment, recorded or not), known (true if the graph says that the
        drug treats the disease), contraindicated, and stated (the relations between the two in the
        graph, joined by "; "). `explain` adds stated_facts, evidence (see `Explainer`) and
        rank_without_popularity to each row, and notes to the record. For one drug, drug and disease
        change places: "diseases" is a list of the same rows. For many diseases, the dict has
        num_diseases, num_diseases_without_facts (left out of "all"), num_rows, shard and seconds.

    Raises:
        InputError: a parameter is invalid, a file is missing or damaged, or a disease or drug does
            not exist, is ambiguous or does not have facts. Nothing is written then.

    Example:
        >>> from clinical_drug_discovery.lib.rank import rank_drugs
        >>> record = rank_drugs("embeddings_model", disease="asthma", top=3)
        >>> record["disease_name"], [row["rank"] for row in record["drugs"]]
        ('asthma', [1, 2, 3])
    """
    use_threads()
    _check_question(disease, diseases, shard, workers, drug, drugs, output, explain)
    directory = Path(model_dir)
    table = _check_output(output, overwrite, directory, diseases, drugs, synonyms, add)
    rules = ListRules(top, include_known, hide_contraindicated)
    ranking, new = (Ranking.of(directory), {}) if add is None else _extended(directory, Path(add))
    ranking = replace(ranking, popularity=popularity)
    ranking = ranking.with_synonyms(read_synonyms(synonyms, ranking.graph.nodes))
    if drugs is not None:
        ranking = ranking.among(_listed(ranking, "drugs", drugs))
    if diseases is not None:
        return _rank_many(ranking, diseases, shard, workers, rules, table) | new
    one, query = ("disease", disease) if drug is None else ("drug", drug)
    assert query is not None
    return _rank_one(ranking, one, ranking.find(one, query), rules, table, explain) | new


def _check_question(
    disease: str | None,
    diseases: str | Path | None,
    shard: str | None,
    workers: int | None,
    drug: str | None,
    drugs: str | Path | None,
    output: str | Path | None,
    explain: bool,
) -> None:
    asked = {"disease": disease, "diseases": diseases, "drug": drug}
    given = [f"{name} {shown(str(value))}" for name, value in asked.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise InputError(f"exactly one of disease, diseases and drug must be given (got {got})")
    if drug is not None and drugs is not None:
        raise InputError("drugs names the drugs to rank for a disease; it does not work with drug")
    if diseases is not None and output is None:
        raise InputError(f"diseases (got {diseases}) needs output, the file for the table")
    if shard is not None:
        if diseases is None:
            raise InputError(f"shard (got {shown(shard)}) works with diseases only")
        _parse_shard(shard)
    if workers is not None and diseases is None:
        raise InputError(f"workers (got {workers}) works with diseases only")
    if explain and diseases is not None:
        raise InputError("explain works with one disease or one drug, not with diseases")
    if explain and output is not None:
        raise InputError(
            "explain does not work with output, because a table cannot hold paths; leave output "
            "out and print the result as JSON (--json)"
        )


def _extended(model_dir: Path, facts: Path) -> tuple[Ranking, dict[str, Any]]:
    """Return the ranking on a graph with added facts, and what was new for the record."""
    from ._model.extended import extend_model  # imports torch, for the network
    from ._model.network import read_network

    ranker, graph_sha256 = read_model_ranker(model_dir)
    graph = read_model_graph(model_dir, graph_sha256)
    model = extend_model(graph, read_network(model_dir, graph), ranker, facts, "add")
    shared = shared_parts(graph, ranker, model_dir)
    if model is None:
        return Ranking.on(graph, ranker, shared), {"new_nodes": []}
    assert model.ranker is not None
    names = model.new_nodes["node_name"].to_list()
    return Ranking.on(model.graph, model.ranker, shared), {"new_nodes": names}


def _check_output(
    output: str | Path | None, overwrite: bool, model_dir: Path, *inputs: str | Path | None
) -> Path | None:
    if output is None:
        return None
    table = Path(output)
    check_table_output(table)
    check_not_input(table, model_dir, *(path for path in inputs if str(path) != ALL))
    check_new([table], overwrite)
    return table


def _rank_one(
    ranking: Ranking, one: str, at: int, rules: ListRules, output: Path | None, explain: bool
) -> dict[str, Any]:
    """Return the record of one "disease" or of one "drug", numbered within its type."""
    if one == "disease":
        others, nodes = "drugs", ranking.diseases
        found, counts = ranking.drugs_for(np.array([at]), rules)
    else:
        others, nodes = "diseases", ranking.drugs
        found, counts = ranking.diseases_for(at, rules)
    asked = nodes.row(at, named=True)
    fields = ("index", "id", "name", "source")
    rows = found.to_dicts()
    if explain:
        rows = ranking.explain(rows)
    if output is not None:
        write_tables(output, iter([found]))
    return {
        **{f"{one}_{field}": asked[f"node_{field}"] for field in fields},
        **_counts(ranking, counts, of=others),
        "vocabulary": asdict(ranking.graph.vocabulary),
        **({"notes": notes_on(rows)} if explain else {}),
        "output": None if output is None else str(output),
        others: rows,
    }


def _rank_many(
    ranking: Ranking,
    diseases: str | Path,
    shard: str | None,
    workers: int | None,
    rules: ListRules,
    output: Path | None,
) -> dict[str, Any]:
    """Write the lists of many diseases to a table, and return the record."""
    assert output is not None
    start = time.perf_counter()
    num_without_facts = 0
    asked: IntArray = np.flatnonzero(ranking.disease_has_facts)
    if str(diseases) == ALL:
        num_without_facts = ranking.diseases.height - len(asked)
    else:
        asked = _listed(ranking, "diseases", diseases)
    num_all = len(asked)
    if shard is not None:
        asked = _in_shard(asked, shard)
    counts: Counts = Counter()

    def tables() -> Iterator[pl.DataFrame]:
        for found, more in ranking.drugs_for_many(asked, rules, workers, num_all):
            counts.update(more)
            yield found

    num_rows = write_tables(output, tables())
    return {
        "output": str(output),
        "num_diseases": len(asked),
        "num_diseases_without_facts": num_without_facts,
        "num_rows": num_rows,
        "shard": shard,
        **_counts(ranking, counts, of="drugs"),
        "vocabulary": asdict(ranking.graph.vocabulary),
        "seconds": time.perf_counter() - start,
    }


def _parse_shard(shard: str) -> tuple[int, int]:
    """Return i and n of a text such as "2/8", the i-th of n parts.

    Raises:
        InputError: the text does not have this form, or i is not from 1 to n.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if found is not None and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise InputError(
        f"shard (got {shown(shard)}) must be i/n, the i-th of n parts, with i from 1 to n"
    )


def _in_shard(diseases: IntArray, shard: str) -> IntArray:
    """Return the diseases of a shard, which is a range of whole chunks.

    A matrix product may round a row differently among other rows. With whole chunks, each disease
    is ranked beside the same diseases as without shards, so the results have the same bytes.

    Raises:
        InputError: there are more parts than chunks, so a part would be empty.
    """
    i, n = _parse_shard(shard)
    num_chunks = -(-len(diseases) // CHUNK)
    if n > num_chunks:
        raise InputError(
            f"shard (got {shown(shard)}) must be i/n with n at most {num_chunks:,}: each part has "
            f"at least one chunk of {CHUNK} diseases, and {len(diseases):,} diseases are asked for"
        )
    start, end = (CHUNK * (num_chunks * part // n) for part in (i - 1, i))
    return diseases[start:end]


def _counts(ranking: Ranking, counts: Counts, *, of: str) -> dict[str, int]:
    """Return the number of ranked nodes, and what a list leaves out or marks."""
    if of == "drugs":
        candidates, has_facts = ranking.candidates, ranking.drug_has_facts
    else:
        candidates = has_facts = ranking.disease_has_facts
    names = ("num_known_hidden", "num_contraindicated", "num_contraindicated_hidden")
    return {
        "num_candidates": int(candidates.sum()),
        f"num_{of}_without_facts": int((~has_facts).sum()),
        **{name: counts[name] for name in names},
    }


def _listed(ranking: Ranking, parameter: str, path: str | Path) -> IntArray:
    """Return the drugs or diseases that a file lists, numbered within their type.

    Args:
        ranking: provides the nodes.
        parameter: "drugs" or "diseases".
        path: text file with one name or id per line.

    Raises:
        InputError: the file is missing or empty, a line does not name exactly one node, or the node
            does not have facts.
    """
    lines = [(f"{parameter}, line {i} of {path}", line) for i, line in _read_lines(parameter, path)]
    return ranking.find_all(parameter.removesuffix("s"), lines)


def _read_lines(parameter: str, path: str | Path) -> list[tuple[int, str]]:
    """Return the numbers and the texts of the lines of a file that are not blank."""
    choice = f", or {ALL}" if parameter == "diseases" else ""
    check_regular(parameter, Path(path), f" of names or ids{choice}")
    where = f"{parameter} (got {path})"
    try:  # utf-8-sig skips a byte order mark; text mode accepts any line ending
        with Path(path).open(encoding="utf-8-sig") as file:
            lines = enumerate(bounded_lines(where, file), start=1)
            numbered = [(i, line.rstrip("\n")) for i, line in lines if line.strip()]
    except OSError as error:
        raise InputError(
            f"{parameter} (got {path}) must be a file of names or ids{choice}: {error.strerror}"
        ) from None
    except UnicodeError as error:
        raise InputError(f"{parameter} (got {path}) must be UTF-8: {error}") from None
    if not numbered:
        raise InputError(f"{parameter} (got {path}) is empty")
    return numbered
