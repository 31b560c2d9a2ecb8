"""Edge-sized operations as CPU kernels, compiled by numba on first use and cached on disk.

Every output row is summed by one thread in the order of its edges, so results depend neither on the
number of threads nor on the run.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from clinical_drug_discovery.csr import Csr

# Several parts a thread, so that one hub does not leave the others idle. The number does not depend
# on that of the threads: where sums are made by part, results must not either.
_NUM_PARTS = 64


def csr_sum(
    csr: Csr,
    x: Tensor,
    row_scale: Tensor | None,
    column_scale: Tensor | None,
) -> Tensor:
    """The same as `reference.csr_sum`, without any buffer beside the output, shape (M, C)."""
    out = torch.empty(csr.num_rows, x.shape[1], dtype=x.dtype)
    ones = np.ones(1, out.numpy().dtype)
    _csr_sum(
        csr.indptr.numpy(),
        csr.indices.numpy(),
        x.detach().contiguous().numpy(),
        ones if row_scale is None else row_scale.numpy(),
        ones if column_scale is None else column_scale.numpy(),
        out.numpy(),
        balanced_parts(csr.indptr),
    )
    return out


def balanced_parts(indptr: Tensor) -> np.ndarray:
    """Row ranges of about equal numbers of edges (and rows), as boundaries.

    Balanced by edges, since one hub can have more of them than all other rows together.
    """
    ends = indptr.numpy()
    work = ends + np.arange(len(ends))  # a row costs something even when it has no edges
    bounds = np.searchsorted(work, np.linspace(0, work[-1], _NUM_PARTS + 1))
    bounds[0], bounds[-1] = 0, len(ends) - 1
    return bounds


@numba.njit(parallel=True, cache=True, nogil=True)
def _csr_sum(indptr, indices, x, row_scale, column_scale, out, parts):  # type: ignore[no-untyped-def]  # numba infers its types
    num_columns = x.shape[1]
    scaled_rows = len(row_scale) == len(out)
    scaled_columns = len(column_scale) == len(x)
    for part in numba.prange(len(parts) - 1):
        for i in range(parts[part], parts[part + 1]):
            row = out[i]
            row[:] = 0
            for edge in range(indptr[i], indptr[i + 1]):
                j = indices[edge]
                source = x[j]
                if scaled_columns:
                    scale = column_scale[j]
                    for c in range(num_columns):
                        row[c] += scale * source[c]
                else:
                    for c in range(num_columns):
                        row[c] += source[c]
            if scaled_rows:
                for c in range(num_columns):
                    row[c] *= row_scale[i]
