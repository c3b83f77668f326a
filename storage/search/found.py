"""What goes into the search of one segment and comes out of it: the rows that count, and those that were found."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from . import planner

Bools = NDArray[np.bool_]
Longs = NDArray[np.int64]


class Found(NamedTuple):
    """Rows of one segment, best first, and how they were found.

    Attributes:
        rows: i64[m].
        scores: f32[m]; higher is better.
        accepted: how many rows a search could find.
        visits: records a walk visited.
        compared: vectors that were compared outside of a walk.
        texts: of the first rows, if they were read along the way.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    method: planner.Method
    accepted: int
    visits: int = 0
    compared: int = 0
    texts: tuple[bytes, ...] = ()

    def texts_of(self, places: Sequence[int]) -> list[bytes] | None:
        """Return the texts of the rows at these places, or None if some were not read."""
        if not places or max(places) >= len(self.texts):
            return None
        return [self.texts[place] for place in places]


@dataclass(frozen=True)
class Accepted:
    """Which rows of a segment count in a search: all, those of a mask, or those of a list.

    Attributes:
        count: how many.
        mask: bool[n], or None.
        listed: i64[count], ascending, or None.
    """

    count: int
    mask: Bools | None = None
    listed: Longs | None = None

    @property
    def all_of_them(self) -> bool:
        return self.mask is None and self.listed is None

    def rows(self) -> Longs | None:
        """Return the rows that count, ascending, or None for all."""
        if self.mask is None:
            return self.listed
        rows = np.empty(self.count, np.int64)
        kernels.list_set(self.mask, 0, len(self.mask), rows)  # several times as fast as flatnonzero
        return rows

    def as_mask(self, count: int) -> Bools | None:
        """Return bool[count], or None for all rows."""
        if self.listed is None:
            return self.mask
        mask = np.zeros(count, np.bool_)
        mask[self.listed] = True
        return mask
