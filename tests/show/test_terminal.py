"""Lists on the terminal keep to its width, say what they leave out, and use color sparingly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from clinical_drug_discovery.graph.frames.tables import graph_of_frames
from clinical_drug_discovery.lib.rank import rank_drugs
from clinical_drug_discovery.lib.similar import similar_nodes
from clinical_drug_discovery.show.terminal import ranked_lists
from clinical_drug_discovery.show.terminal.commands import show_cache
from clinical_drug_discovery.show.terminal.console import make_console
from clinical_drug_discovery.show.terminal.evaluation import headline
from clinical_drug_discovery.show.terminal.ranked_lists import show_neighbors, show_ranking
from clinical_drug_discovery.system.errors import counted

WIDTHS = (40, 80, 200)
DISEASE = "Parkinson disease"


@pytest.fixture(scope="module")
def ranking(model_dir: Path) -> dict[str, Any]:
    return rank_drugs(model_dir, disease=DISEASE, top=200, include_known=True, explain=True)


@pytest.fixture(scope="module")
def neighbors(model_dir: Path) -> list[dict[str, Any]]:
    path = model_dir.with_name("e.parquet")
    return similar_nodes(path, DISEASE, type="drug", top=200, explain=True)


def shown(show: Any, result: Any, console: Console, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(ranked_lists, "make_console", lambda: console)
    with console.capture() as capture:
        show(result)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_lists_keep_to_the_width_and_to_one_header_line(
    ranking: dict[str, Any], neighbors: list[dict[str, Any]], width: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    console = Console(width=width, markup=False, highlight=False)
    for show, result, header in (
        (show_ranking, ranking, ["rank", "score", "probability", "drug", "id", "known", "stated"]),
        (show_neighbors, neighbors, ["rank", "cosine", "name", "type", "id", "stated"]),
    ):
        lines = shown(show, result, console, monkeypatch)
        assert max(map(len, lines)) <= width
        (found,) = (line.split() for line in lines if line.split()[:1] == ["rank"])
        text = " ".join(" ".join(lines).split())
        left_out = text.partition("the terminal is narrow: ")[2].partition(".")[0].split(", ")
        missing = [name for name in header if name not in found]
        assert set(missing) <= {*left_out, "known", "stated"}
        assert not missing or width < 200
        rows = result["drugs"] if isinstance(result, dict) else result
        harmful = next(row for row in rows if row["contraindicated"])
        name = harmful.get("drug_name") or harmful["node_name"]
        at = next(i for i, line in enumerate(lines) if name in line.split())
        assert "contraindication" in " ".join(lines[at : at + 3])


def test_a_pipe_gets_whole_lines_without_color(
    ranking: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    show_ranking(ranking)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    texts = [path["text"] for row in ranking["drugs"] for path in row["evidence"]]
    assert all(text in out for text in texts)  # not wrapped


def test_color_says_that_a_drug_is_contraindicated_and_no_color_turns_it_off(
    ranking: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"force_terminal": True, "markup": False, "highlight": False}
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Console(width=80, color_system="standard", **options)
    colored = [
        line for line in shown(show_ranking, ranking, console, monkeypatch) if "[31m" in line
    ]
    assert colored
    assert all("contraindic" in line or "Haloperidol" in line for line in colored)
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(width=80, color_system="standard", **options)
    assert "[31m" not in "".join(shown(show_ranking, ranking, console, monkeypatch))
    assert make_console().no_color


def test_a_name_is_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "rank": 1, "cosine": 1.0, "node_name": "[red]phosphorylase[/red]", "node_type": "drug",
        "node_id": "1", "node_source": "", "stated": "", "contraindicated": False,
        "no_facts": False,
    }  # fmt: skip
    console = Console(width=80, markup=False, highlight=False)
    lines = shown(show_neighbors, [row], console, monkeypatch)
    assert "[red]phosphorylase[/red]" in "".join(lines)


def test_a_count_of_one_has_a_singular_noun() -> None:
    gold = {
        "gold": "gold.csv", "since": "", "num_ranked_pairs": 1, "num_ranked_diseases": 1,
        "num_candidates": 1000,
    }  # fmt: skip
    text = "1 approved pair of 1 disease from gold.csv, each ranked among 1,000 drugs"
    assert headline(gold) == text
    counts = {"num_test_pairs": 2, "num_test_diseases": 1}
    held_out = {
        "split_counts": counts, "on": "test", "split": "disease", "num_candidates": 3,
        "num_leaks": 1,
    }  # fmt: skip
    text = "2 held-out pairs of 1 disease (split disease, test), each ranked among 3 drugs; 1 leak"
    assert headline(held_out) == text
    assert counted(0, "name or id has", "names or ids have") == "0 names or ids have"


def test_the_numbers_of_a_small_graph_are_named_in_the_singular(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        {"node_type": "drug", "node_id": str(i), "node_name": f"drug {i}", "node_source": "s"}
        for i in range(2)
    ]
    columns = {
        f"{side}_{name.removeprefix('node_')}": [node[name]]
        for side, node in zip("xy", nodes, strict=True)
        for name in node
    }
    graph = graph_of_frames(pl.DataFrame({"relation": ["interacts"], **columns}))
    assert repr(graph) == "<KnowledgeGraph: 2 nodes of 1 type, 2 edges of 1 relation>"
    record = {"num_removed": 1, "bytes_removed": 10**6, "graphs": [], "total_bytes": 0}
    show_cache(record | {"limit_bytes": 10**9, "directory": str(tmp_path)})
    assert capsys.readouterr().out.startswith("Removed 1 cached graph (1.0 MB)\n")
