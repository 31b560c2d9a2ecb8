"""Training lists: for each treated disease the drugs among which a known one must be found.

Features of a drug by the other drugs that are known to treat the asked disease.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinical_drug_discovery.graph.adjacency import Floats
from clinical_drug_discovery.graph.knowledge_graph import IntArray
from clinical_drug_discovery.ranking.drug_similarity import fellows_of
from clinical_drug_discovery.ranking.metapath_features import PathEvidence

_CHUNK = 16  # diseases; bounds the memory
MOST_LISTS = 2_000  #: diseases to learn from; more would take longer, and teach little more
#: Most candidates of a list that treat other diseases, and that treat none.
NUM_TRIED, NUM_UNTRIED = 800, 200
_NUM_SCALED = 32  # diseases from which the features' scales are taken

#: More features of all pairs of some diseases: (n,) -> (n, X, drugs). For training they must come
#: from a model that has not seen the pairs (out of fold), as the paths do by themselves.
Extra = Callable[[IntArray], Floats]


@dataclass(frozen=True)
class TrainingList:
    """A disease's candidates: its k known drugs first, then drugs not known for it."""

    disease: int
    num_known: int
    num_tried: int  #: how many of the others treat some other disease; they come first
    candidates: IntArray  #: shape (C,), drugs
    log_share: Floats  #: shape (C,), log of the chance with which a candidate was drawn
    base: npt.NDArray[np.float16]  #: shape (C, B), scaled; half the memory, ample for evidence
    rows: npt.NDArray[np.float16]  #: shape (kernels, k, C), see `PathEvidence.fellow_rows`


def squash(values: Floats, scale: Floats) -> Floats:
    """Counts over many orders of magnitude to a size that a network takes: arcsinh(x / scale)."""
    scaled = values / scale[..., :, None]
    return np.asarray(np.arcsinh(scaled, out=scaled), np.float32)


def base_features(evidence: PathEvidence, diseases: IntArray, extra: Extra | None) -> Floats:
    """The base features, followed by the extra ones, shape (n, B, drugs)."""
    base = evidence.base(diseases)
    return base if extra is None else np.concatenate([base, extra(diseases)], axis=1)


def feature_scales(evidence: PathEvidence, extra: Extra | None) -> tuple[Floats, Floats]:
    """Mean absolute size of each feature where it is not 0, of the base and of the fellows."""
    step = -(-len(evidence.treated) // _NUM_SCALED)
    diseases = evidence.treated[::step]
    fellows = np.stack([fellows_of(evidence.fellow_rows(int(s))[1]) for s in diseases])
    return _scale(base_features(evidence, diseases, extra)), _scale(fellows)


def _scale(values: Floats) -> Floats:
    counts = np.count_nonzero(values, axis=(0, 2))
    total = np.abs(values).sum(axis=(0, 2), dtype=np.float64)
    return np.where(total > 0, total / np.maximum(counts, 1), 1).astype(np.float32)


def training_lists(
    evidence: PathEvidence,
    scale: Floats,
    *,
    extra: Extra | None = None,
    num_tried: int = NUM_TRIED,
    num_untried: int = NUM_UNTRIED,
    seed: int = 0,
) -> list[TrainingList]:
    """Form the list of every treated disease, or of a sample where there are very many.

    Beside the known drugs there are samples of those that treat something else and of those that
    treat nothing, which are many and easily told; the loss corrects for their shares.

    Args:
        evidence: of the graph to learn from.
        scale: shape (B,), of the base features.
        extra: more features.
        num_tried: how many drugs of other diseases to draw.
        num_untried: how many drugs without any disease to draw.
        seed: of the draw.

    Returns:
        The lists, about 0.4 MB each on the real graph.
    """
    rng = np.random.default_rng(seed)
    degree = np.diff(evidence.known.indptr)
    tried, untried = np.flatnonzero(degree), np.flatnonzero(degree == 0)
    treated, lists = evidence.treated, []
    if len(treated) > MOST_LISTS:
        treated = np.sort(rng.choice(treated, MOST_LISTS, replace=False))
    for start in range(0, len(treated), _CHUNK):
        diseases = treated[start : start + _CHUNK]
        base = base_features(evidence, diseases, extra)
        for values, disease in zip(base, diseases.tolist(), strict=True):
            drugs, rows = evidence.fellow_rows(disease)
            candidates, log_share = [drugs], [np.zeros(len(drugs))]
            for pool, most in ((np.setdiff1d(tried, drugs), num_tried), (untried, num_untried)):
                drawn = min(most, len(pool))
                candidates.append(rng.choice(pool, drawn, replace=False))
                log_share.append(np.full(drawn, np.log(drawn / max(len(pool), 1) or 1)))
            at = np.concatenate(candidates)
            scaled = squash(values[:, at], scale).T.astype(np.float16)
            lists.append(
                TrainingList(
                    disease,
                    len(drugs),
                    len(candidates[1]),
                    at,
                    np.concatenate(log_share).astype(np.float32),
                    np.ascontiguousarray(scaled),
                    rows[:, :, at].astype(np.float16),
                )
            )
    return lists
