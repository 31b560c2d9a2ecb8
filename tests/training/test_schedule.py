"""The learning rate's factor is half a cosine wave."""

from __future__ import annotations

import pytest
import torch

from clinical_drug_discovery.training.schedule import cosine_decay, learning_rate_fraction


def test_falls_from_one_to_almost_nothing() -> None:
    factors = [cosine_decay(step, 8) for step in range(8)]
    assert factors[0] == 1
    assert factors[4] == pytest.approx(0.5)
    assert factors == sorted(factors, reverse=True)
    assert 0 < factors[-1] < 0.05
    assert cosine_decay(0, 1) == 1


def test_equals_the_schedule_of_torch() -> None:
    oracle = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(oracle, 12)
    for step in range(12):
        assert schedule.get_last_lr() == pytest.approx([cosine_decay(step, 12)])
        oracle.step()
        schedule.step()


def test_a_later_cycle_falls_from_a_tenth() -> None:
    fractions = [learning_rate_fraction(step, (8, 4, 4)) for step in range(16)]
    assert fractions[:8] == [cosine_decay(step, 8) for step in range(8)]
    assert fractions[8:12] == fractions[12:] == [0.1 * cosine_decay(step, 4) for step in range(4)]
