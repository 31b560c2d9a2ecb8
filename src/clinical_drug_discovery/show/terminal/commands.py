"""Show the results of the commands as tables on stdout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ...models.kinds.table import MODELS
from ...system.errors import counted
from ...system.untrusted.text import printable
from .console import make_console, make_table, program, show_record
from .ranked_lists import show_ranking


def show_embedding(stats: dict[str, Any]) -> None:
    """Print what a run wrote, its time, memory and loss, and the command to type next."""
    paths = [stats[name] for name in ("output_file", "model_dir")]
    size, size_of_model = _size(Path(paths[0])), _size(*Path(paths[1]).iterdir())
    output, model_dir = map(printable, paths)
    parts = "weights, history, graph" + (", drug ranker" if stats["has_ranker"] else "")
    times = {n.removeprefix("seconds_"): s for n, s in stats.items() if n.startswith("seconds_")}
    compute, exchange = times.pop("compute"), times.pop("exchange")  # of the training and inference
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in times.items())
    table = make_table(show_header=False)
    for name, text in (
        ("embeddings", f"{output}: {counted(stats['saved_nodes'], 'node')}, "
         f"{counted(stats['embedding_dim'], 'number')} each, {size}"),
        ("model", f"{model_dir}: {parts}, {size_of_model}"),
        ("graph", f"{stats['num_nodes']:,} nodes, {stats['num_edges']:,} edges, "
         f"{counted(stats['num_relations'], 'relation')}"),
        ("loss", f"{stats['final_loss']:.4g} after {counted(stats['finished_epochs'], 'epoch')} of "
         f"{MODELS[stats['model']].title} on {stats['device']}"),
        ("time", f"{sum(times.values()):.1f} s: {listed}"),
        *(("processes", f"{number}: compute {compute:.1f} s, exchange {exchange:.1f} s")
          for number in [stats["num_processes"]] if number > 1),
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


def show_address(record: dict[str, Any]) -> None:
    """Print the address of the page that is being served."""
    make_console().print(f"{record['address']}\nCtrl-C ends the page.", soft_wrap=True)


def _probe(figures: dict[str, Any]) -> str:
    """Say what the probe of the embeddings has found."""
    found, by_walk = (f"{figures[name]:.0%}" for name in ("recall@50", "walk_recall@50"))
    sample = ""
    if figures["is_sample"]:
        drugs, diseases = (f"{figures[name]:,}" for name in ("num_drugs", "num_diseases"))
        sample = f", on a sample of {drugs} drugs and {diseases} treated diseases"
    return (
        f"neighbors in the embeddings rank the drug of {found} of {figures['num_pairs']:,} known "
        f"treatments among the first 50 (a walk along related diseases: {by_walk}){sample}; "
        f"optimistic, because the training has seen these treatments"
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


def show_report(result: dict[str, Any]) -> None:
    """Print the path and the size of a report."""
    text = f"{result['output']}: {result['about']}, {result['bytes'] / 2**10:,.0f} KiB"
    make_console().print(text, soft_wrap=True)


def show_map(result: dict[str, Any]) -> None:
    """Print the path of a map and the groups that have a color."""
    console, left_out = make_console(), result["num_without_facts"]
    if result["groups"]:
        table = make_table()
        table.add_column(result["color_by"])
        table.add_column("nodes", justify="right")
        for name, count in result["groups"].items():
            table.add_row(name, f"{count:,}")
        console.print(table)
    nodes = counted(result["num_nodes"], "node")
    text = f"{result['output']}: {nodes}, {result['bytes'] / 2**10:,.0f} KiB"
    verb = "is" if left_out == 1 else "are"
    text += f" ({left_out:,} without facts {verb} left out)" if left_out else ""
    console.print(text, soft_wrap=True)


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
    table = make_table()
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


_OWN_TABLES = ("planned_graph", "plan", "try")  # parts of the result that are shown below it


def show_doctor(result: dict[str, Any]) -> None:
    """Print the machine, then the plan or the trial of each model."""
    trial = result.get("try", {})
    show_record({name: v for name, v in result.items() if name not in _OWN_TABLES})
    planned = {"planned graph": result["planned_graph"]} if "plan" in result else {}
    for name, record in {**planned, **result.get("plan", {}), **trial.get("models", {})}.items():
        make_console().print(f"\n{name}")
        show_record({f"  {key}": v for key, v in record.items() if v not in ([], {})})
    if trial:
        verdict = "agrees with" if trial["passed"] else "DIFFERS from"
        make_console().print(f"\n{trial['device']} ({trial['device_name']}) {verdict} the CPU")
        allowed = ", ".join(f"{name} {value}" for name, value in trial["tolerances"].items())
        make_console().print(f"largest relative differences allowed: {allowed}")


def show_cache(result: dict[str, Any]) -> None:
    """Print the cached graphs, or what was removed."""
    console, mb = make_console(), 10**6
    if result["num_removed"]:
        size = result["bytes_removed"] / mb
        console.print(f"Removed {counted(result['num_removed'], 'cached graph')} ({size:,.1f} MB)")
    table = make_table(["last used (UTC)", "MB", "graph"])
    for one in result["graphs"]:
        table.add_row(one["last_used"], f"{one['num_bytes'] / mb:,.1f}", printable(one["name"]))
    if result["graphs"]:
        console.print(table)
    total, limit = result["total_bytes"] / mb, result["limit_bytes"] / mb
    where = printable(result["directory"])
    console.print(f"{total:,.1f} of at most {limit:,.0f} MB in {where}", soft_wrap=True)
