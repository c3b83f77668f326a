"""The figures of one version of an index: its segments, their sizes, and how much work went into their graphs.

They are read from the manifest and the headers of the mapped files: nothing is scanned and nothing is searched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ids import SegmentId
from ..search.readers import SegmentReader
from ..search.versions import Snapshot


@dataclass(frozen=True)
class SegmentStatistics:
    """One segment. ``graph_insertions``: of vectors into this graph and those that its rows came from; 0 when flat."""

    id: SegmentId
    kind: str
    rows: int
    live: int
    deleted: int
    size_bytes: int
    graph_insertions: int

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of all files of the segment for each row, the deleted ones included."""
        return self.size_bytes / self.rows


@dataclass(frozen=True)
class IndexStatistics:
    """All segments of a version, in the order of their chunk ids, and their sums."""

    segments: Sequence[SegmentStatistics]

    @property
    def totals(self) -> dict[str, int]:
        names = ("rows", "live", "deleted", "size_bytes", "graph_insertions")
        return {name: sum(getattr(segment, name) for segment in self.segments) for name in names}

    @property
    def bytes_per_vector(self) -> float | None:
        """Bytes of all files for each live row; None without one."""
        totals = self.totals
        return totals["size_bytes"] / totals["live"] if totals["live"] else None

    @property
    def insertions_per_vector(self) -> float | None:
        """How often a row of a graph was inserted into one, on average; None without a graph."""
        in_graphs = sum(segment.rows for segment in self.segments if segment.kind == "graph")
        return self.totals["graph_insertions"] / in_graphs if in_graphs else None

    def described(self) -> dict[str, Any]:
        """Return the figures as every interface tells them, ready for JSON."""
        return {
            **self.totals,
            "bytes_per_vector": self.bytes_per_vector,
            "graph_insertions_per_vector": self.insertions_per_vector,
            "segments": [{**vars(one), "bytes_per_vector": one.bytes_per_vector} for one in self.segments],
        }


def read_statistics(snapshot: Snapshot) -> IndexStatistics:
    """Return the figures of an opened version."""
    return IndexStatistics([_segment(reader) for reader in snapshot.readers.values()])


def _segment(reader: SegmentReader) -> SegmentStatistics:
    entry = reader.entry
    return SegmentStatistics(
        id=entry.id,
        kind=entry.kind,
        rows=entry.row_count,
        live=entry.live_count,
        deleted=entry.deleted_count,
        size_bytes=sum(file.size_bytes for file in entry.all_files),
        graph_insertions=int(reader.segment.sections.meta["graph_insertions"]),
    )
