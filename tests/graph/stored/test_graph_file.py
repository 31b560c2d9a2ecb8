"""A graph comes back equal, and a file whose checksum is right but whose content is not, never."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph, without_edges
from clinical_drug_discovery.graph.stored import check_graph, graph_file
from clinical_drug_discovery.graph.stored.graph_file import FORMAT_VERSION, load_graph, save_graph
from clinical_drug_discovery.system.files import (
    DamagedFileError,
    load_checksummed,
    save_checksummed,
)

Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def resealed(path: Path, change: Change) -> Path:
    """Write a changed copy of a checksummed file, with a right checksum."""
    record, tensors = load_checksummed(path, FORMAT_VERSION)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(record, tensors)
    other = path.with_suffix(".changed")
    save_checksummed(other, FORMAT_VERSION, record, tensors)
    return other


@pytest.fixture
def saved(tmp_path: Path, graph: KnowledgeGraph) -> Path:
    save_graph(tmp_path / "g", graph, {"a": 1})
    return tmp_path / "g"


def assert_same(one: KnowledgeGraph, other: KnowledgeGraph) -> None:
    for name, array in one.arrays._asdict().items():
        same = getattr(other.arrays, name)
        assert array.dtype == same.dtype
        assert np.array_equal(array, same)
    assert one.nodes.equals(other.nodes)
    assert one.nodes.schema == other.nodes.schema
    assert (one.edge_types, one.report, one.vocabulary) == (
        other.edge_types, other.report, other.vocabulary
    )  # fmt: skip


def test_a_graph_comes_back_in_pieces(
    tmp_path: Path, graph: KnowledgeGraph, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many nodes are written and read piece by piece, and the arrays of a graph mapped again."""
    names = ["", "é", "a longer name of a node"] * graph.num_nodes
    odd = replace(
        graph, nodes=graph.nodes.with_columns(node_name=np.array(names[: graph.num_nodes], object))
    )
    for size in (1, 2, 7, 30):
        monkeypatch.setattr(graph_file, "_PIECE_ROWS", size)
        monkeypatch.setattr(graph_file, "_PIECE_BYTES", size)
        save_graph(tmp_path / "in_pieces", graph, {"a": 1})
        assert (tmp_path / "in_pieces").read_bytes() == saved.read_bytes()
        save_graph(tmp_path / "in_pieces", odd, {"a": 1})
        assert_same(load_graph(tmp_path / "in_pieces")[0], odd)
    mapped = graph_file.with_mapped_arrays(saved, graph)
    assert_same(mapped, graph)
    assert not mapped.arrays.src.flags.owndata


def test_names_of_more_than_4_gib_have_their_length() -> None:
    names = pl.Series(["x" * 2**20]).new_from_index(0, 4097)  # all are views of one text
    assert graph_file._JoinedTexts(names).shape == (4097 * 2**20 + 4096,)


