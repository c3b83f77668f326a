"""What is left of a damaged segment: its live rows whose parts are all what was written, with their vectors.

Checksums of blocks tell which vectors can be trusted. The links of a graph lie between its vectors; that a search
cannot rely on them any more says nothing of vectors in other blocks. It reads, and chooses and writes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged, NotFound
from ..objects.store import ObjectStore
from ..segments.blocks import BLOCK_BYTES, intact_blocks
from ..segments.files import SEGMENT_KIND, column, is_of, local_file
from ..segments.graph_files import HEADER_BYTES, graph_shape, record_map
from ..segments.manifests import FileEntry, SegmentEntry
from ..segments.rows import Rows
from ..segments.sections import Sections, open_sections
from ..segments.tombstones import read_deletes
from .checksums import CheckedFiles

ESSENTIAL = (
    "chunk_id",
    "document_bytes",
    "document_offsets",
    *(field.name for field in fields(Rows) if field.name != "documents"),
)
_LABEL_BYTES = 8
_TELLING_RECORDS = 16  # so many labels that are right tell that the header, which is not, is right about the records

Bools = NDArray[np.bool_]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Remains:
    """``n`` live rows of a segment in their order. ``whole``: no live row is missing."""

    rows: Rows
    chunk_ids: NDArray[np.uint64]  # ascending
    vectors: Vectors  # (n, d)
    whole: bool

    def beside(self, entries: Sequence[SegmentEntry]) -> Iterator["Remains"]:
        """Yield the rows that lie in no segment of ``entries``, apart where one of those lies between them."""
        sides = np.zeros(len(self.chunk_ids), np.int64)
        covered = np.zeros(len(self.chunk_ids), np.bool_)
        for entry in entries:
            first, end = np.searchsorted(self.chunk_ids, [entry.first_chunk_id, entry.last_chunk_id + 1])
            covered[first:end] = True
            sides[end:] += 1
        for side in np.unique(sides[~covered]).tolist():
            kept = np.flatnonzero(~covered & (sides == side))
            yield Remains(self.rows.take(kept), self.chunk_ids[kept], self.vectors[kept], whole=False)


def read_remains(
    objects: ObjectStore, checked: CheckedFiles, entry: SegmentEntry, *, dimensions: int
) -> Remains | None:
    """Return what is left of a damaged segment, or None: nothing is, or nobody can tell.

    Raises:
        Unavailable: the object store does not answer.
    """
    if not all(checked.is_readable(file) for file in entry.files):
        return None
    try:
        sections = open_sections(_stored(objects, entry.files[0]), kind=SEGMENT_KIND)
        if not all(sections.is_intact(name) for name in ESSENTIAL):
            return None
        rows = Rows.from_sections(sections)
        if not _is_of(entry, sections, row_count=len(rows)):
            return None
        live = _live(objects, checked, entry)
        if entry.kind == "flat":
            found = _flat_vectors(sections, live)
        else:
            found = _graph_vectors(objects, checked, entry, sections, live, dimensions=dimensions)
    except (Damaged, NotFound):
        return None
    if found is None or not len(found[0]):
        return None
    kept, vectors = found
    return Remains(rows.take(kept), sections.arrays["chunk_id"][kept], vectors, whole=len(kept) == len(live))


def _stored(objects: ObjectStore, file: FileEntry) -> Path:
    """Return the file as it is stored: what it holds, whole or not, has checksums of its own. Raises NotFound."""
    try:
        return local_file(objects, file)
    except Damaged:
        return objects.local_path(file.name)


def _is_of(entry: SegmentEntry, sections: Sections, *, row_count: int) -> bool:
    """Say whether the file is of this segment: another one's, after a restore gone wrong, may be whole as well."""
    if not is_of(sections, entry) or row_count != entry.row_count:
        return False
    chunk_ids = column(sections, "chunk_id", "<u8", count=row_count)
    return (int(chunk_ids[0]), int(chunk_ids[-1])) == (entry.first_chunk_id, entry.last_chunk_id)


