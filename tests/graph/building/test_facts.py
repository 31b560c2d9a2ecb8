"""Facts agree with sets, in memory and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clinical_drug_discovery.graph.building import facts as module
from clinical_drug_discovery.graph.building import keys
from clinical_drug_discovery.graph.building.facts import distinct_facts
from clinical_drug_discovery.graph.building.keys import SortedKeys, node_bits, pack_rows

_NODES, _RELATIONS = 40, 3


@pytest.mark.parametrize("in_files", [False, True])
def test_distinct_facts_agree_with_sets(
    rng: np.random.Generator, tmp_path: Path, in_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_RUN_KEYS", 300)
    monkeypatch.setattr(keys, "_PIECE_KEYS", 70)
    monkeypatch.setattr(keys, "_SAMPLES", 8)
    monkeypatch.setattr(module, "_PIECE_FACTS", 50)
    directory = tmp_path if in_files else None
    for size in (1, 2, 5, 3_000):
        x, y, r = (rng.integers(0, most, size) for most in (_NODES, _NODES, _RELATIONS))
        x, y, r = x[x != y], y[x != y], r[x != y]
        bits = node_bits(_NODES)
        ordered = SortedKeys(len(x), directory)
        ordered.add(pack_rows(x, r, y, bits))
        facts, counts = distinct_facts(ordered.pieces(), len(x), bits, _RELATIONS, directory)
        rows = set(zip(x.tolist(), r.tolist(), y.tolist(), strict=True))
        expected = {(min(a, b), k, max(a, b)) for a, k, b in rows}
        found = [
            (a, k, b)
            for k in range(_RELATIONS)
            for ends in facts.of_relation(k)
            for a, b in zip(*(nodes.tolist() for nodes in ends), strict=True)
        ]
        assert found == sorted(expected, key=lambda fact: (fact[1], fact[0], fact[2]))
        assert len(found) == counts["num_facts"]
        assert counts["num_mirrored_facts"] == len(rows) - len(expected)
    assert list(tmp_path.iterdir()) == []


def test_one_fact_many_times_and_sorted_runs_stay_sorted(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_RUN_KEYS", 64)
    monkeypatch.setattr(keys, "_SAMPLES", 4)
    values = np.concatenate([np.full(1000, 7), np.arange(500), rng.integers(0, 2**62, 500)])
    ordered = SortedKeys(len(values), tmp_path)
    for part in np.split(values, [3, 700, 1999]):
        ordered.add(part)
    pieces = list(ordered.pieces())
    assert np.array_equal(np.unique(np.concatenate(pieces)), np.unique(values))
    assert (np.diff(np.concatenate(pieces)) >= 0).all()
    assert max(map(len, pieces)) < 4 * 64  # the merge reads a bounded part of each run