def test_odd_graphs_come_back(tmp_path: Path, graph: KnowledgeGraph) -> None:
    names = [["", "a\nb", "é", "'", '"', "\x1b[1m"][i % 6] for i in range(graph.num_nodes)]
    nodes = graph.nodes.with_columns(
        node_name=np.array(names, object), node_source=np.array([""] * len(names), object)
    )
    removed = np.zeros(graph.num_edges, bool)
    removed[: graph.num_edges // 2] = True
    for number, one in enumerate(
        (graph, replace(graph, nodes=nodes), without_edges(graph, removed))
    ):
        save_graph(tmp_path / str(number), one, {})
        assert_same(one, load_graph(tmp_path / str(number))[0])


@pytest.mark.parametrize("name", ["node_type", "src", "indptr", "edge_type_ptr", "type_ptr"])
@pytest.mark.parametrize("piece", [2**24, 7])
def test_every_changed_number_of_a_tensor_is_refused(
    saved: Path, rng: np.random.Generator, piece: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_graph, "_PIECE_EDGES", piece)
    assert load_graph(resealed(saved, lambda *_: None))[1] == {"a": 1}
    size = load_checksummed(saved, FORMAT_VERSION)[1][name].numel()
    for at in {0, size - 1, *rng.integers(size, size=25).tolist()}:
        for add in (1, -1, 2**31 - 1, -(2**31)):

            def change(_: Any, tensors: dict[str, Tensor], at: int = at, add: int = add) -> None:
                low, high = -(2**31), 2**31 - 1
                tensors[name][at] = min(max(int(tensors[name][at]) + add, low), high)

            with pytest.raises(DamagedFileError):
                load_graph(resealed(saved, change))


def other_tensors(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return tensors of other sizes and types in place of one."""
    if tensor.dtype == torch.uint8:  # text: a shorter or longer name is a name
        lengths = {"empty": tensor[:0], "NUL": torch.cat([tensor, torch.zeros(1).byte()])}
    else:
        lengths = {"short": tensor[:-1].clone(), "long": torch.cat([tensor, tensor[-1:]])}
    return lengths | {
        "matrix": tensor[:, None].clone(),
        "number": tensor[0].clone(),
        "float": tensor.float(),
        "wide": tensor.short() if name.endswith("index") else tensor.to(torch.int8),
    }


def test_other_shapes_types_and_names_are_refused(saved: Path) -> None:
    _, tensors = load_checksummed(saved, FORMAT_VERSION)
    for name, tensor in tensors.items():
        for other in other_tensors(name, tensor).values():

            def change(
                _: Any, found: dict[str, Tensor], name: str = name, new: Any = other
            ) -> None:
                found[name] = new

            with pytest.raises(DamagedFileError):
                load_graph(resealed(saved, change))

        def rename(_: Any, found: dict[str, Tensor], name: str = name) -> None:
            found["x" + name] = found.pop(name)

        with pytest.raises(DamagedFileError):
            load_graph(resealed(saved, rename))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[Any, ...]] = []
    for key, one in inner:
        found.append((*path, key))
        if isinstance(one, dict | list):
            found += paths_of(one, (*path, key))
    return found


def test_every_record_of_another_type_is_refused(saved: Path) -> None:
    record, tensors = load_checksummed(saved, FORMAT_VERSION)
    for path in paths_of(record["graph"]):
        others: tuple[Any, ...] = (None, [], {}, -1, 1.5, True, [[]], "\x00 other")
        for new in others:
            changed = json.loads(json.dumps(record))
            place = changed["graph"]
            for key in path[:-1]:
                place = place[key]
            kept = type(new) is type(place[path[-1]]) and path[0] in ("report", "vocabulary")
            place[path[-1]] = new
            save_checksummed(saved.with_suffix(".x"), FORMAT_VERSION, changed, tensors)
            if not kept:
                with pytest.raises(DamagedFileError):
                    load_graph(saved.with_suffix(".x"))
    records: tuple[Any, ...] = (None, [], 7, {"graph": record["graph"]}, {**record, "about": []})
    for bad in records:
        save_checksummed(saved.with_suffix(".x"), FORMAT_VERSION, bad, tensors)
        with pytest.raises(DamagedFileError):
            load_graph(saved.with_suffix(".x"))


def test_an_edge_without_its_reverse_is_refused(saved: Path, graph: KnowledgeGraph) -> None:
    """Two sources of one target change places with another: all ranges stay right."""
    rows = graph.indptr_of(0).diff()
    target = int((rows > 0).nonzero()[0, 0])
    at = int(graph.indptr_of(0)[target])
    first, _ = graph.node_range(graph.endpoint_types[0][0])
    free = set(range(*graph.node_range(graph.endpoint_types[0][0])))
    others = graph.src[at : at + int(rows[target])].tolist()
    new = min(free - {*others})
    assert first <= new

    def change(_: Any, tensors: dict[str, Tensor]) -> None:
        tensors["src"][at : at + len(others)] = torch.tensor(sorted([*others[1:], new])).int()

    with pytest.raises(DamagedFileError, match="reverse"):
        load_graph(resealed(saved, change))
