"""Show the report of an evaluation as tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...system.errors import counted
from .console import make_console, make_table

CONTRAINDICATION_COLUMNS = (
    "contraindicated_rank_fraction", "contraindicated@50", "contraindicated_auroc"
)  # fmt: skip
EVALUATION_COLUMNS = (
    "mrr", "map", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50"
)  # fmt: skip
STRATUM_TITLES = {
    "diseases_of_drug": "the number of other diseases that the drug treats in the training graph",
    "drugs_of_disease": "the number of drugs of the disease in the training graph",
}


def show_evaluation(result: dict[str, Any]) -> None:
    """Print the metrics of all rankers, then the metrics of link prediction for each relation."""
    if "gold" in result:
        _show_gold(result)
        return
    console = make_console()
    console.print(f"{headline(result)}\n")
    rankers = list(result["rankers"].items())
    _print_metrics("ranker", rankers, EVALUATION_COLUMNS)
    if "folds" in result:
        console.print("\nAreas under curves and the entropy are means over the folds.")
    title = "Balanced: one sampled drug for each pair (not comparable with the table above)"
    console.print(f"\n{title}:\n")
    _print_metrics("ranker", rankers, ("balanced_auroc", "balanced_auprc"))
    _print_strata(result)
    _print_differences(result["differences"])
    _print_contraindications(rankers)
    _print_reliability(result["reliability"])
    if result["relations"]:
        title = f"Link prediction by {result['model']} among all nodes of the target's type"
        console.print(f"\n{title}:\n")
        kind = ("source_type", "relation", "target_type")
        rows = [(" - ".join(m[name] for name in kind), m) for m in result["relations"]]
        shown = ("num_targets", "num_candidates", "mrr", "hits@10", "recall@50")
        _print_metrics("source - relation - target", rows, shown)
    console.print(f"\n95% intervals are in {Path(result['output_dir']) / 'report.json'}")


def headline(result: Mapping[str, Any]) -> str:
    """Say which pairs an evaluation has ranked."""
    among = f"each ranked among {counted(result['num_candidates'], 'drug')}"
    if "gold" in result:
        since = f" since {result['since']}" if result["since"] else ""
        of = f"of {counted(result['num_ranked_diseases'], 'disease')} from {result['gold']}"
        pairs = counted(result["num_ranked_pairs"], "approved pair")
        return f"{pairs}{since} {of}, {among}"
    counts, part = result["split_counts"], result["on"]
    folds = f", {counted(result['folds'], 'fold')}" if "folds" in result else ""
    return (
        f"{counted(counts[f'num_{part}_pairs'], 'held-out pair')} of "
        f"{counted(counts[f'num_{part}_diseases'], 'disease')} (split {result['split']}, "
        f"{part}{folds}), {among}; {counted(result['num_leaks'], 'leak')}"
    )


def _show_gold(result: dict[str, Any]) -> None:
    """Print the outcomes of the rows of an outside list, then the metrics of all rankers."""
    console, directory = make_console(), Path(result["output_dir"])
    outcomes = ", ".join(f"{name} {count:,}" for name, count in result["outcomes"].items())
    console.print(f"{headline(result)}\nRows: {outcomes} (see {directory / 'gold_pairs.csv'})\n")
    rankers = list(result["rankers"].items())
    above = [f"approved_above_{label}" for label in ("failed", "contraindicated")]
    above = [name for name in above if rankers[0][1][name] is not None]
    _print_metrics("ranker", rankers, (*EVALUATION_COLUMNS, *above))
    for name, why in result["rankers_left_out"].items():
        console.print(f"Left out: {name}, because {why}")
    _print_strata(result)
    _print_differences(result["differences"])
    console.print(f"\n95% intervals are in {directory / 'report.json'}")


def _print_strata(result: dict[str, Any]) -> None:
    """Print MRR / recall@50 of each ranker for drugs and diseases with few or many treatments."""
    strata = result["strata"]
    for column, title in STRATUM_TITLES.items():
        make_console().print(f"\nMRR / recall@50 by {title}:\n")
        table, first = make_table(), next(iter(strata.values()))[column]
        table.add_column("ranker")
        filled = [name for name, figures in first.items() if figures["num_pairs"]]
        for name in filled:
            table.add_column(
                f"{name} ({counted(first[name]['num_pairs'], 'pair')})", justify="right"
            )
        for ranker, by_column in strata.items():
            figures = [by_column[column][name] for name in filled]
            table.add_row(ranker, *(f"{m['mrr']:.3f} / {m['recall@50']:.2f}" for m in figures))
        make_console().print(table)


def _print_differences(differences: dict[str, dict[str, float]]) -> None:
    """Print the metrics of each ranker minus those of the walk, with their intervals."""
    if not differences:
        return
    make_console().print("\nDifference to the walk on the same pairs (95% interval):\n")
    table, names = make_table(), ("mrr", "recall@50")
    for title in ("ranker", *names):
        table.add_column(title, justify="left" if title == "ranker" else "right")
    for ranker, m in differences.items():
        cells = (f"{m[n]:+.3f} ({m[f'{n}_low']:+.3f} to {m[f'{n}_high']:+.3f})" for n in names)
        table.add_row(ranker, *cells)
    make_console().print(table)


def _print_reliability(bins: Sequence[dict[str, Any]] | None) -> None:
    """Print the mean probability and the share of recorded treatments in each bin."""
    if not bins:
        return
    title = "Reliability: drugs by probability, and the share that the record lists as treatments"
    make_console().print(f"\n{title}:\n")
    table = make_table()
    for name in ("probability", "pairs", "held out", "predicted", "recorded"):
        table.add_column(name, justify="right")
    for one in bins:
        table.add_row(
            f"{one['low']:.1f} to {one['high']:.1f}", f"{one['num_pairs']:,}",
            f"{one['num_held_out']:,}", f"{one['predicted']:.3f}", f"{one['recorded']:.3f}",
        )  # fmt: skip
    make_console().print(table)


def _print_contraindications(rankers: list[tuple[str, dict[str, Any]]]) -> None:
    """Print where the rankers place the drugs that the graph lists as contraindicated."""
    num_pairs, num_diseases = (
        rankers[0][1][f"num_contraindicated_{name}"] for name in ("pairs", "diseases")
    )
    if not num_pairs:
        make_console().print("\nThe graph lists no contraindicated drug for these diseases.")
        return
    make_console().print(
        f"\nContraindicated drugs ({counted(num_pairs, 'pair')} of "
        f"{counted(num_diseases, 'disease')}). Good rankers place them last: rank fraction and "
        "AUROC near 1, few of them among the first 50:\n"
    )
    _print_metrics("ranker", rankers, CONTRAINDICATION_COLUMNS)


def _print_metrics(
    title: str, rows: list[tuple[str, dict[str, Any]]], names: Sequence[str]
) -> None:
    table = make_table()
    table.add_column(title)
    for name in names:
        table.add_column(name, justify="right")
    for label, metrics in rows:
        table.add_row(label, *(_cell(metrics[name]) for name in names))
    make_console().print(table)


def _cell(value: float | int | None) -> str:
    if value is None:  # an area without negatives
        return ""
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
