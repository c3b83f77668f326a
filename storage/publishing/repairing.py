"""Finding the rows of a new graph that no search finds, and linking them in, before anyone may see the graph.

hnswlib prunes links, and sometimes the last one that led to a record, or to a whole island of them. Inserting such
rows again makes it worse: of a million rows, 1.4 % were lost after that where 0.007 % had been. So the file itself is
edited. A search for the lost row ends at the nearest records that can be reached; one of them gets a link to it, which
every such search then follows.

It edits one file that nobody else has, and builds nothing. It trusts the links, which the builder has just written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from ..segments.finders import Finder, missed_records
from ..segments.graph_files import HEADER_BYTES, GraphView
from ..segments.segment import WALKED_FOUND

EF = 200
EF_WATCHED = 64  # as searches do
PROBED_ROWS = 1_000
MISSED_SHARE_MAX = 0.005  # of the probed rows, after the repair
SEARCHED_SHARE = 0.002  # missed of a sample: then every row is searched for
_ROUNDS = 5
_HOSTS = 16

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Repaired:
    """``unreachable``: records to which no link led; ``missed``: of ``probed``, those that a search did not find.

    ``linked``: how many got a link. ``found``: the share of them that walks find which are as wide as searches.
    """

    unreachable: int
    probed: int
    missed: int
    linked: int
    found: float = 1.0


def repair(path: Path, view: GraphView, *, l2: bool, watched: Sequence[int] = (), threads: int = 1) -> Repaired:
    """Make every record reachable, and a sample of them findable, by links that are added to the file.

    Args:
        path: the file that ``view`` maps.
        watched: records to search for as readers do: those whose vector others have too, for a search that meets
            very many equal ones may end among them.
        threads: that search. In a large graph of which too many rows are missed, all rows are searched for.

    Raises:
        Damaged: rows stay lost whatever is linked; the graph must not be used.
    """
    records = np.memmap(path, "<u4", "r+", HEADER_BYTES, (view.count, view.stride))
    return _Repair(view, records, l2=l2, threads=threads).run(watched)


class _Repair:
    """``records``: u32[count, stride], those of ``view``, writable."""

    def __init__(self, view: GraphView, records: NDArray[np.uint32], *, l2: bool, threads: int) -> None:
        self._view = view
        self._records = records
        self._l2 = l2
        self._threads = threads
        self._finder = Finder(view, l2=l2)
        self._degrees = np.zeros(view.count, np.uint32)
        kernels.count_links(view.words, view.stride, view.max_m0, self._degrees)

    def run(self, watched: Sequence[int]) -> Repaired:
        unreachable, linked = self._connect()
        for _ in range(_ROUNDS):
            watched = self._missed(watched, ef=EF_WATCHED)
            linked += sum(self._link(record, ef=EF_WATCHED) for record in watched)
        probed = np.random.default_rng(self._view.count).permutation(self._view.count)[:PROBED_ROWS].tolist()
        missed = lost = self._missed(probed)
        found = 1.0 - len(self._missed(probed, ef=EF_WATCHED)) / len(probed)
        walked = found >= WALKED_FOUND  # else it is what the vectors are like, and links do not help
        if walked and len(lost) > SEARCHED_SHARE * len(probed):
            lost = self._missed(range(self._view.count))
        linked += sum(self._link(record) for record in lost)
        linked += self._connect()[1]  # links that had to make room: one may have been the last to its record
        still = self._missed(probed)
        if walked and len(still) > MISSED_SHARE_MAX * len(probed):
            raise Damaged(
                f"{len(still)} of {len(probed)} rows of the new graph cannot be found, whatever is linked: refused"
            )
        return Repaired(unreachable, len(probed), len(missed), linked, found)

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

    def _missed(self, records: Sequence[int], *, ef: int = EF) -> list[int]:
        """Return the records that a search by their own vector does not find although they are near enough."""
        return missed_records(self._view, records, ef=ef, l2=self._l2, threads=self._threads)

    def _link(self, record: int, *, ef: int = EF) -> bool:
        """Give a record near to this one a link to it: one with room for a link, or the nearest."""
        best, _ = self._finder.nearest(record, ef=ef)
        if not len(best):
            raise Damaged("a link of the new graph leads nowhere: it is refused")
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
