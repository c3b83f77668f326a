"""Whether the rows of a graph can be reached: each is looked for with its own vector, by the walk that searches use.

Rows of flat segments are reached by construction. Tombstoned rows are walked through, and need not be found.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..search.readers import SearchableSegment
from ..segments.segment import OpenSegment

EF = 200  # as the probe of a new graph
_TOLERANCE = 1e-4
_EPOCHS = 65_535


@dataclass(frozen=True)
class Reached:
    """``asked`` rows were looked for; ``missed`` i64, ascending, are those that were not found."""

    asked: int
    missed: NDArray[np.int64]


def look_for_rows(segment: OpenSegment, *, live: NDArray[np.int64], most: int | None, l2: bool) -> Reached:
    """Look for rows of an opened graph segment.

    Args:
        live: i64, the rows that must be found.
        most: how many of them to look for, chosen evenly; None: all.
    """
    assert segment.graph is not None
    chosen = live
    if most is not None and most < len(live):
        chosen = np.sort(np.random.default_rng(len(live)).choice(live, most, replace=False))
    walker = _Walker(SearchableSegment(segment), l2=l2)
    missed = [row for row in chosen.tolist() if not walker.finds(row)]
    return Reached(len(chosen), np.array(missed, np.int64))


class _Walker:
    def __init__(self, searchable: SearchableSegment, *, l2: bool) -> None:
        assert searchable.segment.graph is not None
        self._searchable = searchable
        self._view = searchable.segment.graph
        self._l2 = l2
        self._marks = np.zeros(self._view.count, np.uint16)
        self._epoch = 0
        self._best = np.empty(EF, np.int64)
        self._costs = np.empty(EF, np.float32)

    def finds(self, row: int) -> bool:
        """Say whether a walk with the row's own vector meets it, or as many others that are as near."""
        self._epoch = self._epoch % _EPOCHS + 1
        if self._epoch == 1:
            self._marks[:] = 0
        query = self._searchable.segment.row_vectors(np.array([row], np.uint32))[0]
        query.flags.writeable = False
        size, _ = kernels.walk(
            self._view.graph,
            query,
            self._l2,
            self._marks,
            np.uint16(self._epoch),
            self._best,
            self._costs,
        )
        if size <= 0:
            return False
        own = 0.0 if self._l2 else -float(query @ query)
        if size == EF and self._costs[EF - 1] <= own + _TOLERANCE * max(1.0, abs(own)):
            return True  # crowded out by rows that are as near: duplicates, or longer vectors where the product counts
        return bool((self._view.record_rows[self._best[:size]] == row).any())
