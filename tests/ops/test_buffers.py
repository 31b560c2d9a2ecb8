"""Large buffers: zeros are zero, and memory goes from one to the next and never to two at once."""

from __future__ import annotations

import pytest
import torch

from clinical_drug_discovery.ops.buffers import empty, release_buffers, zeros

ROWS = 3 * 2**20 // 256  # of 512 numbers, at least 12 MiB: above what the C heap keeps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_buffers_are_used_again_but_never_shared(dtype: torch.dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    release_buffers()
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
    monkeypatch.setattr("clinical_drug_discovery.ops.buffers._POOL", None)  # must not be asked
    like = torch.empty(0)
    assert zeros(like, 3, 4).tolist() == [[0.0] * 4] * 3
    assert zeros(like, 5, dtype=torch.int64).dtype == torch.int64
    assert empty(like, ROWS, 512, dtype=torch.int32).dtype == torch.int32
