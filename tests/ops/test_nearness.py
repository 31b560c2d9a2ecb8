from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clinical_drug_discovery.ops import nearness as module
from clinical_drug_discovery.ops.backend import has_bfloat16_products
from clinical_drug_discovery.ops.nearness import nearness, unit

TEMPERATURE = 0.1


def vectors(num_rows: int, dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_rows, dim, generator=generator, dtype=torch.float64).to(dtype)


def pair_loss(x: Tensor, numbers: tuple[Tensor, Tensor] | None, fast: bool) -> Tensor:
    """InfoNCE in both directions, by `nearness` or by loops in plain torch."""
    count = len(x) // 2
    if fast:
        own = torch.arange(count) * (count + 1)
        halves = slice(0, count), slice(count, None)
        sums = nearness(unit(x), *halves, own, TEMPERATURE, numbers)
        return ((sums.of_left.log() + sums.of_right.log()) / 2 - sums.picked.log()).sum()
    left, right = functional.normalize(x, dim=1).chunk(2)
    logits = left @ right.t() / TEMPERATURE
    if numbers is not None:
        a, b = (nodes.tolist() for nodes in numbers)
        for i in range(count):
            for j in range(count):
                if i != j and (a[i] == a[j] or b[i] == b[j] or a[i] == b[j]):
                    logits[i, j] = -torch.inf
    rows, columns = logits.logsumexp(dim=1), logits.logsumexp(dim=0)
    return ((rows + columns) / 2 - logits.diagonal()).sum()


def own_loss(x: Tensor, own: Tensor, weights: Tensor, fast: bool) -> Tensor:
    """A loss of the nearness of all rows to some of them."""
    if fast:
        places = own[:, None] * len(own) + torch.arange(len(own))
        sums = nearness(unit(x), slice(0, len(x)), own, places, TEMPERATURE)
        left, right, picked = sums
    else:
        units = functional.normalize(x, dim=1)
        near = ((units @ units[own].t() - 1) / TEMPERATURE).exp()
        left, right, picked = near.sum(dim=1), near.sum(dim=0), near[own]
    return (left * weights).sum() + right.square().sum() + (picked * picked.detach()).sum()


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("with_numbers", [False, True])
def test_pairs_equal_plain_torch(count: int, with_numbers: bool) -> None:
    x = vectors(2 * count, 12).requires_grad_()
    numbers = (torch.arange(count) // 2, torch.arange(count) % 5 + 3) if with_numbers else None
    fast, slow = (pair_loss(x, numbers, way) for way in (True, False))
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradient(fast, x), gradient(slow, x))


def test_nearness_to_some_of_the_rows_equals_plain_torch() -> None:
    x = vectors(150, 8).requires_grad_()
    own, weights = torch.tensor([3, 8, 9, 140]), vectors(150, 1)[:, 0]
    fast, slow = (own_loss(x, own, weights, way) for way in (True, False))
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradient(fast, x), gradient(slow, x))


@pytest.mark.parametrize("centered", [False, True])
def test_unit_equals_normalize_also_for_a_row_of_zeros(centered: bool) -> None:
    x = vectors(300, 5)
    if not centered:
        x[7] = 0
    x.requires_grad_()
    weights = vectors(300, 5).flip(0)
    fast = unit(x, centered=centered)
    slow = functional.normalize(x - x.mean(dim=0) if centered else x, dim=1)
    torch.testing.assert_close(fast, slow)
    expected = gradient((slow * weights).sum(), x)
    torch.testing.assert_close(gradient((fast * weights).sum(), x), expected)


@pytest.mark.parametrize("many", [0, 1 << 40])  # gradients in bfloat16, if the CPU has it, or not
@pytest.mark.parametrize("step", [9, 64])  # MKL divides 41 columns differently among 3 threads
def test_the_gradient_of_float32_is_close_for_any_number_of_threads(
    many: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MANY", many)
    x = vectors(2600, 64, torch.float32).requires_grad_()
    own, weights = torch.arange(1, 2600, step), vectors(2600, 1, torch.float32)[:, 0]
    in_halves = many == 0 and has_bfloat16_products()
    found = []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            losses = own_loss(x, own, weights, True), pair_loss(x, None, True)
            found.append([gradient(loss, x) for loss in losses])
        finally:
            torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    exact = x.detach().double().requires_grad_()
    slow = own_loss(exact, own, weights, False), pair_loss(exact, None, False)
    for grad, loss in zip(found[0], slow, strict=True):
        expected = gradient(loss, exact)
        error = (grad - expected).norm() / expected.norm()
        assert error < (1e-2 if in_halves else 1e-5)


def test_the_gradient_of_vectors_that_are_nearly_the_same_is_close() -> None:
    noise = 3e-3 * vectors(2400, 64, torch.float32)
    noise[1200:] = noise[:1200] + noise[1200:] / 2
    x = (vectors(1, 64, torch.float32) + noise).requires_grad_()
    exact = x.detach().double().requires_grad_()
    grad = gradient(pair_loss(x, None, True), x)
    expected = gradient(pair_loss(exact, None, False), exact)
    assert (grad - expected).norm() / expected.norm() < 1e-2
