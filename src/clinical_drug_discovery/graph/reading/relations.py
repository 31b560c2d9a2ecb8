"""The relations of rows: their names, and the number of rows of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from .chunks import NO_RELATION, Codes

Mask = npt.NDArray[np.bool_]


class Relations:
    """The names of relations by polars' codes, and the number of rows of each."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.num_missing = 0  #: rows without a relation
        self._counts = np.zeros(0, np.int64)
        self._used: pl.Series | None = None  #: without it, polars would give the codes again
        self._codes: dict[str, int] | None = None  #: result of `codes` until a number changes

    def add(self, column: pl.Series) -> Codes:
        """Count the relations of some rows, and return the code of each."""
        if self._used is None:
            self._used = column.clear()
        physical = column.to_physical()
        missing = column.null_count()
        codes: Codes = (physical.fill_null(NO_RELATION) if missing else physical).to_numpy()
        before = len(self.names)
        self.count(codes, 1)
        if np.count_nonzero(self._counts) > before:
            found, first = np.unique(codes, return_index=True)
            for code, at in zip(found.tolist(), first.tolist(), strict=True):
                if code != NO_RELATION:
                    self.names[code] = column[at]
        return codes

    def count(self, codes: Codes, sign: int) -> None:
        """Add (`sign` 1) or subtract (-1) rows with these codes."""
        known = codes[codes != NO_RELATION]
        self.num_missing += sign * (len(codes) - len(known))
        counts = np.bincount(known, minlength=len(self._counts))
        counts[: len(self._counts)] = self._counts + sign * counts[: len(self._counts)]
        self._counts, self._codes = counts, None

    def codes(self) -> dict[str, int]:
        """Return the relations that rows have, sorted by name, and their codes."""
        if self._codes is None:
            # polars numbers relations in the order of first use; the graph numbers them by name.
            present = np.flatnonzero(self._counts).tolist()
            self._codes = dict(sorted((self.names[code], code) for code in present))
        return self._codes

    def num_rows(self, name: str) -> int:
        """Return the number of rows of a relation."""
        return int(self._counts[self.codes()[name]])

    def rare(self, most: int) -> Mask:
        """Return a mask of the codes with at most so many rows."""
        return self._counts <= most
