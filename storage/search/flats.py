"""The flat segments of a version, scanned together.

Behind a large graph there are always some: what was published last. One by one, each would cost a search thirty
microseconds before it looks at a vector.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..ids import SegmentId
from .found import Found
from .readers import SegmentReader


class Flats:
    """The flat ones among ``readers`` that nothing was deleted from. Immutable, safe between threads."""

    def __init__(self, readers: Iterable[SegmentReader], *, l2: bool) -> None:
        self._readers = [one for one in readers if one.entry.kind == "flat" and not one.entry.deleted_count]
        self._l2 = l2
        floats = [reader.shared.floats for reader in self._readers]  # which the readers hold: they are read by address
        self._addresses = np.array([each.ctypes.data for each in floats], np.int64)
        self._counts = np.array([reader.entry.row_count for reader in self._readers], np.int64)
        self._firsts = np.concatenate(([0], self._counts.cumsum()))
        self._first_expiry = min((reader.first_expiry for reader in self._readers), default=np.inf)
        none = np.empty(0, np.int64), np.empty(0, np.float32)
        self._scanned = {
            one.entry.id: Found(*none, "scan", one.entry.row_count, compared=one.entry.row_count)
            for one in self._readers
        }

    def among(self, *, now: float) -> Collection[SegmentId]:
        """Return which segments `search` searches: none while one of them has a row that has expired."""
        return () if self._first_expiry <= now else self._scanned.keys()

    def search(self, query: NDArray[np.float32], *, k: int, least: float) -> Mapping[SegmentId, Found]:
        """Find the ``k`` nearest rows of all these segments, and return for each what it has of them.

        Args:
            query: f32[d], finite, read-only.
            least: a row with a lower score is no hit: as many better ones were found elsewhere.

        Raises:
            Damaged: a vector is not finite.
        """
        wanted = min(k, int(self._firsts[-1]))
        best, costs = np.empty(wanted, np.int64), np.empty(wanted, np.float32)
        size = kernels.scan_arrays(self._addresses, self._counts, query, self._l2, best, costs)
        if size == kernels.BROKEN:
            raise self._readers[best[0]].rotten()
        if costs[0] > -least:  # most of the time: what was published last is a small part of everything
            return self._scanned
        kept = costs <= -least
        best, costs = best[kept], costs[kept]
        owners = self._firsts.searchsorted(best, "right") - 1
        rows, found = best - self._firsts[owners], dict(self._scanned)
        for owner in dict.fromkeys(owners.tolist()):
            own, reader = owners == owner, self._readers[owner]
            reader.check_finite(costs[own])
            found[reader.entry.id] = self._scanned[reader.entry.id]._replace(rows=rows[own], scores=-costs[own])
        return found
