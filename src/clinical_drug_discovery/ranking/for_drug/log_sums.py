"""The sums over all drugs that turn the scores of a drug into shares, kept with the model.

They cost as much as a ranking of all drugs for all diseases, so they are computed once. Their file
is small: a number for each disease, MLP and form of the score.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...graph.adjacency import Floats
from ...graph.cache import content_sha256
from ...graph.knowledge_graph import KnowledgeGraph
from ...system import log
from ...system.files import (
    DamagedFileError,
    OtherVersionError,
    atomic_path,
    checksum,
    load_arrays,
    save_checksummed,
)
from ...system.machine import one_thread
from ...system.processes import in_order, let_others, most_threads
from ..metapath_features import MetapathFeatures
from ..path_scores import Form, PathRanker, is_worth_torch

_VERSION = 2  # of the file; increase it whenever the same model would have other sums
_CHUNK = 32  # diseases of a step, after which other questions are answered
FORMS = Form(popularity=False), Form(popularity=True)  #: a sum has the index `popularity`


def compute_log_sums(paths: PathRanker, features: MetapathFeatures) -> Floats:
    """Return the log-sums without and with popularity, shape (2, M, S), computed by all cores."""
    numbers = np.arange(features.num_diseases)
    many = is_worth_torch(len(numbers))
    chunks = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
    found = []
    with (
        log.part("Ranking all diseases once", len(chunks), "chunk") as advance,
        one_thread(True),  # the setting of the whole process, which the workers share
    ):
        for sums in in_order(
            lambda chunk: paths.log_sums(features, chunk, FORMS, many=many), chunks, most_threads()
        ):
            found.append(sums)
            advance()
            let_others()
    return np.concatenate(found, axis=2)


def fingerprint(paths: PathRanker, graph: KnowledgeGraph) -> str:
    """Return a hash of all that the sums depend on."""
    arrays = {
        f"{n}.{name}": array for n, mlp in enumerate(paths.mlps) for name, array in mlp.items()
    }
    arrays |= {"base": paths.base_scale, "co_indicated": paths.co_indicated_scale}
    return checksum(content_sha256(graph), arrays)


def read_log_sums(path: Path, of: str, shape: tuple[int, ...]) -> Floats | None:
    """Return the sums of a file; None if it is missing, damaged, or of another model.

    Args:
        path: the file.
        of: see `fingerprint`.
        shape: of the sums.
    """
    try:
        record, arrays = load_arrays(path, _VERSION)
    except FileNotFoundError:
        return None
    except (DamagedFileError, OtherVersionError, OSError) as error:
        log.warning(f"{path} cannot be used, so all diseases are ranked again: {error}")
        return None
    sums = arrays.get("sums", np.empty(0))
    fits = record == of and sums.shape == shape and sums.dtype == np.float32
    return sums if fits and np.isfinite(sums).all() else None


def save_log_sums(path: Path, of: str, sums: Floats) -> None:
    """Keep the sums in a file; a warning says why if that is impossible."""
    try:
        with atomic_path(path) as temporary:
            save_checksummed(temporary, _VERSION, of, {"sums": sums})
    except OSError as error:
        log.warning(f"the next program has to rank all diseases again: {error}")
