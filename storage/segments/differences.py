"""What differs between two versions of a generation, document by document.

Chunks never change and keep their ids for good, so only segments that one version names and the other does not, or
names with other tombstones, are read; and of the documents in them only those whose chunks came or went. It goes
through them in the order of their hashed ids, in which every segment lists its documents: as many at a time as fit into
a slice, so that memory goes with the slice and not with what differs. It reads objects and changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..objects.store import ObjectStore
from .document_keys import key_of
from .files import drop_damaged_copies
from .lookups import DocumentChunks, open_document_chunks
from .manifests import Manifest, segments_of
from .records import DocumentRecord, Documents, Original
from .version_changes import VersionChange, VersionChanges

T = TypeVar("T")

_SLICE_DOCUMENTS = 4_096  # of all segments together that are looked at at a time


@dataclass(frozen=True)
class Served:
    """A document as one version serves it, by ``chunks`` chunks."""

    document: DocumentRecord
    chunks: int


@dataclass(frozen=True)
class Change:
    """A document that the versions serve differently. One of the two is None: it was added, or removed."""

    before: Served | None
    after: Served | None

    @property
    def document(self) -> DocumentRecord:
        """The document as the later version that has it serves it."""
        served = self.after or self.before
        assert served is not None
        return served.document


@dataclass(frozen=True)
class ChangeCounts:
    """How many documents differ, and how."""

    added: int = 0
    changed: int = 0
    removed: int = 0


@dataclass(frozen=True)
class _Place:
    """Where a segment has a document, with ``chunks`` live chunks."""

    documents: Documents
    position: int
    chunks: int


@dataclass
class _Found:
    """A document that differs, not decoded yet, and where the segments of each version have it."""

    key: int
    document_id: str
    before: list[_Place] = field(default_factory=list)
    after: list[_Place] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, str]:
        """What `rank` returns for it."""
        return self.key, self.document_id

    def decoded(self) -> Change:
        return Change(_served(self.before), _served(self.after))


class Comparison:
    """What differs from version ``before`` to version ``after``; None is a version without any document.

    The segments stay mapped as long as this is held: to go through it asks the object store nothing. It is gone through
    as often as somebody asks, each time with the memory of a slice.
    """

    def __init__(self, objects: ObjectStore, before: Manifest | None, after: Manifest | None) -> None:
        """Open what differs.

        Raises:
            Damaged: a segment or its tombstones are missing or not what was written.
        """
        old, new = segments_of(before), segments_of(after)
        self._objects = objects
        self._former = [entry for entry in old if entry not in new]
        self._latter = [entry for entry in new if entry not in old]
        self._open()

    def changes(self, *, after: str | None = None) -> Iterator[Change]:
        """Yield the documents that differ in the order of `rank`, those behind the document ``after``.

        A document is decoded when it is asked for.

        Raises:
            Damaged: a segment is not what was written.
        """
        return (found.decoded() for found in self._found(after=after))

    def page(self, *, after: str | None = None, limit: int) -> list[Change]:
        """Return the first ``limit`` of ``changes``. A damaged local copy is downloaded again.

        Raises as ``changes``.
        """
        return self._mended(lambda: list(islice(self.changes(after=after), limit)))

    def counts(self) -> ChangeCounts:
        """Count the documents that differ; decodes none, and mends as ``page``. Raises as ``changes``."""
        return self._mended(self._counted)

    def version_changes(self) -> VersionChanges:
        """Go through everything, and return what the catalog is told of it; mends as ``page``.

        Raises as ``changes``, and when a document tells what none has.
        """
        return self._mended(lambda: VersionChanges.of(map(_of_versions, self.changes())))

    def _mended(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Damaged:
            if not drop_damaged_copies(self._objects, [*self._former, *self._latter]):
                raise
            self._open()
            return read()

    def _counted(self) -> ChangeCounts:
        added = changed = removed = 0
        for found in self._found():
            added += not found.before
            removed += not found.after
            changed += bool(found.before and found.after)
        return ChangeCounts(added, changed, removed)

    def _open(self) -> None:
        self._parts = [
            (is_after, open_document_chunks(self._objects, entry))
            for is_after, entries in ((False, self._former), (True, self._latter))
            for entry in entries
        ]

    def _found(self, *, after: str | None = None) -> Iterator[_Found]:
        parts = self._parts
        if not parts:
            return
        last = (0, "") if after is None else rank(after)
        begin, at_most = last[0], max(1, _SLICE_DOCUMENTS // len(parts))
        places = [part.place_of(begin) for _, part in parts]
        while any(place < part.count for place, (_, part) in zip(places, parts, strict=True)):
            end = min(part.key_at(place + at_most) for place, (_, part) in zip(places, parts, strict=True))
            end = max(end, begin + 1)
            ends = [part.place_of(end) for _, part in parts]
            spans = [
                _Span(is_after, part, np.arange(place, stop))
                for (is_after, part), place, stop in zip(parts, places, ends, strict=True)
                if stop > place
            ]
            yield from (found for found in _differing(spans) if found.rank > last)
            begin, places = end, ends


def rank(document_id: str) -> tuple[int, str]:
    """Return what the documents of a comparison are ordered by."""
    return key_of(document_id), document_id


class _Span:
    """Some documents of one segment, by key: all of a key, or none."""

    def __init__(self, is_after: bool, part: DocumentChunks, places: NDArray[np.int64]) -> None:
        self.is_after = is_after
        self.keys, self.positions = part.documents_at(places)
        self.owners, self.chunk_ids = part.live_chunks_of(self.positions)  # owners: indexes into the two above
        self.counts = np.bincount(self.owners, minlength=len(self.positions))
        self.documents = part.new_documents()

    def differing(self, chunk_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the indexes of the documents that own one of these chunks, which ascend."""
        at = np.minimum(np.searchsorted(chunk_ids, self.chunk_ids), len(chunk_ids) - 1)
        return np.unique(self.owners[chunk_ids[at] == self.chunk_ids])

    def with_keys(self, keys: NDArray[np.uint64]) -> list[int]:
        """Return the indexes of the documents that have one of these keys and a live chunk, in the order of rows."""
        found = np.flatnonzero(np.isin(self.keys, keys) & (self.counts > 0))
        return [int(index) for index in found[np.argsort(self.positions[found], kind="stable")]]

    def raw_id(self, index: int) -> bytes:
        return self.documents.raw_id(int(self.positions[index]))

    def found(self, index: int) -> _Found:
        return _Found(int(self.keys[index]), self.documents.id_of(int(self.positions[index])))

    def place(self, index: int) -> _Place:
        return _Place(self.documents, int(self.positions[index]), int(self.counts[index]))


