"""Reading the files that hnswlib 0.8 saves, without hnswlib: where the records, vectors and links are.

It searches nothing and trusts nothing: sizes are checked against the file when it is opened, the links of every
record by ``check_links``. A search must still bound every link it follows, for the file may rot while it is mapped.

Layout (``saveIndex`` in hnswalg.h), little-endian:
    0   6 x u64  offset of level 0, max elements, count, record bytes, label offset, vector offset
    48  i32 max level, u32 entry point
    56  3 x u64  max_m, max_m0, m;  80 f64 level factor;  88 u64 ef of construction
    96  count records: u32 whose low 16 bits count the links, max_m0 x u32 links, d x f32 vector, u64 label
    then, per record: u32 byte length and that many bytes: for each level above 0, u32 count, max_m x u32 links
"""

import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..objects.mapped_files import open_to_map
from .blocks import spans_match

if TYPE_CHECKING:  # the kernels bring their compiler along, which half of the roles never need
    from ..kernels import Graph

HEADER_BYTES = 96
_HEADER = struct.Struct("<6QiI3QdQ")
_CHECKED_AT_ONCE = 65_536


@dataclass(frozen=True)
class GraphView:
    """A mapped graph. Records are in the order of insertion by several threads, which is not the order of rows.

    ``words`` and ``floats`` are the same level-0 bytes; record ``r`` begins at word ``r * stride``.
    """

    count: int
    dimensions: int
    max_level: int
    entry_point: int  # a record
    max_m: int  # links of a record on each level above 0
    max_m0: int  # links of a record on level 0
    stride: int  # words of a record
    vector_at: int  # words from the start of a record to its vector
    words: NDArray[np.uint32]
    floats: NDArray[np.float32]
    upper: NDArray[np.uint32]  # everything after level 0
    upper_at: NDArray[np.uint32]  # per record: place in ``upper`` of its list for level 1; lists take max_m + 1 words
    record_rows: NDArray[np.uint32]  # per record: its row in the segment

    @cached_property
    def row_records(self) -> NDArray[np.uint32]:
        """The record of each row, u32[count]: the inverse of ``record_rows``."""
        records = np.zeros(self.count, np.uint32)
        records[self.record_rows] = np.arange(self.count, dtype=np.uint32)
        return records

    @cached_property
    def graph(self) -> "Graph":
        """What the kernels walk: the float32 records of the file."""
        return self.graph_of(self.words, stride=self.stride, vector_at=self.vector_at)

    def graph_of(self, words: NDArray[np.uint32], *, stride: int, vector_at: int) -> "Graph":
        """Return what the kernels walk: the links of this graph with records of another form, in the same order."""
        numbers = (self.count, stride, vector_at, self.max_m0, self.max_m, self.max_level, self.entry_point)
        shape = np.array(numbers, np.int64)
        return words, words.view(np.float32), words.view(np.int8), self.upper, self.upper_at, shape

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Return a strided view f32[count, dimensions], in the order of records."""
        records = self.floats.reshape(self.count, self.stride)
        return records[:, self.vector_at : self.vector_at + self.dimensions]

    def row_vectors(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return a copy f32[len(rows), dimensions] of the vectors of these rows."""
        taken: NDArray[np.float32] = self.vectors[self.row_records[rows]]
        return taken


def open_graph(
    path: Path, *, dimensions: int, record_rows: NDArray[np.uint32], upper_at: NDArray[np.uint32]
) -> GraphView:
    """Map a graph file read-only and check its header, its size and where its parts lie.

    Args:
        record_rows, upper_at: what ``record_map`` and ``upper_places`` found when the graph was built.

    Raises:
        Damaged: truncated, not of this many rows or dimensions, or not a file of hnswlib 0.8.
    """
    view = _view(_mapped(path), dimensions=dimensions, record_rows=record_rows, upper_at=upper_at, source=path.name)
    _check_places(view, source=path.name)
    return view


