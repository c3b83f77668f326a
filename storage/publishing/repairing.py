"""Finding the rows of a new graph that no search finds, and linking them in, before anyone may see the graph.

hnswlib prunes links, and sometimes the last one that led to a record, or to a whole island of them. Inserting such
rows again makes it worse: of a million rows, 1.4 % were lost after that where 0.007 % had been. So the file itself is
edited. A search for the lost row ends at the nearest records that can be reached; one of them gets a link to it, which
every such search then follows.

It edits one file that nobody else has, and builds nothing. It trusts the links, which the builder has just written.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from ..segments.graph_files import HEADER_BYTES, GraphView

EF = 200
EF_WATCHED = 64  # as searches do
PROBED_ROWS = 1_000
MISSED_SHARE_MAX = 0.005  # of the probed rows, after the repair
SEARCHED_SHARE = 0.002  # missed of a sample: then every row is searched for
_ROUNDS = 5
_HOSTS = 16
_TOLERANCE = 1e-4

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Repaired:
    """``unreachable``: records to which no link led; ``missed``: of ``probed``, those that a search did not find.

    ``linked``: how many got a link.
    """

    unreachable: int
    probed: int
    missed: int
    linked: int


def repair(path: Path, view: GraphView, *, l2: bool, watched: Sequence[int] = ()) -> Repaired:
    """Make every record reachable, and a sample of them findable, by links that are added to the file.

    Args:
        path: the file that ``view`` maps.
        watched: records to search for as readers do: those whose vector others have too, for a search that meets
            very many equal ones may end among them.

    Raises:
        Damaged: rows stay lost whatever is linked; the graph must not be used.
    """
    records = np.memmap(path, "<u4", "r+", HEADER_BYTES, (view.count, view.stride))
    return _Repair(view, records, l2=l2).run(watched)


class _Repair:
    """``records``: u32[count, stride], those of ``view``, writable."""

    def __init__(self, view: GraphView, records: NDArray[np.uint32], *, l2: bool) -> None:
        self._view = view
        self._records = records
        self._l2 = l2
        self._marks = np.zeros(view.count, np.uint16)
        self._epoch = 0
        self._degrees = np.zeros(view.count, np.uint32)
        kernels.count_links(view.words, view.stride, view.max_m0, self._degrees)

    def run(self, watched: Sequence[int]) -> Repaired:
        unreachable, linked = self._connect()
        for _ in range(_ROUNDS):
            watched = self._missed(watched, ef=EF_WATCHED)
            linked += sum(self._link(record, ef=EF_WATCHED) for record in watched)
        probed = np.random.default_rng(self._view.count).permutation(self._view.count)[:PROBED_ROWS]
        missed = lost = self._missed(probed.tolist())
        if len(lost) > SEARCHED_SHARE * len(probed):
            lost = self._missed(range(self._view.count))
        linked += sum(self._link(record) for record in lost)
        linked += self._connect()[1]  # links that had to make room: one may have been the last to its record
        still = self._missed(probed.tolist())
        if len(still) > MISSED_SHARE_MAX * len(probed):
            raise Damaged(
                f"{len(still)} of {len(probed)} rows of the new graph cannot be found, whatever is linked: refused"
            )
        return Repaired(unreachable, len(probed), len(missed), linked)

    def _connect(self) -> tuple[int, int]:
        """Link in what no link leads to; return how many records that were, and how many were linked."""
        unreachable, linked = None, 0
        for _ in range(_ROUNDS):
            seen, queue = np.zeros(self._view.count, np.bool_), np.empty(self._view.count, np.int64)
            self._reach(self._view.entry_point, seen, queue)
            lost = np.flatnonzero(~seen)
            unreachable = len(lost) if unreachable is None else unreachable
            if not len(lost):
                return unreachable, linked
            for record in lost.tolist():
                if not seen[record]:
                    linked += self._link(record)
                    self._reach(record, seen, queue)
        raise Damaged(f"{len(lost)} records of the new graph cannot be reached, whatever is linked: it is refused")

    def _reach(self, start: int, seen: NDArray[np.bool_], queue: Longs) -> None:
        kernels.reach(self._view.words, self._view.stride, self._view.max_m0, start, seen, queue)

    def _missed(self, records: Iterable[int], *, ef: int = EF) -> list[int]:
        """Return the records that a search by their own vector does not find although they are near enough."""
        return [record for record in records if self._is_missed(record, ef=ef)]

    def _is_missed(self, record: int, *, ef: int) -> bool:
        best, costs = self._search(record, ef=ef)
        if (best == record).any():
            return False
        own = 0.0 if self._l2 else -float(np.dot(self._vector(record), self._vector(record)))
        # Rows with the same vector, or longer ones where the product counts, may rightly fill all places.
        return not (len(best) == min(ef, self._view.count) and costs[-1] <= own + _TOLERANCE * max(1, abs(own)))

    def _search(self, record: int, *, ef: int) -> tuple[Longs, NDArray[np.float32]]:
        if self._epoch == np.iinfo(np.uint16).max:
            self._marks[:], self._epoch = 0, 0
        self._epoch += 1
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        query = self._vector(record)
        size, _ = kernels.walk(self._view.graph, query, self._l2, self._marks, np.uint16(self._epoch), best, costs)
        if size == kernels.BROKEN:
            raise Damaged("a link of the new graph leads nowhere: it is refused")
        return best[:size], costs[:size]

    def _vector(self, record: int) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self._view.vectors[record].copy()
        vector.flags.writeable = False
        return vector

    def _link(self, record: int, *, ef: int = EF) -> bool:
        """Give a record near to this one a link to it: one with room for a link, or the nearest."""
        best, _ = self._search(record, ef=ef)
        hosts = [host for host in best[:_HOSTS].tolist() if host != record]
        if not hosts or any(self._leads(host, record) for host in hosts[:1]):
            return False
        host = next((each for each in hosts if self._links_of(each) < self._view.max_m0), hosts[0])
        links = self._links_of(host)
        if links < self._view.max_m0:
            self._records[host, 0] += 1
            slot = links
        else:  # in the place of a link to what most others lead to
            targets = self._records[host, 1 : 1 + links]
            slot = int(np.argmax(self._degrees[targets]))
            self._degrees[targets[slot]] -= 1
        self._records[host, 1 + slot] = record
        self._degrees[record] += 1
        return True

    def _links_of(self, record: int) -> int:
        return int(self._records[record, 0] & 0xFFFF)

    def _leads(self, host: int, record: int) -> bool:
        return bool((self._records[host, 1 : 1 + self._links_of(host)] == record).any())
