"""Walk vectors: equal to a dense reference, and alike for relatives that are far away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.sparse import csr_array

from clinical_drug_discovery.models import walk_vectors as module
from clinical_drug_discovery.models.walk_vectors import walk_vectors


def forest(num_trees: int, depth: int) -> csr_array:
    """Return binary trees of 2^depth - 1 nodes each."""
    size = 2**depth - 1
    child = np.concatenate([np.arange(1, size) + tree * size for tree in range(num_trees)])
    parent = np.concatenate([np.arange(size - 1) // 2 + tree * size for tree in range(num_trees)])
    ends = np.concatenate([child, parent]), np.concatenate([parent, child])
    return csr_array((np.ones(len(ends[0]), np.float32), ends), shape=(num_trees * size,) * 2)


def dense_information(links: csr_array) -> npt.NDArray[np.float64]:
    matrix = links.toarray().astype(float)
    step = 0.7 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    walks = np.sum([np.linalg.matrix_power(step, k) for k in range(1, 9)], axis=0)
    walks = (walks + walks.T) / 2
    sums = walks.sum(axis=1)
    expected = np.maximum(sums[:, None] * sums / sums.sum(), 1e-30)
    return np.asarray(np.log(np.maximum(walks / expected, 1)))


@pytest.mark.parametrize("rows", [5, 2048])
def test_products_equal_the_leading_part_of_the_dense_matrix(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST", 0)
    monkeypatch.setattr(module, "_ROWS", rows)
    monkeypatch.setattr(module, "_ROUNDS", 30)
    links = forest(3, 4)
    found = walk_vectors(links, 12, torch.Generator().manual_seed(0)).double()
    values, vectors = np.linalg.eigh(dense_information(links))
    leading = np.argsort(-values)[:12]
    wanted = (vectors[:, leading] * values[leading]) @ vectors[:, leading].T
    assert values[leading].min() > 0
    assert np.abs((found @ found.T).numpy() - wanted).max() < 1e-3 * values.max()


def test_relatives_are_alike_at_a_distance_of_four_steps() -> None:
    found = walk_vectors(forest(20, 5), 32, torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(found, dim=1)
    number = torch.arange(len(found))
    cosine, same = unit @ unit.t(), number[:, None] // 31 == number // 31
    is_leaf = number % 31 >= 15
    cousins = (same & is_leaf & is_leaf[:, None]).fill_diagonal_(False)
    assert cosine[cousins].mean() > cosine[~same].abs().mean() + 0.2


def test_nodes_without_links_and_columns_beyond_the_nodes_are_zero() -> None:
    links = csr_array((np.ones(4, np.float32), ([0, 1, 1, 2], [1, 0, 2, 1])), shape=(5, 5))
    found = walk_vectors(links, 9, torch.Generator().manual_seed(0))
    assert found.shape == (5, 9)
    assert found[:3].abs().sum(dim=1).min() > 0
    assert not found[3:].any()
    assert not found[:, 5:].any()
    assert torch.isfinite(found).all()


def star(num_leaves: int) -> csr_array:
    """Return one node and its neighbors, which all have the same vector."""
    leaf, hub = np.arange(1, num_leaves + 1), np.zeros(num_leaves, int)
    ends = np.concatenate([leaf, hub]), np.concatenate([hub, leaf])
    return csr_array((np.ones(2 * num_leaves, np.float32), ends), shape=(num_leaves + 1,) * 2)


def unlinked(num_nodes: int) -> csr_array:
    return csr_array((num_nodes, num_nodes), dtype=np.float32)


@pytest.mark.parametrize("links", [unlinked(1), unlinked(7), star(1), star(50), star(300)])
@pytest.mark.parametrize("dim", [1, 12, 64])
def test_small_and_degenerate_hierarchies_equal_the_dense_matrix(
    links: csr_array, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST", 0)
    found = walk_vectors(links, dim, torch.Generator().manual_seed(0)).double()
    values, vectors = np.linalg.eigh(dense_information(links) if links.nnz else links.toarray())
    leading = np.argsort(-values)[:dim]
    scaled = vectors[:, leading] * np.maximum(values[leading], 0)
    off = np.abs((found @ found.T).numpy() - scaled @ vectors[:, leading].T)
    assert off.max() <= 1e-5 * values.max()


def test_columns_become_orthonormal_and_span_the_same_space() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(1300, 20)) * np.geomspace(1, 100, 20) @ rng.normal(size=(20, 20))
    basis = before.astype(np.float32)
    module._make_orthonormal(basis)
    exact = basis.astype(float)
    assert np.abs(exact.T @ exact - np.eye(20)).max() < 1e-4
    reference, _ = np.linalg.qr(before)
    assert np.linalg.norm(exact - reference @ (reference.T @ exact), 2) < 1e-4


def test_dependent_columns_give_zeros() -> None:
    basis = np.random.default_rng(0).normal(size=(700, 6)).astype(np.float32)
    basis[:, 4], basis[:, 5] = basis[:, 1], 0
    module._make_orthonormal(basis)
    lengths = np.sort(np.linalg.norm(basis, axis=0))
    assert not lengths[:2].any()
    assert np.abs(lengths[2:] - 1).max() < 1e-5
    nothing = np.zeros((3, 2), np.float32)
    module._make_orthonormal(nothing)
    assert not nothing.any()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
@pytest.mark.parametrize("dim", [256, 512])
def test_the_memory_is_foreseen(dim: int) -> None:
    """Resident memory, for it counts what LAPACK takes; a small forest first, as a warm-up."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import psutil, torch\n"
        "from test_walk_vectors import forest\n"
        "from clinical_drug_discovery.models.walk_vectors import walk_bytes, walk_vectors\n"
        "from clinical_drug_discovery.system.machine import peak_memory_bytes, trim_heap\n"
        "def share(num_trees):\n"
        "    links = forest(num_trees, 12)\n"
        "    generator = torch.Generator().manual_seed(0)\n"
        "    trim_heap()\n"  # freed memory of the first forest would not count again
        "    Path('/proc/self/clear_refs').write_text('5')\n"
        "    before = psutil.Process().memory_info().rss\n"
        f"    walk_vectors(links, {dim}, generator)\n"
        f"    return (peak_memory_bytes() - before) / walk_bytes(links.shape[0], {dim})\n"
        "share(1)\n"
        "sys.stdout.write(str(share(5)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    )
    assert 0.6 < float(done.stdout) < 1, done.stdout
