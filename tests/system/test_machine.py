"""Memory budgets reach the allocator of a GPU, and its peak is reported or sampled."""

from __future__ import annotations

import contextlib
import mmap
import sys

import psutil
import pytest
import threadpoolctl
import torch

from clinical_drug_discovery.system.machine import (
    PeakMemory,
    anonymous_bytes,
    held_bytes,
    limit_memory,
    one_thread,
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages are freed")
def test_freed_pages_are_not_held() -> None:
    size = 64 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages.write(b"x" * size)
        resident = psutil.Process().memory_info().rss
        held, anonymous = held_bytes(), anonymous_bytes()
        pages.madvise(8)  # MADV_FREE, which the module mmap does not name
        assert psutil.Process().memory_info().rss > resident - size // 2
        assert held - size * 1.1 < held_bytes() < held - size * 0.9
        assert anonymous_bytes() < anonymous - size * 0.9


class FakeMemory:
    """Stands for torch.mps or torch.cuda."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.total_memory = 8_000
        self.held = 0

    def recommended_max_memory(self) -> int:
        return self.total_memory

    def get_device_properties(self, device: torch.device) -> FakeMemory:
        return self

    def set_per_process_memory_fraction(self, fraction: float, *device: torch.device) -> None:
        self.fractions.append(fraction)

    def current_allocated_memory(self) -> int:
        return self.held


@pytest.mark.parametrize(("name", "most"), [("mps", 2.0), ("cuda", 1.0), ("cpu", None)])
def test_a_budget_limits_the_allocator(
    monkeypatch: pytest.MonkeyPatch, name: str, most: float | None
) -> None:
    fake = FakeMemory()
    monkeypatch.setattr(torch, name, fake)
    for budget in (4_000, 10**9):
        limit_memory(torch.device(name), budget)
    assert fake.fractions == ([] if most is None else [0.5, most])


def test_the_peak_is_reported_or_sampled_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PeakMemory(torch.device("cpu")).num_bytes() is None
    fake, mps = FakeMemory(), torch.device("mps")
    monkeypatch.setattr(torch, "mps", fake)

    def missing(device: torch.device) -> None:
        raise NotImplementedError

    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", missing)
    peak = PeakMemory(mps)
    for fake.held in (5, 9, 3):
        peak.sample()
    assert (peak.source, peak.num_bytes()) == ("samples", 9)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 12)
    peak = PeakMemory(mps)
    assert (peak.source, peak.num_bytes()) == ("reported", 12)


def test_one_thread_ends_with_its_block() -> None:
    import scipy.linalg  # noqa: F401  # its BLAS must be there before the first count

    def threads() -> tuple[int, ...]:
        blas = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        return (torch.get_num_threads(), *blas)

    before = threads()
    with one_thread(False):
        assert threads() == before
    with contextlib.suppress(ValueError), one_thread(True):
        assert set(threads()) == {1}
        raise ValueError
    assert threads() == before
