"""A cached graph is equal in every field, never stale, and not used when it is damaged."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import Fact, to_rows

from clinical_drug_discovery.graph import cache
from clinical_drug_discovery.graph.cache import CacheOutcome, cache_path, read_cached
from clinical_drug_discovery.graph.knowledge_graph import GraphArrays, KnowledgeGraph
from clinical_drug_discovery.graph.read import read_graph
from clinical_drug_discovery.graph.source import ReadSettings, Source
from clinical_drug_discovery.graph.stored import graph_file
from clinical_drug_discovery.lib.gnn_embeddings import generate_gnn_embeddings
from clinical_drug_discovery.system.errors import InputError

LONG_AGO = time.time_ns() - 3600 * 10**9


@pytest.fixture
def edges(tmp_path: Path, facts: list[Fact], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as old. A test cannot set its ctime back, so the limit of age is 0."""
    monkeypatch.setattr(cache, "_RACY_NS", 0)
    monkeypatch.setenv("CDD_CACHE_DIR", str(tmp_path))
    path = tmp_path / "kg.csv"
    to_rows(facts).write_csv(path)
    return path


def assert_equal(a: KnowledgeGraph, b: KnowledgeGraph) -> None:
    """Assert that two graphs have equal values of equal types in every field."""
    for field in fields(KnowledgeGraph):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert type(left) is type(right), field.name
        if isinstance(left, GraphArrays):
            for name, array in left._asdict().items():
                assert array.dtype == getattr(right, name).dtype, name
                assert np.array_equal(array, getattr(right, name)), name
        elif isinstance(left, pl.DataFrame):
            assert left.schema == right.schema
            assert left.equals(right)
        else:
            assert left == right, field.name
            assert [type(item) for item in _items(left)] == [type(item) for item in _items(right)]


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple) else ()


def read_fresh(path: Path, **options: Any) -> tuple[KnowledgeGraph, CacheOutcome]:
    """Read through the cache, and compare the graph with one read from the file."""
    cache_dir = options.pop("cache_dir", None)
    settings = ReadSettings(**options)
    graph, outcome = read_cached(path, settings, cache_dir)
    assert_equal(graph, read_graph(path, settings))
    return graph, outcome


COMPRESSION: dict[str, Any] = {".csv": "uncompressed", ".csv.gz": "gzip", ".csv.zst": "zstd"}


@pytest.mark.parametrize("suffix", [*COMPRESSION, ".parquet"])
@pytest.mark.parametrize(
    "options", [{}, {"include_node_types": ["drug", "disease"]}, {"limit_nodes": 30}]
)
def test_a_hit_is_the_graph_itself(
    edges: Path, tmp_path: Path, facts: list[Fact], suffix: str, options: dict[str, Any]
) -> None:
    path, elsewhere = tmp_path / f"other{suffix}", tmp_path / "new" / "cache"
    rows = to_rows(facts, both=True)
    if suffix == ".parquet":
        rows.write_parquet(path)
    else:
        rows.write_csv(path, compression=COMPRESSION[suffix])
    for cache_dir in (None, elsewhere):
        for hit in (False, True, True):
            _, outcome = read_fresh(path, cache_dir=cache_dir, **options)
            assert (outcome.hit, outcome.warnings) == (hit, ())
            assert outcome.path.parent == (cache_dir or tmp_path)
            assert str(outcome.path) in outcome.message
    assert len(list(tmp_path.glob("*.graph"))) == len(list(elsewhere.iterdir())) == 1


def test_other_options_do_not_hit(edges: Path, tmp_path: Path) -> None:
    every: list[dict[str, Any]] = [
        {},
        {"include_node_types": ["drug", "disease"]},
        {"include_node_types": ["drug", "disease", "gene/protein"]},
        {"limit_nodes": 30},
        {"limit_nodes": 31},
        {"limit_nodes": 30, "include_node_types": ["drug", "disease"]},
    ]
    for hit in (False, True):
        for options in every:
            assert read_fresh(edges, **options)[1].hit == hit
    # A set is a set, in whatever order it is named.
    assert read_fresh(edges, include_node_types=("disease", "drug"))[1].hit
    # Files of one name share a directory without taking each other's place.
    (tmp_path / "b").mkdir()
    pl.read_csv(edges, infer_schema=False).head(50).write_csv(tmp_path / "b" / "kg.csv")
    for hit in (False, True):
        for path in (edges, tmp_path / "b" / "kg.csv"):
            assert read_fresh(path, cache_dir=tmp_path / "c")[1].hit == hit


def test_bad_options_are_refused_before_anything_is_cached(edges: Path, tmp_path: Path) -> None:
    every: list[dict[str, Any]] = [
        {"limit_nodes": 0},
        {"limit_nodes": True},
        {"include_node_types": "drug"},
        {"include_node_types": []},
        {"include_node_types": [1]},
        {"include_node_types": ["drugs"]},
    ]
    for options in every:
        with pytest.raises(InputError, match=r"(limit_nodes|include_node_types) \(got"):
            read_cached(edges, ReadSettings(**options))
    assert list(tmp_path.iterdir()) == [edges]


