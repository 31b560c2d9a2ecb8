"""Both versions of Adam equal torch's, and the whole optimizer follows the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clinical_drug_discovery.graph.knowledge_graph import KnowledgeGraph
from clinical_drug_discovery.models.layers import DistMult
from clinical_drug_discovery.models.sage import GraphSage
from clinical_drug_discovery.ops import buffers
from clinical_drug_discovery.training import optimizer
from clinical_drug_discovery.training.optimizer import Adam, LazyAdam, ModelOptimizer
from clinical_drug_discovery.training.schedule import cosine_decay

SHAPES = ((7, 5), (3,), (4, 1, 2))


@pytest.mark.parametrize("chunk", [1, 4, 1 << 18])
def test_adam_equals_that_of_torch(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(optimizer, "_CHUNK", chunk)
    ours = [nn.Parameter(torch.from_numpy(rng.standard_normal(shape))) for shape in SHAPES]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    adam, oracle = Adam(ours, 0.1), torch.optim.Adam(theirs, 0.1)
    for step in range(5):
        for weight, twin in zip(ours, theirs, strict=True):
            weight.grad = torch.from_numpy(rng.standard_normal(weight.shape))
            twin.grad = weight.grad.clone()
        oracle.param_groups[0]["lr"] = 0.1 * cosine_decay(step, 5)
        adam.step(cosine_decay(step, 5))
        oracle.step()
        assert all(weight.grad is None for weight in ours)
    for weight, twin in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, twin, rtol=1e-12, atol=1e-12)


def test_gradients_may_be_views_or_missing() -> None:
    weight, other = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.ones(2))
    weight.grad = torch.arange(6.0).view(3, 2).t()  # not contiguous
    Adam([weight, other], 0.1).step()
    assert weight.tolist() == [pytest.approx([0, -0.1, -0.1]), pytest.approx([-0.1] * 3)]
    assert other.tolist() == [1, 1]


def test_rows_that_are_all_taken_move_as_by_adam(rng: np.random.Generator) -> None:
    table = torch.from_numpy(rng.standard_normal((7, 5)))
    weight = torch.nn.Parameter(table.clone())
    lazy, adam = LazyAdam(table, 0.1), torch.optim.Adam([weight], 0.1)
    for _ in range(4):
        grad = torch.from_numpy(rng.standard_normal((7, 5)))
        order = torch.from_numpy(rng.permutation(7))
        lazy.take(order).grad = grad[order]
        lazy.step()
        weight.grad = grad
        adam.step()
    torch.testing.assert_close(table, weight.detach())


def test_rows_that_are_not_taken_stay(rng: np.random.Generator) -> None:
    """And the first step of a row is as large whenever it comes."""
    table = torch.zeros(3, 2, dtype=torch.float64)
    lazy = LazyAdam(table, 0.1)
    for rows in ([0], [0], [0, 2]):
        taken = lazy.take(torch.tensor(rows))
        taken.grad = torch.ones_like(taken)
        lazy.step()
    torch.testing.assert_close(table, torch.tensor([[-0.3] * 2, [0.0] * 2, [-0.1] * 2]).double())


def test_a_table_in_a_file_gets_the_bytes_of_one_in_memory(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "LEAST_IN_FILES", 4_096)
    values = torch.from_numpy(rng.standard_normal((300, 5), np.float32))
    drawn = [np.sort(rng.choice(300, 40, replace=False)) for _ in range(6)]
    gradients = torch.from_numpy(rng.standard_normal((6, 40, 5), np.float32))

    def trained(table: Tensor, state: Mapping[str, Tensor], steps: range) -> LazyAdam:
        lazy = LazyAdam(table, 0.1)
        if state:
            lazy.load_state_dict(state)
        for step in steps:
            lazy.take(torch.from_numpy(drawn[step])).grad = gradients[step]
            lazy.step()
        lazy.write_back()
        return lazy

    wanted = values.clone()
    state = trained(wanted, {}, range(6)).state_dict()
    with buffers.large_in_files(tmp_path):
        in_file = buffers.empty(values, 300, 5).copy_(values)
        half = trained(in_file, {}, range(3))
        assert not torch.equal(in_file, values)
        found = buffers.empty(values, 300, 5).copy_(in_file)
        for name, moments in trained(found, half.state_dict(), range(3, 6)).state_dict().items():
            assert torch.equal(moments, state[name])
    assert torch.equal(found, wanted)


def test_a_lazy_step_needs_rows_and_their_gradient() -> None:
    lazy = LazyAdam(torch.zeros(3, 2), 0.1)
    with pytest.raises(RuntimeError, match="no rows were taken"):
        lazy.step()
    lazy.take(torch.tensor([1]))
    with pytest.raises(RuntimeError, match="lack a gradient"):
        lazy.step()


@pytest.mark.parametrize("lazy", [False, True])
def test_the_learning_rate_falls_to_almost_nothing(graph: KnowledgeGraph, lazy: bool) -> None:
    """A constant gradient moves a number by the learning rate, and one of a vector by its rate."""
    generator = torch.Generator().manual_seed(0)
    model = GraphSage(graph.num_nodes, 8, 8, 2, generator)
    decoder = DistMult(len(graph.relations), 8, generator)
    optimizer = ModelOptimizer(model, decoder, 0.1, 10, lazy=lazy, vector_rate=3)
    nodes = torch.arange(0, graph.num_nodes, 2)
    for step in range(10):
        vectors = optimizer.vectors(nodes if lazy else None)
        before = [weight.detach().clone() for weight in weights(model, decoder)]
        for weight in [*weights(model, decoder), vectors]:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        moves = [b - a.detach() for b, a in zip(before, weights(model, decoder), strict=True)]
        if lazy:
            assert (moves[0][1::2] == 0).all()
            moves[0] = moves[0][::2]
        for index, move in enumerate(moves):
            rate = (0.3 if index == 0 else 0.1) * cosine_decay(step, 10)  # the vectors come first
            torch.testing.assert_close(move, torch.full_like(move, rate), rtol=1e-3, atol=1e-6)


def weights(model: nn.Module, decoder: nn.Module) -> list[Tensor]:
    """All of them, the table of input vectors first."""
    rest = [w for name, w in model.named_parameters() if name != "node_embedding"]
    return [model.get_parameter("node_embedding"), *rest, *decoder.parameters()]
