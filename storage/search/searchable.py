"""Opened segments as searches share them: with the field index, and what a scan and a walk need of the vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..errors import Damaged
from ..segments.codes import CodedRows
from ..segments.columns import Kind
from ..segments.fields import FieldIndex
from ..segments.ragged import joined_ranges
from ..segments.segment import OpenSegment
from . import planner
from .found import Bools, Longs
from .warming import touch


class Texts(NamedTuple):
    """Where the texts of a segment are read: see `kernels.walk_and_read`."""

    descriptor: int  # -1: they are mapped
    place: int
    offsets: NDArray[np.uint64]


KNOWN_PATHS = 1_024  # of which a segment remembers the kinds


class SearchableSegment:
    """An opened segment with its field index, shared by every version that names it. Safe between threads."""

    def __init__(self, segment: OpenSegment, *, costs: planner.Costs = planner.TYPICAL) -> None:
        self.segment = segment
        self.costs = costs
        self.fields = FieldIndex.from_arrays(segment.sections.arrays, document_count=len(segment.documents))
        self.first_expiry = float(segment.expires_at.min())
        self.is_walked = segment.is_walked
        self._kinds: dict[str, frozenset[Kind]] = {}

    def kinds(self, path: str) -> frozenset[Kind]:
        """Return the kinds of value that documents of the segment hold at ``path`` itself, deleted ones included."""
        found = self._kinds.get(path)
        if found is None:
            if len(self._kinds) >= KNOWN_PATHS:  # whoever asks chooses the paths
                self._kinds.clear()
            with self.reading_fields():
                found = self._kinds[path] = frozenset(self.fields.kinds(path))
        return found

    @contextmanager
    def reading_fields(self) -> Iterator[None]:
        """Translate what a rotten field index makes of a lookup: large files are not read when they are opened."""
        try:
            yield
        except (IndexError, ValueError) as error:
            name = self.segment.entry.files[0].name
            raise Damaged(f"{name}: the field index contradicts itself; restore or rebuild the segment") from error

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """i64[n]: where the vector of each row stands in `floats`, in words."""
        graph, count = self.segment.graph, self.segment.entry.row_count
        if graph is None:
            assert self.segment.vectors is not None
            width = self.segment.vectors.shape[1]
            return np.arange(0, count * width, width, dtype=np.int64)
        records: NDArray[np.int64] = np.empty(count, np.int64)
        records[graph.record_rows] = np.arange(count)
        records *= graph.stride
        records += graph.vector_at
        return records

    @property
    def coded(self) -> CodedRows:
        assert self.segment.codes is not None, "a graph has codes"
        return self.segment.codes

    @cached_property
    def floats(self) -> NDArray[np.float32]:
        """All words of the file part that holds the vectors, flat and read-only."""
        if self.segment.graph is not None:
            return self.segment.graph.floats
        assert self.segment.vectors is not None
        return self.segment.vectors.reshape(-1)

    @cached_property
    def texts(self) -> Texts:
        payload, offsets = self.segment.payload, self.segment.sections.arrays["text_offsets"]
        return Texts(*(payload.place("text_bytes") if payload else (-1, 0)), offsets)

    def warm(self) -> None:
        """Map what a search walks, and compute what it needs, before one comes. Takes a while for a large graph."""
        _ = self.places
        if self.segment.graph is None:
            touch(self.floats)
            return
        walked = self.segment.rounded or self.segment.graph
        for array in (walked.graph[0], walked.graph[3], self.coded.heads, self.coded.tails):
            touch(array)

    def rows_of(self, documents: Longs) -> Longs:
        """Return the rows of documents, both ascending, where the rows of each stand together; see `in_order`.

        Raises:
            Damaged: the mapped column does not ascend any more.
        """
        owners = self.segment.rows.document
        wanted = documents.astype(owners.dtype)
        first, end = np.searchsorted(owners, wanted, "left"), np.searchsorted(owners, wanted, "right")
        counts = end - first
        rows = joined_ranges(first, end) if not (counts < 0).any() else None
        if rows is None or (owners[rows] != np.repeat(wanted, counts)).any():
            name = self.segment.entry.files[0].name
            raise Damaged(f"{name}: the rows of a document do not stand together; restore or rebuild the segment")
        return rows

    def rows_accepted(self, documents: Bools) -> Bools:
        """Return bool[n], what ``documents`` says of the owner of each row; it may be ``documents`` itself."""
        if self.one_to_one:
            return documents
        owners = self.segment.rows.document
        mask = np.empty(len(owners), np.bool_)
        if not kernels.spread(documents, owners, mask):
            name = self.segment.entry.files[0].name
            raise Damaged(f"{name}: a row belongs to a document that is not there; restore or rebuild the segment")
        return mask

    @cached_property
    def one_to_one(self) -> bool:
        """Whether each row is a document of its own, in the same order. Looked at once."""
        owners = self.segment.rows.document  # equal counts do not tell: a document may have no row, another two
        return len(self.segment.documents) == len(owners) and bool((owners == np.arange(len(owners))).all())

    @cached_property
    def in_order(self) -> bool:
        return bool(self.segment.sections.meta.get("documents_in_order"))
