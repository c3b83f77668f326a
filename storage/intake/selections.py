"""Which documents or chunks of an opened version are meant: by a filter, or by chunk ids. It changes nothing.

What is selected is a list of ids of that moment: a document that arrives later is not on it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..ids import ManifestVersion
from ..search.mismatches import check_kinds
from ..search.readers import SegmentReader
from ..search.versions import Snapshot
from ..segments.fields import Filter
from .trims import LocatedChunk

_ALWAYS = float("-inf")  # a moment at which nothing has expired yet


@dataclass(frozen=True)
class Selection:
    """The ids of the documents that a filter accepts in one version, ascending."""

    version: ManifestVersion
    document_ids: list[str]


def select_documents(snapshot: Snapshot, filter: Filter, *, now: float) -> Selection:  # noqa: A002
    """Return the documents with a chunk that a search with this filter could find at ``now``.

    Raises:
        FilterMismatch: the filter compares a field with a kind of value that no document holds there.
        Damaged: a segment is not what was written.
    """
    check_kinds(filter, snapshot.readers.values())
    ids: set[str] = set()  # nothing else of each: a filter may accept millions
    for reader in snapshot.readers.values():
        rows = reader.accepted(filter, now=now).rows()
        owners = reader.segment.rows.document if rows is None else reader.segment.rows.document[rows]
        documents = reader.segment.documents
        ids.update(map(documents.id_of, np.unique(owners).tolist()))
    return Selection(snapshot.version, sorted(ids))


def locate_chunks(snapshot: Snapshot, chunk_ids: Collection[int]) -> list[LocatedChunk]:
    """Return where those of the chunks are that this version holds; the others are left out."""
    wanted = np.array(sorted({chunk_id for chunk_id in chunk_ids if 0 < chunk_id < 1 << 63}), "<u8")
    return [chunk for reader in snapshot.readers.values() for chunk in _located(reader, wanted)]


def _located(reader: SegmentReader, wanted: np.typing.NDArray[np.uint64]) -> list[LocatedChunk]:
    segment = reader.segment
    first, end = np.searchsorted(wanted, [segment.entry.first_chunk_id, segment.entry.last_chunk_id + 1])
    here = wanted[first:end]
    rows = np.searchsorted(segment.chunk_ids, here)
    rows = rows[segment.chunk_ids[rows] == here] if len(here) else rows
    live = reader.accepted(None, now=_ALWAYS).as_mask(segment.entry.row_count)
    found = []
    for row in (rows if live is None else rows[live[rows]]).tolist():
        record = segment.documents[int(segment.rows.document[row])]
        found.append(LocatedChunk(record.document_id, record.text_version, int(segment.rows.ordinal[row])))
    return found
