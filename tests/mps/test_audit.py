"""The audit passes for both models, and fails for each planted offender."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mps.audit import audit_path
from mps.audited_paths import MODELS, PARTS, audited_path
from mps.operator_table import Coverage, coverage, operations
from mps.witnesses import CallTree, Operations

MIN_CALLS = 300
NAMES = [(model, part) for model in MODELS for part in PARTS]


@pytest.mark.parametrize(("model", "part"), NAMES)
def test_every_path_passes(model: str, part: str) -> None:
    found = audit_path(audited_path(model, part))
    assert found["missing"] == []
    assert found["float64"] == []
    assert found["compressed_sparse"] == []
    assert found["host_waits"] == {}  # the losses are copied at once, which a CPU does not show
    assert found["passed"]
    assert found["num_calls"] > MIN_CALLS


def csr(x: Tensor) -> Tensor:
    return torch.eye(3).to_sparse_csr() @ x


OFFENDERS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "put_": (lambda x: x.clone().put_(torch.tensor([1]), torch.ones(1)), "missing"),
    "segment_reduce": (
        lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([1, 2])),
        "missing",
    ),
    "frexp": (lambda x: torch.frexp(x), "missing"),  # only the tree of calls shows it
    "linalg_svd": (lambda x: torch.linalg.svd(x), "missing"),
    "mul": (lambda x: x.double() * 2, "float64"),
    "mm": (csr, "compressed_sparse"),
    "nonzero": (lambda x: x.nonzero(), "host_waits"),
    "index by a mask": (lambda x: x[x > 0], "host_waits"),
    "_unique2": (lambda x: x.unique(), "host_waits"),
}


@pytest.mark.parametrize("name", OFFENDERS)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_planted_offender_fails(name: str) -> None:
    offend, where = OFFENDERS[name]
    path = audited_path("graphsage", "inference and scores")

    def run() -> None:
        path()
        offend(torch.ones(3, 2))

    found = audit_path(run)
    assert not found["passed"]
    assert any(name in text for text in found[where]), found


def test_one_wait_too_many_fails() -> None:
    value = torch.ones(1)
    assert audit_path(value.item, 1)["passed"]
    assert not audit_path(value.item, 0)["passed"]


def test_an_offender_in_a_backward_pass_fails() -> None:
    x = torch.ones(3, 2, requires_grad=True)

    def run() -> None:
        torch.segment_reduce(x, "max", lengths=torch.tensor([1, 2])).sum().backward()

    assert "_segment_reduce_backward" in audit_path(run)["missing"]


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("add.Tensor", "MPS", Coverage.NATIVE),  # borrowed from add.out
        ("scatter_add_", "MPS", Coverage.NATIVE),
        ("segment_reduce", "MPS", Coverage.MISSING),
        ("segment_reduce.out", "MPS", Coverage.MISSING),  # generated from the one above
        ("take", "MPS", Coverage.MISSING),
        ("einsum", "MPS", Coverage.COMPOSITE),
        ("embedding_renorm_", "MPS", Coverage.FALLS_BACK),
        ("mm", "SparseMPS", Coverage.NATIVE),
        ("mm", "SparseCsrMPS", Coverage.MISSING),
        ("my_own_kernel", "MPS", Coverage.UNKNOWN),
    ],
)
def test_the_table_of_operations(name: str, key: str, expected: Coverage) -> None:
    assert coverage(name, key) == expected
    assert len(operations()) > 2_000


def test_what_one_witness_misses_the_other_one_sees() -> None:
    x = torch.ones(2)
    with Operations() as seen:
        torch.frexp(x)
    with CallTree() as tree:
        torch.frexp(x)
    assert not seen.missing
    assert tree.missing
