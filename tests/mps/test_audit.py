"""The audit passes for both models, fails what it must, and sees few shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mps.audit import audit_path
from mps.audited_paths import AuditedPath, audited_paths
from mps.operator_table import Coverage, coverage, operations
from mps.witnesses import CallTree, Operations

PATHS = {path.name: path for path in audited_paths()}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> AuditedPath:
    return PATHS[request.param]


def test_every_path_passes(path: AuditedPath) -> None:
    found = audit_path(path.run, path.waits)
    assert found["missing"] == []
    assert found["float64"] == []
    assert found["compressed_sparse"] == []
    assert sum(found["host_waits"].values()) == path.waits
    assert set(found["host_waits"]) <= {"_local_scalar_dense"}
    assert found["passed"]
    assert found["largest_tensor"] < 2**31
    assert found["num_calls"] > 1_000


def test_all_paths_are_there() -> None:
    training = ("training", "training on parts")
    parts = (*training, "inference", "evaluation")
    assert list(PATHS) == [f"{model} {part}" for model in ("graphsage", "hgt") for part in parts]


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
    path = PATHS["graphsage evaluation"]

    def run() -> None:
        path.run()
        offend(torch.ones(3, 2))

    found = audit_path(run, path.waits)
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
