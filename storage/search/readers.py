"""Searching one segment: which rows count, and what is nearest among them, by the way that ``planner.py`` chooses.

Rows that are tombstoned, expired or not accepted by the filter are never found, and a search never finds fewer rows
than ``min(k, accepted rows)``. It does not know versions, chunk ids of other segments, or how hits look.
"""

import threading
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from ..segments.columns import Kind
from ..segments.fields import Filter, evaluate
from ..segments.manifests import SegmentEntry
from . import planner
from .found import Accepted, Bools, Found, Longs
from .searchable import SearchableSegment

EPOCHS = 65_535
LISTED_DOCUMENTS = 4_096  # as few accepted documents are looked up one by one; of more, every row is looked at
COMPARED_PER_HIT = 3  # records of a walk by int8 to compare by their vectors
COMPARED_LEAST = 32
READ_BYTES = 64 << 10  # of texts that a walk reads along the way

_NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float32), "none", 0)


class _Scratch(threading.local):
    """A visited buffer per thread: a record was visited in this search if its mark is the epoch. And room for texts."""

    def __init__(self) -> None:
        self.marks = np.zeros(0, np.uint16)
        self.epoch = 0
        self.texts = np.empty(READ_BYTES, np.uint8)

    def begin(self, count: int) -> tuple[NDArray[np.uint16], np.uint16]:
        """Return a buffer for ``count`` records and the epoch of a new search."""
        if len(self.marks) < count or self.epoch == EPOCHS:
            self.marks = np.zeros(max(count, len(self.marks)), np.uint16)
            self.epoch = 0
        self.epoch += 1
        return self.marks, np.uint16(self.epoch)


_scratch = _Scratch()