def _differing(spans: Sequence[_Span]) -> list[_Found]:
    """Return the documents that differ among those of these spans, in the order of `rank`."""
    former, latter = (_chunk_ids(span for span in spans if span.is_after == side) for side in (False, True))
    chunk_ids = np.setxor1d(former, latter, assume_unique=True)
    if not len(chunk_ids):
        return []
    found: dict[bytes, _Found] = {}  # by their ids as they stand in the segments
    keys: list[NDArray[np.uint64]] = []
    for span in spans:
        touched = span.differing(chunk_ids)
        keys.append(span.keys[touched])
        for index in touched.tolist():
            if (raw := span.raw_id(index)) not in found:
                found[raw] = span.found(index)
    touched_keys = np.concatenate(keys)
    for span in spans:
        for index in span.with_keys(touched_keys):
            if (one := found.get(span.raw_id(index))) is not None:  # else another document with the same key
                (one.after if span.is_after else one.before).append(span.place(index))
    return sorted(found.values(), key=lambda one: one.rank)


def _chunk_ids(spans: Iterable[_Span]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, "<u8"), *(span.chunk_ids for span in spans)])


def _served(places: Sequence[_Place]) -> Served | None:
    if not places:
        return None
    last = places[-1]
    return Served(last.documents[last.position], sum(place.chunks for place in places))


def _of_versions(change: Change) -> VersionChange:
    before, after = change.before, change.after
    original = after.document.original if after else None
    return VersionChange(
        document_id=change.document.document_id,
        before=before.document.number if before else None,
        after=after.document.number if after else None,
        chunks=after.chunks if after else 0,
        content_hash=None if original is None else _hash_of(original),
    )


def _hash_of(original: Original) -> bytes:
    try:
        return bytes.fromhex(original["content_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(
            "a document record tells no hash of its bytes: its segment was overwritten; restore it"
        ) from error
