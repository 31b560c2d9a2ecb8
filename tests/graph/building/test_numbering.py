"""Numbering agrees with a dictionary, whatever the hashes are."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_drug_discovery.graph.building import numbering as module
from clinical_drug_discovery.graph.building.numbering import Numbering


@pytest.mark.parametrize("most_with_room", [module._MANY_KEYS, 20_000])
@pytest.mark.parametrize("spread", [2**64 - 1, 90_000])  # the latter share their upper bits
def test_numbering_agrees_with_a_dictionary(
    rng: np.random.Generator, spread: int, most_with_room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MANY_KEYS", most_with_room)
    monkeypatch.setattr(module, "_INSERTED", 5_000)
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
