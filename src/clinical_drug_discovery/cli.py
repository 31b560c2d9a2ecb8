"""The command line: a table from command to public function.

Flags, defaults and help texts are read off the functions, so they cannot drift apart. Results go to
stdout (`--json` for machines), progress and errors to stderr; a user's mistake ends with exit code
2.
"""

from __future__ import annotations

import inspect
import json
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.table import Table

from clinical_drug_discovery.lib.demo import run_demo
from clinical_drug_discovery.lib.doctor import describe_machine
from clinical_drug_discovery.lib.evaluate import evaluate_model
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.lib.gnn_hgt import generate_hgt_embeddings
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.lib.synthesize import synthesize_graph
from clinical_drug_discovery.system.errors import InputError

#: Parameters whose names say what they are for the sake of the Python signature only.
FLAG_NAMES = {
    "edges_csv": "edges",
    "output_csv": "output",
    "output_dir": "output",
    "try_device": "try",
}
#: What the command line takes for types that a flag cannot have.
FLAG_TYPES: dict[Any, Any] = {
    str | Path: Path,
    str | Path | None: Path | None,
    Sequence[str] | None: list[str] | None,
    str | int | None: str | None,
}


def make_console() -> Console:
    """Stdout, taking text as it is: names such as [phosphorylase] are no markup.

    Lines are not wrapped where no person looks at them, in a pipe or a file.
    """
    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, highlight=False, width=width)


def show_record(result: dict[str, Any]) -> None:
    """A record as a table of names and values."""
    table = Table(show_header=False, box=None)
    for name, value in result.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}: {_short(item)}" for key, item in value.items())
        table.add_row(name, _short(value))
    make_console().print(table)


def show_neighbors(result: list[dict[str, Any]]) -> None:
    """Similar nodes as a table."""
    table = Table(box=None)
    for column in ("rank", "cosine", "name", "type", "id"):
        table.add_column(column, justify="right" if column in ("rank", "cosine") else "left")
    for row in result:
        node_id = f"{row['node_source']}:{row['node_id']}"
        cells = (
            str(row["rank"]),
            f"{row['cosine']:.3f}",
            row["node_name"],
            row["node_type"],
            node_id,
        )
        table.add_row(*cells)
    make_console().print(table)
    for row in result:
        if "evidence" in row:
            make_console().print(f"\n{row['rank']}. {row['node_name']}")
            show_evidence(row)


def show_ranking(result: list[dict[str, Any]] | dict[str, Any]) -> None:
    """Drugs as a table, and below it why, where that was asked for."""
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
    console = make_console()
    console.print(table)
    for row in result:
        if "evidence" in row:
            console.print(f"\n{row['rank']}. {row['drug_name']}")
            show_evidence(row)


def show_evidence(row: dict[str, Any]) -> None:
    """What speaks for a pair, by kind, and what the graph says of it."""
    console, kind = make_console(), ""
    for text in row["stated"]:
        console.print(f"   in the graph: {text}", soft_wrap=True)
    for path in row["evidence"]:
        label = path["kind"] if path["kind"] != kind else ""
        kind = path["kind"]
        console.print(f"   {label:>16}  {path['text']} ({path['path_score']:.2g})", soft_wrap=True)
    if not row["evidence"]:
        console.print("   no path of the kinds that can be told")


def show_demo(result: dict[str, Any]) -> None:
    """The demonstration's answers side by side, and how to ask more."""
    console, titles = make_console(), {"graphsage": "GraphSAGE", "hgt": "HGT"}
    for model, answer in result.items():
        stats = answer["stats"]
        console.print(
            f"{titles[model]} on the sample graph: {stats['num_nodes']:,} nodes, "
            f"{stats['num_edges']:,} edges, {stats['num_epochs']} epochs in "
            f"{stats['seconds_train']:.1f} s on {stats['device']}, peak memory so far "
            f"{stats['peak_memory_gib']:.2f} GiB."
        )
    console.print("Nearest of the same type, by cosine:\n")
    table = Table(box=None)
    table.add_column("node", style="bold")
    for model in result:
        table.add_column(titles[model])
    for name in result["hgt"]["neighbors"]:
        lists = (answer["neighbors"][name] for answer in result.values())
        cells = (
            "\n".join(f"{row['cosine']:.2f} {row['node_name']}" for row in rows) for rows in lists
        )
        table.add_row(name, *cells, end_section=True)
    console.print(table)
    ranking = result["hgt"]["ranking"]
    console.print(
        f"\nDrugs for {ranking[0]['disease_name']} that the graph does not list, and why:\n"
    )
    show_ranking(ranking)
    stats = result["hgt"]["stats"]
    for ask in (
        f"cdd similar --embeddings {stats['output_file']} --node Warfarin --explain",
        f"cdd rank --model-dir {stats['model_dir']} --disease asthma --explain",
    ):
        console.print(f"\nAsk more: {ask}", soft_wrap=True)


