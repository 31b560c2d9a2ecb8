"""Numbering agrees with a dictionary, and facts agree with sets, whatever the hashes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import assert_same_graph, random_facts, read_facts

from clinical_drug_discovery.graph import build
from clinical_drug_discovery.graph.build import (
    Numbering,
    build_graph,
    distinct_facts,
    node_bits,
    pack_rows,
)
from clinical_drug_discovery.graph.knowledge_graph import edges_of
from clinical_drug_discovery.system.errors import InputError


@pytest.mark.parametrize("most_with_room", [build._MANY_KEYS, 20_000])
@pytest.mark.parametrize("spread", [2**64 - 1, 90_000])  # the latter share their upper bits
def test_numbering_agrees_with_a_dictionary(
    rng: np.random.Generator, spread: int, most_with_room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_MANY_KEYS", most_with_room)
    monkeypatch.setattr(build, "_INSERTED", 5_000)
    numbering, known = Numbering(), dict[int, int]()
    for _ in range(12):
        keys = rng.integers(0, spread, 9_000, dtype=np.uint64)
        expected = [known.get(key, -1) for key in keys.tolist()]
        assert numbering.find(keys).tolist() == expected
        new = np.unique(keys[numbering.find(keys) < 0])
        numbering.add(new)
        known |= {key: len(known) + i for i, key in enumerate(new.tolist())}
        assert numbering.find(keys).tolist() == [known[key] for key in keys.tolist()]
    assert len(numbering) == len(known)


def test_hashes_that_share_a_slot() -> None:
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    keys = np.array([i * inverse % 2**64 for i in range(1000)], np.uint64)  # mixed: 0 to 999
    numbering = Numbering()
    for part in np.split(keys, 10):
        numbering.add(part)
    assert numbering.find(keys).tolist() == list(range(1000))
    assert (numbering.find(keys + np.uint64(1)) == -1).all()


def test_distinct_facts_agree_with_sets(rng: np.random.Generator) -> None:
    for size in (1, 2, 5, 3_000):
        x, y, r = (rng.integers(0, most, size) for most in (40, 40, 3))
        x, y, r = x[x != y], y[x != y], r[x != y]
        bits = node_bits(40)
        lower, relation, higher, counts = distinct_facts(pack_rows(x, r, y, bits), bits)
        rows = set(zip(x.tolist(), r.tolist(), y.tolist(), strict=True))
        facts = {(min(a, b), k, max(a, b)) for a, k, b in rows}
        found = list(zip(lower.tolist(), relation.tolist(), higher.tolist(), strict=True))
        assert set(found) == facts
        assert len(found) == len(facts) == counts["num_facts"]
        assert counts["num_duplicate_rows"] == len(x) - len(rows)
        assert counts["num_mirrored_facts"] == len(rows) - len(facts)


def test_many_possible_edge_types_give_the_same_graph(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = random_facts(rng)
    by_table = read_facts(tmp_path, facts)
    monkeypatch.setattr(build, "_MAX_TABLE", 0)
    assert_same_graph(by_table, read_facts(tmp_path, facts))


def test_neither_the_order_of_facts_nor_the_way_to_sort_changes_the_graph(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = read_facts(tmp_path, random_facts(rng))
    src, dst = edges_of(graph, range(len(graph.edge_types)))
    relation = graph.edge_type_relation[graph.edge_type.long()].numpy()
    once = rng.permutation(np.flatnonzero(src < dst))
    monkeypatch.setattr(build, "_MOST_COPIED", 0)
    built = build_graph(
        graph.nodes, src[once], relation[once], dst[once], graph.relations, graph.report
    )
    assert_same_graph(built, graph)


def test_a_sort_key_without_room_is_refused(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "node_bits", lambda num_nodes: 31)
    with pytest.raises(InputError, match=r"joins \d pairs of node types; with .* less than 2 are"):
        read_facts(tmp_path, random_facts(rng))
