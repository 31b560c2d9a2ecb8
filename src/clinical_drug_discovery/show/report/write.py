"""Write a report about the drugs for a disease, or about an evaluation."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...api.loading import load_model
from ...api.model import Model
from ...graph.synonyms import read_synonyms
from ...lib._run.evaluation import GOLD_PAIRS
from ...lib._run.model_dir import check_not_input
from ...lib._run.ranked_list import ListRules
from ...models.embeddings_file import check_output
from ...system import disk
from ...system.arguments import plain_arguments
from ...system.errors import InputError
from ...system.files import atomic_path, check_new
from ...system.log import part
from ...system.processes import alone, use_threads
from ...system.untrusted.text import printable_record
from .disease import check_same_graph, disease_record
from .disease_tables import fact_table, origin_table, ranked_table
from .evaluation import Evaluation, evaluation_tables, refusing_damage
from .origin import Row, evaluation_origin, model_origin, model_title, program
from .page import to_html
from .pictures import evaluation_svgs, evidence_picture
from .spreadsheet import to_csv, to_xlsx

SUFFIXES = (".html", ".xlsx", ".csv")


@plain_arguments
@alone()
@part("Writing the report")
def write_report(
    output: str | Path,
    *,
    model_dir: str | Path | Model | None = None,
    disease: str | None = None,
    evaluation: str | Path | None = None,
    top: int = 20,
    include_known: bool = False,
    hide_contraindicated: bool = False,
    popularity: bool = True,
    synonyms: str | Path | None = None,
    add: str | Path | None = None,
    date: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a report about the drugs for a disease, or about an evaluation.

    Args:
        output: file to write: .html (one page that needs no network), .xlsx or .csv.
        model_dir: model directory that `cdd embed` has written; in Python also a loaded model.
        disease: the disease, given by name or identifier in any spelling, such as MONDO:0005148.
        evaluation: directory that `cdd evaluate` has written. Without a disease, the report is
            about the evaluation. With a disease, its figures say how far to trust the ranking.
        top: largest number of drugs to list.
        include_known: also list the drugs that already treat the disease in the graph.
        hide_contraindicated: leave out drugs that are contraindicated according to the graph.
        popularity: prefer drugs of which much is known, such as those that treat many diseases.
        synonyms: file with other names of nodes: .csv or .tsv with the columns name and id.
        add: file of facts in the columns of kg.csv, which join the graph without a training.
        date: date to print in the report, such as 2026-11-29 (default: today).
        overwrite: replace the output if it exists.

    Returns:
        A dict with output (the path), bytes (the size of the file), and about (what the report is
        about). The same input, settings and date give the same bytes.

    Raises:
        InputError: a parameter is invalid, a file is missing or damaged, the evaluation is of
            another graph, or the disease does not exist, is ambiguous or does not have facts.
            Nothing is written then.
        ImportError: the package jinja2 (for .html) or XlsxWriter (for .xlsx) is not installed.

    Example:
        >>> found = cdd.write_report("asthma.html", model_dir=model, disease="asthma", top=3)
        >>> found["about"]
        'drugs for asthma'
    """
    use_threads()
    path, day = Path(output), _parse_day(date)
    pairs = None if evaluation is None else Path(evaluation) / GOLD_PAIRS
    _check_output(path, model_dir, synonyms, add, pairs)
    check_new([path], overwrite)
    found = None if evaluation is None else Evaluation.read(Path(evaluation))
    if model_dir is None and disease is None:
        if found is None:
            raise InputError("model_dir and disease, or evaluation, must be given")
        with refusing_damage(found):
            about, content = _about_evaluation(found, path.suffix.lower(), day)
    elif model_dir is None or disease is None:
        missing = "model_dir" if model_dir is None else "disease"
        raise InputError(f"{missing} must be given: a report needs both model_dir and disease")
    else:
        model = model_dir if isinstance(model_dir, Model) else load_model(model_dir)
        if found is not None:
            check_same_graph(model, found)
        if add is not None:
            model = model.add_facts(add)
        record = disease_record(
            model,
            disease,
            ListRules(top, include_known, hide_contraindicated),
            popularity=popularity,
            synonyms=read_synonyms(synonyms, model.graph.nodes),
            evaluation=found,
        )
        about, content = _about_disease(record, model_origin(model), path.suffix.lower(), day)
    with atomic_path(path) as temporary, disk.create(temporary) as file:
        file.write(content)
    return {"output": str(path), "bytes": len(content), "about": about}


def _check_output(
    path: Path, model_dir: str | Path | Model | None, *inputs: str | Path | None
) -> None:
    """Check that the output can be written, and that it is not an input."""
    check_output(path, SUFFIXES)
    asked = model_dir.directory if isinstance(model_dir, Model) else model_dir
    check_not_input(path, None if asked is None else Path(asked), *inputs)


def _parse_day(text: str | None) -> str:
    """Return a date in ISO 8601; None stands for today."""
    try:
        day = datetime.date.today() if text is None else datetime.date.fromisoformat(text)
    except ValueError:
        raise InputError(f"date (got {text!r}) must be a date such as 2026-11-29") from None
    return day.isoformat()


def _about_disease(
    record: dict[str, Any], origin: Sequence[Row], suffix: str, day: str
) -> tuple[str, bytes]:
    """Return what the report is about, and its content."""
    folds = record["folds"]  # `Evaluation` has escaped its texts; the picture must stay as it is
    record = {**printable_record({**record, "folds": None}), "folds": folds}
    rows = printable_record([*origin, ("report", f"{day}, {program()}")])
    about = f"drugs for {record['disease']['name']}"
    if suffix == ".csv":
        return about, to_csv(ranked_table(record))
    if suffix == ".xlsx":
        tables = [ranked_table(record), fact_table(record), *record["left_out"]["tables"]]
        tables += folds["tables"] if folds else []
        return about, to_xlsx([*tables, origin_table(rows)], day)
    values = {
        **record,
        "origin": rows,
        "date": day,
        "title": f"Drugs for {record['disease']['name']}",
    }
    for drug in record["drugs"]:
        drug["picture"] = evidence_picture(record["disease"]["name"], drug)
    return about, to_html("disease.html", values)


def _about_evaluation(evaluation: Evaluation, suffix: str, day: str) -> tuple[str, bytes]:
    """Return what the report is about, and its content."""
    headline, tables = evaluation_tables(evaluation)
    made = [*evaluation_origin(evaluation.report), ("report", f"{day}, {program()}")]
    rows, about = printable_record(made), "an evaluation"
    if suffix == ".csv":
        return about, to_csv(tables[0])
    if suffix == ".xlsx":
        return about, to_xlsx([*tables, origin_table(rows)], day)
    values = {
        "headline": headline,
        "tables": tables,
        "pictures": evaluation_svgs(evaluation),
        "origin": rows,
        "date": day,
        "title": f"Evaluation of {model_title(evaluation.report.get('model'))}",
    }
    return about, to_html("evaluation.html", values)
