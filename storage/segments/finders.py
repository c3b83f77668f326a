"""Whether records of a graph are found by their own vectors: asked of one that was built, and of one that is examined.

Of most vectors nearly every record is found by a narrow walk, which costs an eighth; only the others are looked for as
widely as asked. The walks are those of searches, on several threads. It edits nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .graph_files import GraphView

NARROW_EFS = (16, 64)  # tried first: what these find, a wider walk finds too
_TOLERANCE = 1e-4
_EPOCHS = 65_535
_AT_ONCE = 256  # records for a thread


class Finder:
    """Walks one graph by the vectors of its records. For one thread."""

    def __init__(self, view: GraphView, *, l2: bool) -> None:
        self._view = view
        self._l2 = l2
        self._marks = np.zeros(view.count, np.uint16)
        self._epoch = 0

    def finds(self, record: int, *, ef: int) -> bool:
        """Say whether a walk with the record's own vector meets it, or as many others that are as near.

        Those are rows with the same vector, or longer ones where the product counts.
        """
        narrower = NARROW_EFS if ef > NARROW_EFS[-1] else ()  # one as wide as searches is what they would find
        if any((self.nearest(record, ef=narrow)[0] == record).any() for narrow in narrower):
            return True
        best, costs = self.nearest(record, ef=ef)
        if (best == record).any():
            return True
        vector = self._view.vectors[record]
        own = 0.0 if self._l2 else -float(vector @ vector)
        return len(best) == min(ef, self._view.count) and bool(costs[-1] <= own + _TOLERANCE * max(1.0, abs(own)))

    def nearest(self, record: int, *, ef: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the records that a walk with this one's vector ends with, and their costs, the nearest first.

        None at all: a link leads nowhere, or a vector is not finite.
        """
        query = self._view.vectors[record].copy()
        query.flags.writeable = False
        self._epoch = self._epoch % _EPOCHS + 1
        if self._epoch == 1:
            self._marks[:] = 0
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        epoch = np.uint16(self._epoch)
        size, _ = kernels.walk(self._view.graph, query, self._l2, self._marks, epoch, best, costs)
        return best[: max(0, int(size))], costs[: max(0, int(size))]


def missed_records(
    view: GraphView,
    records: Sequence[int] | NDArray[np.int64],
    *,
    ef: int,
    l2: bool,
    threads: int,
    on_records: Callable[[int], None] = lambda _: None,
) -> list[int]:
    """Return those of the records that a search of this width by their own vector does not find, in their order.

    Args:
        on_records: told after each piece how many were looked for.
    """
    finders = _Finders(view, l2=l2, ef=ef)
    missed: list[int] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="finder") as pool:
        for some, lost in zip(_pieces(records), pool.map(finders.missed, _pieces(records)), strict=True):
            missed += lost
            on_records(len(some))
    return missed


class _Finders(local):
    """One finder per thread."""

    def __init__(self, view: GraphView, *, l2: bool, ef: int) -> None:
        self._finder = Finder(view, l2=l2)
        self._ef = ef

    def missed(self, records: Iterable[int]) -> list[int]:
        return [record for record in map(int, records) if not self._finder.finds(record, ef=self._ef)]


def _pieces(records: Sequence[int] | NDArray[np.int64]) -> Iterator[Sequence[int] | NDArray[np.int64]]:
    return (records[first : first + _AT_ONCE] for first in range(0, len(records), _AT_ONCE))
