"""Rows that are served already and are written again, or taken out: other descriptions of documents, and trims.

It reads segments and plans; it writes nothing. A row that is written again keeps its text, its offsets and its vector,
and gets a new chunk id, because ids ascend from segment to segment (docs/decisions/0006).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objects.store import ObjectStore
from ..segments.lookups import copy_rows, read_rows
from ..segments.manifests import Manifest
from ..segments.records import DocumentRecord, Documents, Original
from ..segments.rows import Rows
from .successors import Tombstones, rows_of_documents


@dataclass(frozen=True)
class Revision:
    """What a document is to say from now on, its text apart. Times are seconds since 1970."""

    document_id: str
    version_id: str
    number: int
    title: str | None
    metadata: Mapping[str, Any]
    event_time: float | None
    expires_at: float | None
    metadata_hash: bytes

    def applied_to(self, record: DocumentRecord) -> DocumentRecord:
        return replace(
            record,
            version_id=self.version_id,
            number=self.number,
            title=self.title,
            metadata=dict(self.metadata),
            event_time=self.event_time,
            expires_at=self.expires_at,
            text_version_id=record.text_version,
            original=self._original(record),
        )

    def _original(self, record: DocumentRecord) -> Original | None:
        return record.original and {**record.original, "metadata_hash": self.metadata_hash.hex()}


@dataclass(frozen=True)
class Trim:
    """Chunks to take out: those at ``ordinals`` of the text that version ``text_version_id`` brought."""

    id: str
    document_id: str
    text_version_id: str
    ordinals: Collection[int]


@dataclass(frozen=True)
class Rewriting:
    """What revisions and trims do to a manifest.

    Attributes:
        leaving: the live rows that get tombstones, by segment.
        rows, vectors: what is written again.
        trimmed: how many chunks each trim found.
    """

    leaving: Tombstones = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows.empty)
    vectors: NDArray[np.float32] | None = None
    trimmed: Mapping[str, int] = field(default_factory=dict)


def plan_rewriting(
    objects: ObjectStore, manifest: Manifest, *, revisions: Sequence[Revision], trims: Sequence[Trim]
) -> Rewriting:
    """Find the rows of the documents that are revised or trimmed. Costs what they hold, however large the index is.

    Raises:
        Damaged: what is to be written again is not what was written, or a segment contradicts itself.
    """
    if not revisions and not trims:
        return Rewriting()
    revised = {revision.document_id: revision for revision in revisions}
    owners = {*revised, *(trim.document_id for trim in trims)}
    leaving: dict[Any, NDArray[np.uint32]] = {}
    several: list[Rows] = []
    vectors: list[NDArray[np.float32]] = []
    trimmed: dict[str, int] = {trim.id: 0 for trim in trims}
    entries = {entry.id: entry for entry in manifest.segments}
    for segment_id, live in rows_of_documents(objects, manifest, document_ids=owners).items():
        taken = read_rows(objects, entries[segment_id], live)
        records = list(taken.documents)
        dead = _trimmed(taken, records, trims, found=trimmed)
        again = np.array([record.document_id in revised for record in records], np.bool_)[taken.document]
        if (dead | again).any():
            leaving[segment_id] = live[dead | again]
        if (kept := again & ~dead).any():
            copied = copy_rows(objects, entries[segment_id], live[kept], dimensions=manifest.dimensions)
            several.append(_revised(copied[0], revised))
            vectors.append(copied[1])
    rows = Rows.concat(several)
    return Rewriting(leaving, rows, np.concatenate(vectors) if vectors else None, trimmed)


def _trimmed(
    rows: Rows, records: Sequence[DocumentRecord], trims: Sequence[Trim], *, found: dict[str, int]
) -> NDArray[np.bool_]:
    """Return a mask of the rows that a trim takes, and add them to what it has ``found``."""
    mask = np.zeros(len(rows), np.bool_)
    for trim in trims:
        of_text = [
            (record.document_id, record.text_version) == (trim.document_id, trim.text_version_id) for record in records
        ]
        if any(of_text):
            chosen = np.array(of_text, np.bool_)[rows.document] & np.isin(rows.ordinal, np.array([*trim.ordinals]))
            found[trim.id] += int(np.count_nonzero(chosen & ~mask))
            mask |= chosen
    return mask


def _revised(rows: Rows, revised: Mapping[str, Revision]) -> Rows:
    records = [revised[record.document_id].applied_to(record) for record in rows.documents]
    return replace(rows, documents=Documents.of(records))
