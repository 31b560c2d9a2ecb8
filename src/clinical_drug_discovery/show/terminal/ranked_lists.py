"""Show ranked drugs, ranked diseases and similar nodes, with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.identifiers import shown_identifier
from ...system.errors import counted
from .console import fitted_table, make_console, print_labelled, show_record, yes

if TYPE_CHECKING:
    from rich.console import Console

# A row is marked if its rank without popularity is more than five times as high, and over 50.
_POPULAR_FACTOR, _POPULAR_LEAST = 5, 50


def show_neighbors(result: list[dict[str, Any]]) -> None:
    """Print similar nodes as a table, then the evidence for each node."""
    console, flagged = make_console(), any(row["no_facts"] for row in result)
    rows: list[tuple[dict[str, str], str | None]] = []
    for row in result:
        cells = {
            "rank": str(row["rank"]),
            "cosine": f"{row['cosine']:.3f}",
            "name": row["node_name"],
            "type": row["node_type"],
            "id": shown_identifier(row["node_id"], row["node_source"], row["node_type"]),
            "stated": row["stated"] or "",
            **({"no facts": yes(row["no_facts"])} if flagged else {}),
        }
        rows.append((cells, "red" if row["contraindicated"] else None))
    _print_table(console, rows, "name", ("no facts", "stated"), ("id", "type"))
    if any(row["stated"] is None for row in result):
        console.print(
            "No graph lies beside the embeddings, so contraindications are not marked (--model-dir "
            "names the directory of the graph)."
        )
    _print_contraindicated(sum(bool(row["contraindicated"]) for row in result), len(result))
    if any("evidence" in row for row in result):
        from ...ranking.evidence.explanations import notes_on  # not before: this imports torch

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
    lines: list[tuple[dict[str, str], str | None]] = []
    for row in rows:
        values = {"score": f"{row['score']:.2f}", "probability": f"{row['probability']:.3f}"}
        cells = {
            "rank": str(row["rank"]),
            **{number: values[number] for number in numbers},
            one: row[f"{one}_name"],
            "id": row[f"{one}_id"],
            "known": yes(row["known"]),
            "stated": row["stated"],
        }
        lines.append((cells, "red" if row["contraindicated"] else None))
    if lines:
        _print_table(console, lines, one, ("known", "stated"), ("score", "id"))
    else:
        console.print(f"The list is empty: none of the {of} is left.")
    console.print()
    _print_contraindicated(result["num_contraindicated"], len(rows))
    _print_left_out(result, of)
    if result["output"] is not None:
        console.print(f"Written to {result['output']}", soft_wrap=True)
    if "notes" in result:
        _print_evidence(rows, f"{one}_name", result["notes"])


def _print_table(
    console: Console,
    rows: Sequence[tuple[Mapping[str, str], str | None]],
    name: str,
    below: Sequence[str],
    spare: Sequence[str],
) -> None:
    """Print a table that keeps to the width of the console; see `fitted_table`."""
    table, left_out = fitted_table(console, rows, name=name, below=below, spare=spare)
    console.print(table)
    if left_out:
        console.print(f"Left out, because the terminal is narrow: {', '.join(left_out)}.")


def _print_left_out(result: dict[str, Any], of: str) -> None:
    """Print how many drugs or diseases a list leaves out, and the words that it relies on."""
    from ...graph.vocabulary import Vocabulary  # not before: this imports polars

    known, harmful = result["num_known_hidden"], result["num_contraindicated_hidden"]
    missing = result[f"num_{of}_without_facts"]
    what = "treatments of the disease" if of == "drugs" else "treated by the drug"
    number = result["num_candidates"]
    lines = [counted(number, f"{of[:-1]} was ranked.", f"{of} were ranked.")]
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
            print_labelled(console, "in the graph", fact["text"], style)
        kind = ""
        for path in row["evidence"]:
            label = path["kind"] if path["kind"] != kind else ""
            kind = path["kind"]
            print_labelled(console, label, f"{path['text']} ({path['path_score']:.2g})")
        without = row.get("rank_without_popularity", 0)
        if without > max(_POPULAR_FACTOR * row["rank"], _POPULAR_LEAST):
            text = f"ranks high because much is known of it: without popularity, rank {without:,}"
            print_labelled(console, "popularity", text)
        if not row["evidence"]:
            text = "no path in the graph raises the score of this row"
            print_labelled(console, "", text)
