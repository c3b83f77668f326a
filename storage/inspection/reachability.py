"""Whether the rows of a graph can be reached: links lead to every one, and a walk with its own vector finds it.

Links are followed to all rows, in about a second for a million; walks are as those of searches, and may be of a sample.
Rows of flat segments are reached by construction. Tombstoned rows are walked through, and need not be found. Nearly
every row is found by a narrow walk, which costs an eighth; only the others are looked for as widely as it takes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import local

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..machine import cores
from ..segments.graph_files import GraphView
from ..segments.segment import OpenSegment

EF = 200  # as the probe of a new graph
NARROW_EF = 16  # what this finds, a wider walk finds too
_TOLERANCE = 1e-4
_EPOCHS = 65_535
_AT_ONCE = 256  # rows for a thread


@dataclass(frozen=True)
class Reached:
    """What was found out of the rows of a graph that must be found.

    Attributes:
        asked: how many were looked for by their own vectors.
        missed: i64, ascending; those of them that were not found, and of all rows those that no link leads to.
        unlinked: to how many of all rows no link leads.
    """

    asked: int
    missed: NDArray[np.int64]
    unlinked: int = 0


def look_for_rows(
    segment: OpenSegment,
    *,
    live: NDArray[np.int64],
    most: int | None,
    l2: bool,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Reached:
    """Look for rows of an opened graph segment, on all cores.

    Args:
        live: i64, the rows that must be found.
        most: how many of them to look for by their own vectors, chosen evenly; None: all.
        on_rows: told after each piece how many were looked for.
    """
    view = segment.graph
    assert view is not None
    chosen = live
    if most is not None and most < len(live):
        chosen = np.random.default_rng(len(live)).choice(live, most, replace=False)
    records = np.sort(view.row_records[chosen].astype(np.int64))  # as they lie in the file
    walkers = _Walkers(view, l2=l2)
    missed: list[int] = []
    with ThreadPoolExecutor(cores(), thread_name_prefix="rows") as pool:
        for some, lost in zip(_pieces(records), pool.map(walkers.missed, _pieces(records)), strict=True):
            missed += lost
            on_rows(len(some))
    unlinked = _unlinked(view, live)
    unfound = view.record_rows[np.array(missed, np.int64)].astype(np.int64)
    return Reached(len(records), np.union1d(unfound, unlinked), len(unlinked))


def _unlinked(view: GraphView, live: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of ``live`` to which no links lead from the entry point, on the level that has all rows."""
    seen, queue = np.zeros(view.count, np.bool_), np.empty(view.count, np.int64)
    kernels.reach(view.words, view.stride, view.max_m0, view.entry_point, seen, queue)
    return live[~seen[view.row_records[live]]]


def _pieces(records: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (records[first : first + _AT_ONCE] for first in range(0, len(records), _AT_ONCE))


class _Walkers(local):
    """One walker per thread."""

    def __init__(self, view: GraphView, *, l2: bool) -> None:
        self._walker = _Walker(view, l2=l2)

    def missed(self, records: NDArray[np.int64]) -> list[int]:
        return [record for record in records.tolist() if not self._walker.finds(record)]


class _Walker:
    def __init__(self, view: GraphView, *, l2: bool) -> None:
        self._view = view
        self._l2 = l2
        self._marks = np.zeros(view.count, np.uint16)
        self._epoch = 0

    def finds(self, record: int) -> bool:
        """Say whether a walk with the record's own vector meets it, or as many others that are as near."""
        query = self._view.vectors[record].copy()
        query.flags.writeable = False
        best, _ = self._walk(query, ef=NARROW_EF)
        if (best == record).any():
            return True
        best, costs = self._walk(query, ef=EF)
        own = 0.0 if self._l2 else -float(query @ query)
        if len(best) == EF and costs[-1] <= own + _TOLERANCE * max(1.0, abs(own)):
            return True  # crowded out by rows that are as near: duplicates, or longer vectors where the product counts
        return bool((best == record).any())

    def _walk(self, query: NDArray[np.float32], *, ef: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        self._epoch = self._epoch % _EPOCHS + 1
        if self._epoch == 1:
            self._marks[:] = 0
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        epoch = np.uint16(self._epoch)
        size, _ = kernels.walk(self._view.graph, query, self._l2, self._marks, epoch, best, costs)
        return best[: max(0, int(size))], costs[: max(0, int(size))]