def show_evaluation(result: dict[str, Any]) -> None:
    """The rankers side by side, then link prediction by relation."""
    console, counts = make_console(), result["split_counts"]
    console.print(
        f"{counts['num_test_pairs']:,} held-out pairs of {counts['num_test_diseases']:,} diseases "
        f"(split {result['split']}), each drug ranked among {result['num_candidates']:,}; "
        f"{result['num_leaks']} leaks\n"
    )
    names = ("mrr", "hits@10", "recall@50", "recall@100", "auroc", "auprc", "entropy@50")
    balanced = ("balanced_auroc", "balanced_auprc")
    rankers = list(result["rankers"].items())
    _print_figures("ranker", rankers, names)
    console.print("\nAgainst one drawn drug for each pair, comparable with nothing above:\n")
    _print_figures("ranker", rankers, balanced)
    if result["relations"]:
        console.print(f"\nLink prediction of {result['model']}, candidates of the target's type:\n")
        rows = [
            (f"{m['source_type']} - {m['relation']} - {m['target_type']}", m)
            for m in result["relations"]
        ]
        shown = ("num_targets", "num_candidates", "mrr", "hits@10", "recall@50")
        _print_figures("source - relation - target", rows, shown)
    console.print(f"\nWith 95% intervals: {Path(result['output_dir']) / 'report.json'}")


def _print_figures(
    title: str, rows: list[tuple[str, dict[str, Any]]], names: Sequence[str]
) -> None:
    table = Table(box=None)
    table.add_column(title)
    for name in names:
        table.add_column(name, justify="right")
    for label, figures in rows:
        values = (figures[name] for name in names)
        cells = (
            f"{v:.3f}" if isinstance(v, float) else "" if v is None else f"{v:,}" for v in values
        )
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


Command = tuple[Callable[..., Any], Callable[[Any], None]]
#: Command words -> public function, and how its result is shown without --json.
COMMANDS: dict[tuple[str, ...], Command] = {
    ("embed", "graphsage"): (generate_gnn_embeddings, show_record),
    ("embed", "hgt"): (generate_hgt_embeddings, show_record),
    ("evaluate",): (evaluate_model, show_evaluation),
    ("similar",): (similar_nodes, show_neighbors),
    ("rank",): (rank_drugs, show_ranking),
    ("synthesize",): (synthesize_graph, show_record),
    ("demo",): (run_demo, show_demo),
    ("doctor",): (describe_machine, show_doctor),
}


def make_command(function: Callable[..., Any], show: Callable[[Any], None]) -> Callable[..., None]:
    """A command whose flags are the parameters of `function`, and --json."""
    hints = get_type_hints(function)
    helps = _argument_help(function)
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        flag = f"--{FLAG_NAMES.get(name, name).replace('_', '-')}"
        if parameter.default is True:  # or nobody could turn it off
            flag = f"{flag}/--no-{name.replace('_', '-')}"
        flags = [flag, "--output-dir"] if name == "output_dir" else [flag]
        option = typer.Option(*flags, help=helps[name])
        kind: Any = FLAG_TYPES.get(hints[name], hints[name])
        annotation = Annotated[kind, option]
        parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation))
    as_json = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
    parameters.append(
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=as_json)
    )

    def command(**values: Any) -> None:
        wants_json = values.pop("json")
        try:
            result = function(**values)
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        if wants_json:
            typer.echo(json.dumps(record, allow_nan=False))
        else:
            show(record)
        if isinstance(record, dict) and record.get("try", {}).get("passed") is False:
            raise typer.Exit(1)

    command.__doc__ = (function.__doc__ or "").split("\n\n")[0]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _argument_help(function: Callable[..., Any]) -> dict[str, str]:
    """The `Args:` of a Google docstring, by parameter."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    entries = re.findall(
        r"^    (\w+): ((?:.|\n(?!    \w+: ))+)", section[1] if section else "", re.M
    )
    return {name: " ".join(described.split()) for name, described in entries}


def make_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        help="Node embeddings of biomedical knowledge graphs on one ordinary computer.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    groups: dict[str, typer.Typer] = {}
    for (*group, name), (function, show) in COMMANDS.items():
        parent = app
        for word in group:
            if word not in groups:
                groups[word] = typer.Typer(no_args_is_help=True)
                app.add_typer(groups[word], name=word, help="Train a model and embed all nodes.")
            parent = groups[word]
        parent.command(name)(make_command(function, show))
    return app


def main() -> None:
    """Entry point of the console script `cdd`."""
    # As Ctrl-C does, a polite request to end lets unfinished files be removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    make_app()()