@pytest.mark.parametrize("racy", [False, True])
def test_a_change_is_seen_though_size_and_time_stay(
    edges: Path, monkeypatch: pytest.MonkeyPatch, racy: bool
) -> None:
    os.utime(edges, ns=(LONG_AGO, LONG_AGO))
    if racy:  # as on a file system whose ctime is too coarse to tell the two contents apart
        monkeypatch.setattr(cache, "_RACY_NS", 10**10)
        found = cache._stamp(Source.of(edges))
        monkeypatch.setattr(
            cache, "_stamp", lambda source: [[source.edges[0].stat().st_size, *found[0][1:]]]
        )
    assert not read_fresh(edges)[1].hit
    content = edges.read_text()
    changed = content.replace("drug 1,", "drug X,")
    assert changed != content
    assert len(changed) == len(content)
    edges.write_text(changed)
    os.utime(edges, ns=(LONG_AGO, LONG_AGO))
    graph, outcome = read_fresh(edges)
    assert (outcome.hit, outcome.warnings) == (False, ())
    assert "the edges file has changed" in outcome.message
    assert "drug X" in graph.nodes["node_name"]
    assert read_fresh(edges)[1].hit


def test_a_touched_file_is_compared_once(edges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_cached(edges)
    os.utime(edges, ns=(LONG_AGO, LONG_AGO))
    graph, outcome = read_fresh(edges)
    assert outcome.hit
    assert "the edges file has the same content" in outcome.message
    monkeypatch.setattr(cache, "_content_hash", None)  # the stamp was renewed: it is enough
    again, outcome = read_cached(edges)
    assert outcome.hit
    assert_equal(again, graph)


def test_a_damaged_cache_gives_a_warning_and_is_replaced(
    edges: Path, rng: np.random.Generator
) -> None:
    place, wanted = read_cached(edges)[1].path, read_graph(edges)
    whole = place.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    damages = [whole[:n] for n in (0, 7, 8, 100, header - 1, header, len(whole) - 1)]
    damages += [whole + b"\0", b"\0" * len(whole), b"PK" + whole]
    flips = [*range(8), *rng.integers(8, header, 60), *rng.integers(header, len(whole), 60)]
    for at in flips:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        damages.append(bytes(flipped))
    for damaged in damages:
        place.unlink()  # what was loaded before is still mapped
        place.write_bytes(damaged)
        graph, outcome = read_cached(edges)
        assert_equal(graph, wanted)
        assert not outcome.hit
        said = " ".join((outcome.message, *outcome.warnings))
        assert re.search("is damaged, so the file is read again|is of (a )?version", said), said
        assert read_cached(edges)[1].hit
    assert {path.name for path in place.parent.iterdir()} == {edges.name, place.name}


def test_another_version_is_replaced(edges: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_cached(edges)
    monkeypatch.setattr(graph_file, "FORMAT_VERSION", graph_file.FORMAT_VERSION + 1)
    outcome = read_fresh(edges)[1]
    assert (outcome.hit, outcome.warnings) == (False, ())
    assert "of version" in outcome.message
    assert read_cached(edges)[1].hit
    assert len(list(edges.parent.iterdir())) == 2


def test_a_half_written_cache_of_another_process_is_left_alone(edges: Path) -> None:
    part = edges.with_name(".part-abc.graph")
    part.write_bytes(b"half")
    assert [read_fresh(edges)[1].hit for _ in range(2)] == [False, True]
    assert part.read_bytes() == b"half"


def test_a_cache_that_cannot_be_written_is_a_warning(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for cache_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        outcome = read_fresh(edges, cache_dir=cache_dir)[1]
        assert not outcome.hit
        (text,) = outcome.warnings
        assert "the graph could not be cached as" in text
        assert "not cached" in outcome.message
    cache_path(Source.of(edges), ReadSettings(), None).mkdir()  # its very place is taken
    assert any("could not be cached" in text for text in read_fresh(edges)[1].warnings)
    cache_path(Source.of(edges), ReadSettings(), None).rmdir()
    monkeypatch.setattr(cache, "save_graph", _disk_full)
    assert "No space left" in read_fresh(edges)[1].warnings[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kg.csv"]


def _disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_link_in_the_cache_is_replaced_and_not_followed(edges: Path, tmp_path: Path) -> None:
    cached = read_cached(edges)[1].path
    victim = tmp_path / "precious.graph"
    cached.rename(victim)
    content = victim.read_bytes()
    cached.symlink_to(victim)
    outcome = read_fresh(edges)[1]
    assert not outcome.hit
    assert "it is a link" in outcome.warnings[0]
    assert victim.read_bytes() == content
    assert not cached.is_symlink()
    assert read_fresh(edges)[1].hit


def test_a_graph_of_another_user_is_not_loaded(
    edges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = read_cached(edges)[1].path
    if os.geteuid() == 0:
        os.chown(cached, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to another user" in read_cached(edges)[1].warnings[0]


def test_the_least_recently_used_graphs_make_room(
    edges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [ReadSettings(limit_nodes=n) for n in (30, 31, 32, 33)]
    paths = [read_cached(edges, one)[1].path for one in settings[:3]]
    for path, age in zip(paths, (30, 20, 10), strict=True):
        os.utime(path, (time.time() - age, time.time() - age))
    assert read_cached(edges, settings[0])[1].hit  # the oldest, which is used again
    largest = max(path.stat().st_size for path in paths)
    monkeypatch.setenv("CDD_CACHE_SIZE", str(3 * largest + largest // 2))
    outcome = read_cached(edges, settings[3])[1]
    assert "removed 1 cached graph that was not used" in outcome.message
    assert [path.exists() for path in paths] == [True, False, True]
    monkeypatch.setenv("CDD_CACHE_SIZE", "1KB")
    for path in tmp_path.glob("*.graph"):
        path.unlink()
    (warning,) = read_cached(edges)[1].warnings
    assert re.search(r"not cached: its [\d,]+ bytes are more than CDD_CACHE_SIZE", warning)
    assert list(tmp_path.iterdir()) == [edges]
    monkeypatch.setenv("CDD_CACHE_SIZE", "much")
    with pytest.raises(InputError, match=r"CDD_CACHE_SIZE \(got 'much'\) must be"):
        read_cached(edges)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write anywhere"
)
def test_a_directory_without_permission_is_a_warning(edges: Path) -> None:
    edges.parent.chmod(0o500)
    try:
        assert "Permission denied" in read_cached(edges)[1].warnings[0]
    finally:
        edges.parent.chmod(0o700)


def test_a_file_that_changes_while_it_is_read_is_not_cached(
    edges: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_touch(source: Source, settings: ReadSettings, memory: None) -> KnowledgeGraph:
        graph = read_graph(source, settings, memory)
        os.utime(source.edges[0], ns=(LONG_AGO, LONG_AGO))
        return graph

    monkeypatch.setattr(cache, "read_graph", read_and_touch)
    assert "changed while it was read" in read_cached(edges)[1].warnings[0]
    monkeypatch.setattr(cache, "read_graph", read_graph)
    monkeypatch.setattr(cache, "_content_hash", _disk_full)
    assert "cannot be read again" in read_cached(edges)[1].warnings[0]
    assert list(edges.parent.iterdir()) == [edges]


def test_a_faulty_file_leaves_no_thread_and_no_cache(edges: Path) -> None:
    edges.write_text(edges.read_text().replace("drug 1,", ","))
    with pytest.raises(InputError, match="row"):
        read_cached(edges)
    assert list(edges.parent.iterdir()) == [edges]


def test_runs_with_the_cache_are_those_without(edges: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "embedding_dim": 12, "hidden_dim": 8, "num_layers": 2, "num_epochs": 2,
        "ranker": False,
    }  # fmt: skip
    contents, reports = [], []
    for name in ("a", "b", "c"):
        stats = generate_gnn_embeddings(
            edges, tmp_path / f"{name}.parquet", cache=name != "a", **small
        )
        contents.append((tmp_path / f"{name}.parquet").read_bytes())
        reports.append(stats["read_report"])
        assert len(list(tmp_path.glob("*.graph"))) == (name != "a")
    assert contents[0] == contents[1] == contents[2]
    assert reports[0] == reports[1] == reports[2]
    place = cache_path(Source.of(edges), ReadSettings(limit_nodes=30), None)
    with pytest.raises(InputError, match="it is the cached graph"):
        generate_gnn_embeddings(edges, tmp_path / "d.npy", model_dir=place, limit_nodes=30, **small)
    with pytest.raises(InputError, match=r"cache_dir .* must be left out"):
        generate_gnn_embeddings(edges, tmp_path / "d.npy", cache=False, cache_dir=tmp_path, **small)


#: Digest of the fixture's graph in each version; a new digest needs a new FORMAT_VERSION.
DIGESTS = {
    1: "fb7cabfa751b4b9e",
    2: "705cb0238eb90cce",
    3: "3f221df7d4b6246a",
    4: "9590c540bf4ce563",
    5: "9590c540bf4ce563",  # other faults of files are found
    6: "9590c540bf4ce563",  # nodes are stored as text, without a table format
}


def test_another_graph_needs_another_format_version(edges: Path) -> None:
    """Otherwise an old cached graph would be used in place of the new graph."""
    graph, digest = read_graph(edges), hashlib.sha256()
    for name, array in graph.arrays._asdict().items():
        digest.update(name.encode() + array.tobytes())
    for field in fields(graph)[1:]:  # the first has the arrays
        value = getattr(graph, field.name)
        digest.update(field.name.encode())
        if isinstance(value, pl.DataFrame):
            digest.update(value.write_csv().encode())
        else:
            digest.update(repr(value).encode())
    assert DIGESTS[graph_file.FORMAT_VERSION] == digest.hexdigest()[:16]
