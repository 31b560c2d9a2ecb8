"""One of several processes says why all of them end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from clinical_drug_discovery.system.group import voice

LOST = "error: process 1 of 3 has ended"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["error: a", "error: a", "error: a"], {0: "error: a"}),
        ([None, "error: b", None], {0: "process 1: error: b"}),
        ([None, ..., None], {0: LOST}),
        ([..., None, ...], {1: LOST}),
        ([..., "error: c", ...], {1: "process 1: error: c"}),
    ],
    ids=["all-refuse", "one-refuses", "one-is-killed", "the-first-is-killed", "only-one-is-left"],
)
def test_one_process_speaks(
    texts: list[Any], said: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is the reason of a process; None: it has lost another one; ...: it was killed."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    for name, seconds in (("_LOOK", 0.3), ("_WAIT", 1.0), ("_PAUSE", 0.01)):
        monkeypatch.setattr(voice, name, seconds)
    store: Any = dist.HashStore()  # type: ignore[attr-defined]  # torch does not list it

    def end(rank: int) -> str | None:
        text = texts[rank]
        if text is ...:
            return None
        return voice._chosen(store, rank, LOST if text is None else text, text is None)

    with ThreadPoolExecutor(3) as pool:
        found = dict(enumerate(pool.map(end, range(3))))
    assert {rank: text for rank, text in found.items() if text is not None} == said
