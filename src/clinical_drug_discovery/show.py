"""Show the results of the commands as tables on stdout."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .graph.identifiers import shown_identifier
from .models.kinds.table import MODELS
from .system.untrusted.text import printable

_LABEL = 19  # width of the labels of evidence
# A row is marked if its rank without popularity is more than five times as high, and over 50.
_POPULAR_FACTOR, _POPULAR_LEAST = 5, 50
_NARROW = 20  # least width of a wrapped text


def make_console() -> Console:
    """Return a console on stdout that prints names such as [phosphorylase] unchanged.

    It wraps lines on a terminal, but not in a pipe or a file.
    """
    width = None if sys.stdout.isatty() else 10_000
    return Console(markup=False, highlight=False, width=width)


def program() -> str:
    """Return the command that starts this program, as it can be typed in the current directory."""
    started = Path(sys.argv[0])
    if started.stem not in ("cdd", "clinical-drug-discovery"):  # started from Python
        started = Path(sys.executable).with_name("cdd")
    found = shutil.which(started.stem)
    if not started.is_file() or (found and Path(found).resolve() == started.resolve()):
        return started.stem
    relative = os.path.relpath(started)
    return shlex.quote(str(started.absolute()) if relative.startswith("..") else relative)


def show_embedding(stats: dict[str, Any]) -> None:
    """Print what a run wrote, its time, memory and loss, and the command to type next."""
    paths = [stats[name] for name in ("output_file", "model_dir")]
    size, size_of_model = _size(Path(paths[0])), _size(*Path(paths[1]).iterdir())
    output, model_dir = map(printable, paths)
    parts = "weights, history, graph" + (", drug ranker" if stats["has_ranker"] else "")
    times = {n.removeprefix("seconds_"): s for n, s in stats.items() if n.startswith("seconds_")}
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in times.items())
    table = Table(show_header=False, box=None)
    for name, text in (
        ("embeddings", f"{output}: {stats['saved_nodes']:,} nodes, {stats['embedding_dim']} "
         f"numbers each, {size}"),
        ("model", f"{model_dir}: {parts}, {size_of_model}"),
        ("graph", f"{stats['num_nodes']:,} nodes, {stats['num_edges']:,} edges, "
         f"{stats['num_relations']} relations"),
        ("loss", f"{stats['final_loss']:.4g} after {stats['finished_epochs']} epochs of "
         f"{MODELS[stats['model']].title} on {stats['device']}"),
        ("time", f"{sum(times.values()):.1f} s: {listed}"),
        ("memory", f"peak {stats['peak_memory_gib']:.2f} GiB (predicted: "
         f"{stats['predicted_memory_gib']:.2f} GiB)"),
        *(("early end", text) for text in [stats["ended_early"]] if text),
        *(("probe", _probe(found)) for found in [stats["probe"]] if found),
        *(("warning", text) for text in stats["warnings"]),
    ):  # fmt: skip
        table.add_row(name, text)
    make_console().print(table)
    node = shlex.quote(stats["example_node"])
    if stats["has_ranker"]:
        asked = f"rank --model-dir {shlex.quote(model_dir)} --disease {node} --explain"
    else:
        asked = f"similar --embeddings {shlex.quote(output)} --node {node}"
    make_console().print(f"\nTry next: {program()} {asked}", soft_wrap=True)


def show_fit(record: dict[str, Any]) -> None:
    """Print the time of a fit of the drug ranker, and the command to type next."""
    console = make_console()
    console.print(f"fitted the drug ranker in {record['seconds_rank_fit']:.1f} s")
    asked = f"--disease {shlex.quote(record['example_node'])} --explain"
    model_dir = shlex.quote(record["model_dir"])
    command = f"{program()} rank --model-dir {model_dir} {asked}"
    console.print(f"\nTry next: {command}", soft_wrap=True)


def _probe(figures: dict[str, Any]) -> str:
    """Say what the probe of the embeddings has found."""
    found, by_walk = (f"{figures[name]:.0%}" for name in ("recall@50", "walk_recall@50"))
    return (
        f"neighbors in the embeddings rank the drug of {found} of {figures['num_pairs']:,} known "
        f"treatments among the first 50 (a walk along related diseases: {by_walk}); optimistic, "
        f"because the training has seen these treatments"
    )


def _size(*paths: Path) -> str:
    """Return the size of some files in words."""
    num_bytes = sum(path.stat().st_size for path in paths)
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.1f} KiB"


def show_fetch(result: dict[str, Any]) -> None:
    """Print the files of a download, the license, and the command to type next."""
    console, files = make_console(), result["files"]
    for file in files:
        state = "written" if file["downloaded"] else "complete already"
        console.print(f"{file['path']}: {file['bytes']:,} bytes, MD5 {file['md5']}, {state}")
    console.print(f"{result['doi']}, version {result['version']}. License: {result['license']}")
    path = Path(files[0]["path"])
    edges = shlex.quote(str(path if len(files) == 1 else path.parent))
    command = f"{program()} embed graphsage --edges {edges} --output graphsage.parquet"
    console.print(f"\nTry next: {command}", soft_wrap=True)


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
    console, flagged = make_console(), any(row["no_facts"] for row in result)
    columns = ["rank", "cosine", "name", "type", "id", "stated", *["no facts"] * flagged]
    table = _table(columns)
    for row in result:
        cells = [str(row["rank"]), f"{row['cosine']:.3f}", row["node_name"], row["node_type"]]
        identifier = shown_identifier(row["node_id"], row["node_source"], row["node_type"])
        cells += [identifier, row["stated"] or ""]
        cells += [_yes(row["no_facts"])] * flagged
        table.add_row(*cells, style="red" if row["contraindicated"] else None)
    console.print(table)
    if any(row["stated"] is None for row in result):
        console.print(
            "No graph lies beside the embeddings, so contraindications are not marked (--model-dir "
            "names the directory of the graph)."
        )
    _print_contraindicated(sum(bool(row["contraindicated"]) for row in result), len(result))
    if any("evidence" in row for row in result):
        from .ranking.evidence.explanations import notes_on  # not before: this imports torch

        _print_evidence(result, "node_name", notes_on(result))


def show_ranking(result: dict[str, Any]) -> None:
    """Print ranked drugs or diseases as a table with its counts, then the evidence for each row."""
    if "num_rows" in result:
        show_record(result)
        return
    console, of = make_console(), "drugs" if "drugs" in result else "diseases"
    one, asked, rows = of[:-1], "disease" if of == "drugs" else "drug", result[of]
    name, source, id_ = (result[f"{asked}_{field}"] for field in ("name", "source", "id"))
    kind = result["vocabulary"][f"{asked}_type"]
    console.print(f"{of.capitalize()} for {name} ({shown_identifier(id_, source, kind)}):\n")
    numbers = ["score", "probability"] if of == "drugs" else ["probability", "score"]
    table = _table(["rank", *numbers, one, "id", "known", "stated"])
    for row in rows:
        values = {"score": f"{row['score']:.2f}", "probability": f"{row['probability']:.3f}"}
        cells = [str(row["rank"]), *(values[number] for number in numbers), row[f"{one}_name"]]
        cells += [row[f"{one}_id"], _yes(row["known"]), row["stated"]]
        table.add_row(*cells, style="red" if row["contraindicated"] else None)
    console.print(table if rows else f"The list is empty: none of the {of} is left.")
    console.print()
    _print_contraindicated(result["num_contraindicated"], len(rows))
    _print_left_out(result, of)
    if result["output"] is not None:
        console.print(f"Written to {result['output']}", soft_wrap=True)
    if "notes" in result:
        _print_evidence(rows, f"{one}_name", result["notes"])


def _print_left_out(result: dict[str, Any], of: str) -> None:
    """Print how many drugs or diseases a list leaves out, and the words that it relies on."""
    from .graph.vocabulary import Vocabulary  # not before: this imports polars

    known, harmful = result["num_known_hidden"], result["num_contraindicated_hidden"]
    missing = result[f"num_{of}_without_facts"]
    what = "treatments of the disease" if of == "drugs" else "treated by the drug"
    lines = [f"{result['num_candidates']:,} {of} were ranked."]
    if known:
        lines += [f"Hidden: {known:,} that the graph lists as {what} (see --include-known)."]
    if harmful:
        lines += [f"Hidden: {harmful:,} that the graph lists as contraindicated."]
    if missing:
        lines += [f"Not ranked: {missing:,} without facts in the graph."]
    if "new_nodes" in result:
        lines += [f"New nodes: {', '.join(result['new_nodes']) or 'none'}."]
    lines += [f"In this graph, {Vocabulary(**result['vocabulary']).describe()}."]
    for line in lines:
        make_console().print(line)


def _print_contraindicated(count: int, length: int) -> None:
    if count:
        verb = "is" if count == 1 else "are"
        text = f"{count} of these {length} {verb} contraindicated according to the graph."
        make_console().print(text, style="red")


def _table(columns: Sequence[str]) -> Table:
    table, numeric = Table(box=None), ("rank", "cosine", "score", "probability")
    for column in columns:
        # "fold" breaks a long word where others would end it with an ellipsis.
        justify: Literal["left", "right"] = "right" if column in numeric else "left"
        table.add_column(column, justify=justify, overflow="fold")
    return table


def _yes(value: bool | None) -> str:
    return "yes" if value else ""


def _print_evidence(rows: Sequence[dict[str, Any]], name: str, notes: Sequence[str]) -> None:
    """Print the notes; then, for each row, the facts about the pair, and its paths by kind.

    The texts wrap at words, behind their labels.
    """
    console = make_console()
    for note in notes:
        console.print(f"\n{note}")
    for row in rows:
        console.print(f"\n{row['rank']}. {row[name]}")
        for fact in row["stated_facts"]:
            style = "red" if fact["contraindicated"] else None
            _print_labelled(console, "in the graph", fact["text"], style)
        kind = ""
        for path in row["evidence"]:
            label = path["kind"] if path["kind"] != kind else ""
            kind = path["kind"]
            _print_labelled(console, label, f"{path['text']} ({path['path_score']:.2g})")
        without = row.get("rank_without_popularity", 0)
        if without > max(_POPULAR_FACTOR * row["rank"], _POPULAR_LEAST):
            text = f"ranks high because much is known of it: without popularity, rank {without:,}"
            _print_labelled(console, "popularity", text)
        if not row["evidence"]:
            text = "no path in the graph raises the score of this row"
            _print_labelled(console, "", text)


def _print_labelled(console: Console, label: str, text: str, style: str | None = None) -> None:
    """Print a text behind its label; further lines start at the column of the text."""
    width = max(console.width - _LABEL - 2, _NARROW)
    for line in Text(text).wrap(console, width):
        console.print(f"{label:>{_LABEL}}  {line.plain.rstrip()}", style=style, soft_wrap=True)
        label = ""


def show_demo(result: dict[str, Any]) -> None:
    """Print the answers of all models side by side, then commands to try next."""
    console, titles = make_console(), {name: entry.title for name, entry in MODELS.items()}
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
    last = [*result.values()][-1]
    for name in last["neighbors"]:
        lists = [answer["neighbors"][name] for answer in result.values()]
        lines = [[f"{row['cosine']:.2f} {row['node_name']}" for row in rows] for rows in lists]
        table.add_row(name, *map("\n".join, lines), end_section=True)
    console.print(table)
    ranking = last["ranking"]
    console.print()
    show_ranking(ranking)
    stats = last["stats"]
    output, model_dir = (
        shlex.quote(printable(stats[name])) for name in ("output_file", "model_dir")
    )
    for command in (
        f"similar --embeddings {output} --node Warfarin --explain",
        f"rank --model-dir {model_dir} --disease asthma --explain",
    ):
        console.print(f"\nTry next: {program()} {command}", soft_wrap=True)


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


def show_cache(result: dict[str, Any]) -> None:
    """Print the cached graphs, or what was removed."""
    console, mb = make_console(), 10**6
    if result["num_removed"]:
        size = result["bytes_removed"] / mb
        console.print(f"Removed {result['num_removed']} cached graphs ({size:,.1f} MB)")
    table = _table(["last used (UTC)", "MB", "graph"])
    for one in result["graphs"]:
        table.add_row(one["last_used"], f"{one['num_bytes'] / mb:,.1f}", printable(one["name"]))
    if result["graphs"]:
        console.print(table)
    total, limit = result["total_bytes"] / mb, result["limit_bytes"] / mb
    where = printable(result["directory"])
    console.print(f"{total:,.1f} of at most {limit:,.0f} MB in {where}", soft_wrap=True)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return str(value)
