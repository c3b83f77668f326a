"""What is asked of a segment without opening it: its chunks, and the rows of some documents. Reads little."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..objects.store import ObjectStore
from .blocks import BLOCK_BYTES, DIGEST_BYTES
from .document_keys import KeyList, find_rows
from .files import column, mapped, mending, open_segment_file
from .graph_files import read_vectors
from .manifests import SegmentEntry
from .ragged import joined_ranges
from .records import Documents
from .rows import IDENTITY_BYTES, Rows
from .sections import Sections
from .tombstones import read_deletes

TELLING = ("chunk_id", "document", "document_bytes", "document_offsets")  # what chunks there are, and whose
_KEY_MAX = (1 << 64) - 1
_RAGGED = ("_bytes", "_offsets")
_COLUMNS = [one.name for one in fields(Rows) if one.name != "documents" and not one.name.endswith(_RAGGED)]


@mending
def read_chunk_ids(objects: ObjectStore, entry: SegmentEntry) -> NDArray[np.uint64]:
    """Return the ascending chunk ids u64[n] of a segment; reads nothing else. Raises as ``open_segment``."""
    sections = open_segment_file(objects, entry)
    return column(sections, "chunk_id", "<u8", count=entry.row_count)


@dataclass(frozen=True)
class Chunks:
    """The live chunks of a segment and whose they are."""

    chunk_ids: NDArray[np.uint64]  # ascending
    document: NDArray[np.uint32]  # positions in ``documents``
    documents: Documents


@mending
def read_chunks(objects: ObjectStore, entry: SegmentEntry) -> Chunks:
    """Read which chunks are live and whose they are; reads nothing else.

    Raises:
        Damaged: what tells them is missing or not what was written.
    """
    sections = open_segment_file(objects, entry)
    sections.verify(*TELLING)
    chunk_ids = column(sections, "chunk_id", "<u8", count=entry.row_count)
    document = column(sections, "document", "<u4", count=entry.row_count)
    documents = _documents(sections)
    if entry.deleted_count:
        dead = read_deletes(objects, entry)
        chunk_ids, document = np.delete(chunk_ids, dead), np.delete(document, dead)
    return Chunks(chunk_ids, document, documents)


@mending
def read_document_rows(objects: ObjectStore, entry: SegmentEntry, *, document_ids: Iterable[str]) -> NDArray[np.uint32]:
    """Return the ascending live rows u32 of these documents; reads a few places of the file only.

    Raises:
        Damaged: the file or the tombstones are missing or not what was written.
    """
    return _live_rows_of(objects, entry, open_segment_file(objects, entry), document_ids)


class DocumentChunks:
    """The documents of a segment in the order of their keys, and their live chunks. Maps what it reads."""

    def __init__(self, sections: Sections, *, rows: int, dead: NDArray[np.uint32]) -> None:
        """``rows``: how many there are; ``dead``: u32[k], those that are tombstoned, ascending. Raises Damaged."""
        self._data, self._offsets = (documents := _documents(sections)).data, documents.offsets
        self.count = len(documents)
        listed = KeyList.from_sections(sections, count=self.count)
        listed.check()
        self._keys, self._order = listed.keys, listed.order
        self._chunk_ids = column(sections, "chunk_id", "<u8", count=rows)
        self._owners = column(sections, "document", "<u4", count=rows)
        self._rows: NDArray[np.uint32] | None = None
        self._dead = dead
        if not sections.meta.get("documents_in_order"):
            self._rows = np.argsort(self._owners, kind="stable").astype("<u4")
            self._owners = self._owners[self._rows]
        if (self._owners[1:] < self._owners[:-1]).any() or int(self._owners[-1]) >= self.count:
            raise Damaged(f"{sections.source}: whose the chunks are is not what was written; restore or rebuild it")

    def place_of(self, key: int) -> int:
        """Return how many documents have a lower key."""
        return self.count if key > _KEY_MAX else int(np.searchsorted(self._keys, np.uint64(key)))

    def key_at(self, place: int) -> int:
        """Return the key of the document at this place, behind the last one what is above every key."""
        return int(self._keys[place]) if place < self.count else _KEY_MAX + 1

    def documents_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the keys at these places and the positions in ``new_documents``."""
        return self._keys[places], self._order[places].astype(np.int64)

    def live_chunks_of(self, documents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the live chunks of the documents at these positions: whose each is, by its index, and its id."""
        wanted = documents.astype("<u4")
        starts, ends = (np.searchsorted(self._owners, wanted, side) for side in ("left", "right"))
        owners = np.repeat(np.arange(len(wanted)), ends - starts)
        rows = joined_ranges(starts, ends).astype("<u4")
        rows = rows if self._rows is None else self._rows[rows]
        if len(self._dead):
            at = np.minimum(np.searchsorted(self._dead, rows), len(self._dead) - 1)
            live = self._dead[at] != rows
            owners, rows = owners[live], rows[live]
        return owners, self._chunk_ids[rows]

    def new_documents(self) -> Documents:
        """Return the documents; what they remember goes with what is returned."""
        return Documents(self._data, self._offsets)


@mending
def open_document_chunks(objects: ObjectStore, entry: SegmentEntry) -> DocumentChunks:
    """Map what tells whose chunks are live in a segment. Raises as ``open_segment``."""
    sections = open_segment_file(objects, entry)
    return DocumentChunks(sections, rows=entry.row_count, dead=read_deletes(objects, entry))


@mending
def read_rows(objects: ObjectStore, entry: SegmentEntry, rows: NDArray[np.uint32]) -> Rows:
    """Return a copy of these ascending rows, to look at. Reads what they hold, and compares no checksum.

    Raises:
        Damaged: a file is missing, or what it says of these rows contradicts itself.
    """
    return Rows.read(open_segment_file(objects, entry), rows)


@mending
def copy_texts(objects: ObjectStore, entry: SegmentEntry, rows: NDArray[np.uint32]) -> Rows:
    """Return a copy of these ascending rows without their vectors, compared as ``copy_rows`` does it.

    Raises:
        Damaged: a file is missing, or what it holds of these rows is not what was written.
    """
    sections = open_segment_file(objects, entry)
    taken = Rows.read(sections, rows)
    _verify_rows(sections, rows)
    return taken


@mending
def copy_rows(
    objects: ObjectStore, entry: SegmentEntry, rows: NDArray[np.uint32], *, dimensions: int
) -> tuple[Rows, NDArray[np.float32]]:
    """Return a copy of these ascending rows and of their vectors f32[len(rows), d], to be written again.

    The blocks in which they lie are compared with their checksums, and no others: what is written again gets new ones,
    under which nobody would notice what had rotted before.

    Raises:
        Damaged: a file is missing, or what it holds of these rows is not what was written.
    """
    sections = open_segment_file(objects, entry)
    taken = Rows.read(sections, rows)
    _verify_rows(sections, rows)
    return taken, _copied_vectors(objects, entry, sections, rows, dimensions=dimensions)


@mending
def copy_vectors(
    objects: ObjectStore, entry: SegmentEntry, rows: NDArray[np.uint32], *, dimensions: int
) -> NDArray[np.float32]:
    """Return a copy f32[len(rows), d] of the vectors of these ascending rows, compared as ``copy_rows`` does it.

    Raises:
        Damaged: a file is missing, or what it holds of these vectors is not what was written.
    """
    return _copied_vectors(objects, entry, open_segment_file(objects, entry), rows, dimensions=dimensions)


@dataclass(frozen=True)
class IdentifiedChunks:
    """Live chunks of a segment: the document and the text of each."""

    rows: NDArray[np.uint32]  # ascending
    document_ids: list[str]
    identity: list[bytes]  # as ``Rows.identity``


@mending
def read_identities(objects: ObjectStore, entry: SegmentEntry, *, document_ids: Iterable[str]) -> IdentifiedChunks:
    """Return the live chunks of these documents; reads a few places of the file only. Raises Damaged."""
    sections = open_segment_file(objects, entry)
    rows = _live_rows_of(objects, entry, sections, document_ids)
    if not len(rows):
        return IdentifiedChunks(rows, [], [])
    identity = column(sections, "identity", "|u1", count=entry.row_count, width=IDENTITY_BYTES)
    for name in ("document", "identity"):
        sections.verify_items(name, rows)
    documents, owners = _documents(sections), sections.arrays["document"][rows].tolist()
    names = {owner: documents.id_of(owner) for owner in set(owners)}
    return IdentifiedChunks(rows, [names[owner] for owner in owners], [bytes(one) for one in identity[rows]])


def _copied_vectors(
    objects: ObjectStore, entry: SegmentEntry, sections: Sections, rows: NDArray[np.uint32], *, dimensions: int
) -> NDArray[np.float32]:
    if entry.kind == "flat":
        vectors = column(sections, "vectors", "<f4", count=entry.row_count, width=dimensions)
        sections.verify_items("vectors", rows)
        return vectors[rows]
    record_rows, upper_at = (
        column(sections, name, "<u4", count=entry.row_count) for name in ("graph_record_rows", "graph_upper_at")
    )
    blocks = -(-entry.files[1].size_bytes // BLOCK_BYTES)
    digests = column(sections, "graph_blocks", "|u1", count=blocks, width=DIGEST_BYTES)
    read = partial(read_vectors, rows=rows, dimensions=dimensions, record_rows=record_rows, upper_at=upper_at)
    return mapped(objects, entry.files[1], partial(read, digests=digests))


def _verify_rows(sections: Sections, rows: NDArray[np.uint32]) -> None:
    """Compare the blocks of all that is copied with ``rows``. Where texts lie is compared first, then the texts."""
    for name in _COLUMNS:
        sections.verify_items(name, rows)
    owners = np.unique(sections.arrays["document"][rows])
    for name, items in (("text", rows), ("heading", rows), ("document", owners)):
        offsets, positions = sections.arrays[f"{name}_offsets"], items.astype(np.int64)
        sections.verify_items(f"{name}_offsets", np.concatenate([positions, positions + 1]))
        sections.verify_spans(
            f"{name}_bytes", offsets[positions].astype(np.int64), offsets[positions + 1].astype(np.int64)
        )


def _documents(sections: Sections) -> Documents:
    missing = {"document_bytes", "document_offsets"} - sections.arrays.keys()
    if missing:
        raise Damaged(f"{sections.source} lacks the sections {', '.join(sorted(missing))}")
    return Documents(sections.arrays["document_bytes"], sections.arrays["document_offsets"])


def _live_rows_of(
    objects: ObjectStore, entry: SegmentEntry, sections: Sections, document_ids: Iterable[str]
) -> NDArray[np.uint32]:
    owners = column(sections, "document", "<u4", count=entry.row_count)
    rows = find_rows(sections, documents=_documents(sections), owners=owners, document_ids=document_ids)
    return np.setdiff1d(rows, read_deletes(objects, entry), assume_unique=True) if len(rows) else rows
