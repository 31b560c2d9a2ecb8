"""A damaged file never loses rows, or merges or splits nodes, without a word.

Each file of a small graph is damaged in thousands of ways. The program must refuse the damaged
file, warn, or read a graph that differs from the original only by the lines that differ.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from graphs import to_rows
from layouts import FACTS, LAYOUTS

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import Source
from clinical_drug_discovery.system.errors import InputError

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]
Key = tuple[str, ...]  #: source, type and id of a node
Edge = tuple[Key, str, Key]
_SEPARATORS = (b",", b";", b"\t", b"|")


def _lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def _of_lines(change: Callable[[list[bytes], int, Rng], None]) -> Damage:
    def damage(text: bytes, rng: Rng) -> bytes:
        lines = _lines(text)
        change(lines, int(rng.integers(len(lines))), rng)
        return b"".join(lines)

    return damage


def flip(text: bytes, rng: Rng) -> bytes:
    changed = bytearray(text)
    changed[rng.integers(len(text))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def insert(text: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(text) + 1))
    odd = [b'"', b'\\"', b"\n", b"\r", b"\0", b",", b"\t", b";", b" ", b"\xff", b"\xef\xbb\xbf"]
    return text[:at] + odd[rng.integers(len(odd))] + text[at:]


def cut(text: bytes, rng: Rng) -> bytes:
    return text[: rng.integers(len(text))]


def cut_out(text: bytes, rng: Rng) -> bytes:
    start, end = sorted(rng.integers(len(text) + 1, size=2).tolist())
    return text[:start] + text[end:]


def _remove(lines: list[bytes], at: int, rng: Rng) -> None:
    del lines[at]


def _double(lines: list[bytes], at: int, rng: Rng) -> None:
    lines.insert(int(rng.integers(len(lines) + 1)), lines[at])


def _swap(lines: list[bytes], at: int, rng: Rng) -> None:
    other = int(rng.integers(len(lines)))
    lines[at], lines[other] = lines[other], lines[at]


def _shorten(lines: list[bytes], at: int, rng: Rng) -> None:
    lines[at] = lines[at][: rng.integers(len(lines[at]))] + b"\n"


def _join(lines: list[bytes], at: int, rng: Rng) -> None:
    lines[at] = lines[at].rstrip(b"\r\n")


def _blank_field(lines: list[bytes], at: int, rng: Rng) -> None:
    mark = max(_SEPARATORS, key=lines[at].count)
    fields = lines[at].rstrip(b"\r\n").split(mark)
    fields[rng.integers(len(fields))] = [b"", b" ", b'""', b"NA"][rng.integers(4)]
    lines[at] = mark.join(fields) + b"\n"


def _swap_fields(lines: list[bytes], at: int, rng: Rng) -> None:
    mark = max(_SEPARATORS, key=lines[at].count)
    fields = lines[at].rstrip(b"\r\n").split(mark)
    i, j = rng.integers(len(fields), size=2).tolist()
    fields[i], fields[j] = fields[j], fields[i]
    lines[at] = mark.join(fields) + b"\n"


def _other_mark(lines: list[bytes], at: int, rng: Rng) -> None:
    mark = max(_SEPARATORS, key=lines[at].count)
    lines[at] = lines[at].replace(mark, _SEPARATORS[rng.integers(len(_SEPARATORS))])


def _quote_two(lines: list[bytes], at: int, rng: Rng) -> None:
    """Insert a quote into a field of two lines, as where both are left open."""
    for number in (at, int(rng.integers(len(lines)))):
        place = int(rng.integers(len(lines[number]) + 1))
        mark = lines[number].find(max(_SEPARATORS, key=lines[number].count), place) + 1
        lines[number] = lines[number][:mark] + b'"' + lines[number][mark:]


def append_again(text: bytes, rng: Rng) -> bytes:
    """Join the file with itself or a part of itself, as `cat` does."""
    lines = _lines(text)
    return text + b"".join(lines[: rng.integers(1, len(lines) + 1)])


DAMAGES: tuple[Damage, ...] = (
    flip, insert, cut, cut_out, append_again,
    *map(_of_lines, (
        _remove, _double, _swap, _shorten, _join, _blank_field, _swap_fields, _other_mark,
        _quote_two,
    )),
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """The content of a graph: its nodes and directed edges as text, and the numbers of rows."""

    nodes: frozenset[tuple[str, ...]]
    edges: frozenset[Edge]
    graph: KnowledgeGraph


def content(paths: tuple[Path, Path | None]) -> Content:
    graph = read_graph(Source.of(*paths))
    rows = graph.nodes.select("node_source", "node_type", "node_id", "node_name").rows()
    names = [graph.edge_types[kind].relation for kind in graph.edge_type.tolist()]
    edges = zip(graph.src.tolist(), names, graph.dst.tolist(), strict=True)
    return Content(
        frozenset(rows), frozenset((rows[x][:3], r, rows[y][:3]) for x, r, y in edges), graph
    )


def _num_lines(some: Content) -> int:
    return some.graph.report.num_rows + some.graph.report.num_skipped_rows


def _touches(edge: Edge, nodes: set[Key]) -> bool:
    return edge[0] in nodes or edge[2] in nodes


def unexplained(before: Content, after: Content, old: bytes, new: bytes, is_edges: bool) -> str:
    """Return why a difference between two graphs is more than the lines that differ; or ""."""
    was, now = (Counter(line.strip() for line in text.split(b"\n")) for text in (old, new))
    gone, come = was - now, now - was
    del gone[b""], come[b""]
    del gone[b"head,relation,tail"]  # triples without their header are triples, too
    num_gone, num_come = sum(gone.values()), sum(come.values())
    headers = [text.split(b"\n")[0].strip() for text in (old, new)]
    if headers[0] != headers[1] and sorted(headers[0]) == sorted(headers[1]):
        return ""  # the header names the columns in another order, so every row means another fact
    changed = {node[:3] for node in before.nodes ^ after.nodes}
    lost, won = set(before.edges - after.edges), set(after.edges - before.edges)
    if is_edges:
        change = _num_lines(after) - _num_lines(before)
        change -= sum(not line.strip() for line in new.split(b"\n")[:-1])
        if change != num_come - num_gone:
            return f"{num_gone} lines gone, {num_come} come, but {change:+} rows"
        mixed = b"_id" in old[:4]  # rows of nodes and of edges
        if mixed:  # the edges of a node that another line renames
            lost, won = ({e for e in some if not _touches(e, changed)} for some in (lost, won))
        if len(lost) > 2 * num_gone or len(won) > 2 * num_come:
            return f"{len(lost)} edges lost by {num_gone} lines, {len(won)} won by {num_come}"
        nodes = len(before.nodes - after.nodes), len(after.nodes - before.nodes)
        if nodes[0] > 2 * num_gone or nodes[1] > 2 * num_come:
            return f"{nodes[0]} nodes lost by {num_gone} lines, {nodes[1]} won by {num_come}"
    else:
        if after.graph.report.num_rows != before.graph.report.num_rows:
            return "another number of rows, but the edges are the same"
        nodes = len(before.nodes - after.nodes), len(after.nodes - before.nodes)
        if nodes[0] > num_gone or nodes[1] > num_come:
            return f"{nodes[0]} nodes lost by {num_gone} lines, {nodes[1]} won by {num_come}"
        if not all(_touches(edge, changed) for edge in lost | won):
            return "edges between unchanged nodes were lost"
    return ""


def outcomes(
    folder: Path, paths: tuple[Path, Path | None], damages: Sequence[tuple[Damage, int]]
) -> Counter[str]:
    """Damage each file of a graph in every way; return the number of times of each outcome."""
    before, counts = content(paths), Counter[str]()
    for path in [one for one in paths if one is not None]:
        raw = path.read_bytes()
        packed = raw.startswith(b"\x1f\x8b")
        old = gzip.decompress(raw) if packed else raw
        for number, (damage, seed) in enumerate(damages):
            new = damage(old, np.random.default_rng(seed))
            path.write_bytes(gzip.compress(new, 1) if packed else new)
            where = f"{path.name}, damage {number} (seed {seed})"
            try:
                after = content(paths)
            except InputError:
                counts["refused"] += 1
                continue
            if after.graph.report.warnings != before.graph.report.warnings:
                counts["warned"] += 1
                continue
            text = unexplained(before, after, old, new, path == paths[0])
            same = (before.nodes, before.edges) == (after.nodes, after.edges)
            counts["same" if same else "explained"] += 1
            (folder / "damaged").write_bytes(new)
            assert not text, f"{where}: {text}; see {folder / 'damaged'}"
        path.write_bytes(raw)
    return counts


def as_text(frame: pl.DataFrame) -> bytes:
    """Return the rows of a table as lines of tabs."""
    return frame.write_csv(separator="\t", include_header=False, quote_style="never").encode()


def as_table(text: bytes, like: pl.DataFrame) -> pl.DataFrame:
    """Return lines of tabs as a table; short lines have nulls at the end."""
    width = len(like.columns)
    lines = [line for line in text.decode(errors="replace").split("\n") if line.strip()]
    rows = [([*line.split("\t"), *([None] * width)])[:width] for line in lines]
    return pl.DataFrame(rows, like.columns, orient="row", schema_overrides=like.schema)


TEXTS = [name for name in LAYOUTS if name not in ("OptimusKG", "Hetionet JSON")]
#: `make fuzz` draws new ones for as long as it is asked to.
numbers = pytest.mark.parametrize(
    "number", [len(DAMAGES) * 2, pytest.param(100, marks=pytest.mark.slow)], ids=str
)


@numbers
@pytest.mark.parametrize("name", TEXTS)
def test_no_damage_to_a_text_file_is_silent(tmp_path: Path, name: str, number: int) -> None:
    damages = [(DAMAGES[i % len(DAMAGES)], i) for i in range(number)]
    counts = outcomes(tmp_path, LAYOUTS[name](tmp_path, FACTS), damages)
    assert counts["refused"] > 0
    assert counts["same"] + counts["explained"] + counts["warned"] > 0


@numbers
def test_no_damage_to_a_json_file_is_silent(tmp_path: Path, number: int) -> None:
    """Each edge of the damaged file is a row, and only edges of damaged lines differ."""
    paths = LAYOUTS["Hetionet JSON"](tmp_path, FACTS)
    old, before, counts = paths[0].read_bytes(), content(paths), Counter[str]()
    for seed in range(number):
        new = DAMAGES[seed % len(DAMAGES)](old, np.random.default_rng(seed))
        paths[0].write_bytes(new)
        try:
            after = content(paths)
        except InputError:
            counts["refused"] += 1
            continue
        counts["read"] += 1
        if after.graph.report.warnings == before.graph.report.warnings:
            assert after.graph.report.num_rows == new.count(b'"source_id"'), seed
            lines = [text.split(b"\n") for text in (old, new)]
            was, now = map(Counter, lines)
            num_moved = sum(a != b for a, b in zip(*lines, strict=False))
            num_changed = sum(((was - now) + (now - was)).values()) or num_moved
            changed = {node[:3] for node in before.nodes ^ after.nodes}
            differ = [e for e in before.edges ^ after.edges if not _touches(e, changed)]
            assert len(differ) <= 4 * num_changed, seed  # a fact has two edges, before and after
    assert min(counts.values()) > 0
    assert len(counts) == 2


@numbers
def test_no_damage_to_the_values_of_optimuskg_is_silent(tmp_path: Path, number: int) -> None:
    """The rows of its Parquet files are damaged like lines of text, and written again."""
    paths = LAYOUTS["OptimusKG"](tmp_path, FACTS)
    before, counts = content(paths), Counter[str]()
    for path in [one for one in paths if one is not None]:
        raw, frame = path.read_bytes(), pl.read_parquet(path).drop("undirected", strict=False)
        old = as_text(frame)
        for seed in range(number):
            table = as_table(DAMAGES[seed % len(DAMAGES)](old, np.random.default_rng(seed)), frame)
            table.write_parquet(path)
            try:
                after = content(paths)
            except InputError:
                counts["refused"] += 1
                continue
            counts["read"] += 1
            if after.graph.report.warnings == before.graph.report.warnings:
                text = unexplained(before, after, old, as_text(table), path == paths[0])
                assert not text, f"{path.name}, seed {seed}: {text}"
        path.write_bytes(raw)
    assert min(counts.values()) > 0
    assert len(counts) == 2


@numbers
def test_damage_to_a_parquet_file_loses_no_rows(tmp_path: Path, number: int) -> None:
    path = tmp_path / "kg.parquet"
    to_rows(FACTS * 20).write_parquet(path)
    old, counts = path.read_bytes(), Counter[str]()
    for seed in range(number):
        # Not flip: polars may end the process if a changed size asks for too much memory.
        path.write_bytes((cut, cut_out)[seed % 2](old, np.random.default_rng(seed)))
        try:
            assert content((path, None)).graph.report.num_rows == 20 * len(FACTS), seed
            counts["read"] += 1
        except InputError:
            counts["refused"] += 1
    assert counts["refused"] > counts["read"]
