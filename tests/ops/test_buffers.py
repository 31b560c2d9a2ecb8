"""Large buffers: zeros are zero, and memory goes from one to the next and never to two at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clinical_drug_discovery.ops import buffers
from clinical_drug_discovery.ops.buffers import (
    empty,
    large_in_files,
    rows_in_any_order,
    used_again,
    zeros,
)
from clinical_drug_discovery.system.limits.scratch import Scratch

ROWS = 3 * 2**20 // 256  # of 512 numbers, at least 12 MiB: above what the C heap keeps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_buffers_are_used_again_but_never_shared(dtype: torch.dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    with used_again():
        first = empty(like, ROWS, 512)
        place = first.data_ptr()
        view = first[1:].fill_(3)
        del first
        second = zeros(like, ROWS, 512)
        assert second.data_ptr() != place  # a view still needs the first one
        assert second.dtype == dtype
        assert second.shape == (ROWS, 512)
        assert not second.any()
        assert (view == 3).all()
        del view
        third = zeros(like, ROWS - 1, 512)
        assert third.data_ptr() == place
        assert not third.any()


def test_what_is_small_or_of_another_type_is_torch_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinical_drug_discovery.ops.buffers._ARENA", None)  # must not be asked
    like = torch.empty(0)
    assert zeros(like, 3, 4).tolist() == [[0.0] * 4] * 3
    assert zeros(like, 5, dtype=torch.int64).dtype == torch.int64
    assert empty(like, ROWS, 512, dtype=torch.int32).dtype == torch.int32


def test_only_large_buffers_of_the_block_lie_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "LEAST_IN_FILES", 4_096)
    made, array = list[int](), Scratch.array

    def noted(files: Scratch, num_bytes: int) -> Any:
        made.append(num_bytes)
        return array(files, num_bytes)

    monkeypatch.setattr(Scratch, "array", noted)
    like = torch.empty(0)
    with large_in_files(None):
        empty(like, 32, 32)
    assert not made
    with large_in_files(tmp_path / "scratch"):
        kept, half = empty(like, 32, 32).fill_(2), zeros(like, 64, 32, dtype=torch.bfloat16)
        empty(like, 31, 32)
        for _ in range(3):  # memory that was used before, and no file
            torch.full((1_000,), 7)
            assert not zeros(like, 1_000, dtype=torch.int64).any()
    assert made == [4_096, 4_096]
    assert half.shape == (64, 32)
    assert not half.any()
    empty(like, 32, 32)
    assert len(made) == 2
    with rows_in_any_order(kept, half):
        assert (kept == 2).all()
