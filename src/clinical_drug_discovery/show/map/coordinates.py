"""Places for nodes in two dimensions: similar embeddings lie near each other (UMAP or PCA)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from ...api.optional import optional_package
from ...system.errors import InputError
from ...system.log import part
from ...system.processes import alone

LEAST_NODES, _LEAST_FOR_UMAP = 3, 8
# UMAP compares each node with one in twelve others, but with 10 to 30 of them.
_PART, _FEWEST, _MOST = 12, 10, 30
# The neighbors of each node are looked for in the first 50 principal components instead of 512
# numbers, as scanpy does. This takes a fraction of the time.
_COMPONENTS = 50
_MIN_DIST = 0.3  # of UMAP: small groups stay readable
_FAR = 0.9  # fraction of the nodes whose distance from the middle stays as UMAP has it
_BLOCK = 8192  # rows that are divided by their lengths at a time

Places = npt.NDArray[np.float32]


def place_nodes(values: npt.NDArray[np.float32], method: str, seed: int) -> Places:
    """Place nodes so that nodes with similar embeddings are near each other.

    Only directions count, as for the cosine. The same seed gives the same places. UMAP works in one
    thread for that, and settings of numba are as before afterwards.

    Args:
        values: shape (N, D), embeddings.
        method: "umap" (McInnes et al., arXiv:1802.03426) or "pca" (two principal components).
        seed: of UMAP.

    Returns:
        Shape (N, 2). Distances between far groups mean little with UMAP, which throws small groups
        far out. They are drawn in: beyond the distance r of 9 in 10 nodes from the middle, x
        becomes r (1 + log(x / r)).

    Raises:
        InputError: there are fewer than 3 nodes.
        ImportError: umap-learn is not installed.
    """
    if len(values) < LEAST_NODES:
        raise InputError(f"type (got {len(values)} nodes) must have at least {LEAST_NODES} nodes")
    # UMAP needs more nodes than dimensions, and a few for the neighborhoods.
    by_umap = method == "umap" and len(values) >= _LEAST_FOR_UMAP
    with alone(), part(f"Placing {len(values):,} nodes by {'UMAP' if by_umap else 'PCA'}"):
        rows = directions(values)
        if not by_umap:
            return _components(rows, 2)
        if rows.shape[1] > _COMPONENTS < len(rows):
            rows = _components(rows, _COMPONENTS)
        return _drawn_in(_by_umap(rows, seed))


def directions(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return embeddings of length 1; zeros stay. Sums are in float64, as squares may be large."""
    rows = np.empty(values.shape, np.float32)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        rows[start : start + _BLOCK] = block / np.where(lengths > 0, lengths, 1)
    return rows


def _components(rows: npt.NDArray[np.float32], number: int) -> Places:
    """Return the first principal components; a missing one is 0."""
    from sklearn.decomposition import PCA

    number_found = min(number, *rows.shape)
    with np.errstate(invalid="ignore"):  # equal rows do not have a variance to share out
        found = PCA(number_found, svd_solver="covariance_eigh").fit_transform(rows)
    places = np.zeros((len(rows), number), np.float32)
    places[:, :number_found] = found
    return places


def import_umap() -> Any:
    """Import umap-learn without its warning that tensorflow is missing, which this does not need.

    Raises:
        ImportError: umap-learn is not installed; the message has the command.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optional_package("umap", install="umap-learn")


def _by_umap(rows: npt.NDArray[np.float32], seed: int) -> Places:
    make_umap = import_umap().UMAP
    import numba
    from sklearn.neighbors import NearestNeighbors

    # Exact neighbors: an approximate search (pynndescent) would compile its code for a minute.
    num = min(int(np.clip(len(rows) // _PART, _FEWEST, _MOST)), len(rows) - 1)
    distances, neighbors = (
        NearestNeighbors(n_neighbors=num, algorithm="brute").fit(rows).kneighbors(rows)
    )
    threads = numba.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # new nodes could not be placed without such a search
            # From principal components, far groups lie in a meaningful order (Kobak and Linderman,
            # 2021), and the start does not depend on a solver's random numbers.
            model = make_umap(
                n_neighbors=num, min_dist=_MIN_DIST, init="pca", random_state=seed, n_jobs=1,
                precomputed_knn=(neighbors, distances.astype(np.float32), None),
            )  # fmt: skip
            found: Places = model.fit_transform(rows).astype(np.float32)
    finally:
        numba.set_num_threads(threads)  # UMAP sets them, and an error would leave them changed
    return found


def _drawn_in(places: Places) -> Places:
    """Draw far nodes in, so that a few small groups do not take the room of all others."""
    away = places - np.median(places, axis=0)
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    most = np.quantile(distance, _FAR)
    with np.errstate(divide="ignore", invalid="ignore"):
        nearer = np.where(distance > most, most * (1 + np.log(distance / most)) / distance, 1.0)
    return (away * nearer).astype(np.float32)
