"""Making an index hold what the ledger says: what must not be live is buried, what is not whole is to be indexed again.

It writes tombstones under new names, and says which documents have to start again. It changes nothing that exists.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from ..catalog.tables import versions
from ..catalog.values import slices
from ..ids import CollectionId, DocumentId
from ..objects.store import ObjectStore
from ..publishing.revisions import Trim, plan_rewriting
from ..publishing.successors import bury
from ..segments.manifests import Manifest, SegmentEntry
from ..segments.records import DocumentRecord
from ..segments.segment import open_segment
from ..segments.tombstones import read_deletes
from .contents import Indexed, Text, read_contents


@dataclass(frozen=True)
class Reconciled:
    """A manifest that holds nothing but what the ledger indexes, and the documents of which it lacks something."""

    manifest: Manifest
    lost: Sequence[DocumentId]
    buried: int  # chunks


def reconcile(objects: ObjectStore, manifest: Manifest, *, indexed: Indexed, trims: Sequence[Trim]) -> Reconciled:
    """Bury what the ledger does not index, what was trimmed, and what is left of documents that are not whole.

    Args:
        trims: of chunks of documents that the ledger indexes; the older segments know nothing of the latest.

    Raises:
        Damaged: a segment is not what was written.
    """
    before = manifest.live_chunks
    excess = read_contents(objects, manifest.segments).excess(indexed)
    # A rollback may have brought trimmed chunks back on purpose; then the ledger counts them.
    needed = [trim for trim in trims if trim.document_id in excess]
    leaving = plan_rewriting(objects, manifest, revisions=(), trims=needed).leaving
    manifest = bury(objects, manifest, doomed=leaving)
    lost = read_contents(objects, manifest.segments).difference(indexed).lost
    gone = set(lost)
    said = {document_id: found for document_id, found in indexed.items() if document_id not in gone}
    doomed = {
        entry.id: rows
        for entry in manifest.segments
        if len(rows := _rows_to_bury(objects, entry, said=said, dimensions=manifest.dimensions))
    }
    manifest = bury(objects, manifest, doomed=doomed)
    return Reconciled(manifest, lost, before - manifest.live_chunks)


def read_trims(connection: Connection, collection_id: CollectionId, documents: Collection[DocumentId]) -> list[Trim]:
    """Return the trims of these documents that were done and that the ledger still knows."""
    wanted = sa.select(versions.c.id, versions.c.document_id, versions.c.details)
    wanted = wanted.where(versions.c.collection_id == collection_id, versions.c.state == "trimmed")
    found: list[Trim] = []
    for some in slices(sorted(documents)):
        for row in connection.execute(wanted.where(versions.c.document_id.in_(some))):
            details = row.details or {}
            if details:
                found.append(
                    Trim(
                        row.id,
                        row.document_id,
                        text_version_id=details["text_version"],
                        ordinals=details["ordinals"],
                    )
                )
    return found


def _rows_to_bury(objects: ObjectStore, entry: SegmentEntry, *, said: Indexed, dimensions: int) -> NDArray[np.uint32]:
    """Return the live rows of a segment whose document version is not among those ``said``."""
    segment = open_segment(objects, entry, dimensions=dimensions)
    stray = np.array([not _is_said(said, record) for record in segment.documents], np.bool_)
    rows = np.flatnonzero(stray[segment.rows.document]).astype("<u4")
    return np.setdiff1d(rows, read_deletes(objects, entry), assume_unique=True)


def _is_said(said: Indexed, record: DocumentRecord) -> bool:
    found = said.get(DocumentId(record.document_id))
    return found is not None and found.is_told_by(Text.of(record))
