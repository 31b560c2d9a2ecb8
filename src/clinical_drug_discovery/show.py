"""Show the results of the commands as tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def make_console() -> Console:
    """Return a console on stdout that prints names such as [phosphorylase] unchanged.

    It wraps lines on a terminal, but not in a pipe or a file.
    """
    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, highlight=False, width=width)


def show_record(result: dict[str, Any]) -> None:
    """Print a record as a table of names and values."""
    table = Table(show_header=False, box=None)
    for name, value in result.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {_short(item)}" for key, item in value.items())
        table.add_row(name, _short(value))
    make_console().print(table)


def show_neighbors(result: list[dict[str, Any]]) -> None:
    """Print similar nodes as a table, then the evidence for each node."""
    table = Table(box=None)
    for column in ("rank", "cosine", "name", "type", "id"):
        table.add_column(column, justify="right" if column in ("rank", "cosine") else "left")
    for row in result:
        cells = str(row["rank"]), f"{row['cosine']:.3f}", row["node_name"], row["node_type"]
        table.add_row(*cells, f"{row['node_source']}:{row['node_id']}")
    make_console().print(table)
    _print_evidence(result, "node_name")


def show_ranking(result: list[dict[str, Any]] | dict[str, Any]) -> None:
    """Print ranked drugs as a table, then the evidence for each drug."""
    if isinstance(result, dict):
        show_record(result)
        return
    table = Table(box=None)
    for column in ("rank", "score", "probability", "drug", "id", "known"):
        numeric = column in ("rank", "score", "probability")
        table.add_column(column, justify="right" if numeric else "left")
    for row in result:
        cells = str(row["rank"]), f"{row['score']:.2f}", f"{row['probability']:.3f}"
        table.add_row(*cells, row["drug_name"], row["drug_id"], "yes" if row["known"] else "")
    make_console().print(table)
    _print_evidence(result, "drug_name")


def _print_evidence(rows: list[dict[str, Any]], name: str) -> None:
    """For each row, print the facts between its node and the asked node, then paths by kind."""
    console = make_console()
    for row in rows:
        if "evidence" not in row:
            continue
        console.print(f"\n{row['rank']}. {row[name]}")
        for text in row["stated"]:
            console.print(f"   in the graph: {text}", soft_wrap=True)
        kind = ""
        for path in row["evidence"]:
            label = path["kind"] if path["kind"] != kind else ""
            kind = path["kind"]
            text = f"{path['text']} ({path['path_score']:.2g})"
            console.print(f"   {label:>16}  {text}", soft_wrap=True)
        if not row["evidence"]:
            console.print("   the graph contains no path that explains this row")


def show_demo(result: dict[str, Any]) -> None:
    """Print the answers of both models side by side, then commands to try next."""
    console, titles = make_console(), {"graphsage": "GraphSAGE", "hgt": "HGT"}
    for model, answer in result.items():
        stats = answer["stats"]
        console.print(
            f"{titles[model]} on the sample graph: {stats['num_nodes']:,} nodes, "
            f"{stats['num_edges']:,} edges, {stats['num_epochs']} epochs in "
            f"{stats['seconds_train']:.1f} s on {stats['device']}, peak memory so far "
            f"{stats['peak_memory_gib']:.2f} GiB."
        )
    console.print("Nearest nodes of the same type, by cosine:\n")
    table = Table(box=None)
    table.add_column("node", style="bold")
    for model in result:
        table.add_column(titles[model])
    for name in result["hgt"]["neighbors"]:
        lists = [answer["neighbors"][name] for answer in result.values()]
        lines = [[f"{row['cosine']:.2f} {row['node_name']}" for row in rows] for rows in lists]
        table.add_row(name, *map("\n".join, lines), end_section=True)
    console.print(table)
    ranking = result["hgt"]["ranking"]
    disease = ranking[0]["disease_name"]
    console.print(f"\nDrugs for {disease} that the graph does not list, and why:\n")
    show_ranking(ranking)
    stats = result["hgt"]["stats"]
    for command in (
        f"cdd similar --embeddings {stats['output_file']} --node Warfarin --explain",
        f"cdd rank --model-dir {stats['model_dir']} --disease asthma --explain",
    ):
        console.print(f"\nTry next: {command}", soft_wrap=True)


def show_evaluation(result: dict[str, Any]) -> None:
    """Print the metrics of all rankers, then the metrics of link prediction for each relation."""
    console, counts = make_console(), result["split_counts"]
    console.print(
        f"{counts['num_test_pairs']:,} held-out pairs of {counts['num_test_diseases']:,} diseases "
        f"(split {result['split']}), each ranked among {result['num_candidates']:,} drugs; "
        f"{result['num_leaks']} leaks\n"
    )
    names = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
    rankers = list(result["rankers"].items())
    _print_metrics("ranker", rankers, names)
    title = "Balanced: one sampled drug for each pair (not comparable with the table above)"
    console.print(f"\n{title}:\n")
    _print_metrics("ranker", rankers, ("balanced_auroc", "balanced_auprc"))
    if result["relations"]:
        title = f"Link prediction by {result['model']} among all nodes of the target's type"
        console.print(f"\n{title}:\n")
        kind = ("source_type", "relation", "target_type")
        rows = [(" - ".join(m[name] for name in kind), m) for m in result["relations"]]
        shown = ("num_targets", "num_candidates", "mrr", "hits@10", "recall@50")
        _print_metrics("source - relation - target", rows, shown)
    console.print(f"\n95% intervals are in {Path(result['output_dir']) / 'report.json'}")


def _print_metrics(
    title: str, rows: list[tuple[str, dict[str, Any]]], names: Sequence[str]
) -> None:
    table = Table(box=None)
    table.add_column(title)
    for name in names:
        table.add_column(name, justify="right")
    for label, metrics in rows:
        values = ("" if metrics[name] is None else metrics[name] for name in names)
        cells = (f"{v:.3f}" if isinstance(v, float) else f"{v:,}" for v in values)
        table.add_row(label, *cells)
    make_console().print(table)


def show_doctor(result: dict[str, Any]) -> None:
    """Print the machine, then the plan or the trial of each model."""
    trial = result.get("try", {})
    show_record({name: v for name, v in result.items() if name not in ("plan", "try")})
    for name, record in {**result.get("plan", {}), **trial.get("models", {})}.items():
        make_console().print(f"\n{name}")
        show_record({f"  {key}": v for key, v in record.items() if v not in ([], {})})
    if trial:
        verdict = "agrees with" if trial["passed"] else "DIFFERS from"
        make_console().print(f"\n{trial['device']} ({trial['device_name']}) {verdict} the CPU")
        make_console().print(f"largest relative difference allowed: {trial['tolerance']}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return str(value)
