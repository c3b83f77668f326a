"""What a publish asks of a segment without opening it: its chunks, and the rows of some documents. Reads little."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..objects.store import ObjectStore
from .document_keys import find_rows
from .files import SEGMENT_KIND, column, mending, open_container
from .manifests import SegmentEntry
from .rows import DocumentRecord, Documents
from .sections import Sections
from .tombstones import read_deletes


@mending
def read_chunk_ids(objects: ObjectStore, entry: SegmentEntry) -> NDArray[np.uint64]:
    """Return the ascending chunk ids u64[n] of a segment; reads nothing else. Raises as ``open_segment``."""
    sections = open_container(objects, entry.files[0], kind=SEGMENT_KIND)
    return column(sections, "chunk_id", "<u8", count=entry.row_count)


@dataclass(frozen=True)
class Chunks:
    """The live chunks of a segment and whose they are."""

    chunk_ids: NDArray[np.uint64]  # ascending
    document: NDArray[np.uint32]  # positions in ``documents``
    documents: Documents


@mending
def read_chunks(objects: ObjectStore, entry: SegmentEntry) -> Chunks:
    """Read which chunks are live and whose they are; reads nothing else. Raises as ``open_segment``."""
    sections = open_container(objects, entry.files[0], kind=SEGMENT_KIND)
    chunk_ids = column(sections, "chunk_id", "<u8", count=entry.row_count)
    document = column(sections, "document", "<u4", count=entry.row_count)
    documents = Documents(sections.arrays["document_bytes"], sections.arrays["document_offsets"])
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
    return _live_rows_of(objects, entry, open_container(objects, entry.files[0], kind=SEGMENT_KIND), document_ids)


@mending
def read_documents(
    objects: ObjectStore, entry: SegmentEntry, *, document_ids: Iterable[str]
) -> list[tuple[DocumentRecord, int]]:
    """Return those of these documents that have a live chunk here, and how many; reads as little as possible.

    Raises:
        Damaged: the file or the tombstones are missing or not what was written.
    """
    sections = open_container(objects, entry.files[0], kind=SEGMENT_KIND)
    rows = _live_rows_of(objects, entry, sections, document_ids)
    owners, counts = np.unique(column(sections, "document", "<u4", count=entry.row_count)[rows], return_counts=True)
    documents = Documents(sections.arrays["document_bytes"], sections.arrays["document_offsets"])
    return [(documents[owner], count) for owner, count in zip(owners.tolist(), counts.tolist(), strict=True)]


def _live_rows_of(
    objects: ObjectStore, entry: SegmentEntry, sections: Sections, document_ids: Iterable[str]
) -> NDArray[np.uint32]:
    rows = find_rows(
        sections.arrays,
        documents=Documents(sections.arrays["document_bytes"], sections.arrays["document_offsets"]),
        owners=column(sections, "document", "<u4", count=entry.row_count),
        document_ids=document_ids,
        in_order=bool(sections.meta.get("documents_in_order")),
    )
    return np.setdiff1d(rows, read_deletes(objects, entry), assume_unique=True) if len(rows) else rows