def _live(objects: ObjectStore, checked: CheckedFiles, entry: SegmentEntry) -> NDArray[np.uint32]:
    """Return the rows without a tombstone; where the tombstones are damaged, all of them: the ledger knows better."""
    rows = np.arange(entry.row_count, dtype="<u4")
    if entry.deletes is None or not checked.is_intact(entry.deletes):
        return rows
    return np.setdiff1d(rows, read_deletes(objects, entry), assume_unique=True)


def _flat_vectors(sections: Sections, live: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], Vectors] | None:
    vectors = sections.arrays.get("vectors")
    if vectors is None or len(vectors) == 0:
        return None
    starts = np.arange(len(vectors)) * vectors.strides[0]
    kept = live[_lie_in(sections.intact_blocks("vectors"), starts, size_bytes=vectors.strides[0])[live]]
    return kept, vectors[kept]


def _graph_vectors(
    objects: ObjectStore,
    checked: CheckedFiles,
    entry: SegmentEntry,
    sections: Sections,
    live: NDArray[np.uint32],
    *,
    dimensions: int,
) -> tuple[NDArray[np.uint32], Vectors] | None:
    """Return those of the live rows whose vector and label are what was written: the label says which row it is."""
    path = _stored(objects, entry.files[1])
    data = np.fromfile(path, "|u1", HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        return None
    count, record_bytes = graph_shape(path)
    part_bytes = 4 * dimensions + _LABEL_BYTES
    held = (path.stat().st_size - HEADER_BYTES) // record_bytes if record_bytes > part_bytes else 0
    if count != entry.row_count or record_bytes % 4 or not held:
        return None
    held = min(held, count)
    intact = _intact_blocks(checked, entry, sections, path)
    if intact is None:
        return None
    ends = HEADER_BYTES + (np.arange(held) + 1) * record_bytes
    records = np.flatnonzero(_lie_in(intact, ends - part_bytes, size_bytes=part_bytes))
    labels = record_map(path, count=held, record_bytes=record_bytes)[records]
    if not intact[0] and not _labels_are_right(sections, records, labels):
        return None
    place = np.full(entry.row_count, -1, np.int64)
    place[labels] = records
    kept = live[place[live] >= 0]
    mapped = np.memmap(path, "|u1", "r", HEADER_BYTES, (held, record_bytes))
    vectors = np.empty((len(kept), dimensions), np.float32)
    vectors.view(np.uint8)[:] = mapped[place[kept], record_bytes - part_bytes : record_bytes - _LABEL_BYTES]
    return kept, vectors


def _intact_blocks(checked: CheckedFiles, entry: SegmentEntry, sections: Sections, path: Path) -> Bools | None:
    if checked.is_intact(entry.files[1]):
        return np.ones(-(-entry.files[1].size_bytes // BLOCK_BYTES), np.bool_)
    if not sections.is_intact("graph_blocks"):
        return None
    return intact_blocks(np.memmap(path, "|u1", "r").data, sections.arrays["graph_blocks"])


def _labels_are_right(sections: Sections, records: NDArray[np.int64], labels: NDArray[np.uint32]) -> bool:
    """Say whether the labels are those that were written, which they would not be if they were read elsewhere."""
    if len(records) < _TELLING_RECORDS or not sections.is_intact("graph_record_rows"):
        return False
    return np.array_equal(labels, sections.arrays["graph_record_rows"][records])


def _lie_in(intact: Bools, starts: NDArray[np.int64], *, size_bytes: int) -> Bools:
    """Say of each part of ``size_bytes`` from ``starts`` whether all blocks in which it lies are intact."""
    before = np.concatenate(([0], np.cumsum(~intact)))  # damaged blocks before each
    first, last = starts // BLOCK_BYTES, (starts + size_bytes - 1) // BLOCK_BYTES
    inside = last < len(intact)
    lie: Bools = inside & (before[np.minimum(last + 1, len(intact))] == before[np.minimum(first, len(intact))])
    return lie