def open_built(path: Path, *, dimensions: int) -> GraphView:
    """Map a graph that was just saved, and find what must be stored beside it. Raises what `open_graph` raises."""
    count, record_bytes = graph_shape(path)
    record_rows = record_map(path, count=count, record_bytes=record_bytes)
    upper_at = upper_places(path, count=count, record_bytes=record_bytes)
    return open_graph(path, dimensions=dimensions, record_rows=record_rows, upper_at=upper_at)


def read_vectors(
    path: Path,
    rows: NDArray[np.uint32],
    *,
    dimensions: int,
    record_rows: NDArray[np.uint32],
    upper_at: NDArray[np.uint32],
    digests: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Return a copy f32[len(rows), dimensions] of the vectors of ascending rows; reads their records, not the graph.

    Args:
        digests: u1[blocks, 16] of the file's blocks: those in which the vectors lie are compared.

    Raises:
        Damaged: as ``open_graph``, a record is not that of its row, or not what was written.
    """
    mapped = _mapped(path)
    view = _view(mapped, dimensions=dimensions, record_rows=record_rows, upper_at=upper_at, source=path.name)
    wanted = np.zeros(view.count, np.bool_)
    wanted[rows] = True
    records = np.flatnonzero(wanted.take(record_rows, mode="clip"))
    records = records[np.argsort(record_rows[records])]
    labels = view.words.reshape(view.count, view.stride)[records, -2]
    if not (np.array_equal(record_rows[records], rows) and np.array_equal(labels, rows)):
        raise Damaged(f"{path.name}: a label is not the row of its record; rebuild the segment")
    ends = HEADER_BYTES + (records + 1) * (4 * view.stride)
    starts = ends - 4 * (view.stride - view.vector_at)  # with the label, which says whose vector it is
    if not spans_match(memoryview(mapped), digests, starts=starts, ends=ends):
        raise Damaged(f"{path.name} does not match the checksums of its blocks; restore or rebuild the segment")
    return view.vectors[records]


def check_links(view: GraphView, *, source: str) -> None:
    """Read the whole graph and check that every link leads to a record and every label is its row's.

    Raises:
        Damaged: naming the first part that is wrong.
    """
    words = view.words.reshape(view.count, view.stride)
    for first in range(0, view.count, _CHECKED_AT_ONCE):
        part = words[first : first + _CHECKED_AT_ONCE]
        counts = part[:, 0] & 0xFFFF
        filled = np.arange(view.max_m0) < counts[:, None]
        if counts.max() > view.max_m0 or (part[:, 1 : 1 + view.max_m0][filled] >= view.count).any():
            raise Damaged(f"{source}: a record links to one that does not exist; rebuild the segment")
        labels = part[:, -2].astype(np.uint64) | part[:, -1].astype(np.uint64) << np.uint64(32)
        if (labels != view.record_rows[first : first + _CHECKED_AT_ONCE]).any():
            raise Damaged(f"{source}: a label is not the row of its record; rebuild the segment")
    _check_upper_links(view, source=source)


def record_map(path: Path, *, count: int, record_bytes: int) -> NDArray[np.uint32]:
    """Return the label of each record as u32[count]: the row it holds."""
    labels = np.memmap(path, "|u1", "r", HEADER_BYTES, (count, record_bytes))[:, -8:-4]
    return np.ascontiguousarray(labels).view("<u4").reshape(-1)


def upper_places(path: Path, *, count: int, record_bytes: int) -> NDArray[np.uint32]:
    """Return, as u32[count], where each record's upper lists begin, in words after level 0."""
    upper = np.fromfile(path, "<u4", offset=HEADER_BYTES + count * record_bytes).tolist()
    places, at = [0] * count, 0
    for record in range(count):
        places[record] = at + 1
        at += 1 + upper[at] // 4
    return np.asarray(places, "<u4")


def graph_shape(path: Path) -> tuple[int, int]:
    """Return the count and the bytes of a record that the file's header states. Raises Damaged: it has no header."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise Damaged(f"{path.name} is truncated: it is shorter than a graph's header")
    _, _, count, record_bytes, *_ = _HEADER.unpack(header)
    return count, record_bytes


def write_counts(file: BinaryIO, count: int) -> None:
    """Write into the header that the file holds ``count`` records, and has room for no more."""
    file.seek(8)
    file.write(struct.pack("<2Q", count, count))


def _mapped(path: Path) -> mmap.mmap:
    with open_to_map(path) as file:
        if file.seek(0, 2) < HEADER_BYTES:
            raise Damaged(f"{path.name} is truncated: it is shorter than a graph's header")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _view(
    mapped: mmap.mmap,
    *,
    dimensions: int,
    record_rows: NDArray[np.uint32],
    upper_at: NDArray[np.uint32],
    source: str,
) -> GraphView:
    level0, _, count, record_bytes, label_at, vector_at, max_level, entry, max_m, max_m0, m, *_ = _HEADER.unpack(
        mapped[:HEADER_BYTES]
    )
    expected = (0, 4 + 4 * max_m0, 4 + 4 * max_m0 + 4 * dimensions, 4 + 4 * max_m0 + 4 * dimensions + 8)
    if (level0, vector_at, label_at, record_bytes) != expected or max_m != m or not 0 < max_m <= max_m0 < 1 << 16:
        raise Damaged(f"{source} is not a graph of {dimensions} dimensions; rebuild the segment")
    if not (count == len(record_rows) == len(upper_at)) or not 0 <= entry < count or not 0 <= max_level < 64:
        raise Damaged(f"{source} has {count} records where its segment has {len(record_rows)} rows, or a wrong entry")
    upper_bytes = len(mapped) - HEADER_BYTES - count * record_bytes
    if upper_bytes < 4 * count or upper_bytes % 4:
        raise Damaged(f"{source} is truncated: {len(mapped)} bytes cannot hold {count} records of {record_bytes} bytes")
    words = np.frombuffer(mapped, "<u4", count * record_bytes // 4, HEADER_BYTES)
    return GraphView(
        count=count,
        dimensions=dimensions,
        max_level=max_level,
        entry_point=entry,
        max_m=max_m,
        max_m0=max_m0,
        stride=record_bytes // 4,
        vector_at=vector_at // 4,
        words=words,
        floats=words.view("<f4"),
        upper=np.frombuffer(mapped, "<u4", upper_bytes // 4, HEADER_BYTES + count * record_bytes),
        upper_at=upper_at,
        record_rows=record_rows,
    )


def _check_places(view: GraphView, *, source: str) -> None:
    """Check that the upper lists follow each other to the end of the file, and that rows and records pair up."""
    places = view.upper_at.astype(np.int64)
    if (places < 1).any() or (places > view.upper.size).any():
        raise Damaged(f"{source}: the lists of upper levels lie outside of the file; rebuild the segment")
    lengths = view.upper[places - 1] // 4
    following = np.append(places[1:], view.upper.size + 1)
    if places[0] != 1 or (places + lengths + 1 != following).any() or (lengths % (view.max_m + 1)).any():
        raise Damaged(f"{source}: the lists of upper levels do not follow each other; rebuild the segment")
    if lengths[view.entry_point] != view.max_level * (view.max_m + 1):
        raise Damaged(f"{source}: the entry point is not on the top level; rebuild the segment")
    if int(view.record_rows.max()) >= view.count:
        raise Damaged(f"{source}: a record belongs to a row that does not exist; rebuild the segment")


def _check_upper_links(view: GraphView, *, source: str) -> None:
    places = view.upper_at.astype(np.int64)
    levels = view.upper[places - 1] // (4 * (view.max_m + 1))
    for level in range(1, view.max_level + 1):
        lists = places[levels >= level] + (level - 1) * (view.max_m + 1)
        table = view.upper[lists[:, None] + np.arange(view.max_m + 1)]
        counts = table[:, 0] & 0xFFFF
        linked = table[:, 1:][np.arange(view.max_m) < counts[:, None]]
        if counts.max() > view.max_m or (linked >= view.count).any() or (levels[linked] < level).any():
            raise Damaged(f"{source}: a link of level {level} leads to no record of that level; rebuild the segment")
