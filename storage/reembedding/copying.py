"""What is copied from a generation: which documents come next, and their chunks as they are served. Reads objects."""

from collections.abc import Sequence

import numpy as np

from ..objects.store import ObjectStore
from ..publishing.successors import rows_of_documents
from ..segments.differences import Comparison
from ..segments.lookups import copy_texts
from ..segments.manifests import Manifest
from ..segments.rows import Rows
from .records import ReembeddingInfo
from .slices import MAX_DOCUMENTS, cut_slices
from .steps import Plan


def plan_next(
    comparison: Comparison,
    info: ReembeddingInfo,
    *,
    manifest: str,
    part_chunks: int,
    parts: int,
) -> Plan:
    """Return the slices of the documents that come next among those that differ: up to about ``parts`` parts.

    Args:
        manifest: the object of the version that is copied, the later one of the comparison.

    Raises:
        Damaged: a segment is not what was written.
    """
    limit = parts * MAX_DOCUMENTS
    changes = comparison.page(after=info.cursor, limit=limit)
    sums = np.cumsum([change.after.chunks if change.after else 0 for change in changes])
    taken = int(np.searchsorted(sums, parts * part_chunks)) + 1
    whole = len(changes) < limit and taken >= len(changes)
    some, known = changes[:taken], info.base_version > 0
    groups = list(cut_slices(some, manifest=manifest, part_chunks=part_chunks, recuts=info.recuts, known=known))
    cursor = some[-1].document.document_id if some else info.cursor
    return Plan(groups, cursor, whole, "chunk" if info.recuts else "embed")


def read_chunks(objects: ObjectStore, manifest: Manifest, *, document_ids: Sequence[str]) -> Rows:
    """Return the chunks of these documents as a version serves them: by document, then in the order of their text.

    Raises:
        Damaged: a segment is missing or not what was written.
    """
    entries = {entry.id: entry for entry in manifest.segments}
    found = rows_of_documents(objects, manifest, document_ids=document_ids)
    rows = Rows.concat([copy_texts(objects, entries[segment], live) for segment, live in found.items()])
    places = {document_id: place for place, document_id in enumerate(document_ids)}
    of_document = np.array([places[one] for one in rows.document_ids], np.int64)
    order = np.lexsort((rows.ordinal, of_document[rows.document])) if len(rows) else np.empty(0, np.int64)
    return rows.take(order)