class SegmentReader:
    """A segment as one version sees it: with the tombstones of that version. Immutable, safe between threads."""

    def __init__(
        self, shared: SearchableSegment, entry: SegmentEntry, *, deleted: NDArray[np.uint32], l2: bool
    ) -> None:
        self.shared = shared
        self.entry = entry
        self.segment = shared.segment
        self._l2 = l2
        self._live = np.ones(self.segment.entry.row_count, np.bool_) if len(deleted) else None
        self.first_expiry = shared.first_expiry  # of the live rows: what expired and left costs no search anything
        if self._live is not None:
            self._live[deleted] = False
            if self.first_expiry < np.inf:
                self.first_expiry = float(self.segment.expires_at.min(where=self._live, initial=np.inf))

    @cached_property
    def document_count(self) -> int:
        """How many documents have a live row."""
        owners = self.segment.rows.document
        return len(np.unique(owners if self._live is None else owners[self._live]))

    def kinds(self, path: str) -> frozenset[Kind]:
        """Return the kinds of value at ``path`` itself, those of deleted documents included: `HoldsKinds`."""
        return self.shared.kinds(path)

    def holds(self, path: str) -> bool:
        """Return whether a document with a live row holds a value at ``path`` itself: `HoldsKinds`."""
        with self.shared.reading_fields():
            holding = self.shared.fields.holding(path, below=False)
        rows = holding.take(self.segment.rows.document)
        return bool((rows if self._live is None else rows & self._live).any())

    def accepted(self, filter: Filter | None, *, now: float) -> Accepted:  # noqa: A002  (the word of the grammar)
        """Return which rows are live, not expired at ``now``, and of a document that ``filter`` accepts."""
        unexpired = self.segment.expires_at > now if self.first_expiry <= now else None
        if filter is None:
            return self._masked(self._live if unexpired is None else self._both(self._live, unexpired))
        documents = self._documents(filter)
        few = self.shared.in_order and not self.shared.one_to_one and np.count_nonzero(documents) <= LISTED_DOCUMENTS
        if few:
            rows = self.shared.rows_of(np.flatnonzero(documents))
            for mask in (self._live, unexpired):
                rows = rows if mask is None else rows[mask[rows]]
            return Accepted(len(rows), listed=rows)
        mask = self.shared.rows_accepted(documents)
        for other in (self._live, unexpired):
            mask = mask if other is None else np.logical_and(mask, other, out=mask)
        return self._masked(mask)

    def search(
        self,
        query: NDArray[np.float32],
        *,
        k: int,
        ef: int,
        filter: Filter | None = None,  # noqa: A002
        now: float,
        read: int = 0,
    ) -> Found:
        """Find the rows nearest to ``query`` among the accepted ones.

        Args:
            query: f32[d], finite, read-only.
            k: how many; exactly ``min(k, accepted rows)`` are found, of a graph sometimes more.
            ef: how wide a graph is walked, at least ``k``.
            read: of how many rows the texts may be wanted, best first. Those that are read along the way are in what
                is found; the others are read when they are asked for.

        Raises:
            Damaged: the mapped file is not what it was when it was opened.
        """
        accepted = self.accepted(filter, now=now)
        if not accepted.count:
            return _NOTHING
        if self.segment.graph is None:
            return self._scan(query, accepted, k=k)
        choice = self._choose(accepted, k=k, ef=ef)
        if choice.method == "scan":
            return self._scan(query, accepted, k=k)
        if choice.method == "codes":
            return self._scan_codes(query, accepted, k=k)
        if accepted.all_of_them and self.segment.rounded is None:
            found = self._walk_all(query, ef=choice.ef, read=read)
        else:
            found = self._walk(query, accepted, k=k, ef=choice.ef, budget=choice.budget)
        if len(found.rows) >= min(k, accepted.count):
            return found
        return self._scan_codes(query, accepted, k=k, after=found)

    def _choose(self, accepted: Accepted, *, k: int, ef: int) -> planner.Choice:
        rows, dimensions = self.segment.entry.row_count, len(self.shared.coded.centre)
        size = {"accepted": accepted.count, "count": rows, "dimensions": dimensions}
        return planner.choose(self.shared.costs, **size, k=k, ef=ef, walked=self.shared.is_walked)

    def exactly(self, query: NDArray[np.float32], *, k: int, now: float) -> Found:
        """Find the nearest rows by a scan of all that are live, whatever a search would do. Costs what that costs."""
        accepted = self.accepted(None, now=now)
        return self._scan(query, accepted, k=k) if accepted.count else _NOTHING

    def live_rows(self, *, now: float) -> NDArray[np.int64]:
        """Return the ascending rows i64 that are neither deleted nor expired at ``now``."""
        return self._listed(self.accepted(None, now=now))

    def check_finite(self, costs: NDArray[np.float32]) -> None:
        """Raise Damaged when a cost of a row is not finite, for then its vector is not."""
        if not np.isfinite(costs).all():
            raise self.rotten()

    def rotten(self) -> Damaged:
        """Return what to raise of a vector that is not finite."""
        name = self.segment.entry.files[-1].name
        return Damaged(f"{name}: a vector is not finite; restore or rebuild the segment")

    def _documents(self, filter: Filter) -> Bools:  # noqa: A002
        with self.shared.reading_fields():
            return evaluate(self.shared.fields, filter)

    def _scan(self, query: NDArray[np.float32], accepted: Accepted, *, k: int) -> Found:
        if self.segment.rounded is not None:
            return self._compared(query, self._listed(accepted), accepted=accepted, k=k, method="scan")
        rows, wanted = accepted.rows(), min(k, accepted.count)
        places = self.shared.places if rows is None else self.shared.places.take(rows)
        best, costs = np.empty(wanted, np.int64), np.empty(wanted, np.float32)
        self._checked_scan(places, query, best, costs)
        found = best if rows is None else rows[best]
        return Found(found, -costs, "scan", accepted.count, compared=accepted.count)

    def _scan_codes(
        self, query: NDArray[np.float32], accepted: Accepted, *, k: int, after: Found | None = None
    ) -> Found:
        coded, count = self.shared.coded, planner.rescored(k, walked=self.shared.is_walked)
        if accepted.mask is None:
            candidates = coded.candidates(query, self._listed(accepted), count=count, l2=self._l2)
        else:
            marked = accepted.count
            candidates = coded.candidates_marked(query, accepted.mask, marked=marked, count=count, l2=self._l2)
        method: planner.Method = "walk, then codes" if after else "codes"
        found = self._compared(query, np.sort(candidates), accepted=accepted, k=k, method=method)
        return found._replace(visits=after.visits) if after else found

    def _checked_scan(self, places: Longs, query: NDArray[np.float32], best: Longs, costs: NDArray[np.float32]) -> None:
        if kernels.scan(self.shared.floats, places, query, self._l2, best, costs) == kernels.BROKEN:
            raise self.rotten()
        self.check_finite(costs)

    def _compared(
        self, query: NDArray[np.float32], rows: Longs, *, accepted: Accepted, k: int, method: planner.Method
    ) -> Found:
        """Return the best of ``rows`` by their vectors."""
        costs = np.empty(len(rows), np.float32)
        rounded, graph = self.segment.rounded, self.segment.graph
        assert graph is not None
        if rounded is not None:
            rounded.compare(query, graph.row_records[rows].astype(np.int64), l2=self._l2, costs=costs)
            self.check_finite(costs)  # all of them: it would be ordered behind the others
            best = np.argsort(costs, kind="stable")[:k]
            costs = costs[best]
        else:
            best, costs = np.empty(min(k, len(rows)), np.int64), costs[:k]
            self._checked_scan(self.shared.places.take(rows), query, best, costs)
        return Found(rows[best], -costs, method, accepted.count, compared=len(rows))

    def _walk_all(self, query: NDArray[np.float32], *, ef: int, read: int) -> Found:
        graph = self.segment.graph
        assert graph is not None
        marks, epoch = _scratch.begin(graph.count)
        rows, scores = np.empty(ef, np.int64), np.empty(ef, np.float32)
        texts = self.shared.texts
        ends = np.empty(read if texts.descriptor >= 0 else 0, np.int64)
        size, visits, count = kernels.walk_and_read(
            graph.graph, query, self._l2, marks, epoch, graph.record_rows, rows, scores, *texts, _scratch.texts, ends
        )
        if size == kernels.BROKEN:
            raise self._broken()
        data = _scratch.texts[: ends[count - 1]].tobytes() if count else b""
        told = tuple(data[start:end] for start, end in pairwise([0, *ends[:count].tolist()]))
        return Found(rows[:size], scores[:size], "walk", graph.count, int(visits), texts=told)

    def _walk(self, query: NDArray[np.float32], accepted: Accepted, *, k: int, ef: int, budget: int) -> Found:
        assert self.segment.graph is not None
        marks, epoch = _scratch.begin(self.segment.graph.count)
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        rounded, record_rows = self.segment.rounded, self.segment.graph.record_rows
        graph = (rounded or self.segment.graph).graph
        asked = rounded.query(query, l2=self._l2) if rounded else query
        mask, share = accepted.as_mask(len(record_rows)), accepted.count / len(record_rows)
        if mask is None:
            size, visits = kernels.walk(graph, asked, self._l2, marks, epoch, best, costs)
        else:
            size, visits = kernels.walk_accepted(
                graph, asked, self._l2, marks, epoch, record_rows, mask, budget, share, best, costs
            )
        if size == kernels.BROKEN:
            raise self._broken()
        records = best[: max(0, int(size))]  # a walk whose budget is spent found nothing to rely on
        costs = costs[: len(records)]
        if rounded:
            compared = max(COMPARED_LEAST, COMPARED_PER_HIT * k)
            records, costs = records[:compared], costs[:compared]
            rounded.compare(query, records, l2=self._l2, costs=costs)
            order = np.argsort(costs, kind="stable")
            records, costs = records[order], costs[order]
        self.check_finite(costs[:: max(1, len(costs) - 1)])  # in order, and none is NaN: the ends tell of all
        return Found(record_rows[records].astype(np.int64), -costs, "walk", accepted.count, int(visits))

    def _broken(self) -> Damaged:
        name = self.segment.entry.files[1].name
        return Damaged(f"{name}: a link leads nowhere, or a vector is not finite; restore or rebuild the segment")

    def _listed(self, accepted: Accepted) -> Longs:
        rows = accepted.rows()
        return np.arange(self.segment.entry.row_count) if rows is None else rows

    def _masked(self, mask: Bools | None) -> Accepted:
        if mask is None:
            return Accepted(self.segment.entry.row_count)
        if mask is self._live:
            return Accepted(self.entry.live_count, mask)
        return Accepted(int(np.count_nonzero(mask)), mask)

    @staticmethod
    def _both(live: Bools | None, unexpired: Bools) -> Bools:
        return unexpired if live is None else live & unexpired
